//! The lease of exclusive instances: until when this host may run them without hearing from the scheduler. By the boot clock, since the
//! world's clock jumps and a monotonic one stands still while the machine sleeps.

use supercloud_proto::id::Millis;

/// Until when exclusive instances may run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// Boot time at which it runs out: the sending of the last heartbeat that was answered, and the lease's length.
    pub until: Millis,
    /// Whether this agent's own memory knows of an answered heartbeat. A lease that was only assumed, after the memory was lost, lets
    /// run what runs and starts nothing.
    pub confirmed: bool,
}

impl Lease {
    /// Whether exclusive instances must stop.
    pub fn has_lapsed(self, boot: Millis) -> bool {
        boot >= self.until
    }

    /// Whether exclusive instances may be started.
    pub fn lets_start(self, boot: Millis) -> bool {
        self.confirmed && !self.has_lapsed(boot)
    }

    /// The lease after a heartbeat that was sent at `sent` has been answered. An answer that comes late never shortens it.
    pub fn renewed(self, sent: Millis, length: Millis) -> Self {
        let until = sent.saturating_add(length);
        Self { until: if self.confirmed { self.until.max(until) } else { until }, confirmed: true }
    }
}
