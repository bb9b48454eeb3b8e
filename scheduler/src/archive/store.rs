//! The archive's store: one sled tree, written by one thread, by the rules that make sled safe (see below). Knows records and keys; no
//! queue, no gap, no network.
//!
//! Rules: one batch, `flush()`, then `fdatasync` of the `db` file on a descriptor kept open, since sled's own flush is no promise across a
//! power cut; no background flush; values of at most 8 KiB; everything that belongs together in one tree; a checksum for every value;
//! directories synced at creation and a marker written last; at most 1,000 keys deleted a step; opening behind `catch_unwind`.

use std::{
    fs::{self, File},
    io,
    panic::AssertUnwindSafe,
    path::{Path, PathBuf},
};

use supercloud_proto::{
    id::{InstanceId, LogIndex},
    v1,
};

use super::{Batch, Retention, Status, record};

/// Directory of the store within the archive's.
const STORE: &str = "store";
/// Says that the store was made completely.
const MARKER: &str = "store-complete";
/// Beginning of the names of stores that were set aside.
const ASIDE: &str = "store-set-aside-";
/// Stores set aside that are kept for whoever wants to look.
const ASIDE_KEPT: usize = 1;
/// Keys deleted in one step.
pub(super) const MAX_DELETED: usize = 1_000;
/// Memory for pages, in bytes: what is listed is mostly new.
const CACHE: u64 = 32 << 20;
const META: &[u8] = b"m";

/// Why the store cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum StoreError {
    /// What is there is not what was written.
    #[error("damaged: {0}")]
    Damaged(String),
    /// It is another cluster's.
    #[error("it belongs to cluster {0}")]
    Foreign(String),
    /// The disk refuses.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl From<sled::Error> for StoreError {
    fn from(error: sled::Error) -> Self {
        match error {
            sled::Error::Io(error) => Self::Io(error),
            other => Self::Damaged(other.to_string()),
        }
    }
}

/// What the store says of itself; changes with every batch, in the same batch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Meta {
    pub(super) cluster: String,
    pub(super) index: LogIndex,
    pub(super) floor: LogIndex,
    pub(super) events: u64,
    pub(super) finished: u64,
}

impl Meta {
    fn encode(&self) -> Vec<u8> {
        let numbers = [self.index, self.floor, self.events, self.finished];
        let mut value: Vec<u8> = numbers.iter().flat_map(|number| number.to_be_bytes()).collect();
        value.extend_from_slice(self.cluster.as_bytes());
        record::seal(&value)
    }

    fn decode(sealed: &[u8]) -> Result<Self, StoreError> {
        let bad = || StoreError::Damaged("its own record is too short".to_owned());
        let value = record::open(sealed)?;
        let (numbers, cluster) = value.split_at_checked(32).ok_or_else(bad)?;
        let number = |at: usize| -> Result<u64, StoreError> {
            let bytes = numbers.get(at * 8..at * 8 + 8).and_then(|bytes| bytes.try_into().ok());
            Ok(u64::from_be_bytes(bytes.ok_or_else(bad)?))
        };
        Ok(Self {
            cluster: String::from_utf8_lossy(cluster).into_owned(),
            index: number(0)?,
            floor: number(1)?,
            events: number(2)?,
            finished: number(3)?,
        })
    }
}

/// The open store.
pub(super) struct Store {
    db: sled::Db,
    /// Kept open, to sync it.
    file: File,
}

impl Store {
    /// Opens the store of a directory, or makes it.
    pub(super) fn open(directory: &Path, cluster: &str) -> Result<(Self, Meta), StoreError> {
        fs::create_dir_all(directory)?;
        let (path, marker) = (directory.join(STORE), directory.join(MARKER));
        if !marker.exists() && path.exists() {
            // It never held anything: its making was interrupted.
            fs::remove_dir_all(&path)?;
        }
        let fresh = !path.exists();
        let store = Self::open_sled(&path)?;
        if fresh {
            let meta = Meta { cluster: cluster.to_owned(), ..Meta::default() };
            store.write(sled::Batch::default(), &meta)?;
            for part in [path.join("conf"), path.join("db"), path.clone(), directory.to_owned()] {
                File::open(part)?.sync_all()?;
            }
            File::create(&marker)?.sync_all()?;
            File::open(directory)?.sync_all()?;
            return Ok((store, meta));
        }
        let meta =
            store.db.get(META)?.ok_or_else(|| StoreError::Damaged("its own record is missing".into()))?;
        let meta = Meta::decode(&meta)?;
        if meta.cluster == cluster { Ok((store, meta)) } else { Err(StoreError::Foreign(meta.cluster)) }
    }

    fn open_sled(path: &Path) -> Result<Self, StoreError> {
        let config =
            sled::Config::new().path(path).flush_every_ms(None).use_compression(false).cache_capacity(CACHE);
        // It has been seen to panic over what a power cut left behind.
        let opened = std::panic::catch_unwind(AssertUnwindSafe(|| config.open()));
        let db = opened.map_err(|_| StoreError::Damaged("it cannot be recovered".to_owned()))??;
        Ok(Self { db, file: File::open(path.join("db"))? })
    }

    /// Moves what cannot be used out of the way, and forgets what was moved before.
    pub(super) fn set_aside(directory: &Path, stamp: u64) -> io::Result<PathBuf> {
        let aside = directory.join(format!("{ASIDE}{stamp}"));
        let mut older: Vec<PathBuf> = fs::read_dir(directory)?
            .filter_map(Result::ok)
            .filter(|entry| entry.file_name().to_string_lossy().starts_with(ASIDE))
            .map(|entry| entry.path())
            .collect();
        older.sort();
        for path in older.iter().rev().skip(ASIDE_KEPT - 1) {
            fs::remove_dir_all(path)?;
        }
        fs::rename(directory.join(STORE), &aside)?;
        match fs::remove_file(directory.join(MARKER)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        File::open(directory)?.sync_all()?;
        Ok(aside)
    }

    /// Writes a batch with what the store says of itself, and returns when both are on disk.
    fn write(&self, mut batch: sled::Batch, meta: &Meta) -> Result<(), StoreError> {
        batch.insert(META, meta.encode());
        self.db.apply_batch(batch)?;
        self.db.flush()?;
        Ok(self.file.sync_data()?)
    }

    /// Adds what the batches bring. They continue `meta.index` without a gap; what they repeat is passed over.
    pub(super) fn append(&self, meta: &mut Meta, batches: Vec<Batch>) -> Result<(), StoreError> {
        let mut write = sled::Batch::default();
        let mut next = meta.clone();
        let mut created = std::collections::BTreeSet::new();
        for batch in batches {
            let known = next.index;
            let events: Vec<v1::Event> =
                batch.events.into_iter().filter(|event| event.index > known).collect();
            next.events += events.len() as u64;
            for block in record::blocks(events) {
                let Some(first) = block.first().map(record::position) else { continue };
                for pointer in record::pointers(&block) {
                    write.insert(pointer, Vec::new());
                }
                write.insert(record::block_key(first), record::encode_block(block));
            }
            for (index, instance) in batch.finished {
                let Ok(id) = instance.id.parse::<InstanceId>() else {
                    tracing::warn!(
                        id = instance.id,
                        "a finished instance without a usable id is not archived"
                    );
                    continue;
                };
                let key = record::finished_key(id);
                if !self.db.contains_key(&key)? && created.insert(key.clone()) {
                    next.finished += 1;
                }
                write.insert(key, record::encode_finished(index, instance));
            }
            next.index = next.index.max(batch.index);
        }
        self.write(write, &next)?;
        *meta = next;
        Ok(())
    }

    /// Takes a loss as it is: everything up to `index` counts as archived, and nothing before it as whole.
    pub(super) fn give_up(&self, meta: &mut Meta, index: LogIndex) -> Result<(), StoreError> {
        let next = Meta { index: meta.index.max(index), floor: meta.floor.max(index), ..meta.clone() };
        self.write(sled::Batch::default(), &next)?;
        *meta = next;
        Ok(())
    }

    /// Deletes what is beyond the retention, one step of it. Returns whether there is more.
    pub(super) fn trim(&self, meta: &mut Meta, keep: Retention) -> Result<bool, StoreError> {
        let mut write = sled::Batch::default();
        let mut next = meta.clone();
        let mut deleted = 0;
        for item in self.db.range(record::BLOCKS.0..record::BLOCKS.1) {
            let (key, value) = item?;
            let block = record::decode_block(&value)?;
            if next.events.saturating_sub(keep.events) < block.len() as u64 {
                break;
            }
            let pointers = record::pointers(&block);
            // A single block never comes near the limit; it holds at most some hundred events.
            if deleted + pointers.len() + 1 > MAX_DELETED {
                break;
            }
            deleted += pointers.len() + 1;
            pointers.into_iter().for_each(|pointer| write.remove(pointer));
            write.remove(key);
            next.events -= block.len() as u64;
            next.floor = block.last().map_or(next.floor, |event| next.floor.max(event.index));
        }
        let surplus = next.finished.saturating_sub(keep.finished) as usize;
        for item in
            self.db.range(record::FINISHED.0..record::FINISHED.1).take(surplus.min(MAX_DELETED - deleted))
        {
            write.remove(item?.0);
            next.finished -= 1;
            deleted += 1;
        }
        if deleted > 0 {
            self.write(write, &next)?;
            *meta = next;
        }
        Ok(deleted > 0)
    }

    /// A finished instance, and the log index at which it left the state.
    pub(super) fn finished(&self, id: InstanceId) -> Result<Option<(LogIndex, v1::Instance)>, StoreError> {
        let value = self.db.get(record::finished_key(id))?;
        value.map(|value| record::decode_finished(&value)).transpose()
    }

    /// All finished instances that left the state after an index.
    pub(super) fn finished_after(
        &self,
        after: LogIndex,
    ) -> impl Iterator<Item = Result<(LogIndex, v1::Instance), StoreError>> + use<> {
        let all = self.db.range(record::FINISHED.0..record::FINISHED.1);
        all.map(|item| record::decode_finished(&item?.1))
            .filter(move |found| found.as_ref().map_or(true, |(index, _)| *index > after))
    }

    /// The events after a position, in order.
    pub(super) fn events_after(
        &self,
        after: record::Position,
    ) -> Result<impl Iterator<Item = Result<v1::Event, StoreError>> + use<>, StoreError> {
        // The position may lie within the block before.
        let key = record::block_key(after);
        let before = self.db.range(record::BLOCKS.0.to_vec()..=key.clone()).next_back().transpose()?;
        let start = before.map_or_else(|| record::BLOCKS.0.to_vec(), |(key, _)| key.to_vec());
        let blocks = self.db.range(start..record::BLOCKS.1.to_vec());
        let events = blocks.flat_map(|item| {
            match item.map_err(StoreError::from).and_then(|item| record::decode_block(&item.1)) {
                Ok(events) => events.into_iter().map(Ok).collect::<Vec<_>>(),
                Err(error) => vec![Err(error)],
            }
        });
        Ok(events.filter(move |event| event.as_ref().map_or(true, |event| record::position(event) > after)))
    }

    /// Positions of the blocks under a prefix of pointers, latest first.
    pub(super) fn pointed(
        &self,
        prefix: &[u8],
    ) -> impl Iterator<Item = Result<record::Position, StoreError>> + use<> {
        self.db.scan_prefix(prefix).rev().map(|item| record::position_of(&item?.0))
    }

    /// Positions of all blocks, latest first.
    pub(super) fn all_blocks(&self) -> impl Iterator<Item = Result<record::Position, StoreError>> + use<> {
        self.db.range(record::BLOCKS.0..record::BLOCKS.1).rev().map(|item| record::position_of(&item?.0))
    }

    /// One block; empty when it was deleted meanwhile.
    pub(super) fn block(&self, at: record::Position) -> Result<Vec<v1::Event>, StoreError> {
        let value = self.db.get(record::block_key(at))?;
        value.map_or_else(|| Ok(Vec::new()), |value| record::decode_block(&value))
    }
}

impl Meta {
    /// What it says to everybody else.
    pub(super) fn publish(&self, status: &mut Status) {
        status.index = self.index;
        status.durable = self.index;
        status.floor = self.floor;
    }
}
