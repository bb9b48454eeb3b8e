//! Deterministic simulation: whole clusters in one thread, with their network, disks and clocks made up, and everything that happens from
//! one seed. What runs is the product's own code: the log's nodes (`raft::simulated`), the replica, the state and the pass. Only what the
//! product does with threads, sockets and files is played here, and nothing is decided here that the product decides.
//!
//! From the ground: `dice`, `shape` · `disk`, `network`, `ghost` (the checks) · `machine`, `specs` · `world` (time and events) · `server`,
//! `calls`, `clients`, `leading`, `faults` (what happens in it, each a part of `World`).
//!
//! A run has a time of faults and a time without: after every step the checks of `ghost` hold, and after the faults end everything
//! converges. A run that fails is run again with its seed, and tells what happens when asked.

mod calls;
mod clients;
mod dice;
mod disk;
mod faults;
mod ghost;
mod leading;
mod machine;
mod network;
mod server;
mod shape;
mod specs;
mod world;

use supercloud_scheduler::raft::NodeId;

pub use ghost::Violation;

use server::Server;
use shape::SECOND;
use world::World;

/// A point in time or a time, in microseconds since the beginning of the run.
pub type Micros = u64;

/// How long a cluster may take to converge once all faults are over.
const CONVERGES_WITHIN: Micros = 60 * SECOND;
/// How often that is looked at.
const LOOK: Micros = SECOND / 4;

/// What a run was like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Report {
    /// Things that happened.
    pub events: u64,
    /// Terms that had a leader.
    pub terms: u64,
    /// The last index.
    pub index: u64,
    /// What clients did.
    pub done: u64,
    /// How long it took, as the simulated clock tells.
    pub lasted: Micros,
}

/// Runs a seed.
///
/// # Errors
/// What does not hold.
pub fn run(seed: u64, trace: bool) -> Result<Report, Violation> {
    let mut world = World::new(seed, trace);
    let end = world.shape.end;
    world.run_until(end)?;
    world.calm_down();
    let deadline = end + CONVERGES_WITHIN;
    while let Some(why) = world.unsettled() {
        if world.now >= deadline {
            return Err(Violation(format!("does not converge: {why}")));
        }
        let next = world.now + LOOK;
        world.run_until(next)?;
    }
    let index = world.leader().and_then(|id| Some(world.servers.get(&id)?.status()?.applied));
    Ok(Report {
        events: world.events(),
        terms: world.ghost.terms() as u64,
        index: index.unwrap_or(0),
        done: world.clients.iter().map(|client| client.done).sum(),
        lasted: world.now,
    })
}

impl World {
    /// Why the cluster is not at rest; `None`: it is.
    fn unsettled(&self) -> Option<String> {
        let Some(leader) = self.leader() else { return Some("nobody leads".to_owned()) };
        let status = self.servers.get(&leader).and_then(Server::status)?;
        if let Some(client) = self.clients.iter().position(|client| !client.is_idle()) {
            return Some(format!("client {client} is not answered"));
        }
        for member in status.members.members.keys() {
            if let Some(why) = self.behind(*member, status.last_index) {
                return Some(why);
            }
        }
        (self.ghost.seen() > status.applied)
            .then(|| format!("the leader is at index {}, {} was seen", status.applied, self.ghost.seen()))
    }

    fn behind(&self, member: NodeId, index: u64) -> Option<String> {
        match self.servers.get(&member).and_then(Server::status) {
            None => Some(format!("member {member} is not there")),
            Some(status) if status.applied != index => {
                Some(format!("node {member} is at index {} of {index}", status.applied))
            }
            Some(_) => None,
        }
    }
}
