//! A simulated machine with a scheduler node: its disk, its clock, and the process that runs there or does not. What the product does with
//! threads and sockets is done here with events; what it decides is the product's own code.

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use futures::FutureExt as _;
use supercloud_scheduler::{
    core::SCHEDULER,
    heartbeats::Beat,
    raft::{
        ChangeError, Committed, Fatal, Member, NodeId, OpenError, PeerAddress, ProposeError, ReadError, Role,
        Settings, SnapshotPolicy, SnapshotToSend, Start, Status, StepError, Transport,
        files::Files as _,
        limits::TICK,
        simulated::{Process, SnapshotWork},
    },
    state::{Command, Entry, Outcome, State},
};
use tokio::sync::watch;

use super::{
    Micros,
    calls::{Answer, CallId, Change, Request},
    disk::{Crash, Disk, SimLog},
    leading,
    machine::Watched,
    network::{Place, Stream},
    world::{Event, World},
};

/// The cluster of every run.
pub(super) const CLUSTER: &str = "5117";
/// The world's clock at the beginning of every run, in milliseconds.
pub(super) const EPOCH_MILLIS: u64 = 1_700_000_000_000;
/// How long a turn waits for what comes with it: a wake-up of a thread.
const TURN_DELAY: (Micros, Micros) = (20, 200);
/// How long a snapshot is written beside the turns.
const SNAPSHOT_DELAY: (Micros, Micros) = (200, 50_000);

type Work<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// What waits for the log.
enum Waiting {
    Propose(Work<Result<Committed<Outcome>, ProposeError>>),
    /// The index that the leader confirmed, once it has.
    Read(Work<Result<u64, ReadError>>, Option<u64>),
    Change(Work<Result<Option<NodeId>, ChangeError>>),
    /// Heartbeats that came at a time in a term; they count once the leadership is confirmed.
    Beats(Work<Result<u64, ReadError>>, Vec<Beat>, u64, Duration),
}

/// What became of a call.
enum Ready {
    Answer(Answer),
    /// The leadership was confirmed with this index, and the heartbeats are the leader's to take in.
    Beats(Vec<Beat>, u64, Duration, u64),
}

/// A call that a process has taken and not answered.
struct Call {
    id: CallId,
    from: Place,
    waiting: Waiting,
}

/// One life of a process.
pub(super) struct Running {
    process: Process<Watched, SimLog>,
    states: watch::Receiver<State>,
    calls: Vec<Call>,
    /// Calls that were passed on to the leader: whose they are.
    passed_on: BTreeMap<CallId, (CallId, Place)>,
    tick: bool,
    turn_due: bool,
    writing: bool,
    snapshot: Option<SnapshotWork<Watched>>,
    /// Where the log was last compared with the others.
    compared: u64,
}

/// A machine.
pub(super) struct Server {
    pub(super) disk: Disk,
    settings: Settings,
    /// Counts the processes.
    pub(super) life: u64,
    pub(super) running: Option<Running>,
    /// Its process stands still.
    pub(super) paused: bool,
    /// It is not started any more: its disk is damaged, or it is no member.
    pub(super) given_up: bool,
    /// How far its clock is from the world's, in milliseconds.
    pub(super) skew: i64,
    /// How long a write takes to reach its disk.
    pub(super) write_delay: (Micros, Micros),
}

/// What a turn sent.
#[derive(Default)]
struct Sent {
    messages: Vec<(NodeId, Vec<u8>)>,
    snapshots: Vec<(NodeId, SnapshotToSend)>,
}

impl Transport for Sent {
    fn send(&mut self, to: &PeerAddress, message: Vec<u8>) {
        self.messages.push((to.id, message));
    }

    fn send_snapshot(&mut self, to: &PeerAddress, snapshot: SnapshotToSend) {
        self.snapshots.push((to.id, snapshot));
    }

    fn forget(&mut self, _id: NodeId) {}
}

/// How a disk is on a good day.
pub(super) const GOOD_DISK: (Micros, Micros) = (150, 900);

impl Server {
    pub(super) fn new(id: NodeId, address: String, snapshots: SnapshotPolicy) -> Self {
        let settings = Settings {
            cluster: CLUSTER.to_owned(),
            id,
            directory: PathBuf::from("/sim"),
            peer_address: address,
            snapshots,
            tick: TICK,
        };
        Self {
            disk: Disk::default(),
            settings,
            life: 0,
            running: None,
            paused: false,
            given_up: false,
            skew: 0,
            write_delay: GOOD_DISK,
        }
    }

    /// Its process, unless it is down or stands still.
    pub(super) fn acting(&mut self) -> Option<&mut Running> {
        if self.paused { None } else { self.running.as_mut() }
    }

    /// What the process says of itself.
    pub(super) fn status(&self) -> Option<Status> {
        self.running.as_ref().map(|running| running.process.log().status().borrow().clone())
    }

    /// The state as the process has published it.
    pub(super) fn state(&self) -> Option<State> {
        self.running.as_ref().map(|running| running.states.borrow().clone())
    }

    /// Milliseconds by its clock, `since` microseconds after the beginning of the run.
    pub(super) fn unix(&self, since: Micros) -> u64 {
        (EPOCH_MILLIS + since / 1000).saturating_add_signed(self.skew)
    }
}

impl Running {
    fn status(&self) -> Status {
        self.process.log().status().borrow().clone()
    }

    fn wait(&mut self, id: CallId, from: Place, waiting: Waiting) {
        self.calls.push(Call { id, from, waiting });
    }

    fn propose(&mut self, id: CallId, from: Place, entry: &Entry) {
        let (log, bytes) = (self.process.log().clone(), entry.encode());
        self.wait(id, from, Waiting::Propose(Box::pin(async move { log.propose(bytes).await })));
    }

    fn change(&mut self, id: CallId, from: Place, change: Change) {
        let log = self.process.log().clone();
        let work = async move {
            match change {
                Change::Add { peer_address } => {
                    log.add_learner(peer_address.clone(), peer_address).await.map(Some)
                }
                Change::Remove(node) => log.remove(node).await.map(|()| None),
                Change::Lead(node) => log.transfer_leadership(node).await.map(|()| None),
            }
        };
        self.wait(id, from, Waiting::Change(Box::pin(work)));
    }

    /// Answers of calls that are ready.
    fn ready(&mut self, node: NodeId) -> Vec<(CallId, Place, Ready)> {
        let applied = self.states.borrow().applied();
        let mut answers = Vec::new();
        self.calls.retain_mut(|call| {
            let answer = match &mut call.waiting {
                Waiting::Propose(work) => work.as_mut().now_or_never().map(|done| match done {
                    Ok(committed) => Answer::Done { index: committed.index, outcome: committed.outcome },
                    Err(ProposeError::NotLeader { .. } | ProposeError::Overloaded { .. }) => Answer::NotTaken,
                    Err(_) => Answer::Unknown,
                }),
                Waiting::Read(work, confirmed) => {
                    let failed = match confirmed {
                        Some(_) => false,
                        None => match work.as_mut().now_or_never() {
                            Some(Ok(index)) => {
                                *confirmed = Some(index);
                                false
                            }
                            Some(Err(_)) => true,
                            None => false,
                        },
                    };
                    match confirmed {
                        Some(index) if applied >= *index => Some(Answer::Read { node, index: *index }),
                        _ => failed.then_some(Answer::NoRead),
                    }
                }
                Waiting::Change(work) => work.as_mut().now_or_never().map(Answer::Changed),
                Waiting::Beats(work, beats, term, came) => match work.as_mut().now_or_never() {
                    Some(Ok(index)) => {
                        let ready = Ready::Beats(std::mem::take(beats), *term, *came, index);
                        answers.push((call.id, call.from, ready));
                        return false;
                    }
                    Some(Err(_)) => Some(Answer::NotTaken),
                    None => None,
                },
            };
            match answer {
                Some(answer) => {
                    answers.push((call.id, call.from, Ready::Answer(answer)));
                    false
                }
                None => true,
            }
        });
        answers
    }
}

impl World {
    /// Starts a node's process on what is on its disk.
    pub(super) fn start(&mut self, id: NodeId, start: &Start) {
        let life = self.dice.any();
        let Some(server) = self.servers.get_mut(&id).filter(|server| !server.given_up) else { return };
        if server.running.is_some() {
            return;
        }
        server.life += 1;
        self.ghost.knows_disk(id, &server.disk);
        let opened = server.disk.log().map_err(OpenError::from).and_then(|log| {
            let (machine, states) = Watched::new(id, self.ghost.clone());
            let files = Arc::new(server.disk.clone());
            Process::open(&server.settings, start, log, files, machine, life).map(|process| (process, states))
        });
        match opened {
            Ok((process, states)) => {
                server.running = Some(Running {
                    process,
                    states,
                    calls: Vec::new(),
                    passed_on: BTreeMap::new(),
                    tick: false,
                    turn_due: false,
                    writing: false,
                    snapshot: None,
                    compared: 0,
                });
                let life = server.life;
                let first = self.dice.below(TICK.as_micros() as u64);
                self.after(first, Event::Tick(id, life));
                self.wake(id);
            }
            Err(error) => {
                self.note(|| format!("node {id} refuses to start: {error}"));
                if !self.damaged.contains(&id) {
                    self.ghost.accuse(|| format!("node {id} refuses an honest disk: {error}"));
                }
                if let Some(server) = self.servers.get_mut(&id) {
                    server.given_up = true;
                }
            }
        }
    }

    /// Ends a node's process.
    pub(super) fn crash(&mut self, id: NodeId, how: Crash) {
        let Some(server) = self.servers.get_mut(&id) else { return };
        server.paused = false;
        let ran = server.running.take().is_some();
        if ran || how == Crash::PowerCut {
            server.disk.crash(how, &mut self.dice);
        }
        if ran {
            self.note(|| format!("node {id} ended: {how:?}"));
            self.sessions_broke(id);
        }
    }

    /// Sees to it that the node takes a turn soon.
    pub(super) fn wake(&mut self, id: NodeId) {
        let delay = self.dice.between(TURN_DELAY.0, TURN_DELAY.1);
        let Some(server) = self.servers.get_mut(&id) else { return };
        let life = server.life;
        let Some(running) = server.acting().filter(|running| !running.turn_due) else { return };
        running.turn_due = true;
        self.after(delay, Event::Turn(id, life));
    }

    pub(super) fn on_tick(&mut self, id: NodeId, life: u64) {
        let chance = self.dice.any();
        let Some(server) = self.servers.get_mut(&id).filter(|server| server.life == life) else { return };
        if server.running.is_none() {
            return;
        }
        if let Some(running) = server.acting() {
            running.process.stand_after(chance);
            running.tick = true;
        }
        self.after(TICK.as_micros() as u64, Event::Tick(id, life));
        self.wake(id);
    }

    pub(super) fn on_turn(&mut self, id: NodeId, life: u64) {
        let Some(server) = self.servers.get_mut(&id).filter(|server| server.life == life) else { return };
        if server.paused {
            if let Some(running) = &mut server.running {
                running.turn_due = false;
            }
            return;
        }
        let disk = server.disk.clone();
        let Some(running) = &mut server.running else { return };
        running.turn_due = false;
        let mut sent = Sent::default();
        let tick = std::mem::take(&mut running.tick);
        // A panic ends the process of a real node.
        let turn = catch_unwind(AssertUnwindSafe(|| running.process.turn(tick, &mut sent)));
        let Ok(turn) = turn else {
            return self.ghost.accuse(|| format!("node {id} panicked"));
        };
        match turn {
            Ok((more, snapshot)) => {
                let from = running.compared;
                // What is on its way to the disk binds nobody: a lone voter leads before its own vote is there.
                disk.durable(|log| {
                    self.ghost.log(id, log, from.min(log.last_index()));
                    running.compared = log.last_index();
                });
                if let Some(work) = snapshot {
                    running.snapshot = Some(work);
                    let delay = self.dice.between(SNAPSHOT_DELAY.0, SNAPSHOT_DELAY.1);
                    self.after(delay, Event::SnapshotTime(id, life));
                }
                self.send(id, sent);
                self.begin_writing(id);
                if more {
                    self.wake(id);
                }
                self.after_turn(id);
            }
            Err(fatal) => self.fatal(id, &fatal),
        }
    }

    fn fatal(&mut self, id: NodeId, fatal: &Fatal) {
        self.note(|| format!("node {id} cannot go on: {fatal}"));
        if !self.failing.remove(&id) && !self.damaged.contains(&id) {
            self.ghost.accuse(|| format!("node {id} ended itself without a reason: {fatal}"));
        }
        self.crash(id, Crash::Killed);
    }

    fn send(&mut self, from: NodeId, sent: Sent) {
        for (to, message) in sent.messages {
            let arrivals = self.network.arrivals(self.now, Place::Node(from), Place::Node(to), Stream::Log);
            if arrivals.is_empty() {
                self.unreachable(from, to);
            }
            for at in arrivals {
                self.at(at, Event::Peer { from, to, message: message.clone() });
            }
        }
        for (to, snapshot) in sent.snapshots {
            // What is read before the sending fails with the file that is gone.
            let content = self.servers.get(&from).and_then(|server| server.disk.content(&snapshot.file));
            let arrivals =
                self.network.arrivals(self.now, Place::Node(from), Place::Node(to), Stream::Snapshots);
            match (content, arrivals.first()) {
                (Some(content), Some(at)) => {
                    let message = snapshot.message;
                    self.at(*at, Event::PeerSnapshot { from, to, message, content });
                }
                _ => self.tell_sent(from, to, false),
            }
        }
    }

    fn unreachable(&mut self, from: NodeId, to: NodeId) {
        if let Some(running) = self.servers.get_mut(&from).and_then(Server::acting) {
            running.process.reports().unreachable(to);
        }
    }

    /// The sender of a snapshot learns what became of it.
    fn tell_sent(&mut self, from: NodeId, to: NodeId, good: bool) {
        if let Some(running) = self.servers.get_mut(&from).and_then(|server| server.running.as_mut()) {
            running.process.reports().snapshot_sent(to, good);
            self.wake(from);
        }
    }

    pub(super) fn on_peer(&mut self, from: NodeId, to: NodeId, message: &[u8]) {
        let Some(running) = self.servers.get_mut(&to).and_then(|server| server.running.as_mut()) else {
            return;
        };
        match running.process.log().step(from, message) {
            Ok(()) => self.wake(to),
            Err(StepError::SenderRemoved { .. }) => self.tell_removed(from),
            Err(error) => {
                self.ghost.accuse(|| format!("node {to} refuses a message of node {from}: {error}"))
            }
        }
    }

    fn tell_removed(&mut self, id: NodeId) {
        if let Some(running) = self.servers.get_mut(&id).and_then(|server| server.running.as_mut()) {
            running.process.reports().removed();
            self.wake(id);
        }
    }

    pub(super) fn on_peer_snapshot(&mut self, from: NodeId, to: NodeId, message: &[u8], content: &[u8]) {
        let taken = self.servers.get_mut(&to).filter(|server| !server.paused).and_then(|server| {
            let disk = server.disk.clone();
            let running = server.running.as_mut()?;
            let path = running.process.log().snapshot_path();
            let mut file = disk.create(&path).ok()?;
            file.write_all(content).and_then(|()| file.sync()).ok()?;
            Some(running.process.log().take_snapshot(from, message, &path))
        });
        match taken {
            Some(Ok(())) => self.wake(to),
            Some(Err(StepError::SenderRemoved { .. })) => self.tell_removed(from),
            // Damaged on the sender's disk, or no disk to write to.
            Some(Err(_)) | None => {}
        }
        let good = matches!(taken, Some(Ok(())));
        let answers = self.network.arrivals(self.now, Place::Node(to), Place::Node(from), Stream::Snapshots);
        let at = answers.first().copied().unwrap_or(self.now);
        self.at(at, Event::SnapshotSent { from, to, good: good && !answers.is_empty() });
    }

    pub(super) fn on_snapshot_sent(&mut self, from: NodeId, to: NodeId, good: bool) {
        self.tell_sent(from, to, good);
    }

    pub(super) fn on_snapshot_time(&mut self, id: NodeId, life: u64) {
        let Some(server) = self.servers.get_mut(&id).filter(|server| server.life == life) else { return };
        let Some(running) = &mut server.running else { return };
        let Some(work) = running.snapshot.take() else { return };
        running.process.snapshot_written(work.run());
        self.wake(id);
    }

    /// The disk begins with what was handed over, unless it is busy.
    fn begin_writing(&mut self, id: NodeId) {
        let Some(server) = self.servers.get_mut(&id) else { return };
        let Some(ticket) = server.disk.untold() else { return };
        let (life, (low, high)) = (server.life, server.write_delay);
        let Some(running) = server.running.as_mut().filter(|running| !running.writing) else { return };
        running.writing = true;
        let delay = self.dice.between(low, high);
        self.after(delay, Event::Written(id, life, ticket));
    }

    pub(super) fn on_written(&mut self, id: NodeId, life: u64, ticket: u64) {
        let Some(server) = self.servers.get_mut(&id).filter(|server| server.life == life) else { return };
        let disk = server.disk.clone();
        let Some(running) = &mut server.running else { return };
        running.writing = false;
        let outcome = disk.complete(ticket);
        running.process.written(outcome.map(|()| ticket));
        self.wake(id);
        self.begin_writing(id);
    }

    /// A call reaches a node.
    pub(super) fn on_call(&mut self, node: NodeId, id: CallId, from: Place, request: Request) {
        let Some(server) = self.servers.get_mut(&node) else { return };
        let (unix, boot) = (server.unix(self.now), leading::boot(self.now));
        // What comes to a process that stands still waits in its socket; here it is lost, and the caller gives up.
        let Some(running) = server.acting() else { return };
        let status = running.status();
        let leads = status.role == Role::Leader;
        match request {
            Request::Propose { mut entry, passed_on } => match leader_of(&status) {
                _ if leads => {
                    entry.time = unix;
                    running.propose(id, from, &entry);
                }
                Some(leader) if !passed_on => {
                    let request = Request::Propose { entry, passed_on: true };
                    return self.pass_on_call(node, leader.id, id, from, request);
                }
                _ => return self.answer(node, from, id, Answer::NotTaken),
            },
            Request::Read => {
                let log = running.process.log().clone();
                running.wait(id, from, Waiting::Read(Box::pin(async move { log.read_index().await }), None));
            }
            Request::Change(change) => running.change(id, from, change),
            Request::Beats { beats, passed_on } => match leader_of(&status) {
                _ if leads => {
                    let log = running.process.log().clone();
                    let work = Box::pin(async move { log.read_index().await });
                    running.wait(id, from, Waiting::Beats(work, beats, status.term, boot));
                }
                Some(leader) if !passed_on => {
                    let request = Request::Beats { beats, passed_on: true };
                    return self.pass_on_call(node, leader.id, id, from, request);
                }
                _ => return self.answer(node, from, id, Answer::NotTaken),
            },
        }
        self.wake(node);
    }

    /// Sends a call on to the node that leads; its answer goes back to whoever asked.
    fn pass_on_call(&mut self, node: NodeId, leader: NodeId, id: CallId, from: Place, request: Request) {
        let next = self.next_call();
        if let Some(running) = self.servers.get_mut(&node).and_then(Server::acting) {
            running.passed_on.insert(next, (id, from));
        }
        self.call(Place::Node(node), leader, next, request);
    }

    /// An answer reaches the node that passed the call on.
    pub(super) fn on_passed_on(&mut self, node: NodeId, id: CallId, answer: Answer) {
        let Some(running) = self.servers.get_mut(&node).and_then(|server| server.running.as_mut()) else {
            return;
        };
        if let Some((call, from)) = running.passed_on.remove(&id) {
            self.answer(node, from, call, answer);
        }
    }

    /// What follows from a turn outside of the log: answers, and whatever the node does while it leads.
    fn after_turn(&mut self, id: NodeId) {
        let Some(running) = self.servers.get_mut(&id).and_then(|server| server.running.as_mut()) else {
            return;
        };
        let status = running.status();
        if status.role == Role::Leader {
            self.ghost.leads(id, status.term);
        }
        let ready = running.ready(id);
        self.lead(id, &status);
        for (call, from, ready) in ready {
            let answer = match ready {
                Ready::Answer(answer) => answer,
                // The confirmation may have come from a later leader.
                Ready::Beats(_, term, ..) if status.role != Role::Leader || status.term != term => {
                    Answer::NotTaken
                }
                Ready::Beats(beats, term, came, index) => self.take_in(id, term, &beats, came, index),
            };
            self.answer(id, from, call, answer);
        }
        self.serve_sessions(id);
    }

    /// Proposes what the scheduler decides by itself, if the node leads.
    pub(super) fn propose_here(&mut self, id: NodeId, call: CallId, command: Command) {
        let Some(server) = self.servers.get_mut(&id) else { return };
        let unix = server.unix(self.now);
        let Some(running) = server.acting() else { return };
        let entry = Entry { time: unix, by: SCHEDULER.to_owned(), request_id: String::new(), command };
        running.propose(call, Place::Node(id), &entry);
        self.wake(id);
    }
}

fn leader_of(status: &Status) -> Option<&Member> {
    status.leader.filter(|leader| *leader != status.id).and_then(|leader| status.members.get(leader))
}
