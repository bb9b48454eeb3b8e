//! What the requests for devices that are typical of an estate could still be given on a host: the more of it a placement takes away, the worse the host.
//!
//! The idea is that of fragmentation gradient descent (Weng et al., "Beware of Fragmentation", USENIX ATC 2023): what is left of a host is worth what the
//! usual mix of requests can make of it, and a placement goes where the least of that is lost. What differs is the worth. For FGD a free part of a
//! device is lost for a request or it is not; here it is worth half that, and half as much of it as processors are left for. So a host runs short of both at the same
//! time, and a host without enough processors for its devices is worth less before the first request fails.
//!
//! The mix is that of the instances there are ([`State::device_demands`]): it is learnt, and needs no settings. Of a sort of requests as many that wait
//! count as are placed, or one, so that nobody's wish that cannot be granted outweighs what runs. Counts are rounded down to powers of two, and sorts that are
//! rare beside the most frequent one do not count: so the mix changes seldom, and what was ranked by it can stay.

use std::cmp::Reverse;

use supercloud_proto::{
    amount::Amounts,
    device::{Device, DeviceRequest, Share},
    name::DeviceName,
    spec::WorkloadSpec,
};

use crate::state::{DemandCounts, DeviceDemand, State, fits::Candidate};

/// Sorts of requests that count. Each costs some ten nanoseconds a host.
const MAX_TYPICAL: usize = 64;
/// A sort counts from this part of the most frequent one's weight on.
const RARE: i64 = 64;
/// Parts of a thousandth of a device in which losses are told.
pub(super) const PARTS: i64 = 1_000;

/// The mix of requests for devices.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Outlook {
    typical: Vec<Typical>,
    /// Sum of the weights.
    whole: i64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Typical {
    weight: i64,
    demand: DeviceDemand,
}

/// What is free on a host: its devices that can be used, those of one sort beside each other.
struct Room<'a> {
    devices: Vec<Free<'a>>,
    left: Amounts,
}

#[derive(Clone, Copy)]
struct Free<'a> {
    name: &'a DeviceName,
    device: &'a Device,
    /// Number of its sort: devices of one sort suit the same requests.
    sort: usize,
    share: Share,
}

/// The devices of a host for an instance, and what of the outlook is lost.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Choice {
    /// In the order of the spec's requests.
    pub(super) devices: Vec<DeviceName>,
    /// In thousandths of a device, times [`PARTS`].
    pub(super) loss: i64,
}

impl Outlook {
    /// The mix of a state.
    pub(super) fn of(state: &State) -> Self {
        let weight = |counts: &DemandCounts| {
            let count = counts.placed + counts.waiting.min(counts.placed.max(1));
            count.checked_ilog2().map_or(0, |power| 1_i64 << power.min(32))
        };
        let mut typical: Vec<(Reverse<i64>, &DeviceDemand)> =
            state.device_demands().iter().map(|(demand, counts)| (Reverse(weight(counts)), demand)).collect();
        let most = typical.iter().map(|(Reverse(weight), _)| *weight).max().unwrap_or(0);
        let least = (most / RARE).max(1);
        typical.retain(|(Reverse(weight), _)| *weight >= least);
        if typical.len() > MAX_TYPICAL {
            typical.select_nth_unstable(MAX_TYPICAL);
            typical.truncate(MAX_TYPICAL);
        }
        typical.sort_unstable();
        let typical: Vec<Typical> = typical
            .into_iter()
            .map(|(Reverse(weight), demand)| Typical { weight, demand: demand.clone() })
            .collect();
        let whole = typical.iter().map(|typical| typical.weight).sum();
        Self { typical, whole }
    }

    /// Whether nobody asks for devices.
    pub(super) fn is_empty(&self) -> bool {
        self.typical.is_empty()
    }

    /// The devices that an instance should get on a host, and what that loses; `None` where too few are free.
    pub(super) fn choose(
        &self,
        candidate: &Candidate<'_>,
        demand: Amounts,
        spec: &WorkloadSpec,
    ) -> Option<Choice> {
        let requests = &spec.resources.devices;
        if requests.is_empty() && (self.is_empty() || candidate.host.inventory.devices.is_empty()) {
            return Some(Choice { devices: Vec::new(), loss: 0 });
        }
        let mut room = Room::of(candidate);
        let before = self.worth(&room);
        room.left = room.left.saturating_sub(demand);
        let mut devices = Vec::new();
        for request in requests {
            let taken = self.best(&mut room, request)?;
            devices.extend(taken.iter().map(|place| room.devices[*place].name.clone()));
            room.take(&taken, request.share);
        }
        Some(Choice { devices, loss: before - self.worth(&room) })
    }

    /// The devices for one request with which the most is left: of several sorts, or with more or less of it free.
    fn best(&self, room: &mut Room<'_>, request: &DeviceRequest) -> Option<Vec<usize>> {
        let count = request.count as usize;
        let fits = |free: &Free<'_>| free.share >= request.share && request.suits(free.device);
        let mut fitting: Vec<usize> =
            (0..room.devices.len()).filter(|place| fits(&room.devices[*place])).collect();
        if fitting.len() < count {
            return None;
        }
        fitting.sort_by_key(|place| (room.devices[*place].sort, room.devices[*place].share));
        let mut best: Option<(i64, Vec<usize>)> = None;
        for from in 0..=fitting.len() - count {
            let alike =
                |place: usize| (room.devices[fitting[place]].sort, room.devices[fitting[place]].share);
            // What leaves at one end and what comes in at the other are alike: so are what is taken and what is left.
            if from > 0 && alike(from - 1) == alike(from + count - 1) {
                continue;
            }
            let taken = fitting[from..from + count].to_vec();
            let left = self.worth_after(room, &taken, request.share);
            if best.as_ref().is_none_or(|(most, _)| left > *most) {
                best = Some((left, taken));
            }
        }
        best.map(|(_, taken)| taken)
    }

    fn worth_after(&self, room: &mut Room<'_>, taken: &[usize], share: Share) -> i64 {
        room.take(taken, share);
        let worth = self.worth(room);
        room.give_back(taken, share);
        worth
    }

    /// What the mix could be given there, in thousandths of a device, times [`PARTS`].
    fn worth(&self, room: &Room<'_>) -> i64 {
        let all = self.typical.iter().map(|typical| typical.weight * room.worth_for(&typical.demand));
        let sum: i64 = all.sum();
        // Two halves of each worth.
        sum.saturating_mul(PARTS).checked_div(self.whole * 2).unwrap_or(0)
    }
}

impl<'a> Room<'a> {
    fn of(candidate: &Candidate<'a>) -> Self {
        let (host, used) = (candidate.host, candidate.used);
        let well = host.inventory.devices.iter().filter(|(_, device)| device.is_well());
        let free = |(name, device): (&'a DeviceName, &'a Device)| Free {
            name,
            device,
            sort: 0,
            share: used.devices.free(name),
        };
        let mut devices: Vec<Free<'a>> = well.map(free).collect();
        let is_sorted = devices.is_sorted_by(|one, other| one.device == other.device);
        if !is_sorted {
            let by = |free: &Free<'a>| {
                (&free.device.kind, &free.device.model, &free.device.labels, free.device.shared)
            };
            devices.sort_by(|one, other| by(one).cmp(&by(other)));
            for place in 1..devices.len() {
                let is_new = devices[place].device != devices[place - 1].device;
                devices[place].sort = devices[place - 1].sort + usize::from(is_new);
            }
        }
        Self { devices, left: candidate.free() }
    }

    fn take(&mut self, places: &[usize], share: Share) {
        places.iter().for_each(|place| self.devices[*place].share.0 -= share.0);
    }

    fn give_back(&mut self, places: &[usize], share: Share) {
        places.iter().for_each(|place| self.devices[*place].share.0 += share.0);
    }

    /// Twice what a request could be given, in thousandths of a device.
    fn worth_for(&self, demand: &DeviceDemand) -> i64 {
        let DeviceDemand { cpu, memory, request } = demand;
        if self.left.cpu < *cpu || self.left.memory < *memory {
            return 0;
        }
        let (mut parts, mut count) = (0_u64, 0);
        for sort in self.devices.chunk_by(|one, other| one.sort == other.sort) {
            if !sort.first().is_some_and(|free| request.suits(free.device)) {
                continue;
            }
            for free in sort.iter().filter(|free| free.share >= request.share) {
                parts += u64::from(free.share.0);
                count += 1;
            }
        }
        if count < request.count {
            return 0;
        }
        let asked = u64::from(request.count) * u64::from(request.share.0);
        // How much of devices there are processors for.
        let supplied = self.left.cpu.0.saturating_mul(asked).checked_div(cpu.0).unwrap_or(u64::MAX);
        (parts + parts.min(supplied)) as i64
    }
}
