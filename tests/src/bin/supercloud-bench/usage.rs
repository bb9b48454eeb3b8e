//! What a process takes: processor time and memory, as the kernel counts them.

use std::{fs, time::Duration};

use nix::time::{ClockId, clock_gettime};
use supercloud_tests::{Outcome, Wrong};

/// Ticks of /proc/PID/stat in a second: on Linux it is this for every program, whatever the kernel's own clock.
const TICKS_A_SECOND: u64 = 100;

/// Processor time that a process has taken since it began, in user and in kernel mode.
pub(crate) fn cpu(process: u32) -> Outcome<Duration> {
    let text = fs::read_to_string(format!("/proc/{process}/stat"))?;
    let ticks = ticks(&text).ok_or_else(|| Wrong(format!("no times in {text:?}")))?;
    Ok(Duration::from_millis(ticks * 1000 / TICKS_A_SECOND))
}

/// The same of several processes together.
pub(crate) fn cpu_of_all(processes: &[u32]) -> Outcome<Duration> {
    processes.iter().map(|process| cpu(*process)).sum()
}

/// Processor time that the calling thread has had.
pub(crate) fn spent() -> Outcome<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?.into())
}

/// The most memory that one of several processes has, in MiB.
pub(crate) fn most_rss_mib(processes: &[u32]) -> Outcome<f64> {
    let each = processes.iter().map(|process| rss_mib(*process)).collect::<Outcome<Vec<f64>>>()?;
    Ok(each.into_iter().fold(0.0, f64::max))
}

/// Memory of this process that is in RAM, in MiB.
pub(crate) fn own_rss_mib() -> Outcome<f64> {
    rss_mib(std::process::id())
}

/// The same of any process.
pub(crate) fn rss_mib(process: u32) -> Outcome<f64> {
    status_mib(process, "VmRSS")
}

/// The most that a process ever had there, in MiB.
pub(crate) fn peak_rss_mib(process: u32) -> Outcome<f64> {
    status_mib(process, "VmHWM")
}

fn status_mib(process: u32, field: &str) -> Outcome<f64> {
    let text = fs::read_to_string(format!("/proc/{process}/status"))?;
    let kib = field_kib(&text, field).ok_or_else(|| Wrong(format!("no {field} of {process}")))?;
    Ok(kib as f64 / 1024.0)
}

/// Memory that nobody has taken, in MiB.
pub(crate) fn available_mib() -> Outcome<f64> {
    let text = fs::read_to_string("/proc/meminfo")?;
    let kib = field_kib(&text, "MemAvailable").ok_or_else(|| Wrong("no MemAvailable".to_owned()))?;
    Ok(kib as f64 / 1024.0)
}

/// Fields 14 and 15, counted behind the name, which may hold anything.
fn ticks(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11);
    let mut next = || fields.next()?.parse::<u64>().ok();
    Some(next()? + next()?)
}

fn field_kib(text: &str, name: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    value.trim().strip_suffix("kB")?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_words_are_read() -> Outcome {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 1 2 3 4 150 25 6 7 20 0 3 0 99";
        assert_eq!((ticks(stat), ticks("7 (a")), (Some(175), None));
        let status = "Name:\tx\nVmPeak:\t 10 kB\nVmRSS:\t  2048 kB\n";
        assert_eq!((field_kib(status, "VmRSS"), field_kib(status, "Vm")), (Some(2048), None));
        let own = std::process::id();
        assert!(rss_mib(own)? > 0.1 && cpu(own).is_ok() && available_mib()? > 1.0);
        Ok(())
    }
}
