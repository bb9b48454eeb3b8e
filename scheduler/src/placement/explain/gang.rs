//! A gang that waits: of how many of it there are hosts. What keeps the first one that finds none from all hosts keeps all of them waiting, so that is what is
//! explained: the others are given hosts before anything is looked at, as a pass would.

use std::sync::Arc;

use supercloud_proto::id::InstanceId;

use crate::{
    placement::{ledger::Ledger, shapes::Shapes, spread::Siblings},
    state::{Instance, RevisionRecord, State},
};

/// How many of a gang would find hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gang {
    /// All that wait and are given hosts only together.
    pub waiting: u32,
    /// As many of them as would find hosts.
    pub fitting: u32,
}

impl Gang {
    /// Gives those hosts that find one, in a ledger and among the siblings, unless all do.
    pub(super) fn give(
        ledger: &mut Ledger,
        siblings: &mut Siblings,
        record: &Arc<RevisionRecord>,
        ids: &[InstanceId],
    ) -> Self {
        let mut shapes = Shapes::default();
        ledger.begin_trial();
        let placed: Vec<_> =
            ids.iter().map_while(|id| shapes.place(ledger, record, *id, ledger.kept_for(*id))).collect();
        if placed.len() == ids.len() {
            ledger.undo_trial();
        } else {
            ledger.keep_trial();
            let slots: Vec<_> = placed.iter().filter_map(|placed| ledger.slot(placed.host)).collect();
            slots.into_iter().for_each(|slot| siblings.add(ledger, slot));
        }
        Self { waiting: ids.len() as u32, fitting: placed.len() as u32 }
    }

    /// The first of these that found no host. What mounts volumes goes elsewhere than the others.
    pub(super) fn first_without<'s>(self, state: &'s State, ids: &[InstanceId]) -> Option<&'s Arc<Instance>> {
        state.instance(*ids.get(self.fitting as usize)?)
    }
}
