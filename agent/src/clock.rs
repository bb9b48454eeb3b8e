//! The two clocks, read in one place. Only loops hold a [`Clock`]; everything below takes the time as a parameter.

use std::time::{SystemTime, UNIX_EPOCH};

use nix::time::ClockId;

use crate::reconcile::Now;

/// Tells the time. A test has one that it moves by hand.
pub trait Clock: Send + Sync + 'static {
    /// This moment on both clocks.
    fn now(&self) -> Now;
}

/// The machine's clocks.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Now {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Now { unix: u64::try_from(unix.as_millis()).unwrap_or(u64::MAX), boot: boot_millis() }
    }
}

/// Milliseconds since the machine booted, its sleep included. Linux has had this clock since 2.6.39; where it should fail all the same,
/// leases look as if they had run out, which is the safe side.
fn boot_millis() -> u64 {
    let Ok(time) = ClockId::CLOCK_BOOTTIME.now() else { return u64::MAX };
    let seconds = u64::try_from(time.tv_sec()).unwrap_or(0);
    let nanos = u64::try_from(time.tv_nsec()).unwrap_or(0);
    seconds.saturating_mul(1000) + nanos / 1_000_000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boot_time_is_that_of_the_kernel() {
        let text = std::fs::read_to_string("/proc/uptime").expect("is there");
        let seconds: f64 = text.split(' ').next().expect("two numbers").parse().expect("a number");
        let told = SystemClock.now().boot as f64 / 1000.0;
        assert!((told - seconds).abs() < 5.0, "{told} beside {seconds}");
    }
}
