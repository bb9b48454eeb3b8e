//! Which processors each task may use: an instance with cores of its own those and no others, everything else what is left. Pure.
//!
//! Decisions. *What is there is compared, not what was done*: a driver shows on which processors an object may run, and where that is not what it should be
//! now, it is put right. So whatever ended in between, the agent or its action, the next round mends it. *Cores are held until nothing
//! runs on them any more*: an order that is over, and of which nothing runs, holds none, since the scheduler may have given them to others. *A host on
//! which nobody has cores of his own is left as it is.* *Only what this agent runs is kept off*: what its operator runs beside it is his to place.

use std::collections::BTreeSet;

use supercloud_proto::{instance::Desired, order::Order, spec::DriverKind};

use super::{Action, Doing, Input, Object, Plan, Sight, history::Outcome};
use crate::driver::{Phase, Pin, Seen};

/// The processors of the host as they are to be used now.
pub(super) struct Pins<'i> {
    all: &'i [u16],
    /// For everything that has none of its own; all of them where nobody has.
    shared: Vec<u16>,
}

/// An order with the objects of its instance, as far as drivers show them.
type Standing<'s, 'i> = (&'s Order, &'s [(DriverKind, &'i Seen)]);

impl<'i> Pins<'i> {
    /// From the orders with what is seen of them.
    pub(super) fn of<'s>(input: &Input<'i>, orders: impl Iterator<Item = Standing<'s, 'i>>) -> Self
    where
        'i: 's,
    {
        let holding = orders.filter(|(order, objects)| order.cores.is_some() && holds(input, order, objects));
        let own: BTreeSet<u16> = holding
            .flat_map(|(order, _)| order.cores.iter().flat_map(|cores| cores.cpus.iter()))
            .copied()
            .collect();
        let shared: Vec<u16> = input.cpus.iter().filter(|cpu| !own.contains(cpu)).copied().collect();
        // The scheduler leaves some; were there ever none, a task that runs anywhere is better than one that runs nowhere.
        let shared = if shared.is_empty() { input.cpus.to_vec() } else { shared };
        Self { all: input.cpus, shared }
    }

    /// What is to be said to what is started for an order; `None`: nothing, it may run anywhere.
    pub(super) fn of_start(&self, order: &Order) -> Option<Pin> {
        self.of_order(order).filter(|pin| pin.own || pin.cpus.len() < self.all.len())
    }

    fn of_order(&self, order: &Order) -> Option<Pin> {
        match &order.cores {
            Some(cores) => Some(Pin { cpus: cores.cpus.to_vec(), own: true }),
            None if self.all.is_empty() => None,
            None => Some(Pin { cpus: self.shared.clone(), own: false }),
        }
    }

    /// Plans to put right on which processors the objects of an order run, where nothing else is to be done for it.
    pub(super) fn put_right(
        &self,
        input: &Input<'_>,
        order: &Order,
        objects: &[(DriverKind, &Seen)],
        plan: &mut Plan,
    ) {
        let instance = order.instance;
        let is_busy = input.in_flight.contains_key(&instance)
            || plan.actions.last().is_some_and(|action| action.instance() == instance)
            || objects.iter().any(|(_, seen)| seen.mark.order_index > order.index);
        let Some(pin) = self.of_order(order).filter(|_| !is_busy) else { return };
        let wrong: Vec<Object> = objects
            .iter()
            .filter(|(_, seen)| runs(seen) && seen.cpus.as_deref().unwrap_or(self.all) != pin.cpus)
            .map(|(kind, seen)| Object { kind: *kind, seen: (*seen).clone() })
            .collect();
        if !wrong.is_empty() {
            plan.actions.push(Action::Pin { instance, objects: wrong, pin });
        }
    }
}

/// Whether something runs, or may yet run, on the cores of an order.
fn holds(input: &Input<'_>, order: &Order, objects: &[(DriverKind, &Seen)]) -> bool {
    let is_hidden = |kind: DriverKind| matches!(input.sights.get(&kind), Some(Sight::Silent { .. }));
    let outcomes = || {
        let histories = input.histories.get(&order.instance);
        order.tasks.iter().map(move |task| histories?.get(&task.name)?.outcome)
    };
    let is_over = order.desired == Desired::Stop
        || outcomes().any(|outcome| outcome == Some(Outcome::GivenUp))
        || outcomes().all(|outcome| outcome == Some(Outcome::Completed));
    !is_over
        || objects.iter().any(|(_, seen)| runs(seen))
        || order.tasks.iter().any(|task| is_hidden(task.driver.kind()))
        || matches!(input.in_flight.get(&order.instance), Some(Doing::Preparing | Doing::Starting))
}

fn runs(seen: &Seen) -> bool {
    matches!(seen.phase, Phase::Running { .. })
}
