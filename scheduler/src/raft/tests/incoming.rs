//! Snapshots that come in and should not have: what they leave behind, and whom they keep waiting.

use std::path::Path;

use supercloud_proto::v1;
use tokio_stream::StreamExt as _;
use tonic::{Code, Status};

use super::harness::{Journal, often};
use crate::raft::{
    Log, Member, MemberKind, NodeId, PeerAddress, Settings, SnapshotToSend, Start, Transport,
    install_snapshot, limits, service::receive, start,
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
    let settings = Settings {
        cluster: "test".into(),
        id,
        directory: directory.to_path_buf(),
        peer_address: "peer-1".into(),
        snapshots: often(),
        tick: limits::TICK,
    };
    let member =
        Member { id, peer_address: "peer-1".into(), api_address: "api-1".into(), kind: MemberKind::Voter };
    start(settings, &Start::Found { members: vec![member] }, Journal::new().0, |_| Nowhere).unwrap()
}

fn piece(data: &[u8], total: u64) -> Result<v1::InstallSnapshotRequest, Status> {
    Ok(v1::InstallSnapshotRequest {
        from: 2,
        message: Vec::new(),
        offset: 0,
        data: data.to_vec(),
        crc32: crc32fast::hash(data),
        total,
    })
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
