//! Preemption for gangs, the rule: others make way for all of a gang that wait, or for none of them.
//!
//! Each of them is given a host on which room is kept for it from then on, also where nobody has to make way: else others took that room piece by piece, and
//! whoever made way elsewhere had done so in vain. So nobody of a gang has a host before all have. *With all that make way there is room on each host for
//! those that are to go there, and with any of them left there is not.* Whoever is not needed for the hosts that were chosen stays.
//!
//! Decisions. *Nobody makes way for a gang that its borough's quota does not let in*, nor more than [`MOST_VICTIMS_FOR_GANG`] for any. *Of what
//! mounts volumes each has a host of its own*: whoever uses volumes on a host keeps others of its workload from it. *Who joins a gang for which others make way already* makes
//! it another one, which is decided anew; what is stopping for it counts as gone then.

use std::collections::BTreeSet;

use supercloud_proto::id::{HostId, InstanceId, UnixMillis};

use super::{
    Candidate, HostUse, MANY_FAILURES, MOST_VICTIMS, Request, are_spare, arrive, expected_but, has_claim_for,
    may_make_way, will_fit,
};
use crate::state::{
    State,
    command::Preemption,
    fits::must_wait_for,
    gang::{Together, is_whole},
    level::SIXTH,
    model::{Host, Instance},
};

/// Most that make way on one host, times those that are to go there.
const MOST_LOOKS: usize = 16_384;
/// Most that make way for a gang: apply looks at each of them closely.
pub const MOST_VICTIMS_FOR_GANG: usize = 1_024;

/// What will be given away of a host once all is gone that is stopping, or is to stop as `doomed`, and all is there that is awaited, but for those of the gang that
/// asks, and then these of it, one after the other; `None`: there is no room for all.
pub fn with_all(
    candidate: &Candidate<'_>,
    members: &[&Instance],
    asks: impl Fn(InstanceId) -> bool,
    is_doomed: impl Fn(InstanceId) -> bool,
) -> Option<HostUse> {
    let (there, later) = with_most(candidate, members, asks, is_doomed);
    (there == members.len()).then_some(later)
}

/// The same with as many of these as there is room for, from the first on, and how many that is.
pub fn with_most(
    candidate: &Candidate<'_>,
    members: &[&Instance],
    asks: impl Fn(InstanceId) -> bool,
    is_doomed: impl Fn(InstanceId) -> bool,
) -> (usize, HostUse) {
    let mut later = expected_but(candidate, asks, is_doomed);
    for (there, member) in members.iter().enumerate() {
        let is_alone = !member.spec().has_volumes() || members.len() == 1;
        if !is_alone || !will_fit(candidate, &Request::of(member), &later) {
            return (there, later);
        }
        arrive(candidate, &mut later, member);
    }
    (members.len(), later)
}

/// Whether so many make way on one host for so many that it would take apply too long to look at: each is left out once, and all are looked at then.
pub fn are_too_many(victims: usize, members: usize) -> bool {
    victims > MOST_VICTIMS * members || victims * members > MOST_LOOKS
}

/// Whether it may be right that these make way for a gang, as far as can be told without its hosts: they are of all of it, which waits only for hosts, and each that makes way may.
pub(in crate::state) fn may_be_right(state: &State, preemptions: &[Preemption], now: UnixMillis) -> bool {
    let members: Vec<&Instance> = members(state, preemptions).collect();
    let victims: BTreeSet<InstanceId> = Preemption::victims_of(preemptions).collect();
    let known: Vec<(&Instance, HostId)> = placed_victims(state, preemptions).collect();
    let Some(first) = members.first() else { return false };
    let request = Request::of(first);
    let has_claim = has_claim_for(&request, members.len(), state);
    let together = Together::of(state, members.iter().map(|member| member.id));
    let waits = |(member, preemption): (&&Instance, &Preemption)| {
        member.failures() < MANY_FAILURES
            && member.awaited_host() == preemption.before
            && must_wait_for(state, member).is_none()
    };
    state.level() >= SIXTH
        && is_host_after_host(preemptions)
        && is_whole(state, members.iter().map(|member| member.id), now)
        && members.iter().zip(preemptions).all(waits)
        && state.excesses_with(first, together).is_empty()
        && !victims.is_empty()
        && victims.len() <= MOST_VICTIMS_FOR_GANG
        && victims.len() == known.len()
        && known
            .iter()
            .all(|(victim, host)| victim.host() == Some(*host) && may_make_way(victim, &request, has_claim))
        && are_spare(known.iter().map(|(victim, _)| *victim), &request, state)
}

/// Whether it is right on a host, to which these of a gang are to go: with all that make way there is room for them, and with any of them left there is not.
pub(in crate::state) fn is_right_on(
    state: &State,
    host: &Host,
    preemptions: &[Preemption],
    gang: &BTreeSet<InstanceId>,
) -> bool {
    let candidate = Candidate::new(state, host);
    let members: Vec<&Instance> = members(state, preemptions).collect();
    let victims: BTreeSet<InstanceId> = Preemption::victims_of(preemptions).collect();
    let is_enough_without = |left: Option<InstanceId>| {
        let is_doomed = |id: InstanceId| Some(id) != left && victims.contains(&id);
        with_all(&candidate, &members, |id| gang.contains(&id), is_doomed).is_some()
    };
    !are_too_many(victims.len(), members.len())
        && is_enough_without(None)
        && victims.iter().all(|victim| !is_enough_without(Some(*victim)))
}

/// Whether those that go to the same host stand together.
fn is_host_after_host(preemptions: &[Preemption]) -> bool {
    let hosts: BTreeSet<Option<HostId>> = preemptions.iter().map(|preemption| preemption.host).collect();
    preemptions.chunk_by(|one, other| one.host == other.host).count() == hosts.len()
}

/// Those for whom room is made.
fn members<'s>(state: &'s State, preemptions: &[Preemption]) -> impl Iterator<Item = &'s Instance> {
    preemptions.iter().filter_map(|preemption| state.instance(preemption.instance)).map(AsRef::as_ref)
}

/// Those who make way and are known, each with the host on which that is.
fn placed_victims<'s>(
    state: &'s State,
    preemptions: &[Preemption],
) -> impl Iterator<Item = (&'s Instance, HostId)> {
    let with_hosts = preemptions.iter().filter_map(|preemption| Some((preemption.host?, preemption)));
    let on = with_hosts.flat_map(|(host, preemption)| preemption.victims.iter().map(move |id| (*id, host)));
    on.filter_map(|(id, host)| Some((state.instance(id)?.as_ref(), host)))
}
