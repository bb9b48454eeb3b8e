//! What stands under a key: keys and their order, values behind their checksum, and how what is too long is cut. Knows no store.

use prost::Message as _;
use supercloud_proto::{
    id::{InstanceId, LogIndex},
    v1,
};

use super::store::StoreError;
use crate::state::{Event, Run};

/// Bytes of events in one block, or of one finished instance. With checksum and framing it stays below 8 KiB: a larger value becomes a file
/// of its own in sled, which is never synced.
const MAX_BLOCK: usize = 8_000;
/// Longest message of one event.
const MAX_MESSAGE: usize = 4 << 10;
/// Longest name of who caused it.
const MAX_BY: usize = 512;
/// Longest reason in a finished instance.
const MAX_REASON: usize = 1 << 10;
/// Longest reason of one of its tasks, where the whole is too long.
const MAX_TASK_REASON: usize = 128;

/// Where an event stands: log index and ordinal.
pub(super) type Position = (LogIndex, u32);

/// An event as the API shows it and the archive keeps it.
#[must_use]
pub fn event_message(event: &Event) -> v1::Event {
    let subject = &event.subject;
    let text = |name: Option<String>| name.unwrap_or_default();
    v1::Event {
        index: event.index,
        ordinal: event.ordinal,
        time_ms: event.time,
        kind: event.kind.as_str().to_owned(),
        borough: text(subject.borough.as_ref().map(String::from)),
        workload: text(subject.workload.as_ref().map(|key| String::from(&key.workload))),
        instance: text(subject.instance.map(|id| id.to_string())),
        host: text(subject.host.as_ref().map(String::from)),
        message: event.message.clone(),
        by: event.by.clone(),
        runs: event.runs.iter().map(run_message).collect(),
    }
}

fn run_message(run: &Run) -> v1::EventRun {
    v1::EventRun {
        first: run.first.to_string(),
        count: run.count,
        host: run.host.as_ref().map(String::from).unwrap_or_default(),
    }
}

/// Whether an instance is one of a run's.
pub(super) fn has_instance(run: &v1::EventRun, id: InstanceId) -> bool {
    run.first.parse::<InstanceId>().is_ok_and(|first| {
        let place = id.ordinal.checked_sub(first.ordinal);
        first.index == id.index && place.is_some_and(|place| place < run.count)
    })
}

pub(super) fn position(event: &v1::Event) -> Position {
    (event.index, event.ordinal)
}

/// The key of a block, from its first event.
pub(super) fn block_key(position: Position) -> Vec<u8> {
    suffixed(b"e", position)
}

/// The first byte of all keys of blocks, and the key after the last of them.
pub(super) const BLOCKS: (&[u8], &[u8]) = (b"e", b"f");
/// The same for finished instances.
pub(super) const FINISHED: (&[u8], &[u8]) = (b"f", b"g");

pub(super) fn finished_key(id: InstanceId) -> Vec<u8> {
    suffixed(b"f", (id.index, id.ordinal))
}

/// Beginning of the keys that point to the blocks of a borough, a workload or a host.
pub(super) enum Pointer<'a> {
    Borough(&'a str),
    Workload(&'a str, &'a str),
    Host(&'a str),
    /// Blocks with events of many instances, which have no key for each of their hosts.
    Crowds,
}

impl Pointer<'_> {
    /// Names hold no zero byte, so no prefix begins another.
    pub(super) fn prefix(&self) -> Vec<u8> {
        match self {
            Self::Borough(borough) => [b"pb".as_slice(), borough.as_bytes(), b"\0"].concat(),
            Self::Workload(borough, workload) => {
                [b"pw".as_slice(), borough.as_bytes(), b"/", workload.as_bytes(), b"\0"].concat()
            }
            Self::Host(host) => [b"ph".as_slice(), host.as_bytes(), b"\0"].concat(),
            Self::Crowds => b"pc\0".to_vec(),
        }
    }
}

/// All keys that point to a block of these events.
pub(super) fn pointers(events: &[v1::Event]) -> std::collections::BTreeSet<Vec<u8>> {
    let Some(first) = events.first() else { return Default::default() };
    let mut keys = std::collections::BTreeSet::new();
    for event in events {
        if !event.borough.is_empty() {
            keys.insert(suffixed(&Pointer::Borough(&event.borough).prefix(), position(first)));
        }
        if !event.workload.is_empty() {
            let pointer = Pointer::Workload(&event.borough, &event.workload);
            keys.insert(suffixed(&pointer.prefix(), position(first)));
        }
        if !event.host.is_empty() {
            keys.insert(suffixed(&Pointer::Host(&event.host).prefix(), position(first)));
        }
        if event.runs.iter().any(|run| !run.host.is_empty()) {
            keys.insert(suffixed(&Pointer::Crowds.prefix(), position(first)));
        }
    }
    keys
}

pub(super) fn suffixed(prefix: &[u8], (index, ordinal): Position) -> Vec<u8> {
    [prefix, &index.to_be_bytes(), &ordinal.to_be_bytes()].concat()
}

/// The position at the end of a key.
pub(super) fn position_of(key: &[u8]) -> Result<Position, StoreError> {
    let short = || StoreError::Damaged(format!("a key of {} bytes", key.len()));
    let (rest, ordinal) = key.split_last_chunk::<4>().ok_or_else(short)?;
    let (_, index) = rest.split_last_chunk::<8>().ok_or_else(short)?;
    Ok((u64::from_be_bytes(*index), u32::from_be_bytes(*ordinal)))
}

/// A value behind its checksum.
pub(super) fn seal(value: &[u8]) -> Vec<u8> {
    [&crc32fast::hash(value).to_be_bytes(), value].concat()
}

/// What stands behind a checksum that matches.
pub(super) fn open(sealed: &[u8]) -> Result<&[u8], StoreError> {
    match sealed.split_first_chunk::<4>() {
        Some((crc, value)) if u32::from_be_bytes(*crc) == crc32fast::hash(value) => Ok(value),
        _ => Err(StoreError::Damaged("a value does not match its checksum".to_owned())),
    }
}

/// Cuts events into blocks that fit, in order.
pub(super) fn blocks(events: Vec<v1::Event>) -> Vec<Vec<v1::Event>> {
    let mut blocks: Vec<Vec<v1::Event>> = Vec::new();
    let mut bytes = 0;
    for mut event in events {
        shorten(&mut event.message, MAX_MESSAGE);
        shorten(&mut event.by, MAX_BY);
        // Tag and length of an element take up to four bytes.
        let size = event.encoded_len() + 4;
        match blocks.last_mut() {
            Some(block) if bytes + size <= MAX_BLOCK => {
                bytes += size;
                block.push(event);
            }
            _ => {
                bytes = size;
                blocks.push(vec![event]);
            }
        }
    }
    blocks
}

pub(super) fn encode_block(events: Vec<v1::Event>) -> Vec<u8> {
    seal(&v1::WatchEventsResponse { events, index: 0 }.encode_to_vec())
}

pub(super) fn decode_block(sealed: &[u8]) -> Result<Vec<v1::Event>, StoreError> {
    let block = v1::WatchEventsResponse::decode(open(sealed)?);
    Ok(block.map_err(|error| StoreError::Damaged(error.to_string()))?.events)
}

/// A finished instance; what is too long in it is cut, reasons first and then its tasks.
pub(super) fn encode_finished(index: LogIndex, mut instance: v1::Instance) -> Vec<u8> {
    let whole = instance.encoded_len();
    if whole > MAX_BLOCK {
        shorten(&mut instance.state_reason, MAX_REASON);
        shorten(&mut instance.desired_reason, MAX_REASON);
        for task in &mut instance.tasks {
            shorten(&mut task.reason, MAX_TASK_REASON);
        }
        if instance.encoded_len() > MAX_BLOCK {
            instance.tasks.clear();
            instance.ports.clear();
            instance.state_reason.push_str(" (tasks and ports were too long to be kept)");
        }
        tracing::warn!(id = instance.id, bytes = whole, "a finished instance is archived with its texts cut");
    }
    seal(&v1::FinishedInstance { index, instance: Some(instance) }.encode_to_vec())
}

pub(super) fn decode_finished(sealed: &[u8]) -> Result<(LogIndex, v1::Instance), StoreError> {
    let record = v1::FinishedInstance::decode(open(sealed)?)
        .map_err(|error| StoreError::Damaged(error.to_string()))?;
    let none = || StoreError::Damaged("a finished instance without its instance".to_owned());
    Ok((record.index, record.instance.ok_or_else(none)?))
}

/// Cuts a text at a boundary of characters, and says so in it.
fn shorten(text: &mut String, limit: usize) {
    if text.len() > limit {
        let note = format!(" … (cut from {} bytes)", text.len());
        let mut end = limit.saturating_sub(note.len());
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text.push_str(&note);
    }
}
