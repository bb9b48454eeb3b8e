//! Suggestions over random small estates: what is passed over for want of promise would not have worked (the code asserts it of each), fewer trials tell
//! nothing else than more do, and once what is told is done a pass gives the instance a host, where it is its turn. What was asked before does not matter.

use proptest::prelude::*;
use supercloud_proto::{host::HostState, instance::Desired};

use super::{
    judge::must_wait,
    random::{
        RandomWorkload, estate_of, hand_in_all, random_boroughs, random_host, random_sites, random_workload,
        upset_estate,
    },
};
use crate::{
    placement::{Explainer, Limits, pass},
    state::{Command, Entry, Instance, Placement, State, tests::tally::Tally},
};

/// Estates that are looked at.
const ESTATES: u32 = 2_000;

/// So long nothing waits for its time, in milliseconds.
const A_WHILE: u64 = 3_600_000;

/// Whether an instance is on its way out of a host that is there.
fn goes(state: &State, instance: &Instance) -> bool {
    let is_there = |host| state.host(host).is_some_and(|host| host.state != HostState::Lost);
    instance.desired == Desired::Stop && instance.takes().is_some() && instance.host().is_some_and(is_there)
}

/// Whether nobody who waits comes before an instance, or beside it.
fn is_next(state: &State, instance: &Instance) -> bool {
    let is_of_it = |other: &Instance| other.record == instance.record;
    state.pending().all(|other| is_of_it(other) || other.spec().priority < instance.spec().priority)
}

#[test]
fn once_what_is_told_is_done_a_pass_gives_it_a_host() {
    let tally = Tally::default();
    let config = ProptestConfig { cases: ESTATES, failure_persistence: None, ..ProptestConfig::default() };
    let estates = (
        prop::collection::vec(random_host(), 1..5),
        prop::collection::vec(random_workload(), 1..7),
        prop::collection::vec(random_workload().prop_map(RandomWorkload::mounting), 0..3),
        random_boroughs(),
        random_sites(),
        any::<bool>(),
        0usize..12,
    );
    proptest!(config, |((hosts, workloads, mounting, boroughs, sites, is_new, lost) in estates)| {
        let mut estate = estate_of(&hosts, &[], &boroughs, &sites);
        if is_new {
            estate.raise_level();
        }
        hand_in_all(&mut estate, 0, &[mounting, workloads].concat());
        while estate.pass(40).more {}
        if lost < hosts.len() {
            estate.judge(&format!("h{lost}"), HostState::Lost, "");
            estate.now += A_WHILE;
            while estate.pass(40).more {}
        }
        // What is going leaves room for whoever comes first.
        if estate.state.instances().values().any(|one| goes(&estate.state, one)) {
            return Ok(());
        }
        for instance in estate.state.pending() {
            let may_go = instance.not_before() <= estate.now && !must_wait(&estate.state, instance);
            if !may_go || !is_next(&estate.state, instance) {
                continue;
            }
            for (told, mut state, spec) in Explainer::of(&estate.state, estate.now).outcomes(instance) {
                if let Some(spec) = spec {
                    let command = Command::ApplyWorkload { spec: Box::new(spec), expect_revision: None };
                    let entry = Entry { time: estate.now, by: String::new(), request_id: String::new(), command };
                    prop_assert!(state.apply(state.applied() + 1, &entry).outcome.result.is_ok());
                }
                let plan = pass(&state, estate.now, Limits::default());
                let whose = |given: &Placement| state.instance(given.instance).unwrap().workload().clone();
                let is_placed = plan.placements.iter().any(|given| whose(given) == *instance.workload());
                prop_assert!(is_placed, "{told:?} does not help {}", instance.id);
                tally.note(told.kind, true);
            }
        }
    });
    tally.expect(&[
        ("resize", ESTATES / 10),
        ("relax", ESTATES / 10),
        ("raise-quota", ESTATES / 100),
        ("open-host", ESTATES / 400),
        ("free-host", ESTATES / 400),
        ("add-host", ESTATES / 10),
    ]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn fewer_trials_tell_a_part_of_what_more_do(
        hosts in prop::collection::vec(random_host(), 1..7),
        workloads in prop::collection::vec(random_workload(), 1..9),
        boroughs in random_boroughs(),
        sites in random_sites(),
        trials in 0usize..4,
    ) {
        let mut estate = estate_of(&hosts, &workloads, &boroughs, &sites);
        while estate.pass(40).more {}
        for instance in estate.state.pending() {
            let mut explainer = Explainer::of(&estate.state, estate.now);
            let mut tell = |trials| explainer.changes(instance, trials);
            let (all, few) = (tell(usize::MAX), tell(trials));
            prop_assert!(few.len() <= trials);
            prop_assert!(few.iter().all(|told| all.contains(told)), "{few:?} of {all:?}");
            // What a host takes as everything stands is tried first, and of one alone it works.
            let of_spec = all.iter().filter(|told| told.host.is_none() && told.kind == "relax").count();
            prop_assert!(few.len() >= of_spec.min(trials) || instance.spec().place.all_or_none);
        }
    }
    /// What it was asked before, and what it tried for that, makes no difference.
    #[test]
    fn an_explainer_answers_as_a_new_one_does(
        hosts in prop::collection::vec(random_host(), 1..7),
        before in prop::collection::vec(random_workload(), 1..6),
        mounting in prop::collection::vec(random_workload().prop_map(RandomWorkload::mounting), 0..3),
        later in prop::collection::vec(random_workload(), 1..4),
        boroughs in random_boroughs(),
        sites in random_sites(),
        lost in 0usize..12,
    ) {
        let before = [mounting, before].concat();
        let estate = upset_estate(&hosts, [&before, &later], &boroughs, &sites, lost);
        let mut explainer = Explainer::of(&estate.state, estate.now);
        for instance in estate.state.instances().values() {
            let anew = || Explainer::of(&estate.state, estate.now);
            prop_assert_eq!(explainer.changes(instance, usize::MAX), anew().changes(instance, usize::MAX));
            prop_assert_eq!(explainer.instance(instance), anew().instance(instance));
            prop_assert_eq!(explainer.spec(instance.spec(), None), anew().spec(instance.spec(), None));
        }
    }
}
