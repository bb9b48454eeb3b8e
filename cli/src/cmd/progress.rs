//! Waiting for workloads: live on a terminal (one line a workload, redrawn), plain lines elsewhere (one for each change). What
//! cannot go on by itself is said while waiting; what fails ends the wait.

use std::{
    io::{self, IsTerminal, Write},
    time::Duration,
};

use supercloud_proto::v1::{
    self, WatchWorkloadRequest, WatchWorkloadResponse, workload_service_client::WorkloadServiceClient,
};
use tokio::time::{Instant, sleep, timeout_at};
use tonic::Code;

use crate::{
    failure::Failure,
    output::say,
    session::Session,
    show::{instance, workload},
};

/// Wait before a broken watch is opened again.
const REOPEN: Duration = Duration::from_millis(300);

/// A workload to wait for.
pub(super) struct Waited {
    /// Owner.
    pub borough: String,
    /// Name.
    pub workload: String,
    /// Log index of the change that is waited for.
    pub after_index: u64,
}

/// Whether the wait is over.
enum Stand {
    /// Not yet; this is how it stands.
    Going(String),
    /// It is as it was asked.
    Done(String),
}

/// Waits until all that is wanted of each runs in its present revision, or a batch ended well.
pub(super) async fn until_running(session: &Session, waited: &[Waited], timeout: u64) -> Result<(), Failure> {
    for one in waited {
        until(session, one, timeout, stands).await?;
    }
    Ok(())
}

/// Waits until nothing is left of a stopped workload.
pub(super) async fn until_gone(session: &Session, waited: &Waited, timeout: u64) -> Result<(), Failure> {
    until(session, waited, timeout, leaves).await
}

fn stands(answer: &WatchWorkloadResponse) -> Result<Stand, Failure> {
    let Some(record) = &answer.workload else {
        return Err(Failure::Failed("the workload was forgotten while waiting for it".to_owned()));
    };
    if record.stopped {
        return Err(Failure::Failed(format!(
            "{} was stopped while waiting for it",
            workload::full_name(record)
        )));
    }
    let counts = record.counts.unwrap_or_default();
    let line = line(record, &counts, &answer.instances);
    let all = counts.current >= counts.desired && counts.running + counts.completed >= counts.desired;
    Ok(if all && counts.stopping == 0 { Stand::Done(line) } else { Stand::Going(line) })
}

fn leaves(answer: &WatchWorkloadResponse) -> Result<Stand, Failure> {
    let left = answer.instances.len();
    let text = format!("{left} {} left", if left == 1 { "instance" } else { "instances" });
    Ok(if left == 0 { Stand::Done("stopped, nothing left".to_owned()) } else { Stand::Going(text) })
}

/// How a workload stands, in a line, with the reason of the first instance that is in trouble.
fn line(record: &v1::Workload, counts: &v1::WorkloadCounts, instances: &[v1::Instance]) -> String {
    let parts = [
        (counts.pending, "pending"),
        (counts.starting, "starting"),
        (counts.failing, "failing"),
        (counts.unknown, "unknown"),
        (counts.stopping, "stopping"),
        (counts.completed, "completed"),
    ];
    let mut text =
        format!("{}: {} of {} running", workload::full_name(record), counts.running, counts.desired);
    for (count, word) in parts.iter().filter(|(count, _)| *count > 0) {
        text.push_str(&format!(", {count} {word}"));
    }
    let troubled = instances.iter().filter(|one| instance::is_wanted(one) && !instance::is_running(one));
    if let Some(reason) = troubled.map(instance::reason).find(|reason| !reason.is_empty()) {
        text.push_str(&format!(" ({reason})"));
    }
    text
}

async fn until(
    session: &Session,
    waited: &Waited,
    timeout: u64,
    judge: fn(&WatchWorkloadResponse) -> Result<Stand, Failure>,
) -> Result<(), Failure> {
    let deadline = Instant::now() + Duration::from_millis(timeout);
    let mut teller = Teller::new(format!("{}/{}", waited.borough, waited.workload));
    loop {
        match timeout_at(deadline, watch(session, waited, judge, &mut teller)).await {
            Err(_) => {
                teller.end();
                let name = &teller.name;
                let hint =
                    format!("`supercloud explain {name}` and `supercloud workload show {name}` say why");
                return Err(Failure::Failed(format!("not there in time: {}; {hint}", teller.last)));
            }
            Ok(Ok(())) => return Ok(()),
            Ok(Err(Failure::Unreachable(_))) => sleep(REOPEN).await,
            Ok(Err(failure)) => {
                teller.end();
                return Err(failure);
            }
        }
    }
}

/// Watches on one node until the wait is over or the stream breaks.
async fn watch(
    session: &Session,
    waited: &Waited,
    judge: fn(&WatchWorkloadResponse) -> Result<Stand, Failure>,
    teller: &mut Teller,
) -> Result<(), Failure> {
    let request = WatchWorkloadRequest {
        borough: waited.borough.clone(),
        workload: waited.workload.clone(),
        after_index: waited.after_index.saturating_sub(1),
    };
    let mut stream = session
        .call(request, async |channel, request| WorkloadServiceClient::new(channel).watch(request).await)
        .await?;
    loop {
        match stream.message().await {
            Ok(Some(answer)) => match judge(&answer)? {
                Stand::Going(line) => teller.tell(&line),
                Stand::Done(line) => {
                    teller.tell(&line);
                    teller.end();
                    return Ok(());
                }
            },
            Ok(None) => return Err(Failure::Unreachable("the watch ended".to_owned())),
            Err(status) if status.code() == Code::OutOfRange => {
                return Err(Failure::Unreachable("the watch lagged behind".to_owned()));
            }
            Err(status) => return Err(status.into()),
        }
    }
}

/// Says how things stand: over and over in one line on a terminal, a new line for each change elsewhere.
struct Teller {
    name: String,
    last: String,
    live: bool,
}

impl Teller {
    fn new(name: String) -> Self {
        Self { name, last: String::new(), live: io::stderr().is_terminal() }
    }

    fn tell(&mut self, line: &str) {
        if line == self.last {
            return;
        }
        self.last = line.to_owned();
        if self.live {
            // Back to the first column, the line, and clear what is left of the one before. Nobody may be listening.
            let _ = write!(io::stderr().lock(), "\r{line}\x1b[K");
        } else {
            say(line);
        }
    }

    fn end(&self) {
        if self.live && !self.last.is_empty() {
            say("");
        }
    }
}
