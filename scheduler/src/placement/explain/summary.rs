//! The one sentence of an explanation.

use std::sync::Arc;

use supercloud_proto::{
    host::HostState, id::UnixMillis, instance::InstanceState, name::WorkloadKey, spec::near_text,
};

use super::{Gang, Survey};
use crate::{
    placement::ledger::Slot,
    state::{
        Instance,
        fits::{FILTERS, Misfit},
        gang, quota,
    },
};

/// Most instances that are named of those that make room.
const MAX_LEAVING: usize = 3;

/// Of an instance.
pub(super) fn of_instance(survey: &Survey<'_>, instance: &Instance, now: UnixMillis) -> String {
    let who = format!("{} of {}", instance.id, instance.workload());
    let Some(placed) = &instance.placed else {
        if let Some((held, by)) = gang::held_up_by(survey.ledger.state(), instance, now) {
            let mate =
                if held == instance.id { String::new() } else { format!(", since {held} goes with it") };
            return format!("{who} is exclusive and waits until {by} has stopped{mate}");
        }
        if let Some(name) = instance.awaited_host().and_then(|host| survey.ledger.state().host_name(host)) {
            return match leaving(survey, instance) {
                Some(leaving) => format!(
                    "{who} waits to go to {name}; it makes room in its borough's quota by stopping {leaving}"
                ),
                None => format!("{who} waits for room on {name}, where others make way for it"),
            };
        }
        let wait = instance.not_before().saturating_sub(now);
        return match (wait, survey.chosen()) {
            (0, _) => of_request(survey, &who),
            (_, Some(slot)) if survey.excesses.is_empty() => {
                format!("{who} waits another {}; {} would take it now", seconds(wait), survey.name(slot))
            }
            _ => format!("{}; it waits another {} anyway", of_request(survey, &who), seconds(wait)),
        };
    };
    let Some(slot) = survey.home else {
        return format!("{who} is on host {}, which was removed", placed.host);
    };
    let host = survey.candidate(slot).host;
    let verb = if instance.state.is_over() { "was" } else { "is" };
    let mut text = format!("{who} {verb} on {}", host.name);
    if instance.state != InstanceState::Running {
        text += &format!(", {}", instance.state.as_str());
    }
    if host.state != HostState::Ready {
        text += &format!("; the host is {}", host.state.as_str());
    }
    if instance.state.is_over() { text } else { text + &standing(survey, slot) }
}

/// What of its borough's less urgent work is stopping, where the quota does not bear an instance that others make way for before that is gone.
fn leaving(survey: &Survey<'_>, instance: &Instance) -> Option<String> {
    let of_borough = survey.ledger.state().instances_of_borough(&instance.workload().borough);
    let is_leaving = |other: &&Arc<Instance>| {
        other.spec().priority < instance.spec().priority && other.takes().is_some() && !other.is_to_stay()
    };
    let leaving: Vec<_> = of_borough.filter(is_leaving).collect();
    let names = leaving.iter().take(MAX_LEAVING).map(|other| format!("{} of {}", other.id, other.workload()));
    let more = leaving.len().saturating_sub(MAX_LEAVING);
    let more = (more > 0).then(|| format!("{more} more"));
    let told: Vec<String> = names.chain(more).collect();
    (!survey.excesses.is_empty() && !told.is_empty()).then(|| told.join(", "))
}

/// How its host compares with the others now.
fn standing(survey: &Survey<'_>, home: Slot) -> String {
    let others = survey.others().count();
    let Some(rival) = survey.others().next() else {
        return format!("; of {} no other fits now", count(survey.ledger.hosts().count()));
    };
    let (own, best) = (score(survey, home), score(survey, rival));
    let name = survey.name(rival);
    let found = format!("; it scores {own} there, and of {others} other fitting");
    if (survey.standing(home), home) < (survey.standing(rival), rival) {
        format!("{found} {} the best, {name}, would score {best}", hosts(others))
    } else {
        format!("{found} {} {name} would now be better, with {best}", hosts(others))
    }
}

/// A score, with the siblings that go before it.
fn score(survey: &Survey<'_>, slot: Slot) -> String {
    let told = survey.score(slot);
    let near =
        told.near.iter().map(|near| format!(", {}", near_text(near.instances, &near.over, near.share)));
    format!("{}{}", told.score, near.collect::<String>())
}

/// Of a spec that is not applied.
pub(super) fn of_spec(survey: &Survey<'_>, key: &WorkloadKey) -> String {
    of_request(survey, &format!("an instance of {key}"))
}

/// Of what has no host yet: first what its borough's quota has against it, then how it stands with the hosts.
fn of_request(survey: &Survey<'_>, who: &str) -> String {
    if survey.excesses.is_empty() {
        return of_hosts(survey, who);
    }
    let quota = quota::words(&survey.request.key.borough, &survey.excesses);
    format!("{who} waits since {quota}; apart from that {}", of_hosts(survey, "it"))
}

fn of_hosts(survey: &Survey<'_>, who: &str) -> String {
    let all = survey.ledger.hosts().count();
    let fitting = survey.fitting.len();
    if all == 0 {
        return format!("{who} has no host: there are none yet");
    }
    let who = &match survey.gang {
        Some(Gang { waiting, fitting }) if fitting < waiting => {
            format!(
                "{who} is one of {waiting} that are given hosts at once or not at all; {fitting} would find hosts, the next"
            )
        }
        _ => who.to_owned(),
    };
    let Some(best) = survey.chosen() else {
        if let Some((slot, misfits)) = &survey.bound {
            let (home, because) = (survey.name(*slot), words(misfits));
            return format!("{who} waits for {home}, where its volumes live: {because}");
        }
        return format!("{who} fits none of {}: {}{}", count(all), fallen(survey), nearest(survey));
    };
    let runner_up = survey.others().next().map_or(String::new(), |slot| {
        format!(", the next best is {} with {}", survey.name(slot), score(survey, slot))
    });
    let (name, score) = (survey.name(best), score(survey, best));
    format!("{who} fits {fitting} of {}; the best is {name} with {score}{runner_up}", count(all))
}

/// How many hosts each filter ruled out.
fn fallen(survey: &Survey<'_>) -> String {
    let counts = FILTERS.iter().map(|filter| (filter.name, survey.tally.ruled_out(filter.name)));
    let parts: Vec<String> = counts
        .filter(|(_, hosts)| *hosts > 0)
        .map(|(filter, hosts)| format!("{hosts} by {filter}"))
        .collect();
    parts.join(", ")
}

fn nearest(survey: &Survey<'_>) -> String {
    let Some((slot, misfits)) = survey.nearest.all().next() else { return String::new() };
    format!("; nearest is {}: {}", survey.name(slot), words(misfits))
}

fn words(misfits: &[Misfit]) -> String {
    misfits.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

fn hosts(count: usize) -> &'static str {
    if count == 1 { "host" } else { "hosts" }
}

fn count(count: usize) -> String {
    format!("{count} {}", hosts(count))
}

fn seconds(wait: u64) -> String {
    format!("{} s", wait.div_ceil(1000))
}
