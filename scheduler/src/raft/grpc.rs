//! The network of production: one long-lived gRPC stream to each peer, and one of its own for each snapshot.
//!
//! A turn of the log only puts messages into bounded queues; a task a peer connects, sends, and waits with growing
//! patience when that fails. What does not fit a queue is dropped, and what waited while the peer was away is dropped
//! too: raft repeats what still matters, and an old heartbeat matters to nobody.

use std::collections::{BTreeMap, VecDeque};
use std::io::SeekFrom;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use futures::Stream;
use futures::future::BoxFuture;
use rand::Rng as _;
use supercloud_proto::v1;
use supercloud_proto::v1::peer_service_client::PeerServiceClient;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tonic::transport::Channel;

use super::inbox::Reports;
use super::limits::{
    CONNECT_DEADLINE, FIRST_RECONNECT, MAX_MESSAGE_BYTES, MAX_PEER_QUEUE, MAX_RECONNECT, MAX_STEP_MESSAGES,
    SNAPSHOT_CHUNK_BYTES, SNAPSHOT_MARK_BYTES, SNAPSHOT_STALL,
};
use super::members::NodeId;
use super::service::says_removed;
use super::transport::{PeerAddress, SnapshotToSend, Transport};

/// Why there is no connection to a peer.
pub type ConnectError = Box<dyn std::error::Error + Send + Sync>;
/// Makes an authenticated connection to a peer. Keep-alive is its business.
pub type Connect =
    Arc<dyn Fn(PeerAddress) -> BoxFuture<'static, Result<Channel, ConnectError>> + Send + Sync>;

/// Pieces of a snapshot that wait for the connection to take them.
const STREAM_DEPTH: usize = 4;

/// See the head of the module.
pub struct GrpcTransport {
    shared: Arc<Shared>,
    links: BTreeMap<NodeId, Link>,
    runtime: Handle,
}

struct Shared {
    id: NodeId,
    connect: Connect,
    reports: Reports,
}

struct Link {
    address: String,
    queue: mpsc::Sender<Vec<u8>>,
}

impl GrpcTransport {
    /// A transport for node `id`, whose tasks run on `runtime`.
    #[must_use]
    pub fn new(id: NodeId, connect: Connect, reports: Reports, runtime: Handle) -> Self {
        Self { shared: Arc::new(Shared { id, connect, reports }), links: BTreeMap::new(), runtime }
    }

    fn link(&mut self, to: &PeerAddress) -> &Link {
        let moved = self.links.get(&to.id).is_some_and(|link| link.address != to.address);
        if moved {
            self.links.remove(&to.id);
        }
        self.links.entry(to.id).or_insert_with(|| {
            let (queue, messages) = mpsc::channel(MAX_PEER_QUEUE);
            self.runtime.spawn(serve(self.shared.clone(), to.clone(), messages));
            Link { address: to.address.clone(), queue }
        })
    }
}

impl Transport for GrpcTransport {
    fn send(&mut self, to: &PeerAddress, message: Vec<u8>) {
        if self.link(to).queue.try_send(message).is_err() {
            tracing::debug!(peer = %to.id, "the queue to a peer is full, a message is dropped");
        }
    }

    fn send_snapshot(&mut self, to: &PeerAddress, snapshot: SnapshotToSend) {
        let (shared, to) = (self.shared.clone(), to.clone());
        self.runtime.spawn(async move {
            let sent = send_snapshot(&shared, &to, snapshot).await;
            if let Err(error) = &sent {
                tracing::warn!(peer = %to.id, %error, "a snapshot did not reach its peer");
            }
            shared.reports.snapshot_sent(to.id, sent.is_ok());
        });
    }

    fn forget(&mut self, id: NodeId) {
        // The task sends what is queued and ends.
        self.links.remove(&id);
    }
}

/// Serves one peer until its queue is closed.
async fn serve(shared: Arc<Shared>, to: PeerAddress, queue: mpsc::Receiver<Vec<u8>>) {
    let queue = Arc::new(Mutex::new(queue));
    let mut wait = FIRST_RECONNECT;
    let mut away = false;
    loop {
        let ended = match connect(&shared, &to).await {
            Ok(channel) => {
                if away {
                    tracing::info!(peer = %to.id, address = to.address, "peer is reached again");
                }
                (away, wait) = (false, FIRST_RECONNECT);
                stream(&shared, channel, &queue).await
            }
            Err(error) => Err(Status::unavailable(error.to_string())),
        };
        let Err(status) = ended else { return };
        if says_removed(&status) {
            tracing::warn!(peer = %to.id, %status, "a peer says that this node was removed");
            shared.reports.removed();
        }
        if !away {
            tracing::warn!(peer = %to.id, address = to.address, %status, "peer is not reached");
            shared.reports.unreachable(to.id);
            away = true;
        }
        let jitter = rand::rng().random_range(0.5..1.0);
        tokio::time::sleep(wait.mul_f64(jitter)).await;
        wait = (wait * 2).min(MAX_RECONNECT);
        if forget_queued(&queue) {
            return;
        }
    }
}

/// Drops what is queued. Whether nothing will come any more.
fn forget_queued(queue: &Queue) -> bool {
    let mut queue = locked(queue);
    while queue.try_recv().is_ok() {}
    queue.is_closed()
}

async fn connect(shared: &Shared, to: &PeerAddress) -> Result<Channel, ConnectError> {
    timeout(CONNECT_DEADLINE, (shared.connect)(to.clone())).await?
}

/// Sends what is queued over one stream. `Ok` when the queue is closed and the peer has taken what was sent, `Err` when the stream ended.
async fn stream(shared: &Shared, channel: Channel, queue: &Arc<Queue>) -> Result<(), Status> {
    let running = Arc::new(AtomicBool::new(true));
    let requests = Requests {
        from: shared.id,
        queue: queue.clone(),
        running: running.clone(),
        taken: Vec::new(),
        left: VecDeque::new(),
    };
    let answer = PeerServiceClient::new(channel).step(requests).await;
    // The stream may live on for a moment, and must not take what is meant for the next one.
    {
        // Under the lock that it is read under: the next stream must find none before it that still takes the queue's waker.
        let _queue = locked(queue);
        running.store(false, Ordering::Release);
    }
    match answer {
        Ok(_) if locked(queue).is_closed() => Ok(()),
        Ok(_) => Err(Status::cancelled("the peer ended the stream")),
        Err(status) => Err(status),
    }
}

/// Messages for one peer, which its streams take in turn.
type Queue = Mutex<mpsc::Receiver<Vec<u8>>>;

fn locked(queue: &Queue) -> MutexGuard<'_, mpsc::Receiver<Vec<u8>>> {
    // A queue is whole between two statements.
    queue.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What one stream sends: all that is queued when the connection asks for more. The connection takes it from the queue by itself, since
/// every task in between would cost each message a turn of its own.
struct Requests {
    from: NodeId,
    queue: Arc<Queue>,
    /// Whether this is still the stream that sends.
    running: Arc<AtomicBool>,
    /// Room for what is taken from the queue.
    taken: Vec<Vec<u8>>,
    /// What did not fit into the request before.
    left: VecDeque<Vec<Vec<u8>>>,
}

impl Stream for Requests {
    type Item = v1::StepRequest;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<v1::StepRequest>> {
        let this = self.get_mut();
        if this.left.is_empty() {
            let mut queue = locked(&this.queue);
            if !this.running.load(Ordering::Acquire) {
                return Poll::Ready(None);
            }
            let polled = queue.poll_recv_many(context, &mut this.taken, MAX_STEP_MESSAGES);
            drop(queue);
            if ready!(polled) == 0 {
                return Poll::Ready(None);
            }
            this.left = gather(&mut this.taken);
        }
        let from = this.from.0;
        Poll::Ready(this.left.pop_front().map(|messages| v1::StepRequest { from, messages }))
    }
}

/// Groups messages into requests of a bounded size, in their order.
fn gather(batch: &mut Vec<Vec<u8>>) -> VecDeque<Vec<Vec<u8>>> {
    let mut requests: VecDeque<Vec<Vec<u8>>> = VecDeque::new();
    let mut bytes = u64::MAX;
    for message in batch.drain(..) {
        let size = message.len() as u64;
        bytes = bytes.saturating_add(size);
        match requests.back_mut() {
            Some(last) if bytes <= MAX_MESSAGE_BYTES => last.push(message),
            _ => {
                bytes = size;
                requests.push_back(vec![message]);
            }
        }
    }
    requests
}

async fn send_snapshot(
    shared: &Shared,
    to: &PeerAddress,
    snapshot: SnapshotToSend,
) -> Result<(), ConnectError> {
    let mut file = tokio::fs::File::open(&snapshot.file).await?;
    let total = file.metadata().await?.len();
    // A connection of its own: a snapshot must not hold up heartbeats.
    let channel = connect(shared, to).await?;
    let mut client = PeerServiceClient::new(channel);
    let mut mark = Some(mark(&mut file, total).await?);
    let mut offset = offset(&mut client, shared.id, mark.clone()).await.min(total);
    file.seek(SeekFrom::Start(offset)).await?;
    let (pieces, outgoing) = mpsc::channel(STREAM_DEPTH);
    let call = tokio::spawn(async move { client.install_snapshot(ReceiverStream::new(outgoing)).await });
    let mut message = snapshot.message;
    // At least one piece, though nothing may be missing any more: it carries the message.
    while offset < total || mark.is_some() {
        let mut data = vec![0; SNAPSHOT_CHUNK_BYTES.min(usize::try_from(total - offset)?)];
        file.read_exact(&mut data).await?;
        let piece = v1::InstallSnapshotRequest {
            from: shared.id.0,
            message: std::mem::take(&mut message),
            offset,
            crc32: crc32fast::hash(&data),
            total,
            data,
            mark: mark.take(),
        };
        offset += piece.data.len() as u64;
        if timeout(SNAPSHOT_STALL, pieces.send(piece)).await?.is_err() {
            // The peer has ended the call; its answer says why.
            break;
        }
    }
    drop(pieces);
    timeout(SNAPSHOT_STALL, call).await???;
    Ok(())
}

/// What tells this file from those of other snapshots.
async fn mark(file: &mut tokio::fs::File, total: u64) -> std::io::Result<v1::SnapshotMark> {
    let length = usize::try_from(total).unwrap_or(usize::MAX).min(SNAPSHOT_MARK_BYTES);
    let (mut head, mut tail) = (vec![0; length], vec![0; length]);
    file.read_exact(&mut head).await?;
    file.seek(SeekFrom::Start(total - length as u64)).await?;
    file.read_exact(&mut tail).await?;
    Ok(v1::SnapshotMark { total, head, tail })
}

/// How much of it the peer has from an attempt that broke. A peer that does not say begins anew: an older one knows no such question.
async fn offset(
    client: &mut PeerServiceClient<Channel>,
    from: NodeId,
    mark: Option<v1::SnapshotMark>,
) -> u64 {
    let asked = client.snapshot_offset(v1::SnapshotOffsetRequest { from: from.0, mark });
    match timeout(CONNECT_DEADLINE, asked).await {
        Ok(Ok(answer)) => answer.into_inner().offset,
        Ok(Err(_)) | Err(_) => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_keep_the_order_and_stay_small() {
        let big = vec![1; MAX_MESSAGE_BYTES as usize + 9];
        let mut batch = vec![vec![0], big.clone(), vec![2], vec![3]];
        let expected = [vec![vec![0]], vec![big], vec![vec![2], vec![3]]];
        assert_eq!(gather(&mut batch), expected);
    }
}
