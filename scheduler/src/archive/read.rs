//! Listing events: which keys are walked for a filter, latest first, until there are enough. Knows the store's keys, not its files.
//!
//! An instance has no keys of its own: its id says at which log index it was created, the event there says of which workload, and that
//! workload's blocks are walked. An event of many instances has no keys for their hosts either: whoever asks for a host walks the host's own
//! blocks and, in step with them, those that hold such events. What is found that way is cut down to what was asked for.

use supercloud_proto::{
    id::{InstanceId, LogIndex},
    v1,
};

use super::{
    Status,
    record::{self, Pointer, Position},
    store::{Store, StoreError},
};

/// Most events of one list.
pub const MAX_LISTED: usize = 10_000;
/// Most blocks that one list walks through, about a second of work; a list that ends there says that it is not whole.
const MAX_WALKED: usize = 100_000;

/// Which events to list. What is `None` does not restrict.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EventFilter {
    /// Of this borough.
    pub borough: Option<String>,
    /// Of a workload of this name; of that borough, where one is given.
    pub workload: Option<String>,
    /// Of this instance.
    pub instance: Option<InstanceId>,
    /// Of this host.
    pub host: Option<String>,
    /// After this log index.
    pub after: LogIndex,
}

impl EventFilter {
    /// Whether an event is one of them.
    #[must_use]
    pub fn admits(&self, event: &v1::Event) -> bool {
        let is = |wanted: &Option<String>, found: &str| wanted.as_ref().is_none_or(|wanted| wanted == found);
        event.index > self.after
            && is(&self.borough, &event.borough)
            && is(&self.workload, &event.workload)
            && (is(&self.host, &event.host) || event.runs.iter().any(|run| self.admits_run(run)))
            && self.instance.is_none_or(|id| {
                event.instance == id.to_string() || event.runs.iter().any(|run| self.admits_run(run))
            })
    }

    /// Whether some of a run's instances are among those asked for.
    fn admits_run(&self, run: &v1::EventRun) -> bool {
        self.host.as_ref().is_none_or(|host| *host == run.host)
            && self.instance.is_none_or(|id| record::has_instance(run, id))
    }

    /// An event of many, cut down to what was asked for: the one instance, or the runs on the one host.
    fn narrow(&self, mut event: v1::Event) -> v1::Event {
        if event.runs.is_empty() || (self.host.is_none() && self.instance.is_none()) {
            return event;
        }
        event.runs.retain(|run| self.admits_run(run));
        if let Some(run) = event.runs.first() {
            event.host.clone_from(&run.host);
        }
        if let Some(id) = self.instance {
            event.instance = id.to_string();
            event.runs.clear();
        }
        event
    }
}

/// Events that were found.
#[derive(Debug, Clone, PartialEq)]
pub struct EventList {
    /// Oldest first.
    pub events: Vec<v1::Event>,
    /// The archive was whole up to this log index.
    pub index: LogIndex,
    /// Whether everything kept was looked through, or as much as was asked for was found.
    pub whole: bool,
}

pub(super) fn events(
    store: &Store,
    status: &Status,
    filter: &EventFilter,
    limit: usize,
) -> Result<EventList, StoreError> {
    let limit = limit.min(MAX_LISTED);
    let mut found = Vec::new();
    let mut whole = true;
    for (walked, at) in walk(store, filter)?.enumerate() {
        let at = at?;
        if walked >= MAX_WALKED {
            whole = false;
            break;
        }
        let block = store.block(at)?;
        let newest = block.last().map_or(0, |event| event.index);
        // What was archived after the index was read is for the next list.
        let admitted =
            block.into_iter().rev().filter(|event| filter.admits(event) && event.index <= status.index);
        found.extend(admitted.take(limit - found.len()).map(|event| filter.narrow(event)));
        if found.len() >= limit || (newest <= filter.after && at.0 <= filter.after) {
            break;
        }
    }
    found.reverse();
    Ok(EventList { events: found, index: status.index, whole })
}

type Walk = Box<dyn Iterator<Item = Result<Position, StoreError>>>;

/// The blocks in which a filter may find something, latest first: by the narrowest keys there are.
fn walk(store: &Store, filter: &EventFilter) -> Result<Walk, StoreError> {
    let owner = match filter.instance {
        Some(id) => owner_of(store, id)?,
        None => filter.borough.clone().zip(filter.workload.clone()),
    };
    let pointer = match (&owner, &filter.host, &filter.borough) {
        (Some((borough, workload)), ..) => Pointer::Workload(borough, workload),
        (None, Some(host), _) => {
            let own = store.pointed(&Pointer::Host(host).prefix());
            return Ok(Box::new(latest_first(own, store.pointed(&Pointer::Crowds.prefix()))));
        }
        (None, None, Some(borough)) => Pointer::Borough(borough),
        (None, None, None) => return Ok(Box::new(store.all_blocks())),
    };
    Ok(Box::new(store.pointed(&pointer.prefix())))
}

/// Two walks, each latest first, as one; what both come to is passed once.
fn latest_first(
    one: impl Iterator<Item = Result<Position, StoreError>>,
    two: impl Iterator<Item = Result<Position, StoreError>>,
) -> impl Iterator<Item = Result<Position, StoreError>> {
    let (mut one, mut two) = (one.peekable(), two.peekable());
    std::iter::from_fn(move || match (one.peek(), two.peek()) {
        (Some(Ok(a)), Some(Ok(b))) if a == b => {
            two.next();
            one.next()
        }
        (Some(Ok(a)), Some(Ok(b))) if a < b => two.next(),
        (None, _) => two.next(),
        _ => one.next(),
    })
}

/// Borough and workload of an instance, from the event of its creation if that is kept.
fn owner_of(store: &Store, id: InstanceId) -> Result<Option<(String, String)>, StoreError> {
    if let Some((_, instance)) = store.finished(id)? {
        return Ok(Some((instance.borough, instance.workload)));
    }
    let text = id.to_string();
    for event in store.events_after((id.index.saturating_sub(1), u32::MAX))? {
        let event = event?;
        if event.index > id.index {
            break;
        }
        let is_it = event.instance == text || event.runs.iter().any(|run| record::has_instance(run, id));
        if is_it && !event.workload.is_empty() {
            return Ok(Some((event.borough, event.workload)));
        }
    }
    Ok(None)
}

/// Events after a position up to and including an index, at most so many; and whether those are all.
pub(super) fn page(
    store: &Store,
    after: Position,
    upto: LogIndex,
    limit: usize,
) -> Result<(Vec<v1::Event>, bool), StoreError> {
    let mut events = Vec::new();
    for event in store.events_after(after)? {
        let event = event?;
        if event.index > upto {
            break;
        }
        if events.len() >= limit {
            return Ok((events, false));
        }
        events.push(event);
    }
    Ok((events, true))
}

/// Position after all events of an index.
pub(super) fn end_of(index: LogIndex) -> Position {
    (index, u32::MAX)
}

/// Position of an event, to go on behind it.
pub(super) fn behind(event: &v1::Event) -> Position {
    record::position(event)
}
