//! What would make an instance fit that fits nowhere: small changes of its spec or of the estate (`estate`), each tried on a copy of the state by what a pass does to
//! give one instance a host. What was not seen to work is not told.
//!
//! What its borough's quota keeps is told what would let it in: a larger quota, or asking for less.
//!
//! Decisions. *One change at a time*: what needs two is for the reasons of the filters to tell. *The instance goes first in the trial*, so that a change is
//! told even where others wait for the same room, and a trial costs a look at all hosts and not at all that waits. *Nobody is named whose work would
//! have to go*, since explanations go to tenants: it is told how much has to be freed, and the trial frees it by the least urgent work, the youngest first.

use std::{cmp::Reverse, sync::Arc};

use supercloud_proto::{
    amount::{Amounts, Bytes, Mbits, MilliCpu},
    cores::Numa,
    device::{DeviceRequest, Share},
    host::Inventory,
    id::{InstanceId, UnixMillis},
    name::{HostName, PortName},
    spec::{Driver, WorkloadSpec},
};

use super::Gang;
use crate::{
    placement::{
        ledger::{Ledger, Slot},
        shapes::Shapes,
        spread::Siblings,
        trial::Trial,
    },
    state::{
        BoroughChange, Command, Host, Instance, RevisionRecord, State,
        fits::{Amount, Misfit, Reason, Request},
        gang::{self, Together},
    },
};

mod cores;
mod estate;
mod trials;

/// Most changes that are tried for one instance, the most promising first (`trials`): each looks at all hosts.
pub const MAX_TRIALS: usize = 32;
/// What suggestions of memory are rounded to.
const MEMORY_STEP: u64 = 1 << 20;
/// A host that is added in a trial has the first name after this that nobody has.
const NEW_HOST: &str = "new-host";

/// A change that would make an instance fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suggestion {
    /// `resize` or `relax` the spec, `raise-quota`, `open-host`, `free-host`, `forget-volumes` or `add-host`.
    pub kind: &'static str,
    /// In words.
    pub change: String,
    /// The host it is about, or that is to be added another one of; `None`: none in particular.
    pub host: Option<HostName>,
}

/// A change, with the estate as it would be, and the spec where it is that which would change.
#[cfg(test)]
pub(in crate::placement) type Outcome = (Suggestion, State, Option<WorkloadSpec>);

/// What is told of each change that would give this instance a host, after at most so many trials; nothing where it has one, could have one already, waits for room that others make for it, or no
/// single change helps. It looks at all hosts for each change: on a large estate keep it off the threads that answer others. The ledger is as the state has it, and is not afterwards.
pub(super) fn seek<T>(
    ledger: &mut Ledger,
    state: &State,
    instance: &Instance,
    now: UnixMillis,
    trials: usize,
    tell: impl Fn(&Sought<'_>, Idea) -> T,
) -> Vec<T> {
    if !instance.is_pending() || instance.awaited_host().is_some() {
        return Vec::new();
    }
    let together = gang::waiting_with(state, instance, now);
    let (mut missing_hosts, mut first) = (1, None);
    if instance.spec().place.all_or_none {
        let gang = Gang::give(ledger, &mut Siblings::default(), &instance.record, &together);
        missing_hosts = gang.waiting - gang.fitting;
        first = gang.first_without(state, &together);
    }
    let request = Request::of(first.map_or(instance, AsRef::as_ref));
    let found: Vec<(Slot, Vec<Misfit>)> = ledger
        .hosts()
        .map(|slot| (slot, ledger.candidate_for(slot, &request).misfits(&request).collect::<Vec<_>>()))
        .collect();
    let fits_somewhere = found.iter().any(|(_, misfits)| misfits.is_empty());
    let mut sought = Sought { state, instance, together, missing_hosts, now, ledger, request, found };
    let mut ideas = sought.let_in();
    if !fits_somewhere {
        ideas.extend(sought.kept());
        ideas.extend(sought.resized());
        ideas.extend(sought.widened());
        ideas.extend(sought.cored());
        ideas.extend(sought.opened().into_iter().chain(sought.freed()).chain(sought.forgotten()));
        ideas.extend(sought.added());
        ideas.extend(sought.tolerated().into_iter().chain(sought.relaxed()));
    }
    sought.seen_to_work(ideas, trials).into_iter().map(|idea| tell(&sought, idea)).collect()
}

/// A change, and what to try.
pub(super) struct Idea {
    pub(super) told: Suggestion,
    spec: Option<WorkloadSpec>,
    estate: Estate,
}

/// What is done to the estate.
enum Estate {
    Nothing,
    Open(HostName),
    Free(Vec<Arc<Instance>>),
    Add(Arc<Inventory>),
    Allow(BoroughChange),
    Forget(Vec<HostName>),
}

/// What is looked for.
pub(super) struct Sought<'s> {
    state: &'s State,
    instance: &'s Instance,
    /// All that are given hosts only together with it, with itself.
    together: Vec<InstanceId>,
    /// How many of them find no host.
    missing_hosts: u32,
    now: UnixMillis,
    /// As the state has it, with the others of the gang, until trials begin.
    ledger: &'s mut Ledger,
    request: Request<'s>,
    /// What speaks against each host.
    found: Vec<(Slot, Vec<Misfit>)>,
}

impl Sought<'_> {
    #[cfg(test)]
    pub(super) fn outcome(&self, idea: Idea) -> Outcome {
        let done = self.done(&idea).state;
        (idea.told, done, idea.spec)
    }

    /// Whether a pass gives the instance a host once this is so, were it the first to get one.
    fn works(&mut self, idea: &Idea) -> bool {
        let trial = self.done(idea);
        let own = &self.instance.record;
        let spec = idea.spec.clone().map_or_else(|| own.spec.clone(), Arc::new);
        let record = Arc::new(RevisionRecord { spec, ..RevisionRecord::clone(own) });
        let alone = [self.instance.id];
        let together = if record.spec.place.all_or_none { &*self.together } else { &alone };
        let demand = Request::new(&record.key, &record.spec).demand.times(together.len() as u64);
        // Whoever goes leaves room on a host. That some are of its own borough is no matter: its quota would be as full with others gone.
        let of_quota = if matches!(idea.estate, Estate::Free(_)) { self.state } else { &trial.state };
        let is_let_in = of_quota.excesses(&record.key.borough, record.spec.priority, demand).is_empty();
        if !is_let_in {
            return false;
        }
        self.ledger.try_on(&trial.state);
        let works = Shapes::default().would_take_all(self.ledger, &record, together);
        debug_assert_eq!(
            works,
            Shapes::default().would_take_all(&mut Ledger::new(&trial.state), &record, together),
            "what was tried before makes no difference",
        );
        works
    }

    /// The estate once this is so, but for what the spec would be.
    fn done(&self, idea: &Idea) -> Trial {
        let mut trial = Trial::of(self.state, self.now);
        match &idea.estate {
            Estate::Nothing => {}
            Estate::Open(host) => {
                drop(trial.apply(Command::SetSchedulable { name: host.clone(), schedulable: true }));
            }
            Estate::Free(instances) => trial.let_go(instances.iter()),
            Estate::Add(inventory) => add_host(&mut trial, inventory),
            Estate::Allow(change) => {
                let (name, change) = (self.request.key.borough.clone(), change.clone());
                drop(trial.apply(Command::SetBorough { name, change }));
            }
            Estate::Forget(hosts) => {
                for host in hosts.iter().cloned() {
                    drop(trial.apply(Command::ForgetVolumes { key: self.request.key.clone(), host }));
                }
            }
        }
        trial
    }

    fn host(&self, slot: Slot) -> &Host {
        self.ledger.candidate(slot).host
    }

    /// Hosts against which nothing speaks but that too little network bandwidth is free, with what is.
    fn narrow(&self) -> impl Iterator<Item = (Slot, Mbits)> {
        let is_narrow = |(_, misfits): &&(Slot, Vec<Misfit>)| {
            let mut reasons = misfits.iter().flat_map(|misfit| &misfit.reasons);
            reasons.all(|reason| matches!(reason, Reason::Short { what: Amount::Network, .. }))
        };
        let free = |slot| self.ledger.candidate(slot).free_network();
        self.found.iter().filter(is_narrow).map(move |(slot, _)| (*slot, free(*slot)))
    }

    /// Asking for the most network bandwidth that is free on any of these, or freeing what is missing on one that has it at all.
    fn widened(&self) -> Vec<Idea> {
        let asked = self.instance.spec().resources.network;
        let most =
            |hosts: Vec<(Slot, Mbits)>| hosts.into_iter().max_by_key(|(slot, free)| (*free, Reverse(*slot)));
        let less = most(self.narrow().collect()).filter(|(_, free)| free.0 > 0).map(|(slot, free)| {
            let mut spec = self.instance.spec().clone();
            spec.resources.network = free;
            self.of_spec("resize", format!("ask for {free} network"), spec, Some(slot))
        });
        let has = |(slot, _): &(Slot, Mbits)| self.host(*slot).inventory.allocatable_network() >= asked;
        let freed = most(self.narrow().filter(has).collect()).and_then(|(slot, free)| {
            let words = format!("free {} network on {}", asked.saturating_sub(free), self.host(slot).name);
            Some(self.of_estate("free-host", words, slot, Estate::Free(self.least_urgent(slot)?)))
        });
        less.into_iter().chain(freed).collect()
    }

    /// Hosts against which only amounts speak, with what is missing there.
    fn short(&self) -> impl Iterator<Item = (Slot, Amounts)> {
        let is_short = |(_, misfits): &&(Slot, Vec<Misfit>)| {
            let mut reasons = misfits.iter().flat_map(|misfit| &misfit.reasons);
            reasons.all(|reason| matches!(reason, Reason::Short { what, .. } if *what != Amount::Network))
        };
        self.found.iter().filter(is_short).map(|(slot, _)| (*slot, self.missing(*slot)))
    }

    /// What a host lacks of what the instance would take of it.
    fn missing(&self, slot: Slot) -> Amounts {
        let candidate = self.ledger.candidate(slot);
        candidate.takes(&self.request).saturating_sub(candidate.free())
    }

    /// What of what is asked for is more than would fit on a host.
    fn too_much(&self, slot: Slot) -> Amounts {
        let candidate = self.ledger.candidate(slot);
        let bearable = candidate.used.policy.bears(self.request.spec.counting_class(), candidate.free());
        self.request.demand.saturating_sub(bearable)
    }

    /// The host with the smallest part missing of what is needed: of processors, memory or disk, whichever is the largest part.
    fn nearest_short(&self, may: impl Fn(Slot) -> bool) -> Option<(Slot, Amounts)> {
        let part = |missing: u64, needed: u64| u128::from(missing) * 1_000_000 / u128::from(needed.max(1));
        let parts = |slot: Slot, missing: Amounts| {
            let needed = self.ledger.candidate(slot).takes(&self.request);
            [
                part(missing.cpu.0, needed.cpu.0),
                part(missing.memory.0, needed.memory.0),
                part(missing.disk.0, needed.disk.0),
            ]
        };
        let may = |(slot, _): &(Slot, Amounts)| may(*slot);
        self.short()
            .filter(may)
            .min_by_key(|(slot, missing)| (parts(*slot, *missing).into_iter().max(), *slot))
    }

    /// What its borough's quota lets in: more quota, or asking for what is left of it.
    fn let_in(&self) -> Vec<Idea> {
        let borough = &self.request.key.borough;
        let quota = self.state.allowance_of(borough).quota;
        let count = self.together.len() as u64;
        let taken = self.state.taken_before(borough, self.request.spec.priority);
        let whole = taken + self.request.demand.times(count);
        let missing = whole.saturating_sub(quota.most());
        let together = Together::of(self.state, self.together.iter().copied());
        if self.state.excesses_with(self.instance, together).is_empty() {
            return Vec::new();
        }
        let change = BoroughChange {
            quota_cpu: (missing.cpu.0 > 0).then_some(Some(whole.cpu)),
            quota_memory: (missing.memory.0 > 0).then_some(Some(whole.memory)),
            quota_disk: (missing.disk.0 > 0).then_some(Some(whole.disk)),
            ..BoroughChange::default()
        };
        let (by, to) = (amounts_text(missing, missing), amounts_text(whole, missing));
        let words = format!("raise {borough}'s quota by {by}, to {to}, which operators decide");
        let told = Suggestion { kind: "raise-quota", change: words, host: None };
        let raised = Idea { told, spec: None, estate: Estate::Allow(change) };
        let each = Amounts {
            cpu: MilliCpu(missing.cpu.0.div_ceil(count)),
            memory: Bytes(missing.memory.0.div_ceil(count)),
            disk: Bytes(missing.disk.0.div_ceil(count)),
        };
        [raised].into_iter().chain(self.resize(each, None)).collect()
    }

    /// One more host that its borough may keep to itself, where it keeps as many as it may.
    fn kept(&self) -> Option<Idea> {
        let reasons = self.found.iter().flat_map(|(_, misfits)| misfits).flat_map(|misfit| &misfit.reasons);
        let kept = reasons.filter_map(|reason| match reason {
            Reason::FewPrivate { kept, .. } => Some(*kept),
            _ => None,
        });
        let (borough, kept) = (&self.request.key.borough, kept.max()?);
        // For each that found no host at most one more.
        let most = kept.saturating_add(self.missing_hosts);
        let words = format!("let {borough} keep {most} hosts to itself, which operators decide");
        let told = Suggestion { kind: "raise-quota", change: words, host: None };
        let change = BoroughChange { private_hosts: Some(most), ..BoroughChange::default() };
        Some(Idea { told, spec: None, estate: Estate::Allow(change) })
    }

    /// Asking for so much less; `None` where that is less than anything can run with.
    fn resize(&self, missing: Amounts, slot: Option<Slot>) -> Option<Idea> {
        let (less, mut spec) = (self.less(missing)?, self.instance.spec().clone());
        (spec.resources.cpu, spec.resources.memory, spec.resources.disk) = (less.cpu, less.memory, less.disk);
        Some(self.of_spec("resize", format!("ask for {}", amounts_text(less, missing)), spec, slot))
    }

    /// What would be asked for then.
    fn less(&self, missing: Amounts) -> Option<Amounts> {
        let asked = self.instance.spec().resources.amounts();
        let less = Amounts {
            cpu: MilliCpu(match self.instance.spec().resources.dedicated {
                true => asked.cpu.0.saturating_sub(missing.cpu.0) / 1_000 * 1_000,
                false => asked.cpu.0.saturating_sub(missing.cpu.0),
            }),
            memory: Bytes(match missing.memory.0 {
                0 => asked.memory.0,
                missing => asked.memory.0.saturating_sub(missing) / MEMORY_STEP * MEMORY_STEP,
            }),
            disk: Bytes(asked.disk.0.saturating_sub(missing.disk.0)),
        };
        self.instance.spec().least_amounts().within(less).then_some(less)
    }

    /// Asking for less: what the nearest host has.
    fn resized(&self) -> Vec<Idea> {
        let nearest = self.nearest_short(|slot| self.less(self.too_much(slot)).is_some());
        let resized = nearest.and_then(|(slot, _)| self.resize(self.too_much(slot), Some(slot)));
        let mut ideas: Vec<Idea> = resized.into_iter().collect();
        ideas.extend(
            (0..self.instance.spec().resources.devices.len()).filter_map(|place| self.fewer_devices(place)),
        );
        ideas
    }

    /// Asking for fewer of a kind of devices, or for a smaller part: the most that some host has.
    fn fewer_devices(&self, place: usize) -> Option<Idea> {
        let request = self.instance.spec().resources.devices.get(place)?;
        let only_devices =
            |(_, misfits): &&(Slot, Vec<Misfit>)| misfits.iter().all(|misfit| misfit.filter == "devices");
        // Hosts that have all of the other kinds that are asked for.
        let has_others = |slot: &Slot| {
            let mut others =
                self.instance.spec().resources.devices.iter().filter(|other| other.kind != request.kind);
            others
                .all(|other| self.ledger.candidate(*slot).devices_for(other).count() >= other.count as usize)
        };
        let short = self.found.iter().filter(only_devices).map(|(slot, _)| *slot);
        let slots: Vec<Slot> = short.filter(has_others).collect();
        let count = |request: &DeviceRequest| {
            let counts = slots.iter().map(|slot| self.ledger.candidate(*slot).devices_for(request).count());
            counts.max().unwrap_or(0) as u32
        };
        let smaller = |share| DeviceRequest { share: Share(share), ..request.clone() };
        let fewer = count(request);
        let changed = if (1..request.count).contains(&fewer) {
            DeviceRequest { count: fewer, ..request.clone() }
        } else {
            // The largest part for which there are enough; more parts are never easier.
            let enough = |share: u32| count(&smaller(share)) >= request.count;
            let most =
                (1..request.share.0).collect::<Vec<u32>>().partition_point(|share| enough(*share)) as u32;
            (most > 0).then(|| smaller(most))?
        };
        let (words, mut spec) = (format!("ask for {changed}"), self.instance.spec().clone());
        *spec.resources.devices.get_mut(place)? = changed;
        Some(self.of_spec("resize", words, spec, None))
    }

    /// Leaving one rule out.
    fn relaxed(&self) -> Vec<Idea> {
        let asked = self.instance.spec();
        let mut ideas = Vec::new();
        let mut leave_out = |path: String, change: &dyn Fn(&mut WorkloadSpec)| {
            let mut spec = asked.clone();
            change(&mut spec);
            ideas.push(self.of_spec("relax", format!("leave out {path}"), spec, None));
        };
        if !asked.place.sites.is_empty() {
            leave_out("place.sites".to_owned(), &|spec| spec.place.sites.clear());
        }
        for (place, condition) in asked.place.require.iter().enumerate() {
            let path = format!("place.require[{place}], \"{condition}\"");
            leave_out(path, &|spec| drop(spec.place.require.remove(place)));
        }
        if asked.place.distinct_hosts {
            leave_out("place.distinct_hosts".to_owned(), &|spec| spec.place.distinct_hosts = false);
        }
        if asked.resources.numa != Numa::Any {
            leave_out("resources.numa".to_owned(), &|spec| spec.resources.numa = Numa::Any);
        }
        if asked.resources.dedicated {
            leave_out("resources.dedicated".to_owned(), &|spec| {
                (spec.resources.dedicated, spec.resources.numa) = (false, Numa::Any);
            });
        }
        if asked.resources.network.0 > 0 {
            leave_out("resources.network".to_owned(), &|spec| spec.resources.network.0 = 0);
        }
        if asked.place.all_or_none {
            leave_out("place.all_or_none".to_owned(), &|spec| spec.place.all_or_none = false);
        }
        if asked.place.private {
            leave_out("place.private".to_owned(), &|spec| spec.place.private = false);
        }
        for (place, workload) in asked.place.apart.iter().enumerate() {
            let path = format!("place.apart[{place}], {workload}");
            leave_out(path, &|spec| drop(spec.place.apart.remove(place)));
        }
        for (place, workload) in asked.place.together.iter().enumerate() {
            let path = format!("place.together[{place}], {workload}");
            leave_out(path, &|spec| drop(spec.place.together.remove(place)));
        }
        for (_, port) in asked.ports().filter(|(_, port)| port.host.is_some()) {
            leave_out(format!("the host port of {}", port.name), &|spec| free_port(spec, &port.name));
        }
        for (place, request) in asked.resources.devices.iter().enumerate() {
            let of = |field: &str| format!("resources.devices[{place}].{field}");
            if !request.models.is_empty() {
                leave_out(of("models"), &|spec| spec.resources.devices[place].models.clear());
            }
            if !request.require.is_empty() {
                leave_out(of("require"), &|spec| spec.resources.devices[place].require.clear());
            }
        }
        ideas
    }

    /// Tolerating the taints of a host against which nothing else speaks.
    fn tolerated(&self) -> Option<Idea> {
        let only_tainted = |(_, misfits): &&(Slot, Vec<Misfit>)| {
            let mut reasons = misfits.iter().flat_map(|misfit| &misfit.reasons);
            reasons.all(|reason| matches!(reason, Reason::Tainted(_)))
        };
        let (slot, misfits) = self.found.iter().find(only_tainted)?;
        let taints = misfits.iter().flat_map(|misfit| &misfit.reasons).filter_map(|reason| match reason {
            Reason::Tainted(taint) => Some(taint.as_str()),
            _ => None,
        });
        let taints: Vec<&str> = taints.collect();
        let mut spec = self.instance.spec().clone();
        spec.place.tolerate.extend(taints.iter().filter_map(|taint| taint.parse().ok()));
        let change = format!("tolerate {}, which its operator may not want", taints.join(" and "));
        Some(self.of_spec("relax", change, spec, Some(*slot)))
    }

    fn of_spec(&self, kind: &'static str, change: String, spec: WorkloadSpec, slot: Option<Slot>) -> Idea {
        let host = slot.map(|slot| self.host(slot).name.clone());
        Idea { told: Suggestion { kind, change, host }, spec: Some(spec), estate: Estate::Nothing }
    }

    fn of_estate(&self, kind: &'static str, change: String, slot: Slot, estate: Estate) -> Idea {
        let host = Some(self.host(slot).name.clone());
        Idea { told: Suggestion { kind, change, host }, spec: None, estate }
    }
}

fn add_host(trial: &mut Trial, inventory: &Inventory) {
    let mut names = (0..).map_while(|number: u32| HostName::new(format!("{NEW_HOST}-{number}")).ok());
    let Some(name) = names.find(|name| trial.state.host_named(name.as_str()).is_none()) else { return };
    let command =
        Command::RegisterHost { incarnation: name.to_string(), name, inventory: Box::new(inventory.clone()) };
    drop(trial.apply(command));
}

fn free_port(spec: &mut WorkloadSpec, name: &PortName) {
    for task in &mut spec.tasks {
        if let Driver::Container(container) = &mut task.driver {
            container.ports.iter_mut().filter(|port| port.name == *name).for_each(|port| port.host = None);
        }
    }
}

/// What is asked for then, of the amounts that are less than before.
fn amounts_text(less: Amounts, missing: Amounts) -> String {
    let parts = [
        (missing.cpu.0 > 0).then(|| format!("{} cpu", less.cpu)),
        (missing.memory.0 > 0).then(|| format!("{} memory", less.memory.exact())),
        (missing.disk.0 > 0).then(|| format!("{} disk", less.disk.exact())),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(" and ")
}
