//! What a pass gives away, takes back and keeps room for on its hosts, of which the state does not know yet; and what of it is only tried.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use supercloud_proto::{
    id::{HostId, InstanceId},
    name::BoroughName,
};

use super::{Ledger, Slot};
use crate::state::{HostUse, Instance, Placement, fits::Request};

/// What was before a trial.
pub(super) struct Trial {
    /// What was given away of each slot in which something was given since.
    used: HashMap<Slot, Arc<HostUse>>,
    claimed: BTreeMap<BoroughName, BTreeSet<HostId>>,
}

impl Ledger {
    /// Gives an instance of a request what a placement says.
    pub(in crate::placement) fn give(&mut self, slot: Slot, placement: &Placement, request: &Request<'_>) {
        let used = &mut self.seats[slot].used;
        if let Some(trial) = &mut self.trial {
            trial.used.entry(slot).or_insert_with(|| used.clone());
        }
        let used = Arc::make_mut(used);
        used.take_in(placement.instance, request.spec, request.demand, &placement.ports);
        for (of, device) in request.spec.resources.each_device().zip(&placement.devices) {
            used.devices.give(device, of.share);
        }
        if let Some(cores) = &placement.cores {
            used.give_cores(request.spec, request.demand, cores);
        }
        if !placement.devices.is_empty() {
            self.seats[slot].note_devices(&self.outlook);
        }
        if request.spec.place.private {
            self.note_private(slot);
            self.claim(slot, &request.key.borough);
        }
        self.note_given(slot);
    }

    /// From now on what is given can be taken back.
    pub(in crate::placement) fn begin_trial(&mut self) {
        self.trial = Some(Trial { used: HashMap::new(), claimed: self.claimed.clone() });
    }

    /// What was given since the trial began is given for good.
    pub(in crate::placement) fn keep_trial(&mut self) {
        self.trial = None;
    }

    /// What was given since the trial began was never given.
    pub(in crate::placement) fn undo_trial(&mut self) {
        let Some(Trial { used, claimed }) = self.trial.take() else { return };
        let mut given: Vec<_> = used.into_iter().collect();
        given.sort_unstable_by_key(|(slot, _)| *slot);
        for (slot, before) in given {
            self.seats[slot].used = before;
            self.seats[slot].note_devices(&self.outlook);
            self.note_private(slot);
            self.note_given(slot);
        }
        self.claimed = claimed;
    }

    /// Takes back what an instance of the state has of its host.
    pub(in crate::placement) fn take_back(&mut self, instance: &Instance) {
        let Some(placed) = &instance.placed else { return };
        let Some(slot) = self.slot(placed.host) else { return };
        Arc::make_mut(&mut self.seats[slot].used).take_out(instance);
        self.seats[slot].note_devices(&self.outlook);
        self.note_private(slot);
        self.note_given(slot);
    }

    /// Keeps room in a slot for an instance of this rank, for which these are to make way.
    pub(in crate::placement) fn keep(
        &mut self,
        slot: Slot,
        rank: u32,
        instance: InstanceId,
        victims: &[InstanceId],
    ) {
        self.forget_awaited(slot, instance);
        Arc::make_mut(&mut self.seats[slot].used).awaited.insert((rank, instance));
        for victim in victims {
            self.send_away(*victim);
        }
        let state = &self.state;
        let awaited = state.instance(instance).filter(|awaited| awaited.spec().place.private);
        if let Some(borough) = awaited.map(|awaited| awaited.workload().borough.clone()) {
            self.claim(slot, &borough);
        }
        self.note_kept(slot);
        self.note_given(slot);
    }

    /// Keeps room no more for an instance that was given some. Says where, if that is elsewhere: what is kept there is free for others in this pass.
    pub(in crate::placement) fn keep_no_more(&mut self, id: InstanceId, given: HostId) -> Option<HostId> {
        let slot = self.kept_for(id)?;
        let kept = self.seats[slot].id;
        if kept == given {
            return None;
        }
        self.forget_awaited(slot, id)?;
        self.left.insert(slot);
        self.note_kept(slot);
        self.note_given(slot);
        Some(kept)
    }

    /// Counts that somebody is to make way, wherever that is.
    fn send_away(&mut self, victim: InstanceId) {
        let Some(instance) = self.state.instance(victim) else { return };
        let Some(slot) = instance.host().and_then(|host| self.slot(host)) else { return };
        let used = Arc::make_mut(&mut self.seats[slot].used);
        used.count_going(false, true, instance, used.taken_by(instance));
        used.leaving += 1;
        self.doomed.insert(victim);
        self.left.insert(slot);
        self.note_given(slot);
    }

    /// Slots in which room is kept, with the highest priority for which.
    pub(in crate::placement) fn kept(&self) -> &BTreeMap<Slot, u32> {
        &self.kept
    }

    /// Whether somebody in a slot is to make way, as was decided in this pass.
    pub(in crate::placement) fn loses_somebody(&self, slot: Slot) -> bool {
        !self.doomed.is_empty() && self.seats[slot].used.instances.iter().any(|id| self.is_doomed(*id))
    }

    /// Whether an instance is to make way, as was decided in this pass.
    pub(in crate::placement) fn is_doomed(&self, instance: InstanceId) -> bool {
        self.doomed.contains(&instance)
    }
}
