//! The two clocks, read only here: the world's, for stamps that people see, and the machine's since boot, for leases.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::time::{ClockId, clock_gettime};
use supercloud_proto::id::{Millis, UnixMillis};

/// Now, by the world's clock. It may jump; nothing that must be safe hangs on it.
#[must_use]
pub fn unix_now() -> UnixMillis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Time since the machine booted, its sleep included (`Instant` stands still while it sleeps).
#[must_use]
pub fn boot_now() -> Duration {
    #[expect(
        clippy::expect_used,
        reason = "every Linux since 2.6.39 has this clock; without it no lease can be kept"
    )]
    clock_gettime(ClockId::CLOCK_BOOTTIME).expect("CLOCK_BOOTTIME is there").into()
}

/// The same in milliseconds.
#[must_use]
pub fn boot_millis() -> Millis {
    u64::try_from(boot_now().as_millis()).unwrap_or(u64::MAX)
}
