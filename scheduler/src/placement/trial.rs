//! A copy of the state to try things on: they are applied by the real `State::apply`, and a real pass places what then waits. The state itself is not
//! touched; a copy of it costs nothing.

use std::sync::Arc;

use supercloud_proto::{
    id::{InstanceId, UnixMillis},
    instance::Desired,
};

use super::pass::{Engine, Limits};
use crate::state::{Command, Done, Entry, HostReports, Instance, Preemption, Rejection, State};

/// Who applies in a copy of the state.
const BY: &str = "trial";

/// The copy, and the time.
pub(super) struct Trial {
    pub(super) state: State,
    pub(super) now: UnixMillis,
}

impl Trial {
    pub(super) fn of(state: &State, now: UnixMillis) -> Self {
        Self { state: state.clone(), now }
    }

    pub(super) fn apply(&mut self, command: Command) -> Result<Done, Rejection> {
        let entry = Entry { time: self.now, by: BY.to_owned(), request_id: String::new(), command };
        self.state.apply(self.state.applied() + 1, &entry).outcome.result
    }

    /// Lets the hosts of these instances say that they are gone.
    pub(super) fn let_go<'a>(&mut self, instances: impl Iterator<Item = &'a Arc<Instance>>) {
        for HostReports { host, reports } in HostReports::of_stopped(instances, self.now) {
            // Only a host that does not exist is rejected, and then nothing of it was taken either.
            let _done = self.apply(Command::Report { host, reports });
        }
    }

    /// Runs passes until one does nothing, and lets what makes way be gone at once. Each but the last places something, or lets something less urgent go that
    /// did not before, so there are only so many. Gives what made way, as it was, with that for which it did.
    pub(super) fn place_all(&mut self) -> Vec<(InstanceId, Arc<Instance>)> {
        let (mut displaced, mut engine) = (Vec::new(), Engine::new(&self.state));
        loop {
            let plan = engine.pass(&self.state, self.now, Limits::default());
            let placed = self.held(Command::Place(plan.placements));
            let mut gone = Vec::new();
            for Preemption { instance, victims, .. } in &plan.preemptions {
                let victims = victims.iter().filter_map(|id| self.state.instance(*id));
                gone.extend(victims.map(|victim| (*instance, victim.clone())));
            }
            let made_way = self.held(Command::Preempt(plan.preemptions));
            // What was refused goes on as it is.
            gone.retain(|(_, victim)| {
                self.state.instance(victim.id).is_some_and(|now| now.desired == Desired::Stop)
            });
            self.let_go(gone.iter().map(|(_, victim)| victim));
            displaced.append(&mut gone);
            // Whether there is more to do is for the next to say: what it knows only now may let others in.
            if placed + made_way == 0 {
                return displaced;
            }
        }
    }

    /// How many instances a command applied to; none where it was refused.
    fn held(&mut self, command: Command) -> u32 {
        match self.apply(command) {
            Ok(Done::Instances(held)) => held,
            _ => 0,
        }
    }
}
