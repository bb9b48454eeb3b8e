//! What of each host decides on most requests: how much of it is free. It is kept in as many bytes as a processor fetches at once, and apart from
//! all else that is known of hosts: whoever puts an order of them right looks at many, and to get at a record and at what is given away takes longer
//! than to judge a host.

use supercloud_proto::{amount::Amounts, device::DeviceRequest};

use super::Seat;
use crate::{
    placement::outlook::{FreeAtMost, Numbered},
    state::SitePolicy,
};

/// How a host looks from afar: all that counts to whoever asks for amounts alone, and enough to pass over most hosts that are full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(align(64))]
pub(in crate::placement) struct Glance {
    /// What can still be given away.
    pub(in crate::placement) free: Amounts,
    /// Processor and memory that can be given away in all.
    pub(in crate::placement) whole: [u64; 2],
    /// The policy of its site.
    pub(in crate::placement) policy: SitePolicy,
    /// Whether a host is there.
    pub(in crate::placement) is_taken: bool,
    /// Whether it has devices.
    pub(in crate::placement) has_devices: bool,
    /// What of these is free, at most.
    free_devices: FreeAtMost,
}

const _: () = assert!(size_of::<Glance>() == 64, "it is fetched at once");

impl Glance {
    pub(super) fn of(seat: &Seat) -> Self {
        let Seat { allocatable, used, .. } = seat;
        Self {
            free: allocatable.saturating_sub(used.taken),
            whole: [allocatable.cpu.0, allocatable.memory.0],
            policy: used.policy,
            is_taken: seat.taken,
            has_devices: seat.devices.is_some(),
            free_devices: seat.devices.as_ref().map(Numbered::at_most).unwrap_or_default(),
        }
    }

    /// Whether each of these requests may be granted, as far as can be seen at a glance.
    pub(in crate::placement) fn may_grant(&self, requests: &[DeviceRequest]) -> bool {
        requests.iter().all(|request| self.free_devices.may_grant(request))
    }
}
