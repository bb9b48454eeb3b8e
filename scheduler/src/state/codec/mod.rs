//! The state's edge to what is stored and sent: entries and outcomes as bytes, records as messages, snapshots as streams of records.
//! Generated types appear here and in `api`, nowhere else in the scheduler. Files: `entry`, `outcome`, `records`, `boroughs`, `sites`, `volumes` (messages) · `wire`, `instances` (straight
//! to bytes) · `effort` (what applying an entry costs) · `snapshot`.

use prost::Message;
use supercloud_proto::{log::v1 as stored, problem::Problems};

mod boroughs;
mod effort;
mod entry;
mod instances;
mod outcome;
mod records;
mod sites;
mod snapshot;
mod volumes;
mod wire;

pub use boroughs::{borough_message, parse_change as parse_borough_change, quota_message};
pub use effort::is_long;
pub use outcome::change_message;
pub use records::{host_message, workload_message, workload_revision_message};
pub use sites::{parse_change as parse_site_change, policy_message};
pub use snapshot::RestoreError;

use super::{
    command::{Command, Entry, Outcome},
    level::{FIRST, KNOWN, Level},
};

/// Why bytes are no entry or outcome of ours. A node that meets such an entry in its log must stop rather than guess.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// They are no such message.
    #[error("not a message of this kind")]
    Message(#[from] prost::DecodeError),
    /// They need a level that this version does not know.
    #[error("feature level {found}, this version knows {KNOWN}: it was written by a newer version")]
    Level {
        /// The level.
        found: Level,
    },
    /// They hold what this version does not know or allow.
    #[error("a content that this version does not know: {0}")]
    Content(#[from] Problems),
}

impl Entry {
    /// As it stands in the log.
    pub fn encode(&self) -> Vec<u8> {
        entry::to_message(self).encode_to_vec()
    }

    /// Reads an entry of the log.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let message = stored::Entry::decode(bytes)?;
        match message.format {
            FIRST..=KNOWN => Ok(entry::from_message(message)?),
            found => Err(DecodeError::Level { found }),
        }
    }
}

impl Outcome {
    /// As it is sent between nodes and kept in snapshots.
    pub fn encode(&self) -> Vec<u8> {
        outcome::to_message(self).encode_to_vec()
    }

    /// Reads an outcome.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        Ok(outcome::from_message(stored::Outcome::decode(bytes)?)?)
    }
}

/// CRC-32 of a command, to tell a repeated request from another one with its id.
pub fn fingerprint(command: &Command) -> u32 {
    crc32fast::hash(&entry::command_message(command).encode_to_vec())
}
