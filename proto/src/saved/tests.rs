//! A saved state survives what happens to files: nothing that was cut, flipped, swapped or lengthened is taken for one.

use std::io::Write as _;

use prost::Message as _;
use sha2::{Digest as _, Sha256};

use super::*;
use crate::log::v1::{SnapshotFooter, SnapshotHeader, SnapshotRecord, snapshot_record::Record};

fn records(boroughs: usize) -> Vec<u8> {
    let encode = |record| SnapshotRecord { record: Some(record) }.encode_length_delimited_to_vec();
    let header = SnapshotHeader { format: 1, cluster_id: "c".to_owned(), index: 9, last_host_id: 0 };
    let mut bytes = encode(Record::Header(header));
    for number in 0..boroughs {
        let name = format!("b{number}");
        bytes.extend(encode(Record::Borough(crate::v1::Borough { name, ..Default::default() })));
    }
    let state_hash = Sha256::digest(&bytes).to_vec();
    bytes.extend(encode(Record::Footer(SnapshotFooter { records: boroughs as u64 + 1, state_hash })));
    bytes
}

fn saved(records: &[u8]) -> Vec<u8> {
    let head = SavedHead { format: FORMAT, cluster_id: "c".to_owned(), index: 9, ..SavedHead::default() };
    let mut writer = SavedWriter::begin(Vec::new(), &head).unwrap();
    writer.write_all(records).unwrap();
    writer.finish().unwrap()
}

#[test]
fn what_was_saved_is_counted_and_read_back() {
    let records = records(3 * PIECE_BYTES / 4);
    let file = saved(&records);
    let summary = inspect(file.as_slice()).unwrap();
    assert_eq!((summary.head.cluster_id.as_str(), summary.head.index), ("c", 9));
    assert_eq!((summary.boroughs, summary.hosts), (3 * PIECE_BYTES as u64 / 4, 0));
    assert_eq!(summary.whole.bytes, file.len() as u64);
    let mut reader = SavedReader::open(file.as_slice()).unwrap();
    let mut read = Vec::new();
    std::io::Read::read_to_end(&mut reader, &mut read).unwrap();
    assert!(read == records);
    assert_eq!(reader.finish().unwrap(), summary.whole);
}

#[test]
fn every_flipped_byte_every_cut_and_every_addition_is_found() {
    let whole = saved(&records(2));
    for at in 0..whole.len() {
        let mut flipped = whole.clone();
        flipped[at] ^= 0x10;
        assert!(inspect(flipped.as_slice()).is_err(), "byte {at}");
        let cut = inspect(&whole[..at]);
        assert!(matches!(cut, Err(SavedError::Damaged { offset, .. }) if offset <= at as u64), "cut at {at}");
    }
    let longer = [whole.as_slice(), b"x"].concat();
    assert!(inspect(longer.as_slice()).is_err());
}

#[test]
fn pieces_that_changed_places_are_found_and_the_offset_is_told() {
    // Two full pieces behind the head, alike but for one byte.
    let mut bytes = vec![7; 2 * PIECE_BYTES];
    bytes[PIECE_BYTES] = 8;
    let whole = saved(&bytes);
    let piece = PIECE_HEAD + PIECE_BYTES;
    let first = whole.len() - PIECE_HEAD - END_BYTES - 2 * piece;
    let mut swapped = whole[..first].to_vec();
    swapped.extend_from_slice(&whole[first + piece..first + 2 * piece]);
    swapped.extend_from_slice(&whole[first..first + piece]);
    swapped.extend_from_slice(&whole[first + 2 * piece..]);
    let found = SavedReader::open(swapped.as_slice()).unwrap().finish().unwrap_err();
    assert!(matches!(found, SavedError::Damaged { offset, .. } if offset == first as u64), "{found}");
    assert!(SavedReader::open(whole.as_slice()).unwrap().finish().is_ok());
}

#[test]
fn records_that_do_not_match_their_footer_are_found_although_the_file_is_whole() {
    let mut bytes = records(2);
    let at = bytes.windows(2).position(|two| two == b"b1").unwrap();
    bytes[at + 1] = b'7';
    let found = inspect(saved(&bytes).as_slice()).unwrap_err();
    assert!(found.to_string().contains("footer"), "{found}");
    assert!(inspect(saved(&[]).as_slice()).unwrap_err().to_string().contains("no footer"));
}

#[test]
fn a_later_format_and_a_stranger_are_refused_in_words() {
    let head = SavedHead { format: FORMAT + 1, ..SavedHead::default() };
    let newer = SavedWriter::begin(Vec::new(), &head).unwrap().finish().unwrap();
    assert!(matches!(inspect(newer.as_slice()), Err(SavedError::NewerFormat { found: 2, known: 1 })));
    let stranger = inspect(b"%PDF-1.7 or whatever else".as_slice()).unwrap_err();
    assert!(stranger.to_string().starts_with("damaged at byte 0"), "{stranger}");
}
