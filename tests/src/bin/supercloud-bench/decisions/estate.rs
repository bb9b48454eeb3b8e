//! The estates of the benches `decisions` and `counts`, and the series that are run on each by itself: what is handed in, how it is placed, and how
//! long the passes took. What callgrind counts are the same passes (see `counts`).

use std::{cell::Cell, time::Duration};

use supercloud_proto::{
    amount::MilliCpu,
    device::DeviceRequest,
    host::HostState,
    id::HostId,
    name::BoroughName,
    spec::{SpreadOver, WorkloadSpec},
};
use supercloud_scheduler::{
    placement::Engine,
    state::{Command, HostReports, HostVerdict, Preemption, State, level::KNOWN},
};
use supercloud_tests::{Outcome, wrong};

use crate::{
    counts::{counted_pass, counting_begins},
    packing,
    records::{self, NOW, PLACEMENTS_OF_AN_ENTRY, inventory, register, spec},
    sample::Sample,
    usage::spent,
    wants::{self, Wants},
};

/// Of a hundred instances that would fill the estate so many are there at first.
const PERCENT: u64 = 70;
/// Of a hundred GPUs so many are given away at first.
const GPU_PERCENT: u64 = 80;
/// Instances of a workload.
const EACH: u32 = 1_000;
/// Instances of a workload that an estate with GPUs is filled with: most real ones ask for few.
const GPU_EACH: u32 = 20;
/// Of the estate's instances this part is placed in each series.
const SERIES_SHARE: u64 = 20;
/// Boroughs that wait at once.
const BOROUGHS: usize = 33;
/// Workloads that end and come.
const ROUNDS: u32 = 20;
/// Workloads of one that are placed before each series, so that an engine knows all that is asked for.
const WARM_UP: u32 = 200;
/// A label of which each host has a value of its own.
const UNIT: &str = "unit";
/// Instances that fit nowhere.
const FRUITLESS: u32 = 100_000;

/// How many were placed, and the time of the passes.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Placed {
    pub(crate) count: usize,
    took: Duration,
}

impl Placed {
    /// Decisions a second.
    pub(crate) fn rate(self) -> f64 {
        self.count as f64 / self.took.as_secs_f64()
    }
}

impl std::ops::AddAssign for Placed {
    fn add_assign(&mut self, more: Self) {
        self.count += more.count;
        self.took += more.took;
    }
}

/// A state, and what is still to be asked of it.
#[derive(Clone)]
pub(crate) struct Estate {
    state: State,
    hosts: u32,
    /// Instances that would fill a host.
    full: u64,
    wants: Wants,
    workloads: u32,
    boroughs: Vec<BoroughName>,
}

impl Estate {
    /// Hosts of one kind, filled with workloads of a thousand.
    pub(crate) fn new(hosts: u32, full: u64) -> Outcome<Self> {
        let mut estate = Self::empty(hosts, full, Wants::new(hosts.into())?)?;
        for number in 1..=hosts {
            let mut inventory = inventory(number)?;
            (inventory.capacity.cpu, inventory.capacity.memory) = Wants::of_many(full);
            inventory.labels.insert(UNIT.to_owned(), format!("u{number}"));
            register(&mut estate.state, number, inventory)?;
        }
        let goal = estate.room() * PERCENT / 100;
        let mut engine = Engine::new(&estate.state);
        for _ in 0..goal / u64::from(EACH) {
            estate.hand_in(EACH, |_| ())?;
            estate.place_all(&mut engine)?;
        }
        Ok(estate)
    }

    /// Hosts of the trace, most of them with GPUs, filled with what is asked for there.
    pub(crate) fn with_gpus(hosts: u32) -> Outcome<Self> {
        let kinds = wants::hosts()?;
        let mut estate = Self::empty(hosts, 0, Wants::with_gpus(hosts.into())?)?;
        let mut whole = 0;
        for (number, host) in (1..=hosts).zip(kinds.iter().cycle()) {
            packing::gpus::register(&mut estate.state, number, host)?;
            whole += u64::from(host.gpus) * 1_000;
        }
        let mut engine = Engine::new(&estate.state);
        let mut asked = 0;
        while asked < whole * GPU_PERCENT / 100 {
            estate.hand_in(GPU_EACH, |spec| {
                let millis = |of: &DeviceRequest| u64::from(of.count) * u64::from(of.share.0);
                asked += u64::from(GPU_EACH) * spec.resources.devices.iter().map(millis).sum::<u64>();
            })?;
            estate.place(&mut engine)?;
            estate.withdraw(&engine)?;
        }
        Ok(estate)
    }

    fn empty(hosts: u32, full: u64, wants: Wants) -> Outcome<Self> {
        let names = (0..BOROUGHS).map(|number| format!("borough-{number:02}").parse());
        let boroughs = names.collect::<Result<Vec<BoroughName>, _>>()?;
        let mut estate = Self { state: State::default(), hosts, full, wants, workloads: 0, boroughs };
        for name in estate.boroughs.clone() {
            let title = name.to_string();
            estate.apply(Command::CreateBorough { name, title })?;
        }
        estate.apply(Command::RaiseLevel { level: KNOWN })?;
        estate.apply(Command::CreateBorough { name: "camden".parse()?, title: "Camden".to_owned() })?;
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

    /// Runs passes until nothing waits that fits, and takes their placements in.
    fn place(&mut self, engine: &mut Engine) -> Outcome<Placed> {
        let mut placed = Placed::default();
        while self.state.pending_count() > 0 {
            let state = self.state.clone();
            let begun = spent()?;
            let plan = counted_pass(engine, &state);
            let (count, took) = (plan.placements.len() + plan.preemptions.len(), spent()? - begun);
            placed += Placed { count, took };
            drop(state);
            if count == 0 {
                break;
            }
            for chunk in plan.placements.chunks(PLACEMENTS_OF_AN_ENTRY) {
                self.apply(Command::PlaceMany(chunk.to_vec()))?;
            }
            self.displace(plan.preemptions)?;
        }
        Ok(placed)
    }

    /// Lets those make way that are to, and be gone at once.
    fn displace(&mut self, preemptions: Vec<Preemption>) -> Outcome {
        if preemptions.is_empty() {
            return Ok(());
        }
        let victims = preemptions.iter().flat_map(|preemption| &preemption.victims);
        let victims: Vec<_> = victims.filter_map(|id| self.state.instance(*id)).cloned().collect();
        self.apply(Command::Preempt(preemptions))?;
        self.apply(Command::ReportMany(HostReports::of_stopped(victims.iter(), NOW)))
    }

    /// The same where all that waits fits.
    fn place_all(&mut self, engine: &mut Engine) -> Outcome<Placed> {
        let placed = self.place(engine)?;
        match self.state.pending_count() {
            0 => Ok(placed),
            wait => wrong(format!("{} were placed, and {wait} wait", placed.count)),
        }
    }

    /// Stops the workloads for which there is no room.
    fn withdraw(&mut self, engine: &Engine) -> Outcome {
        let without = engine.unplaced().into_iter();
        without.into_iter().try_for_each(|unplaced| {
            self.apply(Command::StopWorkload { key: unplaced.workload, purge: false })
        })
    }

    /// The same estate by itself, and an engine that has met what is asked for.
    fn begin(&self) -> Outcome<(Self, Engine)> {
        let mut estate = self.clone();
        let mut engine = Engine::new(&estate.state);
        for _ in 0..WARM_UP {
            estate.hand_in(1, |_| ())?;
        }
        estate.place(&mut engine)?;
        estate.withdraw(&engine)?;
        counting_begins();
        Ok((estate, engine))
    }

    /// Workloads of 1,000.
    pub(crate) fn crowds(&self, change: impl Fn(&mut WorkloadSpec)) -> Outcome<Placed> {
        let (mut estate, mut engine) = self.begin()?;
        // What is left is room on three tenths of the hosts.
        let each = EACH.min(self.hosts / 10);
        for _ in 0..(self.room() / SERIES_SHARE / u64::from(each)).min(100) {
            estate.hand_in(each, &change)?;
        }
        estate.place_all(&mut engine)
    }

    /// The same, spread over sites and racks.
    pub(crate) fn spread(&self) -> Outcome<Placed> {
        self.crowds(|spec| spec.place.spread = vec![SpreadOver::Site.into(), SpreadOver::Rack.into()])
    }

    /// The same, spread over a label of which each host has another value.
    pub(crate) fn labels(&self) -> Outcome<Placed> {
        self.crowds(|spec| spec.place.spread = vec![SpreadOver::Label(UNIT.to_owned()).into()])
    }

    /// The same, no two of a workload on a host.
    pub(crate) fn apart(&self) -> Outcome<Placed> {
        self.crowds(|spec| spec.place.distinct_hosts = true)
    }

    /// The same of boroughs that take turns.
    pub(crate) fn in_turn(&self) -> Outcome<Placed> {
        let turn = Cell::new(0);
        self.crowds(|spec| {
            let number = turn.replace((turn.get() + 1) % BOROUGHS);
            spec.borough = self.boroughs[number].clone();
        })
    }

    /// As much ends as comes.
    pub(crate) fn churn(&self) -> Outcome<Placed> {
        let (mut estate, mut engine) = self.begin()?;
        let mut placed = Placed::default();
        for number in 1..=ROUNDS {
            estate.end(number)?;
            estate.hand_in(EACH, |_| ())?;
            placed += estate.place_all(&mut engine)?;
        }
        Ok(placed)
    }

    /// Stops a workload, and lets its hosts say that it is gone.
    fn end(&mut self, number: u32) -> Outcome {
        let key = spec(number, 1)?.key();
        let reports = HostReports::of_stopped(self.state.instances_of(&key), NOW);
        self.apply(Command::StopWorkload { key, purge: false })?;
        self.apply(Command::ReportMany(reports))
    }

    /// So many workloads of 1.
    pub(crate) fn singles(&self, count: u32) -> Outcome<Placed> {
        let (mut estate, mut engine) = self.begin()?;
        for _ in 0..count {
            estate.hand_in(1, |_| ())?;
        }
        estate.place(&mut engine)
    }

    /// So many workloads of 1 on a full estate, each of which displaces others.
    pub(crate) fn preempting(&self, count: u32) -> Outcome<(Placed, Sample)> {
        let (mut estate, mut engine) = self.begin()?;
        while engine.unplaced().is_empty() {
            estate.hand_in(EACH.min(self.hosts), |spec| spec.priority = 10)?;
            estate.place(&mut engine)?;
        }
        let (mut placed, mut sample) = (Placed::default(), Sample::default());
        for _ in 0..count {
            estate.hand_in(1, |spec| spec.priority = 80)?;
            let one = estate.place(&mut engine)?;
            placed += one;
            sample.add(one.took);
        }
        Ok((placed, sample))
    }

    /// So many decisions, each by itself: all together, and the time of each.
    pub(crate) fn one_by_one(&self, count: usize) -> Outcome<(Placed, Sample)> {
        let (mut estate, mut engine) = self.begin()?;
        let (mut placed, mut sample) = (Placed::default(), Sample::default());
        for _ in 0..count {
            estate.hand_in(1, |_| ())?;
            let one = estate.place(&mut engine)?;
            estate.withdraw(&engine)?;
            placed += one;
            sample.add(one.took);
        }
        Ok((placed, sample))
    }

    /// Hosts are lost, so many at once and one after the other, and what was on them is placed again: all together, and how long it took each time.
    pub(crate) fn failing(&self, at_once: usize, times: usize) -> Outcome<(Placed, Sample)> {
        let (mut estate, mut engine) = self.begin()?;
        let hosts: Vec<HostId> = estate.state.hosts().keys().copied().collect();
        let (mut placed, mut sample) = (Placed::default(), Sample::default());
        for lost in hosts.chunks(at_once).take(times) {
            let verdict = |host: &HostId| HostVerdict {
                host: *host,
                state: HostState::Lost,
                reason: "silent".to_owned(),
            };
            estate.apply(Command::JudgeHosts(lost.iter().map(verdict).collect()))?;
            let again = estate.place_all(&mut engine)?;
            placed += again;
            sample.add(again.took);
        }
        Ok((placed, sample))
    }

    /// The time of a pass for one that fits while many wait that do not.
    pub(crate) fn fruitless(&self) -> Outcome<Duration> {
        let (mut estate, mut engine) = self.begin()?;
        for _ in 0..FRUITLESS / EACH {
            estate.hand_in(EACH, |spec| spec.resources.cpu = MilliCpu(10_000_000))?;
        }
        estate.place(&mut engine)?;
        estate.hand_in(1, |_| ())?;
        let state = estate.state.clone();
        let begun = spent()?;
        let plan = counted_pass(&mut engine, &state);
        let took = spent()? - begun;
        if plan.placements.len() == 1 { Ok(took) } else { wrong("the one that fits was not placed") }
    }
}
