//! Runs a program to its end, with a deadline, and kills it past that. Arguments go to the program as they are; no shell is involved.

use std::{
    io::{self, Read},
    process::{Child, Command, ExitStatus, Stdio},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// Most bytes that are kept of each output: enough for any report of `qemu-img` and any message worth reading.
const MAX_OUTPUT: u64 = 1 << 20;
/// Time between looks at the child: short beside the 10 ms that the quickest program takes.
const LOOK_EVERY: Duration = Duration::from_millis(2);
/// Time that a killed child has to be gone. One in an uninterruptible sleep takes longer and is left to the kernel.
const KILL_DEADLINE: Duration = Duration::from_secs(2);

/// A program that did not do what it was run for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CommandError {
    /// It could not be run.
    #[error("cannot run {program}: {source}")]
    NotRun {
        /// Which.
        program: String,
        /// Why.
        source: io::Error,
    },
    /// It was killed at its deadline.
    #[error("{program} did not end within {deadline:?}")]
    TooSlow {
        /// Which.
        program: String,
        /// What it had.
        deadline: Duration,
    },
    /// It failed.
    #[error("{program} failed ({status}): {stderr}")]
    Failed {
        /// Which.
        program: String,
        /// How it ended.
        status: ExitStatus,
        /// What it said, on one line.
        stderr: String,
    },
}

/// Runs a program and gives what it wrote to standard output. Blocks.
pub(crate) fn run(command: &mut Command, deadline: Duration) -> Result<Vec<u8>, CommandError> {
    let program = command.get_program().to_string_lossy().into_owned();
    let not_run = |source| CommandError::NotRun { program: program.clone(), source };
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(not_run)?;
    let (stdout, stderr) = (collect(child.stdout.take()), collect(child.stderr.take()));
    let ended = wait(&mut child, deadline).map_err(not_run)?;
    let Some(status) = ended else {
        end(&mut child);
        return Err(CommandError::TooSlow { program, deadline });
    };
    let (stdout, stderr) = (stdout.join().unwrap_or_default(), stderr.join().unwrap_or_default());
    if status.success() {
        return Ok(stdout);
    }
    let stderr = String::from_utf8_lossy(&stderr).split_whitespace().collect::<Vec<_>>().join(" ");
    Err(CommandError::Failed { program, status, stderr })
}

fn collect<R: Read + Send + 'static>(pipe: Option<R>) -> JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut kept = Vec::new();
        if let Some(mut pipe) = pipe {
            // A pipe that breaks has ended; the exit status tells whether that was a failure. What is beyond the limit is read and
            // thrown away, so that the program is not held up.
            let _ = pipe.by_ref().take(MAX_OUTPUT).read_to_end(&mut kept);
            let _ = io::copy(&mut pipe, &mut io::sink());
        }
        kept
    })
}

fn wait(child: &mut Child, deadline: Duration) -> io::Result<Option<ExitStatus>> {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if start.elapsed() >= deadline {
            return Ok(None);
        }
        thread::sleep(LOOK_EVERY);
    }
}

/// Kills a child and, unless it cannot die, waits for it.
fn end(child: &mut Child) {
    let gone = child.kill().and_then(|()| wait(child, KILL_DEADLINE));
    if !matches!(gone, Ok(Some(_))) {
        tracing::warn!(pid = child.id(), "a killed program is still there");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn output_failure_and_deadline_are_told_apart() {
        let long = Duration::from_secs(20);
        assert_eq!(run(&mut shell("echo out; echo err >&2"), long).unwrap(), b"out\n");
        let failed = run(&mut shell("echo one >&2; echo two >&2; exit 3"), long).unwrap_err();
        assert_eq!(failed.to_string(), "sh failed (exit status: 3): one two");
        let slow = run(Command::new("sleep").arg("60"), Duration::from_millis(50)).unwrap_err();
        assert!(matches!(slow, CommandError::TooSlow { .. }));
        let missing = run(&mut Command::new("/nonexistent/program"), long).unwrap_err();
        assert!(matches!(missing, CommandError::NotRun { .. }));
    }

    #[test]
    fn a_flood_of_output_is_cut_and_does_not_block() {
        let flood = run(&mut shell("head -c 3000000 /dev/zero"), Duration::from_secs(20)).unwrap();
        assert_eq!(flood.len() as u64, MAX_OUTPUT);
    }
}
