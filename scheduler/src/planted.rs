//! Faults that we plant ourselves, to see the simulation's checks catch them. Only with the feature `planted`, and even then nothing is at
//! fault but on a thread that asked for it, which only the simulation does.

use std::cell::Cell;

/// What is to go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// What is on its way to the disk counts as being there.
    AcknowledgeBeforeSync,
    /// Every attempt to confirm a read has the same context, and waits with those before it.
    ReuseReadContext,
    /// A snapshot carries an applied index that its state has not reached.
    AppliedApartFromState,
    /// What a learner acknowledges counts for the voter that lags behind most.
    CountLearner,
    /// Hosts are given up however many are silent.
    EvictWithoutBrake,
}

thread_local! {
    static PLANTED: Cell<Option<Fault>> = const { Cell::new(None) };
}

/// Plants a fault on this thread, in the place of one that was there; `None`: none any more.
pub fn plant(fault: Option<Fault>) {
    PLANTED.set(fault);
}

/// Whether this fault is planted here.
pub(crate) fn is(fault: Fault) -> bool {
    PLANTED.get() == Some(fault)
}
