//! A copy of the state to try things on: they are applied by the real `State::apply`, and a real pass places what then waits. The state itself is not
//! touched; a copy of it costs nothing.

use std::sync::Arc;

use supercloud_proto::id::UnixMillis;

use super::pass::{Limits, pass};
use crate::state::{Command, Done, Entry, HostReports, Instance, Rejection, State};

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

    /// Runs passes until one has no more to do. Each but the last places something, so there are only so many.
    pub(super) fn place_all(&mut self) {
        loop {
            let plan = pass(&self.state, self.now, Limits::default());
            let held = self.apply(Command::Place(plan.placements));
            if !plan.more || matches!(held, Err(_) | Ok(Done::Instances(0))) {
                return;
            }
        }
    }
}
