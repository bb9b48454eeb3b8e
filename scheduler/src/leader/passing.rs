//! The loop of the scheduling pass: whenever something waits for a host, a pass on the latest state, its placements into the log, and again.
//! Decides nothing: that is `placement::pass` before the log and `State::apply` behind it. What a plan is proposed as, [`placing`] and [`displacing`] say.

use std::{
    ops::Range,
    time::{Duration, Instant},
};

use supercloud_proto::id::UnixMillis;

use crate::{
    clock::unix_now,
    core::Core,
    core::ProposeError,
    metrics::Decided,
    placement::{Engine, Limits, Plan},
    state::{
        Command, Done, Outcome, Placement, State,
        level::{Level, SECOND},
    },
};

/// Most placements in one entry: a few hundred KiB, so that no entry holds up the log.
const MAX_CHUNK: usize = 5_000;
/// Most bytes of what may be long in them: the names of devices, and cores.
const MAX_CHUNK_BYTES: usize = 512 << 10;
/// What a processor takes in an entry at most.
const BYTES_OF_CPU: usize = 2;
/// Most cases in one entry in which others make way: each is checked closely when it is applied.
const PREEMPTIONS_OF_AN_ENTRY: usize = 25;
/// Wait after a pass that placed nothing, at least: many changes share the next one.
const FRUITLESS_WAIT: Duration = Duration::from_millis(20);
/// A fruitless pass is waited for so many times as long as it took: passes over what fits nowhere take a fifth of a core at most.
const FRUITLESS_SHARE: u32 = 4;
/// Longest such wait.
const MAX_WAIT: Duration = Duration::from_secs(2);
/// Wait after the log refused.
const REFUSED_WAIT: Duration = Duration::from_millis(100);
/// Longest sleep towards a known time; the world's clock may be set meanwhile.
const MAX_SLEEP: Duration = Duration::from_secs(60);

pub(super) async fn run(core: Core) {
    let mut states = core.changes();
    let mut engine = None;
    loop {
        let state = states.borrow_and_update().clone();
        if state.pending().next().is_none() {
            // An end of the channel means that the node has stopped.
            let Ok(()) = states.changed().await else { return };
            continue;
        }
        let began = Instant::now();
        let Some((plan, kept)) = pass_aside(engine, state).await else { return };
        engine = Some(kept);
        let took = began.elapsed();
        core.metrics().passed(took);
        let placed = propose(&core, placing(core.view().level(), &plan)).await;
        match preempt(&core, displacing(&plan), placed).await {
            Proposed::Held | Proposed::Refused => continue,
            Proposed::Nothing => {}
        }
        tokio::time::sleep((took * FRUITLESS_SHARE).clamp(FRUITLESS_WAIT, MAX_WAIT)).await;
        tokio::select! {
            changed = states.changed() => if changed.is_err() { return },
            () = sleep_until(plan.next_wake) => {}
        }
    }
}

/// Runs a pass off the threads that serve tasks. Gives the engine back, for the next one.
async fn pass_aside(engine: Option<Engine>, state: State) -> Option<(Plan, Engine)> {
    let now = unix_now();
    let began = Instant::now();
    let pass = move || {
        let mut engine = engine.unwrap_or_else(|| Engine::new(&state));
        (engine.pass(&state, now, Limits::default()), engine)
    };
    match tokio::task::spawn_blocking(pass).await {
        Ok((plan, engine)) => {
            let (placed, unplaced) = (plan.placements.len(), plan.unplaced.len());
            tracing::debug!(placed, unplaced, took = ?began.elapsed(), "a pass");
            Some((plan, engine))
        }
        // It goes on in this loop, whose end is noticed; all begin anew then.
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(error) => {
            tracing::debug!(%error, "the scheduling pass was broken off: the node ends");
            None
        }
    }
}

/// What became of a plan.
enum Proposed {
    /// Placements held; there may be room for another pass.
    Held,
    /// The log did not take them; they have to be decided again.
    Refused,
    /// There were none, or apply refused them all.
    Nothing,
}

/// What the placements of a plan are proposed as at this level, each command good for an entry. Each placement, or gang, is checked by itself when it is
/// applied, so that none of the commands need wait for the one before.
pub fn placing(level: Level, plan: &Plan) -> Vec<Command> {
    chunks(&plan.placements, &plan.gangs).into_iter().map(|chunk| command(level, chunk)).collect()
}

/// What those who make way by a plan are proposed as, one after the other, once its placements are in. Those for a gang stand in an entry of their own.
pub fn displacing(plan: &Plan) -> Vec<Command> {
    let commands = |range: Range<usize>| plan.preemptions[range].chunks(PREEMPTIONS_OF_AN_ENTRY);
    let (mut displacing, mut begin) = (Vec::new(), 0);
    for gang in &plan.displacing_gangs {
        displacing.extend(commands(begin..gang.start));
        displacing.push(&plan.preemptions[gang.clone()]);
        begin = gang.end;
    }
    displacing.extend(commands(begin..plan.preemptions.len()));
    displacing.into_iter().map(|those| Command::Preempt(those.to_vec())).collect()
}

/// A command with placements, in few bytes where every member reads them.
fn command(state_level: Level, placements: &[Placement]) -> Command {
    if state_level >= SECOND {
        Command::PlaceMany(placements.to_vec())
    } else {
        Command::Place(placements.to_vec())
    }
}

/// Placements in pieces of which each is good for an entry. A gang is never parted: where it begins within a piece that cannot hold all of it, it
/// begins the next one, whatever its size.
fn chunks<'p>(placements: &'p [Placement], gangs: &[Range<usize>]) -> Vec<&'p [Placement]> {
    let (mut chunks, mut begin) = (Vec::new(), 0);
    while begin < placements.len() {
        let mut bytes = 0;
        let fits = |placement: &&Placement| {
            bytes += placement.devices.iter().map(|name| name.as_str().len() + 2).sum::<usize>();
            bytes += placement.cores.as_ref().map_or(0, |cores| cores.cpus.len() * BYTES_OF_CPU);
            bytes <= MAX_CHUNK_BYTES
        };
        let end = begin + placements[begin..].iter().take(MAX_CHUNK).take_while(fits).count().max(1);
        let parted = gangs.iter().find(|gang| gang.start < end && end < gang.end);
        let end = parted.map_or(end, |gang| if gang.start == begin { gang.end } else { gang.start });
        chunks.push(&placements[begin..end]);
        begin = end;
    }
    chunks
}

/// Proposes placements, all commands at once. Returns once they are applied here.
async fn propose(core: &Core, placing: Vec<Command>) -> Proposed {
    let mut proposed = Proposed::Nothing;
    let asked: Vec<usize> = placing.iter().map(decisions).collect();
    let placing = placing.into_iter().map(|command| core.propose_here(command));
    let outcomes = futures::future::join_all(placing).await;
    for (outcome, asked) in outcomes.iter().zip(asked) {
        core.metrics().refused(Decided::Placements, refused(asked, outcome));
    }
    for outcome in outcomes {
        match held(outcome, "placed").await {
            None => return Proposed::Refused,
            Some(0) => {}
            Some(_) => proposed = Proposed::Held,
        }
    }
    proposed
}

/// Proposes what makes way, one command after the other, unless the placements were refused.
async fn preempt(core: &Core, displacing: Vec<Command>, mut proposed: Proposed) -> Proposed {
    if matches!(proposed, Proposed::Refused) {
        return proposed;
    }
    for command in displacing {
        let asked = decisions(&command);
        let outcome = core.propose_here(command).await;
        core.metrics().refused(Decided::Preemptions, refused(asked, &outcome));
        match held(outcome, "others make way").await {
            None => return Proposed::Refused,
            Some(0) => {}
            Some(_) => proposed = Proposed::Held,
        }
    }
    proposed
}

/// How many decisions of a pass are in a command.
fn decisions(command: &Command) -> usize {
    match command {
        Command::Place(placements) | Command::PlaceMany(placements) => placements.len(),
        Command::Preempt(preemptions) => preemptions.len(),
        _ => 0,
    }
}

/// How many of so many decisions apply refused. What is not in the log was not refused: it is decided again.
fn refused(asked: usize, outcome: &Result<Outcome, ProposeError>) -> usize {
    match outcome {
        Ok(Outcome { result: Ok(Done::Instances(held)), .. }) => asked.saturating_sub(*held as usize),
        Ok(_) => asked,
        Err(_) => 0,
    }
}

/// How much of an entry held once it was applied; `None`: the log did not take it, and after a wait it may be tried again.
async fn held(outcome: Result<Outcome, ProposeError>, what: &str) -> Option<u32> {
    let wait = match outcome {
        Ok(Outcome { index, result: Ok(Done::Instances(held)) }) => {
            tracing::info!(index, held, "{what}");
            return Some(held);
        }
        Ok(_) => return Some(0),
        Err(ProposeError::Overloaded { retry_after }) => retry_after,
        Err(error) => {
            tracing::debug!(%error, what, "it is not in the log");
            REFUSED_WAIT
        }
    };
    tokio::time::sleep(wait).await;
    None
}

async fn sleep_until(wake: Option<UnixMillis>) {
    match wake {
        Some(at) => {
            tokio::time::sleep(Duration::from_millis(at.saturating_sub(unix_now())).min(MAX_SLEEP)).await
        }
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use supercloud_proto::{
        cores::Cores,
        id::{HostId, InstanceId},
    };

    use super::*;
    use crate::state::{Preemption, Rejection, level::FIRST, model::Ports};

    fn placement(number: u64, devices: usize) -> Placement {
        Placement {
            instance: InstanceId { index: number, ordinal: 0 },
            host: HostId(1),
            ports: Ports::default(),
            devices: vec!["a-device-with-a-name-that-is-rather-long-0123456789".parse().unwrap(); devices],
            cores: None,
        }
    }

    #[test]
    fn what_apply_did_not_hold_was_refused_and_what_the_log_did_not_take_was_not() {
        let of = |result| refused(5, &Ok(Outcome { index: 7, result }));
        assert_eq!(of(Ok(Done::Instances(5))), 0);
        assert_eq!(of(Ok(Done::Instances(2))), 3);
        assert_eq!(of(Err(Rejection::Limit("too many".to_owned()))), 5);
        assert_eq!(refused(5, &Err(ProposeError::NoLeader)), 0);
        let three: Vec<Placement> = (0..3).map(|number| placement(number, 0)).collect();
        assert_eq!([decisions(&command(FIRST, &three)), decisions(&command(SECOND, &three))], [3, 3]);
        let making_way =
            Preemption { instance: three[0].instance, host: None, victims: Vec::new(), before: None };
        assert_eq!(decisions(&Command::Preempt(vec![making_way])), 1);
    }

    #[test]
    fn many_cores_are_parted_as_long_names_are() {
        let cores = Cores { cpus: (0..1_024).collect(), node: None };
        let of_many = |number| Placement { cores: Some(Box::new(cores.clone())), ..placement(number, 0) };
        let all: Vec<Placement> = (0..1_000).map(of_many).collect();
        let sizes: Vec<usize> = chunks(&all, &[]).iter().map(|chunk| chunk.len()).collect();
        assert_eq!(sizes, [256, 256, 256, 232]);
    }

    #[test]
    fn chunks_are_bounded_in_number_and_in_bytes_and_lose_nothing() {
        let sizes = |devices: usize| {
            let all: Vec<Placement> = (0..12_000).map(|number| placement(number, devices)).collect();
            let chunks = chunks(&all, &[]);
            assert_eq!(chunks.concat(), all);
            chunks.iter().map(|chunk| chunk.len()).collect::<Vec<_>>()
        };
        assert_eq!(sizes(0), [5_000, 5_000, 2_000]);
        let long = sizes(64);
        assert!(long.iter().all(|length| (1..=160).contains(length)), "{long:?}");
        assert_eq!(chunks(&[placement(1, 20_000)], &[]).len(), 1, "one is never cut");
    }

    #[test]
    fn a_gang_is_never_parted() {
        let all: Vec<Placement> = (0..12_000).map(|number| placement(number, 0)).collect();
        let sizes = |gangs: &[Range<usize>]| {
            let chunks = chunks(&all, gangs);
            assert_eq!(chunks.concat(), all);
            chunks.iter().map(|chunk| chunk.len()).collect::<Vec<_>>()
        };
        assert_eq!(sizes(&[0..1_000, 4_500..5_500]), [4_500, 5_000, 2_500]);
        assert_eq!(sizes(&[0..1_000, 4_000..5_000, 5_000..6_000]), [5_000, 5_000, 2_000]);
        assert_eq!(sizes(&[0..1_000, 5_000..11_000]), [5_000, 6_000, 1_000], "however large it is");
    }
}
