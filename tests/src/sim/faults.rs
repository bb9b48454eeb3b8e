//! The faults of a run, and the operator who mends what only an operator can: a node with a damaged disk is removed, and another one joins.

use std::collections::{BTreeMap, BTreeSet};

use supercloud_scheduler::raft::{NodeId, Role, Start};

use super::{
    Micros,
    calls::{Answer, CallId, Change, Request},
    disk::Crash,
    network::{CALM, Place, Weather},
    server::GOOD_DISK,
    shape::SECOND,
    world::{Event, World},
};

/// The operator's place: no client has this number.
pub(super) const OPERATOR: usize = usize::MAX;
/// How often the operator looks.
const LOOK: Micros = SECOND / 2;
/// Within this time a supervisor starts an agent again.
const SUPERVISOR: Micros = 2 * SECOND;
/// Most nodes that are built in a run, members or not.
const MOST_NODES: u64 = 9;

/// Brings a fault about.
type Fault = fn(&mut World);

/// What the operator has asked for.
#[derive(Debug, Default)]
pub(super) struct Operator {
    calls: BTreeMap<CallId, Change>,
    /// Members to be replaced, asked for or not.
    built: u64,
}

impl World {
    pub(super) fn on_fault(&mut self) {
        if self.quiet {
            return;
        }
        let weights = self.shape.weights;
        let hosts = u64::from(!self.hosts.is_empty());
        let faults: [(u64, Fault); 16] = [
            (weights.crash, World::crash_one),
            (weights.black_out, World::black_out_and_back),
            (weights.pause, World::pause_one),
            (weights.partition, World::partition),
            (weights.weather, World::change_weather),
            (weights.slow_disk, World::slow_disk),
            (weights.disk_failure, World::fail_disk),
            (weights.damage, World::damage_disk),
            (weights.clock, World::jump_clock),
            (weights.membership, World::change_members),
            (weights.host_cut * hosts, World::cut_host),
            (weights.hosts_cut * hosts, World::cut_hosts),
            (weights.agent_crash * hosts, World::crash_an_agent),
            (weights.power_off * hosts, World::power_off_one),
            (weights.runtime_silent * hosts, World::silence_runtime),
            (weights.task_ends * hosts, World::end_task),
        ];
        let mut roll = self.dice.below(faults.iter().map(|(weight, _)| weight).sum());
        for (weight, fault) in faults {
            if roll < weight {
                fault(self);
                break;
            }
            roll -= weight;
        }
        let (low, high) = self.shape.faults;
        let pause = self.dice.between(low, high);
        self.after(pause, Event::Fault);
    }

    fn any_node(&mut self) -> Option<NodeId> {
        let nodes: Vec<NodeId> =
            self.servers.iter().filter(|(_, server)| !server.given_up).map(|(id, _)| *id).collect();
        self.dice.pick(&nodes).copied()
    }

    fn how(&mut self) -> Crash {
        if self.dice.permille(500) { Crash::PowerCut } else { Crash::Killed }
    }

    fn crash_one(&mut self) {
        let Some(node) = self.any_node() else { return };
        let how = self.how();
        self.crash(node, how);
        self.back_soon(node);
    }

    fn back_soon(&mut self, node: NodeId) {
        let away = self.dice.between(10_000, 3 * SECOND);
        self.after(away, Event::Restart(node));
    }

    fn black_out_and_back(&mut self) {
        self.note(|| "the power goes out everywhere".to_owned());
        self.black_out();
        let nodes: Vec<NodeId> = self.servers.keys().copied().collect();
        for node in nodes {
            self.back_soon(node);
        }
    }

    fn pause_one(&mut self) {
        let Some(node) = self.any_node() else { return };
        let pause = self.dice.between(50_000, 4 * SECOND);
        let Some(server) = self.servers.get_mut(&node).filter(|server| server.running.is_some()) else {
            return;
        };
        if !server.paused {
            server.paused = true;
            self.note(|| format!("node {node} stands still for {pause} us"));
            self.after(pause, Event::Resume(node));
        }
    }

    pub(super) fn resume(&mut self, node: NodeId) {
        if let Some(server) = self.servers.get_mut(&node).filter(|server| server.paused) {
            server.paused = false;
            self.note(|| format!("node {node} goes on"));
            self.wake(node);
        }
    }

    fn places(&self) -> Vec<Place> {
        let nodes = self.servers.keys().map(|id| Place::Node(*id));
        let hosts = (0..self.hosts.len()).map(Place::Host);
        nodes.chain((0..self.clients.len()).map(Place::Client)).chain(hosts).collect()
    }

    /// Cuts the places in two, or one node off, or a single way; sometimes in one direction only.
    fn partition(&mut self) {
        let one_way = self.dice.permille(300);
        let places = self.places();
        let shape = self.dice.below(3);
        let lonely = self.any_node();
        let mut side = BTreeSet::new();
        for place in &places {
            let apart = match shape {
                0 => self.dice.permille(500),
                _ => lonely.is_some_and(|node| Place::Node(node) == *place),
            };
            if apart {
                side.insert(*place);
            }
        }
        let mut cut = 0;
        for one in &side {
            for two in places.iter().filter(|two| !side.contains(two)) {
                // A partial mesh: only some of the ways are gone.
                if shape == 2 && self.dice.permille(500) {
                    continue;
                }
                cut += 1;
                match one_way {
                    true if self.dice.permille(500) => self.network.cut(*one, *two),
                    true => self.network.cut(*two, *one),
                    false => self.network.cut_both(*one, *two),
                }
            }
        }
        self.note(|| format!("{cut} ways are cut, one way only: {one_way}; apart: {side:?}"));
        let lasts = self.dice.between(100_000, 4 * SECOND);
        self.after(lasts, Event::HealNetwork);
    }

    pub(super) fn heal_network(&mut self) {
        self.note(|| "the network is whole".to_owned());
        self.network.heal();
    }

    fn change_weather(&mut self) {
        self.network.weather = match self.dice.below(4) {
            0 => CALM,
            1 => Weather { delay: (1_000, 40_000), loss: 10, twice: 10 },
            2 => Weather { delay: (100, 200_000), loss: 0, twice: 50 },
            _ => Weather { delay: (100, 3_000), loss: 150, twice: 100 },
        };
        let weather = self.network.weather;
        self.note(|| format!("{weather:?}"));
    }

    fn slow_disk(&mut self) {
        let Some(node) = self.any_node() else { return };
        let slow = self.dice.between(5_000, SECOND);
        if let Some(server) = self.servers.get_mut(&node) {
            server.write_delay = (slow / 2, slow);
        }
        self.note(|| format!("the disk of node {node} is slow: {slow} us"));
        let lasts = self.dice.between(SECOND / 2, 5 * SECOND);
        self.after(lasts, Event::HealDisk(node));
    }

    pub(super) fn heal_disk(&mut self, node: NodeId) {
        if let Some(server) = self.servers.get_mut(&node) {
            server.write_delay = GOOD_DISK;
        }
    }

    /// After some more operations the disk fails under the process.
    fn fail_disk(&mut self) {
        let Some(node) = self.any_node() else { return };
        let operations = self.dice.between(1, 40);
        if let Some(server) = self.servers.get_mut(&node).filter(|server| server.running.is_some()) {
            server.disk.fail_after(operations);
            self.failing.insert(node);
            self.note(|| format!("the disk of node {node} fails after {operations} operations"));
        }
    }

    /// Flips bits, but never on so many disks that what was acknowledged may be gone.
    fn damage_disk(&mut self) {
        let Some(node) = self.any_node() else { return };
        let voters = self.ghost.voters();
        let lost = voters.iter().filter(|id| self.damaged.contains(id)).count();
        let bearable = voters.len().saturating_sub(1) / 2;
        if lost >= bearable || self.damaged.contains(&node) {
            return;
        }
        let how = self.how();
        self.crash(node, how);
        let log = self.dice.permille(500);
        let Some(server) = self.servers.get(&node) else { return };
        self.damaged.insert(node);
        if log || !server.disk.damage_snapshot(&mut self.dice) {
            server.disk.damage_log();
        }
        self.note(|| format!("the disk of node {node} is damaged, its log: {log}"));
        self.back_soon(node);
    }

    fn jump_clock(&mut self) {
        let Some(node) = self.any_node() else { return };
        let jump = self.dice.between(0, 7_200_000) as i64 - 3_600_000;
        if let Some(server) = self.servers.get_mut(&node) {
            server.skew = jump;
        }
        self.note(|| format!("the clock of node {node} jumps by {jump} ms"));
    }

    fn any_host(&mut self) -> usize {
        self.dice.below(self.hosts.len() as u64) as usize
    }

    fn cut_off(&mut self, host: usize) {
        let nodes: Vec<NodeId> = self.servers.keys().copied().collect();
        for node in nodes {
            self.network.cut_both(Place::Host(host), Place::Node(node));
        }
    }

    /// One host reaches no node, for a moment or for longer than a lease and a margin.
    fn cut_host(&mut self) {
        let host = self.any_host();
        self.cut_off(host);
        let lasts = if self.dice.permille(500) { 45 * SECOND } else { 8 * SECOND };
        let lasts = self.dice.between(SECOND / 2, lasts);
        self.note(|| format!("host {host} is cut off for {lasts} us"));
        self.after(lasts, Event::HealNetwork);
    }

    /// No host, or none of a half, reaches any node.
    fn cut_hosts(&mut self) {
        let all = self.dice.permille(600);
        for host in 0..self.hosts.len() {
            if all || self.dice.permille(600) {
                self.cut_off(host);
            }
        }
        let lasts = self.dice.between(5 * SECOND, 50 * SECOND);
        self.note(|| format!("hosts are cut off for {lasts} us, all: {all}"));
        self.after(lasts, Event::HealNetwork);
    }

    /// The agent's process ends, and is started again as a supervisor does. Sometimes its ledger is lost with it.
    fn crash_an_agent(&mut self) {
        let host = self.any_host();
        self.crash_agent(host);
        if self.dice.permille(150)
            && let Some(machine) = self.hosts.get_mut(host)
        {
            machine.lose_ledger();
            self.note(|| format!("the ledger of host {host} is lost"));
        }
        let away = self.dice.between(100_000, SUPERVISOR);
        self.after(away, Event::StartAgent(host));
    }

    fn power_off_one(&mut self) {
        let host = self.any_host();
        self.power_off(host);
        let away = self.dice.between(3 * SECOND, 40 * SECOND);
        self.note(|| format!("host {host} loses its power for {away} us"));
        self.after(away, Event::StartAgent(host));
    }

    fn silence_runtime(&mut self) {
        let host = self.any_host();
        if let Some(machine) = self.hosts.get_mut(host) {
            machine.silent = true;
        }
        let lasts = self.dice.between(SECOND / 2, 30 * SECOND);
        self.note(|| format!("the runtime of host {host} is silent for {lasts} us"));
        self.after(lasts, Event::RuntimeAnswers(host));
    }

    pub(super) fn runtime_answers(&mut self, host: usize) {
        if let Some(machine) = self.hosts.get_mut(host) {
            machine.silent = false;
        }
    }

    fn end_task(&mut self) {
        let (host, which) = (self.any_host(), self.dice.any());
        if let Some(machine) = self.hosts.get_mut(host) {
            machine.end_one(which);
        }
    }

    /// Ask the node that seems to lead.
    fn ask(&mut self, change: Change) {
        let Some(leader) = self.leader() else { return };
        let id = self.next_call();
        self.note(|| format!("the operator asks node {leader}: {change:?}"));
        self.operator.calls.insert(id, change.clone());
        self.call(Place::Client(OPERATOR), leader, id, Request::Change(change));
    }

    /// Who leads in the latest term, as far as the nodes say.
    pub(super) fn leader(&self) -> Option<NodeId> {
        let statuses = self.servers.values().filter_map(super::server::Server::status);
        let leaders = statuses.filter(|status| status.role == Role::Leader);
        leaders.max_by_key(|status| status.term).map(|status| status.id)
    }

    fn change_members(&mut self) {
        match self.dice.below(4) {
            0 | 1 if self.servers.len() as u64 + self.operator.built < MOST_NODES => {
                self.operator.built += 1;
                let peer_address = format!("a{}:1", self.operator.built);
                self.ask(Change::Add { peer_address });
            }
            2 => {
                if let Some(node) = self.any_node() {
                    self.ask(Change::Remove(node));
                }
            }
            _ => {
                if let Some(node) = self.any_node() {
                    self.ask(Change::Lead(node));
                }
            }
        }
    }

    pub(super) fn on_operator_answer(&mut self, id: CallId, answer: Answer) {
        let Some(change) = self.operator.calls.remove(&id) else { return };
        self.note(|| format!("the operator is told of {change:?}: {answer:?}"));
        match (change, answer) {
            (Change::Add { peer_address }, Answer::Changed(Ok(Some(node)))) => {
                self.build(node, peer_address);
                self.start(node, &Start::Join);
            }
            (Change::Remove(node), Answer::Changed(Ok(None))) => {
                if let Some(server) = self.servers.get_mut(&node) {
                    server.given_up = true;
                }
                self.crash(node, Crash::Killed);
            }
            _ => {}
        }
    }

    /// Looks for members that will not come back, and removes them.
    pub(super) fn on_operator(&mut self) {
        self.after(LOOK, Event::Operator);
        let Some(leader) = self.leader() else { return };
        let Some(status) = self.servers.get(&leader).and_then(super::server::Server::status) else { return };
        let lost = |id: &NodeId| self.servers.get(id).is_none_or(|server| server.given_up);
        let Some(gone) = status.members.members.keys().copied().find(lost) else { return };
        // A node that was added by a call whose answer got lost has no machine; it goes too, but not at once: the answer may be on its way.
        if self.quiet || self.dice.permille(300) {
            let change = if gone == leader {
                let Some(next) = status.successor() else { return };
                Change::Lead(next)
            } else {
                Change::Remove(gone)
            };
            self.ask(change);
        }
    }

    /// No more faults: everything is mended that can be.
    pub(super) fn calm_down(&mut self) {
        self.note(|| "all faults end".to_owned());
        self.quiet = true;
        self.heal_network();
        self.network.weather = CALM;
        let nodes: Vec<NodeId> = self.servers.keys().copied().collect();
        for node in nodes {
            self.heal_disk(node);
            if self.failing.remove(&node) {
                // Whether it failed already or not: the disk is changed, its content is not.
                self.crash(node, Crash::Killed);
            }
            self.resume(node);
            self.start(node, &Start::Again);
        }
        for host in 0..self.hosts.len() {
            self.runtime_answers(host);
            self.start_agent(host);
        }
    }
}
