//! The loop that marks an index for all nodes to compare their states at; why and how often stands in `compare`.

use std::time::Duration;

use crate::{
    core::Core,
    state::{Command, level::SECOND},
};

/// Least time between two marks.
const MARK_EVERY: Duration = Duration::from_secs(60);
/// A mark waits this many times as long as the last hash took: hashing takes at most one per cent of a core.
const PAUSE_PER_HASH: u32 = 100;

pub(super) async fn run(core: Core) {
    let mut marked = 0;
    loop {
        tokio::time::sleep(MARK_EVERY.max(core.hashes().took() * PAUSE_PER_HASH)).await;
        let state = core.view();
        if state.level() < SECOND || state.applied() == marked {
            continue;
        }
        drop(state);
        match core.propose_here(Command::CompareStates).await {
            Ok(outcome) => marked = outcome.index,
            Err(error) => tracing::debug!(%error, "a comparison of states is put off"),
        }
    }
}
