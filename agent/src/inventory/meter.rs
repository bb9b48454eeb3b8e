//! What is truly used of the host, for show: a look at /proc with each heartbeat. What cannot be read counts as nothing.

use std::{fs, path::PathBuf};

use nix::sys::statvfs::statvfs;
use supercloud_proto::amount::{Amounts, Bytes, MilliCpu};

/// The machine's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Memory {
    pub(super) total: Bytes,
    pub(super) available: Bytes,
}

pub(super) fn memory() -> Option<Memory> {
    parse_memory(&fs::read_to_string("/proc/meminfo").ok()?)
}

fn parse_memory(text: &str) -> Option<Memory> {
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
        Some(Bytes(kib.saturating_mul(1024)))
    };
    Some(Memory { total: field("MemTotal")?, available: field("MemAvailable")? })
}

/// Processor time since boot, in ticks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Ticks {
    busy: u64,
    all: u64,
}

/// Of the first line of /proc/stat: user, nice, system, idle, iowait, irq, softirq, steal.
fn parse_ticks(text: &str) -> Option<Ticks> {
    let line = text.lines().next()?.strip_prefix("cpu ")?;
    let numbers: Vec<u64> = line.split_whitespace().take(8).map_while(|n| n.parse().ok()).collect();
    let all = numbers.iter().sum();
    let idle: u64 = numbers.iter().skip(3).take(2).sum();
    (numbers.len() == 8).then_some(Ticks { busy: all - idle, all })
}

/// Measures what is used, processor time between one look and the next.
#[derive(Debug)]
pub struct Meter {
    data_dir: PathBuf,
    cpus: u64,
    last: Ticks,
}

impl Meter {
    /// A meter of a machine with so much processor time, whose disk is the file system of `data_dir`.
    pub fn new(data_dir: PathBuf, cpu: MilliCpu) -> Self {
        Self { data_dir, cpus: cpu.0, last: Ticks::default() }
    }

    /// What is used now.
    pub fn used(&mut self) -> Amounts {
        let now = fs::read_to_string("/proc/stat").ok().and_then(|text| parse_ticks(&text));
        let now = now.unwrap_or(self.last);
        let busy = now.busy.saturating_sub(self.last.busy);
        let all = now.all.saturating_sub(self.last.all).max(1);
        self.last = now;
        let memory = memory().map_or(0, |memory| memory.total.0.saturating_sub(memory.available.0));
        let disk = statvfs(&self.data_dir).map_or(0, |disk| {
            disk.blocks().saturating_sub(disk.blocks_free()).saturating_mul(disk.fragment_size())
        });
        Amounts {
            cpu: MilliCpu(self.cpus.saturating_mul(busy) / all),
            memory: Bytes(memory),
            disk: Bytes(disk),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_is_read() {
        let text = "cpu  10 0 5 80 5 0 0 0 7 0\ncpu0 1 1 1 1\n";
        assert_eq!(parse_ticks(text), Some(Ticks { busy: 15, all: 100 }));
        assert_eq!(parse_ticks("cpu 1 2\n"), None);
        let text = "MemTotal:  2000 kB\nMemFree: 1 kB\nMemAvailable:  500 kB\n";
        let expected = Memory { total: Bytes(2_048_000), available: Bytes(512_000) };
        assert_eq!(parse_memory(text), Some(expected));
        let used = Meter::new(std::env::temp_dir(), MilliCpu(2000)).used();
        assert!(used.memory.0 > 0 && used.cpu.0 <= 2000);
    }
}
