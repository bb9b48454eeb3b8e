//! Displacing never goes in circles: random small estates to which workloads and new allowances come, and where after each of them whoever is to make way does,
//! with passes in between, until nobody is left who is to. That is soon, and nobody makes way for whom he displaced.

use std::collections::BTreeSet;

use proptest::{prelude::*, test_runner::TestCaseError};
use supercloud_proto::{
    id::InstanceId,
    instance::{Desired, InstanceState},
    name::WorkloadKey,
};

use super::{
    allowances::{RandomAllowance, allow, random_allowance},
    estate::Estate,
    judge::check_loads,
    random::{
        RandomHost, RandomWorkload, estate_of, hand_in, random_boroughs, random_host, random_sites,
        random_workload,
    },
};
use crate::state::{Instance, Preemption, tests::tally::Tally};

/// Histories that are played.
const HISTORIES: u32 = 3_000;
/// Far more rounds than it takes until nobody is left who is to make way: each has a pass, and one at least is gone.
const MOST_ROUNDS: usize = 200;

/// What changes an estate.
#[derive(Debug, Clone)]
enum Change {
    Workload(RandomWorkload),
    Allow(u8, RandomAllowance),
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        1 => (random_workload(), 0u32..4).prop_map(|(workload, more)| Change::Workload(workload.more_urgent(more))),
        5 => (random_workload(), 0u32..4)
            .prop_map(|(workload, more)| Change::Workload(workload.contending().more_urgent(more))),
        1 => (0u8..3, random_allowance()).prop_map(|(borough, allowance)| Change::Allow(borough, allowance)),
    ]
}

/// An instance and all that succeed it.
type Slot = (WorkloadKey, u32);

fn slot(estate: &Estate, id: InstanceId) -> Slot {
    let instance = estate.state.instance(id).unwrap();
    (instance.workload().clone(), instance.slot)
}

/// Who made way for whom since the estate was last changed.
#[derive(Default)]
struct Displaced(BTreeSet<(Slot, Slot)>);

impl Displaced {
    /// Runs passes until there is nothing more to do, and notes who makes way for whom.
    fn pass(&mut self, estate: &mut Estate, tally: &Tally) -> Result<(), TestCaseError> {
        for _ in 0..MOST_ROUNDS {
            let plan = estate.pass(40);
            for made in &plan.preemptions {
                self.note(estate, made, tally)?;
            }
            if !plan.more {
                return Ok(());
            }
        }
        Err(TestCaseError::fail("passes do not end"))
    }

    fn note(&mut self, estate: &Estate, made: &Preemption, tally: &Tally) -> Result<(), TestCaseError> {
        let (by, most) = (slot(estate, made.instance), priority(estate, made.instance));
        let has_displaced = |of: &Slot| self.0.iter().any(|(other, _)| other == of);
        for id in &made.victims {
            let whom = slot(estate, *id);
            tally.note("displaced", true);
            tally.note("displaced by a claim", priority(estate, *id) >= most);
            tally.note("displaced by its borough", by.0.borough == whom.0.borough);
            tally.note("displaced after displacing", has_displaced(&whom));
            prop_assert!(
                !self.0.contains(&(whom.clone(), by.clone())),
                "{by:?} displaces {whom:?}, who displaced it"
            );
        }
        self.0.extend(made.victims.iter().map(|id| (by.clone(), slot(estate, *id))));
        Ok(())
    }
}

fn priority(estate: &Estate, id: InstanceId) -> u32 {
    estate.state.instance(id).unwrap().spec().priority
}

/// Lets those go that are to stop, one or all at a time, with passes before and after, until none is left.
fn settle(estate: &mut Estate, going: &[u8], tally: &Tally) -> Result<(), TestCaseError> {
    let mut displaced = Displaced::default();
    for round in 0..MOST_ROUNDS {
        displaced.pass(estate, tally)?;
        check_loads(&estate.state);
        let stops = |one: &&std::sync::Arc<Instance>| one.desired == Desired::Stop && one.takes().is_some();
        let mut stopping: Vec<_> = estate.state.instances().values().filter(stops).cloned().collect();
        if stopping.is_empty() {
            tally.note("took many rounds", round > 5);
            return Ok(());
        }
        let which = usize::from(going[round % going.len()]);
        if which % 3 > 0 {
            stopping = vec![stopping.swap_remove(which % stopping.len())];
        }
        stopping.iter().for_each(|one| estate.report(one, InstanceState::Stopped, ""));
    }
    Err(TestCaseError::fail("displacing does not end"))
}

#[test]
fn nobody_makes_way_for_whom_he_displaced_and_there_is_an_end() {
    let tally = Tally::default();
    let config = ProptestConfig { cases: HISTORIES, failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |(
        hosts in prop::collection::vec(random_host().prop_map(RandomHost::contended), 1..4),
        changes in prop::collection::vec(change(), 3..10),
        boroughs in random_boroughs(),
        sites in random_sites(),
        going in prop::collection::vec(any::<u8>(), 1..8),
    )| {
        let mut estate = estate_of(&hosts, &[], &boroughs, &sites);
        estate.raise_level();
        for (number, change) in changes.iter().enumerate() {
            match change {
                Change::Workload(workload) => hand_in(&mut estate, &format!("w{number}"), workload),
                Change::Allow(borough, allowance) => allow(&mut estate, *borough, allowance),
            }
            settle(&mut estate, &going, &tally)?;
        }
    });
    tally.expect(&[
        ("displaced", HISTORIES / 4),
        ("displaced by a claim", HISTORIES / 50),
        ("displaced by its borough", HISTORIES / 20),
    ]);
}
