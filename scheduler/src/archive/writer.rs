//! The archive's writer: one thread that takes batches, puts them on disk many at a time, and tells how far it is. It keeps the order:
//! a batch that does not continue what is archived waits until the gap is filled or given up. Knows the store; no network, no state.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::Ordering,
        mpsc::{Receiver, RecvTimeoutError},
    },
    thread,
    time::{Duration, Instant},
};

use supercloud_proto::id::LogIndex;

use super::{
    Batch, Settings, Shared, Status,
    store::{Meta, Store, StoreError},
};
use crate::clock::unix_now;

/// Records that share one sync.
const MAX_GROUP: usize = 10_000;
/// Records that wait behind a gap; what comes beyond makes the gap longer.
const MAX_HELD: usize = 100_000;
/// Least time between two writes: events of a busy moment share one, and the log has the disk for itself meanwhile.
const WRITE_EVERY: Duration = Duration::from_millis(20);
/// The next one waits for so many times as long as the last one took: writing takes a fifth of a core at most, and the more comes the more
/// shares one.
const WRITE_SHARE: u32 = 4;
/// Longest such wait: events are seen no later than this.
const MAX_WRITE_WAIT: Duration = Duration::from_millis(50);
/// The index of batches that bring nothing is put on disk this late, so that they cost no sync of their own.
const IDLE_SYNC: Duration = Duration::from_secs(1);
/// How often a store that the disk refuses is tried again.
const REOPEN_EVERY: Duration = Duration::from_secs(10);
/// How long readers may take to let go of a store that is to be closed.
const CLOSE_PATIENCE: Duration = Duration::from_secs(5);
/// What [`Status::broken`] says at the end.
pub(super) const STOPPED: &str = "the node has stopped";

/// What the writer is told.
pub(crate) enum Message {
    /// What the log brought.
    Batch(Batch),
    /// What another node had, to fill the gap; the other's floor.
    Fetched(Batch, LogIndex),
    /// Nobody can fill the gap before this index.
    GiveUp(LogIndex),
    /// A reader met damage.
    Damaged(String),
    /// End.
    Stop,
}

/// Opens the store and starts the thread.
pub(super) fn start(settings: Settings, shared: Arc<Shared>, messages: Receiver<Message>) {
    let mut writer = Writer {
        settings,
        shared: shared.clone(),
        open: None,
        held: VecDeque::new(),
        held_records: 0,
        behind: 0,
        dirty: None,
        tried: Instant::now(),
        written: Instant::now(),
        pause: WRITE_EVERY,
    };
    writer.open();
    let spawned = thread::Builder::new().name("archive".to_owned()).spawn(move || writer.run(&messages));
    if let Err(error) = spawned {
        tracing::error!(%error, "the archive's thread does not start; nothing is archived");
        shared.status.send_modify(|status| status.broken = Some(error.to_string()));
    }
}

struct Open {
    store: Arc<Store>,
    meta: Meta,
}

struct Writer {
    settings: Settings,
    shared: Arc<Shared>,
    open: Option<Open>,
    /// Batches behind a gap, in order.
    held: VecDeque<Batch>,
    held_records: usize,
    /// The furthest index that was told of.
    behind: LogIndex,
    /// Since when the index in memory is ahead of the disk, and that index.
    dirty: Option<(Instant, LogIndex)>,
    tried: Instant,
    /// When the last write ended, and how long the next one waits from then on.
    written: Instant,
    pause: Duration,
}

impl Writer {
    fn run(&mut self, messages: &Receiver<Message>) {
        loop {
            let message = match messages.recv_timeout(IDLE_SYNC) {
                Ok(message) => Some(message),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => break,
            };
            if matches!(message, Some(Message::Stop)) {
                break;
            }
            thread::sleep(self.pause.saturating_sub(self.written.elapsed()));
            if self.open.is_none() && self.tried.elapsed() >= REOPEN_EVERY {
                self.open();
            }
            if let Err(error) = self.turn(message, messages) {
                self.fail(&error);
            }
        }
        if let Err(error) = self.sync_index(Duration::ZERO) {
            tracing::warn!(%error, "the archive's last index is not on disk");
        }
        self.close();
        self.shared.status.send_modify(|status| status.broken = Some(STOPPED.to_owned()));
    }

    /// One message with all that wait behind it, up to a limit, and what follows from them.
    fn turn(&mut self, first: Option<Message>, messages: &Receiver<Message>) -> Result<(), StoreError> {
        let mut next = first;
        let mut records = 0;
        while let Some(message) = next {
            match message {
                Message::Batch(batch) => {
                    records += batch.records();
                    self.shared.queued.fetch_sub(batch.records(), Ordering::AcqRel);
                    self.hold(batch);
                }
                Message::Fetched(batch, floor) => self.fetched(batch, floor)?,
                Message::GiveUp(index) => self.give_up(index)?,
                Message::Damaged(what) => return Err(StoreError::Damaged(what)),
                Message::Stop => {
                    // Taken out of turn: told again for the loop that waits for it.
                    let _ = self.shared.queue.try_send(Message::Stop);
                    break;
                }
            }
            if records >= MAX_GROUP {
                break;
            }
            next = messages.try_recv().ok();
        }
        self.release()?;
        self.sync_index(IDLE_SYNC)?;
        self.publish();
        Ok(())
    }

    fn hold(&mut self, mut batch: Batch) {
        self.behind = self.behind.max(batch.index);
        if self.open.is_none() || self.held_records + batch.records() > MAX_HELD && !self.held.is_empty() {
            return;
        }
        let quiet = batch.records() == 0;
        match self.held.back_mut() {
            Some(last) if quiet && last.index == batch.after => last.index = batch.index,
            _ => {
                batch.events.shrink_to_fit();
                self.held_records += batch.records();
                self.held.push_back(batch);
            }
        }
    }

    /// Archives what continues the archive.
    fn release(&mut self) -> Result<(), StoreError> {
        let mut group = Vec::new();
        let Some(open) = &self.open else { return Ok(()) };
        let mut index = self.dirty.map_or(open.meta.index, |(_, index)| index);
        let mut records = 0;
        while self.held.front().is_some_and(|batch| batch.after <= index) {
            let Some(batch) = self.held.pop_front() else { break };
            records += batch.records();
            index = index.max(batch.index);
            group.push(batch);
        }
        self.held_records -= records;
        if records > 0 {
            self.append(group)
        } else {
            if index > open.meta.index {
                let since = self.dirty.map_or_else(Instant::now, |(since, _)| since);
                self.dirty = Some((since, index));
            }
            Ok(())
        }
    }

    fn append(&mut self, mut group: Vec<Batch>) -> Result<(), StoreError> {
        let keep = self.settings.retention;
        let Some(open) = &mut self.open else { return Ok(()) };
        if let Some((_, index)) = self.dirty.take() {
            let after = open.meta.index;
            group.insert(0, Batch { after, index, ..Batch::default() });
        }
        let began = Instant::now();
        open.store.append(&mut open.meta, group)?;
        while open.store.trim(&mut open.meta, keep)? {}
        self.written = Instant::now();
        self.pause = ((self.written - began) * WRITE_SHARE).clamp(WRITE_EVERY, MAX_WRITE_WAIT);
        Ok(())
    }

    /// Puts an index that only memory knows on disk, when it has been so for long enough.
    fn sync_index(&mut self, after: Duration) -> Result<(), StoreError> {
        match self.dirty {
            Some((since, _)) if since.elapsed() >= after => self.append(Vec::new()),
            _ => Ok(()),
        }
    }

    fn fetched(&mut self, batch: Batch, floor: LogIndex) -> Result<(), StoreError> {
        let Some(open) = &mut self.open else { return Ok(()) };
        // Anything else has been overtaken.
        if batch.after == self.dirty.map_or(open.meta.index, |(_, index)| index) {
            open.meta.floor = open.meta.floor.max(floor.min(batch.index));
            self.append(vec![batch])?;
        }
        Ok(())
    }

    fn give_up(&mut self, index: LogIndex) -> Result<(), StoreError> {
        let Some(open) = &mut self.open else { return Ok(()) };
        if open.meta.index < index {
            tracing::error!(from = open.meta.index, to = index, "events are lost: no other node has them");
            self.dirty = None;
            open.store.give_up(&mut open.meta, index)?;
        }
        Ok(())
    }

    fn publish(&self) {
        let reached = self.dirty.map(|(_, index)| index);
        let waits_for =
            self.held.front().map(|batch| batch.after).or((self.behind > 0).then_some(self.behind));
        let Some(open) = &self.open else { return };
        self.shared.status.send_if_modified(|status| {
            let mut now = Status::default();
            open.meta.publish(&mut now);
            now.index = reached.unwrap_or(now.index).max(now.index);
            now.gap = waits_for.filter(|index| *index > now.index);
            let changed = *status != now;
            *status = now;
            changed
        });
    }

    fn open(&mut self) {
        self.tried = Instant::now();
        let opened = match Store::open(&self.settings.directory, &self.settings.cluster) {
            Err(error @ (StoreError::Damaged(_) | StoreError::Foreign(_))) => self.open_anew(&error),
            other => other,
        };
        match opened {
            Ok((store, meta)) => {
                let store = Arc::new(store);
                self.shared.put_store(Some(store.clone()));
                self.open = Some(Open { store, meta });
                self.publish();
            }
            Err(error) => {
                tracing::error!(%error, "the archive cannot be opened; it is tried again later");
                self.shared.status.send_modify(|status| status.broken = Some(error.to_string()));
            }
        }
    }

    fn open_anew(&self, why: &StoreError) -> Result<(Store, Meta), StoreError> {
        let aside = Store::set_aside(&self.settings.directory, unix_now())?;
        tracing::error!(%why, aside = %aside.display(), "the archive cannot be used; it is set aside and filled again");
        Store::open(&self.settings.directory, &self.settings.cluster)
    }

    /// After a failed write nobody knows what is on disk: the store is closed, and opened or made anew.
    fn fail(&mut self, error: &StoreError) {
        tracing::error!(%error, "the archive cannot go on");
        self.shared.status.send_modify(|status| status.broken = Some(error.to_string()));
        self.held.clear();
        self.held_records = 0;
        self.dirty = None;
        let closed = self.close();
        if !closed {
            return;
        }
        if matches!(error, StoreError::Damaged(_)) {
            if let Err(error) = Store::set_aside(&self.settings.directory, unix_now()) {
                tracing::error!(%error, "the damaged archive cannot be set aside");
                return;
            }
            tracing::error!("the damaged archive is set aside and filled again from the other nodes");
            self.open();
        }
    }

    /// Closes the store once no reader holds it. Returns whether that was so in time.
    fn close(&mut self) -> bool {
        self.shared.put_store(None);
        let Some(open) = self.open.take() else { return true };
        let deadline = Instant::now() + CLOSE_PATIENCE;
        let mut store = open.store;
        loop {
            match Arc::try_unwrap(store) {
                Ok(_) => return true,
                Err(_) if Instant::now() >= deadline => {
                    tracing::error!("a reader holds the archive; it is opened again later");
                    return false;
                }
                Err(held) => store = held,
            }
            thread::sleep(Duration::from_millis(10));
        }
    }
}
