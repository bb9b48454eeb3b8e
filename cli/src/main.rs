//! The operator's command: `supercloud <noun> <verb>`, and shortcuts for every day.
//!
//! From the ground: `time`, `failure`, `settings`, `terminal` · `session` (the way to the cluster) · `output` and `show` (how things look) ·
//! `cmd` (what the commands do). Data goes to standard output, talk to standard error; exit codes are in `failure`.

#![allow(unreachable_pub, reason = "a program has no outside; here `pub` means: for the other modules")]

use std::{
    io::{self, Write},
    process::ExitCode,
};

use clap::{CommandFactory, Parser};

mod args;
mod cmd;
mod failure;
mod output;
mod session;
mod settings;
mod show;
mod terminal;
mod time;

use args::Cli;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match cmd::run(Cli::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.is_silent() {
                output::say(&format!("error: {failure}"));
            }
            failure.exit_code()
        }
    }
}

/// Prints the completion script of a shell. By way of a buffer: the generator would break down over a closed pipe.
fn completion(shell: clap_complete::Shell) -> Result<(), failure::Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "supercloud", &mut script);
    Ok(io::stdout().lock().write_all(&script)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
