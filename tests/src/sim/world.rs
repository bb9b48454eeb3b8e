//! The world of a run: its time, what is due, and everything that is in it. One event after the other; whatever happens at once happens in
//! the order in which it was begun.

use std::collections::{BTreeMap, BTreeSet};

use supercloud_proto::{
    spec::DriverKind,
    v1::{SchedulerMessage, agent_message::Message as Upward},
};
use supercloud_scheduler::raft::{Member, MemberKind, NodeId, SnapshotPolicy, Start};
use tokio::time::Instant;

use super::{
    Micros,
    calls::{Answer, CallId, Request},
    clients::Client,
    dice::Dice,
    disk::Crash,
    faults::Operator,
    ghost::{Ghost, Violation},
    hosts::{Greeting, Host, Step},
    leading::{Leading, Own},
    network::{Network, Place},
    server::Server,
    sessions::{DeadStreams, Served},
    shape::Shape,
};

/// Something that is due.
#[derive(Debug)]
pub(super) enum Event {
    /// A tick of the node's clock; with the life of its process, as below.
    Tick(NodeId, u64),
    Turn(NodeId, u64),
    Written(NodeId, u64, u64),
    SnapshotTime(NodeId, u64),
    Peer {
        from: NodeId,
        to: NodeId,
        message: Vec<u8>,
    },
    PeerSnapshot {
        from: NodeId,
        to: NodeId,
        message: Vec<u8>,
        content: Vec<u8>,
    },
    SnapshotSent {
        from: NodeId,
        to: NodeId,
        good: bool,
    },
    Call {
        node: NodeId,
        id: CallId,
        from: Place,
        request: Request,
    },
    Answer {
        to: Place,
        id: CallId,
        answer: Answer,
    },
    Client(usize),
    ClientGivesUp(usize, CallId),
    /// A leader looks for something to do, in this term.
    Lead(NodeId, u64, u64),
    OwnDeadline(NodeId, CallId),
    /// Of a host's agent, with its life.
    AgentWake(usize, u64),
    Listing(usize, u64, DriverKind, u64),
    Act(usize, u64, u64, Step),
    Dial(usize, u64),
    DialDeadline(usize, u64, u64),
    Beat(usize, u64, u64),
    /// The agent notices that its session is dead.
    SessionDead(usize, u64),
    /// The node notices.
    SessionGone(u64),
    SessionSilence(u64),
    ReportAgain(u64),
    Hello {
        node: NodeId,
        session: u64,
        host: usize,
        greeting: Box<Greeting>,
    },
    Up {
        node: NodeId,
        session: u64,
        message: Box<Upward>,
    },
    Down {
        host: usize,
        session: u64,
        message: Box<SchedulerMessage>,
    },
    StartAgent(usize),
    RuntimeAnswers(usize),
    /// The next fault.
    Fault,
    Restart(NodeId),
    Resume(NodeId),
    HealNetwork,
    HealDisk(NodeId),
    Operator,
}

/// See the head of the module.
pub(super) struct World {
    pub(super) shape: Shape,
    pub(super) now: Micros,
    queue: BTreeMap<(Micros, u64), Event>,
    sequence: u64,
    pub(super) dice: Dice,
    pub(super) network: Network,
    pub(super) ghost: Ghost,
    pub(super) servers: BTreeMap<NodeId, Server>,
    pub(super) clients: Vec<Client>,
    pub(super) calls: CallId,
    pub(super) leading: BTreeMap<NodeId, Leading>,
    /// What nodes wait for on their own behalf.
    pub(super) own: BTreeMap<CallId, (NodeId, Own)>,
    pub(super) hosts: Vec<Host>,
    /// Sessions as their nodes see them.
    pub(super) served: BTreeMap<u64, Served>,
    /// Counts sessions.
    pub(super) sessions: u64,
    pub(super) dead_streams: DeadStreams,
    /// Orders that each host was sent, to be sent again.
    pub(super) old_orders: BTreeMap<usize, Vec<SchedulerMessage>>,
    /// Where the waits of agents are counted from.
    pub(super) origin: Instant,
    pub(super) operator: Operator,
    /// Nodes whose disk was damaged: they may refuse to start.
    pub(super) damaged: BTreeSet<NodeId>,
    /// Nodes whose disk is about to fail: they may end themselves.
    pub(super) failing: BTreeSet<NodeId>,
    /// No more faults, and nothing new is begun.
    pub(super) quiet: bool,
    trace: bool,
    events: u64,
}

impl World {
    /// A cluster that is about to be founded.
    pub(super) fn new(seed: u64, trace: bool) -> Self {
        let mut dice = Dice::new(seed);
        let shape = Shape::roll(&mut dice);
        let network = Network::new(dice.fork());
        let mut world = Self {
            now: 0,
            queue: BTreeMap::new(),
            sequence: 0,
            network,
            ghost: Ghost::default(),
            servers: BTreeMap::new(),
            clients: Vec::new(),
            calls: 0,
            leading: BTreeMap::new(),
            own: BTreeMap::new(),
            hosts: Vec::new(),
            served: BTreeMap::new(),
            sessions: 0,
            dead_streams: DeadStreams::new(),
            old_orders: BTreeMap::new(),
            origin: Instant::now(),
            operator: Operator::default(),
            damaged: BTreeSet::new(),
            failing: BTreeSet::new(),
            quiet: false,
            trace,
            events: 0,
            dice,
            shape,
        };
        world.found();
        world
    }

    fn found(&mut self) {
        let members: Vec<Member> = (1..=self.shape.nodes).map(|id| member(NodeId(id))).collect();
        for member in &members {
            self.build(member.id, member.peer_address.clone());
        }
        for member in &members {
            self.start(member.id, &Start::Found { members: members.clone() });
        }
        for number in 0..self.shape.clients {
            self.clients.push(Client::new(self.shape.pace));
            let first = self.dice.below(1_000_000);
            self.after(first, Event::Client(number));
        }
        for number in 0..self.shape.hosts {
            self.hosts.push(Host::new(number, self.shape.sites));
            let first = self.dice.below(2_000_000);
            self.after(first, Event::StartAgent(number));
        }
        self.after(self.shape.first_fault, Event::Fault);
        self.after(0, Event::Operator);
    }

    /// A machine for a node.
    pub(super) fn build(&mut self, id: NodeId, address: String) {
        let snapshots = SnapshotPolicy {
            entries: self.shape.snapshot_entries,
            tail: self.shape.snapshot_tail,
            ..SnapshotPolicy::default()
        };
        self.servers.insert(id, Server::new(id, address, snapshots));
    }

    pub(super) fn at(&mut self, at: Micros, event: Event) {
        self.sequence += 1;
        self.queue.insert((at.max(self.now), self.sequence), event);
    }

    pub(super) fn after(&mut self, delay: Micros, event: Event) {
        self.at(self.now + delay, event);
    }

    /// Tells what happens, where somebody wants to know.
    pub(super) fn note(&self, what: impl FnOnce() -> String) {
        if self.trace {
            eprintln!("{:>10.6} {}", self.now as f64 / 1e6, what());
        }
    }

    /// Lets time pass until `end`, or until something does not hold.
    pub(super) fn run_until(&mut self, end: Micros) -> Result<(), Violation> {
        while let Some(((at, _), event)) = self.queue.pop_first() {
            if at >= end {
                self.at(at, event);
                break;
            }
            self.now = at;
            self.events += 1;
            self.happen(event);
            self.ghost.verdict()?;
        }
        self.now = end;
        Ok(())
    }

    /// How much has happened.
    pub(super) fn events(&self) -> u64 {
        self.events
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Tick(node, life) => self.on_tick(node, life),
            Event::Turn(node, life) => self.on_turn(node, life),
            Event::Written(node, life, ticket) => self.on_written(node, life, ticket),
            Event::SnapshotTime(node, life) => self.on_snapshot_time(node, life),
            Event::Peer { from, to, message } => self.on_peer(from, to, &message),
            Event::PeerSnapshot { from, to, message, content } => {
                self.on_peer_snapshot(from, to, &message, &content);
            }
            Event::SnapshotSent { from, to, good } => self.on_snapshot_sent(from, to, good),
            Event::Call { node, id, from, request } => self.on_call_event(node, id, from, request),
            Event::Answer { to, id, answer } => self.on_answer(to, id, answer),
            Event::Client(number) => self.on_client(number),
            Event::ClientGivesUp(number, id) => self.on_client_gives_up(number, id),
            Event::Lead(node, life, term) => self.on_lead(node, life, term),
            Event::OwnDeadline(node, id) => self.on_own_deadline(node, id),
            Event::AgentWake(host, life) => self.on_agent_wake(host, life),
            Event::Listing(host, life, kind, number) => self.on_listing(host, life, kind, number),
            Event::Act(host, life, job, step) => self.on_act(host, life, job, step),
            Event::Dial(host, life) => self.on_dial(host, life),
            Event::DialDeadline(host, life, session) => self.on_dial_deadline(host, life, session),
            Event::Beat(host, life, session) => self.on_beat(host, life, session),
            Event::SessionDead(host, session) => self.leave_session(host, session),
            Event::SessionGone(session) => self.on_session_gone(session),
            Event::SessionSilence(session) => self.on_session_silence(session),
            Event::ReportAgain(session) => self.on_report_again(session),
            Event::Hello { node, session, host, greeting } => self.on_hello(node, session, host, *greeting),
            Event::Up { node, session, message } => self.on_up(node, session, *message),
            Event::Down { host, session, message } => self.on_down(host, session, *message),
            Event::StartAgent(host) => self.start_agent(host),
            Event::RuntimeAnswers(host) => self.runtime_answers(host),
            Event::Fault => self.on_fault(),
            Event::Restart(node) => self.start(node, &Start::Again),
            Event::Resume(node) => self.resume(node),
            Event::HealNetwork => self.heal_network(),
            Event::HealDisk(node) => self.heal_disk(node),
            Event::Operator => self.on_operator(),
        }
    }

    /// The power goes out everywhere.
    pub(super) fn black_out(&mut self) {
        let nodes: Vec<NodeId> = self.servers.keys().copied().collect();
        for node in nodes {
            self.crash(node, Crash::PowerCut);
        }
    }
}

/// A founding member.
fn member(id: NodeId) -> Member {
    let address = format!("n{id}:1");
    Member { id, peer_address: address.clone(), api_address: address, kind: MemberKind::Voter }
}
