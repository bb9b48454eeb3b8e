//! A plan over random small estates tells what then happens: the specs are applied, passes run, whoever makes way is gone at once, until a pass does nothing.

use std::{collections::BTreeSet, sync::Arc};

use proptest::prelude::*;
use supercloud_proto::{id::InstanceId, name::WorkloadKey};

use super::{
    estate::Estate,
    random::{
        RandomWorkload, random_boroughs, random_host, random_sites, random_workload, upset_estate, wanted,
    },
};
use crate::{
    placement::plan,
    state::{Command, HostReports, Instance, tests::tally::Tally},
};

/// Estates that are looked at.
const ESTATES: u32 = 1_000;

/// Lets these be gone, as their hosts say.
fn let_go<'i>(estate: &mut Estate, gone: impl Iterator<Item = &'i Arc<Instance>>) {
    for HostReports { host, reports } in HostReports::of_stopped(gone, estate.now) {
        assert!(estate.apply(Command::Report { host, reports }).result.is_ok());
    }
}

/// Runs passes until one does nothing. Gives who made way, with for whom.
fn go_on(estate: &mut Estate) -> Vec<(InstanceId, InstanceId)> {
    let mut displaced = Vec::new();
    loop {
        let plan = estate.full_pass();
        let made = plan.preemptions.iter();
        let pairs: Vec<_> =
            made.flat_map(|made| made.victims.iter().map(|victim| (made.instance, *victim))).collect();
        let gone: Vec<_> =
            pairs.iter().filter_map(|(_, victim)| estate.state.instance(*victim)).cloned().collect();
        let_go(estate, gone.iter());
        displaced.extend(pairs);
        if plan.placements.is_empty() && plan.preemptions.is_empty() {
            return displaced;
        }
    }
}

/// Where the slots of a workload are.
fn places(estate: &Estate, key: &WorkloadKey) -> BTreeSet<(u32, String)> {
    let placed = estate.state.instances_of(key).filter(|one| one.is_to_stay());
    let place = |one: &Arc<Instance>| Some((one.slot, estate.state.host_name(one.host()?)?.to_string()));
    placed.filter_map(place).collect()
}

#[test]
fn a_plan_tells_what_then_happens() {
    let tally = Tally::default();
    let config = ProptestConfig { cases: ESTATES, failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |(
        hosts in prop::collection::vec(random_host(), 1..6),
        mounting in prop::collection::vec(random_workload().prop_map(RandomWorkload::mounting), 0..2),
        before in prop::collection::vec(random_workload(), 1..6),
        later in prop::collection::vec(random_workload(), 0..3),
        asked in random_workload(),
        boroughs in random_boroughs(),
        sites in random_sites(),
        lost in 0usize..12,
    )| {
        let before = [mounting, before].concat();
        let mut estate = upset_estate(&hosts, [&before, &later], &boroughs, &sites, lost);
        let spec = wanted("asked", &asked.more_urgent(2));
        estate.borough(&spec.borough);
        let (known, key) = (estate.state.clone(), spec.key());
        let Ok(planned) = plan(&estate.state, std::slice::from_ref(&spec), estate.now) else { return Ok(()) };
        prop_assert_eq!(estate.state.hash(), known.hash(), "a plan changes nothing");
        estate.workload(&spec);
        let displaced = go_on(&mut estate);
        let [told] = &planned.workloads[..] else { panic!("one spec, one plan") };
        let there: BTreeSet<_> = told.placements.iter().map(|one| (one.slot, one.host.to_string())).collect();
        prop_assert_eq!(&there, &places(&estate, &key));
        let is_of_it = |id: InstanceId| estate.state.instance(id).is_some_and(|one| *one.workload() == key);
        let for_it: Vec<_> = displaced.iter().filter(|(whom, victim)| is_of_it(*whom) && known.instance(*victim).is_some()).map(|(_, victim)| *victim).collect();
        let victims: Vec<_> = told.displaces.iter().map(|stop| stop.instance).collect();
        prop_assert_eq!(victims, for_it.clone());
        let waits = estate.state.instances_of(&key).filter(|one| one.is_pending()).count() as u32;
        prop_assert_eq!(told.unplaced + told.waiting, waits);
        prop_assert_eq!(told.unplaced_because.is_some(), told.unplaced > 0);
        prop_assert_eq!(planned.boroughs[0].after, estate.state.taken_by(&spec.borough));
        tally.note("placed", !there.is_empty());
        tally.note("unplaced", told.unplaced > 0);
        tally.note("displacing", !for_it.is_empty());
    });
    tally.expect(&[("placed", ESTATES / 10), ("unplaced", ESTATES / 10), ("displacing", ESTATES / 100)]);
}
