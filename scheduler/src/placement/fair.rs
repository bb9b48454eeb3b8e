//! Fairness between boroughs: whose turn it is among those that wait with the same priority, and what each is charged in a pass.
//!
//! It is the turn of whoever has the smallest *dominant share* of the estate for its weight (Ghodsi et al., "Dominant Resource Fairness", NSDI 2011, with
//! weights): the larger of its shares of all processors and of all memory, by what its placed instances take, divided by its weight. So ten thousand
//! requests of one borough do not delay the one of another, whoever has little of the estate comes before whoever has much, and one of weight 200
//! may have twice as much as one of weight 100 before it waits for it.
//!
//! Before all others come those that are *within their guarantee*: that have less than it of every amount that is guaranteed to them. An instance that
//! begins within it and ends beyond it still comes first: so whether a borough comes first does not depend on which of its instances are tried. What is
//! guaranteed to a borough and not used by it is anybody's.
//!
//! The accounts that this goes by are those of the quotas too (`state::quota`): what the state says is charged, and what the pass has given since.
//!
//! Shares are compared in [steps](STEPS) of the estate at the usual weight, and equal ones by the boroughs' names. A turn lasts until its borough comes to the next step, so
//! that on a small estate boroughs take turns one by one, and on a large one hundreds of instances of a workload stay together, which makes them cheap.
//! Whose turn ends when depends on nobody else: so it does not matter who else waits in vain.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
};

use supercloud_proto::{amount::Amounts, name::BoroughName};

use crate::state::{
    Allowance, BoroughUse, State, by_priority::ByPriority, level::FIFTH, preempt::Guarantees,
};

/// Steps in which shares are compared: the whole estate. A step of an estate of a million instances is some 250 of them.
const STEPS: u128 = 4_096;

/// The weight at which a share is what it is.
const USUAL_WEIGHT: u128 = Allowance::USUAL_WEIGHT as u128;

/// Number of a borough. Numbers say nothing of an order.
pub(super) type Number = usize;

/// Processor and memory of all hosts. No host can make the sum say less than what the others have.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Whole {
    cpu: u128,
    memory: u128,
}

impl Whole {
    pub(super) fn add(&mut self, amounts: Amounts) {
        self.cpu += u128::from(amounts.cpu.0);
        self.memory += u128::from(amounts.memory.0);
    }

    /// Takes out what was added.
    pub(super) fn remove(&mut self, amounts: Amounts) {
        self.cpu -= u128::from(amounts.cpu.0);
        self.memory -= u128::from(amounts.memory.0);
    }
}

/// What each borough has, and may have.
#[derive(Default)]
pub(super) struct Boroughs {
    numbers: HashMap<BoroughName, Number>,
    /// By number.
    accounts: Vec<Account>,
    whole: Whole,
    /// Whether work displaces less urgent work of its own borough for the quota's sake.
    do_yield: bool,
}

#[derive(Clone)]
struct Account {
    borough: BoroughName,
    allowance: Allowance,
    /// What its placed instances take.
    taken: Amounts,
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
    pub(super) fn catch_up(&mut self, state: &State, whole: Whole, largest: Amounts) -> Shift {
        self.whole = whole;
        self.do_yield = state.level() >= FIFTH;
        // No borough is ever forgotten, and none is numbered that is not there.
        if self.accounts.len() < state.boroughs().len() {
            for borough in state.boroughs().keys() {
                self.number(borough);
            }
        }
        let mut shift = Shift::default();
        for (number, account) in self.accounts.iter_mut().enumerate() {
            if !std::mem::take(&mut account.is_touched) {
                continue;
            }
            let used = state.use_of(&account.borough);
            let is_own_the_same = account.is_as_in(&used)
                && account.allowance.quota == state.allowance_of(&account.borough).quota;
            let taken = std::mem::replace(&mut account.taken, used.taken);
            let allowance = std::mem::replace(&mut account.allowance, state.allowance_of(&account.borough));
            let before = Account { borough: account.borough.clone(), allowance, taken, ..account.clone() };
            account.kept_hosts = state.kept_hosts(&account.borough);
            account.staying = used.staying();
            account.is_at_rest =
                used.going == Amounts::default() && used.awaited.is_empty() && used.lost == 0;
            account.on_hosts = used.on_hosts();
            account.to_stay = used.to_stay;
            account.awaited = used.awaited;
            account.gone = ByPriority::default();
            account.given = Amounts::default();
            account.has_claimed = false;
            shift.more_is_spare |= rose(before.surplus(), account.surplus(), largest);
            if allowance.guarantee != account.allowance.guarantee
                || rose(before.lack(), account.lack(), largest)
                || before.may_keep() < account.may_keep()
            {
                shift.claimants.push(number);
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
            staying: nothing,
            given: nothing,
            is_at_rest: true,
            on_hosts: nothing,
            to_stay: ByPriority::default(),
            gone: ByPriority::default(),
            awaited: ByPriority::default(),
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

    /// Whether what something took back in the pass for a borough would not be its due any more with something more given to it.
    pub(super) fn may_belie_claims(&self, borough: Number, needed: Amounts) -> bool {
        let account = &self.accounts[borough];
        account.has_claimed && !account.claims(needed)
    }

    /// Whether something is guaranteed to a borough.
    pub(super) fn is_guaranteed(&self, borough: Number) -> bool {
        self.accounts[borough].allowance.guarantee != Amounts::default()
    }

    /// Whether a borough's quota lets something more in.
    pub(super) fn admits(&self, borough: Number, needed: Amounts) -> bool {
        let account = &self.accounts[borough];
        account.allowance.quota.admits(account.taken, needed)
    }

    /// Whether a borough's quota bears something of a priority for which room was made, beside what is on hosts and what is more urgent and waits likewise.
    pub(super) fn bears(&self, borough: Number, priority: u32, needed: Amounts) -> bool {
        let account = &self.accounts[borough];
        let first = account.awaited.above(priority);
        account.allowance.quota.admits(account.on_hosts.saturating_add(first), needed)
    }

    /// Whether a borough's quota would bear something of a priority that it does not let in, were enough to go of what the borough has of lower ones. What is
    /// stopping may leave enough already.
    pub(super) fn would_yield(&self, borough: Number, priority: u32, needed: Amounts) -> bool {
        let account = &self.accounts[borough];
        let less_urgent = if self.do_yield { account.less_urgent(priority) } else { Amounts::default() };
        less_urgent != Amounts::default() && account.overdraft(needed).within(less_urgent)
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
        let Account { allowance, taken, .. } = &self.accounts[borough];
        let steps = |part: u64, whole: u128| {
            let of_whole = whole.saturating_mul(allowance.weight.into());
            (u128::from(part) * STEPS * USUAL_WEIGHT).checked_div(of_whole).unwrap_or(0)
        };
        let dominant = steps(taken.cpu.0, self.whole.cpu).max(steps(taken.memory.0, self.whole.memory));
        (!is_within_guarantee(allowance, *taken), u64::try_from(dominant).unwrap_or(u64::MAX))
    }

    /// Processor, memory and disk of which a borough must have less to stand as it does.
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

    fn overdraft(&self, needed: Amounts) -> Amounts {
        self.allowance.quota.overdraft(self.staying.saturating_add(self.given), needed)
    }

    /// What it has of lower priorities that is to stay.
    fn less_urgent(&self, priority: u32) -> Amounts {
        self.to_stay.below(priority).saturating_sub(self.gone.below(priority))
    }

    /// Whether nothing of its work is other than it was in the state of the last pass, and nothing was given or taken in that.
    fn is_as_in(&self, used: &BoroughUse) -> bool {
        self.to_stay.is_untouched(&used.to_stay)
            && self.gone.is_empty()
            && self.given == Amounts::default()
            && self.staying == used.staying()
    }
}

/// What the pass gives is not looked at where it would make more way: so who finds nobody who makes way does not find one later in the pass.
impl Guarantees for Boroughs {
    fn surplus(&self, borough: &BoroughName) -> Amounts {
        self.numbers.get(borough).map_or_else(Amounts::default, |number| self.accounts[*number].surplus())
    }

    fn claims(&self, borough: &BoroughName, needed: Amounts) -> bool {
        self.numbers.get(borough).is_some_and(|number| self.accounts[*number].claims(needed))
    }

    fn overdraft(&self, borough: &BoroughName, needed: Amounts) -> Amounts {
        self.numbers.get(borough).map_or_else(Amounts::default, |of| self.accounts[*of].overdraft(needed))
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
        if let Some((borough, [cpu, memory, disk], _)) = self.turn {
            let Amounts { cpu: of_cpu, memory: of_memory, disk: of_disk } = boroughs.accounts[borough].taken;
            if of_cpu.0 < cpu && of_memory.0 < memory && of_disk.0 < disk {
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
