//! The receiving side of the peers' protocol: feeds streams into the log. Knows gRPC's types and the handle.
//!
//! Whoever implements the service authenticates the caller and passes its number on; a message that names another
//! sender is refused here.

use std::path::PathBuf;
use std::time::Duration;

use supercloud_proto::v1;
use tokio::io::{AsyncSeekExt as _, AsyncWriteExt as _};
use tokio::time::timeout;
use tokio_stream::{Stream, StreamExt as _};
use tonic::Status;
use tonic::metadata::MetadataValue;

use super::handle::{Log, StepError};
use super::limits::{MAX_SNAPSHOT_BYTES, SNAPSHOT_STALL};
use super::members::NodeId;
use super::partial::{self, Kept, Partial, Temporary};

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
        log.step_all(from, request.messages.iter().map(Vec::as_slice))?;
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

/// How much of a snapshot is here already: its sender goes on from there.
///
/// # Errors
/// When the request names another sender than the caller, or no snapshot.
pub fn snapshot_offset<O: Send + 'static>(
    log: &Log<O>,
    caller: Option<NodeId>,
    request: v1::SnapshotOffsetRequest,
) -> Result<v1::SnapshotOffsetResponse, Status> {
    sender(caller, request.from)?;
    let mark = request.mark.filter(partial::is_mark);
    let mark =
        mark.ok_or_else(|| Status::invalid_argument("mark: expected what tells a snapshot from others"))?;
    Ok(v1::SnapshotOffsetResponse { offset: log.kept().offset(&mark) })
}

/// Takes in one snapshot: every piece is checked, the file is synced and read through once more, and only then the
/// message that announced it reaches the log. What came of one whose transfer broke is kept, and goes on where it was. `caller` as in
/// [`step_stream`].
///
/// # Errors
/// `RESOURCE_EXHAUSTED` while another one comes in, `FAILED_PRECONDITION` when it goes on with what is not here, `DATA_LOSS` when it is not whole, `DEADLINE_EXCEEDED` when the
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
    if !log.space().takes(first.total) {
        return Err(Status::resource_exhausted(format!(
            "there is no space for a snapshot of {} bytes",
            first.total
        )));
    }
    if first.total > MAX_SNAPSHOT_BYTES {
        return Err(Status::invalid_argument("the snapshot is larger than any"));
    }
    let mark = first.mark.clone().filter(partial::is_mark);
    let mut file = match log.kept().take(mark.as_ref(), first.offset) {
        Some(kept) => IncomingFile::go_on(log.kept().clone(), kept).await?,
        None if first.offset == 0 => {
            IncomingFile::create(log.kept().clone(), log.incoming_snapshot(), first.total, mark).await?
        }
        None => return Err(Status::failed_precondition("what the snapshot goes on with is not here")),
    };
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

/// A snapshot while it comes in. What there is of it when this is dropped is kept.
struct IncomingFile {
    kept: Kept,
    mark: Option<v1::SnapshotMark>,
    path: Option<Temporary>,
    file: tokio::fs::File,
    /// Bytes that were checked and are in the file.
    written: u64,
    total: u64,
}

impl IncomingFile {
    async fn create(
        kept: Kept,
        path: PathBuf,
        total: u64,
        mark: Option<v1::SnapshotMark>,
    ) -> Result<Self, Status> {
        let file = tokio::fs::File::create(&path).await.map_err(|error| disk(&error))?;
        Ok(Self { kept, mark, path: Some(Temporary::new(path)), file, written: 0, total })
    }

    /// Goes on where the transfer broke. What lies behind in the file was never checked.
    async fn go_on(kept: Kept, partial: Partial) -> Result<Self, Status> {
        let Partial { mark, file: path, bytes } = partial;
        let opened = async {
            let mut file = tokio::fs::OpenOptions::new().write(true).open(path.path()).await?;
            if file.metadata().await?.len() < bytes {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            file.set_len(bytes).await?;
            file.seek(std::io::SeekFrom::Start(bytes)).await?;
            Ok(file)
        };
        let file = opened.await.map_err(|error| disk(&error))?;
        tracing::info!(bytes, total = mark.total, "a snapshot that broke off goes on");
        let total = mark.total;
        Ok(Self { kept, mark: Some(mark), path: Some(path), file, written: bytes, total })
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
        let written = async {
            self.file.write_all(&piece.data).await?;
            // Without it the file's own buffer may be behind what is counted here.
            self.file.flush().await
        };
        if let Err(error) = written.await {
            // Nobody knows what the file holds.
            self.mark = None;
            return Err(disk(&error));
        }
        self.written = end;
        Ok(())
    }

    async fn finish(mut self) -> Result<Temporary, Status> {
        if self.written != self.total {
            return Err(Status::data_loss(format!("{} of {} bytes came", self.written, self.total)));
        }
        self.mark = None;
        self.file.sync_all().await.map_err(|error| disk(&error))?;
        self.path.take().ok_or_else(|| Status::internal("the snapshot has no file"))
    }
}

impl Drop for IncomingFile {
    fn drop(&mut self) {
        if let (Some(mark), Some(file)) = (self.mark.take(), self.path.take())
            && self.written > 0
        {
            self.kept.put(Partial { mark, file, bytes: self.written });
        }
    }
}

fn disk(error: &std::io::Error) -> Status {
    Status::internal(format!("cannot write the snapshot: {error}"))
}
