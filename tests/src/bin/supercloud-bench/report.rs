//! What was measured: one JSON object with the commit, the machine, the probe of its disk, and the figures.

use std::{
    collections::BTreeMap,
    fs::{self, OpenOptions},
    io::Write,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use serde_json::{Number, Value, json};
use supercloud_tests::{Outcome, programs};

use crate::sample::median;

/// Where the probe writes: the disk that the programs under measurement write to.
const PLACE: &str = "/var/lib";
/// Writes of one probe: about a tenth of a second on a quiet disk.
const PROBES: usize = 300;
/// Bytes of each.
const PROBE_BYTES: usize = 4096;

/// The report under way.
pub(crate) struct Report {
    probes: Vec<Duration>,
    figures: BTreeMap<String, f64>,
    /// What was not measured, and why.
    left_out: BTreeMap<String, String>,
}

impl Report {
    /// Begins with a look at the disk, and says what is measured and where.
    pub(crate) fn begin() -> Outcome<Self> {
        let mut report = Self { probes: Vec::new(), figures: BTreeMap::new(), left_out: BTreeMap::new() };
        report.probe()?;
        println!("version {} ({}) on {}", env!("CARGO_PKG_VERSION"), commit(), machine());
        report.tell_probe();
        Ok(report)
    }

    fn fdatasync_micros(&self) -> f64 {
        (median(&self.probes).as_secs_f64() * 1e6).round()
    }

    fn tell_probe(&self) {
        println!("{:<40} {}", "probe: fdatasync_p50_us", self.fdatasync_micros());
    }

    /// Measures what an `fdatasync` of a small append costs at this moment.
    pub(crate) fn probe(&mut self) -> Outcome {
        let path = Path::new(PLACE).join(format!("supercloud-bench-probe-{}", std::process::id()));
        let mut file = OpenOptions::new().create_new(true).append(true).open(&path)?;
        let measured = (0..PROBES).try_for_each(|_| {
            let begun = Instant::now();
            file.write_all(&[0x5a; PROBE_BYTES])?;
            file.sync_data()?;
            self.probes.push(begun.elapsed());
            std::io::Result::Ok(())
        });
        fs::remove_file(&path)?;
        Ok(measured?)
    }

    /// Notes a figure, rounded to what was really measured.
    pub(crate) fn note(&mut self, key: impl Into<String>, value: f64) {
        let (key, value) = (key.into(), (value * 1000.0).round() / 1000.0);
        println!("{key:<40} {value}");
        self.figures.insert(key, value);
    }

    /// Notes that something could not be measured: said at once, again at the end, and in the object under `left_out`.
    pub(crate) fn leave_out(&mut self, what: impl Into<String>, why: String) {
        let what = what.into();
        eprintln!("LEFT OUT: {what}: {why}");
        self.left_out.insert(what, why);
    }

    /// Probes once more, and writes the object to standard output or to a file.
    pub(crate) fn finish(mut self, file: Option<&Path>) -> Outcome {
        self.probe()?;
        let figures: serde_json::Map<String, Value> = self
            .figures
            .iter()
            .map(|(key, value)| (key.clone(), Number::from_f64(*value).map_or(Value::Null, Value::Number)))
            .collect();
        self.tell_probe();
        let mut object = json!({
            "commit": commit(),
            "version": env!("CARGO_PKG_VERSION"),
            "machine": machine(),
            "probe": { "fdatasync_p50_us": self.fdatasync_micros() },
            "figures": figures,
        });
        if !self.left_out.is_empty() {
            object["left_out"] = json!(self.left_out);
            self.left_out.iter().for_each(|(what, why)| eprintln!("LEFT OUT: {what}: {why}"));
        }
        let text = serde_json::to_string_pretty(&object)?;
        match file {
            Some(file) => fs::write(file, text + "\n")?,
            None => println!("{text}"),
        }
        Ok(())
    }
}

fn commit() -> String {
    let git = |words: &[&str]| {
        let output = Command::new("git").arg("-C").arg(programs::repository()).args(words).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let Some(commit) = git(&["rev-parse", "HEAD"]) else { return "unknown".to_owned() };
    let is_clean = git(&["status", "--porcelain"]).is_some_and(|changes| changes.is_empty());
    if is_clean { commit } else { format!("{commit} with changes") }
}

/// Cores, memory, kernel, and whether the processor runs guests by itself.
fn machine() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let memory = read("/proc/meminfo")
        .lines()
        .find_map(|line| {
            line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()
        })
        .unwrap_or_default();
    let kvm = if Path::new("/dev/kvm").exists() { "/dev/kvm is there" } else { "no /dev/kvm" };
    let kernel = read("/proc/sys/kernel/osrelease");
    format!("{cores} cores, {} GiB, Linux {}, {kvm}", memory.div_ceil(1 << 20), kernel.trim())
}
