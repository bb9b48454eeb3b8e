//! The loop that raises the cluster's feature level: asks every member what it knows, and proposes the lowest of it where that is more than the
//! present level. Knows no command but that one.

use std::time::Duration;

use crate::{
    core::{Core, levels},
    state::Command,
};

/// Wait between two rounds while members could know more than the cluster does.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// Wait between two rounds otherwise: only so that operators see which versions run.
const LOOK_SELDOM: Duration = Duration::from_secs(10);

pub(super) async fn run(core: Core) {
    loop {
        round(&core).await;
        let settled = core.view().level() >= core.levels().own().level;
        tokio::time::sleep(if settled { LOOK_SELDOM } else { LOOK_AGAIN }).await;
    }
}

async fn round(core: &Core) {
    // Nobody joins by the old level while the new one is on its way.
    let _gate = core.levels().gate().await;
    let Some(level) = levels::ask_all(core).await else { return };
    let Ok(state) = core.read().await else { return };
    if level <= state.level() || state.cluster_id().is_none() {
        return;
    }
    match core.propose_here(Command::RaiseLevel { level }).await {
        Ok(_) => tracing::info!(level, "every member knows it: the cluster's feature level is raised"),
        Err(error) => tracing::warn!(level, %error, "the cluster's feature level could not be raised"),
    }
}
