//! What one log entry is to raft-engine: an index and opaque bytes.
//!
//! raft-engine stores messages of the crate `protobuf`; raft's own messages are `prost` ones whose `protobuf`
//! implementation only panics. This small message of our own holds the entry as `prost` encoded it.

use std::any::Any;
use std::sync::LazyLock;

use protobuf::reflect::MessageDescriptor;
use protobuf::{CodedInputStream, CodedOutputStream, ProtobufResult, UnknownFields};

/// One encoded entry with its index, which the engine compares with its own when it reads the entry.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Record {
    pub(super) index: u64,
    pub(super) bytes: Vec<u8>,
    unknown: UnknownFields,
}

impl Record {
    pub(super) fn new(index: u64, bytes: Vec<u8>) -> Self {
        Self { index, bytes, unknown: UnknownFields::default() }
    }
}

/// Tells raft-engine which message it stores and where its index is.
pub(super) struct Records;

impl raft_engine::MessageExt for Records {
    type Entry = Record;

    fn index(entry: &Record) -> u64 {
        entry.index
    }
}

impl protobuf::Clear for Record {
    fn clear(&mut self) {
        *self = Self::default();
    }
}

impl protobuf::Message for Record {
    fn descriptor(&self) -> &'static MessageDescriptor {
        unreachable!("asked for only when a message is not initialised, and a record always is")
    }

    fn is_initialized(&self) -> bool {
        true
    }

    fn merge_from(&mut self, input: &mut CodedInputStream<'_>) -> ProtobufResult<()> {
        self.index = input.read_raw_varint64()?;
        input.read_bytes_into(&mut self.bytes)
    }

    fn write_to_with_cached_sizes(&self, output: &mut CodedOutputStream<'_>) -> ProtobufResult<()> {
        output.write_raw_varint64(self.index)?;
        output.write_bytes_no_tag(&self.bytes)
    }

    fn compute_size(&self) -> u32 {
        // Entries are limited to some MiB, so the sum stays far below the largest u32.
        let length = self.bytes.len() as u32;
        protobuf::rt::compute_raw_varint64_size(self.index)
            + protobuf::rt::compute_raw_varint32_size(length)
            + length
    }

    fn get_cached_size(&self) -> u32 {
        self.compute_size()
    }

    fn get_unknown_fields(&self) -> &UnknownFields {
        &self.unknown
    }

    fn mut_unknown_fields(&mut self) -> &mut UnknownFields {
        &mut self.unknown
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn new() -> Self {
        Self::default()
    }

    fn default_instance() -> &'static Self {
        static EMPTY: LazyLock<Record> = LazyLock::new(Record::default);
        &EMPTY
    }
}

#[cfg(test)]
mod tests {
    use protobuf::Message as _;

    use super::*;

    #[test]
    fn a_record_survives_the_engines_encoding() {
        for bytes in [vec![], vec![0], vec![7; 300], vec![1; 100_000]] {
            let mut encoded = Vec::new();
            let record = Record::new(900, bytes);
            record.write_to_vec(&mut encoded).unwrap();
            assert_eq!(encoded.len(), record.compute_size() as usize);
            assert_eq!(Record::parse_from_bytes(&encoded).unwrap(), record);
        }
    }
}
