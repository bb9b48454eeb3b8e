//! The one admission rule: whether an instance fits a host. The pass calls it to choose, apply calls it to commit, explain calls it to say why
//! not; it takes no flags, and it knows nothing of scores, of an order among hosts or of a clock.
//!
//! The rule is the list [`FILTERS`]. A filter looks at one [`Candidate`] and one [`Request`] and gives its reasons against, as data. To add a
//! filter: a function, its line in the list, its reasons with their words, and a case in `placement/cases`.
//!
//! Decisions. *A candidate's use is a parameter*: a pass looks at hosts as they will be once its own placements are in, explain at a host without
//! the instance it explains; both hand in that use and ask the same rule. *Reasons name no other borough*: who holds a port is not said, since
//! explanations go to tenants. *Ports rotate*: a dynamic port is the first free one from a place that moves on with the instance's id, so
//! that a port that was just given back is not the next one given out, and a client of what ran there before does not reach a stranger.

use std::{collections::BTreeSet, sync::Arc};

use supercloud_proto::{
    amount::{Amounts, Mbits, MilliCpu},
    condition::Attribute,
    cores::Cores,
    host::HostState,
    id::InstanceId,
    name::{BoroughName, DeviceName, WorkloadKey},
    spec::{DriverKind, WorkloadSpec},
    taint::{taint_text, untolerated},
};

use super::{
    State,
    command::Placement,
    demand::demand,
    host_use::HostUse,
    model::{Host, Instance, cpu_of},
};

mod cores;
mod devices;
mod ports;
mod reason;
mod volumes;

pub use devices::DeviceChoice;
pub use ports::choose_ports;
pub use reason::{Amount, Found, Misfit, Reason};

/// What is to be placed.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// Which instance, where it is one: what is kept for it on a host is its own.
    pub instance: Option<InstanceId>,
    /// Whose it is.
    pub key: &'a WorkloadKey,
    /// What it wants.
    pub spec: &'a WorkloadSpec,
    /// What it asks for, with its overhead. What that takes of a host, [`Candidate::takes`] says.
    pub demand: Amounts,
    /// The host ports it is to get, in the order of [`WorkloadSpec::ports`]; `None`: any that are free.
    pub ports: Option<&'a [u16]>,
    /// The devices it is to get, in the order of [`Resources::each_device`](supercloud_proto::spec::Resources::each_device); `None`: any that are free.
    pub devices: Option<&'a [DeviceName]>,
    /// The cores of its own that it is to get, or that it gets none; `None`: any that are free.
    pub cores: Option<Option<&'a Cores>>,
}

impl<'a> Request<'a> {
    /// A request for a workload's spec, with any free ports, devices and cores.
    pub fn new(key: &'a WorkloadKey, spec: &'a WorkloadSpec) -> Self {
        Self { instance: None, key, spec, demand: demand(spec), ports: None, devices: None, cores: None }
    }

    /// A request for an instance, with any free ports, devices and cores.
    pub fn of(instance: &'a Instance) -> Self {
        Self { instance: Some(instance.id), ..Self::new(instance.workload(), instance.spec()) }
    }

    /// The same with the ports, devices and cores of a placement.
    pub fn as_placed(self, placement: &'a Placement) -> Self {
        let cores = Some(placement.cores.as_deref());
        Self { ports: Some(&placement.ports), devices: Some(&placement.devices), cores, ..self }
    }
}

/// A host as it is looked at.
#[derive(Debug, Clone, Copy)]
pub struct Candidate<'a> {
    /// Where instances are looked up.
    pub state: &'a State,
    /// The host.
    pub host: &'a Host,
    /// What it can give away in all.
    pub allocatable: Amounts,
    /// What of it counts as given away.
    pub used: &'a HostUse,
    /// What whoever looks knows already.
    pub known: Known,
}

/// What is known of who is on a host or is to come, as a workload sees it: looking it up goes through all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Known {
    /// Whether an instance of the workload is to stay there.
    pub sibling: Option<bool>,
    /// Whether an instance is to stay there that must not share a host with the workload.
    pub unwanted: Option<bool>,
    /// Whether room is kept there for others.
    pub reserved: Option<bool>,
    /// Whether another borough keeps the host to itself.
    pub anothers: Option<bool>,
    /// Whether its borough may keep one more host to itself.
    pub may_keep: Option<bool>,
}

impl<'a> Candidate<'a> {
    /// The host with what the state says is given away.
    pub fn new(state: &'a State, host: &'a Host) -> Self {
        let (allocatable, used) = (host.inventory.allocatable(), state.used(host.id));
        Self { state, host, allocatable, used, known: Known::default() }
    }

    /// What can still be given away.
    pub fn free(&self) -> Amounts {
        self.allocatable.saturating_sub(self.used.taken)
    }

    /// Network bandwidth that can still be given away.
    pub fn free_network(&self) -> Mbits {
        self.host.inventory.allocatable_network().saturating_sub(self.used.network)
    }

    /// Whether the network bandwidth is free that is asked for.
    pub fn has_network(&self, spec: &WorkloadSpec) -> bool {
        spec.resources.network.0 == 0 || spec.resources.network <= self.free_network()
    }

    /// Whether what it takes is free: what the filters `resources` and `devices` ask. A pass asks this of all hosts, and the whole rule of the best.
    pub fn has_room(&self, request: &Request<'_>) -> bool {
        self.takes(request).within(self.free())
            && self.has_network(request.spec)
            && self.has_devices(request.spec)
    }

    /// What a request takes of the host.
    #[inline]
    pub fn takes(&self, request: &Request<'_>) -> Amounts {
        if request.spec.resources.dedicated {
            self.takes_whole(request)
        } else {
            self.takes_at_least(request)
        }
    }

    /// The same but for what whole cores of its own are more than it asks for.
    #[inline]
    pub fn takes_at_least(&self, request: &Request<'_>) -> Amounts {
        self.used.policy.takes(request.spec.counting_class(), request.demand)
    }

    /// The same of what has cores of its own: all of those that it is to get, or would.
    fn takes_whole(&self, request: &Request<'_>) -> Amounts {
        let least = self.takes_at_least(request);
        let cpu = match request.cores {
            Some(chosen) => chosen.map(cpu_of),
            None => self.choose_cores(request).map(|cores| cpu_of(&cores)),
        };
        Amounts { cpu: cpu.map_or(least.cpu, MilliCpu), ..least }
    }
}

/// One filter.
#[derive(Debug)]
pub struct Filter {
    /// Its name, part of the API.
    pub name: &'static str,
    /// Its reasons against; empty: it lets pass.
    pub check: fn(&Candidate<'_>, &Request<'_>) -> Vec<Reason>,
    /// Whether it looks at the host's record alone, and not at what is given away of it.
    pub is_of_record: bool,
}

/// The rule: every filter must let pass. What is cheap and rules out much comes first, and what a tenant can change himself comes last.
pub const FILTERS: [Filter; 16] = [
    Filter { name: "host-state", check: host_state, is_of_record: true },
    Filter { name: "driver", check: driver, is_of_record: true },
    Filter { name: "site", check: site, is_of_record: true },
    Filter { name: "taints", check: taints, is_of_record: true },
    Filter { name: "require", check: require, is_of_record: true },
    Filter { name: "volume", check: volumes::volume, is_of_record: false },
    Filter { name: "reserved", check: reserved, is_of_record: false },
    Filter { name: "resources", check: resources, is_of_record: false },
    Filter { name: "devices", check: devices::devices, is_of_record: false },
    Filter { name: "cores", check: cores::cores, is_of_record: false },
    Filter { name: "numa", check: cores::numa, is_of_record: false },
    Filter { name: "ports", check: ports::ports, is_of_record: false },
    Filter { name: "private", check: private, is_of_record: false },
    Filter { name: "distinct-hosts", check: distinct_hosts, is_of_record: false },
    Filter { name: "apart", check: apart, is_of_record: false },
    Filter { name: "together", check: together, is_of_record: false },
];

/// Whether the request fits the host; if not, the first filter's "no".
pub fn fits(state: &State, host: &Host, request: &Request<'_>) -> Result<(), Misfit> {
    Candidate::new(state, host).fits(request)
}

impl Candidate<'_> {
    /// Whether the request fits the host as it is looked at; if not, the first filter's "no".
    pub fn fits(&self, request: &Request<'_>) -> Result<(), Misfit> {
        self.misfits(request).next().map_or(Ok(()), Err)
    }

    /// Whether nothing speaks against the host that only its record could change.
    pub fn suits(&self, request: &Request<'_>) -> bool {
        FILTERS
            .iter()
            .filter(|filter| filter.is_of_record)
            .all(|filter| (filter.check)(self, request).is_empty())
    }

    /// Whether the request fits a host that [suits](Self::suits) it.
    pub fn fits_if_suiting(&self, request: &Request<'_>) -> bool {
        FILTERS
            .iter()
            .filter(|filter| !filter.is_of_record)
            .all(|filter| (filter.check)(self, request).is_empty())
    }

    /// Every filter's "no", in their order; empty: it fits.
    pub fn misfits(&self, request: &Request<'_>) -> impl Iterator<Item = Misfit> {
        FILTERS.iter().filter_map(|filter| {
            let reasons = (filter.check)(self, request);
            (!reasons.is_empty()).then_some(Misfit { filter: filter.name, reasons })
        })
    }
}

/// The instance that must be gone before this one may be placed. An exclusive instance never runs twice, so whoever holds its slot of the workload
/// must have stopped first. What is on a lost host runs no more: its lease has run out.
pub fn must_wait_for<'a>(state: &'a State, instance: &Instance) -> Option<&'a Instance> {
    if !instance.spec().is_exclusive() {
        return None;
    }
    let holds = |other: &&Instance| other.slot == instance.slot && other.id != instance.id;
    may_run(state, instance.workload()).find(holds)
}

/// The slots of a workload that something may still run in: all that [`must_wait_for`] could find, for many at once.
pub fn held_slots(state: &State, key: &WorkloadKey) -> BTreeSet<u32> {
    may_run(state, key).map(|instance| instance.slot).collect()
}

/// The instances of a workload that may run.
fn may_run<'a>(state: &'a State, key: &WorkloadKey) -> impl Iterator<Item = &'a Instance> {
    let may_run = |instance: &&'a Instance| {
        let host = instance.takes().and_then(|placed| state.host(placed.host));
        host.is_some_and(|host| host.state != HostState::Lost)
    };
    state.instances_of(key).map(AsRef::as_ref).filter(may_run)
}

/// It answers, its runtimes do, and no operator closed it.
fn host_state(candidate: &Candidate<'_>, _: &Request<'_>) -> Vec<Reason> {
    let host = candidate.host;
    let mut reasons = Vec::new();
    if host.state != HostState::Ready {
        reasons.push(Reason::HostState { state: host.state, because: host.state_reason.clone() });
    }
    if !host.schedulable {
        reasons.push(Reason::Closed);
    }
    reasons
}

/// It has every driver that the tasks need, and they answer.
fn driver(candidate: &Candidate<'_>, request: &Request<'_>) -> Vec<Reason> {
    let mut reasons = Vec::new();
    for task in &request.spec.tasks {
        let driver = task.driver.kind();
        let reason = match candidate.host.inventory.drivers.get(&driver) {
            None => Reason::NoDriver(driver),
            Some(info) if !info.healthy => Reason::DriverSilent { driver, because: info.reason.clone() },
            Some(_) => continue,
        };
        if !reasons.contains(&reason) {
            reasons.push(reason);
        }
    }
    reasons
}

/// It stands in one of the sites asked for.
fn site(candidate: &Candidate<'_>, request: &Request<'_>) -> Vec<Reason> {
    let wanted = &request.spec.place.sites;
    let found = &candidate.host.inventory.site;
    if wanted.is_empty() || wanted.contains(found) {
        return Vec::new();
    }
    vec![Reason::Site { wanted: wanted.clone(), found: Some(found.clone()) }]
}

/// It has no taint that the workload does not tolerate.
fn taints(candidate: &Candidate<'_>, request: &Request<'_>) -> Vec<Reason> {
    let found = untolerated(&candidate.host.inventory.taints, &request.spec.place.tolerate);
    found.map(|(name, value)| Reason::Tainted(taint_text(name, value))).collect()
}

/// Every condition holds.
fn require(candidate: &Candidate<'_>, request: &Request<'_>) -> Vec<Reason> {
    let mut reasons = Vec::new();
    for condition in &request.spec.place.require {
        let value = candidate.attribute(&condition.attribute);
        if !condition.holds(value) {
            let found = value.map_or(Found::Nothing, |value| Found::Value(value.to_owned()));
            reasons.push(Reason::Condition { condition: condition.clone(), found });
        }
    }
    reasons
}

impl<'a> Candidate<'a> {
    /// What an attribute is worth on the host.
    pub fn attribute(&self, attribute: &Attribute) -> Option<&'a str> {
        let inventory = &self.host.inventory;
        let version = |driver| inventory.drivers.get(&driver).map(|info| info.version.as_str());
        match attribute {
            Attribute::Arch => Some(&inventory.arch),
            Attribute::Os => Some(&inventory.os),
            Attribute::Kernel => Some(&inventory.kernel),
            Attribute::Host => Some(self.host.name.as_str()),
            Attribute::Site => Some(inventory.site.as_str()),
            Attribute::Rack => inventory.rack.as_ref().map(|rack| rack.as_str()),
            Attribute::Docker => version(DriverKind::Docker).filter(|version| !version.is_empty()),
            Attribute::Libvirt => version(DriverKind::Libvirt).filter(|version| !version.is_empty()),
            Attribute::Label(name) => inventory.labels.get(name).map(String::as_str),
        }
    }
}

/// No room is kept there for what is as urgent and waits for others to make way.
fn reserved(candidate: &Candidate<'_>, request: &Request<'_>) -> Vec<Reason> {
    let is_reserved = candidate.known.reserved.unwrap_or_else(|| candidate.is_kept_from(request));
    if is_reserved { vec![Reason::Reserved] } else { Vec::new() }
}

impl Candidate<'_> {
    /// Whether room is kept there for others that are as urgent.
    fn is_kept_from(&self, request: &Request<'_>) -> bool {
        let awaited = &self.used.awaited;
        let is_own = |(_, id): &(u32, InstanceId)| Some(*id) == request.instance;
        let is_as_urgent = |(priority, _): &(u32, InstanceId)| *priority >= request.spec.priority;
        awaited.iter().any(is_as_urgent) && !awaited.iter().any(is_own)
    }
}

/// What it takes is free.
fn resources(candidate: &Candidate<'_>, request: &Request<'_>) -> Vec<Reason> {
    let (needed, free) = (candidate.takes(request), candidate.free());
    if needed.within(free) && candidate.has_network(request.spec) {
        return Vec::new();
    }
    let (asked, network) = (request.spec.resources.amounts(), request.spec.resources.network.0);
    [
        (Amount::Cpu, needed.cpu.0, asked.cpu.0, free.cpu.0),
        (Amount::Memory, needed.memory.0, asked.memory.0, free.memory.0),
        (Amount::Disk, needed.disk.0, asked.disk.0, free.disk.0),
        (Amount::Network, network, network, candidate.free_network().0),
    ]
    .into_iter()
    .filter(|(_, needed, _, free)| needed > free)
    .map(|(what, needed, asked, free)| Reason::Short { what, needed, asked, free })
    .collect()
}

/// No other borough keeps the host to itself. What is private comes only where no other borough has anything, and where its own keeps the host already or may keep
/// one more.
fn private(candidate: &Candidate<'_>, request: &Request<'_>) -> Vec<Reason> {
    let borough = &request.key.borough;
    if candidate.is_anothers(borough) {
        return vec![Reason::Private];
    }
    if !request.spec.place.private {
        return Vec::new();
    }
    let strangers = candidate.has_strangers(borough).then_some(Reason::Strangers);
    let most = candidate.state.allowance_of(borough).private_hosts;
    // What was given since the state comes on top: who may keep no more keeps as many as it may.
    let kept = candidate.state.kept_hosts(borough).max(most);
    let few = (!candidate.may_be_kept(borough)).then_some(Reason::FewPrivate { kept, most });
    strangers.into_iter().chain(few).collect()
}

impl Candidate<'_> {
    /// Whether the host may be kept to a borough: what the filter `private` asks for what is private.
    pub fn may_be_private(&self, borough: &BoroughName) -> bool {
        !self.is_anothers(borough) && self.may_be_kept(borough) && !self.has_strangers(borough)
    }

    /// Whether a borough keeps the host to itself already, or may keep one more.
    pub fn may_be_kept(&self, borough: &BoroughName) -> bool {
        let may_keep = || self.state.kept_hosts(borough) < self.state.allowance_of(borough).private_hosts;
        self.known.may_keep.unwrap_or_else(may_keep) || self.state.keeps(borough, self.host.id)
    }

    fn is_anothers(&self, borough: &BoroughName) -> bool {
        let is_anothers = || self.used.private.as_ref().is_some_and(|(of, _)| of != borough);
        self.known.anothers.unwrap_or_else(is_anothers)
    }

    /// Whether something of other boroughs is there, and not over: what is stopping still runs. They are looked up, since a count of each borough's instances
    /// on each host would be paid for by all, and asked for by few.
    fn has_strangers(&self, borough: &BoroughName) -> bool {
        let is_own = self.used.private.as_ref().is_some_and(|(of, _)| of == borough);
        let is_stranger =
            |other: &Arc<Instance>| !other.state.is_over() && other.workload().borough != *borough;
        !is_own && self.state.instances_by(self.used.instances.iter().copied()).any(is_stranger)
    }
}

/// No other instance of the workload is to run there.
fn distinct_hosts(candidate: &Candidate<'_>, request: &Request<'_>) -> Vec<Reason> {
    let is_taken = request.spec.place.distinct_hosts
        && candidate.known.sibling.unwrap_or_else(|| candidate.finds_instance(request.key));
    if is_taken { vec![Reason::NotDistinct(request.key.clone())] } else { Vec::new() }
}

/// No instance is to run there of a workload that it must be apart from, whichever of the two says so.
fn apart(candidate: &Candidate<'_>, request: &Request<'_>) -> Vec<Reason> {
    if candidate.known.unwanted == Some(false) {
        return Vec::new();
    }
    candidate.unwanted(request).into_iter().map(Reason::NotApart).collect()
}

/// Of each workload that it must be together with an instance is to run there.
fn together(candidate: &Candidate<'_>, request: &Request<'_>) -> Vec<Reason> {
    let wanted = request.spec.place.together.iter().map(|workload| request.key.beside(workload));
    wanted.filter(|key| !candidate.finds_instance(key)).map(Reason::NotTogether).collect()
}

impl Candidate<'_> {
    /// Whether what it must be together with is there: what the filter `together` asks.
    pub fn has_company(&self, request: &Request<'_>) -> bool {
        request.spec.place.together.is_empty() || together(self, request).is_empty()
    }

    /// The workloads that have an instance there which is to stay, and that must be apart from the one asked for.
    fn unwanted(&self, request: &Request<'_>) -> BTreeSet<WorkloadKey> {
        let named = request.spec.place.apart.iter().map(|workload| request.key.beside(workload));
        if self.used.minding == 0 {
            return named.filter(|key| self.finds_instance(key)).collect();
        }
        let named: BTreeSet<WorkloadKey> = named.collect();
        let minds = |other: &Instance| {
            other.workload().borough == request.key.borough
                && other.spec().place.apart.contains(&request.key.workload)
        };
        let there = self.used.instances.iter().filter_map(|id| self.state.instance(*id));
        let unwanted =
            there.filter(|other| other.is_to_stay() && (named.contains(other.workload()) || minds(other)));
        unwanted.map(|other| other.workload().clone()).collect()
    }

    /// Looks for an instance of a workload that is to stay there: among those of the workload, or those of the host, whichever are fewer.
    fn finds_instance(&self, key: &WorkloadKey) -> bool {
        let Self { state, used, .. } = self;
        if state.count_of(key) < used.instances.len() {
            return state
                .instances_of(key)
                .any(|other| other.is_to_stay() && used.instances.contains(&other.id));
        }
        let is_sibling = |other: &Arc<Instance>| other.is_to_stay() && other.workload() == key;
        used.instances.iter().any(|id| state.instance(*id).is_some_and(is_sibling))
    }
}
