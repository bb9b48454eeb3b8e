//! The sled store under the ledger: opening it or setting it aside, and durable batches of records that are cut into chunks. It knows
//! keys and bytes, and of the contents only how to load them.

use std::{
    collections::BTreeMap,
    fs::{self, File, Permissions},
    io,
    os::unix::fs::PermissionsExt,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use supercloud_proto::id::UnixMillis;

use super::{Alarm, Contents, OpenError, record};

/// Payload of one chunk. sled writes a leaf of its tree as one message, and one larger than a quarter of a segment as a blob, which it
/// never syncs. A leaf has some twenty values at most, so that values of 4 KiB stay well below that.
pub(super) const CHUNK: usize = 4 * 1024;
/// Head of a chunk: checksum, and the number of chunks of the record.
const HEAD: usize = 6;
/// sled's cache. The ledger is read once, and then only written.
const CACHE_BYTES: u64 = 1024 * 1024;
/// sled's segments: its own default. A quarter of one is the size above which it writes a blob, see [`CHUNK`].
const SEGMENT_BYTES: usize = 512 * 1024;
/// How long an opening waits for a store that someone holds, and how often it tries.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);
const LOCK_POLL: Duration = Duration::from_millis(20);
/// Mode of the folder: orders hold what boroughs put into environments and first-boot settings, passwords among it.
const FOLDER_MODE: u32 = 0o700;
/// Written last when a store has been made: a store without it was never used, one with it must have contents.
const MARKER: &str = "in-use";
/// Stores set aside that are kept beside the present one, for someone to look at.
const KEPT_ASIDE: usize = 3;

/// An open store.
pub(super) struct Store {
    db: sled::Db,
    /// sled's data file, kept open to be synced.
    data: File,
    /// Number of chunks of each record.
    chunks: BTreeMap<Vec<u8>, u16>,
}

/// A store with what it held.
pub(super) struct Loaded {
    pub(super) store: Store,
    pub(super) contents: Contents,
}

/// Why an existing store is of no use.
enum Unusable {
    InUse,
    Broken(String),
}

impl From<io::Error> for Unusable {
    fn from(error: io::Error) -> Self {
        Self::Broken(error.to_string())
    }
}

/// Opens the store in `dir` or, where that does not work, sets it aside and begins a new one.
pub(super) fn open(dir: &Path, now: UnixMillis, alarms: &mut Vec<Alarm>) -> Result<Loaded, OpenError> {
    let impossible = |reason: String| OpenError::Impossible { path: dir.to_owned(), reason };
    let reason = match open_existing(dir, alarms) {
        Ok(Some(loaded)) => return Ok(loaded),
        Ok(None) => None,
        Err(Unusable::InUse) => return Err(OpenError::InUse { path: dir.to_owned() }),
        Err(Unusable::Broken(reason)) => Some(reason),
    };
    if let Some(reason) = reason {
        let path = set_aside(dir, now).map_err(|error| impossible(error.to_string()))?;
        alarms.push(Alarm::SetAside { path, reason });
    }
    create(dir, now).map_err(|error| match error {
        Unusable::InUse => OpenError::InUse { path: dir.to_owned() },
        Unusable::Broken(reason) => impossible(reason),
    })
}

/// `None`: there is none, or one whose making was cut short before it was used.
fn open_existing(dir: &Path, alarms: &mut Vec<Alarm>) -> Result<Option<Loaded>, Unusable> {
    if !dir.try_exists()? {
        return Ok(None);
    }
    if dir.is_dir() {
        fs::set_permissions(dir, Permissions::from_mode(FOLDER_MODE))?;
    }
    if !dir.join(MARKER).try_exists()? {
        let is_empty = fs::read_dir(dir)?.next().is_none();
        return if is_empty { Ok(None) } else { Err(Unusable::Broken("it was never finished".to_owned())) };
    }
    if !dir.join("db").try_exists()? {
        return Err(Unusable::Broken("its data file is missing".to_owned()));
    }
    let db = open_sled(dir)?;
    let loaded = catch_unwind(AssertUnwindSafe(|| load(dir, db)));
    let (loaded, dropped) = loaded.map_err(|_| Unusable::Broken("reading it broke down".to_owned()))??;
    if loaded.contents.incarnation.is_empty() {
        return Err(Unusable::Broken("it has lost its contents".to_owned()));
    }
    if dropped > 0 {
        alarms.push(Alarm::Dropped { records: dropped });
    }
    Ok(Some(loaded))
}

/// Opens the files, with patience for a lock: an agent that was told to end may be about to let go, and sled's own threads let go of a
/// closed store a moment late.
fn open_sled(dir: &Path) -> Result<sled::Db, Unusable> {
    let start = Instant::now();
    loop {
        match open_sled_once(dir) {
            Err(Unusable::InUse) if start.elapsed() < LOCK_PATIENCE => std::thread::sleep(LOCK_POLL),
            other => return other,
        }
    }
}

/// sled may refuse a damaged store, and may break down over one.
fn open_sled_once(dir: &Path) -> Result<sled::Db, Unusable> {
    let config = sled::Config::new()
        .path(dir)
        .cache_capacity(CACHE_BYTES)
        .segment_size(SEGMENT_BYTES)
        .flush_every_ms(None)
        .mode(sled::Mode::LowSpace);
    match catch_unwind(AssertUnwindSafe(|| config.open())) {
        Ok(Ok(db)) => Ok(db),
        Ok(Err(sled::Error::Io(error))) if is_lock(&error) => Err(Unusable::InUse),
        Ok(Err(error)) => Err(Unusable::Broken(error.to_string())),
        Err(_) => Err(Unusable::Broken("opening it broke down".to_owned())),
    }
}

/// sled wraps the refusal of its file lock into an error of kind "other" that names it.
fn is_lock(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock || error.to_string().contains("could not acquire lock")
}

/// Reads all records. Returns the number of those that were damaged, too.
fn load(dir: &Path, db: sled::Db) -> Result<(Loaded, usize), Unusable> {
    let mut whole: BTreeMap<Vec<u8>, Vec<Option<Vec<u8>>>> = BTreeMap::new();
    let mut dropped = 0;
    for item in db.iter() {
        let (key, value) = item.map_err(|error| Unusable::Broken(error.to_string()))?;
        let Some((name, number, total, payload)) = chunk(&key, &value) else {
            dropped += 1;
            continue;
        };
        let parts = whole.entry(name.to_vec()).or_default();
        parts.resize(parts.len().max(total.into()), None);
        if let Some(part) = parts.get_mut(usize::from(number)) {
            *part = Some(payload.to_vec());
        }
    }
    let mut contents = Contents::default();
    let mut chunks = BTreeMap::new();
    for (name, parts) in whole {
        chunks.insert(name.clone(), u16::try_from(parts.len()).unwrap_or(u16::MAX));
        let value: Option<Vec<Vec<u8>>> = parts.into_iter().collect();
        if value.and_then(|parts| record::load(&mut contents, &name, &parts.concat())).is_none() {
            dropped += 1;
        }
    }
    let data = File::options().read(true).write(true).open(dir.join("db"))?;
    Ok((Loaded { store: Store { db, data, chunks }, contents }, dropped))
}

/// Name of the record, number of the chunk, number of all chunks, payload; `None`: damaged.
fn chunk<'a>(key: &'a [u8], value: &'a [u8]) -> Option<(&'a [u8], u16, u16, &'a [u8])> {
    let (name, number) = key.split_last_chunk::<2>()?;
    let (checksum, rest) = value.split_first_chunk::<4>()?;
    let (total, payload) = rest.split_first_chunk::<2>()?;
    let is_good = checksum_of(key, rest) == u32::from_be_bytes(*checksum);
    is_good.then(|| (name, u16::from_be_bytes(*number), u16::from_be_bytes(*total), payload))
}

/// Over key and value, so that a value under a wrong key does not pass.
fn checksum_of(key: &[u8], rest: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(key);
    hasher.update(rest);
    hasher.finalize()
}

fn set_aside(dir: &Path, now: UnixMillis) -> io::Result<PathBuf> {
    let mut name = dir.file_name().unwrap_or_default().to_owned();
    name.push(".aside-");
    let prefix = name.clone();
    name.push(format!("{now:014}"));
    let path = dir.with_file_name(name);
    fs::rename(dir, &path)?;
    if let Some(parent) = dir.parent() {
        sync_dir(parent)?;
        prune_aside(parent, &prefix.to_string_lossy())?;
    }
    Ok(path)
}

/// Keeps the last few of what was set aside, so that a disk that breaks ledgers is not filled with them.
fn prune_aside(parent: &Path, prefix: &str) -> io::Result<()> {
    let mut aside = Vec::new();
    for entry in fs::read_dir(parent)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(prefix) {
            aside.push(entry.path());
        }
    }
    aside.sort();
    let surplus = aside.len().saturating_sub(KEPT_ASIDE);
    aside
        .into_iter()
        .take(surplus)
        .try_for_each(|path| if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) })
}

/// Makes a store: its files and folders are synced before the marker says that it may be used.
fn create(dir: &Path, now: UnixMillis) -> Result<Loaded, Unusable> {
    fs::create_dir_all(dir)?;
    fs::set_permissions(dir, Permissions::from_mode(FOLDER_MODE))?;
    let db = open_sled(dir)?;
    let (mut loaded, _) = load(dir, db)?;
    loaded.contents = beginning(now);
    let Contents { incarnation, sequence, .. } = &loaded.contents;
    let first = BTreeMap::from([
        (record::INCARNATION.to_vec(), Some(record::text(incarnation))),
        (record::SEQUENCE.to_vec(), Some(record::number(*sequence))),
    ]);
    loaded.store.write(first).map_err(|error| Unusable::Broken(error.to_string()))?;
    File::open(dir.join("conf"))?.sync_all()?;
    loaded.store.data.sync_all()?;
    sync_dir(dir)?;
    File::create_new(dir.join(MARKER))?.sync_all()?;
    sync_dir(dir)?;
    if let Some(parent) = dir.parent() {
        sync_dir(parent)?;
    }
    Ok(loaded)
}

/// What a new ledger holds.
pub(super) fn beginning(now: UnixMillis) -> Contents {
    let incarnation = format!("{:032x}", rand::random::<u128>());
    Contents { incarnation, sequence: now.saturating_mul(1000), ..Contents::default() }
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Why a batch is not known to be on disk.
#[derive(Debug, thiserror::Error)]
pub(super) enum StoreError {
    #[error("{0}")]
    Sled(#[from] sled::Error),
    #[error("its sync failed: {0}")]
    Sync(#[from] io::Error),
    #[error("a record of {0} bytes is too large")]
    TooLarge(usize),
    #[error("writing it broke down")]
    Panicked,
}

impl Store {
    /// Writes all changes in one batch, and returns when they are on disk.
    pub(super) fn write(&mut self, changes: BTreeMap<Vec<u8>, Option<Vec<u8>>>) -> Result<(), StoreError> {
        let mut batch = sled::Batch::default();
        for (name, value) in changes {
            self.put(&mut batch, name, value)?;
        }
        let apply = || -> Result<(), sled::Error> {
            self.db.apply_batch(batch)?;
            self.db.flush()?;
            Ok(())
        };
        catch_unwind(AssertUnwindSafe(apply)).map_err(|_| StoreError::Panicked)??;
        // sled's flush ends in sync_file_range, which does not outlive a power cut.
        self.data.sync_data()?;
        Ok(())
    }

    fn put(
        &mut self,
        batch: &mut sled::Batch,
        name: Vec<u8>,
        value: Option<Vec<u8>>,
    ) -> Result<(), StoreError> {
        let parts: Vec<&[u8]> = match &value {
            None => Vec::new(),
            // An empty message is a record too.
            Some(value) if value.is_empty() => vec![&[]],
            Some(value) => value.chunks(CHUNK).collect(),
        };
        let too_large = || StoreError::TooLarge(value.as_ref().map_or(0, Vec::len));
        let total = u16::try_from(parts.len()).map_err(|_| too_large())?;
        for (number, part) in (0..total).zip(&parts) {
            let key = chunk_key(&name, number);
            let mut bytes = Vec::with_capacity(HEAD + part.len());
            bytes.extend_from_slice(&total.to_be_bytes());
            bytes.extend_from_slice(part);
            let checksum = checksum_of(&key, &bytes);
            bytes.splice(0..0, checksum.to_be_bytes());
            batch.insert(key, bytes);
        }
        let before =
            if total == 0 { self.chunks.remove(&name) } else { self.chunks.insert(name.clone(), total) };
        for number in total..before.unwrap_or(0) {
            batch.remove(chunk_key(&name, number));
        }
        Ok(())
    }
}

fn chunk_key(name: &[u8], number: u16) -> Vec<u8> {
    let mut key = name.to_vec();
    key.extend_from_slice(&number.to_be_bytes());
    key
}
