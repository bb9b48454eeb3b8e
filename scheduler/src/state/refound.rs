//! A saved state as the beginning of a new history of its cluster. Pure.
//!
//! What agents have done since the state was saved is not in it, and they obey no order that is older than one they accepted. So every order is
//! decided anew, at the index at which the new history begins, which lies beyond all that the old one can have reached: see `crate::restore`.

use std::sync::Arc;

use imbl::OrdMap;
use supercloud_proto::id::LogIndex;

use super::{State, model::Instance};

impl State {
    /// The state as it is to begin with at `index`: all orders stem from there, and there are no join tokens, since a token that was used up after the
    /// saving must not be good a second time.
    #[must_use]
    pub fn refounded(mut self, index: LogIndex) -> Self {
        self.applied = index;
        self.tokens = OrdMap::new();
        let instance = |(id, instance): (_, Arc<Instance>)| {
            (id, Arc::new(Instance { order_index: index, ..Instance::clone(&instance) }))
        };
        self.instances = self.instances.into_iter().map(instance).collect();
        self.orders = self.orders.into_iter().map(|(host, _)| (host, index)).collect();
        self
    }
}
