//! Reports gathered before a log that answers when it is told to.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use supercloud_proto::{
    id::{HostId, InstanceId},
    instance::InstanceState,
};
use tokio::time::timeout;

use super::*;
use crate::state::Done;

const DEADLINE: Duration = Duration::from_secs(20);

type Taken = (Arc<str>, Command, oneshot::Sender<Answer>);

/// A log that hands its proposals to the test.
fn reporting() -> (Reporting, mpsc::UnboundedReceiver<Taken>) {
    let (send, taken) = mpsc::unbounded_channel();
    let send = Mutex::new(send);
    let reporting = Reporting::with(move |by, command| {
        let (reply, answer) = oneshot::channel();
        let _ = send.lock().unwrap_or_else(PoisonError::into_inner).send((by, command, reply));
        async move { answer.await.unwrap_or(Err(ProposeError::OutcomeUnknown)) }
    });
    (reporting, taken)
}

fn done(index: u64) -> Answer {
    Ok(Outcome { index, result: Ok(Done::Nothing) })
}

fn seen(host: u32, sequence: u64, reason: String) -> HostReports {
    let report = InstanceReport {
        instance: InstanceId { index: 1, ordinal: host },
        sequence,
        order_index: 1,
        state: InstanceState::Running,
        reason,
        tasks: Vec::new(),
        time: 1,
        unordered: false,
    };
    HostReports { host: HostId(host), reports: vec![report] }
}

fn hand_in(reporting: &Reporting, host: u32, reason: &str) -> tokio::task::JoinHandle<Answer> {
    let (reporting, reports) = (reporting.clone(), seen(host, 1, reason.to_owned()));
    tokio::spawn(async move { reporting.hand_in(format!("agent:h{host}").into(), reports).await })
}

async fn take(taken: &mut mpsc::UnboundedReceiver<Taken>) -> Taken {
    timeout(DEADLINE, taken.recv()).await.expect("in time").expect("the log is there")
}

fn hosts(command: &Command) -> Vec<u32> {
    match command {
        Command::Report { host, .. } => vec![host.0],
        Command::ReportMany(hosts) => hosts.iter().map(|of| of.host.0).collect(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn one_alone_goes_at_once_and_those_behind_it_share_an_entry() {
    let (reporting, mut taken) = reporting();
    let first = hand_in(&reporting, 1, "");
    let (by, command, reply) = take(&mut taken).await;
    assert_eq!((by.as_ref(), hosts(&command)), ("agent:h1", vec![1]));
    assert_eq!(command.needs(), 1, "any version knows it");

    let others: Vec<_> = (2..50).map(|host| hand_in(&reporting, host, "")).collect();
    let mut together = Vec::new();
    let mut entries = 0;
    while together.len() < others.len() {
        let (_, command, reply) = take(&mut taken).await;
        together.extend(hosts(&command));
        entries += 1;
        reply.send(done(10)).unwrap();
    }
    together.sort_unstable();
    assert!(together.iter().copied().eq(2..50) && entries < 10, "{entries} entries");
    for other in others {
        assert_eq!(other.await.unwrap(), done(10));
    }
    assert!(!first.is_finished(), "only who is committed is answered");
    reply.send(done(9)).unwrap();
    assert_eq!(first.await.unwrap(), done(9));
}

#[tokio::test]
async fn a_failure_is_everybodys_and_below_level_two_each_goes_alone() {
    let (reporting, mut taken) = reporting();
    let waiting = |hosts: std::ops::Range<u32>| {
        let reply = hosts.map(|host| {
            let (reply, answer) = oneshot::channel();
            (Waiting { by: "agent".into(), reports: seen(host, 1, String::new()), reply }, answer)
        });
        reply.unzip::<_, _, Vec<_>, Vec<_>>()
    };
    let (unknown, alone) = (ProposeError::OutcomeUnknown, ProposeError::LevelTooLow { why: String::new() });
    let refuse = |error: ProposeError| {
        move |_: Arc<str>, command: Command| {
            let many = matches!(command, Command::ReportMany(_));
            std::future::ready(if many { Err(error.clone()) } else { done(u64::from(hosts(&command)[0])) })
        }
    };
    let (group, answers) = waiting(1..4);
    send(group, &refuse(unknown.clone())).await;
    for answer in answers {
        assert_eq!(answer.await.unwrap(), Err(unknown.clone()));
    }
    let (group, answers) = waiting(1..4);
    send(group, &refuse(alone)).await;
    for (host, answer) in (1..4).zip(answers) {
        assert_eq!(answer.await.unwrap(), done(host));
    }
    drop(reporting);
    assert!(taken.recv().await.is_none(), "gathering ends with the last handle");
}

#[tokio::test]
async fn large_hand_ins_are_not_put_together_and_a_full_queue_says_so() {
    let (reporting, mut taken) = reporting();
    let large = "x".repeat(MAX_BYTES * 2 / 3);
    let sent: Vec<_> = (0..MAX_UNDER_WAY as u32).map(|host| hand_in(&reporting, host, &large)).collect();
    let mut open = Vec::new();
    for _ in 0..MAX_UNDER_WAY {
        let (_, command, reply) = take(&mut taken).await;
        assert_eq!(hosts(&command).len(), 1);
        open.push(reply);
    }
    // Now nothing moves: one is with the gatherer at most, and the rest fills the queue.
    let mut waiting = Vec::new();
    let full = loop {
        let mut next = Box::pin(reporting.hand_in("agent".into(), seen(7, 1, String::new())));
        match futures::poll!(&mut next) {
            std::task::Poll::Ready(answer) => break answer,
            std::task::Poll::Pending => waiting.push(next),
        }
        assert!(waiting.len() <= MAX_QUEUED + 2, "the queue is bounded");
    };
    assert_eq!(full, Err(ProposeError::Overloaded { retry_after: RETRY_AFTER }));
    open.into_iter().for_each(|reply| reply.send(done(3)).unwrap());
    for answer in sent {
        assert_eq!(answer.await.unwrap(), done(3));
    }
}
