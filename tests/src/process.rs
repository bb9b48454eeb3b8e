//! A process that a test started: it is ended when it is dropped, by its own number and never by a name.

use std::{
    fs::{self, File, OpenOptions},
    io::{Read, Write},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{Outcome, Wrong, wait, wrong};

/// Time between two looks at a command that is awaited.
const LOOK: Duration = Duration::from_millis(5);
/// Most of a log that is printed when a test fails.
const TAIL_LINES: usize = 40;

/// A process that runs beside the test and writes to a log.
#[derive(Debug)]
pub struct Process {
    /// What it is called in messages.
    pub name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts it; both its outputs go to the end of `log`.
    pub fn start(name: &str, command: &mut Command, log: &Path) -> Outcome<Self> {
        let out = OpenOptions::new().create(true).append(true).open(log)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .spawn()
            .map_err(|error| Wrong(format!("{name} does not start: {error}")))?;
        Ok(Self { name: name.to_owned(), child, log: log.to_owned() })
    }

    /// Its number.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, or `None` while it runs.
    pub fn ended(&mut self) -> Outcome<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// An error with the last of its log once it has ended, for use in a look.
    pub fn must_run(&mut self) -> Outcome {
        match self.ended()? {
            None => Ok(()),
            Some(status) => wrong(format!("{} has ended ({status}):\n{}", self.name, self.tail())),
        }
    }

    fn signal(&self, signal: Signal) -> Outcome {
        Ok(kill(Pid::from_raw(i32::try_from(self.pid())?), signal)?)
    }

    /// `kill -9`; it is gone when this returns.
    pub fn kill(&mut self) -> Outcome {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Stops it in its tracks, as a machine that hangs.
    pub fn pause(&self) -> Outcome {
        self.signal(Signal::SIGSTOP)
    }

    /// Lets it go on.
    pub fn resume(&self) -> Outcome {
        self.signal(Signal::SIGCONT)
    }

    /// Sends a signal and waits for the end.
    pub fn end_by(&mut self, signal: Signal, within: Duration) -> Outcome<ExitStatus> {
        self.signal(signal)?;
        let name = self.name.clone();
        wait::until(&format!("{name} ends by {signal}"), within, || match self.ended()? {
            Some(status) => Ok(status),
            None => wrong("it runs"),
        })
    }

    /// All that it has written.
    pub fn written(&self) -> Outcome<String> {
        Ok(String::from_utf8_lossy(&fs::read(&self.log)?).into_owned())
    }

    /// The last lines that it has written.
    pub fn tail(&self) -> String {
        tail(&self.log)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended long ago.
        let _ = self.kill();
    }
}

/// The last lines of a log.
pub fn tail(log: &Path) -> String {
    let text = fs::read(log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
}

/// What a command that ran to its end said.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Its exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    /// How long it took.
    pub took: Duration,
    line: String,
}

impl Answer {
    /// Itself, if the code is the expected one.
    pub fn with_code(self, code: i32) -> Outcome<Self> {
        if self.code == Some(code) { Ok(self) } else { wrong(format!("expected exit code {code}: {self}")) }
    }
}

impl std::fmt::Display for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { code, stdout, stderr, took, line } = self;
        let code = code.map_or("a signal".to_owned(), |code| code.to_string());
        write!(f, "`{line}` ended with {code} after {} ms\n{stdout}{stderr}", took.as_millis())
    }
}

/// Runs a command to its end; one that takes longer than `within` is killed and is an error.
pub fn complete(command: &mut Command, input: &[u8], within: Duration) -> Outcome<Answer> {
    let line = line_of(command);
    let begun = Instant::now();
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| Wrong(format!("`{line}` does not start: {error}")))?;
    let stdout = reader(child.stdout.take());
    let stderr = reader(child.stderr.take());
    if let Some(mut stdin) = child.stdin.take() {
        // A command that reads nothing may have ended already.
        let _ = stdin.write_all(input);
    }
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break Some(status);
        }
        if begun.elapsed() >= within {
            child.kill()?;
            child.wait()?;
            break None;
        }
        thread::sleep(LOOK);
    };
    let took = begun.elapsed();
    let text = |reader: thread::JoinHandle<Vec<u8>>| {
        String::from_utf8_lossy(&reader.join().unwrap_or_default()).into_owned()
    };
    let (stdout, stderr) = (text(stdout), text(stderr));
    match status {
        Some(status) => Ok(Answer { code: status.code(), stdout, stderr, took, line }),
        None => wrong(format!("`{line}` did not end within {} s\n{stdout}{stderr}", within.as_secs_f32())),
    }
}

fn reader(stream: Option<impl Read + Send + 'static>) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut stream) = stream {
            // What came before the error is still worth showing.
            let _ = stream.read_to_end(&mut bytes);
        }
        bytes
    })
}

fn line_of(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or_default();
    std::iter::once(program)
        .chain(command.get_args())
        .map(|word| word.to_string_lossy().into_owned())
        .collect::<Vec<_>>()
        .join(" ")
}

/// Makes a file with this text.
pub fn write(path: &Path, text: &str) -> Outcome {
    Ok(File::create(path)?.write_all(text.as_bytes())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_gives_both_outputs_and_its_code_and_does_not_hang() -> Outcome {
        let mut command = Command::new("sh");
        let answer = complete(command.args(["-c", "cat; echo oh >&2; exit 3"]), b"in", wait::SOON)?;
        assert_eq!((answer.code, answer.stdout.as_str(), answer.stderr.as_str()), (Some(3), "in", "oh\n"));
        let late = complete(Command::new("sleep").arg("60"), b"", Duration::from_millis(50));
        assert!(late.is_err_and(|error| error.to_string().contains("`sleep 60` did not end")));
        Ok(())
    }

    #[test]
    fn a_process_is_gone_once_it_is_dropped() -> Outcome {
        let folder = tempfile::tempdir()?;
        let log = folder.path().join("log");
        let mut process =
            Process::start("a", Command::new("sh").args(["-c", "echo here; exec sleep 60"]), &log)?;
        wait::until("it writes", wait::SOON, || {
            if process.written()?.contains("here") { Ok(()) } else { wrong("no") }
        })?;
        process.must_run()?;
        let place = format!("/proc/{}", process.pid());
        drop(process);
        assert!(!Path::new(&place).exists());
        Ok(())
    }
}
