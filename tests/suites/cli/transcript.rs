//! Reads a transcript, plays it in a world, and compares; or writes the answers into it.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use supercloud_tests::{
    Outcome, World, Wrong,
    process::{Answer, complete},
    programs, wrong,
};

use crate::pattern::{generalised, lines_fit};

/// Longest time that one command may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// A line of the file that is no answer, or a command with its answer.
enum Piece {
    Text(String),
    Step { command: String, expected: Vec<String> },
}

/// Plays a transcript of this folder.
pub(crate) fn play(world: &World, file: &str) -> Outcome {
    let path = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/suites/cli")).join(file);
    let pieces = parse(&fs::read_to_string(&path)?)?;
    let writes = env::var_os("WRITE_TRANSCRIPTS").is_some();
    let mut text = String::new();
    let mut steps = 0;
    for piece in pieces {
        match piece {
            Piece::Text(line) => text.push_str(&format!("{line}\n")),
            Piece::Step { command, expected } => {
                steps += 1;
                let found = answer_lines(&run(world, &command)?);
                let fits = lines_fit(
                    &expected.iter().map(String::as_str).collect::<Vec<_>>(),
                    &found.iter().map(String::as_str).collect::<Vec<_>>(),
                );
                if !fits && !writes {
                    let (expected, found) = (expected.join("\n"), found.join("\n"));
                    return wrong(format!(
                        "{file}: $ {command}\n--- expected\n{expected}\n--- found\n{found}"
                    ));
                }
                let answer =
                    if fits { expected } else { found.iter().map(|line| generalised(line)).collect() };
                text.push_str(&format!("$ {command}\n"));
                answer.iter().for_each(|line| text.push_str(&format!("{line}\n")));
            }
        }
    }
    if writes {
        fs::write(&path, text)?;
    }
    if steps == 0 { wrong(format!("{file} has no command")) } else { Ok(()) }
}

fn parse(text: &str) -> Outcome<Vec<Piece>> {
    let mut pieces = Vec::new();
    for line in text.lines() {
        if let Some(command) = line.strip_prefix("$ ") {
            pieces.push(Piece::Step { command: command.to_owned(), expected: Vec::new() });
        } else if line.is_empty() || line.starts_with("# ") {
            pieces.push(Piece::Text(line.to_owned()));
        } else if let Some(Piece::Step { expected, .. }) = pieces.last_mut() {
            expected.push(line.to_owned());
        } else {
            return wrong(format!("an answer without a command: {line:?}"));
        }
    }
    Ok(pieces)
}

/// Standard output, then standard error, then the exit code; empty lines say nothing.
fn answer_lines(answer: &Answer) -> Vec<String> {
    let spoken = |text: &str| {
        text.lines().filter(|line| !line.trim().is_empty()).map(str::to_owned).collect::<Vec<_>>()
    };
    let mut lines = spoken(&answer.stdout);
    lines.extend(spoken(&answer.stderr).into_iter().map(|line| format!("! {line}")));
    match answer.code {
        Some(0) => {}
        Some(code) => lines.push(format!("? {code}")),
        None => lines.push("? signal".to_owned()),
    }
    lines
}

fn run(world: &World, line: &str) -> Outcome<Answer> {
    let program = programs::find(programs::CLI)?;
    let folder = program.parent().unwrap_or(Path::new("/")).to_string_lossy().into_owned();
    let path = format!("{folder}:{}", env::var("PATH").unwrap_or_default());
    // The settings of this world's operator, as the harness gives them to a command.
    let settings = world.cluster.cli.command(&[]);
    let mut shell = Command::new("sh");
    shell.args(["-c", line]).current_dir(programs::repository().join("docs/examples"));
    for (name, value) in settings.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    complete(shell.env("PATH", path), b"", PATIENCE).map_err(|error| Wrong(format!("{line}: {error}")).into())
}
