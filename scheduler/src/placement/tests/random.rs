//! Random small estates for the properties: hosts, workloads and what boroughs may have.

use std::collections::BTreeMap;

use proptest::prelude::*;
use supercloud_proto::{
    amount::{Bytes, Mbits, MilliCpu},
    cores::{Cpu, Numa, NumaNode},
    device::{Device, DeviceRequest, Share},
    host::{HostState, PortRange},
    name::{PortName, RackName, SiteName, WorkloadName},
    spec::{Class, Driver, DriverKind, Port, Prefer, Protocol, Spread, SpreadOver, WorkloadSpec},
};

use super::{
    allowances::{self, RandomAllowance, random_allowance},
    estate::{Estate, inventory, mount, spec, vm},
};
use crate::state::{Packing, SiteChange};

pub(super) const MIB: u64 = 1 << 20;

#[derive(Debug, Clone, Default)]
pub(super) struct RandomHost {
    cores: u64,
    gib: u64,
    site: u8,
    rack: u8,
    tier: u8,
    ports: u16,
    vms: bool,
    state: u8,
    open: bool,
    /// Of each GPU its model, whether it is shared, whether it can be used, and whether a VM can get it.
    gpus: Vec<(u8, bool, bool, bool)>,
    taint: Option<u8>,
    zone: Option<u8>,
    /// In hundreds of megabits a second, and what of it is kept back.
    network: (u64, u64),
    /// How many processors share a core, over how many nodes cores are spread, and how many are kept; where its cores are told.
    topology: Option<(u16, u16, u16)>,
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
    site: Option<u8>,
    /// A bound, and which of [`SIGNS`] is meant.
    tier: Option<(u8, usize)>,
    /// How much a host of the higher tier is wished for.
    wish: i32,
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
    /// How many GPUs, how much of each in thousandths, and their model.
    gpus: Option<(u32, u32, Option<u8>)>,
    /// A value of the taint, or any.
    tolerate: Option<Option<u8>>,
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
}

impl RandomHost {
    /// The same, ready and open.
    pub(super) fn well(self) -> Self {
        Self { state: 2, open: true, ..self }
    }
}

impl RandomWorkload {
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
    pub(super) fn as_gang(self, count: u32, priority: u32) -> Self {
        Self { count, priority, together: None, gang: true, ..self }
    }

    /// The same, of the borough of another one.
    pub(super) fn beside(self, other: &Self) -> Self {
        Self { borough: other.borough, ..self }
    }
}

prop_compose! {
    pub(super) fn random_host()(
        cores in 0u64..5, gib in 0u64..5, site in 0u8..2, rack in 0u8..3, tier in 0u8..2, ports in 1u16..6,
        vms in any::<bool>(), state in 0u8..8, open in prop::bool::weighted(0.9),
        gpus in prop::collection::vec((0u8..2, any::<bool>(), prop::bool::weighted(0.9), any::<bool>()), 0..4),
        taint in prop::option::weighted(0.2, 0u8..2), zone in prop::option::weighted(0.8, 0u8..3),
        network in (0u64..6, 0u64..2), topology in prop::option::weighted(0.8, (1u16..3, 1u16..3, 0u16..2)),
    ) -> RandomHost {
        RandomHost { cores, gib, site, rack, tier, ports, vms, state, open, gpus, taint, zone, network, topology }
    }
}

prop_compose! {
    pub(super) fn random_workload()(
        count in 0u32..8, priority in 0u32..3, cpu in 0u64..2500, mib in 0u64..1500,
        vm in prop::bool::weighted(0.2), site in prop::option::weighted(0.3, 0u8..2),
        tier in prop::option::weighted(0.3, (0u8..3, 0..SIGNS.len())), wish in -100i32..=100, distinct in any::<bool>(), dynamic in 0u16..3,
        fixed in prop::option::weighted(0.2, 20_000u16..20_003), udp in any::<bool>(),
        network in prop_oneof![3 => Just(0u64), 1 => 1u64..4],
        spread in 0u8..8, zones in prop::option::weighted(0.4, 0usize..3),
        shares in prop::option::weighted(0.3, (0usize..3, prop::array::uniform2(1u32..8))),
        borough in 0u8..3,
        (tolerate, gang) in (prop::option::weighted(0.5, prop::option::of(0u8..2)), prop::bool::weighted(0.25)),
        (apart, together) in (prop::option::weighted(0.3, 0u8..6), prop::option::weighted(0.2, 0u8..6)),
        (class, private, mounts) in (0..CLASSES.len(), prop::bool::weighted(0.3), prop::bool::weighted(0.3)),
        own in prop::option::weighted(0.25, (1u64..4, any::<bool>())),
        gpus in prop::option::weighted(0.4, (1u32..3, prop::sample::select(vec![300, 500, 700, 1_000]), prop::option::of(0u8..2))),
    ) -> RandomWorkload {
        RandomWorkload { borough, count, priority, cpu, mib, network, vm, site, tier, wish, distinct, dynamic, fixed, udp, spread, zones, shares, gpus, tolerate, class, apart, together, private, gang, mounts, own }
    }
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

/// What a condition may say of a host's tier.
const SIGNS: [&str; 7] = ["==", "!=", "not in", "<", "<=", ">=", ">"];

pub(super) fn site(number: u8) -> SiteName {
    SiteName::new(format!("site-{number}")).unwrap()
}

pub(super) fn add_host(estate: &mut Estate, name: &str, random: &RandomHost) {
    let mut found = inventory();
    found.capacity.cpu = MilliCpu(random.cores * 1000);
    found.capacity.memory = Bytes(random.gib << 30);
    found.reserved.memory = Bytes(100 * MIB);
    (found.network, found.network_reserved) = (Mbits(random.network.0 * 100), Mbits(random.network.1 * 100));
    found.site = site(random.site);
    found.rack = random.rack.checked_sub(1).map(|rack| RackName::new(format!("rack-{rack}")).unwrap());
    found.labels.insert("tier".to_owned(), random.tier.to_string());
    found.labels.extend(random.zone.map(|zone| ("zone".to_owned(), zone.to_string())));
    found.ports = PortRange { first: 20_000, last: 20_000 + random.ports - 1 };
    for (number, (model, shared, well, is_passed)) in random.gpus.iter().enumerate() {
        let device = Device {
            kind: "gpu".parse().unwrap(),
            model: format!("m{model}"),
            labels: BTreeMap::new(),
            shared: *shared,
            fault: if *well { String::new() } else { "broken".to_owned() },
            pci: format!("0000:0{number}:00.0").parse().ok().filter(|_| *is_passed),
        };
        found.devices.insert(format!("gpu{number}").parse().unwrap(), device);
    }
    found.taints.extend(random.taint.map(|value| ("team".to_owned(), value.to_string())));
    if let Some(topology) = random.topology {
        found.nodes = nodes(random.cores as u16, random.gib, topology);
    }
    if !random.vms {
        found.drivers.remove(&DriverKind::Libvirt);
    }
    estate.host(name, found);
    match random.state {
        0 => estate.judge(name, HostState::Suspect, ""),
        1 => estate.judge(name, HostState::Degraded, ""),
        _ => {}
    }
    estate.schedulable(name, random.open);
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
    wanted.resources.network = Mbits(random.network * 100);
    if let Some((cores, is_one)) = random.own {
        wanted.resources.cpu = MilliCpu(cores * 1_000);
        wanted.resources.dedicated = true;
        wanted.resources.numa = if is_one { Numa::One } else { Numa::Any };
    }
    wanted.place.sites.extend(random.site.map(site));
    let condition = |(bound, sign): (u8, usize)| match SIGNS[sign] {
        "not in" => format!("label.tier not in [{bound}]"),
        sign => format!("label.tier {sign} {bound}"),
    };
    wanted.place.require.extend(random.tier.map(|tier| condition(tier).parse().unwrap()));
    if random.wish % 2 == 0 {
        wanted.place.prefer.push(Prefer { when: "label.tier == 1".parse().unwrap(), weight: random.wish });
    }
    wanted.resources.devices.extend(random.gpus.map(|(count, share, model)| DeviceRequest {
        kind: "gpu".parse().unwrap(),
        count,
        share: Share(share),
        models: model.into_iter().map(|model| format!("m{model}")).collect(),
        require: Vec::new(),
        to_vm: random.vm,
    }));
    wanted.place.tolerate.extend(random.tolerate.map(|value| match value {
        Some(value) => format!("team={value}").parse().unwrap(),
        None => "team".parse().unwrap(),
    }));
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
    for (number, workload) in workloads.iter().enumerate() {
        hand_in(&mut estate, &format!("w{number}"), workload);
    }
    estate
}
