//! What the requests for devices that are typical of an estate could still be given on a host: the more of it a placement takes away, the worse the host.
//!
//! The idea is that of fragmentation gradient descent (Weng et al., "Beware of Fragmentation", USENIX ATC 2023): what is left of a host is worth what the
//! usual mix of requests can make of it, and a placement goes where the least of that is lost. What differs is the worth. For FGD a free part of a
//! device is lost for a request or it is not; here it is worth half that, and half as much of it as processors are left for. So a host runs short of both at the same
//! time, and a host without enough processors for its devices is worth less before the first request fails.
//!
//! The mix is that of the instances there are ([`State::device_demands`]): it is learnt, and needs no settings. Of a sort of requests as many that wait
//! count as are placed, or one, so that nobody's wish that cannot be granted outweighs what runs; and none where they are few beside those. Counts are rounded down to
//! powers of four, and sorts that are rare beside the most frequent one do not count: so the mix changes seldom, and what was ranked by it can stay. Above all it does
//! not change to and fro with each that comes and waits.
//!
//! What makes it fast: whenever the mix is another one, each host is weighed anew for each shape. So nothing of that goes by the device or by texts. Which
//! devices suit which requests is looked up once for each *sort* of devices (`stock`); what may be free of them, whichever they are, is once worked out for
//! each *pattern* (`free`), with what is left after each request. A host knows its pattern, and is asked for its processors and memory.

use std::{cell::RefCell, cmp::Reverse};

use supercloud_proto::{
    amount::Amounts,
    device::{DeviceRequest, Share},
    id::HostId,
    name::DeviceName,
};

use super::by_number::ByNumber;
use crate::state::{
    DemandCounts, DeviceDemand, Host, HostUse, State,
    fits::{Candidate, Request},
};

mod free;
mod stock;

pub(super) use free::{Asked, FreeAtMost, MixNumber, Numbered};
use free::{Choice, Free, Mix, Pattern, Patterns};
use stock::{Sorts, Stock};

/// Sorts of requests that count. Each costs some nanoseconds a host, and one bit of [`Requests`].
const MAX_TYPICAL: usize = Requests::BITS as usize;
/// A sort of requests counts from this part of the most frequent one's weight on.
const RARE: i64 = 64;
/// Those that wait of a sort count from this part of those that are placed on.
const FEW: u64 = 8;
/// Parts of a thousandth of a device in which losses are told.
pub(super) const PARTS: i64 = 1_000;

/// Some of the typical requests, a bit for each.
type Requests = u64;

/// The mix of requests for devices, and the devices there are.
#[derive(Debug, Default)]
pub(super) struct Outlook {
    typical: Vec<Typical>,
    /// Counts mixes.
    number: MixNumber,
    /// Sum of the weights.
    whole: i64,
    sorts: Sorts,
    /// The devices of each host that has any.
    stocks: ByNumber<HostId, Stock>,
    /// What was found out about what may be free.
    patterns: RefCell<Patterns>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Typical {
    weight: i64,
    demand: DeviceDemand,
}

impl Outlook {
    /// The mix of a state, and the devices of its hosts.
    pub(super) fn of(state: &State) -> Self {
        let mut outlook = Self::default();
        outlook.look_again(state);
        state.hosts().values().for_each(|host| outlook.learn(host));
        outlook.sorts.begin();
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
        self.number += 1;
        self.sorts.look_again(&self.typical);
        self.patterns.get_mut().forget_mix();
        true
    }

    /// Takes in the devices of a host's record.
    pub(super) fn learn(&mut self, host: &Host) {
        if host.inventory.devices.is_empty() {
            self.stocks.remove(&host.id);
            return;
        }
        let Self { typical, sorts, .. } = self;
        let stock = Stock::of(host, sorts, typical);
        self.stocks.insert(host.id, stock);
    }

    /// Whether so many sorts came since that most of them may be gone.
    pub(super) fn is_overgrown(&self) -> bool {
        self.sorts.are_overgrown()
    }

    /// The number of the mix.
    pub(super) fn mix(&self) -> MixNumber {
        self.number
    }

    /// Whether nobody asks for devices.
    pub(super) fn is_empty(&self) -> bool {
        self.typical.is_empty()
    }

    /// What is free of a host's devices; `None`: it has none.
    pub(super) fn free(&self, host: &Host, used: &HostUse) -> Option<Numbered> {
        let stock = self.stocks.get(&host.id)?;
        Some(Free::of(used.policy, stock, &shares(stock, host, used)).into())
    }

    /// The numbers of what a spec asks for of devices; they hold until others are asked for.
    pub(super) fn asked(&self, requests: &[DeviceRequest]) -> Vec<Asked> {
        if requests.is_empty() { Vec::new() } else { self.patterns.borrow_mut().asked(requests) }
    }

    /// What the mix could be given of what is free on a host, in thousandths of a device, times [`PARTS`].
    fn worth(&self, patterns: &mut Patterns, pattern: Pattern, left: Amounts) -> i64 {
        let mix = Mix { typical: &self.typical, sorts: &self.sorts };
        // Two halves of each worth.
        patterns.worth(pattern, left, mix).saturating_mul(PARTS).checked_div(self.whole * 2).unwrap_or(0)
    }
}

/// How much is free of each place of a stock.
fn shares(stock: &Stock, host: &Host, used: &HostUse) -> Vec<Share> {
    let devices = &host.inventory.devices;
    let shares: Vec<Share> = used.devices.free_of_each(devices.keys()).collect();
    // Where all are well and of one sort, places are in the order of names.
    if stock.parts.len() == 1 && stock.names.len() == devices.len() {
        return shares;
    }
    stock.names.iter().map(|name| shares[*name as usize]).collect()
}

/// How the devices of a host look to whoever asks for some.
#[derive(Debug, Clone, Copy)]
pub(super) struct Prospect<'p> {
    pub(super) outlook: &'p Outlook,
    /// What is free of them; `None`: there are none.
    pub(super) free: Option<&'p Numbered>,
    /// What is asked for.
    pub(super) asked: &'p [Asked],
}

impl Prospect<'_> {
    /// Whether what a request takes is free: as [`Candidate::has_room`], which compares texts.
    #[inline]
    pub(super) fn has_room(&self, candidate: &Candidate<'_>, request: &Request<'_>) -> bool {
        candidate.takes(request).within(candidate.free())
            && candidate.has_network(request.spec)
            && (self.asked.is_empty() || self.has_devices())
    }

    fn has_devices(&self) -> bool {
        let Some(free) = self.free else { return false };
        let patterns = &mut *self.outlook.patterns.borrow_mut();
        patterns.tidy();
        let pattern = patterns.number(free);
        self.asked.iter().all(|asked| !patterns.choices(pattern, *asked, &self.outlook.sorts).is_empty())
    }

    /// What of the mix is lost with an instance on a host, in thousandths of a device, times [`PARTS`]; `None` where too few devices are free.
    pub(super) fn loss(&self, candidate: &Candidate<'_>, request: &Request<'_>) -> Option<i64> {
        let free = candidate.free();
        self.loss_of(free, free.saturating_sub(candidate.takes(request)))
    }

    /// The same where so much else is free of the host, and so much is left of that with the instance.
    #[inline]
    pub(super) fn loss_of(&self, free: Amounts, left: Amounts) -> Option<i64> {
        let nobody_asks = self.asked.is_empty() && (self.outlook.is_empty() || self.free.is_none());
        if nobody_asks { Some(0) } else { self.weigh(free, left, |_| ()) }
    }

    /// The devices that an instance should get on a host, in the order of the spec's requests; `None` where too few are free.
    pub(super) fn choose(&self, candidate: &Candidate<'_>, request: &Request<'_>) -> Option<Vec<DeviceName>> {
        if self.asked.is_empty() {
            return Some(Vec::new());
        }
        let Candidate { host, used, .. } = candidate;
        let (mut firsts, free) = (Vec::new(), candidate.free());
        self.weigh(free, free.saturating_sub(candidate.takes(request)), |first| firsts.push(first))?;
        let (sorts, stock) = (&self.outlook.sorts, self.outlook.stocks.get(&host.id)?);
        let names: Vec<&DeviceName> = host.inventory.devices.keys().collect();
        let mut shares = shares(stock, host, used);
        let mut devices = Vec::new();
        for (request, first) in request.spec.resources.devices.iter().zip(firsts) {
            let fitting = fitting(stock, &shares, sorts, request);
            for place in fitting.get(first..first + request.count as usize)? {
                shares[*place].0 -= request.share.0;
                devices.push(names[stock.names[*place] as usize].clone());
            }
        }
        Some(devices)
    }

    /// What is lost with the devices with which the least is, where those for each request are chosen after those for the one before it. Of each it is told which is the
    /// first of those that fit.
    fn weigh(&self, free: Amounts, left: Amounts, mut chosen: impl FnMut(usize)) -> Option<i64> {
        let outlook = self.outlook;
        let patterns = &mut *outlook.patterns.borrow_mut();
        patterns.tidy();
        let numbered = self.free?;
        let mut pattern = patterns.number(numbered);
        let before = numbered.worth(outlook.number, || outlook.worth(patterns, pattern, free));
        debug_assert_eq!(
            before,
            outlook.worth(patterns, pattern, free),
            "it is forgotten when something changes"
        );
        let mut worth = None;
        for asked in self.asked {
            let mut best: Option<(i64, Choice)> = None;
            for place in patterns.choices(pattern, *asked, &outlook.sorts) {
                let choice = patterns.choice(place);
                let worth = outlook.worth(patterns, choice.left, left);
                if best.is_none_or(|(most, _)| worth > most) {
                    best = Some((worth, choice));
                }
            }
            let (most, choice) = best?;
            chosen(choice.first as usize);
            (worth, pattern) = (Some(most), choice.left);
        }
        Some(before - worth.unwrap_or_else(|| outlook.worth(patterns, pattern, left)))
    }
}

/// The places with room for a request: by sort, and then from the least that is free on.
fn fitting(stock: &Stock, shares: &[Share], sorts: &Sorts, request: &DeviceRequest) -> Vec<usize> {
    let suiting = stock.parts.iter().filter(|(sort, _)| request.suits(sorts.device(*sort)));
    let of_sort = suiting.flat_map(|(_, places)| {
        let mut places: Vec<usize> = places.clone().filter(|place| shares[*place] >= request.share).collect();
        places.sort_by_key(|place| shares[*place]);
        places
    });
    of_sort.collect()
}

/// The sorts of requests that count in a state, the most frequent first.
fn typical(state: &State) -> Vec<Typical> {
    let mut typical: Vec<(Reverse<i64>, &DeviceDemand)> =
        state.device_demands().iter().map(|(demand, counts)| (Reverse(weight(*counts)), demand)).collect();
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

/// How much a sort of requests counts; see the head of the module.
fn weight(DemandCounts { placed, waiting }: DemandCounts) -> i64 {
    let waiting = waiting.min(placed.max(1));
    let count = if waiting.saturating_mul(FEW) < placed { placed } else { placed + waiting };
    count.checked_ilog2().map_or(0, |power| 1 << (power / 2 * 2).min(32))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_that_wait_count_unless_they_are_few_and_at_most_as_many_as_are_placed() {
        let of = |placed, waiting| weight(DemandCounts { placed, waiting });
        assert_eq!([of(0, 0), of(0, 9), of(1, 9), of(2, 2), of(15, 2)], [0, 1, 1, 4, 16]);
        assert_eq!([of(63, 1), of(63, 7), of(63, 8), of(200, 1_000)], [16, 16, 64, 256]);
        assert_eq!(of(1_000, 24), 256, "however near the next power is");
    }
}
