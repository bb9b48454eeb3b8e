//! What one node says to another: a raft message in an envelope. Knows encoding only.
//!
//! The envelope carries the cluster, so that nodes of two clusters that were mixed up do not talk, and the sender's
//! address, because a node that has just joined learns the others' addresses only with its first snapshot.

use ::raft::eraftpb::{Message, MessageType};
use prost::Message as _;

use super::limits::MAX_PEER_MESSAGE_BYTES;

#[derive(Clone, PartialEq, prost::Message)]
struct Envelope {
    #[prost(string, tag = "1")]
    cluster: String,
    #[prost(string, tag = "2")]
    address: String,
    #[prost(bytes = "vec", tag = "3")]
    message: Vec<u8>,
    /// Whether the sender's disk is nearly full.
    #[prost(bool, tag = "4")]
    short: bool,
}

/// A message as it came in.
#[derive(Debug)]
pub(super) struct Incoming {
    pub(super) address: String,
    pub(super) message: Message,
    /// Whether the sender's disk is nearly full.
    pub(super) short: bool,
    /// Its size on the wire.
    pub(super) bytes: usize,
}

/// Why a message was not taken.
#[derive(Debug, thiserror::Error)]
pub(super) enum WireError {
    #[error("the message has {0} bytes, the limit is {MAX_PEER_MESSAGE_BYTES}")]
    TooLarge(usize),
    #[error("the message cannot be decoded")]
    Malformed,
    #[error("the message is of cluster {0}")]
    OtherCluster(String),
}

pub(super) fn encode(cluster: &str, address: &str, short: bool, message: &Message) -> Vec<u8> {
    let message = prost11::Message::encode_to_vec(message);
    Envelope { cluster: cluster.to_owned(), address: address.to_owned(), message, short }.encode_to_vec()
}

pub(super) fn decode(cluster: &str, bytes: &[u8]) -> Result<Incoming, WireError> {
    if bytes.len() > MAX_PEER_MESSAGE_BYTES {
        return Err(WireError::TooLarge(bytes.len()));
    }
    let envelope = Envelope::decode(bytes).map_err(|_| WireError::Malformed)?;
    if envelope.cluster != cluster {
        return Err(WireError::OtherCluster(envelope.cluster));
    }
    let message = <Message as prost11::Message>::decode(envelope.message.as_slice())
        .map_err(|_| WireError::Malformed)?;
    // An unknown type would make raft panic.
    let known = MessageType::from_i32(message.msg_type).is_some();
    let entries = message.entries.iter();
    let entries_known = entries
        .map(|entry| entry.entry_type)
        .all(|kind| ::raft::eraftpb::EntryType::from_i32(kind).is_some());
    if !known || !entries_known {
        return Err(WireError::Malformed);
    }
    Ok(Incoming { address: envelope.address, short: envelope.short, message, bytes: bytes.len() })
}
