//! Simulated machines with agents: a runtime that keeps its objects whatever becomes of the agent, a ledger, a boot clock, and the agent's own
//! decisions (`keeper`, `heartbeats`) between them. What the product does with tasks and sockets is done here with events.

use std::{collections::BTreeMap, time::Duration};

use supercloud_agent::{
    driver::{DriverError, Mark, Owner, Phase, Seen, TaskRun},
    executor::{Event as Outcome, StartError},
    keeper::{Decision, FromSession, Keeper, Listed, Moment},
    ledger::Memory,
    reconcile::{Action, Now, Object},
    session::heartbeats::Heartbeats,
};
use supercloud_proto::{
    id::InstanceId,
    name::{HostName, TaskName, WorkloadKey},
    order::Order,
    spec::DriverKind,
    v1::{self, agent_message::Message as Up, scheduler_message::Message as Down},
};
use supercloud_scheduler::raft::NodeId;
use tokio::{sync::mpsc, time::Instant};

use super::{
    Micros,
    network::{Place, Stream},
    server::{CLUSTER, EPOCH_MILLIS},
    shape::SECOND,
    specs,
    world::{Event, World},
};

/// How long a listing takes.
const LISTING: (Micros, Micros) = (1_000, 60_000);
/// How long a preparation takes.
const PREPARING: (Micros, Micros) = (5_000, 1_500_000);
/// How long the runtime takes to start something.
const STARTING: (Micros, Micros) = (20_000, 700_000);
/// How long it takes to remove something.
const REMOVING: (Micros, Micros) = (5_000, 200_000);
/// Messages that may wait for the node.
const UP_QUEUE: usize = 64;
/// How long a node may take to welcome.
const OPEN_DEADLINE: Micros = 10 * SECOND;
/// Pause before the next attempt.
const REDIAL: (Micros, Micros) = (100_000, 1_500_000);
/// When an agent notices that its connection is dead, if no heartbeat tells it sooner.
const NOTICES: (Micros, Micros) = (SECOND, 10 * SECOND);

/// Something that runs, and what it takes of the host.
#[derive(Debug, Clone)]
struct Thing {
    seen: Seen,
    order: std::sync::Arc<Order>,
}

/// What an agent does for an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Job {
    number: u64,
    cancelled: bool,
}

/// What is due of an action.
#[derive(Debug, Clone)]
pub(super) enum Step {
    /// A task was made ready.
    Prepared(Box<TaskRun>, bool),
    /// The runtime has started it, or would.
    Started(Box<TaskRun>, bool),
    /// The runtime has stopped these.
    Stopped(InstanceId, Vec<Object>),
    /// The runtime has removed these.
    Removed(InstanceId, Vec<Object>),
}

/// The agent's end of a session.
struct Session {
    number: u64,
    node: NodeId,
    /// Once the node has welcomed.
    standing: Option<(Heartbeats, mpsc::Receiver<v1::AgentMessage>)>,
}

/// One life of an agent.
pub(super) struct Agent {
    keeper: Keeper,
    session: Option<Session>,
    jobs: BTreeMap<InstanceId, Job>,
    wake_at: Micros,
}

/// A machine.
pub(super) struct Host {
    name: HostName,
    site: String,
    things: BTreeMap<(InstanceId, TaskName), Thing>,
    ledger: Memory,
    /// Counts boots, and when the present one began.
    boot: u64,
    booted: Micros,
    /// How far its clock is from the world's, in milliseconds.
    pub(super) skew: i64,
    /// Counts agents.
    pub(super) life: u64,
    agent: Option<Agent>,
    /// Its runtime does not answer.
    pub(super) silent: bool,
    jobs: u64,
    incarnations: u64,
}

impl Host {
    pub(super) fn new(number: usize, sites: usize) -> Self {
        let mut host = Self {
            name: specs::name(&format!("h{number}")),
            site: format!("s{}", number % sites.max(1)),
            things: BTreeMap::new(),
            ledger: Memory::begin(""),
            boot: 1,
            booted: 0,
            skew: 0,
            life: 0,
            agent: None,
            silent: false,
            jobs: 0,
            incarnations: 0,
        };
        host.lose_ledger();
        host
    }

    pub(super) fn name(&self) -> &HostName {
        &self.name
    }

    /// Begins a new ledger.
    pub(super) fn lose_ledger(&mut self) {
        self.incarnations += 1;
        self.ledger = Memory::begin(&format!("{}-{}", self.name, self.incarnations));
    }

    fn moment(&self, now: Micros, origin: Instant) -> Moment {
        let unix = (EPOCH_MILLIS + now / 1000).saturating_add_signed(self.skew);
        let boot = (now - self.booted) / 1000;
        Moment { now: Now { unix, boot }, at: origin + Duration::from_micros(now) }
    }

    fn boot_id(&self) -> String {
        format!("boot-{}", self.boot)
    }

    /// Whether its agent runs.
    pub(super) fn is_up(&self) -> bool {
        self.agent.is_some()
    }

    /// Instances that run here.
    pub(super) fn running(&self) -> Vec<InstanceId> {
        let runs = |thing: &&Thing| matches!(thing.seen.phase, Phase::Running { .. });
        self.things.values().filter(runs).map(|thing| thing.seen.mark.instance).collect()
    }

    fn running_things(&self) -> impl Iterator<Item = &Thing> {
        self.things.values().filter(|thing| matches!(thing.seen.phase, Phase::Running { .. }))
    }

    /// Ends all that runs here, as the power does.
    fn end_all(&mut self, reason: &str) {
        for thing in self.things.values_mut() {
            if matches!(thing.seen.phase, Phase::Running { .. }) {
                thing.seen.phase = Phase::Ended { exit_code: None, at: None, reason: reason.to_owned() };
            }
        }
    }

    /// One task of those that run ends by itself.
    pub(super) fn end_one(&mut self, at: u64) {
        let mut running: Vec<&mut Thing> = self
            .things
            .values_mut()
            .filter(|thing| matches!(thing.seen.phase, Phase::Running { .. }))
            .collect();
        let count = running.len() as u64;
        if let Some(thing) = running.get_mut(at.checked_rem(count).unwrap_or(0) as usize) {
            thing.seen.phase =
                Phase::Ended { exit_code: Some(1), at: None, reason: "exit code 1".to_owned() };
        }
    }

    fn set_phase(&mut self, mark: &Mark, phase: Phase) {
        if let Some(thing) = self.things.get_mut(&(mark.instance, mark.task.clone())) {
            thing.seen.phase = phase;
        }
    }

    fn hello(&self) -> Greeting {
        Greeting {
            host: self.name.clone(),
            inventory: specs::inventory(&self.site, &self.boot_id(), !self.silent),
            incarnation: self.ledger.contents().incarnation,
        }
    }
}

/// A hello, as its node understands it.
pub(super) type Greeting = supercloud_scheduler::sessions::Greeted;

impl World {
    fn host_moment(&self, host: usize) -> Option<Moment> {
        self.hosts.get(host).map(|machine| machine.moment(self.now, self.origin))
    }

    /// Starts a host's agent.
    pub(super) fn start_agent(&mut self, number: usize) {
        let (now, origin) = (self.now, self.origin);
        let Some(host) = self.hosts.get_mut(number).filter(|host| host.agent.is_none()) else { return };
        let owner = Owner { cluster: CLUSTER.to_owned(), host: host.name.clone() };
        let moment = host.moment(now, origin);
        let contents = host.ledger.contents();
        let kinds = vec![DriverKind::Docker];
        let mut keeper = Keeper::new(owner, host.boot_id(), kinds, contents, moment);
        host.ledger.write(keeper.prune());
        host.life += 1;
        host.agent = Some(Agent { keeper, session: None, jobs: BTreeMap::new(), wake_at: 0 });
        let life = host.life;
        let first = self.dice.between(REDIAL.0, REDIAL.1);
        self.after(first, Event::Dial(number, life));
        self.agent_turn(number);
    }

    /// Ends an agent's process; what runs goes on.
    pub(super) fn crash_agent(&mut self, number: usize) {
        if let Some(host) = self.hosts.get_mut(number)
            && let Some(agent) = host.agent.take()
        {
            host.life += 1;
            if let Some(session) = agent.session {
                self.session_ended_by_agent(session.number);
            }
            self.note(|| format!("the agent of host {number} ended"));
        }
    }

    /// The machine loses its power.
    pub(super) fn power_off(&mut self, number: usize) {
        self.crash_agent(number);
        let now = self.now;
        if let Some(host) = self.hosts.get_mut(number) {
            host.end_all("the host went down");
            host.boot += 1;
            host.booted = now;
        }
    }

    /// What the agent's loop does after whatever has happened: looks, decides, writes down, begins, reports.
    fn agent_turn(&mut self, number: usize) {
        let Some(moment) = self.host_moment(number) else { return };
        let Some(host) = self.hosts.get_mut(number) else { return };
        let life = host.life;
        let Some(agent) = &mut host.agent else { return };
        let listings = agent.keeper.begin_listings(moment.at);
        let Decision { batch, actions, cancels } = agent.keeper.decide(moment);
        host.ledger.write(batch);
        for id in cancels {
            if let Some(job) = agent.jobs.get_mut(&id) {
                job.cancelled = true;
            }
        }
        agent.keeper.report(moment.at);
        let wake = agent.keeper.next_wake(moment);
        let wake_at = self.now + wake.saturating_duration_since(moment.at).as_micros() as u64;
        agent.wake_at = wake_at;
        for (kind, listing) in listings {
            let delay = self.dice.between(LISTING.0, LISTING.1);
            self.after(delay, Event::Listing(number, life, kind, listing));
        }
        for action in actions {
            self.begin_action(number, life, action);
        }
        self.at(wake_at.max(self.now + 1), Event::AgentWake(number, life));
        self.send_up(number);
    }

    pub(super) fn on_agent_wake(&mut self, number: usize, life: u64) {
        let due = |host: &&mut Host| {
            host.life == life && host.agent.as_ref().is_some_and(|agent| agent.wake_at <= self.now)
        };
        if self.hosts.get_mut(number).filter(due).is_some() {
            self.agent_turn(number);
        }
    }

    pub(super) fn on_listing(&mut self, number: usize, life: u64, kind: DriverKind, listing: u64) {
        let Some(moment) = self.host_moment(number) else { return };
        let Some(host) = self.hosts.get_mut(number).filter(|host| host.life == life) else { return };
        let result = if host.silent {
            Err(silence())
        } else {
            Ok(host.things.values().map(|thing| thing.seen.clone()).collect())
        };
        let Some(agent) = &mut host.agent else { return };
        agent.keeper.on_listing(Listed { kind, number: listing, result }, moment);
        // Its state goes to the node with the next heartbeat.
        let _ = agent.keeper.take_doubts();
        self.agent_turn(number);
    }

    fn begin_action(&mut self, number: usize, life: u64, action: Action) {
        let Some(host) = self.hosts.get_mut(number) else { return };
        host.jobs += 1;
        let job = Job { number: host.jobs, cancelled: false };
        if let Some(agent) = &mut host.agent {
            agent.jobs.insert(action.instance(), job);
        }
        let (delay, step) = match action {
            Action::Start { run, counted } => {
                (self.dice.between(PREPARING.0, PREPARING.1), Step::Prepared(Box::new(run), counted))
            }
            Action::Stop { instance, objects, grace } => {
                (self.dice.between(1_000, (grace * 1000).max(2_000)), Step::Stopped(instance, objects))
            }
            Action::Remove { instance, objects } => {
                (self.dice.between(REMOVING.0, REMOVING.1), Step::Removed(instance, objects))
            }
        };
        self.after(delay, Event::Act(number, life, job.number, step));
    }

    /// A part of an action is over. What the runtime was asked for happens, whether or not the agent that asked still lives.
    pub(super) fn on_act(&mut self, number: usize, life: u64, job: u64, step: Step) {
        let Some(host) = self.hosts.get_mut(number) else { return };
        let lives = host.life == life;
        let outcome = match step {
            Step::Prepared(run, counted) => {
                let instance = run.mark.instance;
                let known = host.agent.as_ref().and_then(|agent| agent.jobs.get(&instance)).copied();
                let Some(known) = known.filter(|known| lives && known.number == job) else { return };
                if known.cancelled {
                    Outcome::Started { run, counted, result: Err(StartError::Cancelled) }
                } else {
                    let delay = self.dice.between(STARTING.0, STARTING.1);
                    self.after(delay, Event::Act(number, life, job, Step::Started(run, counted)));
                    Outcome::Prepared { instance }
                }
            }
            Step::Started(run, counted) => {
                let result = self.run(number, &run);
                Outcome::Started { run, counted, result: result.map_err(StartError::Driver) }
            }
            Step::Stopped(instance, objects) => {
                let result = if host.silent { Err(silence()) } else { Ok(()) };
                if result.is_ok() {
                    for object in &objects {
                        let reason = "killed by signal 15".to_owned();
                        let phase = Phase::Ended { exit_code: Some(143), at: None, reason };
                        host.set_phase(&object.seen.mark, phase);
                    }
                }
                Outcome::Cleared { instance, result }
            }
            Step::Removed(instance, objects) => {
                let result = if host.silent { Err(silence()) } else { Ok(()) };
                if result.is_ok() {
                    for object in &objects {
                        let mark = &object.seen.mark;
                        host.things.remove(&(mark.instance, mark.task.clone()));
                    }
                }
                Outcome::Cleared { instance, result }
            }
        };
        if !lives {
            return;
        }
        let Some(moment) = self.host_moment(number) else { return };
        let Some(host) = self.hosts.get_mut(number) else { return };
        let Some(agent) = &mut host.agent else { return };
        let batch = agent.keeper.on_event(outcome, moment);
        host.ledger.write(batch);
        let _ = agent.keeper.take_doubts();
        self.agent_turn(number);
    }

    /// The runtime starts a task, under the eyes of the observer (I3, I4).
    fn run(&mut self, number: usize, run: &TaskRun) -> Result<Seen, DriverError> {
        let Some(host) = self.hosts.get_mut(number) else { return Err(DriverError::Missing) };
        if host.silent {
            return Err(silence());
        }
        let key = (run.mark.instance, run.mark.task.clone());
        let phase = Phase::Running { since: None };
        let thing = host.things.entry(key).or_insert_with(|| Thing {
            seen: Seen {
                mark: run.mark.clone(),
                runtime_id: format!("{}", run.mark.instance),
                phase: phase.clone(),
            },
            order: run.order.clone(),
        });
        thing.seen.phase = phase;
        let seen = thing.seen.clone();
        self.note(|| format!("host {number} runs {} of {}", run.mark.instance, run.mark.workload));
        self.judge_start(number, &run.order);
        Ok(seen)
    }

    fn judge_start(&mut self, number: usize, order: &Order) {
        if order.exclusive {
            let same = |(at, thing): (usize, &Thing)| {
                let twin = thing.order.workload == order.workload && thing.order.slot == order.slot;
                let other = at != number || thing.order.instance != order.instance;
                (twin && other).then_some((at, thing.order.instance))
            };
            let everywhere = self.hosts.iter().enumerate();
            let twin = everywhere
                .flat_map(|(at, host)| host.running_things().map(move |thing| (at, thing)))
                .find_map(same);
            if let Some((at, twin)) = twin {
                let (workload, slot): (&WorkloadKey, u32) = (&order.workload, order.slot);
                self.ghost.accuse(|| {
                    format!(
                        "I3: host {number} runs {} of exclusive {workload} slot {slot}, and host {at} runs {twin}",
                        order.instance
                    )
                });
            }
        }
        let Some(host) = self.hosts.get(number) else { return };
        let (mut cpu, mut memory) = (0, 0);
        for thing in host.running_things() {
            let amounts = thing.order.resources.amounts();
            cpu += amounts.cpu.0;
            memory += amounts.memory.0;
        }
        let has = specs::inventory(&host.site, "", true).capacity;
        if cpu > has.cpu.0 || memory > has.memory.0 {
            let things: Vec<String> = host.running().iter().map(ToString::to_string).collect();
            let things = things.join(", ");
            self.ghost.accuse(|| format!("I4: host {number} runs more than it can bear: {things}"));
        }
    }

    /// An agent tries to open a session with some node.
    pub(super) fn on_dial(&mut self, number: usize, life: u64) {
        let nodes: Vec<NodeId> = self.servers.keys().copied().collect();
        let Some(node) = self.dice.pick(&nodes).copied() else { return };
        let Some(host) = self.hosts.get_mut(number).filter(|host| host.life == life) else { return };
        let greeting = host.hello();
        let Some(agent) = host.agent.as_mut().filter(|agent| agent.session.is_none()) else { return };
        self.sessions += 1;
        let session = self.sessions;
        agent.session = Some(Session { number: session, node, standing: None });
        self.after(OPEN_DEADLINE, Event::DialDeadline(number, life, session));
        let at =
            self.network.arrivals(self.now, Place::Host(number), Place::Node(node), Stream::Session(session));
        if let Some(at) = at.first() {
            self.at(*at, Event::Hello { node, session, host: number, greeting: Box::new(greeting) });
        }
    }

    pub(super) fn on_dial_deadline(&mut self, number: usize, life: u64, session: u64) {
        let Some(host) = self.hosts.get(number).filter(|host| host.life == life) else { return };
        let opened = host.agent.as_ref().and_then(|agent| agent.session.as_ref());
        if opened.is_some_and(|open| open.number == session && open.standing.is_none()) {
            self.leave_session(number, session);
        }
    }

    /// The agent gives a session up, and tries again a little later.
    pub(super) fn leave_session(&mut self, number: usize, session: u64) {
        let Some(host) = self.hosts.get_mut(number) else { return };
        let life = host.life;
        let Some(agent) = &mut host.agent else { return };
        if agent.session.as_ref().is_none_or(|open| open.number != session) {
            return;
        }
        agent.session = None;
        let batch = agent.keeper.on_session(FromSession::Closed);
        host.ledger.write(batch);
        self.session_ended_by_agent(session);
        let pause = self.dice.between(REDIAL.0, REDIAL.1);
        self.after(pause, Event::Dial(number, life));
        self.agent_turn(number);
    }

    /// The node's end is gone; the agent learns it now or later.
    pub(super) fn session_broke(&mut self, number: usize, session: u64, at_once: bool) {
        let notices = if at_once { 1_000 } else { self.dice.between(NOTICES.0, NOTICES.1) };
        self.after(notices, Event::SessionDead(number, session));
    }

    /// Something comes down to the agent.
    pub(super) fn on_down(&mut self, number: usize, session: u64, message: v1::SchedulerMessage) {
        let Some(moment) = self.host_moment(number) else { return };
        let Some(host) = self.hosts.get_mut(number) else { return };
        let life = host.life;
        let Some(agent) = &mut host.agent else { return };
        let Some(open) = agent.session.as_mut().filter(|open| open.number == session) else { return };
        let for_keeper = match message.message {
            Some(Down::Welcome(welcome)) => {
                let heartbeats = Heartbeats::new(welcome.heartbeat_every_ms, welcome.lease_ms, moment.at);
                let (up, queue) = mpsc::channel(UP_QUEUE);
                open.standing = Some((heartbeats, queue));
                self.after(0, Event::Beat(number, life, session));
                FromSession::Opened { lease: welcome.lease_ms, up }
            }
            Some(Down::Orders(orders)) => FromSession::Orders(orders.into()),
            Some(Down::HeartbeatAck(ack)) => {
                let Some((heartbeats, _)) = &mut open.standing else { return };
                let Some(sent) = heartbeats.answer(ack.sequence, moment.at) else { return };
                FromSession::Heard { sent }
            }
            Some(Down::ReportsAck(ack)) => FromSession::Confirmed { sequence: ack.sequence },
            Some(Down::Refused(_)) => return self.leave_session(number, session),
            Some(Down::OpenStream(_)) | None => return,
        };
        if let Some(host) = self.hosts.get_mut(number)
            && let Some(agent) = &mut host.agent
        {
            let batch = agent.keeper.on_session(for_keeper);
            host.ledger.write(batch);
        }
        self.agent_turn(number);
    }

    /// Time for a heartbeat.
    pub(super) fn on_beat(&mut self, number: usize, life: u64, session: u64) {
        let Some(moment) = self.host_moment(number) else { return };
        let Some(host) = self.hosts.get_mut(number).filter(|host| host.life == life) else { return };
        let inventory = host.hello().inventory;
        let Some(agent) = &mut host.agent else { return };
        let Some(open) = agent.session.as_mut().filter(|open| open.number == session) else { return };
        let node = open.node;
        let Some((heartbeats, _)) = &mut open.standing else { return };
        if heartbeats.deafness(moment.at).is_some() {
            return self.leave_session(number, session);
        }
        let every = heartbeats.every().as_micros() as u64;
        let sequence = heartbeats.begin(moment.now.boot);
        let drivers = v1::Inventory::from(inventory).drivers;
        self.after(every, Event::Beat(number, life, session));
        self.up(number, node, session, Up::Heartbeat(v1::Heartbeat { sequence, drivers, used: None }));
    }

    /// Carries what the agent's loop has handed to its session.
    fn send_up(&mut self, number: usize) {
        let Some(host) = self.hosts.get_mut(number) else { return };
        let Some(open) = host.agent.as_mut().and_then(|agent| agent.session.as_mut()) else { return };
        let (session, node) = (open.number, open.node);
        let Some((_, queue)) = &mut open.standing else { return };
        let mut messages = Vec::new();
        while let Ok(message) = queue.try_recv() {
            messages.extend(message.message);
        }
        for message in messages {
            self.up(number, node, session, message);
        }
    }

    fn up(&mut self, number: usize, node: NodeId, session: u64, message: Up) {
        let (from, to) = (Place::Host(number), Place::Node(node));
        if self.is_stream_dead(session, from, to) {
            return;
        }
        let arrival = self.network.arrivals(self.now, from, to, Stream::Session(session)).first().copied();
        match arrival {
            Some(at) => self.at(at, Event::Up { node, session, message: Box::new(message) }),
            None => self.stream_died(session, from, to, number),
        }
    }
}

fn silence() -> DriverError {
    DriverError::Silent { runtime: "docker", reason: "simulated silence".to_owned() }
}
