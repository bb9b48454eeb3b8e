//! The devices of hosts, by *sorts*: what requests tell apart of them. Which devices suit which requests is a matter of texts, and is looked up once for each sort.

use std::{collections::BTreeMap, ops::Range};

use supercloud_proto::{device::Device, name::DeviceKind};

use super::{Requests, Typical};
use crate::state::Host;

/// Number of a sort of devices.
pub(super) type Sort = u32;

/// Sorts of devices that are always put up with.
const MIN_SORTS: usize = 4_096;

/// Devices by what requests tell apart of them.
#[derive(Debug, Default)]
pub(super) struct Sorts {
    numbers: BTreeMap<SortKey, Sort>,
    /// One of each sort, and the typical requests that it suits.
    known: Vec<(Device, Requests)>,
    /// How many there were at first.
    at_first: usize,
}

/// Kind, model, labels, whether it is shared, and whether a VM can get it.
type SortKey = (DeviceKind, String, BTreeMap<String, String>, bool, bool);

impl Sorts {
    /// The number of a device's sort.
    fn number(&mut self, device: &Device, typical: &[Typical]) -> Sort {
        let Device { kind, model, labels, shared, pci, .. } = device;
        let known = &mut self.known;
        let key = (kind.clone(), model.clone(), labels.clone(), *shared, pci.is_some());
        *self.numbers.entry(key).or_insert_with(|| {
            known.push((device.clone(), suited_by(typical, device)));
            known.len() as Sort - 1
        })
    }

    /// One of a sort.
    pub(super) fn device(&self, sort: Sort) -> &Device {
        &self.known[sort as usize].0
    }

    /// Whether a sort suits the typical request of this bit.
    pub(super) fn suits(&self, sort: Sort, bit: u32) -> bool {
        self.known[sort as usize].1 >> bit & 1 == 1
    }

    /// Other requests are typical from now on.
    pub(super) fn look_again(&mut self, typical: &[Typical]) {
        self.known.iter_mut().for_each(|(device, suited)| *suited = suited_by(typical, device));
    }

    /// Those of all hosts are known.
    pub(super) fn begin(&mut self) {
        self.at_first = self.known.len();
    }

    /// Whether so many came since that most of them may be gone.
    pub(super) fn are_overgrown(&self) -> bool {
        self.known.len() > MIN_SORTS + 2 * self.at_first
    }
}

/// The typical requests that devices of a sort suit.
fn suited_by(typical: &[Typical], device: &Device) -> Requests {
    let suits =
        |(bit, typical): (usize, &Typical)| Requests::from(typical.demand.request.suits(device)) << bit;
    typical.iter().enumerate().map(suits).fold(0, |all, one| all | one)
}

/// The devices of a host that can be used, those of one sort beside each other.
#[derive(Debug, Default)]
pub(super) struct Stock {
    /// By place: the name's place among all names of the host's devices.
    pub(super) names: Vec<u32>,
    /// The sorts, in the order of what they are, each with its places.
    pub(super) parts: Vec<(Sort, Range<usize>)>,
}

impl Stock {
    pub(super) fn of(host: &Host, sorts: &mut Sorts, typical: &[Typical]) -> Self {
        let named = (0..).zip(host.inventory.devices.values());
        let mut devices: Vec<(u32, &Device)> = named.filter(|(_, device)| device.is_well()).collect();
        fn by(device: &Device) -> (&DeviceKind, &str, &BTreeMap<String, String>, bool, bool) {
            (&device.kind, &device.model, &device.labels, device.shared, device.pci.is_some())
        }
        devices.sort_by(|(_, one), (_, other)| by(one).cmp(&by(other)));
        let mut stock = Self::default();
        for alike in devices.chunk_by(|(_, one), (_, other)| by(one) == by(other)) {
            let from = stock.names.len();
            stock.names.extend(alike.iter().map(|(name, _)| *name));
            let sort = alike.first().map(|(_, device)| sorts.number(device, typical));
            stock.parts.extend(sort.map(|sort| (sort, from..stock.names.len())));
        }
        stock
    }
}
