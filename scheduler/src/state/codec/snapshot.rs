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

use super::{
    boroughs,
    entry::wrong,
    instances, outcome, records, sites, volumes,
    wire::{Reading, Value, varint},
};
use crate::state::{
    State,
    level::{FIRST, KNOWN, Level},
    model::Instance,
    requests::Remembered,
    sorted::densely,
};

/// Longest record: a workload with all its revisions, far below this.
const MAX_RECORD: usize = 64 << 20;
/// Most bytes of the length before a record.
const MAX_LENGTH_DIGITS: usize = 5;
/// Bytes that are hashed, and written or read, at a time.
const BUFFER: usize = 256 << 10;

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
        let mut writer = Writer::new(out);
        writer.record(Record::Header(stored::SnapshotHeader {
            format: self.level(),
            cluster_id: self.cluster_id().unwrap_or_default().to_owned(),
            index: self.applied,
            last_host_id: self.next_host,
        }))?;
        for borough in self.boroughs.values() {
            writer.record(Record::Borough(boroughs::borough_record(borough)))?;
        }
        for (name, policy) in &self.sites {
            writer.record(Record::Site(sites::site_record(name, *policy)))?;
        }
        for workload in self.workloads.values() {
            writer.record(Record::Workload(records::whole_workload_message(workload)))?;
        }
        for host in self.hosts.values() {
            let orders_index = self.orders.get(&host.id).copied().unwrap_or_default();
            writer.record(Record::Host(records::host_record(host, orders_index)))?;
        }
        for (key, homes) in &self.homes {
            writer.record(Record::Homes(volumes::homes_record(key, homes)))?;
        }
        for instance in self.instances.values() {
            writer.instance(self, instance)?;
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
        let mut reader = Reader::new(input);
        let Some(Record::Header(header)) = reader.record()?.message()? else {
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
        let (mut instances, mut read) = (instances::Reader::default(), Vec::new());
        loop {
            let stored = reader.record()?;
            let record = stored.number;
            let content = |problems| RestoreError::Content { record, problems };
            if let Some(bytes) = stored.instance() {
                read.push(Arc::new(instances.read(&state, bytes).map_err(content)?));
                continue;
            }
            match stored.message()? {
                Some(Record::Footer(footer)) => {
                    check_footer(&footer, record, &reader.hash_before_last())?;
                    state.put_all(read);
                    return Ok(state);
                }
                Some(message) => state.take_in(message).map_err(content)?,
                None => return Err(content(wrong("record", "a record that this version knows", "another"))),
            }
        }
    }

    /// Puts in all instances, which stand in their order.
    fn put_all(&mut self, instances: Vec<Arc<Instance>>) {
        for instance in densely(instances) {
            self.derived.add(&instance);
            self.instances.insert(instance.id, instance);
        }
    }

    fn take_in(&mut self, record: Record) -> Result<(), Problems> {
        match record {
            Record::Borough(message) => {
                let borough = boroughs::parse_borough(message)?;
                self.boroughs.insert(borough.name.clone(), Arc::new(borough));
            }
            Record::Site(record) => {
                let (name, policy) = sites::parse_site(record)?;
                self.sites.insert(name, policy);
            }
            Record::Workload(message) => {
                let workload = records::parse_workload(message)?;
                self.workloads.insert(workload.key.clone(), Arc::new(workload));
            }
            Record::Host(message) => {
                let orders_index = message.orders_index;
                let host = records::parse_host(message)?;
                self.derived.add_host(&host);
                let id = host.id;
                self.orders.insert(id, orders_index);
                self.hosts.insert(id, Arc::new(host));
                self.follow_policy(id);
            }
            Record::Homes(message) => {
                let (key, homes) = volumes::parse_homes(message)?;
                self.homes.insert(key, Arc::new(homes));
            }
            Record::Token(message) => {
                let token = records::parse_token(message)?;
                self.tokens.insert(token.id.clone(), Arc::new(token));
            }
            Record::Request(message) => {
                let (key, request) = parse_request(message)?;
                self.requests.insert(&key, request);
            }
            Record::Header(_) | Record::Footer(_) | Record::Instance(_) => {
                return Err(wrong("record", "a record", "one in the wrong place"));
            }
        }
        Ok(())
    }
}

fn check_footer(footer: &stored::SnapshotFooter, records: u64, hash: &[u8]) -> Result<(), RestoreError> {
    if footer.records != records {
        return Err(RestoreError::Footer("another number of records"));
    }
    if footer.state_hash != hash {
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
    /// Records that are not hashed and written yet.
    buffer: Vec<u8>,
}

impl<'a> Writer<'a> {
    fn new(out: &'a mut dyn Write) -> Self {
        Self { out, records: 0, hash: Sha256::new(), buffer: Vec::with_capacity(2 * BUFFER) }
    }

    fn record(&mut self, record: Record) -> io::Result<()> {
        let message = stored::SnapshotRecord { record: Some(record) };
        self.buffer.extend_from_slice(&message.encode_length_delimited_to_vec());
        self.written()
    }

    fn instance(&mut self, state: &State, instance: &Instance) -> io::Result<()> {
        instances::write(state, instance, &mut self.buffer);
        self.written()
    }

    fn written(&mut self) -> io::Result<()> {
        self.records += 1;
        if self.buffer.len() >= BUFFER { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.hash.update(&self.buffer);
        self.out.write_all(&self.buffer)?;
        self.buffer.clear();
        Ok(())
    }

    fn footer(mut self) -> io::Result<()> {
        self.flush()?;
        let state_hash = self.hash.clone().finalize().to_vec();
        self.record(Record::Footer(stored::SnapshotFooter { records: self.records, state_hash }))?;
        self.flush()
    }
}

/// Reads records out of a buffer that is filled and hashed many at a time.
struct Reader<'a> {
    input: &'a mut dyn Read,
    records: u64,
    buffer: Vec<u8>,
    /// Everything in the buffer before this was read.
    at: usize,
    /// Where the last record begins.
    last: usize,
    /// Hash of everything before the last record that has left the buffer.
    hash: Sha256,
}

/// One record as it stands in the bytes.
struct Stored<'r> {
    number: u64,
    bytes: &'r [u8],
}

impl Stored<'_> {
    /// The bytes of the instance, if it is one.
    fn instance(&self) -> Option<&[u8]> {
        match Reading(self.bytes).next() {
            Ok(Some((instances::RECORD_FIELD, Value::Bytes(bytes)))) => Some(bytes),
            _ => None,
        }
    }

    fn message(&self) -> Result<Option<Record>, RestoreError> {
        let message = stored::SnapshotRecord::decode(self.bytes);
        Ok(message.map_err(|source| RestoreError::Message { record: self.number, source })?.record)
    }
}

impl<'a> Reader<'a> {
    fn new(input: &'a mut dyn Read) -> Self {
        Self { input, records: 0, buffer: Vec::new(), at: 0, last: 0, hash: Sha256::new() }
    }

    fn record(&mut self) -> Result<Stored<'_>, RestoreError> {
        let number = self.records;
        self.last = self.at;
        let (length, digits) = self.length()?;
        if length > MAX_RECORD as u64 {
            return Err(RestoreError::TooLong { record: number, found: length });
        }
        let whole = digits + length as usize;
        self.need(whole)?;
        let start = self.at + digits;
        self.at += whole;
        self.records += 1;
        Ok(Stored { number, bytes: &self.buffer[start..self.at] })
    }

    /// The length before a record, and how many bytes it takes.
    fn length(&mut self) -> Result<(u64, usize), RestoreError> {
        for digits in 1..=MAX_LENGTH_DIGITS {
            self.need(digits)?;
            if let Some(found) = varint(&self.buffer[self.at..self.at + digits]) {
                return Ok(found);
            }
        }
        Err(RestoreError::TooLong { record: self.records, found: u64::MAX })
    }

    /// Sees to it that so many bytes are there.
    fn need(&mut self, bytes: usize) -> Result<(), RestoreError> {
        if self.buffer.len() - self.at >= bytes {
            return Ok(());
        }
        self.hash.update(&self.buffer[..self.last]);
        self.buffer.drain(..self.last);
        self.at -= self.last;
        self.last = 0;
        while self.buffer.len() - self.at < bytes {
            let more = BUFFER.max(bytes);
            let read = self.input.take(more as u64).read_to_end(&mut self.buffer);
            let ended = || io::Error::from(io::ErrorKind::UnexpectedEof);
            let read = read.and_then(|read| if read == 0 { Err(ended()) } else { Ok(read) });
            read.map_err(|source| RestoreError::Read { record: self.records, source })?;
        }
        Ok(())
    }

    /// Hash of everything before the record that was read last.
    fn hash_before_last(&self) -> Vec<u8> {
        self.hash.clone().chain_update(&self.buffer[..self.last]).finalize().to_vec()
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
