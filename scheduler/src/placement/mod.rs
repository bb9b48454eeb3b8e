//! Placement: which host gets what waits for one. Pure: it knows the state and nothing above it, no clock, IO, randomness or floats.
//!
//! [`pass`] proposes placements on a snapshot, `State::apply` disposes of them by the same rule (`state::fits`). [`explain`] says why an
//! instance is where it is or nowhere, [`plan`] what an apply would do. All three look at hosts through a [`ledger`], which holds what the
//! state says is given away and what has been given since.
//!
//! To add a filter: see `state::fits`. To add a score rule: see [`score`]. Cases are text files in `cases`, one for each filter and edge.

mod by_number;
pub mod explain;
mod fair;
mod ledger;
mod outlook;
pub mod pass;
pub mod plan;
mod preempting;
mod queue;
mod ranking;
mod score;
mod shapes;
mod spread;
#[cfg(test)]
mod tests;
mod trial;

pub use explain::{Explainer, Explanation};
pub use pass::{Engine, Limits, Plan, pass};
pub use plan::{ApplyPlan, BoroughPlan, PlannedStop, WorkloadPlan, plan};
