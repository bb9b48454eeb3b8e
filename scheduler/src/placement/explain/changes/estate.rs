//! Changes of the estate: a host opened, freed or added, volumes given up.

use std::{cmp::Reverse, sync::Arc};

use supercloud_proto::{
    amount::{Amounts, Bytes},
    host::HostState,
    id::{HostId, InstanceId},
    name::HostName,
};

use super::{Estate, Idea, MEMORY_STEP, Sought, Suggestion, amounts_text};
use crate::{
    placement::ledger::Slot,
    state::{
        HostUse, Instance,
        apply::hosts::verdict_of,
        fits::{Candidate, Misfit, Reason, Request},
    },
};

impl Sought<'_> {
    /// Opening a host against which nothing else speaks.
    pub(super) fn opened(&self) -> Option<Idea> {
        let only_closed = |(_, misfits): &&(Slot, Vec<Misfit>)| {
            let mut reasons = misfits.iter().flat_map(|misfit| &misfit.reasons);
            reasons.all(|reason| *reason == Reason::Closed)
        };
        let (slot, _) = self.found.iter().find(only_closed)?;
        let name = self.host(*slot).name.clone();
        Some(self.of_estate("open-host", format!("open {name} to new work"), *slot, Estate::Open(name)))
    }

    /// Starting without the volumes that live on hosts that do not take it, or those that are placed only with it.
    pub(super) fn forgotten(&self) -> Option<Idea> {
        let is_refused = |id: &InstanceId, host: HostId| {
            let request = Request { instance: Some(*id), ..self.request };
            let slot = self.ledger.slot(host);
            slot.is_none_or(|slot| self.ledger.candidate_for(slot, &request).fits(&request).is_err())
        };
        let homes = self.together.iter().filter_map(|id| {
            let home = self.state.home_of(*id).filter(|host| is_refused(id, *host))?;
            self.state.host_name(home).cloned()
        });
        let hosts: Vec<HostName> = homes.collect();
        let host = hosts.first()?.clone();
        let names: Vec<&str> = hosts.iter().map(HostName::as_str).collect();
        let change = format!(
            "forget the volumes of {} on {}, to start without what is in them",
            self.request.key,
            names.join(" and ")
        );
        let told = Suggestion { kind: "forget-volumes", change, host: Some(host) };
        Some(Idea { told, spec: None, estate: Estate::Forget(hosts) })
    }

    /// Freeing what is missing on the nearest host that has it at all.
    pub(super) fn freed(&self) -> Option<Idea> {
        let has = |slot: Slot| {
            let candidate = self.ledger.candidate(slot);
            candidate.takes(&self.request).within(candidate.allocatable)
        };
        let (slot, missing) = self.nearest_short(has)?;
        let words = format!("free {} on {}", freed_text(missing), self.host(slot).name);
        Some(self.of_estate("free-host", words, slot, Estate::Free(self.least_urgent(slot)?)))
    }

    /// As few as are needed of the instances on a host, the least urgent and of these the youngest first; of its own workload nobody. `None`: they are not enough.
    pub(super) fn least_urgent(&self, slot: Slot) -> Option<Vec<Arc<Instance>>> {
        let candidate = self.ledger.candidate(slot);
        let mut there: Vec<&Arc<Instance>> = self
            .state
            .instances_on(candidate.host.id)
            .filter(|instance| instance.takes().is_some() && instance.workload() != self.request.key)
            .collect();
        there.sort_unstable_by_key(|instance| (instance.spec().priority, Reverse(instance.id)));
        let mut used: HostUse = candidate.used.clone();
        let mut gone = Vec::new();
        for instance in there {
            if self.fits_with(candidate, &used) {
                break;
            }
            used.take_back(instance, instance.takes()?);
            gone.push(instance.clone());
        }
        self.fits_with(candidate, &used).then_some(gone)
    }

    fn fits_with(&self, candidate: Candidate<'_>, used: &HostUse) -> bool {
        Candidate { used, ..candidate }.fits(&self.request).is_ok()
    }

    /// Adding another host of a sort that there is, the smallest that would do; for a gang the largest, which does for most of it.
    pub(super) fn added(&self) -> Option<Idea> {
        let would_do = |slot: &Slot| {
            let candidate = self.ledger.candidate(*slot);
            let nothing = HostUse::none(candidate.used.policy);
            let mut host = candidate.host.clone();
            (host.state, host.schedulable) = (HostState::Ready, true);
            if self.request.spec.has_volumes() {
                // It is the new one's home that is asked for.
                host.id = HostId(u32::MAX);
            }
            let empty = Candidate { host: &host, used: &nothing, ..candidate };
            verdict_of(&host.inventory).0 == HostState::Ready && empty.fits(&self.request).is_ok()
        };
        let size = |slot: &Slot| {
            let of = self.ledger.candidate(*slot);
            (of.host.inventory.devices.len(), of.allocatable.cpu, of.allocatable.memory, *slot)
        };
        let would_do = self.ledger.hosts().filter(would_do);
        let slot = match self.together.len() {
            1 => would_do.min_by_key(size),
            _ => would_do.max_by_key(size),
        }?;
        let Candidate { host, allocatable, .. } = self.ledger.candidate(slot);
        let words = format!(
            "add a host like {}, with {} cpu and {} to give away",
            host.name, allocatable.cpu, allocatable.memory
        );
        Some(self.of_estate("add-host", words, slot, Estate::Add(host.inventory.clone())))
    }
}

/// What has to be freed. Memory is rounded up.
fn freed_text(missing: Amounts) -> String {
    let memory = Bytes(missing.memory.0.div_ceil(MEMORY_STEP) * MEMORY_STEP);
    amounts_text(Amounts { memory, ..missing }, missing)
}
