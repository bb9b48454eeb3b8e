//! Random small estates for the properties: hosts, workloads and what boroughs may have.

use proptest::prelude::*;
use supercloud_proto::{
    amount::{Bytes, Mbits, MilliCpu},
    cores::{Cpu, Numa, NumaNode},
    device::{Device, DeviceRequest, Share},
    host::{DriverInfo, HostState, Inventory, PortRange},
    name::{PortName, RackName, SiteName, WorkloadName},
    spec::{Class, Driver, DriverKind, Port, Prefer, Protocol, Spread, SpreadOver, WorkloadSpec},
};

use super::{
    allowances::{self, RandomAllowance, random_allowance},
    conditions::{
        ARCHES, DOCKERS, GENERATIONS, KERNELS, LIBVIRTS, SIZES, SYSTEMS, random_condition, random_conditions,
        random_device_conditions,
    },
    estate::{Estate, inventory, mount, spec, vm},
};
use crate::state::{Packing, SiteChange};

pub(super) const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

#[derive(Debug, Clone, Default)]
pub(super) struct RandomHost {
    cores: u64,
    gib: u64,
    site: u8,
    rack: u8,
    /// Labels, as far as it has them.
    tier: Option<u8>,
    generation: Option<&'static str>,
    software: Software,
    ports: u16,
    state: u8,
    open: bool,
    devices: Vec<RandomDevice>,
    taint: Option<u8>,
    /// A taint of no value.
    is_lab: bool,
    zone: Option<u8>,
    disk: u64,
    /// In hundreds of megabits a second, and what of it is kept back.
    network: (u64, u64),
    /// How many processors share a core, over how many nodes cores are spread, and how many are kept; where its cores are told.
    topology: Option<(u16, u16, u16)>,
}

/// What runs on a host.
#[derive(Debug, Clone, Default)]
struct Software {
    arch: &'static str,
    os: &'static str,
    kernel: &'static str,
    /// Their versions, where they are there, and whether they answer.
    docker: Option<(&'static str, bool)>,
    libvirt: Option<(&'static str, bool)>,
}

#[derive(Debug, Clone)]
struct RandomDevice {
    /// One of [`KINDS`].
    kind: usize,
    model: u8,
    is_shared: bool,
    is_well: bool,
    /// Whether a VM can get it.
    is_passed: bool,
    memory: Option<&'static str>,
}

#[derive(Debug, Clone, Default)]
pub(super) struct RandomWorkload {
    borough: u8,
    count: u32,
    priority: u32,
    cpu: u64,
    mib: u64,
    /// In hundreds of megabits a second.
    network: u64,
    vm: bool,
    disk: u64,
    sites: Vec<u8>,
    require: Vec<String>,
    /// Conditions, and how much a host is wished for of which they are true.
    wishes: Vec<(String, i32)>,
    distinct: bool,
    dynamic: u16,
    fixed: Option<u16>,
    udp: bool,
    /// A bit for each of site, rack and host.
    spread: u8,
    /// Where among them zones come.
    zones: Option<usize>,
    /// Which of these is over shares, and in which.
    shares: Option<(usize, [u32; 2])>,
    /// Of devices of a kind how many, how much of each in thousandths, their model, and conditions on their labels.
    devices: Vec<RandomRequest>,
    tolerate: Vec<&'static str>,
    exclusive: Option<bool>,
    /// Which of [`CLASSES`].
    class: usize,
    /// Another workload of the borough, if there is one of that number.
    apart: Option<u8>,
    together: Option<u8>,
    gang: bool,
    private: bool,
    /// Whether it mounts a volume, unless it is a VM.
    mounts: bool,
    /// How many cores of its own, and whether of one node.
    own: Option<(u64, bool)>,
    /// How many of it may be missing at a time.
    may_miss: u32,
}

impl RandomHost {
    /// The same, ready, open and for everybody.
    pub(super) fn well(self) -> Self {
        Self { state: 2, open: true, taint: None, is_lab: false, ..self }
    }

    /// The same with room for many.
    pub(super) fn large(self) -> Self {
        Self { cores: 4 + self.cores, gib: 8 + self.gib, ports: 100, ..self.well() }
    }

    /// The same, where nothing but processors is scarce.
    pub(super) fn contended(self) -> Self {
        let software = Software { docker: Some(("24.0.7", true)), ..self.software.clone() };
        Self { cores: self.cores.max(1), gib: 6, software, ..self.well() }
    }
}

/// How many things [`RandomWorkload::narrowed_by`] tells apart.
const NARROWING: usize = 8;

impl RandomWorkload {
    /// The same with at most one of the things that leave few hosts to choose from: with several, next to nothing would ever be placed.
    pub(super) fn narrowed_by(self, only: usize) -> Self {
        let keeps = |of: usize| only == of;
        Self {
            require: if keeps(0) { self.require } else { Vec::new() },
            sites: if keeps(1) { self.sites } else { Vec::new() },
            devices: if keeps(2) { self.devices } else { Vec::new() },
            own: self.own.filter(|_| keeps(3)),
            together: self.together.filter(|_| keeps(4)),
            vm: self.vm && keeps(5),
            private: self.private && keeps(6),
            network: if keeps(7) { self.network } else { 0 },
            disk: if keeps(7) { self.disk } else { 0 },
            fixed: self.fixed.filter(|_| keeps(7)),
            ..self
        }
    }

    /// The same as one of many that ask for processors and nothing else.
    pub(super) fn contending(self) -> Self {
        Self {
            distinct: false,
            apart: None,
            gang: false,
            mounts: false,
            exclusive: None,
            dynamic: 0,
            cpu: 300 + self.cpu,
            mib: self.mib / 8,
            ..self.narrowed_by(NARROWING)
        }
    }

    /// The same with a volume.
    pub(super) fn mounting(self) -> Self {
        Self { mounts: true, vm: false, ..self }
    }

    /// The same, of no gang.
    pub(super) fn loose(self) -> Self {
        Self { gang: false, ..self }
    }

    /// One instance of it with this priority, which needs no company and is of no gang.
    pub(super) fn alone(self, priority: u32) -> Self {
        Self { count: 1, priority, together: None, gang: false, ..self }
    }

    /// A gang of so many of it with this priority, which needs no company.
    pub(super) fn in_a_gang(self, count: u32, priority: u32) -> Self {
        Self { count, priority, together: None, gang: true, ..self }
    }

    /// The same, of the borough of another one.
    pub(super) fn beside(self, other: &Self) -> Self {
        Self { borough: other.borough, ..self }
    }

    /// The same, so much more urgent.
    pub(super) fn more_urgent(self, by: u32) -> Self {
        Self { priority: self.priority + by, ..self }
    }
}

prop_compose! {
    fn random_software()(
        arch in prop::sample::select(&ARCHES[..]), os in prop::sample::select(&SYSTEMS[..]), kernel in prop::sample::select(&KERNELS[..]),
        docker in prop::option::weighted(0.97, (prop::sample::select(&DOCKERS[..]), prop::bool::weighted(0.97))),
        libvirt in prop::option::weighted(0.5, (prop::sample::select(&LIBVIRTS[..]), prop::bool::weighted(0.9))),
    ) -> Software {
        Software { arch, os, kernel, docker, libvirt }
    }
}

prop_compose! {
    fn random_device()(
        kind in prop::sample::select(vec![0, 0, 1]), model in 0u8..2, is_shared in any::<bool>(), is_well in prop::bool::weighted(0.9),
        is_passed in any::<bool>(), memory in prop::option::of(prop::sample::select(&SIZES[..])),
    ) -> RandomDevice {
        RandomDevice { kind, model, is_shared, is_well, is_passed, memory }
    }
}

/// A request for devices: the kind, how many, the share of each in thousandths, the model, and conditions.
type RandomRequest = (usize, u32, u32, Option<u8>, Vec<String>);

/// Requests for devices, each kind once.
fn random_requests() -> impl Strategy<Value = Vec<RandomRequest>> {
    let share = || prop::sample::select(vec![300, 500, 700, 1_000]);
    let of = move |kind| (Just(kind), 1u32..3, share(), prop::option::of(0u8..2), random_device_conditions());
    prop_oneof![
        6 => Just(Vec::new()),
        3 => of(0).prop_map(|one| vec![one]),
        1 => of(1).prop_map(|one| vec![one]),
        2 => (of(0), of(1), any::<bool>()).prop_map(|(one, other, is_first)| {
            if is_first { vec![one, other] } else { vec![other, one] }
        }),
    ]
}

/// The same; one in three asks for processors and nothing else.
pub(super) fn random_contender() -> BoxedStrategy<RandomWorkload> {
    let contending = random_workload().prop_map(RandomWorkload::contending).boxed();
    prop_oneof![2 => random_workload(), 1 => contending].boxed()
}

/// What is random is on the heap: in some properties it would be too much for the stack.
pub(super) fn random_host() -> BoxedStrategy<RandomHost> {
    prop_oneof![any_host(), any_host().prop_map(RandomHost::well)].boxed()
}

pub(super) fn random_workload() -> BoxedStrategy<RandomWorkload> {
    // Devices, cores and whole hosts are seldom found even so.
    let only = prop::sample::select(vec![
        0, 0, 1, 2, 2, 2, 2, 3, 3, 4, 4, 4, 5, 6, 6, 7, NARROWING, NARROWING, NARROWING, NARROWING,
    ]);
    let narrowed = (any_workload().boxed(), only);
    let one = narrowed.prop_map(|(workload, only)| workload.narrowed_by(only)).boxed();
    prop_oneof![1 => any_workload().boxed(), 3 => one].boxed()
}

prop_compose! {
    fn any_host()(
        (cores, gib, disk) in (0u64..6, 0u64..6, 0u64..8), site in 0u8..2, rack in 0u8..3, ports in 1u16..6,
        (tier, generation) in (prop::option::weighted(0.9, 0u8..2), prop::option::of(prop::sample::select(&GENERATIONS[..]))),
        (state, open) in (0u8..8, prop::bool::weighted(0.9)), software in random_software().boxed(),
        devices in prop::collection::vec(random_device().boxed(), 0..6),
        (taint, is_lab) in (prop::option::weighted(0.2, 0u8..2), prop::bool::weighted(0.05)),
        zone in prop::option::weighted(0.8, 0u8..3),
        network in (0u64..6, 0u64..2), topology in prop::option::weighted(0.8, (1u16..3, 1u16..3, 0u16..2)),
    ) -> RandomHost {
        RandomHost { cores, gib, site, rack, tier, generation, software, ports, state, open, devices, taint, is_lab, zone, disk, network, topology }
    }
}

prop_compose! {
    fn any_workload()(
        count in 0u32..7, priority in 0u32..3, cpu in 0u64..2_000, mib in 0u64..1_200,
        (vm, disk) in (prop::bool::weighted(0.2), prop_oneof![3 => Just(0u64), 1 => 1u64..3]),
        sites in prop_oneof![4 => Just(Vec::new()), 1 => prop::sample::subsequence(vec![0u8, 1, 2], 1..3)],
        (require, wishes) in (random_conditions(), prop::collection::vec((random_condition(), -100i32..=100), 0..3)),
        distinct in any::<bool>(), dynamic in 0u16..3,
        fixed in prop::option::weighted(0.2, 20_000u16..20_003), udp in any::<bool>(),
        network in prop_oneof![3 => Just(0u64), 1 => 1u64..4],
        spread in 0u8..8, zones in prop::option::weighted(0.4, 0usize..3),
        shares in prop::option::weighted(0.3, (0usize..3, prop::array::uniform2(1u32..8))),
        borough in prop::sample::select(vec![0u8, 0, 1, 2]),
        (tolerate, gang) in (random_tolerations().boxed(), prop::bool::weighted(0.25)),
        exclusive in prop::option::weighted(0.25, any::<bool>()),
        (apart, together) in (prop::option::weighted(0.3, 0u8..6), prop::option::weighted(0.15, 0u8..3)),
        (class, private, mounts) in (0..CLASSES.len(), prop::bool::weighted(0.3), prop::bool::weighted(0.3)),
        own in prop::option::weighted(0.25, (1u64..4, any::<bool>())),
        (devices, may_miss) in (random_requests().boxed(), 1u32..4),
    ) -> RandomWorkload {
        RandomWorkload { borough, count, priority, cpu, mib, network, vm, disk, sites, require, wishes, distinct, dynamic, fixed, udp, spread, zones, shares, devices, tolerate, exclusive, class, apart, together, private, gang, mounts, own, may_miss }
    }
}

fn random_tolerations() -> impl Strategy<Value = Vec<&'static str>> {
    let known = || prop::sample::subsequence(vec!["team", "team=0", "team=1", "lab", "lab=0"], 1..4);
    prop_oneof![Just(Vec::new()), known()]
}

/// What the boroughs may have; some have it all.
pub(super) fn random_boroughs() -> impl Strategy<Value = Vec<Option<RandomAllowance>>> {
    prop::collection::vec(prop::option::of(random_allowance()), BOROUGHS.len())
}

/// What holds for the hosts of a site.
#[derive(Debug, Clone)]
pub(super) struct RandomSite {
    percents: (u32, u32),
    spread: bool,
    cost: u32,
}

prop_compose! {
    pub(super) fn random_site()(
        percents in (prop::sample::select(vec![100, 130, 200, 333]), prop::sample::select(vec![100, 150, 1_000])),
        spread in any::<bool>(), cost in prop_oneof![Just(0), 0u32..=1_000],
    ) -> RandomSite {
        RandomSite { percents, spread, cost }
    }
}

/// What holds for the hosts of the sites; for some what is usual.
pub(super) fn random_sites() -> impl Strategy<Value = Vec<Option<RandomSite>>> {
    prop::collection::vec(prop::option::of(random_site()), 2)
}

pub(super) fn set_site(estate: &mut Estate, number: u8, random: &RandomSite) {
    let change = SiteChange {
        standard_cpu_percent: Some(random.percents.0),
        spare_cpu_percent: Some(random.percents.1),
        packing: Some(if random.spread { Packing::Spread } else { Packing::Pack }),
        cost: Some(random.cost),
    };
    estate.site(&site(number), change);
}

/// Most are of the first.
const CLASSES: [Class; 4] = [Class::Standard, Class::Standard, Class::Guaranteed, Class::Spare];

/// Whose workloads are.
pub(super) const BOROUGHS: [&str; 3] = ["camden", "barnet", "hackney"];

/// Kinds of devices.
const KINDS: [&str; 2] = ["gpu", "fpga"];

pub(super) fn site(number: u8) -> SiteName {
    SiteName::new(format!("site-{number}")).unwrap()
}

pub(super) fn add_host(estate: &mut Estate, name: &str, random: &RandomHost) {
    let mut found = inventory();
    found.capacity.cpu = MilliCpu(random.cores * 1000);
    found.capacity.memory = Bytes(random.gib << 30);
    found.capacity.disk = Bytes(random.disk * GIB);
    found.reserved.disk = Bytes(GIB / 2);
    found.reserved.memory = Bytes(100 * MIB);
    (found.network, found.network_reserved) = (Mbits(random.network.0 * 100), Mbits(random.network.1 * 100));
    found.site = site(random.site);
    found.rack = random.rack.checked_sub(1).map(|rack| RackName::new(format!("rack-{rack}")).unwrap());
    found.labels.extend(random.tier.map(|tier| ("tier".to_owned(), tier.to_string())));
    found.labels.extend(random.generation.map(|generation| ("gen".to_owned(), generation.to_owned())));
    found.labels.extend(random.zone.map(|zone| ("zone".to_owned(), zone.to_string())));
    found.ports = PortRange { first: 20_000, last: 20_000 + random.ports - 1 };
    for (number, random) in random.devices.iter().enumerate() {
        let device = Device {
            kind: KINDS[random.kind].parse().unwrap(),
            model: format!("m{}", random.model),
            labels: random
                .memory
                .map(|memory| ("memory".to_owned(), memory.to_owned()))
                .into_iter()
                .collect(),
            shared: random.is_shared,
            fault: if random.is_well { String::new() } else { "broken".to_owned() },
            pci: format!("0000:0{number}:00.0").parse().ok().filter(|_| random.is_passed),
        };
        found.devices.insert(format!("gpu{number}").parse().unwrap(), device);
    }
    found.taints.extend(random.taint.map(|value| ("team".to_owned(), value.to_string())));
    if let Some(topology) = random.topology {
        found.nodes = nodes(random.cores as u16, random.gib, topology);
    }
    found.taints.extend(random.is_lab.then(|| ("lab".to_owned(), String::new())));
    install(&mut found, &random.software);
    estate.host(name, found);
    match random.state {
        0 => estate.judge(name, HostState::Suspect, ""),
        1 => estate.judge(name, HostState::Degraded, ""),
        _ => {}
    }
    estate.schedulable(name, random.open);
}

fn install(found: &mut Inventory, software: &Software) {
    let Software { arch, os, kernel, docker, libvirt } = *software;
    (found.arch, found.os, found.kernel) = (arch.to_owned(), os.to_owned(), kernel.to_owned());
    found.drivers.clear();
    for (kind, driver) in [(DriverKind::Docker, docker), (DriverKind::Libvirt, libvirt)] {
        let info = |(version, healthy): (&str, bool)| {
            let reason = if healthy { "" } else { "does not answer" }.to_owned();
            (kind, DriverInfo { version: version.to_owned(), healthy, reason, ..DriverInfo::default() })
        };
        found.drivers.extend(driver.map(info));
    }
}

/// Nodes with as many whole cores as so many processors make, which take turns; and with equal parts of the memory.
fn nodes(cpus: u16, gib: u64, (threads, count, kept): (u16, u16, u16)) -> Vec<NumaNode> {
    let of_core = |core: u16| core * threads..(core + 1) * threads;
    let cpu = |core: u16| move |number| Cpu { core: core * threads, number, kept: core < kept };
    let node = |number: u16| NumaNode {
        number,
        memory: Bytes((gib << 30) / u64::from(count)),
        cpus: (0..cpus / threads)
            .filter(|core| core % count == number)
            .flat_map(|core| of_core(core).map(cpu(core)))
            .collect(),
    };
    (0..count).map(node).collect()
}

pub(super) fn wanted(name: &str, random: &RandomWorkload) -> WorkloadSpec {
    let mut wanted = spec(&format!("{}/{name}", BOROUGHS[usize::from(random.borough)]));
    wanted.count = random.count;
    wanted.priority = random.priority;
    wanted.class = CLASSES[random.class];
    wanted.resources.cpu = MilliCpu(random.cpu);
    wanted.resources.memory = Bytes(random.mib * MIB);
    wanted.resources.disk = Bytes(random.disk * GIB);
    wanted.resources.network = Mbits(random.network * 100);
    if let Some((cores, is_one)) = random.own {
        wanted.resources.cpu = MilliCpu(cores * 1_000);
        wanted.resources.dedicated = true;
        wanted.resources.numa = if is_one { Numa::One } else { Numa::Any };
    }
    wanted.exclusive = random.exclusive;
    wanted.update.max_unavailable = random.may_miss;
    wanted.place.sites.extend(random.sites.iter().copied().map(site));
    wanted.place.require.extend(random.require.iter().map(|condition| condition.parse().unwrap()));
    let wish = |(when, weight): &(String, i32)| Prefer { when: when.parse().unwrap(), weight: *weight };
    wanted.place.prefer.extend(random.wishes.iter().map(wish));
    wanted.resources.devices.extend(random.devices.iter().map(|(kind, count, share, model, require)| {
        DeviceRequest {
            kind: KINDS[*kind].parse().unwrap(),
            count: *count,
            share: Share(*share),
            models: model.iter().map(|model| format!("m{model}")).collect(),
            require: require.iter().map(|condition| condition.parse().unwrap()).collect(),
            to_vm: random.vm,
        }
    }));
    wanted.place.tolerate.extend(random.tolerate.iter().map(|one| one.parse().unwrap()));
    let other = |number: u8| WorkloadName::new(format!("w{number}")).unwrap();
    wanted.place.apart.extend(random.apart.map(other).filter(|other| *other != wanted.workload));
    let others = random.together.map(other).filter(|other| *other != wanted.workload);
    wanted.place.together.extend(others.filter(|other| !wanted.place.apart.contains(other)));
    wanted.place.distinct_hosts = random.distinct;
    wanted.place.all_or_none = random.gang;
    wanted.place.private = random.private;
    wanted.place.spread = spread(random);
    let protocol = if random.udp { Protocol::Udp } else { Protocol::Tcp };
    let port = |number: u16, host| Port {
        name: PortName::new(format!("p{number}")).unwrap(),
        port: number,
        host,
        protocol,
    };
    if let Driver::Container(container) = &mut wanted.tasks[0].driver {
        container.ports.extend((1..=random.dynamic).map(|number| port(number, None)));
        container.ports.extend(random.fixed.map(|host| port(99, Some(host))));
        if random.mounts {
            container.mounts.push(mount());
        }
    }
    if random.vm {
        vm(&mut wanted);
    }
    wanted
}

/// Hands in a workload. One that its borough may not have private is not.
pub(super) fn hand_in(estate: &mut Estate, name: &str, random: &RandomWorkload) {
    let mut spec = wanted(name, random);
    estate.borough(&spec.borough);
    spec.place.private &= estate.state.allowance_of(&spec.borough).private_hosts > 0;
    estate.workload(&spec);
}

fn spread(random: &RandomWorkload) -> Vec<Spread> {
    let plain = SpreadOver::ALL.into_iter().enumerate().filter(|(bit, _)| random.spread >> bit & 1 == 1);
    let mut spread: Vec<Spread> = plain.map(|(_, over)| over.into()).collect();
    let wide = |spread: &[Spread]| spread.iter().filter(|spread| spread.over != SpreadOver::Host).count();
    if let Some(place) = random.zones {
        let zones = SpreadOver::Label("zone".to_owned());
        spread.insert(place.min(wide(&spread)), zones.into());
    }
    if let Some((place, shares)) = random.shares.filter(|(place, _)| *place < wide(&spread)) {
        let value = |number| match spread[place].over {
            SpreadOver::Site => format!("site-{number}"),
            SpreadOver::Rack => format!("rack-{number}"),
            SpreadOver::Label(_) | SpreadOver::Host => format!("{number}"),
        };
        spread[place].shares = (0..).map(value).zip(shares).collect();
    }
    spread
}

pub(super) fn estate_of(
    hosts: &[RandomHost],
    workloads: &[RandomWorkload],
    boroughs: &[Option<RandomAllowance>],
    sites: &[Option<RandomSite>],
) -> Estate {
    let mut estate = Estate::default();
    for (number, site) in (0..).zip(sites) {
        site.iter().for_each(|site| set_site(&mut estate, number, site));
    }
    for (number, allowance) in (0..).zip(boroughs) {
        allowance.iter().for_each(|allowance| allowances::allow(&mut estate, number, allowance));
    }
    for (number, host) in hosts.iter().enumerate() {
        add_host(&mut estate, &format!("h{number}"), host);
    }
    hand_in_all(&mut estate, 0, workloads);
    estate
}

/// Hands in workloads, called by their numbers from the first one's on.
pub(super) fn hand_in_all(estate: &mut Estate, first: usize, workloads: &[RandomWorkload]) {
    for (number, workload) in (first..).zip(workloads) {
        hand_in(estate, &format!("w{number}"), workload);
    }
}

/// An estate at the newest level in which something more urgent has come since others were placed, and has some of them make way; and of which a host was lost.
pub(super) fn upset_estate(
    hosts: &[RandomHost],
    of: [&[RandomWorkload]; 2],
    boroughs: &[Option<RandomAllowance>],
    sites: &[Option<RandomSite>],
    lost: usize,
) -> Estate {
    let [before, later] = of;
    let mut estate = estate_of(hosts, &[], boroughs, sites);
    estate.raise_level();
    hand_in_all(&mut estate, 0, before);
    estate.passes(40);
    let later: Vec<_> = later.iter().map(|workload| workload.clone().more_urgent(3)).collect();
    hand_in_all(&mut estate, before.len(), &later);
    estate.pass(8);
    if lost < hosts.len() {
        estate.judge(&format!("h{lost}"), HostState::Lost, "");
    }
    estate
}
