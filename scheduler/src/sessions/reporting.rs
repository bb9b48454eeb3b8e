//! The reports of this node's sessions on their way into the log, those of many hosts in one entry. Knows no session and no agent.
//!
//! ```text
//!   session ──hand_in──> queue (bounded) ──> gather ──ReportMany──> log
//!      ^                                                             │
//!      └───────────────── each its own answer ───────────────────────┘
//! ```
//!
//! Decisions
//! * **Nobody waits for company unless an entry is under way**, and then for [`COMPANY`] at most: a quiet host's report goes at once, and busy
//!   ones share entries by themselves.
//! * **It remembers nothing.** Each session has one hand-in under way and repeats it until it is answered, so the order of a host's reports is
//!   kept by the session, and a repetition changes nothing since reports carry sequences. An entry that fails, fails for all in it.
//! * **Below level 2 each host's reports are an entry of their own**, as older versions know them; so is one that is alone.

use std::{future::Future, sync::Arc, time::Duration};

use futures::future::join_all;
use supercloud_proto::instance::InstanceReport;
use tokio::{
    sync::{Semaphore, mpsc, oneshot},
    time::sleep,
};

use crate::{
    core::{Core, ProposeError},
    raft::limits::RETRY_AFTER,
    state::{Command, HostReports, Outcome, apply::telling::AGENTS, level::SECOND},
};

/// Hand-ins that wait; one of each session at most, and a node that is this far behind tells them to come again.
const MAX_QUEUED: usize = 8_192;
/// Hosts in one entry.
const MAX_HOSTS: usize = 1_000;
/// Aim for the bytes of one entry: an eighth of the log's largest, so that one large hand-in still fits.
const MAX_BYTES: usize = 512 << 10;
/// Entries under way at a time: the log has several appends in flight.
const MAX_UNDER_WAY: usize = 4;
/// Longest wait for company.
const COMPANY: Duration = Duration::from_millis(1);
/// What a report takes beside its texts, about.
const REPORT_BYTES: usize = 64;

type Answer = Result<Outcome, ProposeError>;

/// Where sessions hand in reports. Cheap to clone.
#[derive(Clone)]
pub(super) struct Reporting {
    queue: mpsc::Sender<Waiting>,
}

struct Waiting {
    by: Arc<str>,
    reports: HostReports,
    reply: oneshot::Sender<Answer>,
}

impl Reporting {
    /// Starts gathering; it ends with the last handle.
    pub(super) fn start(core: Core) -> Self {
        Self::with(move |by, command| {
            let core = core.clone();
            async move {
                if matches!(command, Command::ReportMany(_)) && core.view().level() < SECOND {
                    return Err(ProposeError::LevelTooLow { why: String::new() });
                }
                core.propose(&by, "", command).await
            }
        })
    }

    fn with<F>(propose: impl Fn(Arc<str>, Command) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Answer> + Send + 'static,
    {
        let (queue, waiting) = mpsc::channel(MAX_QUEUED);
        tokio::spawn(gather(waiting, Arc::new(propose)));
        Self { queue }
    }

    /// Hands in what the agent `by` saw, and waits until it is applied or cannot be.
    ///
    /// # Errors
    /// [`ProposeError::Overloaded`] when too much waits; else as the proposal fails.
    pub(super) async fn hand_in(&self, by: Arc<str>, reports: HostReports) -> Answer {
        let (reply, answer) = oneshot::channel();
        match self.queue.try_send(Waiting { by, reports, reply }) {
            Ok(()) => answer.await.unwrap_or(Err(ProposeError::OutcomeUnknown)),
            Err(mpsc::error::TrySendError::Full(_)) => {
                Err(ProposeError::Overloaded { retry_after: RETRY_AFTER })
            }
            Err(mpsc::error::TrySendError::Closed(_)) => Err(ProposeError::Stopped),
        }
    }
}

/// Gathers and sends on until nobody can hand in any more.
async fn gather<P, F>(mut queue: mpsc::Receiver<Waiting>, propose: Arc<P>)
where
    P: Fn(Arc<str>, Command) -> F + Send + Sync + 'static,
    F: Future<Output = Answer> + Send + 'static,
{
    let under_way = Arc::new(Semaphore::new(MAX_UNDER_WAY));
    let mut next = None;
    while let Some(first) = match next.take() {
        Some(waiting) => Some(waiting),
        None => queue.recv().await,
    } {
        if under_way.available_permits() < MAX_UNDER_WAY {
            sleep(COMPANY).await;
        }
        // The semaphore is never closed.
        let Ok(permit) = under_way.clone().acquire_owned().await else { return };
        let mut bytes = size(&first.reports.reports);
        let mut group = vec![first];
        while group.len() < MAX_HOSTS
            && let Ok(more) = queue.try_recv()
        {
            bytes += size(&more.reports.reports);
            if bytes > MAX_BYTES {
                next = Some(more);
                break;
            }
            group.push(more);
        }
        let propose = propose.clone();
        tokio::spawn(async move {
            send(group, propose.as_ref()).await;
            drop(permit);
        });
    }
}

/// Proposes what was gathered, and answers everybody.
async fn send<F: Future<Output = Answer>>(group: Vec<Waiting>, propose: &impl Fn(Arc<str>, Command) -> F) {
    if group.len() > 1 {
        let together = group.iter().map(|waiting| waiting.reports.clone()).collect();
        match propose(AGENTS.into(), Command::ReportMany(together)).await {
            // Each by itself then: the level is too low, or one of them makes the whole too large or unreadable.
            Err(
                ProposeError::LevelTooLow { .. }
                | ProposeError::TooLarge { .. }
                | ProposeError::Unreadable(_),
            ) => {}
            answer => {
                for waiting in group {
                    // A session that has ended needs no answer.
                    let _ = waiting.reply.send(answer.clone());
                }
                return;
            }
        }
    }
    join_all(group.into_iter().map(|waiting| async move {
        let Waiting { by, reports: HostReports { host, reports }, reply } = waiting;
        let _ = reply.send(propose(by, Command::Report { host, reports }).await);
    }))
    .await;
}

/// Bytes that reports take in an entry, about.
fn size(reports: &[InstanceReport]) -> usize {
    let texts = |report: &InstanceReport| {
        let tasks = report.tasks.iter().map(|task| REPORT_BYTES + task.runtime_id.len() + task.reason.len());
        REPORT_BYTES + report.reason.len() + tasks.sum::<usize>()
    };
    reports.iter().map(texts).sum()
}

#[cfg(test)]
mod tests;
