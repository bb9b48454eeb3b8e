//! Where a file of the engine's log is damaged, for people: the engine cuts or refuses without telling the place. Knows the engine's framing, and
//! changes nothing.
//!
//! ```text
//! file:   53 bytes that name the format · version u64, 2 · alignment u64, 0 · batch …
//! batch:  length and compression u64 (length in the upper 56 bits) · start of the items u64 · entries · CRC-32 u32 · items · CRC-32 u32 ^ file number
//! ```
//! The first three numbers are big-endian, the checksums little-endian; the entries and their checksum are left out where there are none. After a
//! crash zeroes follow, since a file is made longer before it is written.
//!
//! Decision: what follows a damaged batch is no evidence. Batches that share a sync may reach the disk in any order, so after a power cut a whole one
//! may stand behind a torn one that nobody was promised; only the witness tells a torn end from damage.

use std::fs;
use std::path::{Path, PathBuf};

const MAGIC: &[u8] = b"RAFT-LOG-FILE-HEADER-9986AB3E47F320B394C8E84916EB0ED5";
/// With version and alignment.
const FILE_HEAD: usize = MAGIC.len() + 8 + 8;
const BATCH_HEAD: usize = 8 + 8;
const CHECKSUM: usize = 4;

/// A place where a file is not what was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Damage {
    /// The file.
    pub(super) path: PathBuf,
    /// Its first byte that cannot be trusted.
    pub(super) offset: u64,
}

/// The files of the log in their order: those that were written first, then those that were written anew.
pub(super) fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path());
    let of = |kind: &str, path: &PathBuf| path.extension().is_some_and(|extension| extension == kind);
    let (mut rewritten, mut appended) = (Vec::new(), Vec::new());
    for path in entries {
        if of("rewrite", &path) {
            rewritten.push(path);
        } else if of("raftlog", &path) {
            appended.push(path);
        }
    }
    rewritten.sort();
    appended.sort();
    rewritten.into_iter().chain(appended).collect()
}

/// The first damage in the log of a directory, if there is any that can be read.
pub(super) fn first_damage(directory: &Path) -> Option<Damage> {
    files(directory).iter().find_map(|path| damage_in(path))
}

/// The first damage in a file; nothing where it is whole, or cannot be read.
pub(super) fn damage_in(path: &Path) -> Option<Damage> {
    let bytes = fs::read(path).ok()?;
    let number: u64 = path.file_stem()?.to_str()?.parse().ok()?;
    let offset = whole_until(&bytes, number as u32);
    let ended = bytes.get(offset..).is_none_or(|rest| rest.iter().all(|byte| *byte == 0));
    (!ended).then(|| Damage { path: path.to_owned(), offset: offset as u64 })
}

/// Up to where a file is whole.
fn whole_until(bytes: &[u8], number: u32) -> usize {
    if !bytes.starts_with(MAGIC) || bytes.len() < FILE_HEAD {
        return 0;
    }
    let mut at = FILE_HEAD;
    while let Some(length) = bytes.get(at..).and_then(|rest| whole_batch(rest, number)) {
        at += length;
    }
    at
}

/// Length of the batch that `bytes` begin with, if it is whole.
fn whole_batch(bytes: &[u8], number: u32) -> Option<usize> {
    let (length, rest) = bytes.split_first_chunk::<8>()?;
    let (items, _) = rest.split_first_chunk::<8>()?;
    let length = usize::try_from(u64::from_be_bytes(*length) >> 8).ok()?;
    let items = usize::try_from(u64::from_be_bytes(*items)).ok()?;
    let batch = bytes.get(..length)?;
    let entries = batch.get(BATCH_HEAD..items)?;
    let whole =
        (entries.is_empty() || matches_checksum(entries, 0)) && matches_checksum(batch.get(items..)?, number);
    whole.then_some(length)
}

fn matches_checksum(bytes: &[u8], signature: u32) -> bool {
    let Some((content, checksum)) = bytes.split_last_chunk::<CHECKSUM>() else { return false };
    crc32fast::hash(content) == u32::from_le_bytes(*checksum) ^ signature
}
