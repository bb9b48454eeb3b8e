//! What is given away of a host, and to whom. Pure; knows the records of instances and nothing of the state. `derived` keeps one for each host, a pass its own
//! copies, and both count by what stands here.

use std::sync::Arc;

use supercloud_proto::{
    amount::{Amounts, Mbits, MilliCpu},
    cores::Cores,
    id::InstanceId,
    name::BoroughName,
    spec::{Class, Protocol, WorkloadSpec},
};

use super::{
    model::{CoresUse, DevicesUse, Instance, Placed, cpu_of},
    site::SitePolicy,
    sorted::Sorted,
};

/// How firmly an instance holds its room against those that may take it: what is not spare holds it more firmly, and then whatever is more urgent.
pub type Hold = (bool, u32);

/// How firmly instances of a spec hold their room.
pub fn hold(spec: &WorkloadSpec) -> Hold {
    (spec.class != Class::Spare, spec.priority)
}

/// What instances take of a host that hold it equally firmly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// How firmly.
    pub hold: Hold,
    /// What they take.
    pub amounts: Amounts,
    /// Network bandwidth that was given away to them.
    pub network: Mbits,
}

/// What is given away of one host.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HostUse {
    /// The policy of the host's site, by which all amounts here are counted.
    pub policy: SitePolicy,
    /// Sum of what its instances take.
    pub taken: Amounts,
    /// Network bandwidth given away.
    pub network: Mbits,
    /// Host ports given away.
    pub ports: Sorted<(Protocol, u16)>,
    /// Devices given away.
    pub devices: DevicesUse,
    /// Cores given away to instances that have them for themselves.
    pub cores: CoresUse,
    /// All instances on it, with those that are over but not cleared away.
    pub instances: Sorted<InstanceId>,
    /// How many of them are in nobody's way any more: with this, whatever decides whether another instance may come here is seen in what
    /// is given away of the host.
    pub leaving: u32,
    /// What those of them still take that are told to stop and not gone.
    pub going: Amounts,
    /// The same of network bandwidth.
    pub going_network: Mbits,
    /// How many of the others say which workloads they must not share a host with: where there are none, nobody has to be asked.
    pub minding: u32,
    /// What instances take, by how firmly they hold it, from the least firmly on.
    by_hold: Vec<Held>,
    /// The borough that keeps the host to itself, with how many private instances it has there: no other one is there then.
    pub private: Option<(BoroughName, u32)>,
    /// What waits for others to make way here, with its rank: room is kept for it against all that have no higher priority.
    pub awaited: Sorted<(u32, InstanceId)>,
}

impl HostUse {
    /// Nothing, of a host whose site has this policy.
    pub fn none(policy: SitePolicy) -> Self {
        Self { policy, ..Self::default() }
    }

    /// Gives an instance room, ports, devices and cores.
    pub(super) fn give(&mut self, instance: &Instance, placed: &Placed) {
        self.add(instance.spec(), self.taken_as(instance, placed));
        self.add_private(instance.spec());
        taken_ports(instance, placed).for_each(|port| self.ports.insert(port));
        instance.devices().for_each(|(device, of)| self.devices.give(device, of.share));
        if let Some(cores) = instance.cores() {
            self.cores.give(cores, placed.taken.memory);
        }
    }

    /// Takes in an instance of a spec that asks for so much and gets these ports. Devices and cores are given by themselves.
    #[inline]
    pub fn take_in(&mut self, id: InstanceId, spec: &WorkloadSpec, demand: Amounts, ports: &[u16]) {
        self.add(spec, self.policy.takes(spec.counting_class(), demand));
        self.add_private(spec);
        self.instances.insert(id);
        self.minding += u32::from(!spec.place.apart.is_empty());
        for ((_, port), number) in spec.ports().zip(ports) {
            self.ports.insert((port.protocol, *number));
        }
    }

    /// Gives cores to an instance that was taken in. They count as a whole.
    pub fn give_cores(&mut self, spec: &WorkloadSpec, demand: Amounts, cores: &Cores) {
        let more = MilliCpu(cpu_of(cores).saturating_sub(demand.cpu.0));
        self.count(hold(spec), Amounts { cpu: more, ..Amounts::default() }, Mbits(0));
        self.cores.give(cores, demand.memory);
    }

    /// Takes out an instance with all that it has there.
    pub fn take_out(&mut self, instance: &Instance) {
        if let Some(placed) = instance.takes() {
            self.take_back(instance, placed);
        }
        self.minding -= u32::from(instance.minds_neighbours());
        self.instances.remove(&instance.id);
    }

    /// Counts an instance that keeps the host to its borough.
    fn add_private(&mut self, spec: &WorkloadSpec) {
        if spec.place.private {
            self.private.get_or_insert_with(|| (spec.borough.clone(), 0)).1 += 1;
        }
    }

    fn remove_private(&mut self, spec: &WorkloadSpec) {
        if let Some((_, count)) = self.private.as_mut().filter(|_| spec.place.private) {
            *count = count.saturating_sub(1);
        }
        self.private.take_if(|(_, count)| *count == 0);
    }

    /// Counts what something takes.
    #[inline]
    fn add(&mut self, spec: &WorkloadSpec, amounts: Amounts) {
        self.count(hold(spec), amounts, spec.resources.network);
    }

    #[inline]
    fn count(&mut self, hold: Hold, amounts: Amounts, network: Mbits) {
        self.taken += amounts;
        self.network += network;
        match self.by_hold.binary_search_by_key(&hold, |held| held.hold) {
            Ok(place) => {
                self.by_hold[place].amounts += amounts;
                self.by_hold[place].network += network;
            }
            Err(place) => self.by_hold.insert(place, Held { hold, amounts, network }),
        }
    }

    fn subtract(&mut self, spec: &WorkloadSpec, amounts: Amounts) {
        let (hold, network) = (hold(spec), spec.resources.network);
        self.taken = self.taken.saturating_sub(amounts);
        self.network = self.network.saturating_sub(network);
        let Ok(place) = self.by_hold.binary_search_by_key(&hold, |held| held.hold) else { return };
        let held = &mut self.by_hold[place];
        held.amounts = held.amounts.saturating_sub(amounts);
        held.network = held.network.saturating_sub(network);
        if (held.amounts, held.network) == (Amounts::default(), Mbits(0)) {
            self.by_hold.remove(place);
        }
    }

    /// Counts anew, by another policy, what these take who are there.
    pub(super) fn count_anew(&mut self, policy: SitePolicy, instances: &[Arc<Instance>]) {
        self.policy = policy;
        (self.taken, self.going, self.network, self.going_network) = Default::default();
        self.by_hold.clear();
        for instance in instances {
            let Some(placed) = instance.takes() else { continue };
            let taken = self.taken_as(instance, placed);
            self.add(instance.spec(), taken);
            if !instance.is_to_stay() {
                self.count_going(false, true, instance, taken);
            }
        }
    }

    /// Counts what an instance takes that is told to stop, or no longer.
    pub fn count_going(&mut self, before: bool, now: bool, instance: &Instance, taken: Amounts) {
        add_or_take(&mut self.going, before, now, taken);
        let network = instance.spec().resources.network;
        match (before, now) {
            (false, true) => self.going_network += network,
            (true, false) => self.going_network = self.going_network.saturating_sub(network),
            _ => {}
        }
    }

    /// What instances take, by how firmly they hold it, from the least firmly on.
    pub fn by_hold(&self) -> &[Held] {
        &self.by_hold
    }

    /// What an instance takes of the host, or has taken while it was there.
    pub(super) fn taken_as(&self, instance: &Instance, placed: &Placed) -> Amounts {
        let taken = self.policy.takes(instance.spec().counting_class(), placed.taken);
        match instance.cores() {
            None => taken,
            Some(cores) => Amounts { cpu: MilliCpu(cpu_of(cores)), ..taken },
        }
    }

    /// What an instance that is there takes of the host; nothing once it is over.
    pub fn taken_by(&self, instance: &Instance) -> Amounts {
        instance.takes().map_or_else(Amounts::default, |placed| self.taken_as(instance, placed))
    }

    /// Whether nothing has to be kept of it.
    pub(super) fn is_empty(&self) -> bool {
        self.instances.is_empty() && self.awaited.is_empty() && self.policy == SitePolicy::default()
    }

    /// Takes back what an instance was given.
    pub fn take_back(&mut self, instance: &Instance, placed: &Placed) {
        self.subtract(instance.spec(), self.taken_as(instance, placed));
        self.remove_private(instance.spec());
        taken_ports(instance, placed).for_each(|port| self.ports.remove(&port));
        instance.devices().for_each(|(device, of)| self.devices.take_back(device, of.share));
        if let Some(cores) = instance.cores() {
            self.cores.take_back(cores, placed.taken.memory);
        }
    }
}

/// The host ports that an instance holds.
fn taken_ports(instance: &Instance, placed: &Placed) -> impl Iterator<Item = (Protocol, u16)> {
    instance.spec().ports().zip(placed.ports.iter()).map(|((_, port), host_port)| (port.protocol, *host_port))
}

/// Adds what something has begun to take, or takes out what it takes no longer.
pub(super) fn add_or_take(sum: &mut Amounts, before: bool, now: bool, amounts: Amounts) {
    match (before, now) {
        (false, true) => *sum = sum.saturating_add(amounts),
        (true, false) => *sum = sum.saturating_sub(amounts),
        _ => {}
    }
}
