//! A saved state as a file: what `supercloud scheduler snapshot save` writes, `inspect` looks at, and `supercloud-scheduler restore` takes. Knows
//! bytes, checksums and the names of the records; what a record means is the scheduler's business.
//!
//! ```text
//! "SCSAVE01" · piece … · end
//! piece:  length u32, 1 to 256 KiB · CRC-32 u32 of its offset in the file (u64) and its bytes · bytes
//! end:    0 u32 · CRC-32 u32 of its offset and what follows · bytes in all pieces u64 · their SHA-256
//! ```
//! Numbers are little-endian. The first piece is the [`SavedHead`]; the others, one behind another, are the records of a snapshot
//! (`SnapshotRecord`), each behind its length.
//!
//! Decisions
//! * **A format of its own**, beside that of the snapshots which nodes keep and send each other: this one lies in people's backups for years, is
//!   read without a node, and tells where it is damaged.
//! * **No secret is in it.** The cluster's authority is not: a backup would be the key to the estate. The tokens are hashes, and a restore forgets
//!   them.
//! * **Here, below scheduler and command**, since both read it and do not know each other.

use std::io;

pub use crate::log::v1::{SavedHead, SavedMember};
pub use read::{SavedReader, Whole};
pub use summary::{Summary, inspect};
pub use write::SavedWriter;

mod read;
mod summary;
mod write;

/// Format of the file that this version writes, and the latest it reads.
pub const FORMAT: u32 = 1;
const START: &[u8; 8] = b"SCSAVE01";
/// Bytes of a piece: small enough for a message, large enough for the checksums to cost nothing.
pub const PIECE_BYTES: usize = 256 << 10;
/// Length and checksum before a piece.
const PIECE_HEAD: usize = 8;
/// What stands behind the last piece: the number of bytes and their hash.
const END_BYTES: usize = 8 + 32;

/// Why a file is not used.
#[derive(Debug, thiserror::Error)]
pub enum SavedError {
    /// It is not what was written.
    #[error("damaged at byte {offset}: {found}")]
    Damaged {
        /// Where in the file.
        offset: u64,
        /// What is wrong there.
        found: String,
    },
    /// A later version of the program wrote it.
    #[error("format {found}; this version of the program knows formats up to {known}")]
    NewerFormat {
        /// Its format.
        found: u32,
        /// The latest that is known.
        known: u32,
    },
    /// It cannot be read.
    #[error("cannot be read: {0}")]
    Io(#[from] io::Error),
}

fn damaged(offset: u64, found: impl Into<String>) -> SavedError {
    SavedError::Damaged { offset, found: found.into() }
}

/// Checksum of a piece: with its place, so that two pieces that changed places are found too.
fn checksum(offset: u64, bytes: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&offset.to_le_bytes());
    crc.update(bytes);
    crc.finalize()
}

#[cfg(test)]
mod tests;
