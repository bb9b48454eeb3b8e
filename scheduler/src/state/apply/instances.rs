//! Rules for instances: created, placed, told to stop, replaced, gone.

use std::{collections::BTreeSet, sync::Arc};

use supercloud_proto::{
    id::{InstanceId, Millis},
    instance::{Desired, InstanceState},
};

use super::{
    Step,
    telling::{Note, Text},
};
use crate::state::{
    State,
    command::{Done, Placement, Preemption},
    derived::Standing,
    fits::{Request, fits, must_wait_for},
    gang::{self, Together},
    level::FIFTH,
    model::{Awaited, Background, EventKind, Host, Instance, Placed, Workload},
    preempt::{
        gang::{is_right_on, may_be_right},
        is_right, rank,
    },
    sorted::densely,
};

/// Wait before a successor of a failed instance is placed; doubles with each failure in a row.
const FIRST_WAIT: Millis = 5_000;
/// Longest such wait: ten minutes, so that a mended cause is found out within a coffee break.
const LONGEST_WAIT: Millis = 600_000;
/// An instance that ran for so long was well: failures before it no longer count.
const LONG_ENOUGH: Millis = 600_000;

impl Step<'_> {
    /// Creates pending instances of the present revision in these slots, in their order.
    pub(super) fn create_instances(&mut self, workload: &Workload, slots: impl Iterator<Item = u32>) {
        let created: Vec<Instance> = slots.map(|slot| self.new_instance(workload, slot, None)).collect();
        densely(created).for_each(|instance| self.put(instance));
    }

    /// Puts a new instance into the state.
    fn put(&mut self, instance: Instance) {
        self.state.derived.add(&instance);
        self.state.instances.insert(instance.id, Arc::new(instance));
    }

    /// Changes an instance that is there, and keeps what is derived. Its record is copied only where a published state still has it.
    pub(super) fn change(&mut self, id: InstanceId, change: impl FnOnce(&mut Instance)) {
        let Some(record) = self.state.instances.get_mut(&id) else { return };
        let before = Standing::of(record);
        let record = Arc::make_mut(record);
        change(record);
        self.state.derived.moved(before, record);
    }

    /// Takes an instance out of the state for good.
    pub(super) fn take(&mut self, id: InstanceId, message: &str) {
        let Some(instance) = self.state.instances.remove(&id) else { return };
        self.state.derived.remove(&instance);
        let note = self.note(EventKind::InstanceGone, &instance, Text::Said(message.into()));
        self.tellings.note(note);
        if let Some(host) = instance.host() {
            self.order_changed(host);
        }
        let key = instance.workload().clone();
        self.finished.push(instance);
        self.forget_if_purged(&key);
    }

    /// A pending instance of the present revision; as a successor it knows whom it follows.
    fn new_instance(&mut self, workload: &Workload, slot: u32, follows: Option<&Instance>) -> Instance {
        let failures = follows.map_or(0, |before| failures_after(before, self.time));
        let background = Background {
            not_before: if failures == 0 { 0 } else { self.time.saturating_add(wait_after(failures)) },
            replaces: follows.map(|before| before.id),
            failures,
            ..Background::default()
        };
        let instance = Instance {
            id: self.next_id(),
            record: workload.current().clone(),
            slot,
            desired: Desired::Run,
            placed: None,
            state: InstanceState::Pending,
            order_index: self.index,
            created: self.time,
            changed: self.time,
            tasks: Box::default(),
            report_sequence: 0,
            background: background.boxed(),
        };
        let text = follows.map_or(Text::Created(slot), |before| Text::Succeeds(slot, before.id));
        let note = self.note(EventKind::InstanceCreated, &instance, text);
        self.tellings.note(note);
        instance
    }

    /// Tells an instance to stop. One that runs nowhere is gone at once.
    pub(super) fn stop_instance(&mut self, id: InstanceId, reason: &str) {
        let Some(instance) = self.state.instances.get(&id) else { return };
        if instance.desired == Desired::Stop {
            return;
        }
        let Some(host) = instance.host() else { return self.take(id, reason) };
        let reason: Arc<str> = reason.into();
        let note = self.note(EventKind::InstanceStopping, instance, Text::Said(reason.clone()));
        self.tellings.note(note);
        let index = self.index;
        self.change(id, |instance| {
            instance.desired = Desired::Stop;
            instance.order_index = index;
            instance.background.get_or_insert_default().desired_reason = reason;
        });
        self.order_changed(host);
    }

    /// Tells an instance to stop and creates its successor in the slot, if the slot is still wanted.
    pub(super) fn succeed(&mut self, before: &Instance, reason: &str) {
        self.stop_instance(before.id, reason);
        let Some(workload) = self.state.workloads.get(before.workload()).cloned() else { return };
        if before.slot < workload.wanted() {
            let successor = self.new_instance(&workload, before.slot, Some(before));
            self.put(successor);
        }
    }

    /// Places what still fits. What does not is simply still pending.
    pub(super) fn place(&mut self, mut placements: &[Placement]) -> Done {
        let mut held = 0;
        while let Some((first, others)) = placements.split_first() {
            if self.place_one(first) {
                held += 1;
                placements = others;
                continue;
            }
            let instances = placements.iter().map(|placement| placement.instance);
            let gang = gang::at_front(self.state, instances);
            held += self.place_gang(&placements[..gang]);
            placements = &placements[gang.max(1)..];
        }
        Done::Instances(held as u32)
    }

    /// Places all of a gang, or none of it. Says how many.
    fn place_gang(&mut self, placements: &[Placement]) -> usize {
        let instances = || placements.iter().map(|placement| placement.instance);
        let first = placements.first().and_then(|first| self.state.instances.get(&first.instance));
        let together = Together::of(self.state, instances());
        let is_let_in = first.is_some_and(|first| self.state.excesses_with(first, together).is_empty());
        if !is_let_in || !gang::is_whole(self.state, instances(), self.time) {
            return 0;
        }
        let places_all =
            |step: &mut Self| placements.iter().all(|placement| step.take_host(placement, |_, _| true));
        if self.all_or_nothing(places_all) { placements.len() } else { 0 }
    }

    /// Does all of something, or leaves everything as it was. Says which.
    fn all_or_nothing(&mut self, does_all: impl FnOnce(&mut Self) -> bool) -> bool {
        let (state, told) = (self.state.clone(), self.tellings.len());
        let is_done = does_all(self);
        if !is_done {
            *self.state = state;
            self.tellings.forget_since(told);
        }
        is_done
    }

    /// Places an instance that is of no gang.
    fn place_one(&mut self, placement: &Placement) -> bool {
        self.take_host(placement, |state, instance| {
            !instance.spec().place.all_or_none
                && state.excesses_with(instance, Together::alone(instance)).is_empty()
        })
    }

    /// Places an instance that may have a host, if it still fits.
    fn take_host(&mut self, placement: &Placement, may: impl Fn(&State, &Instance) -> bool) -> bool {
        let Some(instance) = self.state.instances.get(&placement.instance) else { return false };
        let Some(host) = self.state.hosts.get(&placement.host) else { return false };
        let request = Request::of(instance).as_placed(placement);
        let may_have_a_host = self.waits_only_for_a_host(instance) && may(self.state, instance);
        if !may_have_a_host || fits(self.state, host, &request).is_err() {
            return false;
        }
        let mounts = request.spec.has_volumes();
        let devices = placement.devices.clone().into_boxed_slice();
        let cores = placement.cores.clone();
        let placed = Placed { host: host.id, ports: placement.ports.clone(), taken: request.demand };
        let note = Note::new(EventKind::InstancePlaced, instance, Some(host.name.clone()), Text::Placed);
        self.tellings.note(note);
        let (index, time) = (self.index, self.time);
        self.change(placement.instance, |instance| {
            instance.placed = Some(placed);
            instance.state = InstanceState::Placed;
            instance.set_state_reason("");
            instance.set_devices(devices);
            instance.set_cores(cores);
            instance.set_awaited(None);
            instance.order_index = index;
            instance.changed = time;
        });
        self.order_changed(placement.host);
        if mounts {
            self.move_in(placement.instance);
        }
        true
    }

    /// Whether an instance waits for a host, and not for who holds its slot.
    fn waits_only_for_a_host(&self, instance: &Instance) -> bool {
        instance.is_pending() && must_wait_for(self.state, instance).is_none()
    }

    /// Lets instances make way for more urgent ones, where that is still right.
    pub(super) fn preempt(&mut self, mut preemptions: &[Preemption]) -> Done {
        let mut held = 0;
        while let Some((first, others)) = preemptions.split_first() {
            let making = preemptions.iter().take_while(|preemption| preemption.host.is_some());
            let gang = gang::at_front(self.state, making.map(|preemption| preemption.instance));
            held += match gang {
                0 => usize::from(self.preempt_one(first)),
                _ => self.preempt_for_gang(&preemptions[..gang]),
            };
            preemptions = if gang == 0 { others } else { &preemptions[gang..] };
        }
        Done::Instances(held as u32)
    }

    /// Lets instances make way for all of a gang, or for none of it. Says for how many.
    fn preempt_for_gang(&mut self, preemptions: &[Preemption]) -> usize {
        if !may_be_right(self.state, preemptions, self.time) {
            return 0;
        }
        let in_all = Preemption::victims_of(preemptions).count();
        let Some(rank) = self.rank_of(preemptions) else { return 0 };
        let gang = preemptions.iter().map(|preemption| preemption.instance).collect();
        let makes_all_way = |step: &mut Self| {
            let mut by_host = preemptions.chunk_by(|one, other| one.host == other.host);
            by_host.all(|to_host| step.make_way_for(to_host, &gang, rank, in_all))
        };
        if self.all_or_nothing(makes_all_way) { preemptions.len() } else { 0 }
    }

    /// The rank with which the first of these waits for instances to make way.
    fn rank_of(&self, preemptions: &[Preemption]) -> Option<u32> {
        let first = self.state.instance(preemptions.first()?.instance)?;
        let victims: Vec<_> = self.state.instances_by(Preemption::victims_of(preemptions)).collect();
        let victims = victims.iter().map(|victim| victim.as_ref());
        let together = Together::of(self.state, preemptions.iter().map(|preemption| preemption.instance));
        Some(rank(&Request::of(first), together, victims, &*self.state, self.state.level()))
    }

    /// Lets those make way for a part of a gang that are on the host to which it is to go; of the gang so many make way in all.
    fn make_way_for(
        &mut self,
        preemptions: &[Preemption],
        gang: &BTreeSet<InstanceId>,
        rank: u32,
        in_all: usize,
    ) -> bool {
        let host = preemptions.first().and_then(|first| self.state.host(first.host?)).cloned();
        let Some(host) = host.filter(|host| is_right_on(self.state, host, preemptions, gang)) else {
            return false;
        };
        let there = preemptions.iter().map(|preemption| preemption.victims.len()).sum::<usize>();
        let text = match there {
            0 => {
                format!("waits with its gang, for which {in_all} stop; room is kept for it on {}", host.name)
            }
            _ => format!("waits with its gang, for which {in_all} stop, {there} of them on {}", host.name),
        };
        for preemption in preemptions {
            self.await_room(preemption, Awaited { host: host.id, rank }, &host, text.clone());
        }
        true
    }

    fn preempt_one(&mut self, preemption: &Preemption) -> bool {
        let Some(instance) = self.state.instances.get(&preemption.instance) else { return false };
        let Some(host) = preemption.host else { return self.end_waiting(preemption) };
        let Some(host) = self.state.hosts.get(&host) else { return false };
        // From the fifth level on what is beyond its borough's quota may displace others for that; whether it does is part of what is right.
        let is_let_in = self.state.level() >= FIFTH
            || self.state.excesses_with(instance, Together::alone(instance)).is_empty();
        if !self.waits_only_for_a_host(instance) || !is_let_in || !is_right(self.state, host, preemption) {
            return false;
        }
        let host = host.clone();
        let Some(rank) = self.rank_of(std::slice::from_ref(preemption)) else { return false };
        let text = self.awaits(&host, preemption);
        self.await_room(preemption, Awaited { host: host.id, rank }, &host, text);
        true
    }

    /// Keeps room for an instance on a host, and tells those to stop that make way for it.
    fn await_room(&mut self, preemption: &Preemption, awaited: Awaited, host: &Host, text: String) {
        let Some(instance) = self.state.instances.get(&preemption.instance) else { return };
        let own = (self.state.level() >= FIFTH).then(|| instance.workload().borough.clone());
        let is_urgent = awaited.rank == instance.spec().priority;
        let reason = |victim: &Instance| match () {
            () if own.as_ref() == Some(&victim.workload().borough) => {
                "makes way for more urgent work of its borough"
            }
            () if is_urgent => "makes way for more urgent work",
            () => "makes way for what is guaranteed to another borough",
        };
        let (kind, name) = (EventKind::InstanceAwaiting, Some(host.name.clone()));
        let note = Note::new(kind, instance, name, Text::Said(text.into()));
        self.tellings.note(note);
        self.change(preemption.instance, |instance| instance.set_awaited(Some(awaited)));
        for victim in &preemption.victims {
            let Some(victim) = self.state.instances.get(victim).cloned() else { continue };
            self.succeed(&victim, reason(&victim));
        }
    }

    /// For what an instance waits on a host.
    fn awaits(&self, host: &Host, preemption: &Preemption) -> String {
        let victims = self.state.instances_by(preemption.victims.iter().copied());
        let there = victims.filter(|victim| victim.host() == Some(host.id)).count();
        let name = &host.name;
        match (there, preemption.victims.len() - there) {
            (_, 0) => format!("waits for room on {name}, where {there} stop for it"),
            (0, elsewhere) => {
                format!(
                    "waits to go to {name} until its borough's quota has room, for which {elsewhere} stop"
                )
            }
            (_, elsewhere) => format!(
                "waits for room on {name}, where {there} stop for it, and in its borough's quota, for which {elsewhere} stop elsewhere"
            ),
        }
    }

    /// Keeps no room any more for an instance that waits.
    fn end_waiting(&mut self, preemption: &Preemption) -> bool {
        let id = preemption.instance;
        let awaited = self.state.instances.get(&id).and_then(|instance| instance.awaited_host());
        let is_awaited = awaited.is_some() && awaited == preemption.before;
        if is_awaited {
            self.change(id, |instance| instance.set_awaited(None));
        }
        is_awaited
    }

    /// One step of a rollout. Instances that are of the present revision, or told to stop, are passed over.
    pub(super) fn replace(&mut self, instances: &[InstanceId], reason: &str) -> Done {
        let mut replaced = 0;
        for id in instances {
            let Some(instance) = self.state.instances.get(id).cloned() else { continue };
            let Some(workload) = self.state.workloads.get(instance.workload()) else { continue };
            if instance.desired == Desired::Run && instance.revision() != workload.current().revision {
                self.succeed(&instance, reason);
                replaced += 1;
            }
        }
        Done::Instances(replaced)
    }
}

/// Failures in a row that a successor starts with.
fn failures_after(before: &Instance, now: u64) -> u32 {
    if before.state != InstanceState::Failed {
        return 0;
    }
    let well = before.tasks.iter().all(|task| {
        let end = task.finished().unwrap_or(now);
        task.started().is_some_and(|start| end.saturating_sub(start) >= LONG_ENOUGH)
    });
    if well && !before.tasks.is_empty() { 1 } else { before.failures().saturating_add(1) }
}

/// Wait before a successor after so many failures in a row, at least one.
fn wait_after(failures: u32) -> Millis {
    let doublings = failures.saturating_sub(1).min(16);
    (FIRST_WAIT << doublings).min(LONGEST_WAIT)
}
