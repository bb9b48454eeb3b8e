//! Transcripts of the operator's command: what a person types and what it answers, word by word, in text files beside this one.
//!
//! ```text
//! # A comment.
//! $ supercloud borough list
//! NAME    TITLE  WORKLOADS          <- standard output, compared word by word: alignment does not matter
//! ! error: nothing there            <- standard error
//! ? 1                               <- exit code, when it is not 0
//! ```
//!
//! In what is expected `<name>` stands for anything within one word, and a line `...` for any lines. A command is a line for the shell, with
//! `supercloud` on its path and the examples in its folder. To add a transcript: write the commands into a new file, name it below, and run
//! with `WRITE_TRANSCRIPTS=1`: the answers are written into it, with ids and times already replaced. Read them before you commit them.

mod pattern;
mod transcript;

use supercloud_tests::{
    Outcome, World,
    world::{SMALL, Shape},
};

const NO_HOST: Shape = Shape { nodes: 1, hosts: 0 };

#[test]
fn boroughs() -> Outcome {
    World::with(NO_HOST, |world| transcript::play(world, "boroughs.txt"))
}

#[test]
fn refusals() -> Outcome {
    World::with(NO_HOST, |world| transcript::play(world, "refusals.txt"))
}

#[test]
fn saved_states() -> Outcome {
    World::with(NO_HOST, |world| transcript::play(world, "saved-states.txt"))
}

#[test]
fn scheduler_nodes() -> Outcome {
    World::with(NO_HOST, |world| transcript::play(world, "scheduler-nodes.txt"))
}

#[test]
fn without_hosts() -> Outcome {
    World::with(NO_HOST, |world| transcript::play(world, "without-hosts.txt"))
}

#[test]
fn a_workloads_life() -> Outcome {
    World::with(SMALL, |world| transcript::play(world, "a-workloads-life.txt"))
}

#[test]
fn quotas() -> Outcome {
    World::with(SMALL, |world| transcript::play(world, "quotas.txt"))
}

#[test]
fn sites() -> Outcome {
    World::with(NO_HOST, |world| transcript::play(world, "sites.txt"))
}

#[test]
fn usage() -> Outcome {
    World::with(NO_HOST, |world| transcript::play(world, "usage.txt"))
}

#[test]
fn volumes() -> Outcome {
    World::with(SMALL, |world| transcript::play(world, "volumes.txt"))
}
