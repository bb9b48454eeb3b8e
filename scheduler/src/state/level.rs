//! Feature levels: what all members of a cluster know. Pure.
//!
//! A node of an older version would stop at a command that it does not know, or overlook a field and part from the others without a word. So the
//! replicated state holds a *level*, the commands and fields of a higher one are not proposed, and the leader raises it once every member
//! has said that it knows more (`leader::raising`). It is never lowered: a version that knows less is refused from then on, by its data directory, by
//! every snapshot and entry (their `format` is the level that it takes to read them), and where it asks to join.
//!
//! To add something that older versions do not know: raise [`KNOWN`] if it was released (or landed) since, add a line to the table, and let
//! [`Command::needs`](super::Command::needs) say so. Before that write the fixture of the present format (`scheduler/tests/formats`).
//!
//! | level | since | brought |
//! |---|---|---|
//! | 1 | 0.1.0 | everything there was at first |
//! | 2 | 0.1.0 | `RaiseLevel`, `CompareStates`, `PlaceMany`, `ReportMany` |
//! | 3 | 0.1.0 | conditions with `<`, `<=`, `>=`, `>` and `not in`, and on `docker` and `libvirt`; devices; taints |
//! | 4 | 0.1.0 | `SetBorough`: quota, guarantee, weight, highest priority and private hosts of a borough; `SetSite`: the policy of a site; `place.apart`, `place.together`, `place.private` and `place.all_or_none`; `place.spread` over labels and in shares; network bandwidth; classes of workloads; `Preempt` |
//! | 5 | 0.1.0 | volumes that live on a host, `ForgetVolumes`; cores of an instance's own: `resources.dedicated` and `resources.numa`, a host's NUMA nodes, cores in placements; devices for VMs; what is urgent displaces work of its own borough at its quota |
//! | 6 | 0.1.0 | others make way for gangs; what merely waits of a borough's less urgent work makes way at its quota |

use supercloud_proto::{amount::Mbits, host::Inventory};

/// A feature level.
pub type Level = u32;

/// Level of a cluster that was never raised, and of nodes that tell none.
pub const FIRST: Level = 1;
/// What this version knows.
pub const KNOWN: Level = 6;
/// Since which there are levels.
pub const SECOND: Level = 2;
/// Since which conditions compare versions, and hosts have devices and taints.
pub const THIRD: Level = 3;
/// Since which boroughs have quotas, sites policies and workloads classes, workloads keep apart and together, and what is more urgent displaces others.
pub const FOURTH: Level = 4;
/// Since which volumes keep their workload's instances on their host, and instances have cores of their own.
pub const FIFTH: Level = 5;
/// Since which others make way for gangs, and at its quota what merely waits of a borough's less urgent work.
pub const SIXTH: Level = 6;

/// The level at which every member knows all that a host is.
pub fn of_inventory(inventory: &Inventory) -> Level {
    if !inventory.nodes.is_empty() || inventory.devices.values().any(|device| device.pci.is_some()) {
        FIFTH
    } else if inventory.network.0 > 0 || inventory.network_reserved.0 > 0 {
        FOURTH
    } else if !inventory.devices.is_empty() || !inventory.taints.is_empty() {
        THIRD
    } else {
        FIRST
    }
}

/// An inventory with no more than all members of a cluster at this level know.
pub fn inventory_at(level: Level, inventory: &Inventory) -> Inventory {
    let mut known = inventory.clone();
    if level < FIFTH {
        known.nodes.clear();
        known.devices.values_mut().for_each(|device| device.pci = None);
    }
    if level < FOURTH {
        (known.network, known.network_reserved) = (Mbits(0), Mbits(0));
    }
    if level < THIRD {
        known.devices.clear();
        known.taints.clear();
    }
    known
}
