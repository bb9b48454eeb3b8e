//! End to end: schedulers, agents, the real Docker and the real libvirt. Each check of what the product must show is a test here.
//!
//! To add a test: put it beside those of its subject, ask for a `World` of the smallest shape that does, act through the operator's
//! command, and hold what the runtimes say from outside (`docker`, `virsh`), not only what Supercloud says of itself.

mod agent_killed;
mod comes_back;
mod devices;
mod displacing;
mod estate;
mod events;
mod ledger;
mod lost_host;
mod refusals;
mod restored;
mod running;
mod scale;
mod scheduler_killed;
mod stopping;
mod talk;
