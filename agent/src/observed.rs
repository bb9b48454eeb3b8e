//! What the drivers show, and how fresh it is: when to look again, and whether a listing is newer than an action. It calls no driver; the
//! loop does, and brings the answer.
//!
//! Decision: a listing that began before an action ended says nothing about it. Listings are numbered, and an instance waits for one with a
//! higher number than was given when its action ended.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use supercloud_proto::{
    id::{InstanceId, Millis},
    spec::DriverKind,
};
use tokio::time::Instant;

use crate::{
    driver::{DriverError, Seen},
    reconcile::{Object, Sight},
};

/// Everything is listed this often, whatever the hints say: an event may be lost.
pub const FULL_RELIST: Duration = Duration::from_secs(10);
/// A silent driver is asked this often.
pub const SILENT_RELIST: Duration = Duration::from_secs(2);
/// Hints are gathered this long: one `docker rm` makes several.
pub const DEBOUNCE: Duration = Duration::from_millis(20);
/// Two listings of a driver begin at least this far apart, so that a storm of hints costs little.
pub const MIN_GAP: Duration = Duration::from_millis(50);

/// What is there, by instance: for those who look for one.
pub type View = BTreeMap<InstanceId, Vec<Object>>;

/// One driver's listings.
#[derive(Debug)]
struct Listings {
    /// Number of the last that was begun.
    begun: u64,
    /// Number of the last that ended.
    ended: u64,
    last_begin: Option<Instant>,
    due: Instant,
}

/// What the drivers show.
#[derive(Debug)]
pub struct Observed {
    sights: BTreeMap<DriverKind, Sight>,
    listings: BTreeMap<DriverKind, Listings>,
}

impl Observed {
    /// Nothing is known yet of these drivers.
    pub fn new(kinds: impl Iterator<Item = DriverKind>, boot: Millis, now: Instant) -> Self {
        let silent = || Sight::Silent { since: boot, reason: "not looked at yet".to_owned() };
        let listings = || Listings { begun: 0, ended: 0, last_begin: None, due: now };
        let (sights, listings) = kinds.map(|kind| ((kind, silent()), (kind, listings()))).unzip();
        Self { sights, listings }
    }

    /// What each driver shows.
    pub fn sights(&self) -> &BTreeMap<DriverKind, Sight> {
        &self.sights
    }

    /// Whether every driver answers.
    pub fn is_complete(&self) -> bool {
        self.sights.values().all(|sight| matches!(sight, Sight::Seen(_)))
    }

    /// Asks for a look at the driver soon.
    pub fn hint(&mut self, kind: DriverKind, now: Instant) {
        self.look_by(kind, now + DEBOUNCE);
    }

    /// Asks for a look at the driver at once.
    pub fn look_now(&mut self, kind: DriverKind, now: Instant) {
        self.look_by(kind, now);
    }

    fn look_by(&mut self, kind: DriverKind, by: Instant) {
        if let Some(listings) = self.listings.get_mut(&kind) {
            let earliest = listings.last_begin.map_or(by, |begin| begin + MIN_GAP);
            listings.due = listings.due.min(by.max(earliest));
        }
    }

    /// Drivers that are to be listed now, each with the number of the listing. One listing of a driver at a time.
    pub fn begin_due(&mut self, now: Instant) -> Vec<(DriverKind, u64)> {
        let mut begun = Vec::new();
        for (kind, listings) in &mut self.listings {
            if listings.due <= now && listings.begun == listings.ended {
                listings.begun += 1;
                listings.last_begin = Some(now);
                listings.due = now + FULL_RELIST;
                begun.push((*kind, listings.begun));
            }
        }
        begun
    }

    /// When the next listing is due, where none is under way.
    pub fn next_due(&self) -> Option<Instant> {
        self.listings.values().filter(|l| l.begun == l.ended).map(|l| l.due).min()
    }

    /// A listing came back. Returns whether the driver fell silent with it.
    pub fn ended(
        &mut self,
        kind: DriverKind,
        number: u64,
        result: Result<Vec<Seen>, DriverError>,
        boot: Millis,
        now: Instant,
    ) -> bool {
        let Some(listings) = self.listings.get_mut(&kind) else { return false };
        listings.ended = number;
        let before = self.sights.get(&kind);
        let was_silent = matches!(before, Some(Sight::Silent { .. }));
        let sight = match result {
            Ok(seen) => Sight::Seen(seen),
            Err(error) => {
                listings.due = listings.due.min(now + SILENT_RELIST);
                let since = match before {
                    Some(Sight::Silent { since, .. }) => *since,
                    _ => boot,
                };
                Sight::Silent { since, reason: error.to_string() }
            }
        };
        let is_silent = matches!(sight, Sight::Silent { .. });
        self.sights.insert(kind, sight);
        is_silent && !was_silent
    }

    /// Takes in what a start has shown. Returns whether that holds: not when a listing is under way that may have begun before.
    pub fn put(&mut self, kind: DriverKind, seen: Seen) -> bool {
        let fresh = self.listings.get(&kind).is_some_and(|listings| listings.begun == listings.ended);
        if let Some(Sight::Seen(all)) = self.sights.get_mut(&kind) {
            let same =
                |other: &Seen| other.mark.instance == seen.mark.instance && other.mark.task == seen.mark.task;
            all.retain(|other| !same(other));
            all.push(seen);
            return fresh;
        }
        false
    }

    /// The numbers of the first listings that will begin from now on.
    pub fn next_numbers(&self) -> BTreeMap<DriverKind, u64> {
        self.listings.iter().map(|(kind, listings)| (*kind, listings.begun + 1)).collect()
    }

    /// Whether listings with these numbers, or later ones, have ended.
    pub fn have_ended(&self, numbers: &BTreeMap<DriverKind, u64>) -> bool {
        let ended = |kind| self.listings.get(kind).map_or(u64::MAX, |listings| listings.ended);
        numbers.iter().all(|(kind, number)| ended(kind) >= *number)
    }

    /// All objects, by instance.
    pub fn view(&self) -> Arc<View> {
        let mut view = View::new();
        for (kind, sight) in &self.sights {
            if let Sight::Seen(all) = sight {
                for seen in all {
                    let object = Object { kind: *kind, seen: seen.clone() };
                    view.entry(seen.mark.instance).or_default().push(object);
                }
            }
        }
        Arc::new(view)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCKER: DriverKind = DriverKind::Docker;

    #[tokio::test]
    async fn hints_are_gathered_and_listings_do_not_overlap() {
        let start = Instant::now();
        let mut observed = Observed::new([DOCKER].into_iter(), 0, start);
        assert_eq!(observed.begin_due(start), [(DOCKER, 1)]);
        observed.hint(DOCKER, start);
        assert_eq!(observed.begin_due(start + FULL_RELIST), [], "one at a time");
        observed.ended(DOCKER, 1, Ok(vec![]), 0, start);
        assert_eq!(observed.next_due(), Some(start + MIN_GAP));
        assert_eq!(observed.begin_due(start + MIN_GAP), [(DOCKER, 2)]);
        observed.ended(DOCKER, 2, Ok(vec![]), 0, start);
        assert_eq!(observed.next_due(), Some(start + MIN_GAP + FULL_RELIST));
    }

    #[tokio::test]
    async fn a_listing_under_way_does_not_settle_an_action() {
        let start = Instant::now();
        let mut observed = Observed::new([DOCKER].into_iter(), 0, start);
        observed.begin_due(start);
        let needed = observed.next_numbers();
        observed.ended(DOCKER, 1, Ok(vec![]), 0, start);
        assert!(!observed.have_ended(&needed));
        observed.look_now(DOCKER, start);
        observed.begin_due(start + MIN_GAP);
        observed.ended(DOCKER, 2, Ok(vec![]), 0, start);
        assert!(observed.have_ended(&needed));
    }

    #[tokio::test]
    async fn silence_keeps_its_beginning() {
        let start = Instant::now();
        let mut observed = Observed::new([DOCKER].into_iter(), 5, start);
        let silent = || Err(DriverError::Silent { runtime: "docker", reason: "no".to_owned() });
        assert!(!observed.ended(DOCKER, 1, silent(), 9, start), "it was silent from the start");
        assert!(matches!(observed.sights()[&DOCKER], Sight::Silent { since: 5, .. }));
        observed.ended(DOCKER, 2, Ok(vec![]), 10, start);
        assert!(observed.ended(DOCKER, 3, silent(), 11, start));
        assert!(matches!(observed.sights()[&DOCKER], Sight::Silent { since: 11, .. }));
    }
}
