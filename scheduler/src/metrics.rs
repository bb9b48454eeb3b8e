//! What a node counts and measures about itself, in the text that Prometheus reads. Knows no port: `server::http` serves it.
//!
//! Decisions. *Needs no leader and waits for nobody*: whoever looks on while the cluster is sick must not be made to wait for it. *Only what is
//! cheap*: gauges are read off what the node holds anyway, when they are asked for; nothing walks over the estate.
//!
//! To add one: a field, its name and help in [`Metrics::new`], and where it is counted, or a line in [`Metrics::text`].

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use prometheus_client::{
    encoding::text::encode,
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::Registry,
};
use tokio::sync::watch;

use crate::{
    core::{Core, ProposeError},
    raft::{Meter, Role, Status},
    state::Outcome,
};

/// Of what `text` answers.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// Before every name.
const PREFIX: &str = "supercloud_scheduler";
/// Shortest time told apart, in seconds; each of the buckets is twice as long as the one before, up to half a minute.
const SHORTEST: f64 = 0.000_5;
/// How many.
const BUCKETS: u16 = 17;

/// How often, by a label.
type Labelled = Family<[(&'static str, &'static str); 1], Counter>;

/// What a pass decides and apply may refuse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decided {
    /// Who is given a host.
    Placements,
    /// For whom others make way.
    Preemptions,
}

impl Decided {
    const ALL: [Self; 2] = [Self::Placements, Self::Preemptions];

    fn label(self) -> &'static str {
        match self {
            Self::Placements => "placements",
            Self::Preemptions => "preemptions",
        }
    }
}

/// See the head of the module.
pub struct Metrics {
    registry: Registry,
    proposals: Labelled,
    proposal_seconds: Histogram,
    pass_seconds: Histogram,
    refused_decisions: Labelled,
    leader_changes: Counter,
    state_deviations: Counter,
    gauges: Mutex<Gauges>,
}

/// What is read off when it is asked for.
#[derive(Default)]
struct Gauges {
    commit: Gauge,
    applied: Gauge,
    last: Gauge,
    apply_lag: Gauge,
    queued_proposals: Gauge,
    queued_messages: Gauge,
    queued_control: Gauge,
    snapshot: Gauge,
    term: Gauge,
    leads: Gauge,
    has_leader: Gauge,
    voters: Gauge,
    archived: Gauge,
    archive_broken: Gauge,
    hosts: Gauge,
    workloads: Gauge,
    instances: Gauge,
    pending: Gauge,
    sessions: Gauge,
    certificate: Gauge,
    disk_free: Gauge,
    disk_short: Gauge,
}

impl Gauges {
    fn register(&self, registry: &mut Registry) {
        let all = [
            ("log_commit_index", "Highest committed log index known here", &self.commit),
            ("log_applied_index", "Highest log index applied here", &self.applied),
            ("log_last_index", "Last log index on this node's disk", &self.last),
            ("log_apply_lag", "Committed entries that are not applied here yet", &self.apply_lag),
            ("log_queued_proposals", "Proposals that wait for the log's thread", &self.queued_proposals),
            (
                "log_queued_messages",
                "Messages of other nodes that wait for the log's thread",
                &self.queued_messages,
            ),
            (
                "log_queued_control",
                "Reads, changes of the membership and reports that wait for the log's thread",
                &self.queued_control,
            ),
            ("snapshot_index", "Log index of the newest snapshot", &self.snapshot),
            ("term", "Term", &self.term),
            ("is_leader", "1 where this node leads", &self.leads),
            ("has_leader", "1 where this node knows a leader", &self.has_leader),
            ("voters", "Nodes that vote", &self.voters),
            ("archive_index", "Log index up to which events are archived", &self.archived),
            ("archive_broken", "1 while nothing can be archived", &self.archive_broken),
            ("hosts", "Hosts in the state", &self.hosts),
            ("workloads", "Workloads in the state", &self.workloads),
            ("instances", "Instances in the state", &self.instances),
            ("pending_instances", "Instances that wait for a host", &self.pending),
            ("disk_free_bytes", "Free bytes on the disk of this node's directory", &self.disk_free),
            ("disk_short", "1 while they are too few for this node to take writes", &self.disk_short),
            ("sessions", "Agents with a session on this node", &self.sessions),
        ];
        for (name, help, gauge) in all {
            registry.register(name, help, gauge.clone());
        }
    }
}

/// A number as Prometheus takes it; none of ours comes near the end of its range.
fn number(value: impl TryInto<i64>) -> i64 {
    value.try_into().unwrap_or(i64::MAX)
}

impl Metrics {
    pub(crate) fn new(log: &Meter) -> Self {
        let mut registry = Registry::with_prefix(PREFIX);
        let times = || Histogram::new(exponential_buckets(SHORTEST, 2.0, BUCKETS));
        let (proposals, leader_changes) = (Labelled::default(), Counter::default());
        let (proposal_seconds, pass_seconds) = (times(), times());
        registry.register("proposals", "Changes proposed by callers of this node", proposals.clone());
        let help = "Time until a proposed change was on disk on a majority and applied, in seconds";
        registry.register("proposal_seconds", help, proposal_seconds.clone());
        let help = "Proposals that shared one append to the log, on the node that leads";
        registry.register("log_batch_proposals", help, log.batch_proposals.clone());
        registry.register(
            "log_sync_entries",
            "Entries that one write of the log made sure of",
            log.sync_entries.clone(),
        );
        let help = "Time that a write of the log took with its sync, in seconds";
        registry.register("log_sync_seconds", help, log.sync_seconds.clone());
        registry.register("pass_seconds", "Length of a scheduling pass, in seconds", pass_seconds.clone());
        let refused_decisions = Labelled::default();
        // Both are told from the beginning, so that a graph of them begins with 0.
        Decided::ALL.iter().for_each(|of| drop(refused_decisions.get_or_create(&[("of", of.label())])));
        let help = "Decisions of scheduling passes that did not hold any more when they were applied";
        registry.register("refused_decisions", help, refused_decisions.clone());
        registry.register("leader_changes", "New leaders seen by this node", leader_changes.clone());
        let state_deviations = Counter::default();
        let help =
            "Comparisons in which another node's state differed from this one's; anything but 0 is an alarm";
        registry.register("state_deviations", help, state_deviations.clone());
        let gauges = Gauges::default();
        gauges.register(&mut registry);
        registry.register(
            "certificate_remaining_seconds",
            "Time until this node's certificate expires, in seconds; 0 without certificates",
            gauges.certificate.clone(),
        );
        let gauges = Mutex::new(gauges);
        Self {
            registry,
            proposals,
            proposal_seconds,
            pass_seconds,
            refused_decisions,
            leader_changes,
            state_deviations,
            gauges,
        }
    }

    /// A proposal was answered.
    pub(crate) fn proposed(&self, answer: &Result<Outcome, ProposeError>, took: Duration) {
        let outcome = match answer {
            Ok(Outcome { result: Ok(_), .. }) => "done",
            Ok(_) => "rejected",
            Err(ProposeError::NoLeader) => "no_leader",
            Err(ProposeError::OutcomeUnknown) => "unknown",
            Err(ProposeError::Overloaded { .. }) => "overloaded",
            Err(ProposeError::TooLarge { .. } | ProposeError::Unreadable(_)) => "invalid",
            Err(ProposeError::LevelTooLow { .. }) => "level",
            Err(ProposeError::NoSpace { .. }) => "no_space",
            Err(ProposeError::Stopped) => "stopped",
        };
        self.proposals.get_or_create(&[("outcome", outcome)]).inc();
        if answer.is_ok() {
            self.proposal_seconds.observe(took.as_secs_f64());
        }
    }

    /// A comparison of states did not find them equal.
    pub(crate) fn deviated(&self) {
        self.state_deviations.inc();
    }

    /// A pass has ended.
    pub(crate) fn passed(&self, took: Duration) {
        self.pass_seconds.observe(took.as_secs_f64());
    }

    /// So many decisions of a pass were refused when they were applied.
    pub(crate) fn refused(&self, of: Decided, count: usize) {
        self.refused_decisions.get_or_create(&[("of", of.label())]).inc_by(count as u64);
    }

    /// Counts the leaders that this node sees.
    pub(crate) async fn count_leaders(core: Core, mut nodes: watch::Receiver<Status>) {
        let mut last = None;
        loop {
            let leader = nodes.borrow_and_update().leader;
            if leader.is_some() && leader != last {
                core.metrics().leader_changes.inc();
                last = leader;
            }
            // An end of the channel means that the node has stopped.
            let Ok(()) = nodes.changed().await else { return };
        }
    }

    /// Everything, now, as text.
    ///
    /// # Errors
    /// When a value cannot be written, which is a fault of ours.
    pub fn text(
        &self,
        core: &Core,
        sessions: usize,
        expires: Option<SystemTime>,
    ) -> Result<String, std::fmt::Error> {
        let (status, state) = (core.status(), core.view());
        let (queued, space) = (core.log().queued(), core.log().space());
        let archive = core.archive().status().borrow().clone();
        let left = expires.and_then(|at| at.duration_since(SystemTime::now()).ok()).unwrap_or_default();
        // Held until the text is made, so that two who ask do not mix their numbers.
        let gauges = self.gauges.lock().unwrap_or_else(PoisonError::into_inner);
        for (gauge, value) in [
            (&gauges.commit, number(status.commit)),
            (&gauges.applied, number(status.applied)),
            (&gauges.last, number(status.last_index)),
            (&gauges.apply_lag, number(status.commit.saturating_sub(status.applied))),
            (&gauges.queued_proposals, number(queued.proposals)),
            (&gauges.queued_messages, number(queued.messages)),
            (&gauges.queued_control, number(queued.control)),
            (&gauges.snapshot, number(status.snapshot)),
            (&gauges.term, number(status.term)),
            (&gauges.leads, i64::from(status.role == Role::Leader)),
            (&gauges.has_leader, i64::from(status.leader.is_some())),
            (&gauges.voters, number(status.members.voters().count())),
            (&gauges.archived, number(archive.index)),
            (&gauges.archive_broken, i64::from(archive.broken.is_some())),
            (&gauges.hosts, number(state.hosts().len())),
            (&gauges.workloads, number(state.workloads().len())),
            (&gauges.instances, number(state.instances().len())),
            (&gauges.pending, number(state.pending_count())),
            (&gauges.disk_free, number(space.free)),
            (&gauges.disk_short, i64::from(space.short)),
            (&gauges.sessions, number(sessions)),
            (&gauges.certificate, number(left.as_secs())),
        ] {
            gauge.set(value);
        }
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        drop(gauges);
        Ok(text)
    }
}
