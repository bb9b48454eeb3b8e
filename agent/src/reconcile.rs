//! What to do next on this host: a pure function of the orders, of what the runtimes show, of what happened before, of the lease and of
//! the time. It must not know any runtime, network, store or clock.
//!
//! Decisions:
//! - *Only an order for that very instance stops or removes anything* (I6). An object without an order is left alone and reported as it
//!   is. An order older than the one that made the object is too old to be obeyed.
//! - *Silence is not death.* A driver that does not answer hides its objects; nothing is started or stopped there, and after a while the
//!   instance is called unknown.
//! - *One action at a time for an instance*, and none while the last listing is older than its last action (the loop says so with
//!   [`Doing::Settling`]). So nothing is decided from a stale picture, and nothing is started twice.
//! - *An end is counted once*, by a small history for each task ([`history`]) that survives the agent.
//! - *Whoever has cores of his own is alone on them* (`pins`).
//! - *Over is over.* Completed and failed are final for an instance: the scheduler has given its resources to others by then. What still
//!   runs of a failed instance is stopped, and kept for its logs until a stop order comes.

use std::{collections::BTreeMap, sync::Arc};

use supercloud_proto::{
    id::{InstanceId, LogIndex, Millis, UnixMillis},
    instance::{InstanceState, TaskStatus},
    name::TaskName,
    order::Order,
    spec::DriverKind,
};

use crate::driver::{Owner, Phase, Pin, Seen, TaskRun};

pub mod history;
mod instance;
mod lease;
mod pins;
#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) mod world;

use history::TaskHistory;
pub use lease::Lease;
use pins::Pins;

/// A driver's silence lasts this long before its instances are called unknown: longer than a restart of dockerd takes.
pub const UNKNOWN_AFTER: Millis = 15_000;
/// Most time that a stop may take when the lease has run out: the scheduler's margin must be longer.
pub const LEASE_STOP_GRACE: Millis = 5_000;

/// This moment on both clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// The world's clock: for what is told and kept; may jump.
    pub unix: UnixMillis,
    /// Time since the machine booted, sleep included: for leases and waits; never jumps.
    pub boot: Millis,
}

/// What a driver shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sight {
    /// All that bears this agent's mark.
    Seen(Vec<Seen>),
    /// It does not answer: nothing is known.
    Silent {
        /// Since when, by the boot clock.
        since: Millis,
        /// What it said last.
        reason: String,
    },
}

/// What is being done for an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doing {
    /// A task's image or disks are made ready. May be broken off.
    Preparing,
    /// A task is started.
    Starting,
    /// Tasks are stopped.
    Stopping,
    /// Objects are removed.
    Removing,
    /// Objects are told on which processors they may run.
    Pinning,
    /// The last action is over, and no listing is newer yet, or a failed one is not to be repeated at once.
    Settling,
}

/// Histories of all tasks.
pub type Histories = BTreeMap<InstanceId, BTreeMap<TaskName, TaskHistory>>;

/// All that a decision rests on.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    /// Whose marks new objects bear.
    pub owner: &'a Owner,
    /// What is wanted, by instance.
    pub orders: &'a BTreeMap<InstanceId, Arc<Order>>,
    /// What each driver of this host shows.
    pub sights: &'a BTreeMap<DriverKind, Sight>,
    /// What happened before.
    pub histories: &'a Histories,
    /// What is being done.
    pub in_flight: &'a BTreeMap<InstanceId, Doing>,
    /// The lease of exclusive instances.
    pub lease: Lease,
    /// The processors of the host, ascending; none where they are not known.
    pub cpus: &'a [u16],
    /// Whether what never ran here may be started: not in the first moments of an agent that has not heard the scheduler yet.
    pub may_begin: bool,
    /// The time.
    pub now: Now,
}

/// An object, and the driver that showed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// The driver.
    pub kind: DriverKind,
    /// What it showed.
    pub seen: Seen,
}

/// One thing to do. For one instance there is at most one in a plan.
#[derive(Debug, Clone)]
pub enum Action {
    /// Make ready and start a task.
    Start {
        /// What.
        run: TaskRun,
        /// Whether it counts as a restart.
        counted: bool,
    },
    /// Stop these objects of the instance, side by side.
    Stop {
        /// Instance.
        instance: InstanceId,
        /// Objects.
        objects: Vec<Object>,
        /// Time to end by themselves.
        grace: Millis,
    },
    /// Let these running objects of the instance run on these processors and no others.
    Pin {
        /// Instance.
        instance: InstanceId,
        /// Objects.
        objects: Vec<Object>,
        /// Processors.
        pin: Pin,
    },
    /// Remove these objects of the instance.
    Remove {
        /// Instance.
        instance: InstanceId,
        /// Objects.
        objects: Vec<Object>,
    },
}

impl Action {
    /// The instance it is about.
    pub fn instance(&self) -> InstanceId {
        match self {
            Self::Start { run, .. } => run.mark.instance,
            Self::Stop { instance, .. } | Self::Pin { instance, .. } | Self::Remove { instance, .. } => {
                *instance
            }
        }
    }

    /// What is being done while it goes on; a start begins with its preparation.
    pub fn doing(&self) -> Doing {
        match self {
            Self::Start { .. } => Doing::Preparing,
            Self::Stop { .. } => Doing::Stopping,
            Self::Pin { .. } => Doing::Pinning,
            Self::Remove { .. } => Doing::Removing,
        }
    }
}

/// What is to be said of one instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// Index of the order acted on.
    pub order_index: LogIndex,
    /// Its state.
    pub state: InstanceState,
    /// Why, in words that do not change while the state does not.
    pub reason: String,
    /// Its tasks.
    pub tasks: Vec<TaskStatus>,
    /// Found without an order.
    pub unordered: bool,
}

/// What to do, to keep and to say.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// To do, by instance.
    pub actions: Vec<Action>,
    /// Preparations to break off.
    pub cancels: Vec<InstanceId>,
    /// Histories that changed. To be kept before the actions are begun.
    pub histories: Vec<(InstanceId, TaskName, TaskHistory)>,
    /// What is to be said. An instance that is left out keeps what was said last.
    pub states: BTreeMap<InstanceId, Status>,
    /// Look again after this long, whatever happens.
    pub wake_in: Option<Millis>,
}

impl Plan {
    /// Looks again after `wait` at the latest.
    fn wake(&mut self, wait: Millis) {
        self.wake_in = Some(self.wake_in.map_or(wait, |other| other.min(wait)));
    }
}

/// Decides. See the head of this module.
pub fn reconcile(input: &Input<'_>) -> Plan {
    let mut seen = by_instance(input.sights);
    let mut plan = Plan::default();
    let ordered: Vec<_> = input
        .orders
        .values()
        .map(|order| (order, seen.remove(&order.instance).unwrap_or_default()))
        .collect();
    let pins = Pins::of(input, ordered.iter().map(|(order, objects)| (&***order, objects.as_slice())));
    for (order, objects) in &ordered {
        instance::decide(input, order, objects, &pins, &mut plan);
        pins.put_right(input, order, objects, &mut plan);
    }
    for (id, objects) in seen {
        if !input.in_flight.contains_key(&id) {
            plan.states.insert(id, unordered(&objects));
        }
    }
    plan
}

fn by_instance(sights: &BTreeMap<DriverKind, Sight>) -> BTreeMap<InstanceId, Vec<(DriverKind, &Seen)>> {
    let mut all: BTreeMap<InstanceId, Vec<(DriverKind, &Seen)>> = BTreeMap::new();
    for (kind, sight) in sights {
        if let Sight::Seen(objects) = sight {
            for object in objects {
                all.entry(object.mark.instance).or_default().push((*kind, object));
            }
        }
    }
    all
}

/// What is said of an instance that nobody ordered: what is there.
fn unordered(objects: &[(DriverKind, &Seen)]) -> Status {
    let tasks: Vec<_> = objects.iter().map(|(_, seen)| unordered_task(seen)).collect();
    let rank = |state: InstanceState| match state {
        InstanceState::Running => 2,
        InstanceState::Failed => 1,
        _ => 0,
    };
    let state =
        tasks.iter().map(|task| task.state).max_by_key(|state| rank(*state)).unwrap_or(InstanceState::Failed);
    Status {
        order_index: objects.iter().map(|(_, seen)| seen.mark.order_index).max().unwrap_or(0),
        state,
        reason: "there is no order for it; left alone".to_owned(),
        tasks,
        unordered: true,
    }
}

fn unordered_task(seen: &Seen) -> TaskStatus {
    let mut status = TaskStatus {
        name: seen.mark.task.clone(),
        state: InstanceState::Running,
        runtime_id: seen.runtime_id.clone(),
        started: None,
        finished: None,
        exit_code: None,
        restarts: 0,
        reason: String::new(),
    };
    match &seen.phase {
        Phase::Created => {
            status.state = InstanceState::Failed;
            "made, never started".clone_into(&mut status.reason);
        }
        Phase::Running { since } => status.started = *since,
        Phase::Ended { exit_code, at, reason } => {
            let well = *exit_code == Some(0);
            status.state = if well { InstanceState::Completed } else { InstanceState::Failed };
            status.finished = *at;
            status.exit_code = *exit_code;
            status.reason.clone_from(reason);
        }
    }
    status
}
