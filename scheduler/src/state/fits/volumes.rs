//! The filter that keeps instances where their volumes live. Where that is, `state::volumes` says.
//!
//! An instance that mounts volumes goes to the home of its slot and nowhere else, and not before all have ended that use the volumes there: a volume is
//! used by one instance at a time. Where its slot has no home, it goes where no slot of the workload has one and nobody uses such volumes; that host becomes
//! its home. What mounts nothing is not bound, and in nobody's way.

use std::sync::Arc;

use supercloud_proto::{host::HostState, id::HostId};

use super::{Candidate, Reason, Request};
use crate::state::{model::Instance, volumes::Homes};

/// The volumes that it mounts live there, or live nowhere and may come to do so, and nobody uses them.
pub(super) fn volume(candidate: &Candidate<'_>, request: &Request<'_>) -> Vec<Reason> {
    if !request.spec.has_volumes() || !candidate.state.has_homes() {
        return Vec::new();
    }
    let refused = candidate.is_no_home(request).or_else(|| {
        let user = candidate.user_of_volumes(request)?;
        Some(Reason::VolumesInUse(user.id))
    });
    refused.into_iter().collect()
}

impl Candidate<'_> {
    /// Whether the volumes of a request live there, or may come to: what the filter `volume` asks but for who uses them.
    pub fn may_be_home(&self, request: &Request<'_>) -> bool {
        !request.spec.has_volumes() || !self.state.has_homes() || self.is_no_home(request).is_none()
    }

    fn is_no_home(&self, request: &Request<'_>) -> Option<Reason> {
        let homes = self.state.homes_of(request.key)?;
        match self.home(request, homes) {
            Some(home) if home == self.host.id => None,
            Some(home) => self.state.host_name(home).cloned().map(Reason::VolumesElsewhere),
            None => homes.are_on(self.host.id).then(|| Reason::HomeOfOthers(request.key.clone())),
        }
    }

    fn home(&self, request: &Request<'_>, homes: &Homes) -> Option<HostId> {
        let slot = self.state.instance(request.instance?)?.slot;
        homes.of(slot).map(|home| home.host)
    }

    /// Who uses the volumes there: of the workload whatever mounts them and is not over, but for those whose home it is, too, and was before the cluster knew
    /// of homes. What was lost with the host runs no more. Looked for among those of the workload, or those of the host, whichever are fewer.
    fn user_of_volumes(&self, request: &Request<'_>) -> Option<&Arc<Instance>> {
        if self.host.state == HostState::Lost {
            return None;
        }
        let Self { state, used, .. } = *self;
        let homes = state.homes_of(request.key);
        let slot = request.instance.and_then(|id| state.instance(id)).map(|instance| instance.slot);
        let shares = |other: &Instance| {
            slot != Some(other.slot)
                && [slot, Some(other.slot)].into_iter().all(|slot| {
                    let home = slot.zip(homes).and_then(|(slot, homes)| homes.of(slot));
                    home.is_some_and(|home| home.host == self.host.id)
                })
        };
        let uses = |other: &&Arc<Instance>| {
            Some(other.id) != request.instance
                && other.workload() == request.key
                && !other.state.is_over()
                && other.spec().has_volumes()
                && !shares(other)
        };
        if state.count_of(request.key) < used.instances.len() {
            return state.instances_of(request.key).filter(|one| used.instances.contains(&one.id)).find(uses);
        }
        state.instances_by(used.instances.iter().copied()).find(uses)
    }
}
