//! One snapshot as a file: head, payload, tail. Knows bytes and checksums, not what the payload means.
//!
//! ```text
//! "SCSNAP01" · head length u32 · head (prost) · CRC-32 of the head u32 · payload ·
//! payload length u64 · CRC-32 of the payload u32 · "SCEND001"
//! ```
//! Numbers are little-endian. Length and checksum stand at the end, so that a snapshot is written in one go without
//! being held in memory; a file without its end was not finished. Reading checks the whole file before a byte of it
//! reaches the state.

use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use prost::Message as _;

use super::files::Files;
use super::log_store::Position;
use super::membership::{Membership, StoredMembership};

/// Version of head and framing. A later one is refused.
const FORMAT: u32 = 1;
const START: &[u8; 8] = b"SCSNAP01";
const END: &[u8; 8] = b"SCEND001";
const TAIL_BYTES: u64 = 8 + 4 + 8;
/// Heads hold a handful of members; more is damage.
const MAX_HEAD_BYTES: u32 = 1 << 20;
const BUFFER_BYTES: usize = 1 << 20;

#[derive(Clone, PartialEq, prost::Message)]
struct Head {
    #[prost(uint32, tag = "1")]
    format: u32,
    #[prost(string, tag = "2")]
    cluster: String,
    #[prost(uint64, tag = "3")]
    index: u64,
    #[prost(uint64, tag = "4")]
    term: u64,
    #[prost(message, optional, tag = "5")]
    membership: Option<StoredMembership>,
}

/// What a snapshot says about itself.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct SnapshotMeta {
    pub(super) cluster: String,
    pub(super) position: Position,
    pub(super) membership: Membership,
    /// Size of the file in bytes; 0 while it is being written.
    pub(super) bytes: u64,
}

/// Why a snapshot file is not used.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// It is not what was written.
    #[error("snapshot {path} is damaged at byte {offset}: {found}")]
    Damaged {
        /// The file.
        path: String,
        /// Where in it.
        offset: u64,
        /// What is wrong there.
        found: &'static str,
    },
    /// A later version of the program wrote it.
    #[error("snapshot {path} has format {found}, this version of the program knows formats up to {known}")]
    NewerFormat {
        /// The file.
        path: String,
        /// Its format.
        found: u32,
        /// The latest that is known.
        known: u32,
    },
    /// It belongs to another cluster.
    #[error("snapshot {path} is of cluster {found}, not of {expected}")]
    Foreign {
        /// The file.
        path: String,
        /// Its cluster.
        found: String,
        /// Ours.
        expected: String,
    },
    /// The disk refused.
    #[error("cannot use snapshot {path}: {source}")]
    Io {
        /// The file.
        path: String,
        /// Why.
        source: io::Error,
    },
}

/// Writes a whole snapshot to `path` and syncs it. Returns its size.
pub(super) fn write(
    files: &dyn Files,
    path: &Path,
    meta: &SnapshotMeta,
    payload: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> io::Result<u64> {
    let head = Head {
        format: FORMAT,
        cluster: meta.cluster.clone(),
        index: meta.position.index,
        term: meta.position.term,
        membership: Some(meta.membership.to_stored()),
    }
    .encode_to_vec();
    let mut file = BufWriter::with_capacity(BUFFER_BYTES, files.create(path)?);
    file.write_all(START)?;
    file.write_all(&(head.len() as u32).to_le_bytes())?;
    file.write_all(&head)?;
    file.write_all(&crc32fast::hash(&head).to_le_bytes())?;
    let mut checked = Checked { inner: file, crc: crc32fast::Hasher::new(), bytes: 0 };
    payload(&mut checked)?;
    let Checked { inner: mut file, crc, bytes } = checked;
    file.write_all(&bytes.to_le_bytes())?;
    file.write_all(&crc.finalize().to_le_bytes())?;
    file.write_all(END)?;
    let mut file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
    file.sync()?;
    Ok(12 + head.len() as u64 + 4 + bytes + TAIL_BYTES)
}

/// A snapshot file that was read through once and found whole.
#[derive(Debug)]
pub(super) struct Verified {
    pub(super) meta: SnapshotMeta,
    files: Arc<dyn Files>,
    path: PathBuf,
    payload_at: u64,
    payload_bytes: u64,
}

/// Reads `path` through and checks it.
pub(super) fn verify(files: &Arc<dyn Files>, path: &Path, cluster: &str) -> Result<Verified, SnapshotError> {
    let name = path.display().to_string();
    let io = |source| SnapshotError::Io { path: name.clone(), source };
    let damaged = |offset, found| SnapshotError::Damaged { path: name.clone(), offset, found };
    let mut file = BufReader::with_capacity(BUFFER_BYTES, files.open(path).map_err(io)?);
    let size = file.seek(SeekFrom::End(0)).map_err(io)?;
    file.rewind().map_err(io)?;
    let (head, payload_at) = read_head(&mut file).map_err(|fault| fault.at(&name))?;
    if head.format > FORMAT {
        return Err(SnapshotError::NewerFormat { path: name, found: head.format, known: FORMAT });
    }
    if head.cluster != cluster {
        return Err(SnapshotError::Foreign { path: name, found: head.cluster, expected: cluster.to_owned() });
    }
    let payload_bytes = size
        .checked_sub(payload_at + TAIL_BYTES)
        .ok_or_else(|| damaged(size, "the file ends before its tail"))?;
    let found = checksum(&mut file, payload_bytes).map_err(io)?;
    let mut tail = [0; TAIL_BYTES as usize];
    file.read_exact(&mut tail).map_err(io)?;
    let tail_at = payload_at + payload_bytes;
    if &tail[12..] != END || tail[..8] != payload_bytes.to_le_bytes() {
        return Err(damaged(tail_at, "the tail is not one"));
    }
    if tail[8..12] != found.to_le_bytes() {
        return Err(damaged(payload_at, "the payload does not match its checksum"));
    }
    let membership = Membership::from_stored(&head.membership.unwrap_or_default())
        .map_err(|_| damaged(12, "the membership is not readable"))?;
    let position = Position { index: head.index, term: head.term };
    let meta = SnapshotMeta { cluster: head.cluster, position, membership, bytes: size };
    Ok(Verified { meta, files: files.clone(), path: path.to_path_buf(), payload_at, payload_bytes })
}

impl Verified {
    /// The payload, from its first byte to its last.
    pub(super) fn payload(&self) -> io::Result<impl Read + use<>> {
        let mut file = self.files.open(&self.path)?;
        file.seek(SeekFrom::Start(self.payload_at))?;
        Ok(BufReader::with_capacity(BUFFER_BYTES, file).take(self.payload_bytes))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

enum HeadFault {
    Io(io::Error),
    Damaged(u64, &'static str),
}

impl HeadFault {
    fn at(self, path: &str) -> SnapshotError {
        let path = path.to_owned();
        match self {
            Self::Io(source) => SnapshotError::Io { path, source },
            Self::Damaged(offset, found) => SnapshotError::Damaged { path, offset, found },
        }
    }
}

impl From<io::Error> for HeadFault {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::Damaged(0, "the file ends within its head"),
            _ => Self::Io(error),
        }
    }
}

fn read_head(file: &mut impl Read) -> Result<(Head, u64), HeadFault> {
    let mut start = [0; 12];
    file.read_exact(&mut start)?;
    if &start[..8] != START {
        return Err(HeadFault::Damaged(0, "it does not begin as a snapshot does"));
    }
    let length = u32::from_le_bytes([start[8], start[9], start[10], start[11]]);
    if length > MAX_HEAD_BYTES {
        return Err(HeadFault::Damaged(8, "the head is longer than any head"));
    }
    let mut head = vec![0; length as usize];
    file.read_exact(&mut head)?;
    let mut crc = [0; 4];
    file.read_exact(&mut crc)?;
    if crc != crc32fast::hash(&head).to_le_bytes() {
        return Err(HeadFault::Damaged(12, "the head does not match its checksum"));
    }
    let head =
        Head::decode(head.as_slice()).map_err(|_| HeadFault::Damaged(12, "the head is not readable"))?;
    Ok((head, 12 + u64::from(length) + 4))
}

fn checksum(file: &mut impl Read, bytes: u64) -> io::Result<u32> {
    let mut sink = Checked { inner: io::sink(), crc: crc32fast::Hasher::new(), bytes: 0 };
    io::copy(&mut file.take(bytes), &mut sink)?;
    Ok(sink.crc.finalize())
}

/// Counts and sums what is written through it.
struct Checked<W> {
    inner: W,
    crc: crc32fast::Hasher,
    bytes: u64,
}

impl<W: Write> Write for Checked<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.crc.update(&bytes[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::files::Disk;

    fn look(path: &Path, cluster: &str) -> Result<Verified, SnapshotError> {
        let files: Arc<dyn Files> = Arc::new(Disk);
        verify(&files, path, cluster)
    }

    fn sample(path: &Path) -> SnapshotMeta {
        let meta = SnapshotMeta {
            cluster: "c".into(),
            position: Position { index: 9, term: 2 },
            membership: Membership::default(),
            bytes: 0,
        };
        let bytes = write(&Disk, path, &meta, |out| out.write_all(&[5; 1000])).unwrap();
        assert_eq!(bytes, std::fs::metadata(path).unwrap().len());
        meta
    }

    #[test]
    fn a_snapshot_reads_back_as_written() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let meta = sample(&path);
        let verified = look(&path, "c").unwrap();
        assert_eq!(verified.meta.position, meta.position);
        let mut payload = Vec::new();
        verified.payload().unwrap().read_to_end(&mut payload).unwrap();
        assert_eq!(payload, [5; 1000]);
        assert!(matches!(look(&path, "d"), Err(SnapshotError::Foreign { .. })));
    }

    #[test]
    fn every_flipped_byte_and_every_cut_is_found() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        sample(&path);
        let whole = std::fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x10;
            std::fs::write(&path, &bytes).unwrap();
            assert!(look(&path, "c").is_err(), "byte {at}");
            std::fs::write(&path, &whole[..at]).unwrap();
            assert!(look(&path, "c").is_err(), "cut at {at}");
        }
    }
}
