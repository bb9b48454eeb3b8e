//! Which changes are tried first, where not all can be.
//!
//! Decisions. *What is bounded is the trials, and no change is passed over unseen*: each of a spec, so each rule that may be left out, is looked at beside the hosts as
//! they stand, up to the first that takes it. Of a single instance that tells all: where no host takes the changed spec, a trial would find none
//! either. Of a gang it does not, since asking each for less leaves more for the next, so there it only says what is tried last. *Told is in the order of the ideas*,
//! whatever was tried first.

use std::collections::BTreeSet;

use super::{Idea, Sought};
use crate::state::fits::Request;

/// What to expect of a trial, the most first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Promise {
    /// A host takes the changed spec as everything stands.
    Taken,
    /// The estate would be another one; there are only a few such changes.
    OfEstate,
    /// No host takes the changed spec, but the others of the gang may leave more.
    OfGang,
}

impl Sought<'_> {
    /// Those of these ideas that are seen to work, after at most so many trials.
    pub(super) fn seen_to_work(&mut self, ideas: Vec<Idea>, trials: usize) -> Vec<Idea> {
        let promises: Vec<_> = ideas.iter().map(|idea| self.promise(idea)).collect();
        debug_assert!(
            ideas.iter().zip(&promises).all(|(idea, promise)| promise.is_some() || !self.works(idea)),
            "what no host takes, no trial takes",
        );
        let promised = |(place, promise): (usize, Option<Promise>)| Some((promise?, place));
        let mut order: Vec<_> = (0..).zip(promises).filter_map(promised).collect();
        order.sort_unstable();
        order.truncate(trials);
        let tried: BTreeSet<usize> = order.into_iter().map(|(_, place)| place).collect();
        let tried = ideas.into_iter().enumerate().filter(|(place, _)| tried.contains(place));
        tried.map(|(_, idea)| idea).filter(|idea| self.works(idea)).collect()
    }

    /// `None`: it cannot work.
    fn promise(&self, idea: &Idea) -> Option<Promise> {
        let Some(spec) = &idea.spec else { return Some(Promise::OfEstate) };
        let request = Request { instance: self.request.instance, ..Request::new(self.request.key, spec) };
        let takes = |slot| self.ledger.candidate_for(slot, &request).fits(&request).is_ok();
        let is_parted = self.instance.spec().place.all_or_none && !spec.place.all_or_none;
        match () {
            () if is_parted || self.ledger.hosts().any(takes) => Some(Promise::Taken),
            () if self.together.len() > 1 => Some(Promise::OfGang),
            () => None,
        }
    }
}
