//! Heartbeats on their way from the sessions of this node to the leader, many at a time, and the answer on its way back. Knows who leads and
//! no verdict.
//!
//! An agent's lease hangs on the answer, so it is given only when the leader has the heartbeat *and* still led after it came: the leader has
//! that confirmed by a majority in its present term. Whoever leads later then judges no host before a whole lease has passed.
//!
//! And it is given only when this node's state holds every decision that the leader had made until then: a host that was given up and is back
//! must see, before its lease is renewed, the order that tells it to stop. A session therefore sends the orders of the present state first, and
//! then the answer.

use std::{collections::BTreeMap, time::Duration};

use supercloud_proto::{
    host::{DriverInfo, drivers_from_wire, drivers_to_wire},
    id::HostId,
    problem::Problems,
    spec::DriverKind,
    v1,
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::timeout,
};

use crate::{
    leader::Lead,
    peers::Peers,
    raft::{self, Role},
    state::State,
    watch as waits,
};

/// Heartbeats that wait to be passed on.
const MAX_QUEUED: usize = 16_384;
/// Heartbeats in one message.
const MAX_BATCH: usize = 4_096;
/// How long a node gathers before it passes on or takes in; far below the time between two heartbeats of a host. The leader gathers too: each time
/// that it takes some in, a majority has to confirm that it leads.
const GATHER: Duration = Duration::from_millis(200);
/// Longest wait for the leader's answer; the next heartbeat is on its way then.
const ANSWER_DEADLINE: Duration = Duration::from_secs(2);

/// One heartbeat of one host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Beat {
    /// Which host.
    pub host: HostId,
    /// Its sequence.
    pub sequence: u64,
    /// Its drivers as they are now.
    pub drivers: BTreeMap<DriverKind, DriverInfo>,
}

/// Why a heartbeat is not answered. The agent sends the next one soon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BeatError {
    /// No node is known to lead, or the one that was asked does not.
    #[error("no leader has the heartbeat")]
    NoLeader,
    /// The leader did not answer in time.
    #[error("the leader did not answer in time")]
    Unanswered,
    /// Too many wait.
    #[error("too many heartbeats wait")]
    Overloaded,
    /// The node has stopped.
    #[error("the node has stopped")]
    Stopped,
}

/// Where sessions hand in heartbeats. Cheap to clone.
#[derive(Clone)]
pub struct Heartbeats {
    queue: mpsc::Sender<Waiting>,
}

struct Waiting {
    beat: Beat,
    reply: oneshot::Sender<Result<(), BeatError>>,
}

impl Heartbeats {
    /// A queue, and its end for [`run`].
    pub(crate) fn new() -> (Self, Queue) {
        let (queue, waiting) = mpsc::channel(MAX_QUEUED);
        (Self { queue }, Queue(waiting))
    }

    /// Hands in a heartbeat, and waits until the leader has it and this node's published state holds all that was decided before. Whoever
    /// answers the agent sends it the orders of that state first.
    ///
    /// # Errors
    /// See [`BeatError`]; the heartbeat is not to be acknowledged then.
    pub async fn beat(&self, beat: Beat) -> Result<(), BeatError> {
        let (reply, answer) = oneshot::channel();
        match self.queue.try_send(Waiting { beat, reply }) {
            Ok(()) => answer.await.unwrap_or(Err(BeatError::Stopped)),
            Err(mpsc::error::TrySendError::Full(_)) => Err(BeatError::Overloaded),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(BeatError::Stopped),
        }
    }
}

/// What waits to be passed on.
pub(crate) struct Queue(mpsc::Receiver<Waiting>);

/// Passes heartbeats on until the node stops.
pub(crate) async fn run(
    mut queue: Queue,
    lead: Lead,
    peers: Peers,
    nodes: watch::Receiver<raft::Status>,
    states: watch::Receiver<State>,
) {
    let mut waiting = Vec::new();
    loop {
        if queue.0.recv_many(&mut waiting, MAX_BATCH).await == 0 {
            return;
        }
        tokio::time::sleep(GATHER).await;
        while waiting.len() < MAX_BATCH
            && let Ok(more) = queue.0.try_recv()
        {
            waiting.push(more);
        }
        let own = nodes.borrow().role == Role::Leader;
        let (beats, replies): (Vec<Beat>, Vec<_>) =
            waiting.drain(..).map(|waiting| (waiting.beat, waiting.reply)).unzip();
        let answer = if own {
            lead.take_in(&beats).await.map(drop)
        } else {
            pass_on(beats, &peers, &nodes, &states).await
        };
        for reply in replies {
            // A session that has ended needs no answer.
            let _ = reply.send(answer);
        }
    }
}

/// Sends heartbeats to the leader.
async fn pass_on(
    beats: Vec<Beat>,
    peers: &Peers,
    nodes: &watch::Receiver<raft::Status>,
    states: &watch::Receiver<State>,
) -> Result<(), BeatError> {
    let (from, leader) = {
        let status = nodes.borrow();
        (status.id, status.leader.and_then(|id| status.members.get(id).cloned()))
    };
    let leader = leader.ok_or(BeatError::NoLeader)?;
    let call = async {
        let mut client = peers.client(&leader).await.map_err(|_| BeatError::NoLeader)?;
        let heartbeats = beats.into_iter().map(to_wire).collect();
        let answer = client.heartbeats(v1::HeartbeatsRequest { from: from.0, heartbeats }).await;
        answer.map(|answer| answer.into_inner().index).map_err(|status| match status.code() {
            tonic::Code::FailedPrecondition => BeatError::NoLeader,
            _ => BeatError::Unanswered,
        })
    };
    let answer = timeout(ANSWER_DEADLINE, call).await.unwrap_or(Err(BeatError::Unanswered));
    match answer {
        Ok(index) => waits::applied(states, index, ANSWER_DEADLINE).await.map(drop).map_err(|error| {
            tracing::debug!(index, %error, "heartbeats are not answered: this node is behind");
            BeatError::Unanswered
        }),
        Err(error) => {
            tracing::debug!(leader = %leader.id, %error, "heartbeats are not answered");
            peers.forget(leader.id);
            Err(error)
        }
    }
}

fn to_wire(beat: Beat) -> v1::HostHeartbeat {
    let drivers = drivers_to_wire(&beat.drivers);
    v1::HostHeartbeat { host_id: beat.host.0, sequence: beat.sequence, drivers }
}

/// Heartbeats as another node sent them.
pub(crate) fn from_wire(heartbeats: Vec<v1::HostHeartbeat>) -> Result<Vec<Beat>, Problems> {
    let one = |heartbeat: v1::HostHeartbeat| {
        let drivers = drivers_from_wire(heartbeat.drivers)?;
        Ok(Beat { host: HostId(heartbeat.host_id), sequence: heartbeat.sequence, drivers })
    };
    heartbeats.into_iter().map(one).collect()
}
