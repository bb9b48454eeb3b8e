//! What the scheduler wants of this host: the orders, fenced by their index, and full sets in parts. Pure; the loop writes what changed
//! into the ledger before it acts.
//!
//! Decisions:
//! - *An order older than the highest index ever accepted for its instance is refused*, also after the instance was forgotten. Once the
//!   scheduler no longer knows an instance, the very order that was dropped is refused too: only a node that lags behind still has it, and
//!   it would begin anew what is over.
//! - *An order that the newest full set would have named and did not is refused*, even where nothing is known of its instance: the ledger was lost, or the
//!   fence was too old to be kept. What a full set does not name had come to its end when it was read.
//! - *A full set counts when its last part has come.* Orders that it does not name are dropped, unless they were decided after the index
//!   at which the set was read: a node that lags behind cannot speak of them. Dropping an order destroys nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use supercloud_proto::{
    id::{InstanceId, LogIndex},
    instance::Desired,
    order::Order,
    v1,
};

use crate::ledger::Batch;

/// Fences of forgotten instances that are kept. A forgotten instance is out of the scheduler's state, so that only a node that lags far
/// behind could send it again.
pub const MAX_FENCES: usize = 8192;

/// Orders as they came, in one message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrderSet {
    /// Those that can be understood.
    pub orders: Vec<Order>,
    /// Those that cannot, with what is wrong: a newer scheduler's, perhaps.
    pub strange: Vec<(InstanceId, LogIndex, String)>,
    /// Read at.
    pub index: LogIndex,
    /// Part of a full set.
    pub full: bool,
    /// More parts follow.
    pub more: bool,
}

impl From<v1::Orders> for OrderSet {
    fn from(message: v1::Orders) -> Self {
        let mut set = Self {
            orders: Vec::new(),
            strange: Vec::new(),
            index: message.index,
            full: message.full,
            more: message.more,
        };
        for order in message.orders {
            let (id, index) = (order.instance.clone(), order.index);
            match (Order::try_from(order), id.parse()) {
                (Ok(order), _) => set.orders.push(order),
                (Err(problems), Ok(id)) => set.strange.push((id, index, problems.to_string())),
                (Err(problems), Err(_)) => {
                    tracing::error!(instance = id, %problems, "an order without a readable instance was passed over");
                }
            }
        }
        set
    }
}

/// What an order that came changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Taken {
    /// Orders refused as too old, with the index that stands against them.
    pub refused: Vec<(InstanceId, LogIndex, LogIndex)>,
    /// Orders that the full set does not name.
    pub dropped: Vec<InstanceId>,
    /// A full set is complete.
    pub synced: bool,
}

/// The orders.
#[derive(Debug, Clone, Default)]
pub struct Orders {
    orders: BTreeMap<InstanceId, Arc<Order>>,
    fences: BTreeMap<InstanceId, LogIndex>,
    strange: BTreeMap<InstanceId, (LogIndex, String)>,
    /// Where the newest full set was read; 0: there was none.
    floor: LogIndex,
    /// Instances named so far by a full set that is not complete.
    naming: BTreeSet<InstanceId>,
}

impl Orders {
    /// From a ledger's contents; `floor` is where the newest full set was read.
    pub fn new(
        orders: BTreeMap<InstanceId, Order>,
        fences: BTreeMap<InstanceId, LogIndex>,
        floor: LogIndex,
    ) -> Self {
        let orders = orders.into_iter().map(|(id, order)| (id, Arc::new(order))).collect();
        Self { orders, fences, floor, ..Self::default() }
    }

    /// All orders, by instance.
    pub fn all(&self) -> &BTreeMap<InstanceId, Arc<Order>> {
        &self.orders
    }

    /// Orders that could not be understood: their index and what is wrong.
    pub fn strange(&self) -> &BTreeMap<InstanceId, (LogIndex, String)> {
        &self.strange
    }

    /// Whether any order runs under the lease.
    pub fn has_exclusive(&self) -> bool {
        self.orders.values().any(|order| order.exclusive && order.desired == Desired::Run)
    }

    /// Forgets a half-received full set: its session is over.
    pub fn session_ended(&mut self) {
        self.naming.clear();
    }

    /// Takes in a message of orders. What changed is added to `batch`.
    pub fn take(&mut self, set: OrderSet, batch: &mut Batch) -> Taken {
        let mut taken = Taken::default();
        let unknown = self.fence_of_unknown(&set);
        for (id, index, problems) in set.strange {
            if set.full {
                self.naming.insert(id);
            }
            if self.fences.get(&id).is_none_or(|fence| index > *fence) {
                self.strange.insert(id, (index, problems));
            }
        }
        for order in set.orders {
            let (id, index) = (order.instance, order.index);
            if set.full {
                self.naming.insert(id);
            }
            let fence = self.fences.get(&id).copied().unwrap_or(unknown);
            #[cfg(feature = "planted")]
            let fence = if crate::planted::takes_old_orders() { 0 } else { fence };
            if index < fence {
                taken.refused.push((id, index, fence));
                continue;
            }
            self.strange.remove(&id);
            if self.orders.get(&id).is_none_or(|known| **known != order) {
                batch.accept(&order);
                self.fences.insert(id, index);
                self.orders.insert(id, Arc::new(order));
            }
        }
        if set.full && !set.more {
            let named = std::mem::take(&mut self.naming);
            taken.dropped = self.drop_unnamed(&named, set.index, batch);
            taken.synced = true;
            self.floor = self.floor.max(set.index);
            batch.synced(self.floor);
        }
        taken
    }

    /// The lowest index that an order in such a message may have if nothing is known of its instance. A full set that is as new as the newest says itself
    /// what there is.
    fn fence_of_unknown(&self, set: &OrderSet) -> LogIndex {
        let says_all = set.full && set.index >= self.floor;
        if says_all || self.floor == 0 { 0 } else { self.floor.saturating_add(1) }
    }

    fn drop_unnamed(
        &mut self,
        named: &BTreeSet<InstanceId>,
        index: LogIndex,
        batch: &mut Batch,
    ) -> Vec<InstanceId> {
        self.strange.retain(|id, _| named.contains(id));
        let unnamed = |(id, order): (&InstanceId, &Arc<Order>)| {
            (!named.contains(id) && order.index <= index).then_some(*id)
        };
        let dropped: Vec<_> = self.orders.iter().filter_map(unnamed).collect();
        for id in &dropped {
            let past = self.fences.get(id).map_or(0, |fence| fence.saturating_add(1));
            self.fences.insert(*id, past);
            batch.fence(*id, past);
            self.forget(*id, batch);
        }
        dropped
    }

    /// Drops an order. Its fence stays, within bounds.
    pub fn forget(&mut self, instance: InstanceId, batch: &mut Batch) {
        if self.orders.remove(&instance).is_some() {
            batch.drop_order(instance);
        }
        let surplus = self.fences.len().saturating_sub(self.orders.len() + MAX_FENCES);
        let oldest = self.fences.keys().filter(|id| !self.orders.contains_key(id));
        let oldest: Vec<_> = oldest.take(surplus).copied().collect();
        for id in oldest {
            self.fences.remove(&id);
            batch.drop_fence(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reconcile::world::{instance, service};

    fn order(number: u64, index: LogIndex) -> Order {
        Order { index, ..service(number) }
    }

    fn set(orders: Vec<Order>, index: LogIndex, full: bool, more: bool) -> OrderSet {
        OrderSet { orders, strange: Vec::new(), index, full, more }
    }

    fn ids(orders: &Orders) -> Vec<u64> {
        orders.all().keys().map(|id| id.index).collect()
    }

    #[test]
    fn an_older_order_is_refused_also_for_a_forgotten_instance() {
        let mut orders = Orders::default();
        let mut batch = Batch::default();
        orders.take(set(vec![order(1, 20)], 20, false, false), &mut batch);
        let taken = orders.take(set(vec![order(1, 19)], 21, false, false), &mut batch);
        assert_eq!(taken.refused, [(instance(1), 19, 20)]);
        assert_eq!(orders.all()[&instance(1)].index, 20);
        orders.forget(instance(1), &mut batch);
        let taken = orders.take(set(vec![order(1, 19)], 22, false, false), &mut batch);
        assert_eq!(taken.refused, [(instance(1), 19, 20)]);
        assert!(orders.all().is_empty());
    }

    #[test]
    fn a_full_set_counts_when_it_is_complete_and_drops_what_it_does_not_name() {
        let mut orders = Orders::default();
        let mut batch = Batch::default();
        let first = vec![order(1, 10), order(2, 10), order(3, 30)];
        assert!(orders.take(set(first, 30, true, false), &mut batch).synced);
        let part = orders.take(set(vec![order(1, 10)], 20, true, true), &mut batch);
        assert_eq!(part, Taken::default());
        assert_eq!(ids(&orders), [1, 2, 3]);
        let last = orders.take(set(vec![], 20, true, false), &mut batch);
        assert_eq!(last.dropped, [instance(2)], "3 was decided after the set was read");
        assert_eq!(ids(&orders), [1, 3]);
    }

    #[test]
    fn what_a_full_set_dropped_does_not_come_back_from_a_node_that_lags() {
        let mut orders = Orders::default();
        let mut batch = Batch::default();
        orders.take(set(vec![order(1, 10)], 10, true, false), &mut batch);
        orders.take(set(vec![], 20, true, false), &mut batch);
        let taken = orders.take(set(vec![order(1, 10)], 15, true, false), &mut batch);
        assert_eq!(taken.refused, [(instance(1), 10, 11)]);
        assert!(orders.all().is_empty());
        orders.take(set(vec![order(1, 21)], 21, false, false), &mut batch);
        assert_eq!(ids(&orders), [1], "a newer decision counts");
    }

    #[test]
    fn what_the_newest_full_set_did_not_name_is_old_also_where_nothing_is_known_of_it() {
        let mut orders = Orders::default();
        let mut batch = Batch::default();
        orders.take(set(vec![order(1, 9)], 9, false, false), &mut batch);
        assert_eq!(ids(&orders), [1], "before a full set nothing is known to be old");
        orders.take(set(vec![order(2, 10)], 20, true, false), &mut batch);
        for full in [false, true] {
            let taken = orders.take(set(vec![order(2, 10), order(3, 19)], 19, full, false), &mut batch);
            assert_eq!(taken.refused, [(instance(3), 19, 21)], "full: {full}");
        }
        orders.take(set(vec![order(4, 21)], 21, false, false), &mut batch);
        orders.take(set(vec![order(2, 10), order(3, 19), order(4, 21)], 22, true, false), &mut batch);
        assert_eq!(ids(&orders), [2, 3, 4], "a newer full set says what there is");
        let mut again = Orders::new(BTreeMap::new(), BTreeMap::new(), 22);
        let taken = again.take(set(vec![order(5, 22)], 22, false, false), &mut batch);
        assert_eq!(taken.refused, [(instance(5), 22, 23)], "the ledger tells how new it was");
    }

    #[test]
    fn a_half_set_of_a_session_that_ended_does_not_count_for_the_next() {
        let mut orders = Orders::default();
        let mut batch = Batch::default();
        orders.take(set(vec![order(1, 10), order(2, 10)], 10, true, false), &mut batch);
        orders.take(set(vec![order(1, 10)], 11, true, true), &mut batch);
        orders.session_ended();
        let last = orders.take(set(vec![order(2, 10)], 11, true, false), &mut batch);
        assert_eq!(last.dropped, [instance(1)]);
    }

    #[test]
    fn an_order_that_did_not_change_is_not_written_again() {
        let mut orders = Orders::default();
        orders.take(set(vec![order(1, 10)], 10, false, false), &mut Batch::default());
        let mut batch = Batch::default();
        orders.take(set(vec![order(1, 10)], 11, false, false), &mut batch);
        assert!(batch.is_empty());
    }

    #[test]
    fn fences_are_bounded() {
        let mut orders = Orders::default();
        let mut batch = Batch::default();
        for number in 1..=(MAX_FENCES as u64 + 10) {
            orders.take(set(vec![order(number, 10)], 10, false, false), &mut batch);
            orders.forget(instance(number), &mut batch);
        }
        assert_eq!(orders.fences.len(), MAX_FENCES);
        assert!(!orders.fences.contains_key(&instance(1)));
    }

    #[test]
    fn an_order_that_cannot_be_understood_is_kept_in_words() {
        let message = v1::Orders {
            orders: vec![v1::Order { instance: "i-1-0".to_owned(), index: 4, ..v1::Order::default() }],
            ..v1::Orders::default()
        };
        let mut orders = Orders::default();
        orders.take(message.into(), &mut Batch::default());
        assert!(orders.all().is_empty());
        assert_eq!(orders.strange()[&instance(1)].0, 4);
    }
}
