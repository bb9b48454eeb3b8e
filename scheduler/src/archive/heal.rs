//! Filling the gaps of this node's archive from the archives of the others. Knows the peers' protocol and the archive's status; reads no
//! store.

use std::time::Duration;

use supercloud_proto::v1;
use tokio::sync::watch;
use tokio::time::timeout;

use super::{Archive, Batch, Message};
use crate::{
    peers::Peers,
    raft::{self, Member},
};

/// Longest wait for the next piece of another archive.
const PIECE_DEADLINE: Duration = Duration::from_secs(10);
/// Longest wait before all other nodes are asked again.
const AGAIN_AFTER: Duration = Duration::from_secs(2);
/// Rounds in which nobody had more before the loss is accepted: half a minute, longer than a restart of the others.
const MAX_ROUNDS: u32 = 15;
/// Finished instances that are gathered before they are handed over: they come before anything that moves the index.
const MAX_GATHERED: usize = 1_000;
/// How often it is looked whether the archive fell behind at the end of a burst.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Why another archive did not help.
#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error(transparent)]
    Connect(#[from] crate::peers::PeerError),
    #[error(transparent)]
    Status(#[from] tonic::Status),
    #[error("it did not answer within {} s", PIECE_DEADLINE.as_secs())]
    TimedOut,
    #[error("this node stops")]
    Stopped,
}

/// Heals until the node stops.
pub(crate) async fn run(archive: Archive, peers: Peers, nodes: watch::Receiver<raft::Status>) {
    let mut status = archive.status();
    let mut rounds = 0;
    loop {
        let gap = status.borrow_and_update().gap;
        let Some(end) = gap else {
            rounds = 0;
            // An error of the wait is its time-out or the end of the channel, which the abort of this task follows.
            let _ = timeout(LOOK_EVERY, status.changed()).await;
            archive.notice_lost_tail().await;
            continue;
        };
        if round(&archive, &peers, &nodes).await {
            rounds = 0;
            continue;
        }
        rounds += 1;
        // A node that has only just joined may not know anybody yet; it is not alone.
        let alone = nodes.borrow().members.members.len() == 1;
        if alone || rounds >= MAX_ROUNDS {
            rounds = 0;
            archive.tell(Message::GiveUp(end)).await;
        }
        // Also woken by its own progress; the time-out is the usual case.
        let _ = timeout(AGAIN_AFTER, status.changed()).await;
    }
}

/// Asks every other node once. Returns whether somebody had more.
async fn round(archive: &Archive, peers: &Peers, nodes: &watch::Receiver<raft::Status>) -> bool {
    let (own, members) = {
        let status = nodes.borrow();
        (status.id, status.members.clone())
    };
    let before = archive.status().borrow().index;
    for member in members.members.values().filter(|member| member.id != own) {
        if let Err(error) = fetch(archive, peers, member).await {
            tracing::debug!(peer = %member.id, %error, "a peer's archive does not help");
        }
        let now = archive.status().borrow().clone();
        if now.index > before {
            tracing::info!(peer = %member.id, from = before, to = now.index, "the archive was filled from a peer");
            return true;
        }
    }
    false
}

/// Takes what a peer has after our index.
async fn fetch(archive: &Archive, peers: &Peers, member: &Member) -> Result<(), FetchError> {
    let mut after = archive.status().borrow().index;
    let mut client = peers.client(member).await?;
    let request = v1::FetchArchiveRequest { after_index: after };
    let call = timeout(PIECE_DEADLINE, client.fetch_archive(request));
    let mut pieces = call.await.map_err(|_| FetchError::TimedOut)??.into_inner();
    let mut gathered = Batch::default();
    while let Some(piece) =
        timeout(PIECE_DEADLINE, pieces.message()).await.map_err(|_| FetchError::TimedOut)??
    {
        gathered.events.extend(piece.events);
        let finished = piece.finished.into_iter().filter_map(|one| Some((one.index, one.instance?)));
        gathered.finished.extend(finished);
        if piece.index > after {
            let batch = Batch { after, index: piece.index, ..std::mem::take(&mut gathered) };
            after = piece.index;
            if !archive.tell(Message::Fetched(batch, piece.floor)).await {
                return Err(FetchError::Stopped);
            }
        } else if gathered.finished.len() >= MAX_GATHERED {
            let finished = std::mem::take(&mut gathered.finished);
            let batch = Batch { after, index: after, finished, ..Batch::default() };
            if !archive.tell(Message::Fetched(batch, 0)).await {
                return Err(FetchError::Stopped);
            }
        }
    }
    archive.settled(after).await;
    Ok(())
}

impl Archive {
    /// Tells the writer something; waits while its queue is full. Returns whether there is a writer.
    pub(super) async fn tell(&self, message: Message) -> bool {
        let shared = self.shared.clone();
        tokio::task::spawn_blocking(move || shared.queue.send(message).is_ok()).await.unwrap_or(false)
    }

    /// What was left out at the end of a burst shows only when something follows: an empty batch does.
    async fn notice_lost_tail(&self) {
        let reached = self.shared.reached.load(std::sync::atomic::Ordering::Acquire);
        let idle = self.shared.queued.load(std::sync::atomic::Ordering::Acquire) == 0;
        let behind = {
            let status = self.shared.status.borrow();
            status.index < reached && status.gap.is_none() && status.broken.is_none()
        };
        if idle && behind {
            self.tell(Message::Batch(Batch { after: reached, index: reached, ..Batch::default() })).await;
        }
    }

    /// Waits until the writer has archived what it was told, or clearly will not.
    async fn settled(&self, index: u64) {
        let mut status = self.status();
        let reached = status.wait_for(|status| status.index >= index || status.broken.is_some());
        if timeout(PIECE_DEADLINE, reached).await.is_err() {
            tracing::debug!(index, "the archive has not taken in what a peer sent");
        }
    }
}

/// Events in one piece of a `FetchArchive` stream.
const MAX_PIECE: usize = 500;
/// Pieces that wait for the peer to take them.
pub(crate) const PIECES_AHEAD: usize = 4;

impl Archive {
    /// Serves a peer that lacks what came after an index: finished instances first, then events. Ends when the peer goes away.
    pub(crate) async fn serve_fetch(
        &self,
        after: u64,
        pieces: tokio::sync::mpsc::Sender<Result<v1::FetchArchiveResponse, tonic::Status>>,
    ) {
        let served = {
            let pieces = pieces.clone();
            self.read(move |store, status| {
                let (floor, end) = (status.floor, status.durable);
                let send = |piece| pieces.blocking_send(Ok(piece)).is_ok();
                let mut piece = v1::FetchArchiveResponse { floor, ..Default::default() };
                for found in store.finished_after(after) {
                    let (index, instance) = found?;
                    piece.finished.push(v1::FinishedInstance { index, instance: Some(instance) });
                    if piece.finished.len() >= MAX_PIECE / 5 && !send(std::mem::take(&mut piece)) {
                        return Ok(());
                    }
                }
                for event in store.events_after((after, u32::MAX))? {
                    let event = event?;
                    if event.index > end {
                        break;
                    }
                    // Cut only between two indexes is the peer whole.
                    if piece.events.len() >= MAX_PIECE {
                        let last = piece.events.last().map_or(0, |last| last.index);
                        piece.index =
                            if last < event.index { last } else { last.saturating_sub(1).max(after) };
                        piece.floor = floor;
                        if !send(std::mem::take(&mut piece)) {
                            return Ok(());
                        }
                    }
                    piece.events.push(event);
                }
                (piece.index, piece.floor) = (end, floor);
                send(piece);
                Ok(())
            })
            .await
        };
        if let Err(error) = served {
            // The peer may be gone already.
            let _ = pieces.send(Err(tonic::Status::unavailable(error.to_string()))).await;
        }
    }
}
