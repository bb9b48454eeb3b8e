//! The replicated state alone, in this process: 10,000 hosts and 1,000 workloads of 1,000, created, placed and reported as running through the
//! real machine and the real archive. What a step costs, what an instance takes of memory, what a snapshot takes to write and to read.
//!
//! It knows no log, no network and no agent: what those add is measured on whole programs. Steps are given in processor time of the one thread that
//! does them, so that neighbours count for little; entries are decoded as a follower decodes them, and a version is published after each, as the
//! log's thread does. What is given in seconds went by on the clock.

use std::{
    fs::{self, File},
    io::{BufReader, BufWriter, Write as _},
    time::{Duration, Instant},
};

use supercloud_proto::{
    id::{HostId, InstanceId},
    instance::InstanceState,
};
use supercloud_scheduler::{
    archive::{Archive, Feed, Retention, Settings},
    placement::{Engine, Limits},
    raft::{Machine, Members},
    replica::Replica,
    state::{Command, Entry, HostReports, State},
};
use supercloud_tests::{Outcome, wrong};
use tokio::sync::watch;

use crate::{
    Options,
    records::{NOW, PLACEMENTS_OF_AN_ENTRY, inventory, report_of, spec},
    report::Report,
    usage::{own_rss_mib, spent},
};

const HOSTS: u32 = 10_000;
const WORKLOADS: u32 = 1_000;
const INSTANCES_EACH: u32 = 1_000;
const INSTANCES: u32 = WORKLOADS * INSTANCES_EACH;
/// Reports of one host at a time.
const REPORTS_EACH: usize = 10;
/// Hosts whose reports share an entry, as a busy node gathers them.
const HOSTS_EACH: usize = 50;
/// Bytes of one MiB.
const MIB: f64 = (1 << 20) as f64;
/// Longest wait for the archive after everything has been handed to it.
const ARCHIVE_DEADLINE: Duration = Duration::from_secs(120);

/// The bench.
pub(crate) fn run(_: &Options, report: &mut Report) -> Outcome {
    let directory = tempfile::Builder::new().prefix("supercloud-bench-state").tempdir_in("/var/lib")?;
    let (archive, feed) = Archive::open(Settings {
        directory: directory.path().join("archive"),
        cluster: "bench".to_owned(),
        retention: Retention::default(),
    });
    let mut node = Node::new(feed.clone());
    node.hosts()?;
    report.probe()?;
    let before = own_rss_mib()?;
    node.create(report)?;
    node.place(report)?;
    report.note("state_rss_mib_placed", own_rss_mib()? - before);
    node.run_all(report)?;
    let grown = own_rss_mib()? - before;
    report.note("state_bytes_per_instance", grown * MIB / f64::from(INSTANCES));
    report.note("state_rss_mib", own_rss_mib()?);
    report.note("archive_behind_s", wait_for(&archive, node.index)?.as_secs_f64());
    let path = directory.path().join("snapshot");
    let (begun, processor) = (Instant::now(), spent()?);
    let copy = node.machine.copy();
    let mut file = BufWriter::new(File::create(&path)?);
    Replica::write_snapshot(copy, &mut file)?;
    file.flush()?;
    report.note("snapshot_write_s", begun.elapsed().as_secs_f64());
    report.note("snapshot_write_processor_s", (spent()? - processor).as_secs_f64());
    report.note("snapshot_mib", fs::metadata(&path)?.len() as f64 / MIB);
    let hash = node.state().hash();
    drop(node);
    let before = own_rss_mib()?;
    let (mut restored, states) = Replica::new(feed);
    let (begun, processor) = (Instant::now(), spent()?);
    restored
        .restore(u64::MAX - 1, &mut BufReader::new(File::open(&path)?))
        .map_err(|error| error.to_string())?;
    restored.applied_batch(u64::MAX - 1, &Members::default());
    report.note("snapshot_read_s", begun.elapsed().as_secs_f64());
    report.note("snapshot_read_processor_s", (spent()? - processor).as_secs_f64());
    report.note("state_rss_mib_after_restart", own_rss_mib()?);
    eprintln!("resident before the restart {} MiB", before.round());
    let same = states.borrow().instances().len() == INSTANCES as usize;
    if !same || hash.iter().all(|byte| *byte == 0) {
        return wrong("a restart lost something");
    }
    report.probe()
}

/// The machine of one node, fed as its log would feed it.
struct Node {
    machine: Replica,
    states: watch::Receiver<State>,
    index: u64,
    members: Members,
}

impl Node {
    fn new(feed: Feed) -> Self {
        let (machine, states) = Replica::new(feed);
        Self { machine, states, index: 0, members: Members::default() }
    }

    fn state(&self) -> State {
        self.states.borrow().clone()
    }

    /// Applies one entry and publishes; gives the time of both.
    fn apply(&mut self, entry: &[u8]) -> Outcome<Duration> {
        let begun = spent()?;
        self.index += 1;
        let outcome = self.machine.apply(self.index, entry);
        self.machine.applied_batch(self.index, &self.members);
        let took = spent()? - begun;
        outcome.result.map_err(|rejection| format!("refused: {rejection}"))?;
        Ok(took)
    }

    fn hosts(&mut self) -> Outcome {
        self.apply(&entry(Command::CreateBorough { name: "camden".parse()?, title: "Camden".to_owned() }))?;
        for number in 1..=HOSTS {
            self.apply(&entry(Command::RegisterHost {
                name: format!("host-{number:05}").parse()?,
                inventory: Box::new(inventory(number)?),
                incarnation: format!("installation-{number:05}"),
            }))?;
        }
        Ok(())
    }

    fn create(&mut self, report: &mut Report) -> Outcome {
        let mut took = Duration::ZERO;
        for number in 0..WORKLOADS {
            let spec = Box::new(spec(number, INSTANCES_EACH)?);
            took += self.apply(&entry(Command::ApplyWorkload { spec, expect_revision: None }))?;
        }
        report.note("state_create_ns", each(took));
        Ok(())
    }

    fn place(&mut self, report: &mut Report) -> Outcome {
        let (mut passing, mut encoding, mut applying, mut bytes) =
            (Duration::ZERO, Duration::ZERO, Duration::ZERO, 0);
        let mut engine = Engine::new(&self.state());
        while self.state().pending_count() > 0 {
            let state = self.state();
            let begun = spent()?;
            let plan = engine.pass(&state, NOW, Limits::default());
            passing += spent()? - begun;
            if plan.placements.is_empty() {
                return wrong("a pass placed nothing");
            }
            drop(state);
            for chunk in plan.placements.chunks(PLACEMENTS_OF_AN_ENTRY) {
                let begun = spent()?;
                let entry = entry(Command::PlaceMany(chunk.to_vec()));
                encoding += spent()? - begun;
                bytes += entry.len();
                applying += self.apply(&entry)?;
            }
        }
        report.note("state_pass_ns", each(passing));
        report.note("state_place_encode_ns", each(encoding));
        report.note("state_place_bytes", bytes as f64 / f64::from(INSTANCES));
        report.note("state_place_ns", each(applying));
        Ok(())
    }

    /// Every host's agent reports its instances: being made ready, each host in entries of its own; then running, many hosts in one.
    fn run_all(&mut self, report: &mut Report) -> Outcome {
        let turns = self.turns();
        let mut took = Duration::ZERO;
        for turn in &turns {
            let HostReports { host, reports } = turn.reports(InstanceState::Preparing, NOW)?;
            took += self.apply(&entry(Command::Report { host, reports }))?;
        }
        report.note("state_report_ns", each(took));
        took = Duration::ZERO;
        for many in turns.chunks(HOSTS_EACH) {
            let reports = many.iter().map(|turn| turn.reports(InstanceState::Running, 2 * NOW));
            let command = Command::ReportMany(reports.collect::<Outcome<_>>()?);
            took += self.apply(&entry(command))?;
        }
        report.note("state_report_many_ns", each(took));
        Ok(())
    }

    /// All instances, some of each host at a time and all hosts in turn.
    fn turns(&self) -> Vec<Turn> {
        let state = self.state();
        let mut turns = Vec::new();
        for host in state.hosts().keys() {
            let here: Vec<InstanceId> = state.instances_on(*host).map(|instance| instance.id).collect();
            turns.extend(here.chunks(REPORTS_EACH).enumerate().map(|(number, some)| Turn {
                number: number as u64,
                host: *host,
                instances: some.to_vec(),
            }));
        }
        turns.sort_by_key(|turn| (turn.number, turn.host));
        turns
    }
}

/// Some instances of one host.
struct Turn {
    number: u64,
    host: HostId,
    instances: Vec<InstanceId>,
}

impl Turn {
    /// What its agent says of them; sequences grow from turn to turn.
    fn reports(&self, state: InstanceState, from: u64) -> Outcome<HostReports> {
        let first = from + self.number * REPORTS_EACH as u64;
        let reports = (first..).zip(&self.instances).map(|(sequence, id)| report_of(*id, sequence, state));
        Ok(HostReports { host: self.host, reports: reports.collect::<Outcome<_>>()? })
    }
}

/// How long the archive takes to have everything on disk.
fn wait_for(archive: &Archive, index: u64) -> Outcome<Duration> {
    let (begun, status) = (Instant::now(), archive.status());
    while status.borrow().durable < index {
        if begun.elapsed() > ARCHIVE_DEADLINE || status.borrow().gap.is_some() {
            eprintln!("the archive missed events: {:?}", *status.borrow());
            return Ok(begun.elapsed());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(begun.elapsed())
}

fn entry(command: Command) -> Vec<u8> {
    Entry { time: NOW, by: "scheduler".to_owned(), request_id: String::new(), command }.encode()
}

/// Nanoseconds for each instance.
fn each(took: Duration) -> f64 {
    took.as_nanos() as f64 / f64::from(INSTANCES)
}
