//! The operator's command, run as an operator runs it.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use serde_json::Value;

use crate::{
    Outcome, Wrong,
    process::{Answer, Process, complete},
    programs,
};

/// Longest time that one command may take; those that wait say so by themselves before that.
const PATIENCE: Duration = Duration::from_secs(120);
/// What `--wait` may take.
const WAIT: &str = "90s";

/// The command with the settings of one person.
#[derive(Debug, Clone)]
pub struct Cli {
    program: PathBuf,
    /// Addresses of the nodes to talk to.
    pub servers: Vec<String>,
    credentials: Option<PathBuf>,
    /// Home of the person, with nothing in it but what commands write.
    home: PathBuf,
}

impl Cli {
    /// A person with credentials and a home of their own.
    pub fn new(servers: Vec<String>, credentials: &Path, home: &Path) -> Outcome<Self> {
        let (credentials, home) = (Some(credentials.to_owned()), home.to_owned());
        Ok(Self { program: programs::find(programs::CLI)?, servers, credentials, home })
    }

    /// The same person, speaking to these nodes only.
    #[must_use]
    pub fn speaking_to(&self, servers: &[String]) -> Self {
        Self { servers: servers.to_vec(), ..self.clone() }
    }

    /// The same place, another person.
    #[must_use]
    pub fn with_credentials(&self, credentials: Option<&Path>) -> Self {
        Self { credentials: credentials.map(Path::to_owned), ..self.clone() }
    }

    /// The command, ready to run. Nothing of the tester's own settings reaches it.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("SUPERCLOUD_") {
                command.env_remove(name);
            }
        }
        command
            .env("HOME", &self.home)
            .env_remove("XDG_CONFIG_HOME")
            .env("SUPERCLOUD_SERVER", self.servers.join(","));
        if let Some(credentials) = &self.credentials {
            command.env("SUPERCLOUD_CREDENTIALS", credentials);
        }
        command.args(arguments);
        command
    }

    /// Runs it to its end.
    pub fn run(&self, arguments: &[&str]) -> Outcome<Answer> {
        complete(&mut self.command(arguments), b"", PATIENCE)
    }

    /// Runs it with something on its standard input.
    pub fn run_with(&self, arguments: &[&str], input: &str) -> Outcome<Answer> {
        complete(&mut self.command(arguments), input.as_bytes(), PATIENCE)
    }

    /// Runs it and expects exit code 0; gives standard output.
    pub fn ok(&self, arguments: &[&str]) -> Outcome<String> {
        Ok(self.run(arguments)?.with_code(0)?.stdout)
    }

    /// Runs it with `-o json` and gives what it prints.
    pub fn json(&self, arguments: &[&str]) -> Outcome<Value> {
        let text = self.ok(&[arguments, &["-o", "json"]].concat())?;
        serde_json::from_str(&text).map_err(|error| Wrong(format!("no JSON ({error}): {text}")).into())
    }

    /// Starts it and leaves it running, for what follows a stream.
    pub fn follow(&self, arguments: &[&str], log: &Path) -> Outcome<Process> {
        Process::start(&arguments.join(" "), &mut self.command(arguments), log)
    }

    /// Applies a text of specs.
    pub fn apply(&self, specs: &str) -> Outcome<Answer> {
        self.run_with(&["apply", "-f", "-"], specs)?.with_code(0)
    }

    /// Applies a text of specs and waits until all of it runs.
    pub fn apply_and_wait(&self, specs: &str) -> Outcome<Answer> {
        self.run_with(&["apply", "-f", "-", "--wait", "--timeout", WAIT], specs)?.with_code(0)
    }

    /// Stops a workload and waits until nothing of it is left.
    pub fn stop_and_wait(&self, workload: &str) -> Outcome<Answer> {
        self.run(&["stop", workload, "--wait", "--timeout", WAIT])?.with_code(0)
    }

    /// One workload with its instances.
    pub fn workload(&self, workload: &str) -> Outcome<Value> {
        self.json(&["workload", "show", workload])
    }

    /// The instances of a workload that are wanted, by slot.
    pub fn instances(&self, workload: &str) -> Outcome<Vec<Value>> {
        let all = self.json(&["instance", "list", "--workload", workload])?;
        let mut wanted: Vec<Value> =
            items(&all)?.iter().filter(|one| text(one, "desired") == "run").cloned().collect();
        wanted.sort_by_key(|one| number(one, "slot"));
        Ok(wanted)
    }

    /// The one wanted instance of a workload.
    pub fn instance(&self, workload: &str) -> Outcome<Value> {
        let mut wanted = self.instances(workload)?;
        match wanted.len() {
            1 => Ok(wanted.remove(0)),
            _ => Err(Wrong(format!("expected one instance of {workload}, found {wanted:?}")).into()),
        }
    }

    /// Any instance of a workload that runs; for use in a look.
    pub fn running_any(&self, workload: &str) -> Outcome<Value> {
        let running = self.instances(workload)?.into_iter().find(|one| text(one, "state") == "running");
        running.ok_or_else(|| Wrong(format!("no instance of {workload} runs")).into())
    }

    /// The one wanted instance of a workload, when it runs; for use in a look.
    pub fn running(&self, workload: &str) -> Outcome<Value> {
        let instance = self.instance(workload)?;
        match text(&instance, "state") {
            "running" => Ok(instance),
            state => Err(Wrong(format!("{workload} is {state}: {}", text(&instance, "reason"))).into()),
        }
    }
}

/// The items of a JSON list.
pub fn items(value: &Value) -> Outcome<&Vec<Value>> {
    value.as_array().ok_or_else(|| Wrong(format!("no list: {value}")).into())
}

/// A text of a JSON object; empty where there is none, as the command leaves out what is empty.
pub fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value.get(field).and_then(Value::as_str).unwrap_or_default()
}

/// A number of a JSON object; 0 where there is none.
pub fn number(value: &Value, field: &str) -> u64 {
    value.get(field).and_then(Value::as_u64).unwrap_or_default()
}

/// The one task of an instance.
pub fn task(instance: &Value) -> Outcome<&Value> {
    instance.pointer("/tasks/0").ok_or_else(|| Wrong(format!("no task was reported: {instance}")).into())
}
