//! Real scheduler processes, each in a network namespace of its own, that are killed, stopped, cut off and starved, while clients read and write.
//!
//! Every scenario ends with the same questions: does the cluster serve again within its bound; is there one order of all that the
//! clients saw (linearizable, key by key); is everything there that was acknowledged; do all nodes hold the same. A cluster costs
//! seconds to make, so scenarios of one kind share one; each has registers and a history of its own.
//!
//! `scripts/faults` runs all of it at length; the numbers of rounds and the long pauses come from the environment ([`length`]).

mod disks;
mod full;
mod killed;
mod length;
mod partitions;
mod stopped;
mod storm;
mod weather;
