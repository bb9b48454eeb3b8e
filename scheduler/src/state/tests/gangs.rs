//! Others make way for all of a gang or for none of it, whoever proposes what.

use supercloud_proto::{
    amount::MilliCpu,
    id::{HostId, InstanceId},
    instance::{Desired, InstanceState},
};

use super::world::{World, service};
use crate::state::{
    BoroughChange, Command, Done, Placement, Preemption,
    level::{FIFTH, SIXTH},
    model::Ports,
};

/// Two hosts that two of a batch each have to themselves, and a gang of three that waits, of which each needs half a host.
struct Scene {
    world: World,
    hosts: Vec<HostId>,
    batch: Vec<InstanceId>,
    gang: Vec<InstanceId>,
}

impl Scene {
    fn at(level: u32) -> Self {
        let mut world = World::with_hosts(&["h1", "h2"]);
        world.must(Command::RaiseLevel { level });
        let hosts: Vec<HostId> = world.state.hosts().keys().copied().collect();
        let half = MilliCpu(world.state.hosts()[&hosts[0]].inventory.allocatable().cpu.0 / 2);
        let mut apply = |name: &str, count: u32, priority: u32, all_or_none: bool| -> Vec<InstanceId> {
            let mut spec = service(name, count);
            (spec.priority, spec.resources.cpu, spec.place.all_or_none) = (priority, half, all_or_none);
            world.apply_spec(&spec);
            world.state.instances_of(&spec.key()).map(|instance| instance.id).collect()
        };
        let (batch, gang) = (apply("batch", 4, 10, false), apply("ring", 3, 80, true));
        for (place, id) in batch.iter().enumerate() {
            assert!(world.place(*id, hosts[place / 2]));
        }
        Self { world, hosts, batch, gang }
    }

    /// Room for one of the gang on a host, for which these of the batch stop.
    fn room(&self, member: usize, host: usize, victims: &[usize]) -> Preemption {
        let instance = self.gang[member];
        let before = self.world.state.instance(instance).unwrap().awaited_host();
        let victims = victims.iter().map(|victim| self.batch[*victim]).collect();
        Preemption { instance, before, host: Some(self.hosts[host]), victims }
    }

    /// The same for each of three of the gang: on the first host for two of them, on the second for one.
    fn rooms(&self) -> Vec<Preemption> {
        vec![self.room(0, 0, &[0, 1]), self.room(1, 0, &[]), self.room(2, 1, &[2])]
    }

    /// Says for how many of it others make way; where that is nobody, nothing is other than before.
    fn displace(&mut self, preemptions: Vec<Preemption>) -> u32 {
        let (before, events) = (self.world.state.clone(), self.world.events.len());
        let Done::Instances(held) = self.world.must(Command::Preempt(preemptions)) else { panic!() };
        if held == 0 {
            let index = self.world.state.applied();
            let mut same = before;
            same.skip(index);
            assert_eq!(self.world.state.hash(), same.hash(), "something was left of it");
            assert_eq!(self.world.events.len(), events);
        }
        held
    }

    /// Gives all of the gang the hosts on which room is kept for them. Says how many that are.
    fn place(&mut self) -> u32 {
        let on = |id: &InstanceId| Placement {
            instance: *id,
            host: self.world.state.instance(*id).unwrap().awaited_host().unwrap(),
            ports: Ports::default(),
            devices: Vec::new(),
            cores: None,
        };
        let placements = self.gang.iter().map(on).collect();
        let Done::Instances(held) = self.world.must(Command::Place(placements)) else { panic!() };
        held
    }

    fn stopping(&self) -> usize {
        let all = self.world.state.instances().values();
        all.filter(|instance| instance.desired == Desired::Stop).count()
    }
}

#[test]
fn others_make_way_for_all_of_a_gang_or_for_none() {
    let mut scene = Scene::at(SIXTH);
    let parts = scene.rooms();
    for missing in 0..3 {
        let mut fewer = parts.clone();
        fewer.remove(missing);
        assert_eq!(scene.displace(fewer), 0, "{missing} is missing");
    }
    let wrong: [(&str, Vec<Preemption>); 7] = [
        ("one too many goes", vec![parts[0].clone(), parts[1].clone(), scene.room(2, 1, &[2, 3])]),
        ("one too few goes", vec![scene.room(0, 0, &[0]), parts[1].clone(), parts[2].clone()]),
        ("one goes twice", vec![scene.room(0, 0, &[0, 1]), scene.room(1, 0, &[0]), parts[2].clone()]),
        ("one is on another host", vec![scene.room(0, 0, &[0, 2]), parts[1].clone(), scene.room(2, 1, &[1])]),
        (
            "one of it comes twice",
            vec![parts[0].clone(), parts[0].clone(), parts[1].clone(), parts[2].clone()],
        ),
        ("all on one host", vec![parts[0].clone(), parts[1].clone(), scene.room(2, 0, &[])]),
        ("a host comes twice", vec![scene.room(0, 0, &[0]), parts[2].clone(), scene.room(1, 0, &[1])]),
    ];
    for (what, preemptions) in wrong {
        assert_eq!(scene.displace(preemptions), 0, "{what}");
    }
    let mut of_another_time = parts.clone();
    of_another_time[1].before = Some(scene.hosts[1]);
    assert_eq!(scene.displace(of_another_time), 0, "room was not kept there");

    assert_eq!(scene.displace(parts.clone()), 3);
    assert_eq!(scene.stopping(), 3);
    let kept: Vec<_> = scene
        .gang
        .iter()
        .map(|id| scene.world.state.instance(*id).unwrap().awaited_host().unwrap())
        .collect();
    assert_eq!(kept, [scene.hosts[0], scene.hosts[0], scene.hosts[1]]);
    assert_eq!(scene.displace(parts), 0, "a second time it is not right any more");
    for place in 0..3 {
        let victim = scene.batch[place];
        assert_eq!(scene.place(), 0, "{victim} is there");
        scene.world.report(victim, InstanceState::Stopped);
    }
    assert_eq!(scene.place(), 3);
}

#[test]
fn nobody_makes_way_for_a_gang_before_every_member_knows_it_or_beyond_its_quota() {
    let mut scene = Scene::at(FIFTH);
    let parts = scene.rooms();
    assert_eq!(scene.displace(parts.clone()), 0, "not every member knows it");
    scene.world.must(Command::RaiseLevel { level: SIXTH });
    let taken = scene.world.state.taken_by(&"camden".parse().unwrap()).cpu.0;
    let change = BoroughChange { quota_cpu: Some(Some(MilliCpu(taken))), ..BoroughChange::default() };
    scene.world.must(Command::SetBorough { name: "camden".parse().unwrap(), change });
    assert_eq!(scene.displace(parts.clone()), 0, "its borough's quota does not let it in");
    let change = BoroughChange { quota_cpu: Some(None), ..BoroughChange::default() };
    scene.world.must(Command::SetBorough { name: "camden".parse().unwrap(), change });
    assert_eq!(scene.displace(parts), 3);
}

#[test]
fn who_joins_a_gang_that_waits_makes_it_another_one() {
    let mut scene = Scene::at(SIXTH);
    let parts = scene.rooms();
    assert_eq!(scene.displace(parts), 3);
    let key = service("ring", 4).key();
    scene.world.must(Command::ScaleWorkload { key: key.clone(), count: 4 });
    scene.gang = scene.world.state.instances_of(&key).map(|instance| instance.id).collect();
    let old: Vec<Preemption> = scene.rooms();
    assert_eq!(scene.displace(old), 0, "one has joined");
    let more =
        vec![scene.room(0, 0, &[]), scene.room(1, 0, &[]), scene.room(2, 1, &[3]), scene.room(3, 1, &[])];
    assert_eq!(scene.displace(more), 4, "what is stopping counts as gone");
    assert_eq!(scene.stopping(), 4);
}
