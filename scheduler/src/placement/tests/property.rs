//! Properties of the pass over random small estates, judged by a naive judge of its own. The judge shares no code with what it judges: it adds up
//! from the specs, asks no filter, and keeps no order of hosts.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use proptest::prelude::*;
use supercloud_proto::{
    amount::{Bytes, MilliCpu},
    device::{Device, DeviceRequest, Share},
    host::{HostState, PortRange},
    id::InstanceId,
    instance::Desired,
    name::{PortName, RackName, SiteName, WorkloadName},
    spec::{Driver, DriverKind, Port, Prefer, Protocol, SpreadOver, WorkloadSpec},
};

use super::{
    allowances::{self, Accounts, RandomAllowance, random_allowance},
    estate::{Estate, inventory, spec, vm},
};
use crate::{
    placement::{
        explain,
        pass::{Limits, Plan, Why, pass},
    },
    state::{
        Host, HostUse, Instance, State,
        fits::{Request, fits},
    },
};

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
    /// Of each GPU its model, whether it is shared, and whether it can be used.
    gpus: Vec<(u8, bool, bool)>,
    taint: Option<u8>,
}

#[derive(Debug, Clone, Default)]
pub(super) struct RandomWorkload {
    borough: u8,
    count: u32,
    priority: u32,
    cpu: u64,
    mib: u64,
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
    /// How many GPUs, how much of each in thousandths, and their model.
    gpus: Option<(u32, u32, Option<u8>)>,
    /// A value of the taint, or any.
    tolerate: Option<Option<u8>>,
    /// Another workload of the borough, if there is one of that number.
    apart: Option<u8>,
    together: Option<u8>,
}

prop_compose! {
    pub(super) fn random_host()(
        cores in 0u64..5, gib in 0u64..5, site in 0u8..2, rack in 0u8..3, tier in 0u8..2, ports in 1u16..6,
        vms in any::<bool>(), state in 0u8..8, open in prop::bool::weighted(0.9),
        gpus in prop::collection::vec((0u8..2, any::<bool>(), prop::bool::weighted(0.9)), 0..4),
        taint in prop::option::weighted(0.2, 0u8..2),
    ) -> RandomHost {
        RandomHost { cores, gib, site, rack, tier, ports, vms, state, open, gpus, taint }
    }
}

prop_compose! {
    pub(super) fn random_workload()(
        count in 0u32..8, priority in 0u32..3, cpu in 0u64..2500, mib in 0u64..1500,
        vm in prop::bool::weighted(0.2), site in prop::option::weighted(0.3, 0u8..2),
        tier in prop::option::weighted(0.3, (0u8..3, 0..SIGNS.len())), wish in -100i32..=100, distinct in any::<bool>(), dynamic in 0u16..3,
        fixed in prop::option::weighted(0.2, 20_000u16..20_003), udp in any::<bool>(),
        spread in 0u8..8,
        borough in 0u8..3,
        tolerate in prop::option::weighted(0.5, prop::option::of(0u8..2)),
        (apart, together) in (prop::option::weighted(0.3, 0u8..6), prop::option::weighted(0.2, 0u8..6)),
        gpus in prop::option::weighted(0.4, (1u32..3, prop::sample::select(vec![300, 500, 700, 1_000]), prop::option::of(0u8..2))),
    ) -> RandomWorkload {
        RandomWorkload { borough, count, priority, cpu, mib, vm, site, tier, wish, distinct, dynamic, fixed, udp, spread, gpus, tolerate, apart, together }
    }
}

/// What the boroughs may have; some have it all.
fn random_boroughs() -> impl Strategy<Value = Vec<Option<RandomAllowance>>> {
    prop::collection::vec(prop::option::of(random_allowance()), BOROUGHS.len())
}

/// Whose workloads are.
pub(super) const BOROUGHS: [&str; 3] = ["camden", "barnet", "hackney"];

/// What a condition may say of a host's tier.
const SIGNS: [&str; 7] = ["==", "!=", "not in", "<", "<=", ">=", ">"];

/// Whether a condition on the tier holds, of numbers of one digit.
fn tier_holds(text: &str, tier: u8) -> bool {
    let bound: u8 = text.trim_end_matches(']').chars().last().unwrap().to_digit(10).unwrap() as u8;
    match text.split_whitespace().nth(1).unwrap() {
        "==" => tier == bound,
        "!=" | "not" => tier != bound,
        "<" => tier < bound,
        "<=" => tier <= bound,
        ">=" => tier >= bound,
        ">" => tier > bound,
        other => panic!("{other} is none of the signs"),
    }
}

fn site(number: u8) -> SiteName {
    SiteName::new(format!("site-{number}")).unwrap()
}

pub(super) fn add_host(estate: &mut Estate, name: &str, random: &RandomHost) {
    let mut found = inventory();
    found.capacity.cpu = MilliCpu(random.cores * 1000);
    found.capacity.memory = Bytes(random.gib << 30);
    found.reserved.memory = Bytes(100 * MIB);
    found.site = site(random.site);
    found.rack = random.rack.checked_sub(1).map(|rack| RackName::new(format!("rack-{rack}")).unwrap());
    found.labels.insert("tier".to_owned(), random.tier.to_string());
    found.ports = PortRange { first: 20_000, last: 20_000 + random.ports - 1 };
    for (number, (model, shared, well)) in random.gpus.iter().enumerate() {
        let device = Device {
            kind: "gpu".parse().unwrap(),
            model: format!("m{model}"),
            labels: BTreeMap::new(),
            shared: *shared,
            fault: if *well { String::new() } else { "broken".to_owned() },
        };
        found.devices.insert(format!("gpu{number}").parse().unwrap(), device);
    }
    found.taints.extend(random.taint.map(|value| ("team".to_owned(), value.to_string())));
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

pub(super) fn wanted(name: &str, random: &RandomWorkload) -> WorkloadSpec {
    let mut wanted = spec(&format!("{}/{name}", BOROUGHS[usize::from(random.borough)]));
    wanted.count = random.count;
    wanted.priority = random.priority;
    wanted.resources.cpu = MilliCpu(random.cpu);
    wanted.resources.memory = Bytes(random.mib * MIB);
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
    let spread = SpreadOver::ALL.into_iter().enumerate().filter(|(bit, _)| random.spread >> bit & 1 == 1);
    wanted.place.spread = spread.map(|(_, over)| over).collect();
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
    }
    if random.vm {
        vm(&mut wanted);
    }
    wanted
}

/// What running a workload of these tests costs beside what it asks for.
fn overhead(random_vm: bool, cpu: u64, memory: u64) -> u64 {
    if random_vm { 96 * MIB + 8 * MIB * cpu.div_ceil(1000) + memory / 512 } else { 8 * MIB }
}

/// What stands on one host, added up from the specs of its instances.
#[derive(Default)]
struct Load {
    cpu: u64,
    memory: u64,
    ports: BTreeSet<(bool, u16)>,
    gpus: BTreeMap<String, u32>,
    /// Of each instance, its workload with the borough, and which workloads it must be apart from.
    workloads: Vec<(String, Vec<String>)>,
}

fn load(state: &State, host: &Host) -> Load {
    load_without(state, host, &[])
}

fn load_without(state: &State, host: &Host, gone: &[InstanceId]) -> Load {
    let mut load = Load::default();
    for instance in state.instances().values().filter(|instance| !gone.contains(&instance.id)) {
        let Some(placed) = instance.placed.as_ref().filter(|placed| placed.host == host.id) else { continue };
        let (cpu, memory) = needs(instance.spec());
        load.cpu += cpu;
        load.memory += memory;
        for (port, number) in port_list(instance.spec()).into_iter().zip(&placed.ports) {
            assert!(port.1.is_none_or(|fixed| fixed == *number), "a fixed port was moved");
            let in_range = (host.inventory.ports.first..=host.inventory.ports.last).contains(number);
            assert!(port.1.is_some() || in_range, "port {number} is outside the range of {}", host.name);
            assert!(load.ports.insert((port.0, *number)), "port {number} of {} is given twice", host.name);
        }
        load_gpus(&mut load, host, instance);
        if instance.desired == Desired::Stop {
            continue;
        }
        load.workloads.push((instance.workload().to_string(), named(instance, &instance.spec().place.apart)));
    }
    load
}

/// Workloads of the borough of an instance, with the borough.
fn named(instance: &Instance, workloads: &[WorkloadName]) -> Vec<String> {
    workloads.iter().map(|workload| format!("{}/{workload}", instance.workload().borough)).collect()
}

/// Adds the GPUs of an instance up, and says what is wrong with them.
fn load_gpus(load: &mut Load, host: &Host, instance: &Instance) {
    let asked = instance.spec().resources.devices.first();
    let names: BTreeSet<String> = instance.device_names().iter().map(ToString::to_string).collect();
    let count = asked.map_or(0, |asked| asked.count as usize);
    assert_eq!(
        (names.len(), instance.device_names().len()),
        (count, count),
        "{} gets what it asks for",
        instance.id
    );
    for name in names {
        let (asked, device) = (asked.unwrap(), &host.inventory.devices[&*name]);
        assert!(gpu_suits(asked, device), "{} gets {name}, a {}", instance.id, device.model);
        let given = load.gpus.entry(name).or_default();
        *given += asked.share.0;
        assert!(*given <= 1_000, "more of a GPU of {} is given than there is", host.name);
    }
}

/// Whether a GPU is one that is asked for.
fn gpu_suits(asked: &DeviceRequest, device: &Device) -> bool {
    asked.models.first().is_none_or(|model| *model == device.model)
        && (asked.share.0 == 1_000 || device.shared)
        && device.fault.is_empty()
}

/// Whether so many GPUs have so much free.
fn gpus_free(load: &Load, host: &Host, asked: &DeviceRequest) -> bool {
    let free = |name: &str| 1_000 - load.gpus.get(name).copied().unwrap_or(0);
    let fitting = host
        .inventory
        .devices
        .iter()
        .filter(|(name, device)| gpu_suits(asked, device) && free(name.as_str()) >= asked.share.0);
    fitting.count() >= asked.count as usize
}

/// Processor and memory of one instance.
pub(super) fn needs(spec: &WorkloadSpec) -> (u64, u64) {
    let (cpu, memory) = (spec.resources.cpu.0, spec.resources.memory.0);
    (cpu, memory + overhead(matches!(spec.tasks[0].driver, Driver::Vm(_)), cpu, memory))
}

/// Whether UDP, and which number where it is fixed.
fn port_list(spec: &WorkloadSpec) -> Vec<(bool, Option<u16>)> {
    match &spec.tasks[0].driver {
        Driver::Container(container) => {
            container.ports.iter().map(|port| (port.protocol == Protocol::Udp, port.host)).collect()
        }
        Driver::Vm(_) => Vec::new(),
    }
}

/// Whether one more instance would go onto a host, by the words of the specification and nothing else.
fn would_go(state: &State, host: &Host, instance: &Instance) -> bool {
    would_go_without(state, host, instance, &[])
}

/// The same, were these gone.
fn would_go_without(state: &State, host: &Host, instance: &Instance, gone: &[InstanceId]) -> bool {
    let (spec, inventory, load) = (instance.spec(), &host.inventory, load_without(state, host, gone));
    let (cpu, memory) = needs(spec);
    let is_vm = matches!(spec.tasks[0].driver, Driver::Vm(_));
    let tier = spec.place.require.first().map(|condition| condition.to_string());
    let mut held = load.ports.clone();
    let fixed_free =
        port_list(spec).iter().all(|(udp, fixed)| fixed.is_none_or(|number| held.insert((*udp, number))));
    let dynamic: Vec<bool> =
        port_list(spec).iter().filter(|(_, fixed)| fixed.is_none()).map(|(udp, _)| *udp).collect();
    let dynamic_free = dynamic.iter().all(|udp| {
        let mut range = inventory.ports.first..=inventory.ports.last;
        range.any(|number| held.insert((*udp, number)))
    });
    host.state == HostState::Ready
        && host.schedulable
        && (!is_vm || inventory.drivers.contains_key(&DriverKind::Libvirt))
        && spec.place.sites.first().is_none_or(|site| *site == inventory.site)
        && tier.is_none_or(|text| tier_holds(&text, inventory.labels["tier"].parse().unwrap()))
        && load.cpu + cpu <= inventory.capacity.cpu.0
        && load.memory + memory + inventory.reserved.memory.0.min(inventory.capacity.memory.0)
            <= inventory.capacity.memory.0
        && spec.resources.devices.iter().all(|asked| gpus_free(&load, host, asked))
        && inventory.taints.get("team").is_none_or(|value| {
            let tolerated = spec.place.tolerate.first().map(|one| one.to_string());
            tolerated.is_some_and(|text| text == "team" || text == format!("team={value}"))
        })
        && fixed_free
        && dynamic_free
        && neighbours_agree(&load, instance)
        && !is_kept_for_others(state, host, instance)
}

/// Whether room is kept on a host for what is as urgent, and not for the instance.
fn is_kept_for_others(state: &State, host: &Host, instance: &Instance) -> bool {
    let awaited = |other: &&Arc<Instance>| {
        let awaited = other.awaited().filter(|awaited| awaited.host == host.id);
        awaited.is_some_and(|awaited| awaited.rank >= instance.spec().priority)
    };
    instance.awaited_host() != Some(host.id) && state.pending().any(|other| awaited(&other))
}

/// Whether nobody is there whom an instance must be apart from, and all are whom it must be together with.
fn neighbours_agree(load: &Load, instance: &Instance) -> bool {
    let (own, place) = (instance.workload().to_string(), &instance.spec().place);
    let (apart, together) = (named(instance, &place.apart), named(instance, &place.together));
    let is_there = |workload: &String| load.workloads.iter().any(|(there, _)| there == workload);
    (!place.distinct_hosts || !is_there(&own))
        && !load.workloads.iter().any(|(there, minds)| apart.contains(there) || minds.contains(&own))
        && together.iter().all(is_there)
}

fn estate_of(
    hosts: &[RandomHost],
    workloads: &[RandomWorkload],
    boroughs: &[Option<RandomAllowance>],
) -> Estate {
    let mut estate = Estate::default();
    for (number, allowance) in (0..).zip(boroughs) {
        allowance.iter().for_each(|allowance| allowances::allow(&mut estate, number, allowance));
    }
    for (number, host) in hosts.iter().enumerate() {
        add_host(&mut estate, &format!("h{number}"), host);
    }
    for (number, workload) in workloads.iter().enumerate() {
        estate.workload(&wanted(&format!("w{number}"), workload));
    }
    estate
}

/// Nothing is given that is not there, on any host, as the specs of what stands on it add up.
fn check_loads(state: &State) {
    for host in state.hosts().values() {
        let load = load(state, host);
        let memory = host.inventory.capacity.memory.0.saturating_sub(host.inventory.reserved.memory.0);
        assert!(load.cpu <= host.inventory.capacity.cpu.0, "{} gives too much processor", host.name);
        assert!(load.memory <= memory, "{} gives too much memory", host.name);
        let used: &HostUse = state.used(host.id);
        assert_eq!((used.taken.cpu.0, used.taken.memory.0), (load.cpu, load.memory), "{} adds up", host.name);
        let given: BTreeMap<String, u32> =
            used.devices.iter().map(|(name, share)| (name.to_string(), share.0)).collect();
        assert_eq!(given, load.gpus, "the GPUs of {} add up", host.name);
    }
}

/// What is left of a host: its GPUs by model, sharing and what is free of them, processor and memory.
struct Left {
    gpus: Vec<(Device, u32)>,
    cpu: u64,
    memory: u64,
}

fn left(state: &State, host: &Host) -> Left {
    let (load, inventory) = (load(state, host), &host.inventory);
    let well = inventory.devices.iter().filter(|(_, device)| device.fault.is_empty());
    let free = |name: &str| 1_000 - load.gpus.get(name).copied().unwrap_or(0);
    let mut gpus: Vec<_> = well.map(|(name, device)| (device.clone(), free(name.as_str()))).collect();
    gpus.sort_by_key(|(device, free)| (device.model.clone(), device.shared, *free));
    let memory = inventory.capacity.memory.0.saturating_sub(inventory.reserved.memory.0) - load.memory;
    Left { gpus, cpu: inventory.capacity.cpu.0 - load.cpu, memory }
}

/// What could be made of a host's GPUs, in millionths of one: for each request that some instance has, half of the parts large enough for it, and half
/// of those for which there are processors. Requests count by how many instances have them, and as many that wait for them or one, rounded down to a power
/// of two.
fn prospects(mix_of: &State, left: &Left) -> i128 {
    let mut mix: BTreeMap<(u64, u64, DeviceRequest), (u32, u32)> = BTreeMap::new();
    for instance in mix_of.instances().values() {
        let (cpu, memory) = needs(instance.spec());
        for asked in &instance.spec().resources.devices {
            let (placed, waiting) = mix.entry((cpu, memory, asked.clone())).or_default();
            *placed += u32::from(instance.takes().is_some());
            *waiting += u32::from(instance.is_pending());
        }
    }
    let (mut sum, mut weights) = (0, 0);
    for ((cpu, memory, asked), (placed, waiting)) in mix {
        let count = placed + waiting.min(placed.max(1));
        if count == 0 {
            continue;
        }
        let weight = 1_i128 << (31 - count.leading_zeros());
        weights += weight;
        let parts: Vec<u32> = left
            .gpus
            .iter()
            .filter(|(device, free)| gpu_suits(&asked, device) && *free >= asked.share.0)
            .map(|(_, free)| *free)
            .collect();
        if left.cpu < cpu || left.memory < memory || parts.len() < asked.count as usize {
            continue;
        }
        let parts = i128::from(parts.iter().sum::<u32>());
        let supplied = if cpu == 0 {
            parts
        } else {
            i128::from(left.cpu) * i128::from(asked.count * asked.share.0) / i128::from(cpu)
        };
        sum += weight * (parts + parts.min(supplied));
    }
    if weights == 0 { 0 } else { sum * 1_000 / (weights * 2) }
}

/// What of the prospects an instance takes, with the GPUs that leave the most: some that are beside each other by model, sharing and what is free.
fn prospects_lost(mix_of: &State, state: &State, host: &Host, instance: &Instance) -> i64 {
    let before = left(state, host);
    let (cpu, memory) = needs(instance.spec());
    let after =
        |gpus| prospects(mix_of, &Left { gpus, cpu: before.cpu - cpu, memory: before.memory - memory });
    let best = match instance.spec().resources.devices.first() {
        None => after(before.gpus.clone()),
        Some(asked) => {
            let fits = |place: &usize| {
                gpu_suits(asked, &before.gpus[*place].0) && before.gpus[*place].1 >= asked.share.0
            };
            let fitting: Vec<usize> = (0..before.gpus.len()).filter(fits).collect();
            let taken = |places: &[usize]| {
                let mut gpus = before.gpus.clone();
                places.iter().for_each(|place| gpus[*place].1 -= asked.share.0);
                after(gpus)
            };
            fitting.windows(asked.count as usize).map(taken).max().unwrap()
        }
    };
    i64::try_from(prospects(mix_of, &before) - best).unwrap()
}

/// What a fitting host is worth, in millionths: how full the larger of what is left of its processor and its memory leaves it, the wish, and ten times
/// the GPUs that are lost.
fn worth(mix_of: &State, state: &State, host: &Host, instance: &Instance) -> i64 {
    let (load, inventory, (cpu, memory)) = (load(state, host), &host.inventory, needs(instance.spec()));
    let whole =
        [inventory.capacity.cpu.0, inventory.capacity.memory.0.saturating_sub(inventory.reserved.memory.0)];
    let left = [whole[0] - load.cpu - cpu, whole[1] - load.memory - memory];
    let share =
        |i: usize| if whole[i] == 0 { 0 } else { i128::from(left[i]) * 1_000_000 / i128::from(whole[i]) };
    let wish = instance.spec().place.prefer.first().filter(|_| inventory.labels["tier"] == "1");
    1_000_000 - share(0).max(share(1)) as i64 + wish.map_or(0, |wish| i64::from(wish.weight) * 10_000)
        - prospects_lost(mix_of, state, host, instance) * 10
}

/// How many instances of the same workload share a host's site, rack and name, as far as the spec asks, and what a fitting host is then worth.
fn rank(mix_of: &State, state: &State, host: &Host, instance: &Instance) -> (Vec<usize>, Reverse<i64>, u32) {
    let place = |host: &Host, over: &SpreadOver| match over {
        SpreadOver::Site => format!("{}", host.inventory.site),
        SpreadOver::Rack => format!("{} {:?}", host.inventory.site, host.inventory.rack),
        SpreadOver::Host => host.name.to_string(),
    };
    let others = |over: &SpreadOver| {
        let with = |other: &&Arc<Instance>| {
            let there = other.placed.as_ref().and_then(|placed| state.host(placed.host));
            other.workload() == instance.workload()
                && there.is_some_and(|there| place(there, over) == place(host, over))
        };
        state.instances().values().filter(with).count()
    };
    let crowd = instance.spec().place.spread.iter().map(others).collect();
    (crowd, Reverse(worth(mix_of, state, host, instance)), host.id.0)
}

/// Whoever is more urgent is tried first; among equals the borough that stands first (see `allowances`); and of a borough whoever is older.
fn check_order(state: &State, plan: &Plan) {
    let mut taken = allowances::accounts(state);
    let hosts = || state.hosts().values().map(|host| &host.inventory);
    let whole = [
        hosts().map(|of| of.capacity.cpu.0).sum::<u64>(),
        hosts().map(|of| of.capacity.memory.0.saturating_sub(of.reserved.memory.0)).sum(),
    ];
    let rank = |taken: &Accounts, instance: &Instance| {
        let borough = instance.workload().borough.to_string();
        let standing = allowances::standing(state, whole, taken, &borough);
        (u32::MAX - instance.spec().priority, standing, borough, instance.id)
    };
    let placed: Vec<_> =
        plan.placements.iter().map(|placement| state.instance(placement.instance).unwrap()).collect();
    for (place, instance) in placed.iter().enumerate() {
        let first = placed[place..].iter().map(|other| rank(&taken, other)).min();
        assert_eq!(Some(rank(&taken, instance)), first, "another one's turn");
        allowances::add(&mut taken, instance);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_pass_gives_only_what_is_there_and_leaves_nothing_that_would_fit(
        hosts in prop::collection::vec(random_host(), 0..7),
        workloads in prop::collection::vec(random_workload(), 1..7),
        boroughs in random_boroughs(),
        limit in 1usize..40,
    ) {
        let mut estate = estate_of(&hosts, &workloads, &boroughs);
        check_order(&estate.state, &pass(&estate.state, 0, Limits { placements: limit }));
        estate.raise_level();
        let again = pass(&estate.state, 0, Limits { placements: limit });
        let plan = pass(&estate.state.clone(), 0, Limits { placements: limit });
        prop_assert_eq!(&plan, &again, "the same state gives another plan");
        // One by one, as apply does, every placement is let in by the one rule.
        let mut state = estate.state.clone();
        for placement in &plan.placements {
            let instance = state.instance(placement.instance).unwrap().clone();
            let host = state.host(placement.host).unwrap().clone();
            prop_assert!(would_go(&state, &host, &instance));
            prop_assert!(allowances::would_be_let_in(&state, &instance), "{} is beyond a quota", instance.id);
            let own = |other: &&Arc<Host>| instance.awaited_host().is_none_or(|kept| {
                other.id == kept || !would_go(&state, state.host(kept).unwrap(), &instance)
            });
            // Whether room was kept for others before or after this is not seen.
            let is_kept = |other: &&Arc<Host>| plan.preemptions.iter().any(|made| {
                made.host == Some(other.id)
                    && state.instance(made.instance).unwrap().spec().priority >= instance.spec().priority
            });
            let open = state.hosts().values().filter(|other| would_go(&state, other, &instance));
            let open = open.filter(own).filter(|other| other.id == host.id || !is_kept(other));
            let best = open.map(|other| rank(&estate.state, &state, other, &instance)).min();
            prop_assert_eq!(Some(rank(&estate.state, &state, &host, &instance)), best, "another host is better");
            prop_assert_eq!(fits(&state, &host, &Request::of(&instance).as_placed(placement)), Ok(()));
            let command = crate::state::Command::Place(vec![placement.clone()]);
            let entry = crate::state::Entry { time: 0, by: String::new(), request_id: String::new(), command };
            let before = (prospects(&estate.state, &left(&state, &host)), prospects_lost(&estate.state, &state, &host, &instance));
            state.apply(state.applied() + 1, &entry);
            let lost = before.0 - prospects(&estate.state, &left(&state, &host));
            prop_assert_eq!(lost, i128::from(before.1), "other devices would leave more");
        }
        check_loads(&state);
        allowances::check_quotas(&state);
        // Passes end, and what then still waits goes nowhere, or a quota keeps it, says the naive judge.
        while estate.pass(limit).more {}
        check_loads(&estate.state);
        allowances::check_quotas(&estate.state);
        let rest: Vec<_> = estate.state.pending().cloned().collect();
        for instance in &rest {
            let told = explain::instance(&estate.state, instance, 0);
            let is_let_in = allowances::would_be_let_in(&estate.state, instance);
            prop_assert_eq!(told.quota.is_empty(), is_let_in);
            let going = estate.state.hosts().values().filter(|host| would_go(&estate.state, host, instance)).count();
            // What is stopping somewhere may be waited for by others who come first.
            let is_stopping = estate.state.instances().values().any(|other| other.desired == Desired::Stop);
            prop_assert!(!is_let_in || going == 0 || is_stopping, "{} would go somewhere", instance.id);
            let fallen: u32 = told.filters.iter().map(|filter| filter.hosts).sum();
            prop_assert_eq!((told.fitting as usize, told.fitting + fallen), (going, told.hosts));
            prop_assert_eq!(told.nearest.is_some(), told.hosts > 0 && going == 0);
        }
        let is_stopping = estate.state.instances().values().any(|other| other.desired == Desired::Stop);
        if is_stopping || rest.iter().any(|instance| instance.awaited_host().is_some()) {
            return Ok(());
        }
        let unplaced = estate.full_pass().unplaced;
        prop_assert_eq!(unplaced.iter().map(|shape| shape.instances).sum::<u32>() as usize, rest.len());
        for shape in &unplaced {
            let first = estate.state.instance(shape.first).unwrap();
            prop_assert_eq!(shape.why == Why::Hosts, allowances::would_be_let_in(&estate.state, first));
        }
    }

    #[test]
    fn the_rule_agrees_with_the_naive_judge_on_every_host(
        hosts in prop::collection::vec(random_host(), 1..7),
        workloads in prop::collection::vec(random_workload(), 1..7),
    ) {
        let mut estate = estate_of(&hosts, &workloads, &[]);
        estate.pass(8);
        let mut checked = BTreeMap::new();
        for instance in estate.state.pending() {
            for host in estate.state.hosts().values() {
                let fits = fits(&estate.state, host, &Request::of(instance)).is_ok();
                prop_assert_eq!(fits, would_go(&estate.state, host, instance), "{} on {}", instance.workload(), host.name);
                checked.insert((instance.id, host.id), fits);
            }
            let told = explain::instance(&estate.state, instance, 0);
            let fitting = checked.iter().filter(|((id, _), fits)| *id == instance.id && **fits).count();
            prop_assert_eq!(told.fitting as usize, fitting);
        }
    }

    #[test]
    fn the_cheapest_make_way(
        hosts in prop::collection::vec(random_host(), 1..5),
        workloads in prop::collection::vec(random_workload(), 1..7),
        urgent in random_workload(),
        priority in 1u32..4,
        boroughs in random_boroughs(),
    ) {
        // What a quota keeps makes nobody go; that is for another test.
        let boroughs: Vec<_> = boroughs.into_iter().map(|of| of.map(RandomAllowance::without_quota)).collect();
        let mut estate = estate_of(&hosts, &workloads, &boroughs);
        while estate.pass(40).more {}
        estate.raise_level();
        let urgent = RandomWorkload { count: 1, priority, together: None, ..urgent };
        estate.workload(&wanted("urgent", &urgent));
        let before = estate.state.clone();
        let plan = estate.full_pass();
        let instance = before.instances_of(&wanted("urgent", &urgent).key()).next().unwrap();
        let comes_first = |id: &InstanceId| {
            *id != instance.id && before.instance(*id).unwrap().spec().priority >= priority
        };
        let given = plan.placements.iter().map(|placement| placement.instance);
        if given.chain(plan.preemptions.iter().map(|made| made.instance)).any(|id| comes_first(&id)) {
            return Ok(());
        }
        let placed = plan.placements.iter().any(|placement| placement.instance == instance.id);
        let made = plan.preemptions.iter().find(|made| made.instance == instance.id);
        let cheapest = before.hosts().values().filter_map(|host| cheapest_by_force(&before, host, instance)).min();
        match (placed, made) {
            (true, _) => prop_assert!(before.hosts().values().any(|host| would_go(&before, host, instance))),
            (false, None) => prop_assert_eq!(cheapest, None, "somebody could have made way"),
            (false, Some(made)) => {
                let cost = cost_by_force(&before, made.victims.iter().map(|id| &**before.instance(*id).unwrap()));
                prop_assert_eq!(Some(cost), cheapest, "others are cheaper");
                prop_assert!(made.victims.iter().all(|id| before.instance(*id).unwrap().host() == made.host));
            }
        }
        check_loads(&estate.state);
    }
}

/// What it costs that these make way: the highest priority, how many beyond what their workloads may miss, how many, and the sum of their priorities.
fn cost_by_force<'i>(state: &State, victims: impl Iterator<Item = &'i Instance>) -> (u32, u32, u32, u32) {
    let (mut highest, mut count, mut sum) = (0, 0, 0);
    let mut of: BTreeMap<String, (u32, u32)> = BTreeMap::new();
    for victim in victims {
        let priority = victim.spec().priority;
        (highest, count, sum) = (highest.max(priority), count + 1, sum + priority);
        let missing =
            state.instances_of(victim.workload()).filter(|other| other.placed.is_none()).count() as u32;
        let may_miss = victim.spec().update.max_unavailable.saturating_sub(missing);
        let (gone, _) = of.entry(victim.workload().to_string()).or_insert((0, may_miss));
        *gone += 1;
    }
    let beyond = of.values().map(|(gone, may_miss)| gone.saturating_sub(*may_miss)).sum();
    (highest, beyond, count, sum)
}

/// The least that it costs to make room on a host, by a look at every choice.
fn cheapest_by_force(state: &State, host: &Host, instance: &Instance) -> Option<(u32, u32, u32, u32)> {
    let own = &instance.workload().borough;
    let is_guaranteed = allowances::would_be_guaranteed(state, instance);
    let is_less_urgent = |other: &&Arc<Instance>| {
        let is_lower = other.spec().priority < instance.spec().priority;
        other.host() == Some(host.id) && (is_lower || is_guaranteed && other.workload().borough != *own)
    };
    let less_urgent: Vec<_> = state.instances().values().filter(is_less_urgent).collect();
    // More than this is left to the rule that nobody goes who is not needed.
    let choices = 1..1u32 << less_urgent.len().min(10);
    let chosen = |choice: u32| {
        less_urgent
            .iter()
            .enumerate()
            .filter(move |(place, _)| choice >> place & 1 == 1)
            .map(|(_, other)| &***other)
    };
    let makes_room = |choice: &u32| {
        let gone: Vec<&Instance> = chosen(*choice).collect();
        let ids: Vec<InstanceId> = gone.iter().map(|gone| gone.id).collect();
        allowances::are_lent(state, own, &gone) && would_go_without(state, host, instance, &ids)
    };
    choices.filter(makes_room).map(|choice| cost_by_force(state, chosen(choice))).min()
}
