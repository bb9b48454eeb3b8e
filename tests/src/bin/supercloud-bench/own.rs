//! What this process itself has used.

use std::{fs, time::Duration};

use nix::time::{ClockId, clock_gettime};
use supercloud_tests::Outcome;

/// Bytes of a page in `/proc/self/statm`.
const PAGE: f64 = 4096.0;

/// Processor time that this thread has had.
pub(crate) fn spent() -> Outcome<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?.into())
}

/// In MiB.
pub(crate) fn mib(bytes: f64) -> f64 {
    bytes / f64::from(1 << 20)
}

/// Bytes that this process has in memory.
pub(crate) fn resident() -> Outcome<f64> {
    let text = fs::read_to_string("/proc/self/statm")?;
    let pages = text.split_whitespace().nth(1).ok_or("statm has a second field")?;
    Ok(pages.parse::<f64>()? * PAGE)
}
