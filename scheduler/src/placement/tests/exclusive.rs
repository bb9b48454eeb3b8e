//! An exclusive instance is not placed while another one may still run in its slot.

use supercloud_proto::instance::InstanceState;

use crate::{
    placement::{Explainer, Limits, pass},
    state::{
        Command,
        tests::world::{World, service},
    },
};

#[test]
fn the_pass_waits_until_the_slot_is_free_and_says_so() {
    let mut world = World::with_hosts(&["h1", "h2"]);
    let mut spec = service("records", 1);
    spec.exclusive = Some(true);
    world.apply_spec(&spec);
    let placements = |world: &World| pass(&world.state, world.now, Limits::default()).placements;
    let first = placements(&world);
    world.must(Command::Place(first));
    let old = world.live("records")[0];
    world.report(old, InstanceState::Running);
    spec.priority += 1;
    world.apply_spec(&spec);
    world.must(Command::Replace { instances: vec![old], reason: "rollout".to_owned() });
    let new = world.live("records")[0];
    assert_eq!(placements(&world), []);
    let why = Explainer::of(&world.state, world.now).instance(world.state.instance(new).unwrap()).summary;
    assert!(why.contains(&format!("waits until {old} has stopped")), "{why}");
    world.report(old, InstanceState::Stopped);
    assert_eq!(placements(&world).len(), 1);
}
