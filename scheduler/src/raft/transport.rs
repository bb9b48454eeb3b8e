//! What the log needs of a network. Knows addresses and bytes, no raft.

use std::path::PathBuf;

use super::members::NodeId;

/// A peer and where it is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerAddress {
    /// The peer.
    pub id: NodeId,
    /// `host:port`.
    pub address: String,
}

/// A snapshot on its way to a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotToSend {
    /// The encoded message that announces it.
    pub message: Vec<u8>,
    /// The file. It may be gone when it is opened; then the sending has failed, and raft asks for a newer one.
    pub file: PathBuf,
}

/// Sends to peers. Calls never block. Loss is allowed (raft repeats), reordering between two nodes is not.
///
/// A peer that cannot be reached, and the end of each snapshot, good or bad, is told through [`super::Reports`].
pub trait Transport: Send + 'static {
    /// Queues an encoded message. Dropped when the queue is full.
    fn send(&mut self, to: &PeerAddress, message: Vec<u8>);
    /// Starts to send a snapshot.
    fn send_snapshot(&mut self, to: &PeerAddress, snapshot: SnapshotToSend);
    /// The peer is no member any more; its connection may end.
    fn forget(&mut self, id: NodeId);
}
