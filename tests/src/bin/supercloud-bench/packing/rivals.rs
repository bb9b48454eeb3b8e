//! The policies that ours is compared with on GPUs, as the paper of FGD describes them. Floats are fine here: they decide nothing but figures.

use std::collections::HashMap;

use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

use supercloud_proto::amount::{Amounts, Bytes};

use super::lists::{Host, Request};

/// One of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Policy {
    /// Any host that fits, and any of its GPUs.
    Random,
    /// The first host.
    FirstFit,
    /// The host with the least left, of processor and GPUs added up.
    BestFit,
    /// The host with the least product of what is free and what is asked for.
    DotProduct,
    /// The host on which the least more of the GPUs is lost to typical requests.
    Fgd,
}

/// All of them.
pub(super) const POLICIES: [Policy; 5] =
    [Policy::Random, Policy::FirstFit, Policy::BestFit, Policy::DotProduct, Policy::Fgd];

impl Policy {
    /// Its name in keys.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Random => "random",
            Self::FirstFit => "first_fit",
            Self::BestFit => "best_fit",
            Self::DotProduct => "dot_product",
            Self::Fgd => "fgd",
        }
    }
}

/// What is free on a host.
#[derive(Debug, Clone)]
struct Room {
    cpu: f64,
    memory: u64,
    gpus: Vec<u32>,
    model: String,
}

impl Room {
    fn of(host: &Host) -> Self {
        Self {
            cpu: host.amounts.cpu.0 as f64,
            memory: host.amounts.memory.0,
            gpus: vec![1_000; host.gpus as usize],
            model: host.model.clone(),
        }
    }

    fn is_for(&self, request: &Request) -> bool {
        request.models.is_empty() || request.models.contains(&self.model)
    }

    fn fits(&self, request: &Request) -> bool {
        let gpus = self.gpus.iter().filter(|free| **free >= request.share).count();
        self.cpu >= request.amounts.cpu.0 as f64
            && self.memory >= request.amounts.memory.0
            && (request.gpus == 0 || (self.is_for(request) && gpus >= request.gpus as usize))
    }

    fn take(&mut self, request: &Request, gpus: &[usize]) {
        self.cpu -= request.amounts.cpu.0 as f64;
        self.memory -= request.amounts.memory.0;
        gpus.iter().for_each(|gpu| self.gpus[*gpu] -= request.share);
    }

    fn free_gpus(&self) -> f64 {
        self.gpus.iter().sum::<u32>().into()
    }

    /// What of its free GPUs a request could not use.
    fn lost_to(&self, request: &Request) -> f64 {
        let usable: Vec<u32> = self.gpus.iter().copied().filter(|free| *free >= request.share).collect();
        let runs = self.cpu >= request.amounts.cpu.0 as f64
            && self.is_for(request)
            && usable.len() >= request.gpus as usize;
        self.free_gpus() - if runs { usable.iter().sum::<u32>().into() } else { 0.0 }
    }
}

/// A cost, the lower the better, and the GPUs to take.
type Bid = (f64, Vec<usize>);

/// An estate that one policy fills.
pub(super) struct Rival {
    policy: Policy,
    random: StdRng,
    rooms: Vec<Room>,
    /// Grows with each placement on a host.
    versions: Vec<u32>,
    /// Bids of each sort of request, with the versions that they are of.
    bids: HashMap<Request, Vec<(u32, Option<Bid>)>>,
    /// Sorts of requests for GPUs with their shares of all requests.
    typical: Vec<(f64, Request)>,
    largest: (f64, f64),
}

impl Rival {
    pub(super) fn new(policy: Policy, hosts: &[Host], requests: &[Request], seed: u64) -> Self {
        // Memory makes no difference to what is lost.
        let sort = |request: &Request| {
            let amounts = Amounts { memory: Bytes(0), ..request.amounts };
            Request { amounts, ..request.clone() }
        };
        let mut counts: HashMap<Request, u32> = HashMap::new();
        for request in requests.iter().filter(|request| request.gpus > 0) {
            *counts.entry(sort(request)).or_default() += 1;
        }
        let share = |(request, count)| (f64::from(count) / requests.len() as f64, request);
        let mut typical: Vec<(f64, Request)> = counts.into_iter().map(share).collect();
        // In some order that is always the same: sums of fractions depend on it, and ties on these.
        typical.sort_by_cached_key(|(_, request)| {
            (request.amounts.cpu, request.gpus, request.share, request.models.clone())
        });
        let most = |of: fn(&Host) -> f64| hosts.iter().map(of).fold(1.0, f64::max);
        Self {
            policy,
            random: StdRng::seed_from_u64(seed),
            rooms: hosts.iter().map(Room::of).collect(),
            versions: vec![0; hosts.len()],
            bids: HashMap::new(),
            typical,
            largest: (most(|host| host.amounts.cpu.0 as f64), most(|host| f64::from(host.gpus) * 1_000.0)),
        }
    }

    /// Places a request; says whether it fitted anywhere.
    pub(super) fn place(&mut self, request: &Request) -> bool {
        let fresh = || vec![(u32::MAX, None); self.rooms.len()];
        let mut bids = self.bids.remove(request).unwrap_or_else(fresh);
        for (host, bid) in bids.iter_mut().enumerate() {
            if bid.0 != self.versions[host] {
                *bid = (self.versions[host], self.bid(host, request));
            }
        }
        let offered = || bids.iter().enumerate().filter_map(|(host, (_, bid))| Some((host, bid.as_ref()?)));
        let best = if self.policy == Policy::Random {
            let some = offered().count();
            (some > 0).then(|| offered().nth(self.random.random_range(0..some))).flatten()
        } else {
            offered().min_by(|(_, (one, _)), (_, (other, _))| one.total_cmp(other))
        };
        let chosen = best.map(|(host, (_, gpus))| (host, gpus.clone()));
        self.bids.insert(request.clone(), bids);
        let Some((host, gpus)) = chosen else { return false };
        self.rooms[host].take(request, &gpus);
        self.versions[host] += 1;
        true
    }

    fn bid(&mut self, host: usize, request: &Request) -> Option<Bid> {
        let room = &self.rooms[host];
        if !room.fits(request) {
            return None;
        }
        let mut fitting: Vec<usize> =
            (0..room.gpus.len()).filter(|gpu| room.gpus[*gpu] >= request.share).collect();
        let count = request.gpus as usize;
        let (cpu, gpu) = (request.amounts.cpu.0 as f64, request.gpu_millis() as f64);
        if self.policy == Policy::Random {
            fitting.sort_by_cached_key(|_| self.random.random::<u32>());
        } else {
            fitting.sort_by_key(|gpu| room.gpus[*gpu]);
        }
        let (most_cpu, most_gpu) = self.largest;
        let cost = match self.policy {
            Policy::Random | Policy::FirstFit => 0.0,
            Policy::BestFit => (room.cpu - cpu) / most_cpu + (room.free_gpus() - gpu) / most_gpu,
            Policy::DotProduct => {
                room.cpu * cpu / (most_cpu * most_cpu) + room.free_gpus() * gpu / (most_gpu * most_gpu)
            }
            Policy::Fgd => return Some(self.least_lost(host, request, &fitting)),
        };
        fitting.truncate(count);
        Some((cost, fitting))
    }

    /// FGD chooses the GPU for a share as it chooses the host; whole ones are all alike.
    fn least_lost(&self, host: usize, request: &Request, fitting: &[usize]) -> Bid {
        let room = &self.rooms[host];
        let lost = |room: &Room| self.typical.iter().map(|(share, of)| share * room.lost_to(of)).sum::<f64>();
        let before = lost(room);
        let bid = |gpus: &[usize]| {
            let mut after = room.clone();
            after.take(request, gpus);
            (lost(&after) - before, gpus.to_vec())
        };
        if request.gpus != 1 {
            return bid(&fitting[..request.gpus as usize]);
        }
        let bids = fitting.iter().map(|gpu| bid(&[*gpu]));
        bids.min_by(|(one, _), (other, _)| one.total_cmp(other)).unwrap_or((0.0, Vec::new()))
    }
}
