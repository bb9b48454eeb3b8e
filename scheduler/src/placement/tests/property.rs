//! Properties of the pass over random small estates (`random`), judged by a naive judge of its own (`judge`).

use std::sync::Arc;

use proptest::prelude::*;
use supercloud_proto::{id::InstanceId, instance::Desired, spec::Class};

use super::{
    allowances::{self, Accounts, Devices, RandomAllowance},
    judge::{
        MOST_BY_FORCE, cheapest_by_force, cheapest_two_by_force, check_loads, cost_by_force, gang_of, left,
        must_wait, prospects, prospects_lost, rank, would_all_go, would_go,
    },
    random::{
        RandomHost, RandomWorkload, estate_of, hand_in, random_boroughs, random_contender, random_host,
        random_sites, random_workload, upset_estate, wanted,
    },
};
use crate::{
    placement::{
        Explainer,
        pass::{Limits, Plan, Why, pass},
    },
    state::{
        Host, Instance, State,
        fits::{Candidate, FILTERS, Request, fits},
        tests::tally::Tally,
    },
};

/// Whoever is more urgent is tried first; among equals the borough that stands first (see `allowances`); and of a borough whoever is older.
fn check_order(state: &State, plan: &Plan) {
    let mut taken = (allowances::accounts(state), allowances::devices(state));
    let hosts = || state.hosts().values().map(|host| &host.inventory);
    let whole = [
        hosts().map(|of| of.capacity.cpu.0).sum::<u64>(),
        hosts().map(|of| of.capacity.memory.0.saturating_sub(of.reserved.memory.0)).sum(),
    ];
    let rank = |(taken, devices): &(Accounts, Devices), instance: &Instance| {
        let borough = instance.workload().borough.to_string();
        let standing = allowances::standing(state, whole, (taken, devices), &borough);
        (u32::MAX - instance.spec().priority, standing, borough, instance.id)
    };
    let placed: Vec<_> =
        plan.placements.iter().map(|placement| state.instance(placement.instance).unwrap()).collect();
    // Of a gang only the first one's turn counts.
    let is_led = |place: usize| plan.gangs.iter().any(|gang| gang.start < place && gang.contains(&place));
    for (place, instance) in placed.iter().enumerate() {
        let leading = (place..placed.len()).filter(|place| !is_led(*place));
        let first = leading.map(|place| rank(&taken, placed[place])).min();
        assert!(is_led(place) || Some(rank(&taken, instance)) == first, "another one's turn");
        allowances::add(&mut taken.0, instance);
        allowances::add_devices(&mut taken.1, instance);
    }
}

/// Gangs are placed as a whole, and side by side.
fn check_gangs(state: &State, plan: &Plan) {
    let gang_at = |place: usize| plan.gangs.iter().find(|gang| gang.contains(&place));
    for (place, placement) in plan.placements.iter().enumerate() {
        let instance = state.instance(placement.instance).unwrap();
        assert_eq!(
            instance.spec().place.all_or_none,
            gang_at(place).is_some(),
            "{} is of a gang",
            instance.id
        );
        let Some(gang) = gang_at(place) else { continue };
        let of = plan.placements[gang.clone()].iter().map(|placement| state.instance(placement.instance));
        assert!(of.flatten().all(|other| other.workload() == instance.workload()), "one gang only");
        assert_eq!(gang.len(), gang_of(state, instance), "the gang of {} is parted", instance.id);
    }
}

/// Estates that each of these properties looks at.
const ESTATES: u32 = 20_000;
/// Of one host on which there are many.
const CROWDS: u32 = 2_000;

fn config() -> ProptestConfig {
    ProptestConfig { cases: ESTATES, failure_persistence: None, ..ProptestConfig::default() }
}

/// Counts what a plan does by what makes it less than simple.
fn note_plan(tally: &Tally, state: &State, plan: &Plan) {
    for placement in &plan.placements {
        let instance = state.instance(placement.instance).unwrap();
        let (place, resources) = (&instance.spec().place, &instance.spec().resources);
        tally.note("placed", true);
        tally.note(
            "placed at the quota's edge",
            state.boroughs()[&instance.workload().borough].allowance.quota.cpu.is_some(),
        );
        tally.note("placed with devices", !placement.devices.is_empty());
        tally.note("placed with two kinds of devices", resources.devices.len() > 1);
        tally.note("placed with cores", placement.cores.is_some());
        tally.note("placed with ports", !placement.ports.is_empty());
        tally.note("placed with disk", resources.disk.0 > 0);
        tally.note("placed by conditions", !place.require.is_empty());
        tally.note("placed by wishes", !place.prefer.is_empty());
        tally.note("placed by spreading", !place.spread.is_empty());
        tally.note("placed apart", !place.apart.is_empty());
        tally.note("placed together", !place.together.is_empty());
        tally.note("placed as private", place.private);
        tally.note("placed with volumes", instance.spec().has_volumes());
        tally.note("placed as spare", instance.spec().class == Class::Spare);
    }
    plan.gangs.iter().for_each(|gang| tally.note("gangs of several", gang.len() > 1));
    plan.unplaced.iter().for_each(|shape| tally.note("kept by quotas", shape.why == Why::Quota));
    plan.unplaced.iter().for_each(|shape| tally.note("fitting nowhere", shape.why == Why::Hosts));
}

#[test]
fn a_pass_gives_only_what_is_there_and_leaves_nothing_that_would_fit() {
    let tally = Tally::default();
    proptest!(config(), |(
        hosts in prop::collection::vec(random_host(), 0..7),
        workloads in prop::collection::vec(random_workload(), 1..7),
        boroughs in random_boroughs(),
        sites in random_sites(),
        limit in 1usize..40,
    )| {
        let mut estate = estate_of(&hosts, &workloads, &boroughs, &sites);
        check_order(&estate.state, &pass(&estate.state, 0, Limits { placements: limit }));
        estate.raise_level();
        let again = pass(&estate.state, 0, Limits { placements: limit });
        let plan = pass(&estate.state.clone(), 0, Limits { placements: limit });
        prop_assert_eq!(&plan, &again, "the same state gives another plan");
        if plan.preemptions.is_empty() {
            check_order(&estate.state, &plan);
        }
        check_gangs(&estate.state, &plan);
        note_plan(&tally, &estate.state, &plan);
        // One by one, as apply does, every placement is let in by the one rule: in an estate in which gangs are none.
        let loose: Vec<_> = workloads.iter().cloned().map(RandomWorkload::loose).collect();
        let mut loose = estate_of(&hosts, &loose, &boroughs, &sites);
        loose.raise_level();
        let mut state = loose.state;
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
            // Whether its borough kept a host for what others make way for before or after this is not seen.
            let may_keep_fewer = instance.spec().place.private && plan.preemptions.iter().any(|made| {
                let other = state.instance(made.instance).unwrap();
                other.spec().place.private && other.workload().borough == instance.workload().borough
            });
            let is_best = Some(rank(&estate.state, &state, &host, &instance)) == best;
            prop_assert!(is_best || may_keep_fewer, "another host is better");
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
        estate.passes(limit);
        check_loads(&estate.state);
        allowances::check_quotas(&estate.state);
        let rest: Vec<_> = estate.state.pending().cloned().collect();
        let mut explainer = Explainer::of(&estate.state, 0);
        for instance in &rest {
            let told = explainer.instance(instance);
            let is_let_in = allowances::would_be_let_in(&estate.state, instance);
            prop_assert_eq!(told.quota.is_empty(), is_let_in);
            let going = estate.state.hosts().values().filter(|host| would_go(&estate.state, host, instance)).count();
            // What is stopping somewhere may be waited for by others who come first.
            let is_stopping = estate.state.instances().values().any(|other| other.desired == Desired::Stop);
            let goes = would_all_go(&estate.state, instance);
            prop_assert!(!is_let_in || goes != Some(true) || is_stopping, "{} would go somewhere", instance.id);
            let fallen: u32 = told.filters.iter().map(|filter| filter.hosts).sum();
            prop_assert_eq!(told.fitting + fallen, told.hosts);
            // What is told of a gang is how hosts look to the first of it that finds none.
            if gang_of(&estate.state, instance) > 1 {
                prop_assert!(goes.is_none_or(|goes| goes == (told.fitting > 0)), "{} finds hosts", instance.id);
            } else {
                prop_assert_eq!(told.fitting as usize, going);
            }
            prop_assert_eq!(!told.nearest.is_empty(), told.hosts > 0 && told.fitting == 0);
        }
        let is_stopping = estate.state.instances().values().any(|other| other.desired == Desired::Stop);
        tally.note("some make way in the end", is_stopping);
        if is_stopping || rest.iter().any(|instance| instance.awaited_host().is_some()) {
            return Ok(());
        }
        let unplaced = estate.full_pass().unplaced;
        prop_assert_eq!(unplaced.iter().map(|shape| shape.instances).sum::<u32>() as usize, rest.len());
        for shape in &unplaced {
            let first = estate.state.instance(shape.first).unwrap();
            prop_assert_eq!(shape.why == Why::Hosts, allowances::would_be_let_in(&estate.state, first));
        }
    });
    // A third or a quarter of what was counted when this was written, here and below.
    tally.expect(&[
        ("placed", ESTATES / 2),
        ("gangs of several", ESTATES / 100),
        ("kept by quotas", ESTATES / 10),
        ("fitting nowhere", ESTATES / 2),
        ("some make way in the end", ESTATES / 500),
        ("placed at the quota's edge", ESTATES / 8),
        ("placed with devices", ESTATES / 200),
        ("placed with two kinds of devices", ESTATES / 5_000),
        ("placed with cores", ESTATES / 200),
        ("placed with ports", ESTATES / 3),
        ("placed with disk", ESTATES / 100),
        ("placed by conditions", ESTATES / 100),
        ("placed by wishes", ESTATES / 3),
        ("placed by spreading", ESTATES / 2),
        ("placed apart", ESTATES / 8),
        ("placed together", ESTATES / 5_000),
        ("placed as private", ESTATES / 200),
        ("placed with volumes", ESTATES / 8),
        ("placed as spare", ESTATES / 8),
    ]);
}

#[test]
fn the_rule_agrees_with_the_naive_judge_on_every_host() {
    let tally = Tally::default();
    proptest!(config(), |(
        hosts in prop::collection::vec(random_host(), 1..7),
        workloads in prop::collection::vec(random_workload(), 1..5),
        later in prop::collection::vec(random_workload(), 1..4),
        boroughs in random_boroughs(),
        sites in random_sites(),
        lost in 0usize..12,
    )| {
        let estate = upset_estate(&hosts, [&workloads, &later], &boroughs, &sites, lost);
        for instance in estate.state.pending() {
            let mut fitting = 0;
            for host in estate.state.hosts().values() {
                let request = Request::of(instance);
                let misfits: Vec<_> = Candidate::new(&estate.state, host).misfits(&request).map(|misfit| misfit.filter).collect();
                let goes = would_go(&estate.state, host, instance);
                prop_assert_eq!(misfits.is_empty(), goes, "{} on {}: {:?}", instance.workload(), host.name, misfits);
                fitting += u32::from(goes);
                // Where one alone speaks against a host, the other way round of it would be seen.
                if let [only] = misfits[..] {
                    tally.note(only, true);
                }
            }
            tally.note("fits", fitting > 0);
            let told = Explainer::of(&estate.state, 0).instance(instance);
            prop_assert!(gang_of(&estate.state, instance) > 1 || told.fitting == fitting);
            prop_assert!(instance.spec().place.all_or_none || !must_wait(&estate.state, instance) || told.summary.contains("waits until"), "{}", told.summary);
        }
    });
    let filters = FILTERS.iter().map(|filter| (filter.name, ESTATES / 1_000));
    let often = [("fits", 4), ("reserved", 20), ("volume", 50), ("private", 100)]
        .map(|(what, part)| (what, ESTATES / part));
    tally.expect(&filters.chain(often).collect::<Vec<_>>());
}

/// Where many may go not all choices are looked at, but all pairs are.
#[test]
fn of_many_no_two_are_cheaper() {
    let tally = Tally::default();
    let config = ProptestConfig { cases: CROWDS, failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |(
        host in random_host().prop_map(RandomHost::large),
        workloads in prop::collection::vec(random_contender(), 8..24),
        urgent in random_contender(),
        boroughs in random_boroughs(),
        sites in random_sites(),
    )| {
        let boroughs: Vec<_> = boroughs.into_iter().map(|of| of.map(RandomAllowance::without_quota)).collect();
        let mut estate = estate_of(&[host], &workloads, &boroughs, &sites);
        estate.passes(40);
        estate.raise_level();
        // What others displace before it is its turn is not seen.
        estate.passes(40);
        let urgent = urgent.alone(9);
        hand_in(&mut estate, "urgent", &urgent);
        let before = estate.state.clone();
        let plan = estate.full_pass();
        let instance = before.instances_of(&wanted("urgent", &urgent).key()).next().unwrap();
        let host = before.hosts().values().next().unwrap();
        let is_stopping = before.instances().values().any(|other| other.desired == Desired::Stop);
        if is_stopping || before.instances_on(host.id).count() > u32::BITS as usize {
            return Ok(());
        }
        let placed = plan.placements.iter().any(|placement| placement.instance == instance.id);
        let made = plan.preemptions.iter().find(|made| made.instance == instance.id);
        let cheapest = cheapest_two_by_force(&before, host, instance);
        let is_of_many = before.instances_on(host.id).count() > MOST_BY_FORCE;
        tally.note("displacing two of many", is_of_many && made.is_some_and(|made| made.victims.len() == 2));
        tally.note("displacing more of many", is_of_many && made.is_some_and(|made| made.victims.len() > 2));
        if let Some(made) = made {
            let cost = cost_by_force(&before, made.victims.iter().map(|id| &**before.instance(*id).unwrap()));
            prop_assert!(cheapest.is_none_or(|cheapest| cost <= cheapest), "two are cheaper: {cost:?}, {cheapest:?}");
        } else {
            prop_assert!(placed || cheapest.is_none(), "two could have made way");
        }
    });
    tally.expect(&[("displacing two of many", CROWDS / 100), ("displacing more of many", CROWDS / 100)]);
}

#[test]
fn the_cheapest_make_way() {
    let tally = Tally::default();
    proptest!(config(), |(
        hosts in prop::collection::vec(random_host().prop_map(RandomHost::well), 1..4),
        workloads in prop::collection::vec(random_contender(), 1..7),
        urgent in random_contender(),
        priority in 1u32..4,
        boroughs in random_boroughs(),
        sites in random_sites(),
    )| {
        // What a quota keeps makes nobody go; that is for another test.
        let boroughs: Vec<_> = boroughs.into_iter().map(|of| of.map(RandomAllowance::without_quota)).collect();
        let mut estate = estate_of(&hosts, &workloads, &boroughs, &sites);
        estate.passes(40);
        estate.raise_level();
        let urgent = urgent.alone(priority);
        hand_in(&mut estate, "urgent", &urgent);
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
        // Of more not all choices are looked at.
        if before.hosts().keys().any(|host| before.instances_on(*host).count() > MOST_BY_FORCE) {
            return Ok(());
        }
        let cheapest = before.hosts().values().filter_map(|host| cheapest_by_force(&before, host, instance)).min();
        let is_more_urgent = |id: &InstanceId| before.instance(*id).unwrap().spec().priority >= priority;
        tally.note("placed", placed);
        tally.note("nobody could make way", !placed && made.is_none());
        tally.note("displacing", made.is_some());
        tally.note("displacing several", made.is_some_and(|made| made.victims.len() > 1));
        tally.note("displacing what is as urgent", made.is_some_and(|made| made.victims.iter().any(is_more_urgent)));
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
    });
    tally.expect(&[
        ("placed", ESTATES / 10),
        ("nobody could make way", ESTATES / 10),
        ("displacing", ESTATES / 30),
        ("displacing several", ESTATES / 200),
        ("displacing what is as urgent", ESTATES / 1_000),
    ]);
}
