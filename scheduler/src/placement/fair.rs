//! Fairness between boroughs: whose turn it is among those that wait with the same priority, and what each is charged in a pass.
//!
//! It is the turn of whoever has the smallest *dominant share* of the estate for its weight (Ghodsi et al., "Dominant Resource Fairness", NSDI 2011, with
//! weights): the largest of its shares of all processors, of all memory and of all devices of each kind that are on hosts, by what its placed instances take, divided by its weight. So ten thousand
//! requests of one borough do not delay the one of another, whoever has little of the estate comes before whoever has much, and one of weight 200
//! may have twice as much as one of weight 100 before it waits for it. Who has every GPU comes last, however few processors it has.
//!
//! Before all others come those that are *within their guarantee*: that have less than it of every amount that is guaranteed to them. An instance that
//! begins within it and ends beyond it still comes first: so whether a borough comes first does not depend on which of its instances are tried. What is
//! guaranteed to a borough and not used by it is anybody's.
//!
//! The accounts that this goes by are those of the quotas too (`state::quota`): what the state says is charged, and what the pass has given since. Where somebody waits only for what is
//! stopping, nothing less urgent of his borough takes what he needs of its quota in that pass ([`Boroughs::promise`]): it would be displaced for him.
//!
//! Shares are compared in [steps](STEPS) of the estate at the usual weight, and equal ones by the boroughs' names. A turn lasts until its borough comes to the next step, so
//! that on a small estate boroughs take turns one by one, and on a large one hundreds of instances of a workload stay together, which makes them cheap.
//! Whose turn ends when depends on nobody else: so it does not matter who else waits in vain. The steps that a borough has of devices are counted when it is given
//! any, and not at every look: work without devices pays one comparison for them.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
};

use supercloud_proto::{
    amount::Amounts,
    device::{DeviceRequest, Share},
    host::Inventory,
    name::BoroughName,
};

use crate::state::{
    Allowance, BoroughUse, State,
    by_kind::ByKind,
    by_priority::ByPriority,
    level::{FIFTH, FIRST, Level},
    preempt::{Guarantees, put_off},
};

/// Steps in which shares are compared: the whole estate. A step of an estate of a million instances is some 250 of them.
const STEPS: u128 = 4_096;

/// The weight at which a share is what it is.
const USUAL_WEIGHT: u128 = Allowance::USUAL_WEIGHT as u128;

/// Number of a borough. Numbers say nothing of an order.
pub(super) type Number = usize;

/// Processor, memory and devices of all hosts. No host can make the sum say less than what the others have.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Whole {
    cpu: u128,
    memory: u128,
    devices: ByKind,
}

impl Whole {
    /// Takes in a host.
    pub(super) fn add(&mut self, host: &Inventory) {
        let amounts = host.allocatable();
        self.cpu += u128::from(amounts.cpu.0);
        self.memory += u128::from(amounts.memory.0);
        host.devices.values().for_each(|device| self.devices.add(&device.kind, Share::WHOLE.0.into()));
    }

    /// Takes out what was added.
    pub(super) fn remove(&mut self, host: &Inventory) {
        let amounts = host.allocatable();
        self.cpu -= u128::from(amounts.cpu.0);
        self.memory -= u128::from(amounts.memory.0);
        host.devices.values().for_each(|device| self.devices.take(&device.kind, Share::WHOLE.0.into()));
    }
}

/// What each borough has, and may have.
#[derive(Clone)]
pub(super) struct Boroughs {
    numbers: HashMap<BoroughName, Number>,
    /// By number.
    accounts: Vec<Account>,
    whole: Whole,
    /// What every member knows of who makes way for the quota's sake.
    level: Level,
}

impl Default for Boroughs {
    fn default() -> Self {
        Self { numbers: HashMap::new(), accounts: Vec::new(), whole: Whole::default(), level: FIRST }
    }
}

#[derive(Clone)]
struct Account {
    borough: BoroughName,
    allowance: Allowance,
    /// What its placed instances take.
    taken: Amounts,
    /// What they have of devices.
    devices: ByKind,
    /// Whole steps of the estate that it has for its weight of the kind of which it has most.
    device_steps: u64,
    /// What of it was to stay when the pass began, and has not made way in it.
    staying: Amounts,
    /// What it was given in the pass.
    given: Amounts,
    /// Whether nothing of it was stopping, awaited or lost when the pass began.
    is_at_rest: bool,
    /// What of all of it is on hosts.
    on_hosts: Amounts,
    /// What was to stay on hosts when the pass began.
    to_stay: ByPriority,
    /// What of that made way in the pass.
    gone: ByPriority,
    /// The room that is made for those that wait.
    awaited: ByPriority,
    /// What those need that wait only for what is stopping, as far as was seen in the pass: it is nobody else's who is less urgent.
    promised: ByPriority,
    /// Whether something took back in the pass what is guaranteed to it.
    has_claimed: bool,
    /// Hosts that it keeps to itself.
    kept_hosts: u32,
    /// Whether anything of this is not as in the state of the last pass, or may not be as in the next.
    is_touched: bool,
}

/// How what boroughs have and may have differs from before.
#[derive(Debug, Default)]
pub(super) struct Shift {
    /// Their quotas may have more room.
    pub(super) roomier: Vec<Number>,
    /// What of their own work more urgent work of theirs may displace is not what it was, or how much they may have.
    pub(super) own: Vec<Number>,
    /// They may take back what they are guaranteed for more than before, or keep more hosts to themselves.
    pub(super) claimants: Vec<Number>,
    /// The same for gangs, which may ask for more than any host has.
    pub(super) gang_claimants: Vec<Number>,
    /// Whether some have more beyond their guarantees that may make way, and could not before.
    pub(super) more_is_spare: bool,
}

/// Whether a borough is beyond its guarantee, and how many whole steps of the estate it has for its weight. Smaller comes first.
type Standing = (bool, u64);

impl Boroughs {
    /// Notes that these do not have what they had, or may have something else.
    pub(super) fn touch<'b>(&mut self, boroughs: impl Iterator<Item = &'b BoroughName>) {
        for borough in boroughs {
            if let Some(number) = self.numbers.get(borough) {
                self.accounts[*number].is_touched = true;
            }
        }
    }

    /// The account of a borough, in which something is about to change.
    fn touched(&mut self, borough: Number) -> &mut Account {
        let account = &mut self.accounts[borough];
        account.is_touched = true;
        account
    }

    /// Takes what those that were [touched](Self::touch) have and may have from a state whose hosts have so much in all, and each at most so much.
    pub(super) fn catch_up(&mut self, state: &State, whole: &Whole, largest: Amounts) -> Shift {
        let is_other_whole = self.whole != *whole;
        if is_other_whole {
            self.whole = whole.clone();
        }
        self.level = state.level();
        // No borough is ever forgotten, and none is numbered that is not there.
        if self.accounts.len() < state.boroughs().len() {
            for borough in state.boroughs().keys() {
                self.number(borough);
            }
        }
        let mut shift = Shift::default();
        for (number, account) in self.accounts.iter_mut().enumerate() {
            if !std::mem::take(&mut account.is_touched) {
                if is_other_whole {
                    account.count_devices(&self.whole);
                }
                continue;
            }
            let used = state.use_of(&account.borough);
            let is_own_the_same = account.is_as_in(&used)
                && account.allowance.quota == state.allowance_of(&account.borough).quota;
            // Who had his turn before that was gone has not seen it.
            let made_way = !account.gone.is_empty();
            let taken = std::mem::replace(&mut account.taken, used.taken);
            let allowance = std::mem::replace(&mut account.allowance, state.allowance_of(&account.borough));
            let before = Account { borough: account.borough.clone(), allowance, taken, ..account.clone() };
            account.kept_hosts = state.kept_hosts(&account.borough);
            account.staying = used.staying();
            account.is_at_rest =
                used.going == Amounts::default() && used.awaited.is_empty() && used.lost == 0;
            account.on_hosts = used.on_hosts();
            account.devices = used.devices;
            account.count_devices(&self.whole);
            account.to_stay = used.to_stay;
            account.awaited = used.awaited;
            account.promised = ByPriority::default();
            account.gone = ByPriority::default();
            account.given = Amounts::default();
            account.has_claimed = false;
            shift.more_is_spare |= rose(before.surplus(), account.surplus(), largest);
            let may_more = made_way
                || allowance.guarantee != account.allowance.guarantee
                || before.may_keep() < account.may_keep();
            if may_more || rose(before.lack(), account.lack(), largest) {
                shift.claimants.push(number);
            }
            if may_more || !account.lack().within(before.lack()) {
                shift.gang_claimants.push(number);
            }
            let is_tighter =
                taken.within(account.taken) && account.allowance.quota.most().within(allowance.quota.most());
            if !is_tighter || !is_own_the_same {
                shift.roomier.push(number);
            }
            if !is_own_the_same {
                shift.own.push(number);
            }
        }
        shift
    }

    /// The number of a borough.
    pub(super) fn number(&mut self, borough: &BoroughName) -> Number {
        if let Some(number) = self.numbers.get(borough) {
            return *number;
        }
        self.numbers.insert(borough.clone(), self.accounts.len());
        let nothing = Amounts::default();
        self.accounts.push(Account {
            borough: borough.clone(),
            allowance: Allowance::default(),
            taken: nothing,
            devices: ByKind::default(),
            device_steps: 0,
            staying: nothing,
            given: nothing,
            is_at_rest: true,
            on_hosts: nothing,
            to_stay: ByPriority::default(),
            gone: ByPriority::default(),
            awaited: ByPriority::default(),
            promised: ByPriority::default(),
            has_claimed: false,
            kept_hosts: 0,
            is_touched: true,
        });
        self.accounts.len() - 1
    }

    /// The number of a borough that has one.
    pub(super) fn known(&self, borough: &BoroughName) -> Option<Number> {
        self.numbers.get(borough).copied()
    }

    /// Counts what an instance of a borough is given on a host.
    #[inline]
    pub(super) fn give(&mut self, borough: Number, amounts: Amounts) {
        let account = self.touched(borough);
        account.taken += amounts;
        account.given += amounts;
        account.on_hosts += amounts;
    }

    /// Counts what devices instances of a borough are given with that, or have room made for them with: so many, each what these ask for.
    #[inline]
    pub(super) fn give_devices(&mut self, borough: Number, requests: &[DeviceRequest], instances: usize) {
        if !requests.is_empty() {
            self.touched(borough).devices.add_asked(requests, instances as u64);
            self.accounts[borough].count_devices(&self.whole);
        }
    }

    /// Counts that room is made for an instance of a borough and some priority.
    pub(super) fn charge(&mut self, borough: Number, priority: u32, amounts: Amounts) {
        let account = self.touched(borough);
        account.taken += amounts;
        account.given += amounts;
        account.awaited.add(priority, amounts);
    }

    /// Counts that such a one is given what room was made for.
    pub(super) fn settle(&mut self, borough: Number, priority: u32, amounts: Amounts) {
        let account = self.touched(borough);
        account.on_hosts += amounts;
        account.awaited.take(priority, amounts);
    }

    /// Counts hosts that a borough began to keep to itself in the pass.
    pub(super) fn keep_hosts(&mut self, borough: &BoroughName, hosts: u32) {
        if let Some(number) = self.known(borough) {
            self.touched(number).kept_hosts += hosts;
        }
    }

    /// Counts what makes way of a borough's work of some priority.
    pub(super) fn make_way(&mut self, borough: &BoroughName, priority: u32, amounts: Amounts) {
        if let Some(number) = self.known(borough) {
            let account = self.touched(number);
            account.staying = account.staying.saturating_sub(amounts);
            account.gone.add(priority, amounts);
        }
    }

    /// Counts that something of a borough takes back what is guaranteed to it.
    pub(super) fn claim(&mut self, borough: &BoroughName) {
        if let Some(number) = self.known(borough) {
            self.touched(number).has_claimed = true;
        }
    }

    /// Whether what something took back in the pass for a borough would not be its due any more with something more given to it. What of its own made way with that is still there
    /// when it is asked for.
    pub(super) fn may_belie_claims(&self, borough: Number, needed: Amounts) -> bool {
        let account = &self.accounts[borough];
        let there = account.staying.saturating_add(account.gone.all()).saturating_add(account.given);
        account.has_claimed && !account.allowance.claims(there, needed)
    }

    /// Whether something is guaranteed to a borough.
    pub(super) fn is_guaranteed(&self, borough: Number) -> bool {
        self.accounts[borough].allowance.guarantee != Amounts::default()
    }

    /// Counts that something of a priority waits only for what is stopping, on its host or in its borough's quota, and goes to a host then.
    pub(super) fn promise(&mut self, borough: Number, priority: u32, amounts: Amounts) {
        self.touched(borough).promised.add(priority, amounts);
    }

    /// Whether something more urgent waits so.
    pub(super) fn has_promised_above(&self, borough: Number, priority: u32) -> bool {
        self.accounts[borough].promised.above(priority) != Amounts::default()
    }

    /// Whether so much of a borough's quota is promised that nothing less urgent than this is let in.
    pub(super) fn has_promised_all(&self, borough: Number, priority: u32) -> bool {
        let account = &self.accounts[borough];
        let counted = account.counted(priority, self.level).saturating_add(account.promised.all());
        !account.promised.is_empty() && !account.allowance.quota.admits(counted, Amounts::default())
    }

    /// Whether a borough's quota lets something more of a priority in.
    pub(super) fn admits(&self, borough: Number, priority: u32, needed: Amounts) -> bool {
        let account = &self.accounts[borough];
        let counted = account.counted(priority, self.level).saturating_add(account.promised.above(priority));
        account.allowance.quota.admits(counted, needed)
    }

    /// Whether a borough's quota bears something of a priority for which room was made, beside what is on hosts and what is more urgent and waits. Nothing is promised before what
    /// is kept its room against whatever is more urgent: each would wait for the other.
    pub(super) fn bears(&self, borough: Number, priority: u32, rank: u32, needed: Amounts) -> bool {
        let account = &self.accounts[borough];
        let first = account.awaited.above(priority).saturating_add(account.promised.above(rank));
        account.allowance.quota.admits(account.on_hosts.saturating_add(first), needed)
    }

    /// Whether a borough's quota would bear something of a priority that it does not let in, were enough to go of what the borough has of lower ones. What is
    /// stopping may leave enough already.
    pub(super) fn would_yield(&self, borough: Number, priority: u32, needed: Amounts) -> bool {
        let account = &self.accounts[borough];
        self.level >= FIFTH
            && account.overdraft(priority, self.level, needed).within(account.less_urgent(priority))
    }

    /// Whether nothing is of a lower priority anywhere, and nothing stopping, awaited or lost: who has no claim finds nobody then who makes way, and no room that comes.
    pub(super) fn nobody_goes(&self, priority: u32) -> bool {
        self.accounts.iter().all(|account| {
            account.is_at_rest
                && account.gone.is_empty()
                && account.to_stay.below(priority) == Amounts::default()
        })
    }

    fn standing(&self, borough: Number) -> Standing {
        let account = &self.accounts[borough];
        let Account { allowance, taken, .. } = account;
        let of_cpu = account.steps(taken.cpu.0, self.whole.cpu);
        let of_memory = account.steps(taken.memory.0, self.whole.memory);
        let dominant = of_cpu.max(of_memory).max(account.device_steps);
        (!is_within_guarantee(allowance, *taken), dominant)
    }

    /// Processor, memory and disk of which a borough must have less to stand as it does, if it has no more of devices.
    fn bounds(&self, borough: Number, (is_beyond, steps): Standing) -> [u64; 3] {
        let allowance = &self.accounts[borough].allowance;
        let bound = |whole: u128| {
            let parts = whole.saturating_mul(allowance.weight.into()).saturating_mul(u128::from(steps) + 1);
            u64::try_from(parts.div_ceil(STEPS * USUAL_WEIGHT)).unwrap_or(u64::MAX)
        };
        let steps = [bound(self.whole.cpu), bound(self.whole.memory), u64::MAX];
        if is_beyond {
            return steps;
        }
        let [cpu, memory, disk] = guaranteed(allowance);
        [steps[0].min(cpu), steps[1].min(memory), steps[2].min(disk)]
    }
}

impl Account {
    /// How many whole steps of the estate a part of it is for its weight.
    fn steps(&self, part: u64, whole: u128) -> u64 {
        let of_whole = whole.saturating_mul(self.allowance.weight.into());
        let steps = (u128::from(part) * STEPS * USUAL_WEIGHT).checked_div(of_whole).unwrap_or(0);
        u64::try_from(steps).unwrap_or(u64::MAX)
    }

    /// Counts the steps anew that it has of devices.
    fn count_devices(&mut self, whole: &Whole) {
        let steps = |(kind, has): &(_, u64)| self.steps(*has, whole.devices.of(kind).into());
        self.device_steps = self.devices.iter().map(steps).max().unwrap_or(0);
    }

    fn surplus(&self) -> Amounts {
        self.allowance.surplus(self.staying)
    }

    fn lack(&self) -> Amounts {
        self.allowance.lack(self.staying.saturating_add(self.given))
    }

    /// How many more hosts it may keep to itself.
    fn may_keep(&self) -> u32 {
        self.allowance.private_hosts.saturating_sub(self.kept_hosts)
    }

    fn claims(&self, needed: Amounts) -> bool {
        self.allowance.claims(self.staying.saturating_add(self.given), needed)
    }

    fn overdraft(&self, priority: u32, level: Level, needed: Amounts) -> Amounts {
        let staying = self.staying.saturating_add(self.given);
        self.allowance.quota.overdraft(staying.saturating_sub(self.put_off(priority, level)), needed)
    }

    /// What counts at its quota for something of a priority.
    fn counted(&self, priority: u32, level: Level) -> Amounts {
        self.taken.saturating_sub(self.put_off(priority, level))
    }

    fn put_off(&self, priority: u32, level: Level) -> Amounts {
        put_off(&self.awaited, priority, level)
    }

    /// What it has of lower priorities that is to stay.
    fn less_urgent(&self, priority: u32) -> Amounts {
        self.to_stay.below(priority).saturating_sub(self.gone.below(priority))
    }

    /// Whether nothing of its work is other than it was in the state of the last pass, and nothing was given or taken in that.
    fn is_as_in(&self, used: &BoroughUse) -> bool {
        self.to_stay.is_untouched(&used.to_stay)
            && self.awaited.is_untouched(&used.awaited)
            && self.gone.is_empty()
            && self.promised.is_empty()
            && self.given == Amounts::default()
            && self.staying == used.staying()
    }
}

/// What the pass gives is not looked at where it would make more way: so who finds nobody who makes way does not find one later in the pass.
impl Guarantees for Boroughs {
    fn surplus(&self, borough: &BoroughName) -> Amounts {
        self.numbers.get(borough).map_or_else(Amounts::default, |number| self.accounts[*number].surplus())
    }

    fn surplus_with(&self, borough: &BoroughName, gone: Amounts, coming: Amounts) -> Amounts {
        let with = |account: &Account| {
            let staying = account.staying.saturating_add(account.given);
            account.allowance.surplus(staying.saturating_sub(gone).saturating_add(coming))
        };
        self.numbers.get(borough).map_or_else(Amounts::default, |number| with(&self.accounts[*number]))
    }

    fn claims(&self, borough: &BoroughName, needed: Amounts) -> bool {
        self.numbers.get(borough).is_some_and(|number| self.accounts[*number].claims(needed))
    }

    fn overdraft(&self, borough: &BoroughName, priority: u32, needed: Amounts) -> Amounts {
        let overdraft = |of: &Number| self.accounts[*of].overdraft(priority, self.level, needed);
        self.numbers.get(borough).map_or_else(Amounts::default, overdraft)
    }
}

/// Whether an amount has become more that was less than what anything may ask for on a host.
fn rose(before: Amounts, now: Amounts, largest: Amounts) -> bool {
    let rose = |before: u64, now: u64, largest: u64| before < now && before < largest;
    rose(before.cpu.0, now.cpu.0, largest.cpu.0)
        || rose(before.memory.0, now.memory.0, largest.memory.0)
        || rose(before.disk.0, now.disk.0, largest.disk.0)
}

/// Processor, memory and disk that are guaranteed; the largest number where nothing is.
fn guaranteed(allowance: &Allowance) -> [u64; 3] {
    let Amounts { cpu, memory, disk } = allowance.guarantee;
    [cpu.0, memory.0, disk.0].map(|amount| if amount == 0 { u64::MAX } else { amount })
}

/// Whether a borough has less than what it is guaranteed, of all that it is guaranteed.
fn is_within_guarantee(allowance: &Allowance, taken: Amounts) -> bool {
    let [cpu, memory, disk] = guaranteed(allowance);
    allowance.guarantee != Amounts::default()
        && taken.cpu.0 < cpu
        && taken.memory.0 < memory
        && taken.disk.0 < disk
}

/// The boroughs that wait, and whose turn it is.
#[derive(Default)]
pub(super) struct Turns {
    waiting: BinaryHeap<Reverse<(Standing, BoroughName, Number)>>,
    /// The borough, the processor, memory and disk at which its turn ends, and how it stood when it began.
    turn: Option<(Number, [u64; 3], Standing)>,
}

impl Turns {
    /// A borough waits.
    pub(super) fn join(&mut self, boroughs: &Boroughs, borough: Number) {
        let name = boroughs.accounts[borough].borough.clone();
        self.waiting.push(Reverse((boroughs.standing(borough), name, borough)));
    }

    /// Whose turn it is.
    pub(super) fn whose(&mut self, boroughs: &Boroughs) -> Option<Number> {
        if let Some((borough, [cpu, memory, disk], (_, steps))) = self.turn {
            let Account { taken, device_steps, .. } = &boroughs.accounts[borough];
            let Amounts { cpu: of_cpu, memory: of_memory, disk: of_disk } = *taken;
            if of_cpu.0 < cpu && of_memory.0 < memory && of_disk.0 < disk && *device_steps <= steps {
                return Some(borough);
            }
            self.join(boroughs, borough);
        }
        let Reverse((standing, _, borough)) = self.waiting.pop()?;
        self.turn = Some((borough, boroughs.bounds(borough, standing), standing));
        Some(borough)
    }

    /// Whether a borough whose turn it is not may still have one, as it stands now: it comes after the one whose turn it is.
    pub(super) fn comes_later(&self, boroughs: &Boroughs, other: Number) -> bool {
        let place = |borough: Number, standing: Standing| (standing, &boroughs.accounts[borough].borough);
        let is_later = |(borough, _, standing): &(Number, [u64; 3], Standing)| {
            place(other, boroughs.standing(other)) > place(*borough, *standing)
        };
        self.turn.as_ref().is_some_and(is_later)
    }

    /// A borough waits, if it did not.
    pub(super) fn join_once(&mut self, boroughs: &Boroughs, borough: Number) {
        if !self.waiting.iter().any(|Reverse((_, _, other))| *other == borough) {
            self.join(boroughs, borough);
        }
    }

    /// Whose turn it is has nobody left.
    pub(super) fn end(&mut self) {
        self.turn = None;
    }
}
