//! The whole state as a stream of records, each behind its length, from a header to a footer that carries their number and hash. Equal
//! states give equal bytes, so that the hash tells two nodes apart that ought to be equal.

use std::{
    io::{self, Read, Write},
    sync::Arc,
};

use prost::Message;
use sha2::{Digest, Sha256};
use supercloud_proto::{
    log::v1::{self as stored, snapshot_record::Record},
    problem::Problems,
};

use super::{entry::wrong, outcome, records};
use crate::state::{
    State,
    level::{FIRST, KNOWN, Level},
    requests::Remembered,
};

/// Longest record: a workload with all its revisions, far below this.
const MAX_RECORD: usize = 64 << 20;

/// Why a stream is no snapshot.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// It could not be read, or it ends too early.
    #[error("record {record}: {source}")]
    Read {
        /// Records read before, from 0.
        record: u64,
        /// The cause.
        source: io::Error,
    },
    /// A record is longer than any that was ever written.
    #[error("record {record} is {found} bytes long, at most {MAX_RECORD} are expected")]
    TooLong {
        /// Which.
        record: u64,
        /// Its length.
        found: u64,
    },
    /// A record is none.
    #[error("record {record}: {source}")]
    Message {
        /// Which.
        record: u64,
        /// The cause.
        source: prost::DecodeError,
    },
    /// A record holds what this version does not know or allow.
    #[error("record {record}: {problems}")]
    Content {
        /// Which.
        record: u64,
        /// The cause.
        problems: Problems,
    },
    /// It is of a cluster of a level that this version does not know.
    #[error("feature level {found}, this version knows {KNOWN}: it was written by a newer version")]
    Level {
        /// The level.
        found: Level,
    },
    /// The footer does not match what stands before it.
    #[error("the footer does not match: {0}")]
    Footer(&'static str),
}

impl State {
    /// Writes the whole state.
    pub fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let mut writer = Writer { out, records: 0, hash: Sha256::new() };
        writer.record(Record::Header(stored::SnapshotHeader {
            format: self.level(),
            cluster_id: self.cluster_id().unwrap_or_default().to_owned(),
            index: self.applied,
            last_host_id: self.next_host,
        }))?;
        for borough in self.boroughs.values() {
            writer.record(Record::Borough(records::borough_message(borough)))?;
        }
        for workload in self.workloads.values() {
            writer.record(Record::Workload(records::whole_workload_message(workload)))?;
        }
        for host in self.hosts.values() {
            writer.record(Record::Host(records::host_record(host)))?;
        }
        for instance in self.instances.values() {
            writer.record(Record::Instance(self.instance_message(instance)))?;
        }
        for token in self.tokens.values() {
            writer.record(Record::Token(records::token_record(token)))?;
        }
        for (key, request) in self.requests.iter() {
            writer.record(Record::Request(request_record(key, request)))?;
        }
        writer.footer()
    }

    /// Hash of the whole state: equal on all nodes at an equal index.
    pub fn hash(&self) -> [u8; 32] {
        let mut hash = HashOnly(Sha256::new());
        // Hashing writes nowhere, so it cannot fail.
        let _ = self.write(&mut hash);
        hash.0.finalize().into()
    }

    /// Reads a whole state, and believes nothing until the footer matches.
    pub fn read(input: &mut dyn Read) -> Result<Self, RestoreError> {
        let mut reader = Reader { input, records: 0, hash: Sha256::new() };
        let Record::Header(header) = reader.record()? else {
            return Err(RestoreError::Footer("it does not begin with a header"));
        };
        if !(FIRST..=KNOWN).contains(&header.format) {
            return Err(RestoreError::Level { found: header.format });
        }
        let mut state = Self {
            cluster_id: (!header.cluster_id.is_empty()).then(|| header.cluster_id.into()),
            level: header.format,
            applied: header.index,
            next_host: header.last_host_id,
            ..Self::default()
        };
        loop {
            let (before, hash) = (reader.records, reader.hash.clone());
            match reader.record()? {
                Record::Footer(footer) => {
                    check_footer(&footer, before, hash)?;
                    return Ok(state);
                }
                record => state
                    .take_in(record)
                    .map_err(|problems| RestoreError::Content { record: before, problems })?,
            }
        }
    }

    fn take_in(&mut self, record: Record) -> Result<(), Problems> {
        match record {
            Record::Borough(message) => {
                let borough = records::parse_borough(message)?;
                self.boroughs.insert(borough.name.clone(), Arc::new(borough));
            }
            Record::Workload(message) => {
                let workload = records::parse_workload(message)?;
                self.workloads.insert(workload.key.clone(), Arc::new(workload));
            }
            Record::Host(message) => {
                let host = records::parse_host(message)?;
                self.derived.add_host(&host);
                self.hosts.insert(host.id, Arc::new(host));
            }
            Record::Instance(message) => {
                let instance = self.parse_instance(message)?;
                self.derived.add(&instance);
                self.instances.insert(instance.id, Arc::new(instance));
            }
            Record::Token(message) => {
                let token = records::parse_token(message)?;
                self.tokens.insert(token.id.clone(), Arc::new(token));
            }
            Record::Request(message) => {
                let (key, request) = parse_request(message)?;
                self.requests.insert(&key, request);
            }
            Record::Header(_) | Record::Footer(_) => {
                return Err(wrong("record", "a record", "a second header"));
            }
        }
        Ok(())
    }
}

fn check_footer(footer: &stored::SnapshotFooter, records: u64, hash: Sha256) -> Result<(), RestoreError> {
    if footer.records != records {
        return Err(RestoreError::Footer("another number of records"));
    }
    if footer.state_hash != hash.finalize().as_slice() {
        return Err(RestoreError::Footer("another hash"));
    }
    Ok(())
}

fn request_record(key: &str, request: &Remembered) -> stored::RequestRecord {
    stored::RequestRecord {
        key: key.to_owned(),
        index: request.index,
        fingerprint: request.fingerprint,
        outcome: Some(outcome::to_message(&request.outcome)),
    }
}

fn parse_request(record: stored::RequestRecord) -> Result<(String, Remembered), Problems> {
    let message = record.outcome.ok_or_else(|| wrong("outcome", "an outcome", "none"))?;
    let outcome = outcome::from_message(message)?;
    Ok((record.key, Remembered { index: record.index, fingerprint: record.fingerprint, outcome }))
}

struct Writer<'a> {
    out: &'a mut dyn Write,
    records: u64,
    hash: Sha256,
}

impl Writer<'_> {
    fn record(&mut self, record: Record) -> io::Result<()> {
        let bytes = stored::SnapshotRecord { record: Some(record) }.encode_length_delimited_to_vec();
        self.hash.update(&bytes);
        self.records += 1;
        self.out.write_all(&bytes)
    }

    fn footer(mut self) -> io::Result<()> {
        let state_hash = self.hash.clone().finalize().to_vec();
        self.record(Record::Footer(stored::SnapshotFooter { records: self.records, state_hash }))
    }
}

struct Reader<'a> {
    input: &'a mut dyn Read,
    records: u64,
    hash: Sha256,
}

impl Reader<'_> {
    fn record(&mut self) -> Result<Record, RestoreError> {
        let record = self.records;
        let length = self.length()?;
        if length > MAX_RECORD as u64 {
            return Err(RestoreError::TooLong { record, found: length });
        }
        let mut bytes = vec![0; length as usize];
        self.fill(&mut bytes)?;
        self.records += 1;
        let message = stored::SnapshotRecord::decode(bytes.as_slice())
            .map_err(|source| RestoreError::Message { record, source })?;
        let unknown = || wrong("record", "a record that this version knows", "another");
        message.record.ok_or_else(|| RestoreError::Content { record, problems: unknown() })
    }

    /// The length before a record: seven bits a byte, least first.
    fn length(&mut self) -> Result<u64, RestoreError> {
        let mut length = 0u64;
        for shift in (0..35).step_by(7) {
            let mut byte = [0];
            self.fill(&mut byte)?;
            length |= u64::from(byte[0] & 0x7f) << shift;
            if byte[0] & 0x80 == 0 {
                return Ok(length);
            }
        }
        Err(RestoreError::TooLong { record: self.records, found: length })
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), RestoreError> {
        let record = self.records;
        self.input.read_exact(bytes).map_err(|source| RestoreError::Read { record, source })?;
        self.hash.update(bytes);
        Ok(())
    }
}

/// Takes what is written into a hash.
struct HashOnly(Sha256);

impl Write for HashOnly {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
