//! The decision for one ordered instance. See the head of `reconcile`.

use std::{collections::BTreeMap, sync::Arc};

use supercloud_proto::{
    id::Millis,
    instance::{Desired, InstanceState, TaskStatus},
    name::TaskName,
    order::Order,
    spec::{DriverKind, Task},
};

use super::{
    Action, Doing, Input, LEASE_STOP_GRACE, Object, Plan, Sight, Status, UNKNOWN_AFTER,
    history::{Next, Outcome, Run, TaskHistory},
    pins::Pins,
};
use crate::driver::{Mark, Phase, Seen, TaskRun};

/// How a task stands, and what it waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Standing {
    /// Its driver is silent.
    Hidden,
    /// It runs.
    Running,
    /// It never ran.
    New,
    /// It ended and shall run again.
    Again { wait: Millis, counted: bool },
    /// It is over.
    Over(Outcome),
}

/// One task of the order beside what is there.
struct View<'a> {
    index: usize,
    task: &'a Task,
    seen: Option<&'a Seen>,
    history: TaskHistory,
    standing: Standing,
}

impl View<'_> {
    fn runs(&self) -> bool {
        self.seen.is_some_and(|seen| matches!(seen.phase, Phase::Running { .. }))
    }

    fn status(&self, state: InstanceState) -> TaskStatus {
        let end = self.history.last_end.as_ref();
        TaskStatus {
            name: self.task.name.clone(),
            state,
            runtime_id: self.seen.map(|seen| seen.runtime_id.clone()).unwrap_or_default(),
            started: self.history.started,
            finished: end.and_then(|end| end.at.or(Some(end.seen_at))),
            exit_code: end.and_then(|end| end.exit_code),
            restarts: self.history.restarts,
            reason: self.history.last_reason().to_owned(),
        }
    }
}

/// Decides for one order, with all objects of its instance that answering drivers show.
pub(super) fn decide(
    input: &Input<'_>,
    order: &Arc<Order>,
    objects: &[(DriverKind, &Seen)],
    pins: &Pins<'_>,
    plan: &mut Plan,
) {
    let no_history = BTreeMap::new();
    let before = input.histories.get(&order.instance).unwrap_or(&no_history);
    let mut views = views(order, objects, before);
    if let Some(doing) = input.in_flight.get(&order.instance) {
        return under_way(input, order, *doing, &views, plan);
    }
    if objects.iter().any(|(_, seen)| seen.mark.order_index > order.index) {
        let reason = "the order is older than the one that made what is here; waiting for a newer one";
        return say(order, plan, state_as_seen(objects), reason, views.iter().map(as_seen).collect());
    }
    match order.desired {
        Desired::Stop => stop(input, order, objects, &views, plan),
        Desired::Run => {
            for view in &mut views {
                take_stock(input, order, view);
            }
            run(input, order, &mut views, pins, plan);
            for view in &views {
                if before.get(&view.task.name) != Some(&view.history) {
                    plan.histories.push((order.instance, view.task.name.clone(), view.history.clone()));
                }
            }
        }
    }
}

fn views<'a>(
    order: &'a Order,
    objects: &[(DriverKind, &'a Seen)],
    before: &BTreeMap<TaskName, TaskHistory>,
) -> Vec<View<'a>> {
    let view = |(index, task): (usize, &'a Task)| View {
        index,
        task,
        seen: objects
            .iter()
            .find(|(kind, seen)| *kind == task.driver.kind() && seen.mark.task == task.name)
            .map(|(_, seen)| *seen),
        history: before.get(&task.name).cloned().unwrap_or_default(),
        standing: Standing::Hidden,
    };
    order.tasks.iter().enumerate().map(view).collect()
}

/// An action goes on: only what it does is told, and what holds up a stop is broken off: a preparation that is no longer wanted, and a move to other processors.
fn under_way(input: &Input<'_>, order: &Order, doing: Doing, views: &[View<'_>], plan: &mut Plan) {
    let unwanted =
        order.desired == Desired::Stop || (order.exclusive && input.lease.has_lapsed(input.now.boot));
    if matches!(doing, Doing::Preparing | Doing::Pinning) && unwanted {
        plan.cancels.push(order.instance);
    }
    let state = match doing {
        Doing::Preparing => InstanceState::Preparing,
        Doing::Starting => InstanceState::Starting,
        Doing::Stopping | Doing::Removing => InstanceState::Stopping,
        // What was said last holds until there is a newer picture.
        Doing::Settling | Doing::Pinning => return,
    };
    let task_state = |view: &View<'_>| {
        if state != InstanceState::Stopping && view.runs() { InstanceState::Running } else { state }
    };
    let tasks = views.iter().map(|view| view.status(task_state(view))).collect();
    let reason = views.iter().map(|view| view.history.last_reason()).find(|reason| !reason.is_empty());
    say(order, plan, state, reason.unwrap_or_default(), tasks);
}

/// Takes in what the task's driver shows, and says how the task stands.
fn take_stock(input: &Input<'_>, order: &Order, view: &mut View<'_>) {
    let now = input.now.unix;
    if let Some(outcome) = view.history.outcome {
        view.standing = Standing::Over(outcome);
        return;
    }
    match input.sights.get(&view.task.driver.kind()) {
        Some(Sight::Silent { .. }) => return,
        Some(Sight::Seen(_)) => view.history.observe(view.seen.map(|seen| &seen.phase), now),
        None => {
            let kind = view.task.driver.kind().as_str();
            view.history.refused(now, false, &format!("this host's agent has no driver for {kind}"));
            view.history.outcome = Some(Outcome::GivenUp);
        }
    }
    view.standing = if view.runs() {
        Standing::Running
    } else if view.history.run == Run::Never {
        Standing::New
    } else if view.history.run == Run::Open {
        // Made anew by someone and never started: ours to start.
        Standing::Again { wait: 0, counted: true }
    } else {
        match view.history.next(order.kind, &order.restart, now) {
            Next::Restart { wait } => Standing::Again { wait, counted: !view.history.stopped_by_lease },
            Next::Over(outcome) => {
                view.history.outcome = Some(outcome);
                Standing::Over(outcome)
            }
        }
    };
}

fn stop(
    input: &Input<'_>,
    order: &Order,
    objects: &[(DriverKind, &Seen)],
    views: &[View<'_>],
    plan: &mut Plan,
) {
    let instance = order.instance;
    let object = |(kind, seen): &(DriverKind, &Seen)| Object { kind: *kind, seen: (*seen).clone() };
    let running: Vec<Object> =
        objects.iter().filter(|(_, seen)| matches!(seen.phase, Phase::Running { .. })).map(object).collect();
    if !running.is_empty() {
        plan.actions.push(Action::Stop { instance, objects: running, grace: order.stop_grace });
        return say_all(order, plan, InstanceState::Stopping, &order.reason, views);
    }
    if !objects.is_empty() {
        plan.actions.push(Action::Remove { instance, objects: objects.iter().map(object).collect() });
        return say_all(order, plan, InstanceState::Stopping, &order.reason, views);
    }
    match longest_silence(input, order) {
        Some((since, reason)) => hidden(input, order, since, reason, views, plan),
        None => say_all(order, plan, InstanceState::Stopped, &order.reason, views),
    }
}

fn run(input: &Input<'_>, order: &Arc<Order>, views: &mut [View<'_>], pins: &Pins<'_>, plan: &mut Plan) {
    let over = |outcome| move |view: &View<'_>| view.standing == Standing::Over(outcome);
    if let Some(failed) = views.iter().position(over(Outcome::GivenUp)) {
        return give_up(input, order, views, failed, plan);
    }
    if !views.is_empty() && views.iter().all(over(Outcome::Completed)) {
        let reason = views.first().map(|view| view.history.last_reason()).unwrap_or_default().to_owned();
        return say_all(order, plan, InstanceState::Completed, &reason, views);
    }
    if views.iter().any(|view| view.standing == Standing::Hidden) {
        if let Some((since, reason)) = longest_silence(input, order) {
            hidden(input, order, since, reason, views, plan);
        }
        return;
    }
    if order.exclusive && input.lease.has_lapsed(input.now.boot) {
        return stop_by_lease(order, views, plan);
    }
    if order.exclusive && views.iter().any(View::runs) {
        plan.wake(input.lease.until.saturating_sub(input.now.boot));
    }
    let wait = start_next(input, order, views, pins, plan);
    say_running(input, order, views, wait, plan);
}

/// Why a task that is to run is not started now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Waits {
    /// Nothing waits.
    Not,
    /// For the scheduler: no lease, or it was not heard yet.
    ForScheduler,
    /// An action was planned.
    Begun { again: bool },
}

/// Plans the start of the first task that is due.
fn start_next(
    input: &Input<'_>,
    order: &Arc<Order>,
    views: &[View<'_>],
    pins: &Pins<'_>,
    plan: &mut Plan,
) -> Waits {
    let lease = !order.exclusive || input.lease.lets_start(input.now.boot);
    let mut waits = Waits::Not;
    for view in views {
        let (allowed, counted) = match view.standing {
            Standing::New => (lease && input.may_begin, false),
            Standing::Again { wait: 0, counted } => (lease, counted),
            Standing::Again { wait, .. } => {
                plan.wake(wait);
                continue;
            }
            Standing::Hidden | Standing::Running | Standing::Over(_) => continue,
        };
        if !allowed {
            waits = Waits::ForScheduler;
            continue;
        }
        let mark = Mark {
            owner: input.owner.clone(),
            instance: order.instance,
            workload: order.workload.clone(),
            revision: order.revision,
            task: view.task.name.clone(),
            order_index: order.index,
        };
        let pin = pins.of_start(order);
        let run = TaskRun { mark, order: Arc::clone(order), task: view.index, pin };
        plan.actions.push(Action::Start { run, counted });
        return Waits::Begun { again: view.standing != Standing::New };
    }
    waits
}

fn say_running(input: &Input<'_>, order: &Order, views: &[View<'_>], waits: Waits, plan: &mut Plan) {
    let task_state = |view: &View<'_>| match view.standing {
        Standing::Running => InstanceState::Running,
        Standing::Over(Outcome::Completed) => InstanceState::Completed,
        Standing::Over(Outcome::GivenUp) => InstanceState::Failed,
        Standing::Again { .. } => InstanceState::Restarting,
        Standing::New | Standing::Hidden => InstanceState::Placed,
    };
    let again = views.iter().find(|view| matches!(view.standing, Standing::Again { .. }));
    let restarted = views.iter().max_by_key(|view| view.history.restarts);
    let (state, reason) = match (waits, again) {
        (Waits::Begun { again: false }, _) => (InstanceState::Preparing, String::new()),
        (Waits::Begun { again: true }, Some(view)) => {
            (InstanceState::Starting, view.history.last_reason().to_owned())
        }
        (Waits::ForScheduler, _) => {
            let state = if again.is_some() { InstanceState::Restarting } else { InstanceState::Placed };
            (state, "waits until the scheduler is heard".to_owned())
        }
        (_, Some(view)) => {
            let number = view.history.restarts_within(order.restart.within, input.now.unix) + 1;
            let reason = view.history.last_reason();
            (
                InstanceState::Restarting,
                format!("{}: {reason}; restart {number} of {}", view.task.name, order.restart.attempts),
            )
        }
        (_, None) => match restarted.filter(|view| view.history.restarts > 0) {
            Some(view) => (
                InstanceState::Running,
                format!("restarts: {}; last end: {}", view.history.restarts, view.history.last_reason()),
            ),
            None => (InstanceState::Running, String::new()),
        },
    };
    say(order, plan, state, &reason, views.iter().map(|view| view.status(task_state(view))).collect());
}

/// A task is given up: what still runs is stopped, then the whole is called failed. Nothing is removed.
fn give_up(input: &Input<'_>, order: &Order, views: &[View<'_>], failed: usize, plan: &mut Plan) {
    let Some(culprit) = views.get(failed) else { return };
    let reason = format!("{}: {}", culprit.task.name, culprit.history.last_reason());
    let running = running(views);
    if !running.is_empty() {
        plan.actions.push(Action::Stop {
            instance: order.instance,
            objects: running,
            grace: order.stop_grace,
        });
        return say_all(order, plan, InstanceState::Stopping, &reason, views);
    }
    let unseen = views.iter().any(|view| view.standing == Standing::Hidden && view.history.run == Run::Open);
    match longest_silence(input, order).filter(|_| unseen) {
        Some((since, silence)) => hidden(input, order, since, silence, views, plan),
        None => say_all(order, plan, InstanceState::Failed, &reason, views),
    }
}

fn stop_by_lease(order: &Order, views: &mut [View<'_>], plan: &mut Plan) {
    let reason = "the lease has run out: the scheduler has not been heard";
    let running = running(views);
    if running.is_empty() {
        return say_all(order, plan, InstanceState::Restarting, reason, views);
    }
    for view in views.iter_mut().filter(|view| view.runs()) {
        view.history.stopped_by_lease = true;
    }
    let grace = order.stop_grace.min(LEASE_STOP_GRACE);
    plan.actions.push(Action::Stop { instance: order.instance, objects: running, grace });
    say_all(order, plan, InstanceState::Stopping, reason, views);
}

/// What runs of these tasks.
fn running(views: &[View<'_>]) -> Vec<Object> {
    let object = |view: &View<'_>| Some(Object { kind: view.task.driver.kind(), seen: view.seen?.clone() });
    views.iter().filter(|view| view.runs()).filter_map(object).collect()
}

/// The drivers that the order needs, or all where it names none, and the one that is silent longest.
fn longest_silence<'a>(input: &Input<'a>, order: &Order) -> Option<(Millis, &'a str)> {
    let needed = |kind| order.tasks.is_empty() || order.tasks.iter().any(|task| task.driver.kind() == kind);
    let silences =
        input.sights.iter().filter(|(kind, _)| needed(**kind)).filter_map(|(_, sight)| match sight {
            Sight::Silent { since, reason } => Some((*since, reason.as_str())),
            Sight::Seen(_) => None,
        });
    silences.min_by_key(|(since, _)| *since)
}

/// Nothing is known: say so once it has lasted, and until then leave what was said.
fn hidden(
    input: &Input<'_>,
    order: &Order,
    since: Millis,
    reason: &str,
    views: &[View<'_>],
    plan: &mut Plan,
) {
    let lasted = input.now.boot.saturating_sub(since);
    if lasted < UNKNOWN_AFTER {
        plan.wake(UNKNOWN_AFTER - lasted);
    } else {
        say_all(order, plan, InstanceState::Unknown, reason, views);
    }
}

fn state_as_seen(objects: &[(DriverKind, &Seen)]) -> InstanceState {
    let runs = objects.iter().any(|(_, seen)| matches!(seen.phase, Phase::Running { .. }));
    if runs { InstanceState::Running } else { InstanceState::Unknown }
}

fn as_seen(view: &View<'_>) -> TaskStatus {
    view.status(if view.runs() { InstanceState::Running } else { InstanceState::Unknown })
}

/// Says the same of the instance and of each task that is not over.
fn say_all(order: &Order, plan: &mut Plan, state: InstanceState, reason: &str, views: &[View<'_>]) {
    let task_state = |view: &View<'_>| match (state, view.history.outcome) {
        (InstanceState::Stopped, _) | (_, None) if state != InstanceState::Failed => state,
        (_, Some(Outcome::Completed)) => InstanceState::Completed,
        (_, Some(Outcome::GivenUp)) => InstanceState::Failed,
        // A sibling of the failed task: the agent stopped it.
        (_, None) => InstanceState::Stopped,
    };
    say(order, plan, state, reason, views.iter().map(|view| view.status(task_state(view))).collect());
}

fn say(order: &Order, plan: &mut Plan, state: InstanceState, reason: &str, tasks: Vec<TaskStatus>) {
    let status = Status {
        order_index: order.index,
        state,
        reason: super::history::shortened(reason),
        tasks,
        unordered: false,
    };
    plan.states.insert(order.instance, status);
}
