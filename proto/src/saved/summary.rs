//! What is in a saved state, counted, with everything checked that can be checked without a scheduler.

use std::io::{self, Read};

use prost::Message as _;
use sha2::{Digest as _, Sha256};

use super::{SavedError, SavedHead, SavedReader, Whole, damaged};
use crate::log::v1::{SnapshotRecord, snapshot_record::Record};

/// Longest record; the scheduler's own limit.
const MAX_RECORD: u64 = 64 << 20;

/// What is in it.
#[derive(Debug, Clone, PartialEq)]
pub struct Summary {
    /// What the file says about itself.
    pub head: SavedHead,
    /// Size and hash.
    pub whole: Whole,
    /// Format of the records.
    pub state_format: u32,
    /// Boroughs.
    pub boroughs: u64,
    /// Workloads.
    pub workloads: u64,
    /// Instances.
    pub instances: u64,
    /// Hosts.
    pub hosts: u64,
}

/// Reads a file through and checks it: each piece, the whole, and that the records are as many as they say and hash to what they say.
///
/// # Errors
/// When something is not as it was written.
pub fn inspect(input: impl Read) -> Result<Summary, SavedError> {
    let mut reader = SavedReader::open(input)?;
    let mut counts = Counts::default();
    while let Some(record) = next(&mut reader, &mut counts)? {
        counts.take_in(record).map_err(|found| damaged(reader.offset(), found))?;
    }
    if !counts.ended {
        return Err(damaged(reader.offset(), "the records have no footer"));
    }
    let head = reader.head().clone();
    let whole = reader.finish()?;
    let Counts { format: state_format, boroughs, workloads, instances, hosts, .. } = counts;
    Ok(Summary { head, whole, state_format, boroughs, workloads, instances, hosts })
}

#[derive(Default)]
struct Counts {
    format: u32,
    records: u64,
    /// Over the records so far.
    hash: Sha256,
    /// The same, before the latest record.
    hash_before: Sha256,
    ended: bool,
    boroughs: u64,
    workloads: u64,
    instances: u64,
    hosts: u64,
}

impl Counts {
    fn take_in(&mut self, record: Option<Record>) -> Result<(), &'static str> {
        if self.ended {
            return Err("a record behind the footer");
        }
        match record {
            Some(Record::Header(header)) => self.format = header.format,
            Some(Record::Borough(_)) => self.boroughs += 1,
            Some(Record::Workload(_)) => self.workloads += 1,
            Some(Record::Instance(_)) => self.instances += 1,
            Some(Record::Host(_)) => self.hosts += 1,
            Some(Record::Footer(footer)) => {
                let hash = std::mem::take(&mut self.hash_before).finalize();
                if footer.records != self.records || footer.state_hash != hash.as_slice() {
                    return Err("the footer does not match the records");
                }
                self.ended = true;
            }
            // Tokens, remembered requests, and what a later version may add.
            _ => {}
        }
        self.records += 1;
        Ok(())
    }
}

/// The next record; the inner `None` is a kind that this version does not know, the outer the end.
fn next<R: Read>(
    reader: &mut SavedReader<R>,
    counts: &mut Counts,
) -> Result<Option<Option<Record>>, SavedError> {
    let Some((prefix, length)) = length(reader)? else { return Ok(None) };
    let mut bytes = vec![0; length as usize];
    fill(reader, &mut bytes)?;
    counts.hash_before = counts.hash.clone();
    counts.hash.update(&prefix);
    counts.hash.update(&bytes);
    let record = SnapshotRecord::decode(bytes.as_slice())
        .map_err(|_| damaged(reader.offset(), "a record is not readable"))?;
    Ok(Some(record.record))
}

/// The length before a record, seven bits a byte, least first, and the bytes that it takes; `None` at the end.
fn length<R: Read>(reader: &mut SavedReader<R>) -> Result<Option<(Vec<u8>, u64)>, SavedError> {
    let (mut prefix, mut length) = (Vec::new(), 0u64);
    for shift in (0..35).step_by(7) {
        let mut byte = [0];
        if reader.read(&mut byte).map_err(unwrapped)? == 0 {
            return match prefix.as_slice() {
                [] => Ok(None),
                _ => Err(damaged(reader.offset(), "it ends within a record")),
            };
        }
        prefix.push(byte[0]);
        length |= u64::from(byte[0] & 0x7f) << shift;
        if byte[0] & 0x80 == 0 && length <= MAX_RECORD {
            return Ok(Some((prefix, length)));
        }
    }
    Err(damaged(reader.offset(), "a record is longer than any record"))
}

fn fill<R: Read>(reader: &mut SavedReader<R>, bytes: &mut [u8]) -> Result<(), SavedError> {
    let filled = reader.read_exact(bytes);
    filled.map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => damaged(reader.offset(), "it ends within a record"),
        _ => unwrapped(error),
    })
}

/// The fault that the reader hid in an [`io::Error`].
fn unwrapped(error: io::Error) -> SavedError {
    match error.downcast::<SavedError>() {
        Ok(inner) => inner,
        Err(error) => SavedError::Io(error),
    }
}
