//! What a node does while it leads, by the product's own decisions: the pass, the steps of rollouts, the judging of hosts. Here is only when it
//! does so, and what it waits for.

use std::time::Duration;

use supercloud_scheduler::{
    heartbeats::Beat,
    leader::{
        judge::Table,
        passing::{displacing, placing},
        rollout::Watch,
    },
    placement::{Engine, Limits},
    raft::{NodeId, Role, Status},
    state::{Command, State},
};

use super::{
    Micros,
    calls::{Answer, CallId},
    server::CLUSTER,
    shape::SECOND,
    specs,
    world::{Event, World},
};

/// Between two looks for something to do.
const LOOK: (Micros, Micros) = (5_000, 40_000);
/// A pass that placed nothing is made again without any change after this long: an instance may wait for a time.
const FRUITLESS: Micros = SECOND;

/// What waits for the log on behalf of a node itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Own {
    Found,
    Place,
    Roll,
    Judge,
    /// For the session of this number.
    Admit(u64),
    Register(u64),
    Report(u64),
    Beat(u64),
}

/// What a leader remembers in one term.
#[derive(Debug, Default)]
pub(super) struct Leading {
    term: u64,
    pub(super) table: Table,
    rollouts: Watch,
    /// What the passes of this leadership know of the hosts.
    engine: Option<Engine>,
    judged: Option<Duration>,
    /// Proposals under way: at most one of each kind.
    under_way: Vec<(CallId, Own)>,
    /// The state on which the last pass placed nothing, and when.
    fruitless: Option<(u64, Micros)>,
}

impl Leading {
    fn is_busy(&self, own: &Own) -> bool {
        self.under_way.iter().any(|(_, other)| other == own)
    }
}

/// Time since the machine booted: no node's machine boots anew in a run.
pub(super) fn boot(now: Micros) -> Duration {
    Duration::from_micros(now)
}

impl World {
    /// A turn is over: leadership may have come or gone.
    pub(super) fn lead(&mut self, id: NodeId, status: &Status) {
        if status.role != Role::Leader {
            self.leading.remove(&id);
            return;
        }
        if self.leading.get(&id).is_some_and(|leading| leading.term == status.term) {
            return;
        }
        let mut leading = Leading { term: status.term, ..Leading::default() };
        leading.table.lead(status.term, boot(self.now));
        self.note(|| format!("node {id} leads in term {}", status.term));
        self.leading.insert(id, leading);
        let life = self.servers.get(&id).map_or(0, |server| server.life);
        self.after(0, Event::Lead(id, life, status.term));
    }

    /// A leader looks for something to do.
    pub(super) fn on_lead(&mut self, id: NodeId, life: u64, term: u64) {
        let Some(server) = self.servers.get(&id).filter(|server| server.life == life) else { return };
        if self.leading.get(&id).is_none_or(|leading| leading.term != term) {
            return;
        }
        let (state, unix, paused) = (server.state(), server.unix(self.now), server.paused);
        let again = self.dice.between(LOOK.0, LOOK.1);
        self.after(again, Event::Lead(id, life, term));
        let Some(state) = state.filter(|_| !paused) else { return };
        self.found_cluster(id, &state);
        self.place(id, &state, unix);
        self.roll(id, &state, unix);
        self.judge(id, &state);
    }

    fn propose_own(&mut self, id: NodeId, own: Own, command: Command) {
        let call = self.next_call();
        if let Some(leading) = self.leading.get_mut(&id) {
            leading.under_way.push((call, own.clone()));
        }
        self.own.insert(call, (id, own));
        self.propose_here(id, call, command);
    }

    fn found_cluster(&mut self, id: NodeId, state: &State) {
        if self.leading.get(&id).is_some_and(|leading| leading.is_busy(&Own::Found)) {
            return;
        }
        if state.cluster_id().is_none() {
            self.propose_own(id, Own::Found, Command::Initialise { cluster_id: CLUSTER.to_owned() });
        } else if state.level() < self.shape.level {
            self.propose_own(id, Own::Found, Command::RaiseLevel { level: self.shape.level });
        } else if let Some(name) =
            specs::boroughs().into_iter().find(|name| !state.boroughs().contains_key(name))
        {
            self.propose_own(id, Own::Found, Command::CreateBorough { name, title: String::new() });
        }
    }

    fn place(&mut self, id: NodeId, state: &State, unix: u64) {
        let now = self.now;
        let Some(leading) = self.leading.get_mut(&id) else { return };
        let waits = state.pending_count() > 0 && !leading.is_busy(&Own::Place);
        let same = |(index, at): (u64, Micros)| index == state.applied() && now < at + FRUITLESS;
        if !waits || leading.fruitless.is_some_and(same) {
            return;
        }
        let engine = leading.engine.get_or_insert_with(|| Engine::new(state));
        let plan = engine.pass(state, unix, Limits::default());
        if plan.placements.is_empty() && plan.preemptions.is_empty() {
            leading.fruitless = Some((state.applied(), now));
        }
        for command in placing(state.level(), &plan).into_iter().chain(displacing(&plan)) {
            self.propose_own(id, Own::Place, command);
        }
    }

    fn roll(&mut self, id: NodeId, state: &State, unix: u64) {
        let Some(leading) = self.leading.get_mut(&id).filter(|leading| !leading.is_busy(&Own::Roll)) else {
            return;
        };
        for (_, step) in leading.rollouts.look(state, unix) {
            self.propose_own(id, Own::Roll, step);
        }
    }

    fn judge(&mut self, id: NodeId, state: &State) {
        let (now, timing) = (boot(self.now), self.shape.timing);
        let Some(leading) = self.leading.get_mut(&id).filter(|leading| !leading.is_busy(&Own::Judge)) else {
            return;
        };
        let last = *leading.judged.get_or_insert(now);
        if now.saturating_sub(last) < timing.judge_every() {
            return;
        }
        leading.judged = Some(now);
        let verdicts = leading.table.look(state, now, now.saturating_sub(last), &timing);
        if verdicts.is_empty() {
            leading.table.concluded();
        } else {
            for verdict in &verdicts {
                self.note(|| format!("host {} is {:?}: {}", verdict.host, verdict.state, verdict.reason));
            }
            self.propose_own(id, Own::Judge, Command::JudgeHosts(verdicts));
        }
    }

    /// Heartbeats of which a majority has confirmed that this node led after they came.
    pub(super) fn take_in(
        &mut self,
        id: NodeId,
        term: u64,
        beats: &[Beat],
        came: Duration,
        index: u64,
    ) -> Answer {
        let Some(leading) = self.leading.get_mut(&id).filter(|leading| leading.term == term) else {
            return Answer::NotTaken;
        };
        leading.table.take_in(term, beats, came).map_or(Answer::NotTaken, |()| Answer::Taken { index })
    }

    /// The log has answered something that the node itself asked for.
    pub(super) fn on_own_answer(&mut self, node: NodeId, id: CallId, answer: Answer) {
        let Some((_, own)) = self.own.remove(&id) else { return };
        if let Some(leading) = self.leading.get_mut(&node) {
            leading.under_way.retain(|(call, _)| *call != id);
            if own == Own::Judge {
                leading.table.concluded();
            }
        }
        match own {
            Own::Found | Own::Place | Own::Roll | Own::Judge => {}
            session => self.on_session_answer(session, answer),
        }
    }
}
