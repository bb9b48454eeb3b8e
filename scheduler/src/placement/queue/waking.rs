//! When what is stuck or kept is looked at again: where something was given back on a host that it would fit then, others may make way that could not before,
//! its workload has no home any more where it had one, or its borough's quota has room.

use std::collections::{BTreeMap, BTreeSet};

use slab::Slab;
use supercloud_proto::{device::Share, name::WorkloadKey};

use super::{
    Line, Place, Queue, take_out, take_out_of_kept,
    waiters::{StuckBy, Waiters},
};
use crate::{
    placement::{
        fair::{Boroughs, Number, Shift},
        ledger::{CaughtUp, Ledger, Slot},
        preempting::{has_room_emptied, may_have_room, room_emptied},
    },
    state::{
        fits::{Candidate, Known, Request},
        level::SIXTH,
        preempt::has_claim,
    },
};

impl Queue {
    /// Opens the lines that are stuck and for which there may be room now: on hosts where something was given back, or as others may make way that could
    /// not before.
    pub(in crate::placement) fn wake(
        &mut self,
        ledger: &Ledger,
        caught_up: &CaughtUp,
        boroughs: &Boroughs,
        shift: &Shift,
        moved_out: &BTreeSet<WorkloadKey>,
    ) {
        let Self { lines, open, stuck, .. } = self;
        stuck.retain(|by, stuck| {
            stuck.retain(|line| {
                let borough = &lines[*line].borough;
                let claimants = if by.is_gang { &shift.gang_claimants } else { &shift.claimants };
                let may_claim = claimants.contains(borough);
                let may_yield = by.over.is_some() && shift.own.contains(borough);
                if may_claim || may_yield {
                    lines[*line].reopen(*line, open);
                }
                !may_claim && !may_yield
            });
            if by.is_gang && !shift.more_is_spare {
                wake_gangs(ledger, caught_up, boroughs, stuck, lines, open);
                return !stuck.is_empty();
            }
            let example = stuck.first().map(|line| &lines[*line]);
            let is_stuck = !shift.more_is_spare
                && !by.is_of_any(moved_out)
                && example.is_some_and(|waiters| !may_fit_since(ledger, waiters, caught_up, boroughs));
            if !is_stuck {
                for line in stuck.iter() {
                    lines[*line].reopen(*line, open);
                }
            }
            is_stuck
        });
    }

    /// Opens the lines that were kept by a quota and are no longer, of the boroughs whose quotas may have more room.
    pub(in crate::placement) fn admit(&mut self, boroughs: &Boroughs, roomier: &[Number]) {
        let Self { lines, open, kept, .. } = self;
        for borough in roomier {
            let Some(kept) = kept.get_mut(borough) else { continue };
            kept.retain(|(demand, priority), kept| {
                let is_let_in = boroughs.admits(*borough, *priority, *demand)
                    || boroughs.would_yield(*borough, *priority, *demand);
                let is_kept = !is_let_in;
                if !is_kept {
                    kept.iter().for_each(|line| lines[*line].reopen(*line, open));
                }
                is_kept
            });
        }
    }

    /// The lines that are stuck or kept and may gain by others making way in these slots, who are of these boroughs. What that leaves to a gang counts for it from then on.
    pub(super) fn gain(
        &mut self,
        ledger: &Ledger,
        boroughs: &Boroughs,
        slots: &[Slot],
        losers: &BTreeSet<Number>,
    ) -> Vec<Line> {
        let mut found = Vec::new();
        let Self { lines, stuck, .. } = self;
        for (by, stuck) in stuck.iter() {
            let Some(example) = stuck.first().map(|line| &lines[*line]) else { continue };
            let may_all = !by.is_gang && may_fit(ledger, example, slots, boroughs);
            let room = if by.is_gang { room_in(ledger, example, slots, boroughs) } else { 0 };
            for line in stuck {
                let waiters = &mut lines[*line];
                waiters.missing = waiters.missing.saturating_sub(room);
                let loses = by.goes_by_accounts() && losers.contains(&waiters.borough);
                if may_all || loses || by.is_gang && waiters.missing == 0 {
                    found.push(*line);
                }
            }
        }
        for borough in losers {
            let kept = self.kept.get(borough).into_iter().flatten();
            let yields =
                kept.filter(|((demand, priority), _)| boroughs.would_yield(*borough, *priority, *demand));
            found.extend(yields.flat_map(|(_, lines)| lines));
        }
        found
    }

    /// Opens a line, if it is stuck or kept.
    pub(super) fn open(&mut self, line: Line) {
        let waiters = &mut self.lines[line];
        if waiters.place.is_none() && take_out_of_kept(&mut self.kept, waiters, line) {
            waiters.reopen(line, &mut self.open);
        } else {
            self.unstick(line);
        }
    }

    /// Opens a line, if it is stuck.
    pub(super) fn unstick(&mut self, line: Line) -> bool {
        let waiters = &mut self.lines[line];
        let is_stuck = waiters.place.is_none() && take_out(&mut self.stuck, &StuckBy::of(waiters), line);
        if is_stuck {
            waiters.reopen(line, &mut self.open);
        }
        is_stuck
    }
}

/// Opens those gangs, all stuck by the same, for which there may be hosts now for all.
fn wake_gangs(
    ledger: &Ledger,
    caught_up: &CaughtUp,
    boroughs: &Boroughs,
    stuck: &mut BTreeSet<Line>,
    lines: &mut Slab<Waiters>,
    open: &mut BTreeMap<Place, Line>,
) {
    let Some(example) = stuck.first().map(|line| &lines[*line]) else { return };
    let room = match caught_up {
        CaughtUp::Improved(slots) => room_in(ledger, example, slots, boroughs),
        CaughtUp::Anew => u64::MAX,
    };
    stuck.retain(|line| {
        let waiters = &mut lines[*line];
        waiters.missing = waiters.missing.saturating_sub(room);
        let is_stuck = waiters.missing > 0;
        if !is_stuck {
            waiters.reopen(*line, open);
        }
        is_stuck
    });
}

/// Not fewer than as many of a gang as fit in these slots, with others making way. What holds for a small one holds for a large one that is stuck by the same.
fn room_in(ledger: &Ledger, gang: &Waiters, slots: &[Slot], boroughs: &Boroughs) -> u64 {
    let record = &*gang.record;
    let request = Request::new(&record.key, &record.spec);
    let has_claim = has_claim(&request, boroughs);
    let most = slots.iter().map(|slot| most_that_fit(ledger, &request, *slot, has_claim));
    most.fold(0, u64::saturating_add)
}

/// Not fewer than as many instances as fit a host, with others making way.
fn most_that_fit(ledger: &Ledger, request: &Request<'_>, slot: Slot, has_claim: bool) -> u64 {
    let candidate = ledger.candidate_for(slot, request);
    let (is_open, free) = if ledger.state().level() >= SIXTH {
        let is_open = ledger.is_taken(slot) && fits_emptied(ledger, candidate, request, has_claim);
        (is_open, room_emptied(&candidate, request, has_claim))
    } else {
        let is_open = ledger.is_taken(slot) && as_known_to_all(candidate, request).fits(request).is_ok();
        (is_open, candidate.free())
    };
    if !is_open {
        return 0;
    }
    let needed = candidate.takes_at_least(request);
    let by_amounts =
        [(free.cpu.0, needed.cpu.0), (free.memory.0, needed.memory.0), (free.disk.0, needed.disk.0)];
    let by_amounts = by_amounts.into_iter().filter_map(|(free, needed)| free.checked_div(needed));
    let most = by_amounts.chain(by_devices(&candidate, request)).min();
    if request.spec.place.distinct_hosts { 1 } else { most.unwrap_or(u64::MAX) }
}

/// For how many instances a host has devices, with nothing given of any.
fn by_devices<'c>(candidate: &Candidate<'c>, request: &Request<'c>) -> impl Iterator<Item = u64> {
    let devices = &candidate.host.inventory.devices;
    request.spec.resources.devices.iter().filter_map(|asked| {
        let there = devices.values().filter(|device| asked.suits(device)).count() as u64;
        let parts = u64::from(Share::WHOLE.0).checked_div(asked.share.0.into())?;
        (there * parts).checked_div(asked.count.into())
    })
}

/// A host with what is taken for known of it for all that are stuck by the same as a request.
fn as_known_to_all<'c>(candidate: Candidate<'c>, request: &Request<'_>) -> Candidate<'c> {
    let place = &request.spec.place;
    let is_no_matter = (!place.distinct_hosts && place.apart.is_empty()).then_some(false);
    let (reserved, anothers, may_keep) = (Some(false), Some(false), candidate.known.may_keep);
    let known = Known { sibling: is_no_matter, unwanted: is_no_matter, reserved, anothers, may_keep };
    Candidate { known, ..candidate }
}

/// Whether a request, or another one that is stuck by the same, fits a host, or would with others making way.
fn fits_emptied(ledger: &Ledger, candidate: Candidate<'_>, request: &Request<'_>, has_claim: bool) -> bool {
    let candidate = as_known_to_all(candidate, request);
    candidate.has_room(request) && candidate.fits(request).is_ok()
        || may_have_room(&candidate, request, has_claim)
            && has_room_emptied(&candidate, request, has_claim, |id| ledger.is_doomed(id))
}

/// The same in slots where something was given back since the last pass.
fn may_fit_since(ledger: &Ledger, waiters: &Waiters, caught_up: &CaughtUp, boroughs: &Boroughs) -> bool {
    match caught_up {
        CaughtUp::Improved(slots) => may_fit(ledger, waiters, slots, boroughs),
        CaughtUp::Anew => true,
    }
}

/// Whether an instance of a line, or of one that is stuck by the same, fits where something was given back, or would with others making way. That others
/// must be apart from it counts only where it says so of them too, and that room is kept there, or the host to another borough, not at all: so this holds for all that are stuck by the same.
fn may_fit(ledger: &Ledger, waiters: &Waiters, slots: &[Slot], boroughs: &Boroughs) -> bool {
    let Some(first) = waiters.first() else { return true };
    let record = &*waiters.record;
    let home = ledger.home(record, first);
    // Of those that mount volumes each waits by itself, and which one it is says where it may go.
    let instance = waiters.slot.map(|_| first);
    let request = Request { instance, ..Request::new(&record.key, &record.spec) };
    let has_claim = has_claim(&request, boroughs);
    let mut slots = slots.iter().filter(|slot: &&Slot| home.is_none_or(|home| home == **slot));
    slots.any(|slot| {
        let candidate = || ledger.candidate_for(*slot, &request);
        ledger.is_taken(*slot) && fits_emptied(ledger, candidate(), &request, has_claim)
    })
}
