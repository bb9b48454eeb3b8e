//! Deterministic simulation: whole clusters in one thread, with their network, disks and clocks made up, and everything that happens from
//! one seed. What runs is the product's own code: the log's nodes (`raft::simulated`), the replica, the state, the pass, the judging of
//! hosts, the steps of rollouts, and of the agents the `keeper` with `reconcile`. Only what the product does with threads, sockets and files is
//! played here, and nothing is decided here that the product decides.
//!
//! From the ground: `dice`, `shape` · `disk`, `network`, `ghost` and `estate` (the checks) · `machine`, `specs` · `world` (time and events) ·
//! `server`, `calls`, `clients`, `leading`, `sessions`, `hosts`, `faults` (what happens in it, each a part of `World`).
//!
//! A run has a time of faults and a time without: after every step the checks of `ghost` hold, and after the faults end everything
//! converges. A run that fails is run again with its seed, and tells what happens when asked.

mod calls;
mod clients;
mod dice;
mod disk;
mod estate;
mod faults;
mod ghost;
mod hosts;
mod leading;
mod machine;
mod network;
mod server;
mod sessions;
mod shape;
mod specs;
mod world;

use supercloud_proto::{
    host::HostState,
    instance::{Desired, InstanceState},
};
use supercloud_scheduler::{
    placement::{Limits, pass},
    planted::{self, Fault},
    raft::NodeId,
    state::State,
};

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

/// A fault that is planted in the product for one run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Planted {
    /// In the scheduler.
    Scheduler(Fault),
    /// In the agent: an order is taken however old it is.
    OldOrders,
}

impl Planted {
    /// All, by the names under which `supercloud-sim` plants them.
    pub const ALL: [(&'static str, Self); 6] = [
        ("acknowledge-before-sync", Self::Scheduler(Fault::AcknowledgeBeforeSync)),
        ("reuse-read-context", Self::Scheduler(Fault::ReuseReadContext)),
        ("applied-apart-from-state", Self::Scheduler(Fault::AppliedApartFromState)),
        ("count-learner", Self::Scheduler(Fault::CountLearner)),
        ("evict-without-brake", Self::Scheduler(Fault::EvictWithoutBrake)),
        ("old-orders", Self::OldOrders),
    ];

    /// Plants one on this thread, or takes away what was planted.
    fn plant(planted: Option<Self>) {
        let in_scheduler = |planted| if let Self::Scheduler(fault) = planted { Some(fault) } else { None };
        planted::plant(planted.and_then(in_scheduler));
        supercloud_agent::planted::take_old_orders(planted == Some(Self::OldOrders));
    }
}

/// Runs a seed of the product as it is.
///
/// # Errors
/// What does not hold.
pub fn run(seed: u64, trace: bool) -> Result<Report, Violation> {
    run_planted(seed, trace, None)
}

/// Runs a seed, with a fault where one is named.
///
/// # Errors
/// What does not hold.
pub fn run_planted(seed: u64, trace: bool, planted: Option<Planted>) -> Result<Report, Violation> {
    Planted::plant(planted);
    let outcome = run_on(seed, trace);
    Planted::plant(None);
    outcome
}

fn run_on(seed: u64, trace: bool) -> Result<Report, Violation> {
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
        if self.ghost.seen() > status.applied {
            return Some(format!(
                "the leader is at index {}, {} was seen",
                status.applied,
                self.ghost.seen()
            ));
        }
        self.servers.get(&leader).and_then(|server| self.unlike(&server.state()?, server.unix(self.now)))
    }

    /// Where the estate is not as the state wants it.
    fn unlike(&self, state: &State, unix: u64) -> Option<String> {
        if self.hosts.is_empty() {
            return None;
        }
        if let Some(host) = state.hosts().values().find(|host| host.state != HostState::Ready) {
            return Some(format!("host {} is {}", host.name, host.state.as_str()));
        }
        let plan = pass(state, unix, Limits::default());
        if let Some(placement) = plan.placements.first() {
            return Some(format!("{} could be placed", placement.instance));
        }
        if let Some(preemption) = plan.preemptions.first() {
            return Some(format!("room could be made for {}", preemption.instance));
        }
        for (number, host) in self.hosts.iter().enumerate() {
            let record = state.host_named(host.name().as_str());
            let Some(record) = record.filter(|_| host.is_up()) else {
                return Some(format!("host {number} is not there"));
            };
            let mut running = host.running();
            for instance in state.instances_on(record.id) {
                let runs = running.iter().position(|id| *id == instance.id);
                // Whatever is over or is to be started later runs nowhere.
                let resting = instance.state.is_over() || instance.state == InstanceState::Restarting;
                let wanted = instance.desired == Desired::Run && !resting;
                let said = instance.state == InstanceState::Running;
                if wanted != (runs.is_some() && said) || instance.desired == Desired::Stop {
                    let (id, state, desired) = (instance.id, instance.state.as_str(), instance.desired);
                    return Some(format!("{id} on host {number} is {state}, wanted: {desired:?}"));
                }
                if let Some(at) = runs {
                    running.remove(at);
                }
            }
            if let Some(stranger) = running.first() {
                return Some(format!("host {number} runs {stranger}, which nobody wants there"));
            }
        }
        None
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
