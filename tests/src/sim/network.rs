//! A simulated network: who reaches whom, how long it takes, what gets lost and what comes twice. One stream keeps its order; two streams
//! between the same places overtake each other.

use std::collections::{BTreeMap, BTreeSet};

use supercloud_scheduler::raft::NodeId;

use super::{Micros, dice::Dice};

/// Whoever sends and receives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    /// A scheduler node.
    Node(NodeId),
    /// A host with its agent, by its number.
    Host(usize),
    /// Somebody who writes and reads.
    Client(usize),
}

/// Streams between two places.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stream {
    /// The log's messages.
    Log,
    /// The log's snapshots.
    Snapshots,
    /// Calls and their answers: each by itself, in no order.
    Calls,
    /// An agent's session of this number.
    Session(u64),
}

/// How the network is at a time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Weather {
    /// Shortest and longest way of a message.
    pub(super) delay: (Micros, Micros),
    /// Lost messages of a thousand.
    pub(super) loss: u64,
    /// Messages of a thousand that come twice.
    pub(super) twice: u64,
}

/// A machine hall on a good day.
pub(super) const CALM: Weather = Weather { delay: (100, 600), loss: 0, twice: 0 };

/// See the head of the module.
#[derive(Debug)]
pub(super) struct Network {
    pub(super) weather: Weather,
    cut: BTreeSet<(Place, Place)>,
    last: BTreeMap<(Place, Place, Stream), Micros>,
    dice: Dice,
}

impl Network {
    pub(super) fn new(dice: Dice) -> Self {
        Self { weather: CALM, cut: BTreeSet::new(), last: BTreeMap::new(), dice }
    }

    /// Nothing gets from one place to the other any more; the way back is another matter.
    pub(super) fn cut(&mut self, from: Place, to: Place) {
        self.cut.insert((from, to));
    }

    /// Nothing gets from one to the other or back.
    pub(super) fn cut_both(&mut self, one: Place, two: Place) {
        self.cut(one, two);
        self.cut(two, one);
    }

    pub(super) fn heal(&mut self) {
        self.cut.clear();
    }

    pub(super) fn is_cut(&self, from: Place, to: Place) -> bool {
        self.cut.contains(&(from, to))
    }

    /// When a message that is sent now arrives: never, once, or twice.
    pub(super) fn arrivals(&mut self, now: Micros, from: Place, to: Place, stream: Stream) -> Vec<Micros> {
        if self.is_cut(from, to) {
            return Vec::new();
        }
        // A session is one stream: it loses nothing in between, and nothing comes twice.
        let may_err = !matches!(stream, Stream::Session(_));
        if may_err && self.dice.permille(self.weather.loss) {
            return Vec::new();
        }
        let copies = if may_err && self.dice.permille(self.weather.twice) { 2 } else { 1 };
        let mut arrivals = Vec::with_capacity(copies);
        for _ in 0..copies {
            let (low, high) = self.weather.delay;
            let mut at = now + self.dice.between(low, high);
            if !matches!(stream, Stream::Calls) {
                let last = self.last.entry((from, to, stream)).or_default();
                at = at.max(*last + 1);
                *last = at;
            }
            arrivals.push(at);
        }
        arrivals
    }
}
