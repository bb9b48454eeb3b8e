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
//!
//! Which devices suit which requests is a matter of texts, and is looked up once for each *sort* of devices: what is asked of a host are numbers and bits.

use std::{cmp::Reverse, collections::BTreeMap, ops::Range};

use supercloud_proto::{
    amount::Amounts,
    device::{Device, DeviceRequest, Share},
    id::HostId,
    name::{DeviceKind, DeviceName},
};

use super::by_number::ByNumber;
use crate::state::{
    DemandCounts, DeviceDemand, Host, SitePolicy, State,
    fits::{Candidate, Request},
};

/// Sorts of requests that count. Each costs some nanoseconds a host, and one bit of [`Requests`].
const MAX_TYPICAL: usize = Requests::BITS as usize;
/// Sorts of devices that are always put up with.
const MIN_SORTS: usize = 4_096;
/// A sort of requests counts from this part of the most frequent one's weight on.
const RARE: i64 = 64;
/// Parts of a thousandth of a device in which losses are told.
pub(super) const PARTS: i64 = 1_000;

/// Some of the typical requests, a bit for each.
type Requests = u64;

/// The mix of requests for devices, and the devices there are.
#[derive(Debug, Default)]
pub(super) struct Outlook {
    typical: Vec<Typical>,
    /// Sum of the weights.
    whole: i64,
    sorts: Sorts,
    /// The devices of each host that has any.
    stocks: ByNumber<HostId, Stock>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Typical {
    weight: i64,
    demand: DeviceDemand,
}

/// Devices by what requests tell apart of them.
#[derive(Debug, Default)]
struct Sorts {
    numbers: BTreeMap<SortKey, usize>,
    /// One of each sort, and the typical requests that it suits.
    known: Vec<(Device, Requests)>,
    /// How many there were at first.
    at_first: usize,
}

/// Kind, model, labels, whether it is shared, and whether a VM can get it.
type SortKey = (DeviceKind, String, BTreeMap<String, String>, bool, bool);

/// The devices of a host that can be used, those of one sort beside each other.
#[derive(Debug, Default)]
struct Stock {
    /// By place: the name's place among all names of the host's devices.
    names: Vec<u32>,
    /// The sorts, in the order of what they are, each with its places.
    parts: Vec<(usize, Range<usize>)>,
}

/// What is free on a host.
struct Room<'a> {
    stock: &'a Stock,
    /// By place.
    shares: Vec<Share>,
    left: Amounts,
    policy: SitePolicy,
}

impl Outlook {
    /// The mix of a state, and the devices of its hosts.
    pub(super) fn of(state: &State) -> Self {
        let mut outlook = Self::default();
        outlook.look_again(state);
        state.hosts().values().for_each(|host| outlook.learn(host));
        outlook.sorts.at_first = outlook.sorts.known.len();
        outlook
    }

    /// Takes the mix of a state. Says whether it is another one.
    pub(super) fn look_again(&mut self, state: &State) -> bool {
        let typical = typical(state);
        if typical == self.typical {
            return false;
        }
        self.whole = typical.iter().map(|typical| typical.weight).sum();
        self.typical = typical;
        let Self { typical, sorts, .. } = self;
        sorts.known.iter_mut().for_each(|(device, suited)| *suited = suited_by(typical, device));
        true
    }

    /// Takes in the devices of a host's record.
    pub(super) fn learn(&mut self, host: &Host) {
        if host.inventory.devices.is_empty() {
            self.stocks.remove(&host.id);
            return;
        }
        let Self { typical, sorts, .. } = self;
        let stock = Stock::of(host, |device| sorts.number(device, typical));
        self.stocks.insert(host.id, stock);
    }

    /// Whether so many sorts came since that most of them may be gone.
    pub(super) fn is_overgrown(&self) -> bool {
        self.sorts.known.len() > MIN_SORTS + 2 * self.sorts.at_first
    }

    /// Whether nobody asks for devices.
    pub(super) fn is_empty(&self) -> bool {
        self.typical.is_empty()
    }

    /// Whether what a request takes is free: as [`Candidate::has_room`], which compares texts.
    #[inline]
    pub(super) fn has_room(&self, candidate: &Candidate<'_>, request: &Request<'_>) -> bool {
        let requests = &request.spec.resources.devices;
        if !candidate.takes(request).within(candidate.free()) || !candidate.has_network(request.spec) {
            return false;
        }
        if requests.is_empty() {
            return true;
        }
        let Some(room) = self.room(candidate) else { return false };
        requests.iter().all(|request| self.fitting(&room, request).count() >= request.count as usize)
    }

    /// The devices that an instance should get on a host, in the order of the spec's requests; `None` where too few are free.
    pub(super) fn choose(&self, candidate: &Candidate<'_>, request: &Request<'_>) -> Option<Vec<DeviceName>> {
        if request.spec.resources.devices.is_empty() {
            return Some(Vec::new());
        }
        let names: Vec<&DeviceName> = candidate.host.inventory.devices.keys().collect();
        let (places, _) = self.weigh(candidate, request)?;
        Some(places.into_iter().map(|place| names[place as usize].clone()).collect())
    }

    /// What of the mix is lost with an instance on a host, in thousandths of a device, times [`PARTS`]; `None` where too few devices are free.
    pub(super) fn loss(&self, candidate: &Candidate<'_>, request: &Request<'_>) -> Option<i64> {
        let nobody_asks = request.spec.resources.devices.is_empty()
            && (self.is_empty() || candidate.host.inventory.devices.is_empty());
        if nobody_asks { Some(0) } else { self.weigh(candidate, request).map(|(_, loss)| loss) }
    }

    /// The devices for an instance, as places among all names of the host's, and what is lost.
    fn weigh(&self, candidate: &Candidate<'_>, request: &Request<'_>) -> Option<(Vec<u32>, i64)> {
        let mut room = self.room(candidate)?;
        let before = self.worth(&room);
        room.left = room.left.saturating_sub(candidate.takes(request));
        let (mut devices, mut left) = (Vec::new(), None);
        for request in &request.spec.resources.devices {
            let (worth, taken) = self.best(&mut room, request)?;
            devices.extend(taken.iter().map(|place| room.stock.names[*place]));
            room.take(&taken, request.share);
            left = Some(worth);
        }
        let left = left.unwrap_or_else(|| self.worth(&room));
        Some((devices, before - left))
    }

    /// What is free on a host that has devices.
    fn room(&self, candidate: &Candidate<'_>) -> Option<Room<'_>> {
        let stock = self.stocks.get(&candidate.host.id)?;
        let devices = &candidate.host.inventory.devices;
        let mut shares: Vec<Share> = candidate.used.devices.free_of_each(devices.keys()).collect();
        // Where all are well and of one sort, places are in the order of names.
        if stock.parts.len() != 1 || stock.names.len() != devices.len() {
            shares = stock.names.iter().map(|name| shares[*name as usize]).collect();
        }
        Some(Room { stock, shares, left: candidate.free(), policy: candidate.used.policy })
    }

    /// The places with room for a request, each with the part of the stock it is in.
    fn fitting<'r>(
        &'r self,
        room: &'r Room<'_>,
        request: &'r DeviceRequest,
    ) -> impl Iterator<Item = (usize, usize)> + 'r {
        let parts = room.stock.parts.iter().enumerate();
        let suiting = parts.filter(|(_, (sort, _))| request.suits(&self.sorts.known[*sort].0));
        let places = suiting.flat_map(|(part, (_, places))| places.clone().map(move |place| (part, place)));
        places.filter(|(_, place)| room.shares[*place] >= request.share)
    }

    /// The devices for one request with which the most is left, and how much: of several sorts, or with more or less of it free.
    fn best(&self, room: &mut Room<'_>, request: &DeviceRequest) -> Option<(i64, Vec<usize>)> {
        let count = request.count as usize;
        let mut fitting: Vec<_> = self.fitting(room, request).collect();
        if fitting.len() < count {
            return None;
        }
        let alike = |(part, place): (usize, usize), room: &Room<'_>| (part, room.shares[place]);
        fitting.sort_by_key(|device| alike(*device, room));
        let mut best: Option<(i64, Vec<usize>)> = None;
        for from in 0..=fitting.len() - count {
            // What leaves at one end and what comes in at the other are alike: so are what is taken and what is left.
            if from > 0 && alike(fitting[from - 1], room) == alike(fitting[from + count - 1], room) {
                continue;
            }
            let taken: Vec<usize> = fitting[from..from + count].iter().map(|(_, place)| *place).collect();
            let left = self.worth_after(room, &taken, request.share);
            if best.as_ref().is_none_or(|(most, _)| left > *most) {
                best = Some((left, taken));
            }
        }
        best
    }

    fn worth_after(&self, room: &mut Room<'_>, taken: &[usize], share: Share) -> i64 {
        room.take(taken, share);
        let worth = self.worth(room);
        room.give_back(taken, share);
        worth
    }

    /// What the mix could be given there, in thousandths of a device, times [`PARTS`]. On most hosts little is free, and most requests are for more.
    fn worth(&self, room: &Room<'_>) -> i64 {
        let most = room.shares.iter().max().copied().unwrap_or(Share::NONE);
        let typical =
            self.typical.iter().enumerate().filter(|(_, typical)| typical.demand.request.share <= most);
        let sum: i64 =
            typical.map(|(bit, typical)| typical.weight * self.worth_for(room, typical, bit)).sum();
        // Two halves of each worth.
        sum.saturating_mul(PARTS).checked_div(self.whole * 2).unwrap_or(0)
    }

    /// Twice what a typical request could be given, in thousandths of a device.
    fn worth_for(&self, room: &Room<'_>, typical: &Typical, bit: usize) -> i64 {
        let DeviceDemand { cpu, memory, request, class } = &typical.demand;
        let cpu = room.policy.takes_cpu(*class, *cpu);
        if room.left.cpu < cpu || room.left.memory < *memory {
            return 0;
        }
        let (mut parts, mut count) = (0_u64, 0);
        for (sort, places) in &room.stock.parts {
            if self.sorts.known[*sort].1 >> bit & 1 == 0 {
                continue;
            }
            for share in &room.shares[places.clone()] {
                if *share >= request.share {
                    parts += u64::from(share.0);
                    count += 1;
                }
            }
        }
        if count < request.count {
            return 0;
        }
        let asked = u64::from(request.count) * u64::from(request.share.0);
        // How much of devices there are processors for, so far as that is less. Mostly it is more, and multiplying tells.
        let bound = room.left.cpu.0.saturating_mul(asked);
        let supplied = match parts.checked_mul(cpu.0) {
            Some(wanted) if wanted <= bound => parts,
            _ => parts.min(bound.checked_div(cpu.0).unwrap_or(u64::MAX)),
        };
        (parts + supplied) as i64
    }
}

/// The sorts of requests that count in a state, the most frequent first.
fn typical(state: &State) -> Vec<Typical> {
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
    let told = |(Reverse(weight), demand): (_, &DeviceDemand)| Typical { weight, demand: demand.clone() };
    typical.into_iter().map(told).collect()
}

/// The typical requests that devices of a sort suit.
fn suited_by(typical: &[Typical], device: &Device) -> Requests {
    let suits =
        |(bit, typical): (usize, &Typical)| Requests::from(typical.demand.request.suits(device)) << bit;
    typical.iter().enumerate().map(suits).fold(0, |all, one| all | one)
}

impl Sorts {
    /// The number of a device's sort.
    fn number(&mut self, device: &Device, typical: &[Typical]) -> usize {
        let Device { kind, model, labels, shared, pci, .. } = device;
        let known = &mut self.known;
        let key = (kind.clone(), model.clone(), labels.clone(), *shared, pci.is_some());
        *self.numbers.entry(key).or_insert_with(|| {
            known.push((device.clone(), suited_by(typical, device)));
            known.len() - 1
        })
    }
}

impl Stock {
    fn of(host: &Host, mut number: impl FnMut(&Device) -> usize) -> Self {
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
            stock.parts.extend(alike.first().map(|(_, device)| (number(device), from..stock.names.len())));
        }
        stock
    }
}

impl Room<'_> {
    fn take(&mut self, places: &[usize], share: Share) {
        places.iter().for_each(|place| self.shares[*place].0 -= share.0);
    }

    fn give_back(&mut self, places: &[usize], share: Share) {
        places.iter().for_each(|place| self.shares[*place].0 += share.0);
    }
}
