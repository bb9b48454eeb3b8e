//! What is free of a host's devices, whichever of them it is. Hosts are alike in that far more often than in anything else: ten thousand of them have some
//! thousand of such *patterns*. So what can be said of a pattern alone is said once ([`Patterns`]): for which typical requests its devices are enough, and
//! which patterns may be left once a request is granted. What is left to look at for each host is whether there are processors and memory for these.
//!
//! Nothing is decided here that is not decided by the devices themselves: a pattern is all of them that counts.

use std::{cell::Cell, collections::HashMap, ops::Range, sync::Arc};

use supercloud_proto::{
    amount::Amounts,
    device::{DeviceRequest, Share},
};

use super::{
    Typical,
    stock::{Sort, Sorts, Stock},
};
use crate::state::SitePolicy;

/// Most patterns that are kept: each takes about a kilobyte.
const MAX_PATTERNS: usize = 65_536;
/// Most groups of devices in all of them.
const MAX_GROUPS: usize = 1 << 20;
/// Most requests for devices that are kept.
const MAX_ASKED: usize = 256;
/// Choices, and places for what was found of a pattern and a request, that are remembered.
const MAX_CHOICES: usize = 1 << 22;

/// So many devices of a sort with as much of each free.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Group {
    sort: Sort,
    share: Share,
    count: u32,
}

/// What is free of a host's devices, and by which policy of its site it is given away.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(in crate::placement) struct Free {
    policy: SitePolicy,
    /// By sort, in the order of what these are, and then from the least that is free on. There are none of which nothing is.
    groups: Vec<Group>,
}

impl Free {
    /// Of a stock, by how much is free of each of its places.
    pub(super) fn of(policy: SitePolicy, stock: &Stock, shares: &[Share]) -> Self {
        let mut free = Self { policy, groups: Vec::new() };
        for (sort, places) in &stock.parts {
            let mut shares = shares[places.clone()].to_vec();
            shares.sort_unstable();
            for alike in shares.chunk_by(|one, other| one == other) {
                free.put(Group { sort: *sort, share: alike[0], count: alike.len() as u32 });
            }
        }
        free
    }

    /// Adds a group, which is of the sort that was added last, or of one that was not yet.
    fn put(&mut self, group: Group) {
        if group.share == Share::NONE || group.count == 0 {
            return;
        }
        let of_sort =
            self.groups.iter().rposition(|other| other.sort != group.sort).map_or(0, |place| place + 1);
        match self.groups[of_sort..].binary_search_by_key(&group.share, |other| other.share) {
            Ok(place) => self.groups[of_sort + place].count += group.count,
            Err(place) => self.groups.insert(of_sort + place, group),
        }
    }

    /// What a request may be given: of several sorts, or with more or less of each free; and what is left then.
    fn choices(&self, request: &DeviceRequest, sorts: &Sorts) -> Vec<(usize, Self)> {
        let fits = |group: &Group| group.share >= request.share && request.suits(sorts.device(group.sort));
        let fitting = self.groups.iter().enumerate().filter(|(_, group)| fits(group));
        let fitting: Vec<usize> =
            fitting.flat_map(|(place, group)| (0..group.count).map(move |_| place)).collect();
        let count = request.count as usize;
        let mut choices = Vec::new();
        for first in 0..(fitting.len() + 1).saturating_sub(count) {
            // What leaves at one end and what comes in at the other are alike: so are what is taken and what is left.
            if first > 0 && fitting[first - 1] == fitting[first + count - 1] {
                continue;
            }
            choices.push((first, self.without(&fitting[first..first + count], request.share)));
        }
        choices
    }

    /// The same without a share of one device of each of these groups, where a group may come more than once.
    fn without(&self, taken: &[usize], share: Share) -> Self {
        let mut left = Self { policy: self.policy, groups: Vec::with_capacity(self.groups.len() + 1) };
        for (place, group) in self.groups.iter().enumerate() {
            let less = taken.iter().filter(|taken| **taken == place).count() as u32;
            left.put(Group { count: group.count - less, ..*group });
            left.put(Group { share: Share(group.share.0.saturating_sub(share.0)), count: less, ..*group });
        }
        left
    }

    /// How much is free, and of how many devices, for a typical request.
    fn for_want(&self, want: &Want, sorts: &Sorts) -> (u64, u32) {
        let suiting =
            self.groups.iter().filter(|group| group.share >= want.share && sorts.suits(group.sort, want.bit));
        suiting.fold((0, 0), |(parts, count), group| {
            (parts + u64::from(group.share.0) * u64::from(group.count), count + group.count)
        })
    }
}

/// What a typical request asks for of hosts with one policy.
#[derive(Debug)]
struct Want {
    bit: u32,
    weight: i64,
    cpu: u64,
    memory: u64,
    share: Share,
    count: u32,
    /// Of all devices together.
    asked: u64,
}

/// A typical request for which a pattern's devices are enough.
#[derive(Debug)]
struct Granted {
    want: u32,
    /// How much it could be given of them.
    parts: u32,
    /// So many processors are enough for all of that.
    enough: u64,
}

impl Want {
    fn of(bit: u32, Typical { weight, demand }: &Typical, policy: SitePolicy) -> Self {
        let request = &demand.request;
        Self {
            bit,
            weight: *weight,
            cpu: policy.takes_cpu(demand.class, demand.cpu).0,
            memory: demand.memory.0,
            share: request.share,
            count: request.count,
            asked: u64::from(request.count) * u64::from(request.share.0),
        }
    }
}

impl Granted {
    fn of(want: usize, Want { cpu, asked, .. }: &Want, parts: u64) -> Self {
        let enough = match parts.checked_mul(*cpu) {
            Some(0) => 0,
            Some(wanted) => wanted.checked_div(*asked).map_or(u64::MAX, |_| wanted.div_ceil(*asked)),
            None => u64::MAX,
        };
        // At most 256 devices of a thousand parts.
        Self { want: want as u32, parts: parts as u32, enough }
    }

    /// Twice what it could be given, in thousandths of a device.
    #[inline]
    fn worth(&self, want: &Want, left: Amounts) -> i64 {
        let parts = u64::from(self.parts);
        let supplied = if left.cpu.0 >= self.enough {
            parts
        } else {
            // How much of devices there are processors for: that is less.
            let bound = left.cpu.0.saturating_mul(want.asked);
            parts.min(bound.checked_div(want.cpu).unwrap_or(u64::MAX))
        };
        (parts + supplied) as i64
    }
}

/// Number of a pattern.
pub(super) type Pattern = u32;
/// Number of a request for devices.
pub(in crate::placement) type Asked = u32;

/// What a request may be given.
#[derive(Debug, Clone, Copy)]
pub(super) struct Choice {
    /// The first of the devices, among all that fit the request.
    pub(super) first: u32,
    /// What is left then.
    pub(super) left: Pattern,
}

/// The patterns there are, or may be, and what was found out about them.
#[derive(Debug, Default)]
pub(super) struct Patterns {
    /// Numbers of others hold no more.
    generation: Generation,
    numbers: HashMap<Arc<Free>, Pattern>,
    known: Vec<Known>,
    /// Groups of all patterns.
    groups: usize,
    asked: HashMap<DeviceRequest, Asked>,
    requests: Vec<DeviceRequest>,
    /// By request and pattern, as far as it was looked at.
    choices: Vec<Vec<Option<Range<u32>>>>,
    /// Places in all of that.
    places: usize,
    all_choices: Vec<Choice>,
    /// What the mix asks for by each policy, from the fewest processors on.
    wants: Vec<(SitePolicy, Vec<Want>)>,
}

#[derive(Debug)]
struct Known {
    free: Arc<Free>,
    /// By the mix of now, where that was asked.
    granted: Option<AllGranted>,
}

#[derive(Debug)]
struct AllGranted {
    all: Vec<Granted>,
    /// Which of the lists of wants they are of.
    by: usize,
}

/// The mix, and what it is about.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mix<'m> {
    pub(super) typical: &'m [Typical],
    pub(super) sorts: &'m Sorts,
}

/// What is free of a host's devices, with its number among the patterns and the generation in which that holds.
#[derive(Debug, Clone)]
pub(in crate::placement) struct Numbered {
    free: Arc<Free>,
    number: Cell<(Generation, Pattern)>,
    /// What a mix could be given of it with what else is free on the host, and which mix: it is asked for by each shape.
    worth: Cell<Option<(MixNumber, i64)>>,
}

/// Number of a mix, of those that there have been.
pub(in crate::placement) type MixNumber = u64;

/// What is free of a host's devices in a few bytes, whatever they are: never less than is free of those that a request suits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in crate::placement) struct FreeAtMost {
    /// How many are free as a whole.
    whole: u16,
    /// How many are free in part or as a whole.
    some: u16,
    /// How much is free of that of which the most is.
    most: u16,
}

impl FreeAtMost {
    /// Whether it is enough for a request. It may be and the request still not be granted, for what is free may not suit it.
    pub(in crate::placement) fn may_grant(self, request: &DeviceRequest) -> bool {
        let count = if request.is_whole() { self.whole } else { self.some };
        request.count <= count.into() && request.share.0 <= self.most.into()
    }
}

impl Numbered {
    /// What a mix could be given of it, worked out where that is not known.
    #[inline]
    pub(super) fn worth(&self, mix: MixNumber, find: impl FnOnce() -> i64) -> i64 {
        match self.worth.get() {
            Some((of, worth)) if of == mix => worth,
            _ => {
                let worth = find();
                self.worth.set(Some((mix, worth)));
                worth
            }
        }
    }

    /// Something else is free on the host from now on.
    pub(in crate::placement) fn forget_worth(&self) {
        self.worth.set(None);
    }

    /// What is free, in a few bytes.
    pub(in crate::placement) fn at_most(&self) -> FreeAtMost {
        let groups = &self.free.groups;
        let count = |least: Share| {
            let enough = groups.iter().filter(|group| group.share >= least);
            u16::try_from(enough.map(|group| group.count).sum::<u32>()).unwrap_or(u16::MAX)
        };
        let most = groups.iter().map(|group| group.share.0).max().unwrap_or(0);
        FreeAtMost {
            whole: count(Share::WHOLE),
            some: count(Share(1)),
            most: most.try_into().unwrap_or(u16::MAX),
        }
    }
}

/// How often all patterns were forgotten.
type Generation = u32;
const NEVER: Generation = Generation::MAX;

impl From<Free> for Numbered {
    fn from(free: Free) -> Self {
        Self { free: Arc::new(free), number: Cell::new((NEVER, 0)), worth: Cell::new(None) }
    }
}

impl Patterns {
    /// Forgets all when it has become much.
    pub(super) fn tidy(&mut self) {
        let is_much = self.places > MAX_CHOICES || self.all_choices.len() > MAX_CHOICES;
        if is_much || self.known.len() > MAX_PATTERNS || self.groups > MAX_GROUPS {
            self.forget();
        }
    }

    fn forget(&mut self) {
        let generation = self.generation + 1;
        let (asked, requests) = (std::mem::take(&mut self.asked), std::mem::take(&mut self.requests));
        let choices = vec![Vec::new(); requests.len()];
        *self = Self { generation, asked, requests, choices, ..Self::default() };
    }

    /// Another mix holds from now on.
    pub(super) fn forget_mix(&mut self) {
        self.wants.clear();
        self.known.iter_mut().for_each(|known| known.granted = None);
    }

    /// The numbers of requests; they hold until others are asked for.
    pub(super) fn asked(&mut self, requests: &[DeviceRequest]) -> Vec<Asked> {
        let new = requests.iter().filter(|request| !self.asked.contains_key(*request)).count();
        if new > 0 && self.asked.len() + new > MAX_ASKED {
            *self = Self { generation: self.generation + 1, ..Self::default() };
        }
        requests.iter().map(|request| self.asked_one(request)).collect()
    }

    fn asked_one(&mut self, request: &DeviceRequest) -> Asked {
        if let Some(number) = self.asked.get(request) {
            return *number;
        }
        let number = self.choices.len() as Asked;
        self.asked.insert(request.clone(), number);
        self.requests.push(request.clone());
        self.choices.push(Vec::new());
        number
    }

    /// A pattern's number, that holds until [`Patterns::tidy`].
    pub(super) fn number(&mut self, numbered: &Numbered) -> Pattern {
        let (generation, number) = numbered.number.get();
        if generation == self.generation {
            return number;
        }
        let number = self.number_of(&numbered.free);
        numbered.number.set((self.generation, number));
        number
    }

    fn number_of(&mut self, free: &Arc<Free>) -> Pattern {
        if let Some(number) = self.numbers.get(free) {
            return *number;
        }
        let number = self.known.len() as Pattern;
        self.groups += free.groups.len();
        self.numbers.insert(free.clone(), number);
        self.known.push(Known { free: free.clone(), granted: None });
        number
    }

    /// What a request may be given of a pattern; nothing: there are too few.
    pub(super) fn choices(&mut self, pattern: Pattern, asked: Asked, sorts: &Sorts) -> Range<usize> {
        let place = pattern as usize;
        let found = self.choices[asked as usize].get(place).cloned().flatten();
        let Range { start, end } = found.unwrap_or_else(|| self.find_choices(pattern, asked, sorts));
        start as usize..end as usize
    }

    #[cold]
    fn find_choices(&mut self, pattern: Pattern, asked: Asked, sorts: &Sorts) -> Range<u32> {
        let free = self.known[pattern as usize].free.clone();
        let begin = self.all_choices.len() as u32;
        for (first, left) in free.choices(&self.requests[asked as usize], sorts) {
            let left = self.number_of(&Arc::new(left));
            self.all_choices.push(Choice { first: first as u32, left });
        }
        let found = begin..self.all_choices.len() as u32;
        let of_request = &mut self.choices[asked as usize];
        if of_request.len() <= pattern as usize {
            self.places += pattern as usize + 1 - of_request.len();
            of_request.resize(pattern as usize + 1, None);
        }
        of_request[pattern as usize] = Some(found.clone());
        found
    }

    pub(super) fn choice(&self, place: usize) -> Choice {
        self.all_choices[place]
    }

    /// Twice what the mix could be given of a pattern where so much else is left, in thousandths of a device.
    #[inline]
    pub(super) fn worth(&mut self, pattern: Pattern, left: Amounts, mix: Mix<'_>) -> i64 {
        if self.known[pattern as usize].granted.is_none() {
            self.find_granted(pattern, mix);
        }
        let Some(granted) = &self.known[pattern as usize].granted else { return 0 };
        let wants = &self.wants[granted.by].1;
        let mut worth = 0;
        for one in &granted.all {
            let want = &wants[one.want as usize];
            if left.cpu.0 < want.cpu {
                break;
            }
            if left.memory.0 >= want.memory {
                worth += want.weight * one.worth(want, left);
            }
        }
        worth
    }

    #[cold]
    fn find_granted(&mut self, pattern: Pattern, mix: Mix<'_>) {
        let free = self.known[pattern as usize].free.clone();
        let by = self.wants_by(free.policy, mix);
        let mut all = Vec::new();
        for (number, want) in self.wants[by].1.iter().enumerate() {
            let (parts, count) = free.for_want(want, mix.sorts);
            if count >= want.count {
                all.push(Granted::of(number, want, parts));
            }
        }
        self.known[pattern as usize].granted = Some(AllGranted { by, all });
    }

    /// Which of the lists of wants is of a policy.
    fn wants_by(&mut self, policy: SitePolicy, mix: Mix<'_>) -> usize {
        if let Some(place) = self.wants.iter().position(|(of, _)| *of == policy) {
            return place;
        }
        let mut wants: Vec<Want> =
            (0..).zip(mix.typical).map(|(bit, typical)| Want::of(bit, typical, policy)).collect();
        wants.sort_by_key(|want| want.cpu);
        self.wants.push((policy, wants));
        self.wants.len() - 1
    }
}
