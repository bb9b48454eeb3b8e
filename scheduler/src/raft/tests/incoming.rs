//! Snapshots that come in and should not have: what they leave behind, and whom they keep waiting.

use std::path::Path;

use supercloud_proto::v1;
use tokio_stream::StreamExt as _;
use tonic::{Code, Status};

use super::harness::{Journal, often};
use crate::raft::{
    Log, Member, MemberKind, NodeId, PeerAddress, Settings, SnapshotToSend, Start, Transport,
    install_snapshot, limits, service::receive, snapshot_offset, start,
};

/// A node that is alone has nobody to send to.
struct Nowhere;

impl Transport for Nowhere {
    fn send(&mut self, _: &PeerAddress, _: Vec<u8>) {}
    fn send_snapshot(&mut self, _: &PeerAddress, _: SnapshotToSend) {}
    fn forget(&mut self, _: NodeId) {}
}

fn alone(directory: &Path) -> Log<usize> {
    let id = NodeId(1);
    let member =
        Member { id, peer_address: "peer-1".into(), api_address: "api-1".into(), kind: MemberKind::Voter };
    begun(directory, &Start::Found { members: vec![member] })
}

fn again(directory: &Path) -> Log<usize> {
    begun(directory, &Start::Again)
}

fn begun(directory: &Path, how: &Start) -> Log<usize> {
    let id = NodeId(1);
    let settings = Settings {
        cluster: "test".into(),
        id,
        directory: directory.to_path_buf(),
        peer_address: "peer-1".into(),
        snapshots: often(),
        tick: limits::TICK,
    };
    start(settings, how, Journal::new().0, |_| Nowhere).unwrap()
}

fn piece(data: &[u8], total: u64) -> Result<v1::InstallSnapshotRequest, Status> {
    Ok(v1::InstallSnapshotRequest {
        from: 2,
        message: Vec::new(),
        offset: 0,
        data: data.to_vec(),
        crc32: crc32fast::hash(data),
        total,
        mark: None,
    })
}

/// A piece somewhere in a file of `total` bytes, of the snapshot of that name.
fn later(of: &str, offset: u64, data: &[u8], total: u64) -> Result<v1::InstallSnapshotRequest, Status> {
    piece(data, total).map(|piece| v1::InstallSnapshotRequest {
        offset,
        mark: Some(mark(of, total)),
        ..piece
    })
}

fn mark(of: &str, total: u64) -> v1::SnapshotMark {
    v1::SnapshotMark { total, head: of.as_bytes().to_vec(), tail: vec![7] }
}

fn offset(log: &Log<usize>, of: &str, total: u64) -> u64 {
    let request = v1::SnapshotOffsetRequest { from: 2, mark: Some(mark(of, total)) };
    snapshot_offset(log, None, request).unwrap().offset
}

fn unfinished(directory: &Path) -> usize {
    let files = std::fs::read_dir(directory.join("snapshots")).unwrap();
    files.filter(|file| file.as_ref().unwrap().path().extension().is_some_and(|end| end == "tmp")).count()
}

#[tokio::test]
async fn a_sender_that_falls_silent_does_not_keep_the_next_one_waiting() {
    let folder = tempfile::tempdir().unwrap();
    let log = alone(folder.path());
    let silent = tokio_stream::iter([piece(b"half", 8)]).chain(tokio_stream::pending());
    let refused = receive(&log, None, silent, limits::TICK).await.unwrap_err();
    assert_eq!(refused.code(), Code::DeadlineExceeded);
    assert_eq!(unfinished(folder.path()), 0);
    // The next one is taken in, and refused for what it is.
    let next = install_snapshot(&log, None, tokio_stream::iter([piece(b"no snapshot", 11)])).await;
    assert_eq!(next.unwrap_err().code(), Code::DataLoss);
    log.shutdown().await;
}

#[tokio::test]
async fn a_snapshot_that_is_damaged_leaves_no_file_behind() {
    let folder = tempfile::tempdir().unwrap();
    let log = alone(folder.path());
    for _ in 0..3 {
        let sent = install_snapshot(&log, None, tokio_stream::iter([piece(b"no snapshot", 11)])).await;
        assert_eq!(sent.unwrap_err().code(), Code::DataLoss);
    }
    assert_eq!(unfinished(folder.path()), 0);
    log.shutdown().await;
}

#[tokio::test]
async fn a_transfer_that_broke_goes_on_from_the_last_checked_piece() {
    let folder = tempfile::tempdir().unwrap();
    let log = alone(folder.path());
    let broken = |pieces: Vec<_>| install_snapshot(&log, None, tokio_stream::iter(pieces));
    let reset = || Err(Status::unavailable("the connection was reset"));
    // A piece, one that is damaged on the way, and another sender that is cut off.
    let damaged = later("a", 4, b"more", 12).map(|piece| v1::InstallSnapshotRequest { crc32: 1, ..piece });
    assert_eq!(broken(vec![later("a", 0, b"some", 12), damaged]).await.unwrap_err().code(), Code::DataLoss);
    assert_eq!((offset(&log, "a", 12), unfinished(folder.path())), (4, 1));
    assert!(broken(vec![later("a", 4, b"more", 12), reset()]).await.is_err());
    assert_eq!(offset(&log, "a", 12), 8);
    // Of another snapshot nothing is here; and nobody goes on with what is not here.
    assert_eq!((offset(&log, "b", 12), offset(&log, "a", 13)), (0, 0));
    // Complete, it is read through, and refused for what it is; nothing is left of it.
    let whole = broken(vec![later("a", 8, b"last", 12)]).await.unwrap_err();
    assert_eq!(whole.code(), Code::DataLoss, "{whole}");
    assert_eq!((offset(&log, "a", 12), unfinished(folder.path())), (0, 0));
    let missing = broken(vec![later("a", 4, b"more", 12)]).await.unwrap_err();
    assert_eq!(missing.code(), Code::FailedPrecondition);
    log.shutdown().await;
}

#[tokio::test]
async fn what_is_kept_of_a_broken_transfer_is_one_file_and_swept_at_a_start() {
    let folder = tempfile::tempdir().unwrap();
    let log = alone(folder.path());
    for of in ["a", "b", "c"] {
        let half = tokio_stream::iter([later(of, 0, b"half", 8)]);
        assert_eq!(install_snapshot(&log, None, half).await.unwrap_err().code(), Code::DataLoss);
        assert_eq!((offset(&log, of, 8), unfinished(folder.path())), (4, 1));
    }
    log.shutdown().await;
    std::fs::write(folder.path().join("snapshots/incoming-9.tmp"), b"half").unwrap();
    let log = again(folder.path());
    assert_eq!((offset(&log, "c", 8), unfinished(folder.path())), (0, 0));
    log.shutdown().await;
}
