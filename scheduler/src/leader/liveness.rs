//! The loop that judges hosts while this node leads. Reads the clock since boot; what follows from it is decided in `judge`.

use crate::{
    clock::boot_now,
    core::Core,
    state::{Command, HostVerdict, State},
};

/// Verdicts in one command.
const MAX_VERDICTS: usize = 5_000;

pub(super) async fn run(core: Core, term: u64) {
    let timing = core.timing();
    core.lead().table().lead(term, boot_now());
    let mut last = boot_now();
    loop {
        tokio::time::sleep(timing.judge_every()).await;
        let (now, state) = (boot_now(), core.view());
        let verdicts = core.lead().table().look(&state, now, now.saturating_sub(last), &timing);
        last = now;
        tell(&state, &verdicts);
        for chunk in verdicts.chunks(MAX_VERDICTS) {
            if let Err(error) = core.propose_here(Command::JudgeHosts(chunk.to_vec())).await {
                tracing::warn!(%error, verdicts = chunk.len(), "verdicts about hosts are not in the log");
            }
        }
        // They are applied or refused by now. Where that is not known the leadership is over, and this table with it.
        core.lead().table().concluded();
    }
}

fn tell(state: &State, verdicts: &[HostVerdict]) {
    for verdict in verdicts {
        let name = state.host_name(verdict.host).map(String::from).unwrap_or_default();
        let (verdict, reason) = (verdict.state.as_str(), &verdict.reason);
        tracing::info!(host = name, verdict, reason, "the verdict about a host changes");
    }
}
