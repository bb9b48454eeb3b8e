//! What would help where too few cores are free for an instance that is to have some of its own.

use std::cmp::Reverse;

use supercloud_proto::{amount::MilliCpu, cores::Numa};

use super::{Estate, Idea, Sought};
use crate::{
    placement::ledger::Slot,
    state::{
        HostUse,
        fits::{Amount, Candidate, Misfit, Reason},
        model::cpus_needed,
    },
};

impl Sought<'_> {
    /// Hosts against which nothing speaks but that too few cores are free, with how many are: of one node, where that is asked for.
    fn few_cores(&self) -> impl Iterator<Item = (Slot, u64)> {
        let is_few = |(_, misfits): &&(Slot, Vec<Misfit>)| {
            let mut reasons = misfits.iter().flat_map(|misfit| &misfit.reasons);
            let of_cores = |misfit: &Misfit| misfit.filter == "cores" || misfit.filter == "numa";
            misfits.iter().any(of_cores)
                && reasons.all(|reason| match reason {
                    Reason::FewCores { .. } | Reason::FewCoresOfNode { .. } => true,
                    Reason::Short { what, .. } => *what == Amount::Cpu,
                    _ => false,
                })
        };
        let free = |slot| {
            let candidate = self.ledger.candidate(slot);
            let of_nodes = candidate.host.inventory.nodes.iter().map(|node| candidate.free_cpus_of(node));
            let cores = match self.request.spec.resources.numa {
                Numa::One => of_nodes.max().unwrap_or(0),
                Numa::Any => of_nodes.sum(),
            };
            cores.min(candidate.free().cpu.0 / 1_000)
        };
        self.found.iter().filter(is_few).map(move |(slot, _)| (*slot, free(*slot)))
    }

    /// Asking for as many cores as are free on any of these, or freeing those that are missing on one that has them at all.
    pub(super) fn cored(&self) -> Vec<Idea> {
        let most =
            |hosts: Vec<(Slot, u64)>| hosts.into_iter().max_by_key(|(slot, free)| (*free, Reverse(*slot)));
        let fewer = most(self.few_cores().collect()).filter(|(_, free)| *free > 0).map(|(slot, free)| {
            let mut spec = self.instance.spec().clone();
            spec.resources.cpu = MilliCpu(free * 1_000);
            self.of_spec("resize", format!("ask for {} cpu", spec.resources.cpu), spec, Some(slot))
        });
        let has = |(slot, _): &(Slot, u64)| {
            let candidate = self.ledger.candidate(*slot);
            let nothing = HostUse::none(candidate.used.policy);
            Candidate { used: &nothing, ..candidate }.fits(&self.request).is_ok()
        };
        let freed = most(self.few_cores().filter(has).collect()).and_then(|(slot, free)| {
            let missing = cpus_needed(self.request.spec).saturating_sub(free);
            let of_node = if self.request.spec.resources.numa == Numa::One { " of one node" } else { "" };
            let cores = if missing == 1 { "core" } else { "cores" };
            let words = format!("free {missing} {cores}{of_node} on {}", self.host(slot).name);
            Some(self.of_estate("free-host", words, slot, Estate::Free(self.least_urgent(slot)?)))
        });
        fewer.into_iter().chain(freed).collect()
    }
}
