//! The receiving side of the peers' protocol: feeds streams into the log. Knows gRPC's types and the handle.
//!
//! Whoever implements the service authenticates the caller and passes its number on; a message that names another
//! sender is refused here.

use std::path::{Path, PathBuf};
use std::time::Duration;

use supercloud_proto::v1;
use tokio::io::AsyncWriteExt as _;
use tokio::time::timeout;
use tokio_stream::{Stream, StreamExt as _};
use tonic::Status;
use tonic::metadata::MetadataValue;

use super::handle::{Log, StepError};
use super::limits::{MAX_SNAPSHOT_BYTES, SNAPSHOT_STALL};
use super::members::NodeId;

/// Tells a sender's transport that the sender was removed from the cluster, and nothing milder.
const REMOVED: &str = "supercloud-removed";

/// Whether a peer's answer says that this node was removed.
pub(super) fn says_removed(status: &Status) -> bool {
    status.metadata().contains_key(REMOVED)
}

impl From<StepError> for Status {
    fn from(error: StepError) -> Self {
        let text = error.to_string();
        match error {
            StepError::TooLarge { .. } | StepError::Malformed => Self::invalid_argument(text),
            StepError::OtherCluster { .. } | StepError::OtherSender { .. } => Self::permission_denied(text),
            StepError::SenderRemoved { .. } => {
                let mut status = Self::failed_precondition(text);
                status.metadata_mut().insert(REMOVED, MetadataValue::from_static("true"));
                status
            }
            StepError::Snapshot(_) => Self::data_loss(text),
        }
    }
}

/// Feeds a peer's messages into the log until the peer ends the stream. `caller` is the node that the caller's
/// credential names; without one (only when running without mTLS) the messages' word is taken.
///
/// # Errors
/// `FAILED_PRECONDITION` when the sender was removed from the cluster, others when a message is not one.
pub async fn step_stream<O: Send + 'static>(
    log: &Log<O>,
    caller: Option<NodeId>,
    mut requests: impl Stream<Item = Result<v1::StepRequest, Status>> + Unpin,
) -> Result<v1::StepResponse, Status> {
    while let Some(request) = requests.next().await {
        let request = request?;
        let from = sender(caller, request.from)?;
        for message in &request.messages {
            log.step(from, message)?;
        }
    }
    Ok(v1::StepResponse {})
}

fn sender(caller: Option<NodeId>, named: u64) -> Result<NodeId, Status> {
    let found = NodeId(named);
    match caller {
        Some(caller) if caller != found => Err(StepError::OtherSender { caller, found }.into()),
        _ => Ok(found),
    }
}

/// Takes in one snapshot: every piece is checked, the file is synced and read through once more, and only then the
/// message that announced it reaches the log. `caller` as in [`step_stream`].
///
/// # Errors
/// `RESOURCE_EXHAUSTED` while another one comes in, `DATA_LOSS` when it is not whole, `DEADLINE_EXCEEDED` when the
/// sender falls silent (it may be gone without a word, and others must get their turn), `INTERNAL` when our disk refuses.
pub async fn install_snapshot<O: Send + 'static>(
    log: &Log<O>,
    caller: Option<NodeId>,
    pieces: impl Stream<Item = Result<v1::InstallSnapshotRequest, Status>> + Unpin,
) -> Result<v1::InstallSnapshotResponse, Status> {
    receive(log, caller, pieces, SNAPSHOT_STALL).await
}

pub(super) async fn receive<O: Send + 'static>(
    log: &Log<O>,
    caller: Option<NodeId>,
    mut pieces: impl Stream<Item = Result<v1::InstallSnapshotRequest, Status>> + Unpin,
    stall: Duration,
) -> Result<v1::InstallSnapshotResponse, Status> {
    let Some(_only) = log.receive_snapshot() else {
        return Err(Status::resource_exhausted("another snapshot is coming in"));
    };
    let first =
        next(&mut pieces, stall).await?.ok_or_else(|| Status::invalid_argument("the stream is empty"))?;
    let from = sender(caller, first.from)?;
    if first.total > MAX_SNAPSHOT_BYTES {
        return Err(Status::invalid_argument("the snapshot is larger than any"));
    }
    let mut file = IncomingFile::create(log.incoming_snapshot(), first.total).await?;
    let message = first.message.clone();
    file.piece(&first).await?;
    while let Some(piece) = next(&mut pieces, stall).await? {
        file.piece(&piece).await?;
    }
    let file = file.finish().await?;
    let log = log.clone();
    let stepped = tokio::task::spawn_blocking(move || {
        let stepped = log.step_snapshot(from, &message, file.path());
        if stepped.is_ok() {
            // From here on the log deletes the file when it does not want it.
            file.keep();
        }
        stepped
    });
    stepped.await.map_err(|error| Status::internal(error.to_string()))??;
    Ok(v1::InstallSnapshotResponse {})
}

/// The next piece, unless the sender has fallen silent.
async fn next<T>(
    pieces: &mut (impl Stream<Item = Result<T, Status>> + Unpin),
    stall: Duration,
) -> Result<Option<T>, Status> {
    let silent = |_| Status::deadline_exceeded("the sender of the snapshot has fallen silent");
    timeout(stall, pieces.next()).await.map_err(silent)?.transpose()
}

/// A path whose file is deleted unless somebody else has taken it over.
struct Temporary(Option<PathBuf>);

impl Temporary {
    fn path(&self) -> &Path {
        self.0.as_deref().unwrap_or(Path::new(""))
    }

    fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            // What stays behind is swept at the next start.
            let _ = std::fs::remove_file(path);
        }
    }
}

struct IncomingFile {
    path: Temporary,
    file: tokio::fs::File,
    written: u64,
    total: u64,
}

impl IncomingFile {
    async fn create(path: PathBuf, total: u64) -> Result<Self, Status> {
        let file = tokio::fs::File::create(&path).await.map_err(|error| disk(&error))?;
        Ok(Self { path: Temporary(Some(path)), file, written: 0, total })
    }

    async fn piece(&mut self, piece: &v1::InstallSnapshotRequest) -> Result<(), Status> {
        let end = self.written + piece.data.len() as u64;
        if piece.offset != self.written || end > self.total {
            return Err(Status::invalid_argument(format!(
                "a piece at {} does not follow {} of {} bytes",
                piece.offset, self.written, self.total
            )));
        }
        if crc32fast::hash(&piece.data) != piece.crc32 {
            return Err(Status::data_loss(format!(
                "the piece at {} does not match its checksum",
                piece.offset
            )));
        }
        self.file.write_all(&piece.data).await.map_err(|error| disk(&error))?;
        self.written = end;
        Ok(())
    }

    async fn finish(mut self) -> Result<Temporary, Status> {
        if self.written != self.total {
            return Err(Status::data_loss(format!("{} of {} bytes came", self.written, self.total)));
        }
        self.file.flush().await.map_err(|error| disk(&error))?;
        self.file.sync_all().await.map_err(|error| disk(&error))?;
        Ok(self.path)
    }
}

fn disk(error: &std::io::Error) -> Status {
    Status::internal(format!("cannot write the snapshot: {error}"))
}
