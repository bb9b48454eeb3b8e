//! What boroughs of random estates may have, with a naive judge of it: it adds up from the specs, and shares no code with what it judges.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use supercloud_proto::{
    amount::{Bytes, MilliCpu},
    id::InstanceId,
    instance::InstanceState,
    name::BoroughName,
};

use super::{
    judge::{gang_of, needs},
    random::{BOROUGHS, MIB},
};
use crate::{
    placement::tests::estate::Estate,
    state::{BoroughChange, Instance, State},
};

/// Amounts of processor and memory, in thousandths and MiB.
#[derive(Debug, Clone, Default)]
pub(super) struct RandomAllowance {
    quota: (Option<u64>, Option<u64>),
    guarantee: (u64, u64),
    weight: u32,
    private: u32,
}

prop_compose! {
    pub(super) fn random_allowance()(
        cpu in prop::option::of(0u64..6_000), mib in prop::option::of(0u64..6_000),
        guarantee in prop_oneof![
            1 => (Just(0), Just(0)),
            1 => (prop_oneof![Just(0), 0u64..4_000], prop_oneof![Just(0), 0u64..4_000]),
            2 => (500u64..4_000, 500u64..4_000),
        ],
        weight in prop::sample::select(vec![1, 50, 100, 200, 1_000]), private in 0u32..4,
    ) -> RandomAllowance {
        let guarantee = (guarantee.0.min(cpu.unwrap_or(u64::MAX)), guarantee.1.min(mib.unwrap_or(u64::MAX)));
        RandomAllowance { quota: (cpu, mib), guarantee, weight, private }
    }
}

impl RandomAllowance {
    pub(super) fn without_quota(self) -> Self {
        Self { quota: (None, None), ..self }
    }
}

/// Gives one of the boroughs, which is created where it is new, what it may have.
pub(super) fn allow(estate: &mut Estate, borough: u8, random: &RandomAllowance) {
    let name = BoroughName::new(BOROUGHS[usize::from(borough)]).unwrap();
    let change = BoroughChange {
        quota_cpu: Some(random.quota.0.map(MilliCpu)),
        quota_memory: Some(random.quota.1.map(|mib| Bytes(mib * MIB))),
        guarantee_cpu: Some(MilliCpu(random.guarantee.0)),
        guarantee_memory: Some(Bytes(random.guarantee.1 * MIB)),
        weight: Some(random.weight),
        private_hosts: Some(random.private),
        ..BoroughChange::default()
    };
    estate.allow(&name, &change);
}

/// What each borough has of processor and memory.
pub(super) type Accounts = BTreeMap<String, (u64, u64)>;

/// The same, added up from the specs of what stands on hosts and is not lost, or has others make way for it.
pub(super) fn accounts(state: &State) -> Accounts {
    accounts_of(state, |instance| is_there(instance) || instance.awaited_host().is_some())
}

fn is_there(instance: &Instance) -> bool {
    instance.takes().is_some() && instance.state != InstanceState::Lost
}

fn accounts_of(state: &State, counts: impl Fn(&Instance) -> bool) -> Accounts {
    let mut accounts = Accounts::new();
    state.instances().values().filter(|one| counts(one)).for_each(|one| add(&mut accounts, one));
    accounts
}

/// What each would have once these and all that is stopping were gone, and all were there for which others make way, and this one, before which what is less urgent waits.
fn accounts_to_come(state: &State, coming: Option<&Instance>, gone: &[InstanceId]) -> Accounts {
    accounts_of(state, |one| {
        let stays = is_there(one) && one.is_to_stay() && !gone.contains(&one.id);
        let comes =
            one.awaited_host().is_some() && coming.is_none_or(|coming| !is_put_off(state, one, coming));
        stays || comes || coming.is_some_and(|coming| coming.id == one.id)
    })
}

/// Whether one that waits, though others make way for it, waits for another one of its borough, too.
fn is_put_off(state: &State, one: &Instance, coming: &Instance) -> bool {
    state.level() >= 6 && one.spec().priority < coming.spec().priority
}

/// Whether its borough's quota would bear an instance with these gone.
pub(super) fn would_be_borne(state: &State, instance: &Instance, gone: &[InstanceId]) -> bool {
    within_quota(state, &accounts_to_come(state, Some(instance), gone), &instance.workload().borough)
}

fn within_quota(state: &State, accounts: &Accounts, borough: &BoroughName) -> bool {
    let (cpu, memory) = accounts.get(borough.as_str()).copied().unwrap_or_default();
    let quota = &state.boroughs()[borough].allowance.quota;
    quota.cpu.is_none_or(|most| cpu <= most.0) && quota.memory.is_none_or(|most| memory <= most.0)
}

pub(super) fn add(accounts: &mut Accounts, instance: &Instance) {
    let (cpu, memory) = needs(instance.spec());
    let account = accounts.entry(instance.workload().borough.to_string()).or_default();
    *account = (account.0 + cpu, account.1 + memory);
}

/// Thousandths of devices that each borough has of each kind.
pub(super) type Devices = BTreeMap<(String, String), u64>;

/// The same, added up from the specs of the same instances as the accounts.
pub(super) fn devices(state: &State) -> Devices {
    let mut devices = Devices::new();
    let counts =
        |instance: &&std::sync::Arc<Instance>| is_there(instance) || instance.awaited_host().is_some();
    state.instances().values().filter(counts).for_each(|instance| add_devices(&mut devices, instance));
    devices
}

pub(super) fn add_devices(devices: &mut Devices, instance: &Instance) {
    for request in &instance.spec().resources.devices {
        let key = (instance.workload().borough.to_string(), request.kind.to_string());
        *devices.entry(key).or_default() += u64::from(request.count) * u64::from(request.share.0);
    }
}

/// Thousandths of devices of a kind on all hosts.
fn all_devices(state: &State, kind: &str) -> u64 {
    let hosts = state.hosts().values();
    hosts
        .flat_map(|host| host.inventory.devices.values())
        .filter(|device| device.kind.as_str() == kind)
        .count() as u64
        * 1_000
}

/// Whether the quota of its borough would let an instance in, or all of its gang.
pub(super) fn would_be_let_in(state: &State, instance: &Instance) -> bool {
    let borough = &instance.workload().borough;
    if instance.awaited_host().is_some() {
        let comes_first = |other: &Instance| {
            other.awaited_host().is_some() && other.spec().priority > instance.spec().priority
        };
        let mut on_hosts = accounts_of(state, |one| is_there(one) || comes_first(one));
        add(&mut on_hosts, instance);
        return state.level() < 5 || within_quota(state, &on_hosts, borough);
    }
    let counts =
        |one: &Instance| is_there(one) || one.awaited_host().is_some() && !is_put_off(state, one, instance);
    let (cpu, memory) = accounts_of(state, counts).get(borough.as_str()).copied().unwrap_or_default();
    let (each_cpu, each_memory) = needs(instance.spec());
    let together = gang_of(state, instance) as u64;
    let (more_cpu, more_memory) = (each_cpu * together, each_memory * together);
    let quota = &state.boroughs()[borough].allowance.quota;
    quota.cpu.is_none_or(|most| cpu + more_cpu <= most.0)
        && quota.memory.is_none_or(|most| memory + more_memory <= most.0)
}

/// What of a borough's work would stay, were nobody to go who stays now.
fn staying(state: &State, borough: &BoroughName) -> [u64; 2] {
    let mut staying = Accounts::new();
    let stays = |instance: &&std::sync::Arc<Instance>| instance.is_to_stay() && instance.placed.is_some();
    state.instances().values().filter(stays).for_each(|instance| add(&mut staying, instance));
    let (cpu, memory) = staying.get(borough.as_str()).copied().unwrap_or_default();
    [cpu, memory]
}

fn guarantee(state: &State, borough: &BoroughName) -> [u64; 2] {
    let guarantee = &state.boroughs()[borough].allowance.guarantee;
    [guarantee.cpu.0, guarantee.memory.0]
}

/// Whether an instance would be within what is guaranteed to its borough.
pub(super) fn would_be_guaranteed(state: &State, instance: &Instance) -> bool {
    would_all_be_guaranteed(state, instance, 1)
}

/// The same of so many like it.
pub(super) fn would_all_be_guaranteed(state: &State, instance: &Instance, count: u64) -> bool {
    let borough = &instance.workload().borough;
    let ((cpu, memory), has) = (needs(instance.spec()), staying(state, borough));
    let of = |i: usize, needed: u64| (guarantee(state, borough)[i], has[i], needed * count);
    let fits = |(guarantee, has, needed): (u64, u64, u64)| needed == 0 || has + needed <= guarantee;
    let resources = &instance.spec().resources;
    // No disk is guaranteed to anybody here.
    let may_be_guaranteed = resources.devices.is_empty()
        && resources.network.0 == 0
        && resources.disk.0 == 0
        && !resources.dedicated
        && !instance.spec().place.private;
    may_be_guaranteed && fits(of(0, cpu)) && fits(of(1, memory))
}

/// Whether these could go without any borough but this one losing of what is guaranteed to it.
pub(super) fn are_lent(state: &State, to: &BoroughName, gone: &[&Instance]) -> bool {
    let mut lost = Accounts::new();
    let others = gone.iter().filter(|instance| instance.workload().borough != *to);
    others.for_each(|instance| add(&mut lost, instance));
    lost.iter().all(|(borough, (cpu, memory))| {
        let borough = BoroughName::new(borough).unwrap();
        let (guarantee, has) = (guarantee(state, &borough), staying(state, &borough));
        [*cpu, *memory]
            .into_iter()
            .enumerate()
            .all(|(i, lost)| guarantee[i] == 0 || lost <= has[i].saturating_sub(guarantee[i]))
    })
}

/// The hosts that a borough keeps to itself: with something private on them that is not lost, or for which others make way there.
pub(super) fn kept_hosts(state: &State, borough: &BoroughName) -> BTreeSet<u32> {
    let own = |instance: &&std::sync::Arc<Instance>| {
        instance.workload().borough == *borough && instance.spec().place.private
    };
    let host = |instance: &std::sync::Arc<Instance>| {
        let there = instance.takes().filter(|_| instance.state != InstanceState::Lost);
        instance.awaited_host().or(there.map(|placed| placed.host)).map(|host| host.0)
    };
    state.instances().values().filter(own).filter_map(host).collect()
}

/// No borough has more than its quota, now or when all that is stopping is gone and all there for which others make way, or keeps more hosts to itself than it may.
pub(super) fn check_quotas(state: &State) {
    for accounts in [accounts_of(state, is_there), accounts_to_come(state, None, &[])] {
        for borough in state.boroughs().keys() {
            assert!(within_quota(state, &accounts, borough), "{borough} has too much");
        }
    }
    for (name, borough) in state.boroughs() {
        let kept = kept_hosts(state, name).len() as u32;
        assert!(kept <= borough.allowance.private_hosts, "{name} keeps {kept} hosts");
    }
}

/// Whose turn comes first: whoever has less than is guaranteed to it, and then whoever has the fewest whole 4096ths of the estate's processors,
/// memory or devices of a kind, whichever are most, where a weight of 200 counts half and one of 50 twice.
pub(super) fn standing(
    state: &State,
    whole: [u64; 2],
    (accounts, devices): (&Accounts, &Devices),
    borough: &str,
) -> (bool, u128) {
    let allowance = &state.boroughs()[&BoroughName::new(borough).unwrap()].allowance;
    let (cpu, memory) = accounts.get(borough).copied().unwrap_or_default();
    let steps = |part: u64, whole: u64| match u128::from(whole) * u128::from(allowance.weight) {
        0 => 0,
        whole => u128::from(part) * 409_600 / whole,
    };
    let guaranteed = [(cpu, allowance.guarantee.cpu.0), (memory, allowance.guarantee.memory.0)];
    let mut guaranteed = guaranteed.into_iter().filter(|(_, guarantee)| *guarantee > 0).peekable();
    let is_within = guaranteed.peek().is_some() && guaranteed.all(|(has, guarantee)| has < guarantee);
    let own = devices.iter().filter(|((of, _), _)| of == borough);
    let of_devices = own.map(|((_, kind), has)| steps(*has, all_devices(state, kind))).max().unwrap_or(0);
    (!is_within, steps(cpu, whole[0]).max(steps(memory, whole[1])).max(of_devices))
}
