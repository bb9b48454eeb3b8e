//! Clients: each does one thing after the other, on any node, and repeats what it does not know the outcome of under the same request id.

use std::collections::BTreeMap;

use supercloud_proto::{amount::MilliCpu, name::WorkloadKey};
use supercloud_scheduler::{
    raft::NodeId,
    state::{BoroughChange, Command, Entry, Outcome, level::FOURTH},
};

use super::{
    Micros,
    calls::{Answer, CallId, Request},
    faults::OPERATOR,
    network::Place,
    specs::{self, Wish},
    world::{Event, World},
};

/// How long a client waits for an answer before it asks another node.
const PATIENCE: (Micros, Micros) = (400_000, 3_000_000);
/// Pause between two attempts.
const AGAIN: Micros = 50_000;
/// Workloads that each client knows.
const WORKLOADS: u64 = 3;

/// What a client is doing.
#[derive(Debug, Clone)]
enum Doing {
    Write(Box<Entry>),
    /// With the index that had been seen before it began.
    Read(u64),
}

/// A client.
#[derive(Debug)]
pub(super) struct Client {
    doing: Option<Doing>,
    call: CallId,
    requests: u64,
    /// Pause between two things, shortest and longest.
    pace: (Micros, Micros),
    /// First outcome of each of its requests.
    outcomes: BTreeMap<String, Outcome>,
    pub(super) done: u64,
}

impl Client {
    pub(super) fn new(pace: (Micros, Micros)) -> Self {
        Self { doing: None, call: 0, requests: 0, pace, outcomes: BTreeMap::new(), done: 0 }
    }

    pub(super) fn is_idle(&self) -> bool {
        self.doing.is_none()
    }
}

impl World {
    /// A client begins something new, or tries again what it has begun.
    pub(super) fn on_client(&mut self, number: usize) {
        let idle = self.clients.get(number).is_some_and(Client::is_idle);
        if idle {
            if self.quiet {
                return;
            }
            let doing = self.choose(number);
            if let Some(client) = self.clients.get_mut(number) {
                client.doing = Some(doing);
            }
        }
        let id = self.next_call();
        let nodes: Vec<NodeId> = self.servers.keys().copied().collect();
        let Some(node) = self.dice.pick(&nodes).copied() else { return };
        let Some(client) = self.clients.get_mut(number) else { return };
        client.call = id;
        let request = match &client.doing {
            Some(Doing::Write(entry)) => Request::Propose { entry: Entry::clone(entry), passed_on: false },
            Some(Doing::Read(_)) => Request::Read,
            None => return,
        };
        self.call(Place::Client(number), node, id, request);
        let patience = self.dice.between(PATIENCE.0, PATIENCE.1);
        self.after(patience, Event::ClientGivesUp(number, id));
    }

    fn choose(&mut self, number: usize) -> Doing {
        if self.dice.permille(500) {
            return Doing::Read(self.ghost.seen());
        }
        let workload = format!("w{number}-{}", self.dice.below(WORKLOADS));
        let [even, odd] = specs::boroughs();
        let borough = if number.is_multiple_of(2) { even } else { odd };
        let key = WorkloadKey { borough, workload: specs::name(&workload) };
        let command = match self.dice.below(12) {
            0 => Command::StopWorkload { key, purge: self.dice.permille(300) },
            1..=3 => Command::ScaleWorkload { key, count: self.dice.below(4) as u32 },
            4 if self.shape.level >= FOURTH => {
                Command::SetBorough { name: key.borough, change: self.allowance() }
            }
            _ => {
                let spec = Box::new(specs::service(&key, self.wish(number, &workload)));
                Command::ApplyWorkload { spec, expect_revision: None }
            }
        };
        let mut request_id = String::new();
        let mut requests = 0;
        if let Some(client) = self.clients.get_mut(number) {
            client.requests += 1;
            requests = client.requests;
        }
        request_id.push_str(&format!("r{requests}"));
        Doing::Write(Box::new(Entry { time: 0, by: format!("operator:c{number}"), request_id, command }))
    }

    /// What a workload shall be like: every third one is exclusive.
    fn wish(&mut self, number: usize, workload: &str) -> Wish {
        let exclusive = workload.ends_with('0');
        let plain = Wish::plain(self.dice.below(4) as u32, self.dice.between(1, 4), exclusive);
        if self.shape.level < FOURTH {
            return plain;
        }
        let other = format!("w{number}-{}", self.dice.below(WORKLOADS));
        let apart = self.dice.permille(150) && other != workload;
        Wish {
            priority: self.dice.pick(&[20, 50, 50, 80]).copied().unwrap_or(plain.priority),
            gang: self.dice.permille(250),
            network: self.dice.pick(&[0, 0, 200, 600]).copied().unwrap_or(plain.network),
            apart: apart.then(|| specs::name(&other)),
            ..plain
        }
    }

    /// What a borough may have from now on.
    fn allowance(&mut self) -> BoroughChange {
        let quota = self.dice.permille(600).then(|| MilliCpu(500 * self.dice.between(1, 12)));
        let guarantee = quota.map_or(1_000, |quota| quota.0 / 2);
        BoroughChange {
            quota_cpu: Some(quota),
            guarantee_cpu: Some(MilliCpu(guarantee)),
            ..BoroughChange::default()
        }
    }

    /// No answer came in time, or the node could do nothing: the same is asked of another node.
    pub(super) fn on_client_gives_up(&mut self, number: usize, id: CallId) {
        if self.clients.get(number).is_some_and(|client| client.call == id && !client.is_idle()) {
            self.on_client(number);
        }
    }

    pub(super) fn on_client_answer(&mut self, number: usize, id: CallId, answer: Answer) {
        if number == OPERATOR {
            return self.on_operator_answer(id, answer);
        }
        let Some(client) = self.clients.get_mut(number).filter(|client| client.call == id) else { return };
        match (answer, &client.doing) {
            (Answer::Done { index, outcome }, Some(Doing::Write(entry))) => {
                let request = entry.request_id.clone();
                let first = client.outcomes.entry(request.clone()).or_insert_with(|| outcome.clone());
                if *first != outcome {
                    self.ghost.accuse(|| format!("request {request} of client {number} was done twice"));
                }
                self.ghost.acknowledged(index);
            }
            (Answer::Read { node, index }, Some(Doing::Read(before))) => {
                self.ghost.read(node, *before, index)
            }
            (Answer::NotTaken | Answer::Unknown | Answer::NoRead, Some(_)) => {
                return self.after(AGAIN, Event::ClientGivesUp(number, id));
            }
            _ => return,
        }
        client.doing = None;
        client.call = 0;
        client.done += 1;
        let (low, high) = client.pace;
        let pause = self.dice.between(low, high);
        self.after(pause, Event::Client(number));
    }
}
