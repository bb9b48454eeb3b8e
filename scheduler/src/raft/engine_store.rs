//! The log on disk, in raft-engine. Knows the engine's files and nothing of raft's protocol.
//!
//! * One raft group (number 1). Entries lie in the engine's log; the base, the hard state, the owner and a begun
//!   installation are its key-values, written in the same atomic batch as the entries they belong to.
//! * The recovery mode cuts a torn tail (a write that a crash interrupted and nobody was promised) and refuses to
//!   open when an older file is damaged. Damage within the newest file looks like a torn tail to it, and would cost
//!   acknowledged entries unnoticed; `witness` notices.
//! * Everything is written by one thread of its own (`engine_writer`); reads come straight from the engine.

use std::path::Path;
use std::sync::Arc;

use raft_engine::{Config, Engine, LogBatch, ReadableSize, RecoveryMode};

use super::engine_scan::{self, Damage};
use super::engine_writer::{BASE, EngineWriter, GROUP, HARD_STATE, INSTALLING, OWNER, StoredPosition};
use super::log_store::{
    HardState, LogStore, LogWrite, OnWritten, Place, Position, Reclaim, StoreError, Ticket,
};
use super::meter::Meter;
use super::record::Records;
use super::witness::Witness;

/// Files of this size; a purge frees whole files only.
const FILE_MIB: u64 = 32;
/// A purge starts when the live files take this much. More than one snapshot interval, so that it finds whole files.
const PURGE_MIB: u64 = 128;

/// See the head of the module.
pub(super) struct EngineStore {
    engine: Arc<Engine>,
    writer: EngineWriter,
    directory: String,
    base: Position,
    /// Of what was handed over, written or not.
    last_index: u64,
    hard_state: HardState,
    installing: u64,
    witness: Witness,
    cut: Option<Place>,
}

impl EngineStore {
    /// Opens the log in `directory`, or makes an empty one. `written` is told what became of submitted writes.
    ///
    /// # Errors
    /// When the directory cannot be used or what it holds is damaged before its tail.
    pub(super) fn open(directory: &Path, written: OnWritten) -> Result<Self, StoreError> {
        let name = directory.display().to_string();
        let config = Config {
            dir: name.clone(),
            recovery_mode: RecoveryMode::TolerateTailCorruption,
            target_file_size: ReadableSize::mb(FILE_MIB),
            purge_threshold: ReadableSize::mb(PURGE_MIB),
            ..Config::default()
        };
        // Before the engine cuts it off.
        let newest = engine_scan::files(directory).pop();
        let cut = newest.and_then(|path| engine_scan::damage_in(&path)).map(Place::from);
        let engine = Engine::open(config).map_err(|error| StoreError::Damaged {
            directory: name.clone(),
            place: engine_scan::first_damage(directory).map(Place::from),
            found: error.to_string(),
        })?;
        sync_what_was_found(&engine)
            .map_err(|error| StoreError::Write { directory: name.clone(), found: error.to_string() })?;
        let io =
            |error: std::io::Error| StoreError::Write { directory: name.clone(), found: error.to_string() };
        let witness = Witness::open(&directory.join("witness")).map_err(io)?;
        let base: StoredPosition = stored(&engine, &name, BASE)?;
        let hard_state: HardState = stored(&engine, &name, HARD_STATE)?;
        let installing = stored::<StoredPosition>(&engine, &name, INSTALLING)?.index;
        let base = Position { index: base.index, term: base.term };
        let last_index = engine.last_index(GROUP).unwrap_or(0).max(base.index);
        let engine = Arc::new(engine);
        let writer =
            EngineWriter::start(engine.clone(), name.clone(), hard_state.term, written).map_err(io)?;
        Ok(Self { engine, writer, directory: name, base, last_index, hard_state, installing, witness, cut })
    }

    /// What its writing is measured by.
    pub(super) fn meter(&self) -> &Meter {
        self.writer.meter()
    }

    /// Whose log this is, as it was last written; nothing in a blank log.
    pub(super) fn owner(&self) -> Option<Vec<u8>> {
        self.engine.get(GROUP, OWNER)
    }

    fn damaged(&self, found: &dyn std::fmt::Display) -> StoreError {
        let place = engine_scan::first_damage(Path::new(&self.directory)).map(Place::from);
        StoreError::Damaged { directory: self.directory.clone(), place, found: found.to_string() }
    }

    fn unwritten(&self, found: &dyn std::fmt::Display) -> StoreError {
        StoreError::Write { directory: self.directory.clone(), found: found.to_string() }
    }

    /// Takes over what a write will make true, and gives up to where it forgets.
    fn hand_over(&mut self, write: &mut LogWrite) -> Option<u64> {
        let forget = write.base.map(|base| {
            let all = self.last_index.max(base.index);
            self.base = base;
            self.last_index = if write.reset { base.index } else { all };
            if write.reset { all } else { base.index }
        });
        if let Some((index, _)) = write.entries.last() {
            self.last_index = *index;
        }
        self.hard_state = *write.hard_state.get_or_insert(self.hard_state);
        self.installing = write.installing.unwrap_or(self.installing);
        forget
    }
}

impl From<Damage> for Place {
    fn from(damage: Damage) -> Self {
        Self { file: damage.path.display().to_string(), offset: damage.offset }
    }
}

/// The process before may have been killed between a write and its sync. What is found counts as synced from now on, so it
/// is made so. `Engine::sync` would not do: it writes an empty batch, which the engine passes over.
fn sync_what_was_found(engine: &Engine) -> Result<(), raft_engine::Error> {
    let Some(hard_state) = engine.get(GROUP, HARD_STATE) else { return Ok(()) };
    let mut batch = LogBatch::default();
    batch.put(GROUP, HARD_STATE.to_vec(), hard_state)?;
    engine.write(&mut batch, true).map(drop)
}

fn stored<M: prost::Message + Default>(
    engine: &Engine,
    directory: &str,
    key: &[u8],
) -> Result<M, StoreError> {
    match engine.get(GROUP, key) {
        None => Ok(M::default()),
        Some(bytes) => M::decode(bytes.as_slice()).map_err(|error| StoreError::Damaged {
            directory: directory.to_owned(),
            place: None,
            found: error.to_string(),
        }),
    }
}

impl LogStore for EngineStore {
    fn base(&self) -> Position {
        self.base
    }

    fn last_index(&self) -> u64 {
        self.last_index
    }

    fn hard_state(&self) -> HardState {
        self.hard_state
    }

    fn installing(&self) -> u64 {
        self.installing
    }

    fn read(&self, low: u64, high: u64, max_bytes: u64) -> Result<Vec<Vec<u8>>, StoreError> {
        let mut records = Vec::new();
        let limit = usize::try_from(max_bytes).unwrap_or(usize::MAX);
        self.engine.fetch_entries_to::<Records>(GROUP, low, high, Some(limit), &mut records).map_err(
            |error| match error {
                raft_engine::Error::EntryCompacted | raft_engine::Error::EntryNotFound => {
                    StoreError::Missing { directory: self.directory.clone(), low, high }
                }
                other => self.damaged(&other),
            },
        )?;
        Ok(records.into_iter().map(|record| record.bytes).collect())
    }

    fn submit(&mut self, mut write: LogWrite, ticket: Ticket) {
        let forget = self.hand_over(&mut write);
        self.writer.submit(write, forget, ticket);
    }

    fn write(&mut self, mut write: LogWrite, sync: bool) -> Result<(), StoreError> {
        let forget = self.hand_over(&mut write);
        self.writer.write(write, forget, sync)
    }

    fn witness(&mut self, applied: u64) -> Result<(), StoreError> {
        // What is applied was synced; the present term may not be yet, and a witness must never be ahead of the log.
        self.witness.note(applied, self.writer.synced_term()).map_err(|error| self.unwritten(&error))
    }

    fn witnessed(&self) -> Position {
        self.witness.last()
    }

    fn cut_at(&self) -> Option<Place> {
        self.cut.clone()
    }

    fn reclaim(&self) -> Reclaim {
        let (engine, directory) = (self.engine.clone(), self.directory.clone());
        Box::new(move || match engine.purge_expired_files() {
            Ok(_groups) => Ok(()),
            Err(error) => Err(StoreError::Write { directory, found: error.to_string() }),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(directory: &Path) -> EngineStore {
        EngineStore::open(directory, Box::new(|_| {})).unwrap()
    }

    fn entries(range: std::ops::Range<u64>) -> Vec<(u64, Vec<u8>)> {
        range.map(|index| (index, vec![index as u8; 40])).collect()
    }

    fn write(store: &mut EngineStore, change: LogWrite) {
        store.write(change, true).unwrap();
    }

    #[test]
    fn everything_is_there_after_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let hard_state = HardState { term: 3, vote: 2, commit: 4 };
        let mut store = open(directory.path());
        write(&mut store, LogWrite { base: Some(Position { index: 1, term: 1 }), ..LogWrite::default() });
        write(
            &mut store,
            LogWrite { entries: entries(2..9), hard_state: Some(hard_state), ..LogWrite::default() },
        );
        write(&mut store, LogWrite { entries: vec![(6, vec![66])], ..LogWrite::default() });
        drop(store);
        let store = open(directory.path());
        assert_eq!((store.base().index, store.last_index()), (1, 6));
        assert_eq!(store.hard_state(), hard_state);
        assert_eq!(store.read(5, 7, u64::MAX).unwrap(), vec![vec![5; 40], vec![66]]);
        assert_eq!(store.read(2, 7, 1).unwrap().len(), 1);
        assert!(matches!(store.read(6, 8, u64::MAX), Err(StoreError::Missing { .. })));
    }

    #[test]
    fn a_base_forgets_what_lies_before_it_and_a_reset_everything() {
        let directory = tempfile::tempdir().unwrap();
        let mut store = open(directory.path());
        write(&mut store, LogWrite { entries: entries(1..20), ..LogWrite::default() });
        let base = Position { index: 10, term: 1 };
        write(&mut store, LogWrite { base: Some(base), ..LogWrite::default() });
        assert!(matches!(store.read(10, 12, u64::MAX), Err(StoreError::Missing { .. })));
        assert_eq!(store.read(11, 12, u64::MAX).unwrap(), vec![vec![11; 40]]);
        for index in [15, 100] {
            let base = Position { index, term: 2 };
            write(&mut store, LogWrite { base: Some(base), reset: true, ..LogWrite::default() });
            assert_eq!((store.base(), store.last_index()), (base, index));
            write(&mut store, LogWrite { entries: vec![(index + 1, vec![1])], ..LogWrite::default() });
        }
        drop(store);
        let store = open(directory.path());
        assert_eq!((store.base().index, store.last_index()), (100, 101));
        assert_eq!(store.read(101, 102, u64::MAX).unwrap(), vec![vec![1]]);
    }

    /// The newest file of the engine's log.
    fn last_file(directory: &Path) -> std::path::PathBuf {
        let mut files: Vec<_> = std::fs::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "raftlog"))
            .collect();
        files.sort();
        files.pop().unwrap()
    }

    #[test]
    fn a_torn_tail_is_cut_and_what_was_before_it_is_kept() {
        let directory = tempfile::tempdir().unwrap();
        let mut store = open(directory.path());
        for index in 1..=10 {
            write(&mut store, LogWrite { entries: entries(index..index + 1), ..LogWrite::default() });
        }
        drop(store);
        let path = last_file(directory.path());
        let bytes = std::fs::read(&path).unwrap();
        let end = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
        std::fs::write(&path, &bytes[..end - 20]).unwrap();
        let mut store = open(directory.path());
        assert_eq!(store.last_index(), 9);
        write(&mut store, LogWrite { entries: entries(10..11), ..LogWrite::default() });
        assert_eq!(store.read(9, 11, u64::MAX).unwrap(), vec![vec![9; 40], vec![10; 40]]);
    }
}
