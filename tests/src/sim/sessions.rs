//! The nodes' ends of agents' sessions, and the streams between both ends. A stream never skips: what cannot get through kills it, and each end
//! notices by itself.

use std::collections::{BTreeSet, VecDeque};

use supercloud_proto::{
    host::drivers_from_wire,
    id::{HostId, LogIndex},
    instance::InstanceReport,
    order::Order,
    v1::{self, agent_message::Message as Up, scheduler_message::Message as Down},
};
use supercloud_scheduler::{
    heartbeats::Beat,
    raft::NodeId,
    sessions::{Admission, Greeted, admission},
    state::{Command, Done, Entry},
};

use super::{
    Micros,
    calls::{Answer, CallId, Request},
    leading::Own,
    network::{Place, Stream},
    server::CLUSTER,
    shape::SECOND,
    world::{Event, World},
};

/// Reports of one command.
const MAX_REPORTS: usize = 500;
/// A session whose agent says nothing for so long is ended.
const SILENCE: Micros = 30 * SECOND;
/// An answer of the log that does not come within this counts as unknown.
const PATIENCE: Micros = 3 * SECOND;
/// Pause before the same is proposed again.
const AGAIN: Micros = SECOND / 2;

/// A session as its node sees it.
pub(super) struct Served {
    pub(super) node: NodeId,
    /// The machine's number.
    pub(super) at: usize,
    greeted: Greeted,
    heard: Micros,
    /// Once it stands: the host, and up to where its orders were sent.
    standing: Option<(HostId, LogIndex)>,
    reports: VecDeque<InstanceReport>,
    /// Reports under way, with their highest sequence.
    reporting: Option<(u64, Vec<InstanceReport>)>,
    /// The heartbeat under way, and the latest that came meanwhile.
    beating: Option<Beat>,
    next_beat: Option<Beat>,
    /// A heartbeat is answered once this index is applied here.
    confirmed: Option<(LogIndex, u64)>,
    /// The registration is in, and is waited for here.
    registered: Option<(HostId, LogIndex)>,
}

/// Ways of streams on which something got lost.
pub(super) type DeadStreams = BTreeSet<(u64, Place, Place)>;

impl World {
    pub(super) fn is_stream_dead(&self, session: u64, from: Place, to: Place) -> bool {
        self.dead_streams.contains(&(session, from, to))
    }

    /// Something got lost on a stream: nothing comes after it.
    pub(super) fn stream_died(&mut self, session: u64, from: Place, to: Place, host: usize) {
        if self.dead_streams.insert((session, from, to)) {
            self.session_broke(host, session, false);
        }
    }

    /// The agent's end is gone; the node may learn it much later, or by the next session.
    pub(super) fn session_ended_by_agent(&mut self, session: u64) {
        let Some(served) = self.served.get(&session) else { return };
        let (from, to) = (Place::Host(served.at), Place::Node(served.node));
        let arrival = self.network.arrivals(self.now, from, to, Stream::Session(session)).first().copied();
        if let Some(at) = arrival.filter(|_| !self.is_stream_dead(session, from, to)) {
            self.at(at, Event::SessionGone(session));
        }
    }

    pub(super) fn on_session_gone(&mut self, session: u64) {
        self.served.remove(&session);
    }

    /// A node's process has ended, and all its sessions with it.
    pub(super) fn sessions_broke(&mut self, node: NodeId) {
        self.leading.remove(&node);
        self.own.retain(|_, (owner, _)| *owner != node);
        let sessions: Vec<(u64, usize)> = self
            .served
            .iter()
            .filter(|(_, served)| served.node == node)
            .map(|(session, served)| (*session, served.at))
            .collect();
        for (session, host) in sessions {
            self.served.remove(&session);
            let at_once = self.dice.permille(500);
            self.session_broke(host, session, at_once);
        }
    }

    fn down(&mut self, session: u64, message: Down) {
        let Some(served) = self.served.get(&session) else { return };
        let (from, to, host) = (Place::Node(served.node), Place::Host(served.at), served.at);
        if self.is_stream_dead(session, from, to) {
            return;
        }
        let message = Box::new(v1::SchedulerMessage { message: Some(message) });
        self.replay_orders(session, host, &message);
        match self.network.arrivals(self.now, from, to, Stream::Session(session)).first().copied() {
            Some(at) => self.at(at, Event::Down { host, session, message }),
            None => self.stream_died(session, from, to, host),
        }
    }

    /// Sometimes orders that came before come again, behind newer ones: as from a node that has fallen behind.
    fn replay_orders(&mut self, session: u64, host: usize, message: &v1::SchedulerMessage) {
        if self.shape.old_orders == 0 || self.quiet {
            return;
        }
        let seen = self.old_orders.entry(host).or_default();
        if matches!(&message.message, Some(Down::Orders(orders)) if !orders.full) {
            seen.push(message.clone());
        }
        if self.dice.permille(self.shape.old_orders)
            && let Some(old) = self.dice.pick(seen).cloned()
        {
            let later = self.dice.between(SECOND / 10, 5 * SECOND);
            self.after(later, Event::Down { host, session, message: Box::new(old) });
        }
    }

    fn refuse(&mut self, session: u64, reason: String) {
        self.down(session, Down::Refused(v1::Refused { reason, permanent: false }));
        self.served.remove(&session);
    }

    /// Asks the log for something on behalf of a session.
    fn ask_log(&mut self, node: NodeId, own: Own, request: Request) {
        let id = self.next_call();
        self.own.insert(id, (node, own));
        self.after(PATIENCE, Event::OwnDeadline(node, id));
        self.on_call_event(node, id, Place::Node(node), request);
    }

    fn propose_for(&mut self, session: u64, own: Own, command: Command) {
        let Some(served) = self.served.get(&session) else { return };
        let by = format!("agent:{}", served.greeted.host);
        let entry = Entry { time: 0, by, request_id: String::new(), command };
        let node = served.node;
        self.ask_log(node, own, Request::Propose { entry, passed_on: false });
    }

    /// An agent says hello.
    pub(super) fn on_hello(&mut self, node: NodeId, session: u64, host: usize, greeting: Greeted) {
        let runs = self.servers.get(&node).is_some_and(|server| server.running.is_some());
        if !runs {
            return self.session_broke(host, session, true);
        }
        // A newer session of the same agent takes the place of an older one.
        self.served.retain(|_, other| other.node != node || other.at != host);
        let served = Served {
            node,
            at: host,
            greeted: greeting,
            heard: self.now,
            standing: None,
            reports: VecDeque::new(),
            reporting: None,
            beating: None,
            next_beat: None,
            confirmed: None,
            registered: None,
        };
        self.served.insert(session, served);
        self.after(SILENCE, Event::SessionSilence(session));
        self.ask_log(node, Own::Admit(session), Request::Read);
    }

    pub(super) fn on_session_silence(&mut self, session: u64) {
        let Some(heard) = self.served.get(&session).map(|served| served.heard) else { return };
        if self.now >= heard + SILENCE {
            self.served.remove(&session);
        } else {
            self.at(heard + SILENCE, Event::SessionSilence(session));
        }
    }

    /// What the log said to a session.
    pub(super) fn on_session_answer(&mut self, own: Own, answer: Answer) {
        match own {
            Own::Admit(session) => self.admitted(session, &answer),
            Own::Register(session) => match answer {
                Answer::Done { index, outcome } => match outcome.result {
                    Ok(Done::Registered(host)) => {
                        if let Some(served) = self.served.get_mut(&session) {
                            served.registered = Some((host, index));
                            let node = served.node;
                            self.serve_sessions(node);
                        }
                    }
                    _ => self.refuse(session, "not registered".to_owned()),
                },
                _ => self.refuse(session, "cannot register now".to_owned()),
            },
            Own::Report(session) => self.reported(session, &answer),
            Own::Beat(session) => {
                let taken = if let Answer::Taken { index } = answer { Some(index) } else { None };
                let Some(served) = self.served.get_mut(&session) else { return };
                let Some(beat) = served.beating.take() else { return };
                served.confirmed = taken.map(|index| (index, beat.sequence));
                let (node, next) = (served.node, served.next_beat.take());
                if let Some(next) = next {
                    self.pass_on(session, next);
                }
                self.serve_sessions(node);
            }
            _ => {}
        }
    }

    fn admitted(&mut self, session: u64, answer: &Answer) {
        let Some(served) = self.served.get(&session) else { return };
        let state = self.servers.get(&served.node).and_then(super::server::Server::state);
        let (Answer::Read { .. }, Some(state)) = (answer, state) else {
            return self.refuse(session, "this node cannot say what is wanted now".to_owned());
        };
        match admission(&state, &served.greeted) {
            Admission::Refused(refusal) => self.refuse(session, refusal.reason),
            Admission::Register(command) => self.propose_for(session, Own::Register(session), command),
            Admission::Known(host) => self.stands(session, host),
        }
    }

    /// The welcome, and all orders of the present state.
    fn stands(&mut self, session: u64, host: HostId) {
        let Some(served) = self.served.get(&session) else { return };
        let Some(server) = self.servers.get(&served.node) else { return };
        let (Some(state), Some(status)) = (server.state(), server.status()) else { return };
        let timing = self.shape.timing;
        let millis = |time: std::time::Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let welcome = v1::Welcome {
            host_id: host.0,
            cluster_id: CLUSTER.to_owned(),
            heartbeat_every_ms: millis(timing.heartbeat_every),
            lease_ms: millis(timing.lease),
            servers: status.members.members.values().map(|member| member.api_address.clone()).collect(),
            reconnect_spread_ms: 0,
        };
        let index = state.applied();
        let orders: Vec<Order> = state.orders_of(host, 0).collect();
        if let Some(served) = self.served.get_mut(&session) {
            served.standing = Some((host, index));
            served.registered = None;
        }
        self.down(session, Down::Welcome(welcome));
        self.down(session, orders_message(&orders, index, true));
    }

    /// Whatever the sessions of a node have to send, now that it has applied more.
    pub(super) fn serve_sessions(&mut self, node: NodeId) {
        let Some(state) = self.servers.get(&node).and_then(super::server::Server::state) else { return };
        let sessions: Vec<u64> = self
            .served
            .iter()
            .filter(|(_, served)| served.node == node)
            .map(|(session, _)| *session)
            .collect();
        for session in sessions {
            let Some(served) = self.served.get_mut(&session) else { continue };
            if let Some((host, index)) = served.registered
                && state.applied() >= index
            {
                self.stands(session, host);
                continue;
            }
            let Some((host, sent)) = served.standing else { continue };
            let Some(orders) = state.unsent_orders(host, sent) else {
                self.refuse(session, "the host was removed".to_owned());
                continue;
            };
            if !orders.is_empty() {
                served.standing = Some((host, state.applied()));
                self.down(session, orders_message(&orders, state.applied(), false));
            }
            let Some(served) = self.served.get_mut(&session) else { continue };
            if let Some((index, sequence)) = served.confirmed
                && state.applied() >= index
            {
                served.confirmed = None;
                self.down(session, Down::HeartbeatAck(v1::HeartbeatAck { sequence }));
            }
        }
    }

    /// Something comes up from an agent.
    pub(super) fn on_up(&mut self, node: NodeId, session: u64, message: Up) {
        let now = self.now;
        let paused = self.servers.get(&node).is_some_and(|server| server.paused);
        if paused {
            return self.after(SECOND / 20, Event::Up { node, session, message: Box::new(message) });
        }
        let Some(served) = self.served.get_mut(&session) else { return };
        served.heard = now;
        let Some((host, _)) = served.standing else { return };
        match message {
            Up::Heartbeat(heartbeat) => {
                let Ok(drivers) = drivers_from_wire(heartbeat.drivers) else { return };
                let beat = Beat { host, sequence: heartbeat.sequence, drivers };
                if served.beating.is_some() {
                    served.next_beat = Some(beat);
                } else {
                    self.pass_on(session, beat);
                }
            }
            Up::Reports(reports) => {
                let reports = reports.reports.into_iter().map(InstanceReport::try_from);
                served.reports.extend(reports.filter_map(Result::ok));
                self.send_reports(session);
            }
            Up::Inventory(_) | Up::Hello(_) => {}
        }
    }

    fn pass_on(&mut self, session: u64, beat: Beat) {
        let Some(served) = self.served.get_mut(&session) else { return };
        served.beating = Some(beat.clone());
        let node = served.node;
        self.ask_log(node, Own::Beat(session), Request::Beats { beats: vec![beat], passed_on: false });
    }

    fn send_reports(&mut self, session: u64) {
        let Some(served) = self.served.get_mut(&session) else { return };
        let Some((host, _)) = served.standing else { return };
        if served.reporting.is_some() || served.reports.is_empty() {
            return;
        }
        let some = served.reports.len().min(MAX_REPORTS);
        let reports: Vec<InstanceReport> = served.reports.drain(..some).collect();
        let sequence = reports.iter().map(|report| report.sequence).max().unwrap_or(0);
        served.reporting = Some((sequence, reports.clone()));
        self.propose_for(session, Own::Report(session), Command::Report { host, reports });
    }

    fn reported(&mut self, session: u64, answer: &Answer) {
        if !matches!(answer, Answer::Done { .. }) {
            return self.after(AGAIN, Event::ReportAgain(session));
        }
        let Some(served) = self.served.get_mut(&session) else { return };
        if let Some((sequence, _)) = served.reporting.take() {
            self.down(session, Down::ReportsAck(v1::ReportsAck { sequence }));
            self.send_reports(session);
        }
    }

    pub(super) fn on_report_again(&mut self, session: u64) {
        let Some(served) = self.served.get(&session) else { return };
        let (Some((host, _)), Some((_, reports))) = (served.standing, served.reporting.clone()) else {
            return;
        };
        self.propose_for(session, Own::Report(session), Command::Report { host, reports });
    }

    /// The log does not answer a session, or the leader.
    pub(super) fn on_own_deadline(&mut self, node: NodeId, id: CallId) {
        if self.own.get(&id).is_some_and(|(owner, _)| *owner == node) {
            self.on_own_answer(node, id, Answer::Unknown);
        }
    }
}

fn orders_message(orders: &[Order], index: LogIndex, full: bool) -> Down {
    let orders = orders.iter().map(Into::into).collect();
    Down::Orders(v1::Orders { orders, index, full, more: false })
}
