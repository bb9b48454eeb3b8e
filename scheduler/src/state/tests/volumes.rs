//! Where volumes live: from when on, until when, and who may not give them up.

use supercloud_proto::{host::HostState, id::HostId, instance::InstanceState, name::HostName};

use super::world::{World, key, mounting, service};
use crate::state::{Command, Done, HostVerdict, Rejection, State, level::KNOWN, model::EventKind};

fn forget(host: &str) -> Command {
    Command::ForgetVolumes { key: key("db"), host: HostName::new(host).unwrap() }
}

fn judge(world: &mut World, host: HostId, state: HostState) {
    world.must(Command::JudgeHosts(vec![HostVerdict { host, state, reason: String::new() }]));
}

/// Hosts by slot.
fn homes(world: &World) -> Vec<(u32, u32)> {
    let homes = world.state.homes_of(&key("db")).into_iter();
    homes.flat_map(|homes| homes.iter().map(|home| (home.slot, home.host.0))).collect()
}

const HOSTS: [HostId; 2] = [HostId(1), HostId(2)];

#[test]
fn homes_are_made_once_every_member_knows_them_and_by_what_is_placed() {
    let mut world = World::with_hosts(&["h1", "h2"]);
    world.apply_spec(&mounting("db", 2));
    world.apply_spec(&service("web", 2));
    assert_eq!(world.place_all(&HOSTS), 4, "all on one host");
    // The successor of what was lost stands for the slot.
    judge(&mut world, HOSTS[0], HostState::Lost);
    let first = world.live("db")[0];
    assert!(world.place(first, HOSTS[1]));
    assert!(world.state.homes().is_empty());
    world.must(Command::RaiseLevel { level: KNOWN });
    assert_eq!((homes(&world), world.state.homes().len()), (vec![(0, 2), (1, 1)], 1));
    let mut bytes = Vec::new();
    world.state.write(&mut bytes).unwrap();
    let read = State::read(&mut bytes.as_slice()).unwrap();
    assert_eq!((read.homes(), read.hash()), (world.state.homes(), world.state.hash()));
    let second = world.live("db")[1];
    assert!(!world.place(second, HOSTS[1]), "it waits for its own host");
    world.now += 1;
    world.apply_spec(&mounting("db", 1));
    assert_eq!(homes(&world).len(), 2, "scaled down it keeps them");
    world.must(Command::StopWorkload { key: key("db"), purge: true });
    for id in world.state.instances_of(&key("db")).map(|one| one.id).collect::<Vec<_>>() {
        world.report(id, InstanceState::Stopped);
    }
    assert_eq!((homes(&world), world.state.workload(&key("db"))), (Vec::new(), None));
}

#[test]
fn volumes_are_given_up_where_nobody_uses_them_once_for_each_request() {
    let mut world = World::with_hosts(&["h1", "h2"]);
    world.must(Command::RaiseLevel { level: KNOWN });
    world.apply_spec(&mounting("db", 1));
    assert_eq!(world.place_all(&HOSTS), 1);
    let old = world.live("db")[0];
    assert!(
        matches!(world.refused(forget("h1")), Rejection::Precondition(text) if text.contains(&old.to_string()))
    );
    for unknown in ["h2", "h3"] {
        assert!(matches!(world.refused(forget(unknown)), Rejection::NotFound(_)), "{unknown}");
    }
    judge(&mut world, HOSTS[0], HostState::Lost);
    let new = world.live("db")[0];
    assert!(!world.place(new, HOSTS[1]), "its volumes live elsewhere");
    for _ in 0..2 {
        let applied = world.entry("request-1", forget("h1"));
        assert_eq!(applied.outcome.result, Ok(Done::Nothing), "sent again it is answered again");
    }
    let told = world.events.iter().filter(|event| event.kind == EventKind::VolumesForgotten);
    let told: Vec<_> =
        told.map(|event| (event.subject.host.as_ref().unwrap().as_str(), &*event.by)).collect();
    assert_eq!(told, [("h1", "test")]);
    assert!(world.place(new, HOSTS[1]));
    assert_eq!(homes(&world), [(0, 2)]);
    // What comes back with its old host uses what is there until it is gone.
    judge(&mut world, HOSTS[0], HostState::Ready);
    world.apply_spec(&mounting("db", 2));
    let second = world.live("db")[1];
    assert!(!world.place(second, HOSTS[0]));
    world.report(old, InstanceState::Stopped);
    assert!(world.place(second, HOSTS[0]));
    judge(&mut world, HOSTS[0], HostState::Lost);
    world.must(Command::RemoveHost { name: "h1".parse().unwrap() });
    assert_eq!(homes(&world), [(0, 2)]);
}
