//! When this node last heard the leader: the age of what a stale read shows. Knows no reader.
//!
//! Decision: kept beside the log, not in its status, which would otherwise change with every heartbeat and wake everybody who waits for news.
//! A leader is always fresh; cut off from the others it goes on calling itself one until it has heard no majority for an election's
//! time, so what it calls fresh may be half a second old.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use supercloud_proto::id::Millis;
use tokio::sync::watch;

use crate::{
    clock::boot_millis,
    raft::{NodeId, Role, Status},
};

/// See the head of the module. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Contact {
    /// By the boot clock, which is above 0 by then; 0: never.
    last: Arc<AtomicU64>,
}

impl Contact {
    /// A message of a node has come.
    pub(crate) fn heard(&self, from: NodeId, status: &Status) {
        if status.leader == Some(from) {
            self.last.store(boot_millis(), Ordering::Relaxed);
        }
    }

    /// How long ago this node heard the leader, or was it; `None`: never since it started.
    pub(crate) fn age(&self, status: &Status) -> Option<Millis> {
        if status.role == Role::Leader {
            return Some(0);
        }
        let last = self.last.load(Ordering::Relaxed);
        (last > 0).then(|| boot_millis().saturating_sub(last))
    }

    /// Notes the end of each leadership of this node, until it stops.
    pub(crate) async fn run(self, mut nodes: watch::Receiver<Status>) {
        let mut led = false;
        loop {
            let leads = nodes.borrow_and_update().role == Role::Leader;
            if led && !leads {
                self.last.store(boot_millis(), Ordering::Relaxed);
            }
            led = leads;
            // An end of the channel means that the node has stopped.
            let Ok(()) = nodes.changed().await else { return };
        }
    }
}
