//! A naive judge of what a pass decides. It shares no code with what it judges: it adds up from the specs, asks no filter, and keeps no order of hosts.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use supercloud_proto::{
    device::{Device, DeviceRequest},
    host::HostState,
    id::InstanceId,
    instance::Desired,
    name::WorkloadName,
    spec::{Class, Driver, Protocol, Spread, SpreadOver, WorkloadSpec},
};

use super::{allowances, conditions, cores, random::MIB};
use crate::state::{Host, HostUse, Instance, Packing, SitePolicy, State};

/// What running a workload of these tests costs beside what it asks for.
fn overhead(random_vm: bool, cpu: u64, memory: u64) -> u64 {
    if random_vm { 96 * MIB + 8 * MIB * cpu.div_ceil(1000) + memory / 512 } else { 8 * MIB }
}

/// What stands on one host, added up from the specs of its instances.
#[derive(Default)]
struct Load {
    cpu: u64,
    memory: u64,
    disk: u64,
    network: u64,
    ports: BTreeSet<(bool, u16)>,
    gpus: BTreeMap<String, u32>,
    /// Processors that somebody has for himself, and memory that is bound to nodes.
    cpus: BTreeSet<u16>,
    bound: BTreeMap<u16, u64>,
    /// Of each instance, its workload with the borough, and which workloads it must be apart from.
    workloads: Vec<(String, Vec<String>)>,
    /// Of each instance, its borough, and whether it is private.
    tenants: Vec<(String, bool)>,
    /// Of each instance that mounts volumes, its workload with the borough, and its slot.
    mounting: Vec<(String, u32)>,
}

fn load(state: &State, host: &Host) -> Load {
    load_without(state, host, &[])
}

fn load_without(state: &State, host: &Host, gone: &[InstanceId]) -> Load {
    let mut load = Load::default();
    for instance in state.instances().values().filter(|instance| !gone.contains(&instance.id)) {
        let Some(placed) = instance.placed.as_ref().filter(|placed| placed.host == host.id) else { continue };
        for (port, number) in port_list(instance.spec()).into_iter().zip(&placed.ports) {
            assert!(port.1.is_none_or(|fixed| fixed == *number), "a fixed port was moved");
            let in_range = (host.inventory.ports.first..=host.inventory.ports.last).contains(number);
            assert!(port.1.is_some() || in_range, "port {number} is outside the range of {}", host.name);
            assert!(load.ports.insert((port.0, *number)), "port {number} of {} is given twice", host.name);
        }
        load_gpus(&mut load, host, instance);
        cores::load(&mut load.cpus, &mut load.bound, host, instance);
        load.add(&site_of(state, host), instance);
    }
    load
}

impl Load {
    /// Adds an instance up, but for its ports and its GPUs.
    fn add(&mut self, site: &SitePolicy, instance: &Instance) {
        let (cpu, memory) = needs(instance.spec());
        self.cpu += match instance.cores() {
            Some(cores) => 1_000 * cores.cpus.len() as u64,
            None => counts(site, instance.spec().class, cpu),
        };
        self.memory += memory;
        self.disk += instance.spec().resources.disk.0;
        self.network += instance.spec().resources.network.0;
        self.tenants.push((instance.workload().borough.to_string(), instance.spec().place.private));
        if mounts(instance.spec()) {
            self.mounting.push((instance.workload().to_string(), instance.slot));
        }
        if instance.desired != Desired::Stop {
            let apart = named(instance, &instance.spec().place.apart);
            self.workloads.push((instance.workload().to_string(), apart));
        }
    }
}

/// Workloads of the borough of an instance, with the borough.
fn named(instance: &Instance, workloads: &[WorkloadName]) -> Vec<String> {
    workloads.iter().map(|workload| format!("{}/{workload}", instance.workload().borough)).collect()
}

/// Adds the GPUs of an instance up, and says what is wrong with them.
fn load_gpus(load: &mut Load, host: &Host, instance: &Instance) {
    let asked: Vec<&DeviceRequest> = instance.spec().resources.devices.iter().collect();
    let each = asked.iter().flat_map(|asked| std::iter::repeat_n(*asked, asked.count as usize));
    let names: Vec<String> = instance.device_names().iter().map(ToString::to_string).collect();
    let once: BTreeSet<&String> = names.iter().collect();
    let count = each.clone().count();
    assert_eq!((once.len(), names.len()), (count, count), "{} gets what it asks for", instance.id);
    for (asked, name) in each.zip(&names) {
        let device = &host.inventory.devices[name.as_str()];
        assert!(gpu_suits(asked, device), "{} gets {name}, a {}", instance.id, device.model);
        let given = load.gpus.entry(name.clone()).or_default();
        *given += asked.share.0;
        assert!(*given <= 1_000, "more of a GPU of {} is given than there is", host.name);
    }
}

/// Whether a GPU is one that is asked for.
fn gpu_suits(asked: &DeviceRequest, device: &Device) -> bool {
    let value = |label: &str| device.labels.get(label.strip_prefix("label.").unwrap()).map(String::as_str);
    asked.kind == device.kind
        && asked.models.first().is_none_or(|model| *model == device.model)
        && asked.require.iter().all(|condition| conditions::holds(&condition.to_string(), value))
        && (asked.share.0 == 1_000 || device.shared)
        && (device.pci.is_some() || !asked.to_vm)
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

/// What holds for a host's site.
fn site_of(state: &State, host: &Host) -> SitePolicy {
    state.sites().get(&host.inventory.site).copied().unwrap_or_default()
}

/// What so much processor, asked for by a class, counts as on a host of a site: the least that the site's percent makes at least as much of.
fn counts(site: &SitePolicy, class: Class, cpu: u64) -> u64 {
    let percent = match class {
        Class::Guaranteed => return cpu,
        Class::Standard => u64::from(site.standard_cpu_percent),
        Class::Spare => u64::from(site.spare_cpu_percent),
    };
    let part = cpu * 100 / percent;
    if part * percent >= cpu * 100 { part } else { part + 1 }
}

/// What an instance takes of a host's processors: where it has cores of its own, all that these are.
fn takes(state: &State, host: &Host, instance: &Instance, cpu: u64) -> u64 {
    match instance.spec().resources.dedicated {
        true => 1_000 * cores::needed(host, cpu),
        false => counts(&site_of(state, host), instance.spec().class, cpu),
    }
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
pub(super) fn would_go(state: &State, host: &Host, instance: &Instance) -> bool {
    would_go_without(state, host, instance, &[])
}

/// The same, were these gone.
pub(super) fn would_go_without(state: &State, host: &Host, instance: &Instance, gone: &[InstanceId]) -> bool {
    let load = load_without(state, host, gone);
    ports_beside(&load, host, instance).is_some_and(|_| would_go_beside(&load, state, host, instance))
}

/// The ports that are taken with those of one more instance, where there are enough.
fn ports_beside(load: &Load, host: &Host, instance: &Instance) -> Option<BTreeSet<(bool, u16)>> {
    let (spec, ports) = (instance.spec(), &host.inventory.ports);
    let mut held = load.ports.clone();
    let fixed_free =
        port_list(spec).iter().all(|(udp, fixed)| fixed.is_none_or(|number| held.insert((*udp, number))));
    let dynamic: Vec<bool> =
        port_list(spec).iter().filter(|(_, fixed)| fixed.is_none()).map(|(udp, _)| *udp).collect();
    let dynamic_free =
        dynamic.iter().all(|udp| (ports.first..=ports.last).any(|number| held.insert((*udp, number))));
    (fixed_free && dynamic_free).then_some(held)
}

/// How many instances like this one would go onto a host one after the other, up to so many, were these gone. They ask for no GPUs, of which some could be given unwisely.
pub(super) fn how_many_would_go(
    state: &State,
    host: &Host,
    instance: &Instance,
    most: usize,
    gone: &[InstanceId],
) -> usize {
    let mut load = load_without(state, host, gone);
    let goes = |_: &usize| {
        let ports =
            ports_beside(&load, host, instance).filter(|_| would_go_beside(&load, state, host, instance));
        let Some(ports) = ports else { return false };
        load.ports = ports;
        load.add(&site_of(state, host), instance);
        true
    };
    (0..most).take_while(goes).count()
}

/// All that wait and are given hosts only together with an instance, with itself.
pub(super) fn gang_of(state: &State, instance: &Instance) -> usize {
    let is_of_gang = |other: &&Arc<Instance>| {
        other.workload() == instance.workload()
            && other.revision() == instance.revision()
            && other.placed.is_none()
            && other.desired == Desired::Run
    };
    if instance.spec().place.all_or_none { state.instances().values().filter(is_of_gang).count() } else { 1 }
}

/// Whether all would find hosts that wait and are given them only together with an instance; `None`: that depends on who is given what, or where.
pub(super) fn would_all_go(state: &State, instance: &Instance) -> Option<bool> {
    let all = gang_of(state, instance);
    let going = state.hosts().values().map(|host| how_many_would_go(state, host, instance, all, &[]));
    (is_simple(state, instance) || all == 1).then(|| going.sum::<usize>() >= all)
}

/// Whether it does not matter to others like an instance which devices, cores and hosts it is given.
pub(super) fn is_simple(state: &State, instance: &Instance) -> bool {
    let has_home = mounts(instance.spec()) && state.homes().contains_key(instance.workload());
    let resources = &instance.spec().resources;
    let is_plain = resources.devices.is_empty() && !resources.dedicated && !instance.spec().place.private;
    is_plain && !has_home
}

/// Whether one more instance would go onto a host beside all this, if there are ports for it.
fn would_go_beside(load: &Load, state: &State, host: &Host, instance: &Instance) -> bool {
    let (spec, inventory) = (instance.spec(), &host.inventory);
    let (cpu, memory) = needs(spec);
    let cpu = takes(state, host, instance, cpu);
    let driver = match spec.tasks[0].driver {
        Driver::Container(_) => "docker",
        Driver::Vm(_) => "libvirt",
    };
    host.state == HostState::Ready
        && host.schedulable
        && inventory.drivers.iter().any(|(kind, info)| kind.as_str() == driver && info.healthy)
        && (spec.place.sites.is_empty() || spec.place.sites.iter().any(|site| *site == inventory.site))
        && spec.place.require.iter().all(|condition| conditions::holds_on(&condition.to_string(), host))
        && load.cpu + cpu <= inventory.capacity.cpu.0
        && load.memory + memory + inventory.reserved.memory.0.min(inventory.capacity.memory.0)
            <= inventory.capacity.memory.0
        && (spec.resources.disk.0 == 0
            || load.disk + spec.resources.disk.0 + inventory.reserved.disk.0 <= inventory.capacity.disk.0)
        && (spec.resources.network.0 == 0
            || load.network + spec.resources.network.0 + inventory.network_reserved.0 <= inventory.network.0)
        && spec.resources.devices.iter().all(|asked| gpus_free(load, host, asked))
        && cores::are_free(&load.cpus, &load.bound, host, spec, memory)
        && inventory.taints.iter().all(|(name, value)| {
            let mut tolerated = spec.place.tolerate.iter().map(ToString::to_string);
            tolerated.any(|text| text == *name || text == format!("{name}={value}"))
        })
        && neighbours_agree(load, instance)
        && is_private_enough(state, host, instance, load)
        && finds_its_volumes(state, host, instance, load)
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

/// Whether an instance may run only once at a time, and another one of its slot still runs, for all that is known.
pub(super) fn must_wait(state: &State, instance: &Instance) -> bool {
    let runs = |other: &&Arc<Instance>| {
        let host = other.placed.as_ref().and_then(|placed| state.host(placed.host));
        other.id != instance.id
            && other.workload() == instance.workload()
            && other.slot == instance.slot
            && !other.state.is_over()
            && host.is_some_and(|host| host.state != HostState::Lost)
    };
    instance.spec().exclusive == Some(true) && state.instances().values().any(|other| runs(&other))
}

/// Whether a container of a spec mounts a volume.
fn mounts(spec: &WorkloadSpec) -> bool {
    matches!(&spec.tasks[0].driver, Driver::Container(container) if !container.mounts.is_empty())
}

/// Whether the volumes that an instance mounts live on a host, or live nowhere and no others of its workload do there, and nobody has them in use.
fn finds_its_volumes(state: &State, host: &Host, instance: &Instance, load: &Load) -> bool {
    if !mounts(instance.spec()) || state.level() < 5 {
        return true;
    }
    let own = instance.workload().to_string();
    let homes: Vec<(u32, u32)> = match state.homes().get(instance.workload()) {
        Some(homes) => homes.iter().map(|home| (home.slot, home.host.0)).collect(),
        None => Vec::new(),
    };
    let mut users = load.mounting.iter().filter(|(of, _)| *of == own).map(|(_, slot)| *slot);
    match homes.iter().find(|(slot, _)| *slot == instance.slot) {
        Some((_, home)) => {
            *home == host.id.0
                && users.all(|slot| slot != instance.slot && homes.contains(&(slot, host.id.0)))
        }
        None => homes.iter().all(|(_, home)| *home != host.id.0) && users.next().is_none(),
    }
}

/// Whether no other borough has the host to itself, and what is private would be alone there with its borough, which keeps no more hosts than it may.
fn is_private_enough(state: &State, host: &Host, instance: &Instance, load: &Load) -> bool {
    let own = &instance.workload().borough;
    let others: Vec<bool> =
        load.tenants.iter().filter(|(of, _)| of != own.as_str()).map(|(_, private)| *private).collect();
    let mut kept = allowances::kept_hosts(state, own);
    let is_new = kept.insert(host.id.0);
    let most = state.boroughs()[own].allowance.private_hosts as usize;
    match instance.spec().place.private {
        true => others.is_empty() && (!is_new || kept.len() <= most),
        false => !others.contains(&true),
    }
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

/// What is left of a host: its GPUs by model, sharing and what is free of them, processor and memory.
pub(super) struct Left {
    gpus: Vec<(Device, u32)>,
    cpu: u64,
    memory: u64,
    site: SitePolicy,
}

/// What requests tell apart of devices.
fn sort_of(device: &Device) -> (String, String, BTreeMap<String, String>, bool, bool) {
    let Device { kind, model, labels, shared, pci, .. } = device;
    (kind.to_string(), model.clone(), labels.clone(), *shared, pci.is_some())
}

pub(super) fn left(state: &State, host: &Host) -> Left {
    let (load, inventory) = (load(state, host), &host.inventory);
    let well = inventory.devices.iter().filter(|(_, device)| device.fault.is_empty());
    let free = |name: &str| 1_000 - load.gpus.get(name).copied().unwrap_or(0);
    let mut gpus: Vec<_> = well.map(|(name, device)| (device.clone(), free(name.as_str()))).collect();
    gpus.sort_by_key(|(device, free)| (sort_of(device), *free));
    let memory = inventory.capacity.memory.0.saturating_sub(inventory.reserved.memory.0) - load.memory;
    Left { gpus, cpu: inventory.capacity.cpu.0 - load.cpu, memory, site: site_of(state, host) }
}

/// What could be made of a host's GPUs, in millionths of one: for each request that some instance has, half of the parts large enough for it, and half
/// of those for which there are processors. Requests count by how many instances have them, and as many that wait for them or one, but for less than an
/// eighth, rounded down to a power of four.
pub(super) fn prospects(mix_of: &State, left: &Left) -> i128 {
    let mut mix: BTreeMap<(u64, u64, DeviceRequest, Class), (u32, u32)> = BTreeMap::new();
    for instance in mix_of.instances().values() {
        let (cpu, memory) = needs(instance.spec());
        for asked in &instance.spec().resources.devices {
            // What has cores of its own has them whole, whatever its class.
            let class =
                if instance.spec().resources.dedicated { Class::Guaranteed } else { instance.spec().class };
            let key = (cpu, memory, asked.clone(), class);
            let (placed, waiting) = mix.entry(key).or_default();
            *placed += u32::from(instance.takes().is_some());
            *waiting += u32::from(instance.is_pending());
        }
    }
    let (mut sum, mut weights) = (0, 0);
    for ((cpu, memory, asked, class), (placed, waiting)) in mix {
        let cpu = counts(&left.site, class, cpu);
        let waiting = waiting.min(placed.max(1));
        let count = placed + if waiting * 8 >= placed { waiting } else { 0 };
        if count == 0 {
            continue;
        }
        let weight = 1_i128 << ((31 - count.leading_zeros()) / 2 * 2);
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
pub(super) fn prospects_lost(mix_of: &State, state: &State, host: &Host, instance: &Instance) -> i64 {
    let before = left(state, host);
    let (cpu, memory) = needs(instance.spec());
    let cpu = before.cpu - takes(state, host, instance, cpu);
    let memory = before.memory - memory;
    let after = |gpus: &[(Device, u32)]| {
        prospects(mix_of, &Left { gpus: gpus.to_vec(), cpu, memory, site: before.site })
    };
    let mut gpus = before.gpus.clone();
    for asked in &instance.spec().resources.devices {
        gpus.sort_by_key(|(device, free)| (sort_of(device), *free));
        let fits = |place: &usize| gpu_suits(asked, &gpus[*place].0) && gpus[*place].1 >= asked.share.0;
        let fitting: Vec<usize> = (0..gpus.len()).filter(fits).collect();
        let taken = |places: &[usize]| {
            let mut gpus = gpus.clone();
            places.iter().for_each(|place| gpus[*place].1 -= asked.share.0);
            gpus
        };
        let choices = fitting.windows(asked.count as usize).map(taken);
        // Of those that leave as much the first.
        gpus = choices.rev().max_by_key(|gpus| after(gpus)).unwrap();
    }
    i64::try_from(prospects(mix_of, &before) - after(&gpus)).unwrap()
}

/// What a fitting host is worth, in millionths: how full the larger of what is left of its processor and its memory leaves it, or where its site spreads how empty
/// the smaller, the wish, ten times the GPUs that are lost, and a thousand for each unit of what its site costs.
fn worth(mix_of: &State, state: &State, host: &Host, instance: &Instance) -> i64 {
    let (load, inventory, (cpu, memory)) = (load(state, host), &host.inventory, needs(instance.spec()));
    let whole =
        [inventory.capacity.cpu.0, inventory.capacity.memory.0.saturating_sub(inventory.reserved.memory.0)];
    let site = site_of(state, host);
    let cpu = takes(state, host, instance, cpu);
    let left = [whole[0] - load.cpu - cpu, whole[1] - load.memory - memory];
    let share =
        |i: usize| if whole[i] == 0 { 0 } else { i128::from(left[i]) * 1_000_000 / i128::from(whole[i]) };
    let wishes = instance.spec().place.prefer.iter();
    let granted = wishes.filter(|wish| conditions::holds_on(&wish.when.to_string(), host));
    let fit = match site.packing {
        Packing::Pack => 1_000_000 - share(0).max(share(1)) as i64,
        Packing::Spread => share(0).min(share(1)) as i64,
    };
    fit - i64::from(site.cost) * 1_000 + granted.map(|wish| i64::from(wish.weight) * 10_000).sum::<i64>()
        - prospects_lost(mix_of, state, host, instance) * 10
}

/// How many instances of the same workload share a host's site, rack, zone and name, as far as the spec asks, and what a fitting host is then worth.
pub(super) fn rank(
    mix_of: &State,
    state: &State,
    host: &Host,
    instance: &Instance,
) -> (Vec<(bool, u64)>, Reverse<i64>, u32) {
    let place = |host: &Host, over: &SpreadOver| match over {
        SpreadOver::Site => format!("{}", host.inventory.site),
        SpreadOver::Rack => format!("{} {:?}", host.inventory.site, host.inventory.rack),
        SpreadOver::Host => host.name.to_string(),
        SpreadOver::Label(label) => format!("{:?}", host.inventory.labels.get(label)),
    };
    // What is named in shares comes before what is not, and where one more would be least beyond its share: by a half, so that none is as good as one.
    let crowd = |spread: &Spread, count: u64| {
        let named = match &spread.over {
            SpreadOver::Site => spread.shares.get(host.inventory.site.as_str()),
            SpreadOver::Rack => {
                host.inventory.rack.as_ref().and_then(|rack| spread.shares.get(rack.as_str()))
            }
            SpreadOver::Host => None,
            SpreadOver::Label(label) => {
                host.inventory.labels.get(label).and_then(|value| spread.shares.get(value))
            }
        };
        let of_all: u64 = spread.shares.values().map(|share| u64::from(*share)).product();
        match named {
            Some(share) => (false, (2 * count + 1) * (of_all / u64::from(*share))),
            None => (!spread.shares.is_empty(), count),
        }
    };
    let others = |spread: &Spread| {
        let over = &spread.over;
        let with = |other: &&Arc<Instance>| {
            let there = other.placed.as_ref().and_then(|placed| state.host(placed.host));
            other.workload() == instance.workload()
                && there.is_some_and(|there| place(there, over) == place(host, over))
        };
        crowd(spread, state.instances().values().filter(with).count() as u64)
    };
    let crowds = instance.spec().place.spread.iter().map(others).collect();
    (crowds, Reverse(worth(mix_of, state, host, instance)), host.id.0)
}

/// Whether any of them is not spare, the highest priority among those that are not, or else among all, how many mount volumes, how many beyond what their
/// workloads may miss, how many, and the sum of their priorities.
pub(super) type Forced = (bool, u32, u32, u32, u32, u32);

/// What it costs that these make way.
pub(super) fn cost_by_force<'i>(state: &State, victims: impl Iterator<Item = &'i Instance>) -> Forced {
    let (mut of_spare, mut of_others, mut count, mut sum, mut mounting) = (0, None, 0, 0, 0);
    let mut of: BTreeMap<String, (u32, u32)> = BTreeMap::new();
    for victim in victims {
        let priority = victim.spec().priority;
        (count, sum) = (count + 1, sum + priority);
        mounting += u32::from(state.level() >= 5 && mounts(victim.spec()));
        match victim.spec().class {
            Class::Spare => of_spare = of_spare.max(priority),
            Class::Guaranteed | Class::Standard => of_others = of_others.max(Some(priority)),
        }
        let missing =
            state.instances_of(victim.workload()).filter(|other| other.placed.is_none()).count() as u32;
        let may_miss = victim.spec().update.max_unavailable.saturating_sub(missing);
        let (gone, _) = of.entry(victim.workload().to_string()).or_insert((0, may_miss));
        *gone += 1;
    }
    let beyond = of.values().map(|(gone, may_miss)| gone.saturating_sub(*may_miss)).sum();
    (of_others.is_some(), of_others.unwrap_or(of_spare), mounting, beyond, count, sum)
}

/// Of so many on a host every choice is looked at.
pub(super) const MOST_BY_FORCE: usize = 10;

/// Whether more urgent work waits for room on somebody's host that must be together with him.
pub(super) fn is_company(state: &State, other: &Instance, priority: u32) -> bool {
    let needs = |one: &Arc<Instance>| {
        let together = &one.spec().place.together;
        one.workload().borough == other.workload().borough && together.contains(&other.workload().workload)
    };
    let is_awaited = |one: &Arc<Instance>| {
        one.awaited().is_some_and(|awaited| Some(awaited.host) == other.host() && awaited.rank > priority)
    };
    state.instances().values().any(|one| is_awaited(one) && needs(one))
}

/// The least that it costs to make room on a host, by a look at every choice.
pub(super) fn cheapest_by_force(state: &State, host: &Host, instance: &Instance) -> Option<Forced> {
    cheapest_of(state, host, instance, |of| (0..1 << of).collect())
}

/// The same by a look at all choices of nobody, one and two beside those who must go.
pub(super) fn cheapest_two_by_force(state: &State, host: &Host, instance: &Instance) -> Option<Forced> {
    let pairs = |of: usize| (0..of).flat_map(|one| (0..=one).map(move |other| 1 << one | 1 << other));
    cheapest_of(state, host, instance, |of| std::iter::once(0).chain(pairs(of)).collect())
}

/// The least of these choices costs, which are given by how many may go as sets of bits.
fn cheapest_of(
    state: &State,
    host: &Host,
    instance: &Instance,
    choices: impl Fn(usize) -> Vec<u32>,
) -> Option<Forced> {
    let own = &instance.workload().borough;
    let is_guaranteed = allowances::would_be_guaranteed(state, instance);
    let is_less_urgent = |other: &&Arc<Instance>| {
        let is_lower = other.spec().priority < instance.spec().priority;
        let may = is_lower || is_guaranteed && other.workload().borough != *own;
        other.host() == Some(host.id) && may && !is_company(state, other, instance.spec().priority)
    };
    let is_in_the_way = |other: &&Arc<Instance>| {
        let is_private = instance.spec().place.private || other.spec().place.private;
        is_private && other.workload().borough != *own
    };
    let less_urgent = state.instances().values().filter(is_less_urgent);
    let (must, less_urgent): (Vec<_>, Vec<_>) = less_urgent.partition(is_in_the_way);
    let choices = choices(less_urgent.len()).into_iter().filter(|choice| *choice > 0 || !must.is_empty());
    let chosen = |choice: u32| {
        less_urgent
            .iter()
            .enumerate()
            .filter(move |(place, _)| choice >> place & 1 == 1)
            .map(|(_, other)| other)
            .chain(&must)
            .map(|other| &***other)
    };
    let makes_room = |choice: &u32| {
        let gone: Vec<&Instance> = chosen(*choice).collect();
        let ids: Vec<InstanceId> = gone.iter().map(|gone| gone.id).collect();
        allowances::are_lent(state, own, &gone) && would_go_without(state, host, instance, &ids)
    };
    choices.filter(makes_room).map(|choice| cost_by_force(state, chosen(choice))).min()
}

/// Nothing is given that is not there, on any host, as the specs of what stands on it add up.
pub(super) fn check_loads(state: &State) {
    for host in state.hosts().values() {
        let load = load(state, host);
        let memory = host.inventory.capacity.memory.0.saturating_sub(host.inventory.reserved.memory.0);
        assert!(load.cpu <= host.inventory.capacity.cpu.0, "{} gives too much processor", host.name);
        assert!(load.memory <= memory, "{} gives too much memory", host.name);
        let boroughs: BTreeSet<&String> = load.tenants.iter().map(|(of, _)| of).collect();
        let is_private = load.tenants.iter().any(|(_, private)| *private);
        assert!(!is_private || boroughs.len() == 1, "{} is not private", host.name);
        let network = host.inventory.network.0.saturating_sub(host.inventory.network_reserved.0);
        assert!(load.network <= network, "{} gives too much network", host.name);
        let disk = host.inventory.capacity.disk.0.saturating_sub(host.inventory.reserved.disk.0);
        assert!(load.disk <= disk, "{} gives too much disk", host.name);
        let used: &HostUse = state.used(host.id);
        assert_eq!((used.taken.cpu.0, used.taken.memory.0), (load.cpu, load.memory), "{} adds up", host.name);
        assert_eq!((used.network.0, used.taken.disk.0), (load.network, load.disk), "{} adds up", host.name);
        let given: BTreeMap<String, u32> =
            used.devices.iter().map(|(name, share)| (name.to_string(), share.0)).collect();
        assert_eq!(given, load.gpus, "the GPUs of {} add up", host.name);
        assert!(used.cores.cpus().eq(load.cpus.iter().copied()), "the cores of {} add up", host.name);
        let bound = load.bound.iter().all(|(node, bytes)| used.cores.memory_of(*node).0 == *bytes);
        assert!(bound, "the memory of the nodes of {} adds up", host.name);
    }
}
