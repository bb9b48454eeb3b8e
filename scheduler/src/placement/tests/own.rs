//! At a borough's quota its urgent work displaces its own less urgent work: random small estates, judged by a look at every choice.

use std::{collections::BTreeSet, sync::Arc};

use proptest::prelude::*;
use supercloud_proto::{
    id::InstanceId,
    instance::{Desired, InstanceState},
};

use super::{
    allowances::{self, check_quotas},
    estate::Estate,
    judge::{Forced, check_loads, cost_by_force, is_company, would_all_go, would_go, would_go_without},
    random::{
        RandomHost, estate_of, hand_in, random_boroughs, random_contender, random_host, random_sites,
        random_workload, wanted,
    },
};
use crate::state::{Host, Instance, Preemption, State, tests::tally::Tally};

/// Of so many all choices are looked at.
const MOST: usize = 10;
/// Far more than are ever to go, one after the other.
const MOST_ROUNDS: usize = 300;

/// Who may make way: on the host whoever may for its room, anywhere else of the same borough whoever is less urgent; and those who must.
fn who_may<'s>(state: &'s State, host: &Host, instance: &Instance) -> (Vec<&'s Instance>, Vec<&'s Instance>) {
    let own = |other: &Instance| other.workload().borough == instance.workload().borough;
    let is_guaranteed = allowances::would_be_guaranteed(state, instance);
    let may = |other: &&Instance| {
        let is_lower = other.spec().priority < instance.spec().priority;
        let is_there = other.host() == Some(host.id);
        let may = is_there && (is_lower || is_guaranteed && !own(other)) || own(other) && is_lower;
        let is_company = || is_company(state, other, instance.spec().priority);
        other.placed.is_some() && may && other.is_to_stay() && !is_company()
    };
    let is_in_the_way =
        |other: &&Instance| (instance.spec().place.private || other.spec().place.private) && !own(other);
    state.instances().values().map(Arc::as_ref).filter(may).partition(is_in_the_way)
}

/// Whether there is room on a host and in the quota with these gone.
fn is_enough(state: &State, host: &Host, instance: &Instance, gone: &[&Instance]) -> bool {
    let ids: Vec<InstanceId> = gone.iter().map(|gone| gone.id).collect();
    allowances::would_be_borne(state, instance, &ids)
        && allowances::are_lent(state, &instance.workload().borough, gone)
        && would_go_without(state, host, instance, &ids)
}

/// The least that it costs to make room on a host and in the quota; `Err`: there are too many choices.
fn cheapest(state: &State, host: &Host, instance: &Instance) -> Result<Option<Forced>, ()> {
    let (must, may) = who_may(state, host, instance);
    if may.len() > MOST {
        return Err(());
    }
    let chosen = |choice: u32| -> Vec<&Instance> {
        let is_in = |(place, _): &(usize, &&Instance)| choice >> place & 1 == 1;
        may.iter().enumerate().filter(is_in).map(|(_, other)| *other).chain(must.iter().copied()).collect()
    };
    let enough = (0..1 << may.len()).filter(|choice| is_enough(state, host, instance, &chosen(*choice)));
    Ok(enough.map(|choice| cost_by_force(state, chosen(choice).into_iter())).min())
}

/// Lets one of those go that are to stop, until none is left, with passes after each. Gives what made way in these.
pub(super) fn let_go(estate: &mut Estate) -> Vec<Preemption> {
    let mut made = Vec::new();
    for _ in 0..MOST_ROUNDS {
        // Every change of the state brings another pass.
        for round in 0.. {
            assert!(round < MOST_ROUNDS, "passes do not end");
            let plan = estate.pass(40);
            made.extend(plan.preemptions);
            if !plan.more && plan.placements.is_empty() {
                break;
            }
        }
        check_loads(&estate.state);
        check_quotas(&estate.state);
        let Some(gone) = stopping(&estate.state).next().cloned() else { return made };
        estate.report(&gone, InstanceState::Stopped, "");
    }
    panic!("displacing does not end");
}

/// Those that are to stop and are not gone.
fn stopping(state: &State) -> impl Iterator<Item = &Arc<Instance>> {
    state.instances().values().filter(|one| one.desired == Desired::Stop && one.takes().is_some())
}

/// Whether an instance would go to some host as it is.
fn goes_anywhere(state: &State, instance: &Instance) -> bool {
    state.hosts().values().any(|host| would_go(state, host, instance))
}

/// Estates that are looked at.
const ESTATES: u32 = 10_000;

#[test]
fn the_cheapest_of_the_borough_make_way_at_its_quota() {
    let tally = Tally::default();
    let config = ProptestConfig { cases: ESTATES, failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |(
        hosts in prop::collection::vec(random_host().prop_map(RandomHost::well), 1..4),
        workloads in prop::collection::vec(random_contender(), 1..5),
        urgent in random_contender(),
        priority in 1u32..4,
        boroughs in random_boroughs(),
        sites in random_sites(),
    )| {
        let mut estate = estate_of(&hosts, &workloads, &boroughs, &sites);
        estate.passes(40);
        estate.raise_level();
        let urgent = urgent.alone(priority);
        hand_in(&mut estate, "urgent", &urgent);
        let before = estate.state.clone();
        let plan = estate.full_pass();
        let instance = before.instances_of(&wanted("urgent", &urgent).key()).next().unwrap();
        // Whom others displace, or what they take, before it is its turn is not seen.
        let others = plan.preemptions.iter().map(|made| made.instance).chain(plan.placements.iter().map(|given| given.instance));
        let is_alone = others.collect::<BTreeSet<_>>().into_iter().all(|id| id == instance.id);
        let placed = plan.placements.iter().any(|placement| placement.instance == instance.id);
        let made = plan.preemptions.iter().find(|made| made.instance == instance.id);
        if let Some(made) = made {
            let gone: Vec<&Instance> = made.victims.iter().map(|id| &**before.instance(*id).unwrap()).collect();
            let now = estate.state.instance(instance.id).unwrap();
            prop_assert_eq!(now.awaited_host(), made.host, "apply refused it");
            tally.note("displacing", true);
            tally.note("displacing elsewhere", gone.iter().any(|gone| gone.host() != made.host));
            tally.note("displacing several", gone.len() > 1);
            tally.note("displacing others, too", gone.iter().any(|gone| gone.workload().borough != instance.workload().borough));
            let host = before.host(made.host.unwrap()).unwrap();
            if is_alone {
                prop_assert!(is_enough(&before, host, instance, &gone));
                for left in 0..gone.len() {
                    let mut fewer = gone.clone();
                    fewer.remove(left);
                    prop_assert!(!is_enough(&before, host, instance, &fewer), "{} is not needed", gone[left].id);
                }
            }
        }
        let choices: Result<Vec<_>, ()> = before.hosts().values().map(|host| cheapest(&before, host, instance)).collect();
        tally.note("all choices looked at", choices.is_ok() && is_alone);
        if let Ok(choices) = choices && is_alone {
            let least = choices.into_iter().flatten().min();
            match (placed, made) {
                (true, _) => {
                    prop_assert!(before.hosts().values().any(|host| would_go(&before, host, instance)));
                    prop_assert!(allowances::would_be_let_in(&before, instance));
                }
                (false, None) => prop_assert_eq!(least, None, "somebody could have made way"),
                (false, Some(made)) => {
                    let cost = cost_by_force(&before, made.victims.iter().map(|id| &**before.instance(*id).unwrap()));
                    prop_assert_eq!(Some(cost), least, "others are cheaper");
                }
            }
        }
        // Passes end, whoever goes when, and no quota is ever exceeded meanwhile.
        let made_for = made.map(|made| made.instance);
        let_go(&mut estate);
        // What is more urgent and waited, too, may take what leaves, and what is guaranteed to another borough.
        let has_claim = |one: &Instance| {
            one.workload().borough != instance.workload().borough && allowances::would_be_guaranteed(&before, one)
        };
        let is_first = before.pending().all(|one| one.id == instance.id || one.spec().priority < priority && !has_claim(one));
        if let Some(id) = made_for.filter(|_| is_alone && is_first) {
            prop_assert!(estate.state.instance(id).is_some_and(|one| one.placed.is_some()), "it waits for ever");
            tally.note("placed in the end", true);
        }
    });
    tally.expect(&[
        ("all choices looked at", ESTATES / 2),
        ("displacing", ESTATES / 30),
        ("displacing elsewhere", ESTATES / 5_000),
        ("displacing several", ESTATES / 200),
        ("displacing others, too", ESTATES / 100),
        ("placed in the end", ESTATES / 40),
    ]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_waits_makes_way_before_what_runs_and_what_leaves_is_for_the_most_urgent(
        hosts in prop::collection::vec(random_host(), 1..4),
        workloads in prop::collection::vec(random_workload(), 1..5),
        (first, second, third) in (random_workload(), random_workload(), random_workload()),
        boroughs in random_boroughs(),
        sites in random_sites(),
    ) {
        let mut estate = estate_of(&hosts, &workloads, &boroughs, &sites);
        estate.raise_level();
        let_go(&mut estate);
        // The first has others make way, if it may, and what comes last is less urgent than either.
        hand_in(&mut estate, "first", &first.clone().alone(3));
        while estate.pass(40).more {}
        let second = second.alone(4).beside(&first);
        hand_in(&mut estate, "second", &second);
        hand_in(&mut estate, "third", &third.alone(2).beside(&first));
        let before = estate.state.clone();
        let instance = before.instances_of(&wanted("second", &second).key()).next().unwrap();
        let plan = estate.full_pass();
        let placed = plan.placements.iter().any(|placement| placement.instance == instance.id);
        let is_let_in = allowances::would_be_let_in(&before, instance);
        let goes = goes_anywhere(&before, instance);
        prop_assert_eq!(placed, is_let_in && goes, "what merely waits is in its way");
        let is_borne = allowances::would_be_borne(&before, instance, &[]);
        let made = plan.preemptions.iter().find(|made| made.instance == instance.id);
        if let Some(made) = made {
            prop_assert_eq!(estate.state.instance(instance.id).unwrap().awaited_host(), made.host, "apply refused it");
            let victims: Vec<&Arc<Instance>> = made.victims.iter().filter_map(|id| before.instance(*id)).collect();
            let elsewhere = victims.iter().any(|victim| victim.host() != made.host);
            prop_assert!(!is_borne || !elsewhere && !goes, "nobody had to stop for the quota");
            prop_assert!(allowances::would_be_borne(&before, instance, &made.victims));
        }
        // Quotas hold whoever goes when; and whoever waits only for what leaves its borough's quota gets that.
        let later = let_go(&mut estate);
        if is_borne && goes {
            let of_own = later.iter().filter(|made| made.instance == instance.id).any(|made| {
                let victims = made.victims.iter().filter_map(|id| estate.state.instance(*id).or(before.instance(*id)));
                victims.filter(|victim| victim.workload().borough == instance.workload().borough).any(|victim| victim.host() != made.host)
            });
            prop_assert!(!of_own, "somebody took what it waited for");
        }
        // In the end nobody waits for whom there is room.
        for one in estate.state.pending() {
            let is_let_in = allowances::would_be_let_in(&estate.state, one);
            prop_assert!(!is_let_in || would_all_go(&estate.state, one) != Some(true), "{} would go somewhere", one.id);
        }
    }
}
