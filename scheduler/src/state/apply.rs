//! The one way the state changes: an entry goes in, an outcome and what changed come out. Pure and total: applying asks no clock, rolls no
//! dice, tells nobody and cannot fail; it can only reject, and then nothing has changed.
//!
//! [`Step`] is the working place of one entry. The rules stand by subject: `boroughs`, `workloads`, `instances`, `reports`, `hosts`, `volumes`, `tokens`.

use std::sync::Arc;

use supercloud_proto::id::{HostId, InstanceId, LogIndex, UnixMillis};

use super::{
    State, codec,
    command::{Command, Done, Entry, Outcome, Rejection},
    level::{FIFTH, Level},
    model::{Event, EventKind, Instance, Subject},
    requests::{Remembered, Requests},
};
use telling::{Note, Stamp, Tellings, Text};

mod boroughs;
pub mod hosts;
mod instances;
mod reports;
mod sites;
pub mod telling;
mod tokens;
mod volumes;
mod workloads;

/// What applying an entry brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// What became of it.
    pub outcome: Outcome,
    /// What happened, for the archive and for watchers.
    pub events: Vec<Event>,
    /// Instances that left the state, as they last were, for the archive.
    pub finished: Vec<Arc<Instance>>,
}

impl State {
    /// Applies the entry at `index`, which must be the one after the last.
    ///
    /// A request that is remembered is answered with its first outcome and changes nothing.
    pub fn apply(&mut self, index: LogIndex, entry: &Entry) -> Applied {
        self.applied = index;
        if entry.request_id.is_empty() {
            return self.step(index, entry);
        }
        let key = Requests::key(&entry.by, &entry.request_id);
        let fingerprint = codec::fingerprint(&entry.command);
        if let Some(known) = self.requests.get(&key) {
            let outcome = if known.fingerprint == fingerprint {
                known.outcome.clone()
            } else {
                let text = format!("request id {:?} was used before, for another request", entry.request_id);
                Outcome { index, result: Err(Rejection::Precondition(text)) }
            };
            return Applied { outcome, events: Vec::new(), finished: Vec::new() };
        }
        let applied = self.step(index, entry);
        self.requests.insert(&key, Remembered { index, fingerprint, outcome: applied.outcome.clone() });
        applied
    }

    /// Passes over an entry that carries no command (a new leader's first, a change of membership).
    pub fn skip(&mut self, index: LogIndex) {
        self.applied = index;
    }

    fn step(&mut self, index: LogIndex, entry: &Entry) -> Applied {
        let mut step = Step {
            state: self,
            index,
            time: entry.time,
            by: &entry.by,
            created: 0,
            tellings: Tellings::default(),
            finished: Vec::new(),
        };
        let result = step.run(&entry.command);
        let Step { tellings, finished, .. } = step;
        let events = tellings.into_events(Stamp { index, time: entry.time, by: &entry.by });
        Applied { outcome: Outcome { index, result }, events, finished }
    }
}

/// The working place of one entry.
struct Step<'a> {
    state: &'a mut State,
    index: LogIndex,
    time: UnixMillis,
    by: &'a str,
    created: u32,
    tellings: Tellings,
    finished: Vec<Arc<Instance>>,
}

impl Step<'_> {
    fn run(&mut self, command: &Command) -> Result<Done, Rejection> {
        match command {
            Command::Initialise { cluster_id } => self.initialise(cluster_id),
            Command::CreateBorough { name, title } => self.create_borough(name, title),
            Command::SetBorough { name, change } => self.set_borough(name, change),
            Command::SetSite { name, change } => self.set_site(name, *change),
            Command::ApplyWorkload { spec, expect_revision } => self.apply_workload(spec, *expect_revision),
            Command::ScaleWorkload { key, count } => self.scale_workload(key, *count),
            Command::StopWorkload { key, purge } => self.stop_workload(key, *purge),
            Command::RegisterHost { name, inventory, incarnation } => {
                self.register_host(name, inventory, incarnation)
            }
            Command::JudgeHosts(verdicts) => Ok(self.judge_hosts(verdicts)),
            Command::SetSchedulable { name, schedulable } => self.set_schedulable(name, *schedulable),
            Command::RemoveHost { name } => self.remove_host(name),
            Command::ForgetVolumes { key, host } => self.forget_volumes(key, host),
            Command::Place(placements) | Command::PlaceMany(placements) => Ok(self.place(placements)),
            Command::Preempt(preemptions) => Ok(self.preempt(preemptions)),
            Command::Replace { instances, reason } => Ok(self.replace(instances, reason)),
            Command::Report { host, reports } => self.report(*host, reports),
            Command::ReportMany(hosts) => Ok(self.report_many(hosts)),
            Command::CreateToken { id, secret_hash, grant, expires } => {
                self.create_token(id, secret_hash, grant, *expires)
            }
            Command::UseToken { id, secret_hash } => self.use_token(id, secret_hash),
            Command::RaiseLevel { level } => Ok(self.raise_level(*level)),
            Command::CompareStates => Ok(Done::Nothing),
        }
    }

    fn initialise(&mut self, cluster_id: &str) -> Result<Done, Rejection> {
        match &self.state.cluster_id {
            None => self.state.cluster_id = Some(cluster_id.into()),
            Some(known) if known.as_ref() == cluster_id => {}
            Some(known) => return Err(Rejection::Exists(format!("cluster {known}"))),
        }
        Ok(Done::Nothing)
    }

    fn raise_level(&mut self, level: Level) -> Done {
        if level > self.state.level() {
            let before = std::mem::replace(&mut self.state.level, level);
            if before < FIFTH && level >= FIFTH {
                self.find_homes();
            }
            let text = format!("the cluster's feature level is {level}");
            self.event(EventKind::LevelRaised, Subject::default(), text);
        }
        Done::Nothing
    }

    /// Notes that something happened.
    fn event(&mut self, kind: EventKind, subject: Subject, message: impl Into<String>) {
        self.tellings.plain(kind, subject, message.into());
    }

    /// What is to be told of an instance as it now is.
    fn note(&self, kind: EventKind, instance: &Instance, text: Text) -> Note {
        let host = instance.host().and_then(|id| self.state.host_name(id).cloned());
        Note::new(kind, instance, host, text)
    }

    /// The next instance id of this entry.
    fn next_id(&mut self) -> InstanceId {
        let ordinal = self.created;
        self.created += 1;
        InstanceId { index: self.index, ordinal }
    }

    /// Notes that an order of this host is new or changed, so that its session sends it.
    fn order_changed(&mut self, host: HostId) {
        if let Some(index) = self.state.orders.get_mut(&host) {
            *index = self.index;
        }
    }
}
