//! A simulated disk of a scheduler node: the log's store and the file system under the snapshots. What was not synced may be lost in a power
//! cut, in part; a write that the process handed over and that is not confirmed may be lost in any crash.
//!
//! It keeps the log three times: `durable` survives anything, `written` survives the process and not the power, `handed` is what the process
//! was told. Files: content up to a length is sure, names are sure once their directory was synced.

use std::{
    collections::{BTreeMap, VecDeque},
    io::{self, Cursor, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use supercloud_scheduler::raft::{
    files::{Files, Source, Written},
    log_store::{HardState, LogStore, LogWrite, Position, Reclaim, StoreError, Ticket},
    simulated::term_of,
};

use super::dice::Dice;

/// A log as it lies somewhere.
#[derive(Debug, Clone, Default)]
pub(super) struct Content {
    pub(super) base: Position,
    entries: BTreeMap<u64, Arc<[u8]>>,
    pub(super) hard_state: HardState,
    installing: u64,
}

impl Content {
    pub(super) fn last_index(&self) -> u64 {
        self.entries.last_key_value().map_or(self.base.index, |(index, _)| *index)
    }

    /// Term of an entry; `None` where the log does not hold it.
    pub(super) fn term(&self, index: u64) -> Option<u64> {
        if index == self.base.index {
            return Some(self.base.term);
        }
        self.entries.get(&index).and_then(|bytes| term_of(bytes))
    }

    pub(super) fn entry(&self, index: u64) -> Option<&Arc<[u8]>> {
        self.entries.get(&index)
    }

    fn take(&mut self, write: &Change) {
        if let Some(base) = write.base {
            self.base = base;
            if write.reset {
                self.entries.clear();
            } else {
                self.entries = self.entries.split_off(&(base.index + 1));
            }
        }
        if let Some((first, _)) = write.entries.first() {
            self.entries.split_off(first);
            self.entries.extend(write.entries.iter().cloned());
        }
        self.hard_state = write.hard_state.unwrap_or(self.hard_state);
        self.installing = write.installing.unwrap_or(self.installing);
    }
}

/// A write whose bytes are shared by the copies of the log.
#[derive(Debug, Clone)]
struct Change {
    base: Option<Position>,
    reset: bool,
    entries: Vec<(u64, Arc<[u8]>)>,
    hard_state: Option<HardState>,
    installing: Option<u64>,
}

impl From<LogWrite> for Change {
    fn from(write: LogWrite) -> Self {
        let LogWrite { base, reset, entries, hard_state, installing, .. } = write;
        let entries = entries.into_iter().map(|(index, bytes)| (index, Arc::from(bytes))).collect();
        Self { base, reset, entries, hard_state, installing }
    }
}

/// How a process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Crash {
    /// It was killed; the machine runs on.
    Killed,
    /// The machine lost its power.
    PowerCut,
}

#[derive(Debug, Default)]
struct State {
    durable: Content,
    written: Content,
    handed: Content,
    /// Written and not synced, in order.
    unsynced: VecDeque<Change>,
    /// Handed over and not written, in order.
    waiting: VecDeque<(Ticket, Change)>,
    /// The last ticket of which the process was not told yet.
    untold: Option<Ticket>,
    witness: Position,
    witness_durable: Position,
    files: FileTree,
    /// Operations until the disk fails under the process; `None`: it does not.
    fuse: Option<u64>,
    failed: bool,
    /// What was there once is not readable any more.
    damaged: bool,
}

impl State {
    /// Counts an operation towards the fuse.
    fn operate(&mut self) -> io::Result<()> {
        if let Some(left) = &mut self.fuse {
            *left = left.saturating_sub(1);
            self.failed |= *left == 0;
        }
        if self.failed { Err(io::Error::other("simulated failure of the disk")) } else { Ok(()) }
    }

    /// Writes what waits up to a ticket, and syncs.
    fn complete(&mut self, ticket: Ticket) {
        while self.waiting.front().is_some_and(|(waiting, _)| *waiting <= ticket) {
            let Some((_, change)) = self.waiting.pop_front() else { return };
            self.written.take(&change);
            self.unsynced.push_back(change);
        }
        self.sync();
        self.untold = self.untold.filter(|untold| *untold > ticket);
    }

    fn sync(&mut self) {
        for change in std::mem::take(&mut self.unsynced) {
            self.durable.take(&change);
        }
    }

    fn crash(&mut self, how: Crash, dice: &mut Dice) {
        let begun = dice.below(self.waiting.len() as u64 + 1);
        for (_, change) in std::mem::take(&mut self.waiting).into_iter().take(begun as usize) {
            self.written.take(&change);
            self.unsynced.push_back(change);
        }
        if how == Crash::PowerCut {
            let kept = dice.below(self.unsynced.len() as u64 + 1);
            for change in std::mem::take(&mut self.unsynced).into_iter().take(kept as usize) {
                self.durable.take(&change);
            }
            if dice.permille(500) {
                self.witness = self.witness_durable;
            }
            self.written = self.durable.clone();
            self.files.power_cut(dice);
        }
        self.handed = self.written.clone();
        self.untold = None;
        self.fuse = None;
        self.failed = false;
    }
}

/// A disk. Outlives the processes that use it; clones are the same disk.
#[derive(Debug, Clone, Default)]
pub(super) struct Disk(Arc<Mutex<State>>);

impl Disk {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The process is gone.
    pub(super) fn crash(&self, how: Crash, dice: &mut Dice) {
        self.state().crash(how, dice);
    }

    /// Writes up to a ticket reach the disk, or the disk fails.
    ///
    /// # Errors
    /// When it fails.
    pub(super) fn complete(&self, ticket: Ticket) -> Result<(), StoreError> {
        let mut state = self.state();
        state.operate().map_err(|error| unwritten(&error))?;
        state.complete(ticket);
        Ok(())
    }

    /// A whole file; `None` when it is gone.
    pub(super) fn content(&self, path: &Path) -> Option<Vec<u8>> {
        let state = self.state();
        let file = state.files.names.get(path)?;
        Some(state.files.files.get(file)?.bytes.clone())
    }

    /// The last ticket that was handed over, and of which the process was not told that it reached the disk.
    pub(super) fn untold(&self) -> Option<Ticket> {
        self.state().untold
    }

    /// The disk fails under the process after so many operations.
    pub(super) fn fail_after(&self, operations: u64) {
        self.state().fuse = Some(operations.max(1));
    }

    /// What survives anything.
    pub(super) fn durable<T>(&self, look: impl FnOnce(&Content) -> T) -> T {
        look(&self.state().durable)
    }

    /// Flips bits in the log: its store will refuse to open.
    pub(super) fn damage_log(&self) {
        self.state().damaged = true;
    }

    /// Flips a bit in one of the snapshots. `false`: there is none.
    pub(super) fn damage_snapshot(&self, dice: &mut Dice) -> bool {
        self.state().files.flip(dice)
    }

    /// The log's store on this disk. Whoever opens it makes sure of what it finds: the process before may have been killed between a write
    /// and its sync.
    ///
    /// # Errors
    /// When what is there was damaged.
    pub(super) fn log(&self) -> Result<SimLog, StoreError> {
        let mut state = self.state();
        if state.damaged {
            return Err(StoreError::Damaged {
                place: None,
                directory: "sim".to_owned(),
                found: "flipped bits".to_owned(),
            });
        }
        state.sync();
        state.witness_durable = state.witness;
        drop(state);
        Ok(SimLog { disk: self.clone() })
    }
}

/// The log's store.
#[derive(Debug)]
pub(super) struct SimLog {
    disk: Disk,
}

fn unwritten(error: &io::Error) -> StoreError {
    StoreError::Write { directory: "sim".to_owned(), found: error.to_string() }
}

impl LogStore for SimLog {
    fn base(&self) -> Position {
        self.disk.state().handed.base
    }

    fn last_index(&self) -> u64 {
        self.disk.state().handed.last_index()
    }

    fn hard_state(&self) -> HardState {
        self.disk.state().handed.hard_state
    }

    fn installing(&self) -> u64 {
        self.disk.state().handed.installing
    }

    fn read(&self, low: u64, high: u64, max_bytes: u64) -> Result<Vec<Vec<u8>>, StoreError> {
        let state = self.disk.state();
        let mut found: Vec<Vec<u8>> = Vec::new();
        let mut bytes = 0;
        for index in low..high {
            let Some(entry) = state.written.entry(index) else {
                return Err(StoreError::Missing { directory: "sim".to_owned(), low, high });
            };
            bytes += entry.len() as u64;
            if bytes > max_bytes && !found.is_empty() {
                break;
            }
            found.push(entry.to_vec());
        }
        Ok(found)
    }

    fn submit(&mut self, write: LogWrite, ticket: Ticket) {
        let mut state = self.disk.state();
        let change = Change::from(write);
        state.handed.take(&change);
        state.waiting.push_back((ticket, change));
        state.untold = Some(ticket);
    }

    fn write(&mut self, write: LogWrite, sync: bool) -> Result<(), StoreError> {
        let mut state = self.disk.state();
        let change = Change::from(write);
        state.handed.take(&change);
        // In the order of handing over: what waits goes first.
        for (_, before) in std::mem::take(&mut state.waiting) {
            state.written.take(&before);
            state.unsynced.push_back(before);
        }
        state.operate().map_err(|error| unwritten(&error))?;
        state.written.take(&change);
        state.unsynced.push_back(change);
        state.operate().map_err(|error| unwritten(&error))?;
        if sync {
            state.sync();
        }
        Ok(())
    }

    fn witness(&mut self, applied: u64) -> Result<(), StoreError> {
        let mut state = self.disk.state();
        let term = state.durable.hard_state.term;
        state.witness.index = state.witness.index.max(applied);
        state.witness.term = state.witness.term.max(term);
        Ok(())
    }

    fn witnessed(&self) -> Position {
        self.disk.state().witness
    }

    fn reclaim(&self) -> Reclaim {
        Box::new(|| Ok(()))
    }
}

/// One file.
#[derive(Debug, Clone, Default)]
struct File {
    bytes: Vec<u8>,
    /// So much of it is sure.
    sure: usize,
}

/// A change of names.
#[derive(Debug, Clone)]
enum Naming {
    Create(PathBuf, u64),
    Rename(PathBuf, PathBuf),
    Remove(PathBuf),
}

fn name(names: &mut BTreeMap<PathBuf, u64>, naming: Naming) {
    match naming {
        Naming::Create(path, file) => {
            names.insert(path, file);
        }
        Naming::Rename(from, to) => {
            if let Some(file) = names.remove(&from) {
                names.insert(to, file);
            }
        }
        Naming::Remove(path) => {
            names.remove(&path);
        }
    }
}

#[derive(Debug, Default)]
struct FileTree {
    next: u64,
    files: BTreeMap<u64, File>,
    names: BTreeMap<PathBuf, u64>,
    sure_names: BTreeMap<PathBuf, u64>,
    /// Since the directory was last synced.
    namings: Vec<Naming>,
}

impl FileTree {
    fn name(&mut self, naming: Naming) {
        name(&mut self.names, naming.clone());
        self.namings.push(naming);
    }

    fn sync_names(&mut self) {
        self.sure_names.clone_from(&self.names);
        self.namings.clear();
        let used: Vec<u64> = self.names.values().copied().collect();
        self.files.retain(|file, _| used.contains(file));
    }

    /// A beginning of the changes of names survives, and of each file what is sure and perhaps more.
    fn power_cut(&mut self, dice: &mut Dice) {
        let kept = dice.below(self.namings.len() as u64 + 1) as usize;
        for naming in std::mem::take(&mut self.namings).into_iter().take(kept) {
            name(&mut self.sure_names, naming);
        }
        self.names = self.sure_names.clone();
        for file in self.files.values_mut() {
            let more = dice.below((file.bytes.len() - file.sure) as u64 + 1) as usize;
            file.bytes.truncate(file.sure + more);
            file.sure = file.bytes.len();
        }
    }

    fn flip(&mut self, dice: &mut Dice) -> bool {
        let snapshots: Vec<u64> =
            self.names.iter().filter(|(path, _)| path.extension().is_none()).map(|(_, file)| *file).collect();
        let Some(file) = dice.pick(&snapshots).and_then(|file| self.files.get_mut(file)) else {
            return false;
        };
        let at = dice.below(file.bytes.len() as u64) as usize;
        let Some(byte) = file.bytes.get_mut(at) else { return false };
        *byte ^= 1 << dice.below(8);
        true
    }
}

fn absent() -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, "no such file")
}

impl Files for Disk {
    fn make_directory(&self, _path: &Path) -> io::Result<()> {
        Ok(())
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<PathBuf>> {
        let state = self.state();
        Ok(state.files.names.keys().filter(|path| path.parent() == Some(directory)).cloned().collect())
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn Written>> {
        let mut state = self.state();
        state.operate()?;
        state.files.next += 1;
        let file = state.files.next;
        state.files.files.insert(file, File::default());
        state.files.name(Naming::Create(path.to_path_buf(), file));
        Ok(Box::new(Open { disk: self.clone(), file }))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn Source>> {
        let state = self.state();
        let file = state.files.names.get(path).and_then(|file| state.files.files.get(file));
        Ok(Box::new(Reader(Cursor::new(file.ok_or_else(absent)?.bytes.clone()))))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.operate()?;
        if !state.files.names.contains_key(from) {
            return Err(absent());
        }
        state.files.name(Naming::Rename(from.to_path_buf(), to.to_path_buf()));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.operate()?;
        if !state.files.names.contains_key(path) {
            return Err(absent());
        }
        state.files.name(Naming::Remove(path.to_path_buf()));
        Ok(())
    }

    fn sync_directory(&self, _path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.operate()?;
        state.files.sync_names();
        Ok(())
    }
}

/// A file that is being written.
struct Open {
    disk: Disk,
    file: u64,
}

impl Write for Open {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut state = self.disk.state();
        state.operate()?;
        let file = state.files.files.get_mut(&self.file).ok_or_else(absent)?;
        file.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Written for Open {
    fn sync(&mut self) -> io::Result<()> {
        let mut state = self.disk.state();
        state.operate()?;
        let file = state.files.files.get_mut(&self.file).ok_or_else(absent)?;
        file.sure = file.bytes.len();
        Ok(())
    }
}

struct Reader(Cursor<Vec<u8>>);

impl Read for Reader {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.0.read(into)
    }
}

impl Seek for Reader {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.0.seek(to)
    }
}
