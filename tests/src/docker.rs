//! Docker as an operator of the host sees it: through the `docker` command, behind the agent's back.

use std::{collections::BTreeMap, process::Command, time::Duration};

use serde_json::Value;

use crate::{
    Outcome, Wrong, hold,
    process::{Answer, complete},
    wrong,
};

/// Longest time that one `docker` command may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// Label of what the tests make that is not Supercloud's.
pub const FOREIGN: &str = "supercloud-tests";
/// The image of all containers here.
pub const IMAGE: &str = "supercloud/hello:1";

/// A container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    /// Its whole id.
    pub id: String,
    /// Whether it runs.
    pub running: bool,
    /// When its present run began, as Docker writes it.
    pub started: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

impl Container {
    /// A label of ours, without its prefix; empty when it is not there.
    pub fn label(&self, name: &str) -> &str {
        self.labels.get(&format!("supercloud.{name}")).map_or("", String::as_str)
    }
}

/// Runs a `docker` command.
pub fn docker(arguments: &[&str]) -> Outcome<String> {
    ask(arguments)?.with_code(0).map(|answer| answer.stdout)
}

fn ask(arguments: &[&str]) -> Outcome<Answer> {
    complete(Command::new("docker").args(arguments), b"", PATIENCE)
}

/// All containers of a cluster, running or not, by their instance and task.
pub fn containers(cluster: &str) -> Outcome<Vec<Container>> {
    let filter = format!("label=supercloud.cluster={cluster}");
    let ids = docker(&["ps", "-aq", "--no-trunc", "--filter", &filter])?;
    let found: Outcome<Vec<Option<Container>>> = ids.lines().map(inspect).collect();
    let mut found: Vec<Container> = found?.into_iter().flatten().collect();
    let place = |one: &Container| (one.label("instance").to_owned(), one.label("task").to_owned());
    found.sort_by_key(place);
    Ok(found)
}

/// How many containers of a cluster run, at one moment.
pub fn count_running(cluster: &str) -> Outcome<usize> {
    let filter = format!("label=supercloud.cluster={cluster}");
    Ok(docker(&["ps", "-q", "--filter", &filter])?.lines().count())
}

/// The one container of a cluster.
pub fn only_container(cluster: &str) -> Outcome<Container> {
    let mut found = containers(cluster)?;
    match found.len() {
        1 => Ok(found.remove(0)),
        _ => wrong(format!("expected one container, found {found:?}")),
    }
}

/// One container; `None` when there is none (any more).
pub fn inspect(id: &str) -> Outcome<Option<Container>> {
    let answer = ask(&["inspect", "--type", "container", id])?;
    if answer.code != Some(0) {
        return if answer.stderr.contains("No such container") {
            Ok(None)
        } else {
            wrong(answer.to_string())
        };
    }
    let all: Value = serde_json::from_str(&answer.stdout)?;
    let text = |pointer: &str| all.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
    let missing = || Wrong(format!("Docker's description lacks something: {all}"));
    let labels = all.pointer("/0/Config/Labels").and_then(Value::as_object);
    let labels = labels.into_iter().flatten();
    Ok(Some(Container {
        id: text("/0/Id").ok_or_else(missing)?,
        running: all.pointer("/0/State/Running").and_then(Value::as_bool).ok_or_else(missing)?,
        started: text("/0/State/StartedAt").ok_or_else(missing)?,
        labels: labels
            .map(|(key, value)| (key.clone(), value.as_str().unwrap_or_default().to_owned()))
            .collect(),
    }))
}

/// Volumes and networks of a cluster.
pub fn volumes_and_networks(cluster: &str) -> Outcome<Vec<String>> {
    let filter = format!("label=supercloud.cluster={cluster}");
    let mut all = docker(&["volume", "ls", "-q", "--filter", &filter])?;
    all.push_str(&docker(&["network", "ls", "-q", "--filter", &filter])?);
    Ok(all.lines().map(str::to_owned).collect())
}

/// Removes whatever bears a cluster's label. Ends without an error when there is nothing.
pub fn clear(cluster: &str) -> Outcome {
    let filter = format!("label=supercloud.cluster={cluster}");
    clear_by(&filter)?;
    let lists: [&[&str]; 2] = [&["volume"], &["network"]];
    for kind in lists.concat() {
        let ids = docker(&[kind, "ls", "-q", "--filter", &filter])?;
        let ids: Vec<&str> = ids.lines().collect();
        if !ids.is_empty() {
            docker(&[&[kind, "rm"], ids.as_slice()].concat())?;
        }
    }
    Ok(())
}

fn clear_by(filter: &str) -> Outcome {
    let ids = docker(&["ps", "-aq", "--filter", filter])?;
    let ids: Vec<&str> = ids.lines().collect();
    if !ids.is_empty() {
        docker(&[&["rm", "-fv"], ids.as_slice()].concat())?;
    }
    Ok(())
}

/// A container that Supercloud did not make and must not touch.
#[derive(Debug)]
pub struct Foreign {
    made: Container,
}

impl Foreign {
    /// Starts one that resembles ours: the same image, and a label that differs in the prefix only.
    pub fn start() -> Outcome<Self> {
        let ours = format!("{FOREIGN}={}", std::process::id());
        let arguments = ["run", "-d", "--label", &ours, "--label", "supercloud.borough=camden", IMAGE];
        let id = docker(&arguments)?.trim().to_owned();
        match inspect(&id)? {
            Some(made) => Ok(Self { made }),
            None => wrong("the foreign container did not come to be"),
        }
    }

    /// Holds that it is as it was made: there, running, never restarted.
    pub fn must_be_untouched(&self) -> Outcome {
        let now = inspect(&self.made.id)?;
        hold(now.as_ref() == Some(&self.made), || {
            format!("the foreign container was {:?}, is {now:?}", self.made)
        })
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        if let Err(error) = docker(&["rm", "-fv", &self.made.id]) {
            eprintln!("the foreign container stays: {error}");
        }
    }
}

/// Removes foreign containers of a test process that is no more.
pub fn clear_foreign(process: u32) -> Outcome {
    clear_by(&format!("label={FOREIGN}={process}"))
}
