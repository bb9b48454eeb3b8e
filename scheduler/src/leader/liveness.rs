//! The loop that judges hosts while this node leads. Reads the clock since boot; what follows from it is decided in `judge`.

use std::time::Duration;

use super::{judge, judge::Timing};
use crate::{
    clock::boot_now,
    core::Core,
    state::{Command, HostVerdict},
};

/// How often hosts are judged: a host that is back, or whose runtime hangs, is known that soon.
const EVERY: Duration = Duration::from_millis(500);
/// Verdicts in one command.
const MAX_VERDICTS: usize = 5_000;

pub(super) async fn run(core: Core, term: u64) {
    let timing = core.timing();
    let every = EVERY.min(timing.heartbeat_every / 2);
    core.lead().table().lead(term, boot_now());
    let mut last = boot_now();
    loop {
        tokio::time::sleep(every).await;
        let now = boot_now();
        let verdicts = look(&core, now, was_away(now.saturating_sub(last), every, &timing));
        last = now;
        for chunk in verdicts.chunks(MAX_VERDICTS) {
            if let Err(error) = core.propose_here(Command::JudgeHosts(chunk.to_vec())).await {
                tracing::warn!(%error, verdicts = chunk.len(), "verdicts about hosts are not in the log");
            }
        }
        // They are applied or refused by now. Where that is not known the leadership is over, and this table with it.
        core.lead().table().concluded();
    }
}

/// Whether the loop itself was held up for so long that heartbeats may have been missed for its sake.
fn was_away(pause: Duration, every: Duration, timing: &Timing) -> bool {
    pause > every + timing.suspect_after()
}

fn look(core: &Core, now: Duration, away: bool) -> Vec<HostVerdict> {
    let state = core.view();
    let mut table = core.lead().table();
    if away {
        tracing::warn!("this node was away for a while; no host is judged before it has listened again");
        table.was_away(now);
    }
    table.observe(&state, now);
    let verdicts = judge(&table, &state, now, &core.timing());
    table.judged(&state, &verdicts, now);
    drop(table);
    for verdict in &verdicts {
        let name = state.host_name(verdict.host).map(String::from).unwrap_or_default();
        let (verdict, reason) = (verdict.state.as_str(), &verdict.reason);
        tracing::info!(host = name, verdict, reason, "the verdict about a host changes");
    }
    verdicts
}
