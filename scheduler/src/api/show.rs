//! Messages made of what placement says and of what is counted over the state. Pure.

use std::{collections::BTreeMap, sync::Arc};

use supercloud_proto::{
    amount::{Amounts, Mbits, host_amounts},
    id::{Revision, UnixMillis},
    instance::{Desired, InstanceState},
    name::{BoroughName, SiteName, WorkloadKey},
    spec::diff,
    v1,
};

use super::Caller;
use crate::{
    clock::unix_now,
    placement::{BoroughPlan, PlannedStop, WorkloadPlan, explain},
    state::{
        Borough, Excess, Host, Instance, State, Workload, codec,
        gang::{self, Together},
        quota,
    },
};

/// A workload with its counts.
pub(super) fn workload(state: &State, workload: &Workload) -> v1::Workload {
    v1::Workload { counts: Some(counts(state, workload)), ..codec::workload_message(workload) }
}

/// How the instances of a workload stand.
fn counts(state: &State, workload: &Workload) -> v1::WorkloadCounts {
    let current = workload.current().revision;
    let mut counts = v1::WorkloadCounts { desired: workload.wanted(), ..Default::default() };
    for instance in state.instances_of(&workload.key) {
        counts.current += u32::from(instance.desired == Desired::Run && instance.revision() == current);
        *place_of(&mut counts, instance) += 1;
    }
    counts
}

/// The count in which an instance belongs.
fn place_of<'c>(counts: &'c mut v1::WorkloadCounts, instance: &Instance) -> &'c mut u32 {
    use InstanceState as S;
    if instance.desired == Desired::Stop {
        return &mut counts.stopping;
    }
    match instance.state {
        S::Pending => &mut counts.pending,
        S::Placed | S::Preparing | S::Starting => &mut counts.starting,
        S::Running => &mut counts.running,
        S::Restarting | S::Failed => &mut counts.failing,
        S::Stopping | S::Stopped => &mut counts.stopping,
        S::Completed => &mut counts.completed,
        S::Unknown | S::Lost => &mut counts.unknown,
    }
}

/// Tells of instances of one state. How many are given hosts only together is counted once for each gang.
pub(super) struct Instances<'s> {
    state: &'s State,
    now: UnixMillis,
    gangs: BTreeMap<(&'s WorkloadKey, Revision), Together>,
}

impl<'s> Instances<'s> {
    /// Of this state.
    pub(super) fn of(state: &'s State) -> Self {
        Self { state, now: unix_now(), gangs: BTreeMap::new() }
    }

    /// An instance. One that waits says so where its borough's quota keeps it.
    pub(super) fn tell(&mut self, instance: &'s Instance) -> v1::Instance {
        let message = self.state.instance_message(instance);
        if !instance.is_pending() {
            return message;
        }
        let borough = &instance.workload().borough;
        match self.state.excesses_with(instance, self.together(instance)) {
            excesses if excesses.is_empty() => message,
            excesses => v1::Instance { state_reason: quota::words(borough, &excesses), ..message },
        }
    }

    fn together(&mut self, instance: &'s Instance) -> Together {
        if !instance.spec().place.all_or_none || instance.not_before() > self.now {
            return Together::alone(instance);
        }
        let count = || Together::of(self.state, gang::waiting_with(self.state, instance, self.now));
        *self.gangs.entry((instance.workload(), instance.revision())).or_insert_with(count)
    }
}

/// An instance, by itself.
pub(super) fn instance(state: &State, instance: &Instance) -> v1::Instance {
    Instances::of(state).tell(instance)
}

/// The instances of a workload by slot and id, the first of them where they would not fit one message.
pub(super) fn instances_of(state: &State, workload: &Workload, most_bytes: usize) -> Vec<v1::Instance> {
    let mut instances: Vec<&Arc<Instance>> = state.instances_of(&workload.key).collect();
    instances.sort_unstable_by_key(|instance| (instance.slot, instance.id));
    let mut told = Instances::of(state);
    within(instances.into_iter().map(|instance| told.tell(instance)), most_bytes)
}

/// Messages up to a number of bytes.
pub(super) fn within<M: prost::Message>(messages: impl Iterator<Item = M>, most_bytes: usize) -> Vec<M> {
    let mut bytes = 0;
    let fits = |message: &M| {
        bytes += message.encoded_len();
        bytes <= most_bytes
    };
    messages.take_while(fits).collect()
}

/// A host with what is given away of it.
pub(super) fn host(state: &State, host: &Host) -> v1::Host {
    let used = state.used(host.id);
    v1::Host {
        used: Some(host_amounts(used.taken, used.network)),
        device_use: used
            .devices
            .iter()
            .map(|(name, given)| v1::DeviceUse { name: name.into(), given_millis: given.0 })
            .collect(),
        own_cpus: used.cores.cpus().map(Into::into).collect(),
        instances: used.instances.len() as u32,
        ..codec::host_message(host)
    }
}

/// All sites that have hosts or a policy of their own, with their sums, by name.
pub(super) fn sites(state: &State) -> Vec<v1::Site> {
    let mut sums: BTreeMap<SiteName, SiteSum> =
        state.sites().keys().map(|name| (name.clone(), SiteSum::default())).collect();
    for host in state.hosts().values() {
        sums.entry(host.inventory.site.clone()).or_default().add(state, host);
    }
    sums.into_iter().map(|(name, sum)| sum.told(state, name)).collect()
}

/// One site, whether it has hosts or not.
pub(super) fn site(state: &State, name: &SiteName) -> v1::Site {
    let mut sum = SiteSum::default();
    let there = state.hosts().values().filter(|host| host.inventory.site == *name);
    there.for_each(|host| sum.add(state, host));
    sum.told(state, name.clone())
}

/// What the hosts of a site have, and have given away.
#[derive(Default)]
struct SiteSum {
    site: v1::Site,
    allocatable: Amounts,
    used: Amounts,
    network: Mbits,
    network_used: Mbits,
}

impl SiteSum {
    fn add(&mut self, state: &State, host: &Host) {
        let used = state.used(host.id);
        self.site.hosts += 1;
        self.site.ready += u32::from(host.state == supercloud_proto::host::HostState::Ready);
        self.site.instances += used.instances.len() as u32;
        self.allocatable += host.inventory.allocatable();
        self.used += used.taken;
        self.network += host.inventory.allocatable_network();
        self.network_used += used.network;
    }

    fn told(self, state: &State, name: SiteName) -> v1::Site {
        v1::Site {
            policy: Some(codec::policy_message(state.policy_of(&name))),
            name: name.into(),
            allocatable: Some(host_amounts(self.allocatable, self.network)),
            used: Some(host_amounts(self.used, self.network_used)),
            ..self.site
        }
    }
}

/// The boroughs that `sees` lets through, with what they have, by name.
pub(super) fn boroughs(state: &State, sees: impl Fn(&BoroughName) -> bool) -> Vec<v1::Borough> {
    let mut shown: BTreeMap<BoroughName, v1::Borough> = state
        .boroughs()
        .iter()
        .filter(|(name, _)| sees(name))
        .map(|(name, known)| (name.clone(), borough(state, known)))
        .collect();
    for (key, workload) in state.workloads() {
        let Some(borough) = shown.get_mut(&key.borough) else { continue };
        borough.workloads += 1;
        borough.instances += state.count_of(key) as u32;
        let is_above = !workload.stopped && borough.max_priority < Some(workload.current().spec.priority);
        borough.above_max_priority += u32::from(is_above);
    }
    shown.into_values().collect()
}

/// A borough with what it uses.
fn borough(state: &State, borough: &Borough) -> v1::Borough {
    let used = state.taken_by(&borough.name);
    v1::Borough {
        used_cpu_millis: used.cpu.0,
        used_memory_bytes: used.memory.0,
        used_disk_bytes: used.disk.0,
        used_private_hosts: state.kept_hosts(&borough.name),
        ..codec::borough_message(borough)
    }
}

/// What an apply would do.
pub(super) fn plan(plan: WorkloadPlan, caller: &Caller) -> v1::WorkloadPlan {
    let diffs = plan.before.as_deref().map(|before| diff(before, &plan.after)).unwrap_or_default();
    // Whose work makes way is not told to other boroughs.
    let displaces = plan.displaces.len() as u32;
    let displaced = plan.displaces.into_iter().filter(|stop| caller.sees(&stop.workload.borough));
    v1::WorkloadPlan {
        borough: (&plan.workload.borough).into(),
        workload: (&plan.workload.workload).into(),
        change: codec::change_message(plan.change).into(),
        revision: plan.revision,
        diffs: diffs
            .into_iter()
            .map(|field| v1::FieldDiff {
                path: field.path,
                before: field.before.unwrap_or_default(),
                after: field.after.unwrap_or_default(),
            })
            .collect(),
        placements: plan
            .placements
            .into_iter()
            .map(|placement| v1::PlannedPlacement { slot: placement.slot, host: placement.host.into() })
            .collect(),
        stops: plan.stops.into_iter().map(planned_stop).collect(),
        displaces,
        displaced: displaced.map(planned_stop).collect(),
        unplaced: plan.unplaced,
        unplaced_because: plan.unplaced_because.map(explanation),
        waiting: plan.waiting,
    }
}

fn planned_stop(stop: PlannedStop) -> v1::PlannedStop {
    v1::PlannedStop {
        instance: stop.instance.to_string(),
        borough: stop.workload.borough.into(),
        workload: stop.workload.workload.into(),
        host: stop.host.map(String::from).unwrap_or_default(),
    }
}

/// What of its quota a borough would use.
pub(super) fn borough_plan(plan: BoroughPlan) -> v1::BoroughPlan {
    v1::BoroughPlan {
        borough: plan.borough.into(),
        quota: codec::quota_message(plan.quota),
        before: Some(plan.before.into()),
        after: Some(plan.after.into()),
    }
}

/// Why an instance is where it is, or is nowhere.
pub(super) fn explanation(explanation: explain::Explanation) -> v1::PlacementExplanation {
    let nearest_misses: Vec<_> = explanation.nearest.into_iter().map(nearest).collect();
    v1::PlacementExplanation {
        instance: explanation.instance.map(|id| id.to_string()).unwrap_or_default(),
        host: explanation.host.map(String::from).unwrap_or_default(),
        hosts: explanation.hosts,
        fitting: explanation.fitting,
        filters: explanation.filters.into_iter().map(filter).collect(),
        nearest: nearest_misses.first().cloned(),
        nearest_misses,
        scores: explanation.scores.into_iter().map(score).collect(),
        summary: explanation.summary,
        quota: explanation.quota.iter().map(excess).collect(),
        changes: explanation.changes.into_iter().map(suggestion).collect(),
        gang_waiting: explanation.gang.map_or(0, |gang| gang.waiting),
        gang_fitting: explanation.gang.map_or(0, |gang| gang.fitting),
        home: explanation.home.map(home),
        ahead: explanation.ahead,
        alike: 0,
    }
}

fn home(told: explain::HomeTold) -> v1::HomeExplanation {
    v1::HomeExplanation { host: told.host.into(), since_ms: told.since, because: told.because }
}

fn excess(excess: &Excess) -> v1::QuotaExcess {
    v1::QuotaExcess {
        what: excess.what.as_str().to_owned(),
        quota: excess.quota,
        used: excess.used,
        needed: excess.needed,
        reason: excess.to_string(),
    }
}

pub(super) fn suggestion(told: explain::Suggestion) -> v1::SuggestedChange {
    v1::SuggestedChange {
        kind: told.kind.to_owned(),
        change: told.change,
        host: told.host.map(String::from).unwrap_or_default(),
    }
}

fn filter(result: explain::FilterResult) -> v1::FilterResult {
    let reason =
        |reason: explain::FilterReason| v1::FilterReason { reason: reason.reason, hosts: reason.hosts };
    v1::FilterResult {
        filter: result.filter.to_owned(),
        hosts: result.hosts,
        reasons: result.reasons.into_iter().map(reason).collect(),
        others: result.others,
    }
}

fn nearest(miss: explain::NearMiss) -> v1::NearMiss {
    let shortfall = |short: explain::Shortfall| v1::Shortfall {
        what: short.what.to_owned(),
        needed: short.needed,
        free: short.free,
        reason: short.reason,
    };
    v1::NearMiss { host: miss.host.into(), shortfalls: miss.shortfalls.into_iter().map(shortfall).collect() }
}

fn near(near: explain::Near) -> v1::Near {
    v1::Near { over: near.over.to_string(), instances: near.instances, share: near.share }
}

fn score(score: explain::HostScore) -> v1::HostScore {
    let part = |part: explain::ScorePart| v1::ScorePart { rule: part.rule.to_owned(), score: part.score };
    v1::HostScore {
        host: score.host.into(),
        score: score.score,
        parts: score.parts.into_iter().map(part).collect(),
        near: score.near.into_iter().map(near).collect(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use supercloud_proto::{
        id::InstanceId,
        name::{HostName, WorkloadKey},
        pki::Identity,
    };

    use super::*;
    use crate::state::tests::world::service;

    #[test]
    fn whose_work_makes_way_is_told_to_who_may_see_it_and_how_many_do_to_all() {
        let spec = service("urgent", 1);
        let stop = |ordinal, borough: &str| PlannedStop {
            instance: InstanceId { index: 7, ordinal },
            workload: WorkloadKey { borough: borough.parse().unwrap(), workload: "batch".parse().unwrap() },
            host: Some(HostName::new("h1").unwrap()),
        };
        let planned = WorkloadPlan {
            workload: spec.key(),
            change: crate::state::Change::Created,
            revision: 1,
            before: None,
            after: Arc::new(spec),
            diffs: Vec::new(),
            placements: Vec::new(),
            stops: Vec::new(),
            displaces: vec![stop(0, "camden"), stop(1, "brent")],
            waiting: 0,
            unplaced: 0,
            unplaced_because: None,
        };
        let told = |caller| {
            let told = plan(planned.clone(), &caller);
            (told.displaces, told.displaced.into_iter().map(|stop| stop.borough).collect::<Vec<_>>())
        };
        let borough = Identity::Borough { borough: "camden".parse().unwrap(), name: "bob".parse().unwrap() };
        assert_eq!(told(Caller::Known(borough)), (2, vec!["camden".to_owned()]));
        let operator = Identity::Operator { name: "alice".parse().unwrap() };
        assert_eq!(told(Caller::Known(operator)), (2, vec!["camden".to_owned(), "brent".to_owned()]));
    }
}
