//! The whole state as a stream, for `scheduler snapshot save`: the bytes of a file that a restore takes (`supercloud_proto::saved`). The state is an
//! O(1) copy; it is written by a thread of its own, as fast as the caller takes it, and holds nothing up.

use std::{
    io::{self, BufWriter, Write},
    pin::Pin,
    time::Duration,
};

use futures::Stream;
use supercloud_proto::{
    saved::{self, PIECE_BYTES, SavedHead, SavedMember, SavedWriter},
    v1,
};
use tokio::{runtime::Handle, sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::{Api, ending::cut_off, refusals};
use crate::{
    clock,
    raft::{self, MemberKind},
    state::State,
};

/// States that a node sends at a time. Each holds on to what the state was when it began.
pub(super) const MAX_SAVES: usize = 1;
/// Pieces that wait for the caller.
const AHEAD: usize = 4;
/// Within which the caller takes a piece, or the saving is given up.
const STALL: Duration = Duration::from_secs(30);

/// What the caller receives.
pub(super) type Pieces = Pin<Box<dyn Stream<Item = Result<v1::SaveSnapshotResponse, Status>> + Send>>;

impl Api {
    /// A state as a stream of pieces: one that holds every acknowledged write, or (`stale`) what this node has.
    pub(super) async fn save(&self, by: &str, stale: bool) -> Result<Pieces, Status> {
        let place = self.saves.clone().try_acquire_owned();
        let place = place.map_err(|_| refusals::too_many("savings of the state", MAX_SAVES))?;
        let state = self.state(stale).await?;
        let Some(cluster) = state.cluster_id().map(str::to_owned) else {
            return Err(Status::failed_precondition("this node has no state yet: there is nothing to save"));
        };
        // After the state: numbers that were given out until then are all in it.
        let head = head(&self.core.status(), cluster, state.applied(), !stale);
        tracing::info!(by, index = head.index, stale, "the state is being saved");
        let (queue, pieces) = mpsc::channel(AHEAD);
        let runtime = Handle::current();
        tokio::task::spawn_blocking(move || {
            let _held = place;
            if let Err(error) = write(&state, &head, ToCaller { queue, runtime }) {
                // The caller is gone or hangs; it finds its file cut off.
                tracing::warn!(%error, "the state was not saved to its end");
            }
        });
        Ok(Box::pin(cut_off(ReceiverStream::new(pieces), self.ended())))
    }
}

fn head(status: &raft::Status, cluster_id: String, index: u64, confirmed: bool) -> SavedHead {
    let member = |member: &raft::Member| SavedMember {
        id: member.id.0,
        peer_address: member.peer_address.clone(),
        api_address: member.api_address.clone(),
        voter: member.kind == MemberKind::Voter,
    };
    SavedHead {
        format: saved::FORMAT,
        cluster_id,
        index,
        term: status.term,
        saved_ms: clock::unix_now(),
        node_id: status.id.0,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        next_node_id: status.members.next_id,
        members: status.members.members.values().map(member).collect(),
        confirmed,
    }
}

fn write(state: &State, head: &SavedHead, out: ToCaller) -> io::Result<()> {
    // A message holds a piece with what stands before it.
    let mut writer = SavedWriter::begin(BufWriter::with_capacity(PIECE_BYTES, out), head)?;
    state.write(&mut writer)?;
    writer.finish().map(drop)
}

/// Sends what is written as messages. For a thread that may block.
struct ToCaller {
    queue: mpsc::Sender<Result<v1::SaveSnapshotResponse, Status>>,
    runtime: Handle,
}

impl Write for ToCaller {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let message = v1::SaveSnapshotResponse { data: bytes.to_vec() };
        match self.runtime.block_on(timeout(STALL, self.queue.send(Ok(message)))) {
            Ok(Ok(())) => Ok(bytes.len()),
            Ok(Err(_)) => Err(io::Error::new(io::ErrorKind::BrokenPipe, "the caller has gone")),
            Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "the caller takes nothing any more")),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
