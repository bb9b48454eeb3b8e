//! A second witness to how far the log had come. Knows one small file.
//!
//! raft-engine takes damage in its newest file for the torn end of an interrupted write and cuts it off, along with
//! everything after it; the hard state that would give it away is cut with it. So the place up to which this node has
//! applied, and its term, are noted in a file of their own: after the log was synced and before anybody is answered.
//! It is never synced itself and so costs next to nothing. It may therefore lag after a power cut, but can never be
//! ahead of an honest log, and a log behind it is refused at the start.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use super::log_store::Position;

const BYTES: usize = 8 + 8 + 4;

/// See the head of the module.
pub(super) struct Witness {
    file: File,
    last: Position,
}

impl Witness {
    /// Opens the file, or makes one that has seen nothing.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        let mut bytes = [0; BYTES];
        let whole = file.read_exact_at(&mut bytes, 0).is_ok();
        let last = whole.then(|| decode(&bytes)).flatten().unwrap_or_default();
        Ok(Self { file, last })
    }

    /// Highest applied index and term that were noted.
    pub(super) fn last(&self) -> Position {
        self.last
    }

    /// Notes how far the node is. The log must have been synced that far.
    pub(super) fn note(&mut self, index: u64, term: u64) -> io::Result<()> {
        let now = Position { index: self.last.index.max(index), term: self.last.term.max(term) };
        if now == self.last {
            return Ok(());
        }
        self.file.write_all_at(&encode(now), 0)?;
        self.last = now;
        Ok(())
    }
}

fn encode(position: Position) -> [u8; BYTES] {
    let mut bytes = [0; BYTES];
    bytes[..8].copy_from_slice(&position.index.to_le_bytes());
    bytes[8..16].copy_from_slice(&position.term.to_le_bytes());
    let crc = crc32fast::hash(&bytes[..16]);
    bytes[16..].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// Nothing when the bytes are not a note: a witness that remembers nothing accuses nobody.
fn decode(bytes: &[u8; BYTES]) -> Option<Position> {
    let (index, rest) = bytes.split_first_chunk::<8>()?;
    let (term, crc) = rest.split_first_chunk::<8>()?;
    let position = Position { index: u64::from_le_bytes(*index), term: u64::from_le_bytes(*term) };
    (*crc == crc32fast::hash(&bytes[..16]).to_le_bytes()).then_some(position)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_remembers_the_highest_and_forgets_when_damaged() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("witness");
        let mut witness = Witness::open(&path).unwrap();
        assert_eq!(witness.last(), Position::default());
        witness.note(9, 2).unwrap();
        witness.note(5, 3).unwrap();
        assert_eq!(Witness::open(&path).unwrap().last(), Position { index: 9, term: 3 });
        std::fs::write(&path, [7; BYTES]).unwrap();
        assert_eq!(Witness::open(&path).unwrap().last(), Position::default());
    }
}
