//! What the log needs of a disk. Knows no raft: entries are bytes with an index.
//!
//! One write is atomic: after a crash either all of it is there or nothing. Writes reach the disk in the order in which
//! they were handed over, whether by [`LogStore::submit`] or by [`LogStore::write`]. `EngineStore` is the real one; a
//! simulation brings its own.

/// A place in the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Index of the entry; 0 before the first.
    pub index: u64,
    /// Term of the entry.
    pub term: u64,
}

/// What a node promised: never to be forgotten, or it could vote twice.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct HardState {
    /// Latest term seen.
    #[prost(uint64, tag = "1")]
    pub term: u64,
    /// Whom it voted for in that term; 0 for nobody.
    #[prost(uint64, tag = "2")]
    pub vote: u64,
    /// Known to be committed. May lag behind, must not run ahead.
    #[prost(uint64, tag = "3")]
    pub commit: u64,
}

/// One atomic change of the log.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LogWrite {
    /// Forget everything up to and including this place; it becomes the new base.
    pub base: Option<Position>,
    /// With `base`: forget everything after it, too (a snapshot from elsewhere takes the log's place).
    pub reset: bool,
    /// Consecutive entries. What the log holds from the first one's index on is replaced.
    pub entries: Vec<(u64, Vec<u8>)>,
    /// The new hard state.
    pub hard_state: Option<HardState>,
    /// The place of a snapshot that is about to be installed; 0 when none is.
    pub installing: Option<u64>,
    /// Whose log this is.
    pub owner: Option<Vec<u8>>,
}

/// Why the store could not do it. Every one of them ends the process: after a failed sync nobody knows what is on
/// disk, and a second try would only pretend.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// What is on disk is not what was written.
    #[error("the log in {directory} is damaged{}: {found}", at(.place))]
    Damaged {
        /// Where.
        directory: String,
        /// File and first byte that cannot be trusted, as far as they are known.
        place: Option<Place>,
        /// What the store says, with file and offset as far as it knows them.
        found: String,
    },
    /// A write or a sync failed.
    #[error("cannot write the log in {directory}: {found}")]
    Write {
        /// Where.
        directory: String,
        /// What the store says.
        found: String,
    },
    /// Entries were asked for that are not there.
    #[error("the log in {directory} holds no entries {low}..{high}")]
    Missing {
        /// Where.
        directory: String,
        /// First index asked for.
        low: u64,
        /// Index after the last one.
        high: u64,
    },
}

/// A place in a file of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub file: String,
    /// Offset in bytes.
    pub offset: u64,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} from byte {}", self.file, self.offset)
    }
}

fn at(place: &Option<Place>) -> String {
    place.as_ref().map(|place| format!(" in {place}")).unwrap_or_default()
}

/// Frees space that forgotten entries still take on disk. Runs on a thread of its own.
pub type Reclaim = Box<dyn FnOnce() -> Result<(), StoreError> + Send>;

/// Numbers submitted writes, in their order.
pub type Ticket = u64;

/// Told from the store's own thread that everything up to a ticket is on disk, or that a write failed and the process
/// must end.
pub type OnWritten = Box<dyn Fn(Result<Ticket, StoreError>) + Send>;

/// A log on disk.
///
/// What it tells about itself ([`base`](Self::base), [`hard_state`](Self::hard_state), …) is what was handed over, on disk
/// or not; [`read`](Self::read) gives only what was written, so whoever submits keeps entries at hand until they are.
pub trait LogStore: Send + 'static {
    /// The place before the first entry.
    fn base(&self) -> Position;
    /// Index of the last entry; the base's when there is none.
    fn last_index(&self) -> u64;
    /// The hard state, as last handed over.
    fn hard_state(&self) -> HardState;
    /// Index of the snapshot whose installation was begun and not ended, or 0.
    fn installing(&self) -> u64;
    /// Entries `low..high`, at least one, then as many as `max_bytes` holds.
    ///
    /// # Errors
    /// When they are not there or not readable.
    fn read(&self, low: u64, high: u64, max_bytes: u64) -> Result<Vec<Vec<u8>>, StoreError>;
    /// Hands a write over and returns at once. Once all of it is on disk (`fdatasync`), that is told with its ticket, or
    /// with a later one that covers it. Tickets grow.
    fn submit(&mut self, write: LogWrite, ticket: Ticket);
    /// Writes all of it or nothing, after everything that was submitted before. With `sync` it is on disk when this
    /// returns, and so is all that went before.
    ///
    /// # Errors
    /// When it is not; the caller must end the process.
    fn write(&mut self, write: LogWrite, sync: bool) -> Result<(), StoreError>;
    /// Notes that everything up to `applied` was synced and applied. Cheap: not synced itself.
    ///
    /// # Errors
    /// When the note cannot be written; the caller must end the process.
    fn witness(&mut self, applied: u64) -> Result<(), StoreError>;
    /// Highest applied index and term that were noted. A log that ends before it has lost something.
    fn witnessed(&self) -> Position;
    /// Where the log was not what it should be when it was opened, and was cut; for people. Nothing where it was whole, or nobody knows.
    fn cut_at(&self) -> Option<Place> {
        None
    }
    /// What frees the space of forgotten entries.
    fn reclaim(&self) -> Reclaim;
}
