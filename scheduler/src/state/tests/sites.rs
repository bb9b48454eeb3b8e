//! Policies of sites: changed field by field, told, refused where they cannot be, and what is given away of hosts counted by them.

use supercloud_proto::{
    amount::MilliCpu,
    id::HostId,
    spec::{Class, WorkloadSpec},
};

use super::{
    checker::check,
    world::{World, inventory, service},
};
use crate::state::{Change, Command, Done, Packing, Rejection, SiteChange, SitePolicy, State};

fn set(change: SiteChange) -> Command {
    Command::SetSite { name: "site-h1".parse().unwrap(), change }
}

fn standard(percent: u32) -> Command {
    set(SiteChange { standard_cpu_percent: Some(percent), ..SiteChange::default() })
}

fn of_class(name: &str, count: u32, cpu: u64, class: Class) -> WorkloadSpec {
    let mut spec = service(name, count);
    spec.resources.cpu = MilliCpu(cpu);
    spec.class = class;
    spec
}

fn cpu(state: &State, host: HostId) -> u64 {
    state.used(host).taken.cpu.0
}

#[test]
fn only_what_is_given_changes_and_an_event_says_what() {
    let mut world = World::with_hosts(&[]);
    let all = SiteChange {
        standard_cpu_percent: Some(200),
        packing: Some(Packing::Spread),
        cost: Some(1_000),
        ..SiteChange::default()
    };
    assert_eq!(world.must(set(all)), Done::Applied(Change::Updated), "it has no host yet");
    let told = world.events.last().unwrap().clone();
    assert_eq!(told.kind.as_str(), "site-changed");
    assert_eq!(
        told.message,
        "site site-h1: standard_cpu_percent from 100 to 200, packing from pack to spread, cost from 0 to 1000"
    );
    let events = world.events.len();
    assert_eq!(world.must(set(all)), Done::Applied(Change::Unchanged));
    assert_eq!(world.events.len(), events, "nothing happened");
    let expected = SitePolicy {
        standard_cpu_percent: 200,
        packing: Packing::Spread,
        cost: 1_000,
        ..SitePolicy::default()
    };
    assert_eq!(world.state.policy_of(&"site-h1".parse().unwrap()), expected);
    let mut bytes = Vec::new();
    world.state.write(&mut bytes).unwrap();
    assert_eq!(State::read(&mut bytes.as_slice()).unwrap().sites(), world.state.sites());
}

#[test]
fn what_cannot_be_is_refused_with_field_expectation_and_value() {
    let mut world = World::with_hosts(&[]);
    let change = SiteChange {
        standard_cpu_percent: Some(99),
        spare_cpu_percent: Some(1_001),
        cost: Some(1_001),
        packing: None,
    };
    let Rejection::Invalid(problems) = world.refused(set(change)) else { panic!("refused otherwise") };
    let told: Vec<String> = problems.iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        [
            "change.standard_cpu_percent: expected 100 to 1000, found 99",
            "change.spare_cpu_percent: expected 100 to 1000, found 1001",
            "change.cost: expected 0 to 1000, found 1001"
        ]
    );
    assert!(world.state.sites().is_empty());
}

#[test]
fn a_host_gives_away_what_its_site_says_and_a_tightened_policy_stops_nothing() {
    let mut world = World::with_hosts(&["h1"]);
    let hosts: Vec<HostId> = world.state.hosts().keys().copied().collect();
    world.apply_spec(&of_class("web", 6, 1_000, Class::Standard));
    world.apply_spec(&of_class("firm", 3, 1_000, Class::Guaranteed));
    assert_eq!(world.place_all(&hosts), 4, "four cores");
    world.must(standard(300));
    check(&world.state);
    assert_eq!(cpu(&world.state, hosts[0]), 4 * 334);
    assert_eq!(world.place_all(&hosts), 3, "two more standard ones, and one of those that take a core each");
    assert_eq!(cpu(&world.state, hosts[0]), 6 * 334 + 1_000);
}

#[test]
fn what_is_counted_by_a_policy_is_found_again_in_a_snapshot() {
    let mut world = World::with_hosts(&["h1"]);
    let hosts: Vec<HostId> = world.state.hosts().keys().copied().collect();
    world.must(standard(250));
    world.apply_spec(&of_class("web", 8, 1_000, Class::Standard));
    assert_eq!(world.place_all(&hosts), 8);
    world.must(standard(150));
    check(&world.state);
    assert_eq!(cpu(&world.state, hosts[0]), 8 * 667, "more than it has, and they stay");
    assert_eq!(
        world.state.taken_by(&"camden".parse().unwrap()).cpu.0,
        8_000,
        "quotas go by what was asked for"
    );
    let mut bytes = Vec::new();
    world.state.write(&mut bytes).unwrap();
    let restored = State::read(&mut bytes.as_slice()).unwrap();
    check(&restored);
    assert_eq!(restored.used(hosts[0]), world.state.used(hosts[0]));
    assert_eq!(restored.hash(), world.state.hash());
}

#[test]
fn a_host_that_moves_is_counted_by_the_policy_of_where_it_then_stands() {
    let mut world = World::with_hosts(&["h1"]);
    let hosts: Vec<HostId> = world.state.hosts().keys().copied().collect();
    world.must(standard(200));
    world.apply_spec(&of_class("web", 4, 1_000, Class::Standard));
    assert_eq!(world.place_all(&hosts), 4);
    let register = |site: &str| Command::RegisterHost {
        name: "h1".parse().unwrap(),
        inventory: Box::new(inventory(site)),
        incarnation: "inc-h1".to_owned(),
    };
    world.must(register("elsewhere"));
    check(&world.state);
    assert_eq!(cpu(&world.state, hosts[0]), 4_000);
    world.must(register("site-h1"));
    check(&world.state);
    assert_eq!(cpu(&world.state, hosts[0]), 2_000);
}

#[test]
fn a_site_as_it_always_was_has_the_bytes_that_it_always_had() {
    let mut world = World::with_hosts(&["h1"]);
    let before = world.state.hash();
    let index = world.state.applied();
    world.must(standard(101));
    assert_ne!(world.state.hash(), before);
    world.must(standard(100));
    check(&world.state);
    world.state.skip(index);
    assert_eq!(world.state.hash(), before, "what older versions do not know is not written");
}
