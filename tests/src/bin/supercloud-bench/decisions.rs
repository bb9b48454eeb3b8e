//! What a decision costs: from an instance that waits to a host chosen and its resources taken, with all filters and scores, by the engine that
//! the leader runs. In this process, on a state of real commands: no log, no network. Times are processor time of the one thread.
//!
//! The estate: hosts of one kind, seven tenths full of workloads of a thousand that ask for what real requests ask for (`wants`). Then, each on that
//! estate by itself:
//! - `decisions_w1000`, `decisions_spread`, `decisions_apart`: workloads of 1,000, plain, spread over sites and racks, and no two on a host;
//! - `decisions_boroughs`: workloads of 1,000 of 33 boroughs, which take turns;
//! - `decisions_churn`: a workload of 1,000 ends and another one comes, time and again;
//! - `decisions_w1`: workloads of 1;
//! - `decision_p50_us` and on: another workload of one comes, and a pass is run for it alone, with all that it costs to learn what changed since the
//!   last;
//! - `decisions_lost_host_ms`: a host is lost, and passes place what was on it;
//! - `decisions_fruitless_us`: a pass for one instance that fits while a tenth of a million wait that fit nowhere.
//!
//! Keys are of 10,000 hosts with 1,001,000 instances; of 1,000 and 100,000 hosts, with 100,000 and 980,000, they end in `_1k` and `_100k`.
//! `decision_cost_ratio_100k` is the larger of what `decisions_w1000` and `decisions_w1` cost more with 100,000 hosts than with 10,000.

use std::{cell::Cell, time::Duration};

use supercloud_proto::{
    amount::MilliCpu,
    host::HostState,
    id::HostId,
    name::BoroughName,
    spec::{SpreadOver, WorkloadSpec},
};
use supercloud_scheduler::{
    placement::{Engine, Limits},
    state::{Command, HostReports, HostVerdict, State},
};
use supercloud_tests::{Outcome, wrong};

use crate::{
    Options,
    records::{self, NOW, PLACEMENTS_OF_AN_ENTRY, inventory, register, spec},
    report::Report,
    sample::{Sample, micros, millis},
    usage::{own_rss_mib, spent},
    wants::Wants,
};

/// An estate: hosts, instances that would fill one, and how its keys end.
const ESTATES: [(u32, u64, &str); 3] = [(1_000, 143, "_1k"), (10_000, 143, ""), (100_000, 14, "_100k")];
/// Of a hundred instances that would fill the estate so many are there at first.
const PERCENT: u64 = 70;
/// Instances of a workload.
const EACH: u32 = 1_000;
/// Of the estate's instances this part is placed in each series.
const SERIES_SHARE: u64 = 20;
/// Workloads of one.
const SINGLES: u32 = 20_000;
/// Boroughs that wait at once.
const BOROUGHS: usize = 33;
/// Workloads that end and come.
const ROUNDS: u32 = 20;
/// Workloads of one that are placed before each series, so that an engine knows all that is asked for.
const WARM_UP: u32 = 200;
/// Decisions that are timed one by one.
const TIMED: usize = 5_000;
/// Instances that fit nowhere.
const FRUITLESS: u32 = 100_000;

/// The bench.
pub(crate) fn run(options: &Options, report: &mut Report) -> Outcome {
    let estates = if options.quick { &ESTATES[..1] } else { &ESTATES[..] };
    let costs = estates.iter().map(|shape| measure(*shape, report)).collect::<Outcome<Vec<_>>>()?;
    if let [_, ten, hundred] = costs[..] {
        report.note("decision_cost_ratio_100k", (ten.0 / hundred.0).max(ten.1 / hundred.1));
    }
    Ok(())
}

/// One estate; gives its `decisions_w1000` and `decisions_w1`.
fn measure((hosts, full, suffix): (u32, u64, &str), report: &mut Report) -> Outcome<(f64, f64)> {
    let mut note = |key: &str, value: f64| report.note(format!("{key}{suffix}"), value);
    let mut estate = Estate::new(hosts, full)?;
    estate.fill()?;
    let before = own_rss_mib()?;
    let plain = estate.crowds(|_| ())?;
    note("decisions_w1000", plain);
    let over = |spec: &mut WorkloadSpec| spec.place.spread = vec![SpreadOver::Site, SpreadOver::Rack];
    note("decisions_spread", estate.crowds(over)?);
    note("decisions_apart", estate.crowds(|spec| spec.place.distinct_hosts = true)?);
    let turn = Cell::new(0);
    let of_boroughs = |spec: &mut WorkloadSpec| {
        let number = turn.replace((turn.get() + 1) % BOROUGHS);
        spec.borough = estate.boroughs[number].clone();
    };
    note("decisions_boroughs", estate.crowds(of_boroughs)?);
    note("decisions_churn", estate.churn()?);
    let singles = estate.singles()?;
    note("decisions_w1", singles);
    let timed = estate.one_by_one()?;
    for (key, parts) in [("p50", 500), ("p99", 990), ("p999", 999)] {
        note(&format!("decision_{key}_us"), micros(timed.permille(parts)));
    }
    note("decisions_engine_mib", own_rss_mib()? - before);
    note("decisions_lost_host_ms", millis(estate.lose_a_host()?));
    note("decisions_fruitless_us", micros(estate.fruitless()?));
    Ok((plain, singles))
}

/// A state, and what is still to be asked of it.
#[derive(Clone)]
struct Estate {
    state: State,
    hosts: u32,
    /// Instances that would fill a host.
    full: u64,
    wants: Wants,
    workloads: u32,
    boroughs: Vec<BoroughName>,
}

impl Estate {
    fn new(hosts: u32, full: u64) -> Outcome<Self> {
        let wants = Wants::new(hosts.into())?;
        let names = (0..BOROUGHS).map(|number| format!("borough-{number:02}").parse());
        let boroughs = names.collect::<Result<Vec<BoroughName>, _>>()?;
        let mut estate = Self { state: State::default(), hosts, full, wants, workloads: 0, boroughs };
        for name in estate.boroughs.clone() {
            let title = name.to_string();
            estate.apply(Command::CreateBorough { name, title })?;
        }
        estate.apply(Command::CreateBorough { name: "camden".parse()?, title: "Camden".to_owned() })?;
        for number in 1..=hosts {
            let mut inventory = inventory(number)?;
            (inventory.capacity.cpu, inventory.capacity.memory) = Wants::of_many(full);
            register(&mut estate.state, number, inventory)?;
        }
        Ok(estate)
    }

    /// How many instances would fill it.
    fn room(&self) -> u64 {
        u64::from(self.hosts) * self.full
    }

    fn apply(&mut self, command: Command) -> Outcome {
        records::apply(&mut self.state, command)
    }

    /// Hands in another workload, with what some real request asks for.
    fn hand_in(&mut self, count: u32, change: impl FnOnce(&mut WorkloadSpec)) -> Outcome {
        self.workloads += 1;
        let mut spec = spec(self.workloads, count)?;
        spec.resources = self.wants.draw();
        change(&mut spec);
        self.apply(Command::ApplyWorkload { spec: Box::new(spec), expect_revision: None })
    }

    fn fill(&mut self) -> Outcome {
        let goal = self.room() * PERCENT / 100;
        let mut engine = Engine::new(&self.state);
        for _ in 0..goal / u64::from(EACH) {
            self.hand_in(EACH, |_| ())?;
            self.place(&mut engine)?;
        }
        Ok(())
    }

    /// Runs passes until nothing waits, and takes their placements in. Gives how many, and the time of the passes.
    fn place(&mut self, engine: &mut Engine) -> Outcome<(usize, Duration)> {
        let (mut placed, mut took) = (0, Duration::ZERO);
        while self.state.pending_count() > 0 {
            let state = self.state.clone();
            let begun = spent()?;
            let plan = engine.pass(&state, NOW, Limits::default());
            took += spent()? - begun;
            drop(state);
            if plan.placements.is_empty() {
                return wrong(format!("a pass placed nothing, and {} wait", self.state.pending_count()));
            }
            placed += plan.placements.len();
            for chunk in plan.placements.chunks(PLACEMENTS_OF_AN_ENTRY) {
                self.apply(Command::PlaceMany(chunk.to_vec()))?;
            }
        }
        Ok((placed, took))
    }

    /// The same estate by itself, and an engine that has met what is asked for.
    fn begin(&self) -> Outcome<(Self, Engine)> {
        let mut estate = self.clone();
        let mut engine = Engine::new(&estate.state);
        for _ in 0..WARM_UP {
            estate.hand_in(1, |_| ())?;
        }
        estate.place(&mut engine)?;
        Ok((estate, engine))
    }

    /// Decisions a second for workloads of 1,000.
    fn crowds(&self, change: impl Fn(&mut WorkloadSpec)) -> Outcome<f64> {
        let (mut estate, mut engine) = self.begin()?;
        // What is left is room on three tenths of the hosts.
        let each = EACH.min(self.hosts / 10);
        for _ in 0..(self.room() / SERIES_SHARE / u64::from(each)).min(100) {
            estate.hand_in(each, &change)?;
        }
        rate(estate.place(&mut engine)?)
    }

    /// Decisions a second while as much ends as comes.
    fn churn(&self) -> Outcome<f64> {
        let (mut estate, mut engine) = self.begin()?;
        let (mut placed, mut took) = (0, Duration::ZERO);
        for number in 1..=ROUNDS {
            estate.end(number)?;
            estate.hand_in(EACH, |_| ())?;
            let (more, time) = estate.place(&mut engine)?;
            placed += more;
            took += time;
        }
        rate((placed, took))
    }

    /// Stops a workload, and lets its hosts say that it is gone.
    fn end(&mut self, number: u32) -> Outcome {
        let key = spec(number, 1)?.key();
        let reports = HostReports::of_stopped(self.state.instances_of(&key), NOW);
        self.apply(Command::StopWorkload { key, purge: false })?;
        self.apply(Command::ReportMany(reports))
    }

    /// Decisions a second for workloads of 1.
    fn singles(&self) -> Outcome<f64> {
        let (mut estate, mut engine) = self.begin()?;
        for _ in 0..SINGLES.min(self.hosts * 5) {
            estate.hand_in(1, |_| ())?;
        }
        rate(estate.place(&mut engine)?)
    }

    /// The times of single decisions.
    fn one_by_one(&self) -> Outcome<Sample> {
        let (mut estate, mut engine) = self.begin()?;
        let mut sample = Sample::default();
        for _ in 0..TIMED {
            estate.hand_in(1, |_| ())?;
            let (placed, took) = estate.place(&mut engine)?;
            if placed != 1 {
                return wrong(format!("{placed} placements instead of one"));
            }
            sample.add(took);
        }
        Ok(sample)
    }

    fn lose_a_host(&self) -> Outcome<Duration> {
        let (mut estate, mut engine) = self.begin()?;
        let fullest = |host: &&HostId| estate.state.used(**host).instances.len();
        let host = *estate.state.hosts().keys().max_by_key(fullest).ok_or("there is a host")?;
        let on_it = estate.state.used(host).instances.len();
        let verdict = HostVerdict { host, state: HostState::Lost, reason: "silent".to_owned() };
        estate.apply(Command::JudgeHosts(vec![verdict]))?;
        let (placed, took) = estate.place(&mut engine)?;
        if placed < on_it {
            return wrong(format!("{placed} of {on_it} were placed again"));
        }
        Ok(took)
    }

    fn fruitless(&self) -> Outcome<Duration> {
        let (mut estate, mut engine) = self.begin()?;
        for _ in 0..FRUITLESS / EACH {
            estate.hand_in(EACH, |spec| spec.resources.cpu = MilliCpu(10_000_000))?;
        }
        engine.pass(&estate.state, NOW, Limits::default());
        estate.hand_in(1, |_| ())?;
        let state = estate.state.clone();
        let begun = spent()?;
        let plan = engine.pass(&state, NOW, Limits::default());
        let took = spent()? - begun;
        if plan.placements.len() == 1 { Ok(took) } else { wrong("the one that fits was not placed") }
    }
}

fn rate((placed, took): (usize, Duration)) -> Outcome<f64> {
    Ok(placed as f64 / took.as_secs_f64())
}
