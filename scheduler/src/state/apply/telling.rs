//! What one entry has to tell, gathered while it is applied and made into events at its end: what happened to a few instances is told of each, and
//! what happened to many instances of a workload alike is told once, with all of them in it.
//!
//! Decision: *a crowd is one event*. Placing a thousand instances is one decision; a thousand events for it would be the largest part of its
//! cost on every node, push everything else out of the archive, and be read by nobody. Whoever asks for one instance still finds its event.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Display,
    sync::Arc,
};

use supercloud_proto::{
    id::{InstanceId, LogIndex, UnixMillis},
    name::{HostName, WorkloadKey},
};

use crate::state::model::{Event, EventKind, Instance, RevisionRecord, Run, Subject};

/// Who proposes what several agents saw. An event with one host is told as that host's agent's.
pub const AGENTS: &str = "agents";
/// So many instances are told of one by one: as many as a person reads.
const FEW: usize = 16;
/// Most runs of one event, so that it fits a block of the archive: some 3 KiB. What is spread wider makes several events.
const MAX_RUNS: usize = 128;

/// See the head of the module.
#[derive(Default)]
pub(super) struct Tellings(Vec<Told>);

enum Told {
    Plain(EventKind, Subject, String),
    Instance(Note),
}

/// Something that happened to an instance.
pub(super) struct Note {
    kind: EventKind,
    id: InstanceId,
    record: Arc<RevisionRecord>,
    host: Option<HostName>,
    text: Text,
}

/// What, in words; alike for all of a crowd but for slot and host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Text {
    /// Created in this slot.
    Created(u32),
    /// Created in this slot in place of another one.
    Succeeds(u32, InstanceId),
    /// Placed on its host.
    Placed,
    /// This.
    Said(Arc<str>),
}

/// What an event is stamped with.
#[derive(Clone, Copy)]
pub(super) struct Stamp<'a> {
    pub(super) index: LogIndex,
    pub(super) time: UnixMillis,
    pub(super) by: &'a str,
}

impl Note {
    pub(super) fn new(kind: EventKind, instance: &Instance, host: Option<HostName>, text: Text) -> Self {
        Self { kind, id: instance.id, record: instance.record.clone(), host, text }
    }

    /// What all of its crowd have in common.
    fn crowd(&self) -> (EventKind, &WorkloadKey, (u8, &str)) {
        (self.kind, &self.record.key, self.text.sort())
    }

    /// Whether both belong to one crowd, without a look at names where the revision is the same.
    fn is_like(&self, other: &Self) -> bool {
        let same = Arc::ptr_eq(&self.record, &other.record) || self.record.key == other.record.key;
        same && self.kind == other.kind && self.text.sort() == other.text.sort()
    }
}

impl Text {
    /// What texts of one crowd have in common.
    fn sort(&self) -> (u8, &str) {
        match self {
            Self::Created(_) => (0, ""),
            Self::Succeeds(..) => (1, ""),
            Self::Placed => (2, ""),
            Self::Said(text) => (3, text),
        }
    }

    fn of_one(&self, host: Option<&HostName>) -> String {
        match self {
            Self::Created(slot) => format!("slot {slot} created"),
            Self::Succeeds(slot, before) => format!("slot {slot} created in place of {before}"),
            Self::Placed => format!("placed on {}", host.map_or("", HostName::as_str)),
            Self::Said(text) => text.as_ref().to_owned(),
        }
    }

    fn of_crowd(&self, instances: usize, hosts: usize) -> String {
        match self {
            Self::Created(_) => format!("{instances} instances created"),
            Self::Succeeds(..) => format!("{instances} instances created in place of others"),
            Self::Placed => format!("{instances} instances placed on {hosts} hosts"),
            Self::Said(text) => format!("{instances} instances: {text}"),
        }
    }
}

/// What differs of the same facts before and after, in words; empty where nothing does.
pub(super) fn differences<What: Display + PartialEq>(
    before: impl IntoIterator<Item = (What, String)>,
    after: impl IntoIterator<Item = (What, String)>,
) -> String {
    let changed = before.into_iter().zip(after).filter(|(was, is)| was != is);
    let words = changed.map(|((what, was), (_, is))| format!("{what} from {was} to {is}"));
    words.collect::<Vec<_>>().join(", ")
}

impl Tellings {
    pub(super) fn plain(&mut self, kind: EventKind, subject: Subject, message: String) {
        self.0.push(Told::Plain(kind, subject, message));
    }

    pub(super) fn note(&mut self, note: Note) {
        self.0.push(Told::Instance(note));
    }

    /// How much was told.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Forgets all but so much: the rest did not happen after all.
    pub(super) fn forget_since(&mut self, told: usize) {
        self.0.truncate(told);
    }

    /// The events, in the order of what happened; a crowd stands where its first instance does.
    pub(super) fn into_events(self, stamp: Stamp<'_>) -> Vec<Event> {
        let crowds = Crowds::of(&self.0);
        let mut events = Events { stamp, events: Vec::new() };
        for (place, told) in self.0.iter().enumerate() {
            match told {
                Told::Plain(kind, subject, message) => {
                    events.push(*kind, subject.clone(), message.clone(), Vec::new());
                }
                Told::Instance(note) => match crowds.around(place) {
                    Some(crowd) if crowd.first() == Some(&place) => {
                        let notes = crowd.iter().filter_map(|place| self.0[*place].note());
                        events.crowd(note, notes);
                    }
                    Some(_) => {}
                    None => events.one(note),
                },
            }
        }
        events.events
    }
}

impl Told {
    fn note(&self) -> Option<&Note> {
        match self {
            Self::Instance(note) => Some(note),
            Self::Plain(..) => None,
        }
    }
}

/// Which notes belong together.
#[derive(Default)]
struct Crowds {
    /// The crowd of each place.
    of: Vec<usize>,
    /// The places of each crowd, in order.
    places: Vec<Vec<usize>>,
}

impl Crowds {
    fn of(told: &[Told]) -> Self {
        let mut crowds = Self::default();
        if told.len() <= FEW {
            return crowds;
        }
        let mut known = BTreeMap::new();
        let mut before: Option<(&Note, usize)> = None;
        for (place, note) in told.iter().map(Told::note).enumerate() {
            let crowd = match (note, before) {
                (None, _) => usize::MAX,
                (Some(note), Some((last, crowd))) if note.is_like(last) => crowd,
                (Some(note), _) => *known.entry(note.crowd()).or_insert_with(|| {
                    crowds.places.push(Vec::new());
                    crowds.places.len() - 1
                }),
            };
            if let Some(note) = note {
                crowds.places[crowd].push(place);
                before = Some((note, crowd));
            }
            crowds.of.push(crowd);
        }
        crowds
    }

    /// The places of all that are told together with this one; `None` where each is told by itself.
    fn around(&self, place: usize) -> Option<&[usize]> {
        let crowd = self.places.get(*self.of.get(place)?)?;
        (crowd.len() > FEW).then_some(crowd)
    }
}

/// The events of one entry as they are made.
struct Events<'a> {
    stamp: Stamp<'a>,
    events: Vec<Event>,
}

impl Events<'_> {
    fn push(&mut self, kind: EventKind, subject: Subject, message: String, runs: Vec<Run>) {
        let by = match &subject.host {
            Some(host) if self.stamp.by == AGENTS => format!("agent:{host}"),
            _ => self.stamp.by.to_owned(),
        };
        self.events.push(Event {
            index: self.stamp.index,
            ordinal: self.events.len() as u32,
            time: self.stamp.time,
            kind,
            subject,
            message,
            by,
            runs,
        });
    }

    fn one(&mut self, note: &Note) {
        let subject = Subject { instance: Some(note.id), host: note.host.clone(), ..subject(note) };
        self.push(note.kind, subject, note.text.of_one(note.host.as_ref()), Vec::new());
    }

    fn crowd<'n>(&mut self, first: &Note, notes: impl Iterator<Item = &'n Note>) {
        for runs in runs(notes).chunks(MAX_RUNS) {
            let instances = runs.iter().map(|run| run.count as usize).sum();
            let hosts: BTreeSet<&HostName> = runs.iter().filter_map(|run| run.host.as_ref()).collect();
            let message = first.text.of_crowd(instances, hosts.len());
            self.push(first.kind, subject(first), message, runs.to_vec());
        }
    }
}

fn subject(note: &Note) -> Subject {
    let key = note.record.key.clone();
    Subject { borough: Some(key.borough.clone()), workload: Some(key), ..Subject::default() }
}

/// Instances in order, those that follow each other on one host together.
fn runs<'n>(notes: impl Iterator<Item = &'n Note>) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for note in notes {
        match runs.last_mut() {
            Some(run) if continues(run, note) => run.count += 1,
            _ => runs.push(Run { first: note.id, count: 1, host: note.host.clone() }),
        }
    }
    runs
}

fn continues(run: &Run, note: &Note) -> bool {
    let next = run.first.ordinal.checked_add(run.count);
    run.first.index == note.id.index && next == Some(note.id.ordinal) && run.host == note.host
}
