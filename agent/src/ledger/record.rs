//! Keys and values of the ledger. A key is one letter and, big-endian so that they sort, the instance's numbers; a value is a prost
//! message. A field number is never used again.

use prost::Message;
use supercloud_proto::{
    id::{InstanceId, LogIndex, Millis},
    instance::InstanceReport,
    name::TaskName,
    order::Order,
    v1,
};

use super::Contents;
use crate::reconcile::history::{End, Outcome, Run, TaskHistory};

pub(super) const INCARNATION: &[u8] = b"m/incarnation";
pub(super) const SEQUENCE: &[u8] = b"m/sequence";
pub(super) const LEASE: &[u8] = b"m/lease";
pub(super) const SYNCED: &[u8] = b"m/synced";

const ORDER: u8 = b'o';
const FENCE: u8 = b'f';
const HISTORY: u8 = b'h';
const REPORT: u8 = b'r';

/// The lease as it was when it was last renewed.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct LeaseRecord {
    /// The boot that its time belongs to.
    #[prost(string, tag = "1")]
    pub boot_id: String,
    /// Until when, by that boot's clock, in milliseconds.
    #[prost(uint64, tag = "2")]
    pub until: Millis,
    /// Its length in milliseconds.
    #[prost(uint64, tag = "3")]
    pub length: Millis,
}

#[derive(Clone, PartialEq, Message)]
struct Number {
    #[prost(uint64, tag = "1")]
    value: u64,
}

#[derive(Clone, PartialEq, Message)]
struct Text {
    #[prost(string, tag = "1")]
    value: String,
}

#[derive(Clone, PartialEq, Message)]
struct HistoryRecord {
    /// 0: never, 1: open, 2: ended.
    #[prost(uint32, tag = "1")]
    run: u32,
    #[prost(uint64, optional, tag = "2")]
    started: Option<u64>,
    #[prost(uint32, tag = "3")]
    restarts: u32,
    #[prost(uint64, repeated, tag = "4")]
    restarted_at: Vec<u64>,
    #[prost(message, optional, tag = "5")]
    last_end: Option<EndRecord>,
    #[prost(bool, tag = "6")]
    stopped_by_lease: bool,
    /// 0: none, 1: completed, 2: given up.
    #[prost(uint32, tag = "7")]
    outcome: u32,
}

#[derive(Clone, PartialEq, Message)]
struct EndRecord {
    #[prost(uint64, tag = "1")]
    seen_at: u64,
    #[prost(uint64, optional, tag = "2")]
    at: Option<u64>,
    #[prost(int32, optional, tag = "3")]
    exit_code: Option<i32>,
    #[prost(string, tag = "4")]
    reason: String,
}

fn key(kind: u8, instance: InstanceId) -> Vec<u8> {
    let mut key = vec![kind];
    key.extend_from_slice(&instance.index.to_be_bytes());
    key.extend_from_slice(&instance.ordinal.to_be_bytes());
    key
}

pub(super) fn order_key(instance: InstanceId) -> Vec<u8> {
    key(ORDER, instance)
}

pub(super) fn fence_key(instance: InstanceId) -> Vec<u8> {
    key(FENCE, instance)
}

pub(super) fn report_key(instance: InstanceId) -> Vec<u8> {
    key(REPORT, instance)
}

pub(super) fn history_key(instance: InstanceId, task: &TaskName) -> Vec<u8> {
    let mut key = key(HISTORY, instance);
    key.extend_from_slice(task.as_str().as_bytes());
    key
}

pub(super) fn number(value: u64) -> Vec<u8> {
    Number { value }.encode_to_vec()
}

pub(super) fn text(value: &str) -> Vec<u8> {
    Text { value: value.to_owned() }.encode_to_vec()
}

pub(super) fn lease(lease: &LeaseRecord) -> Vec<u8> {
    lease.encode_to_vec()
}

pub(super) fn order(order: &Order) -> Vec<u8> {
    v1::Order::from(order).encode_to_vec()
}

pub(super) fn report(report: &InstanceReport) -> Vec<u8> {
    v1::InstanceReport::from(report).encode_to_vec()
}

pub(super) fn history(history: &TaskHistory) -> Vec<u8> {
    let end = |end: &End| EndRecord {
        seen_at: end.seen_at,
        at: end.at,
        exit_code: end.exit_code,
        reason: end.reason.clone(),
    };
    HistoryRecord {
        run: match history.run {
            Run::Never => 0,
            Run::Open => 1,
            Run::Ended => 2,
        },
        started: history.started,
        restarts: history.restarts,
        restarted_at: history.restarted_at.clone(),
        last_end: history.last_end.as_ref().map(end),
        stopped_by_lease: history.stopped_by_lease,
        outcome: match history.outcome {
            None => 0,
            Some(Outcome::Completed) => 1,
            Some(Outcome::GivenUp) => 2,
        },
    }
    .encode_to_vec()
}

fn history_from(record: HistoryRecord) -> Option<TaskHistory> {
    let end = |end: EndRecord| End {
        seen_at: end.seen_at,
        at: end.at,
        exit_code: end.exit_code,
        reason: end.reason,
    };
    Some(TaskHistory {
        run: match record.run {
            0 => Run::Never,
            1 => Run::Open,
            2 => Run::Ended,
            _ => return None,
        },
        started: record.started,
        restarts: record.restarts,
        restarted_at: record.restarted_at,
        last_end: record.last_end.map(end),
        stopped_by_lease: record.stopped_by_lease,
        outcome: match record.outcome {
            0 => None,
            1 => Some(Outcome::Completed),
            2 => Some(Outcome::GivenUp),
            _ => return None,
        },
    })
}

/// Takes one record into the contents; `None`: it makes no sense.
pub(super) fn load(contents: &mut Contents, key: &[u8], value: &[u8]) -> Option<()> {
    let number = || Some(Number::decode(value).ok()?.value);
    match key {
        INCARNATION => contents.incarnation = Text::decode(value).ok()?.value,
        SEQUENCE => contents.sequence = number()?,
        SYNCED => contents.synced = number()?,
        LEASE => contents.lease = Some(LeaseRecord::decode(value).ok()?),
        _ => {
            let (kind, instance, rest) = split(key)?;
            match kind {
                ORDER => {
                    let order = Order::try_from(v1::Order::decode(value).ok()?).ok()?;
                    contents.orders.insert(instance, order);
                }
                FENCE => {
                    let index: LogIndex = number()?;
                    contents.fences.insert(instance, index);
                }
                REPORT => {
                    let report = InstanceReport::try_from(v1::InstanceReport::decode(value).ok()?).ok()?;
                    contents.reports.insert(instance, report);
                }
                HISTORY => {
                    let task = TaskName::new(std::str::from_utf8(rest).ok()?).ok()?;
                    let history = history_from(HistoryRecord::decode(value).ok()?)?;
                    contents.histories.entry(instance).or_default().insert(task, history);
                }
                _ => return None,
            }
        }
    }
    Some(())
}

fn split(key: &[u8]) -> Option<(u8, InstanceId, &[u8])> {
    let (kind, rest) = key.split_first()?;
    let (index, rest) = rest.split_first_chunk::<8>()?;
    let (ordinal, rest) = rest.split_first_chunk::<4>()?;
    let instance = InstanceId { index: u64::from_be_bytes(*index), ordinal: u32::from_be_bytes(*ordinal) };
    Some((*kind, instance, rest))
}
