//! The estates of the benches `decisions` and `counts`, and the series that are run on each by itself: what is handed in, how it is placed, and how
//! long the passes took. What callgrind counts are the same passes (see `counts`).

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use supercloud_proto::{
    amount::{Amounts, Bytes, MilliCpu},
    device::DeviceRequest,
    host::{DriverInfo, HostState, Inventory},
    id::HostId,
    name::{BoroughName, WorkloadKey, WorkloadName},
    spec::{DriverKind, Prefer, SpreadOver, WorkloadSpec},
};
use supercloud_scheduler::{
    placement::{Engine, Explainer, explain, plan},
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

/// Of a hundred parts of all processors, or of all memory, so many are given away at first.
const PERCENT: u64 = 80;
/// Sizes of hosts, in sevenths of the mean. The largest are filled last: few large ones would leave too few with room for a thousand that keep apart.
const SIZES: [u64; 4] = [8, 4, 8, 8];
/// Of a hundred GPUs so many are given away at first.
const GPU_PERCENT: u64 = 80;
/// Instances of a workload.
const EACH: u32 = 1_000;
/// Instances of a workload that an estate with GPUs is filled with: most real ones ask for few.
const GPU_EACH: u32 = 20;
/// Beyond so many hosts for each of those, workloads are larger.
const GPU_WORKLOADS: u32 = 500;
/// Of the estate's instances this part is placed in each series.
const SERIES_SHARE: u64 = 20;
/// Boroughs that wait at once.
const BOROUGHS: usize = 33;
/// Rounds for one that displaces others, at most: small ones may still find room.
const ROUNDS_OF_ONE: usize = 100;
/// Workloads of 1,000 that are timed one by one.
const ROUNDS: usize = 200;
/// Workloads of one that are placed before each series, everything that is asked for among them: an engine that has run for a while knows it.
const WARM_UP: u32 = 200;
/// A label of which each host has a value of its own.
const UNIT: &str = "unit";
/// Workloads from which one is to be apart.
const OTHERS: u32 = 5;
/// Instances that fit nowhere.
const FRUITLESS: u32 = 100_000;

/// How long it took to tell about one.
#[derive(Debug, Default)]
pub(crate) struct Told {
    pub(crate) explain: Sample,
    pub(crate) plan: Sample,
}

/// How many were placed, in how many passes, and the time of these.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Placed {
    pub(crate) count: usize,
    /// Of these, who had others make way.
    displacing: usize,
    passes: usize,
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
        self.displacing += more.displacing;
        self.passes += more.passes;
        self.took += more.took;
    }
}

/// What was placed, and the time of each part of it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Series {
    pub(crate) placed: Placed,
    pub(crate) times: Sample,
    /// The most passes that a part took.
    pub(crate) passes: usize,
}

impl Series {
    fn add(&mut self, part: Placed) {
        self.placed += part;
        self.times.add(part.took);
        self.passes = self.passes.max(part.passes);
    }
}

/// How workloads of 1,000 want to be placed, beside what each asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Crowd {
    Plain,
    /// Spread over sites and racks.
    Spread,
    /// Spread over a label of which each host has another value.
    Labels,
    /// No two of a workload on a host.
    Apart,
    /// Of boroughs that take turns.
    InTurn,
    /// With wishes for a label and against a site.
    Wishing,
    /// Apart from other workloads of the borough.
    ApartFrom,
}

impl Crowd {
    fn change(self, spec: &mut WorkloadSpec, number: u32, boroughs: &[BoroughName]) -> Outcome {
        match self {
            Self::Plain => {}
            Self::Spread => spec.place.spread = vec![SpreadOver::Site.into(), SpreadOver::Rack.into()],
            Self::Labels => spec.place.spread = vec![SpreadOver::Label(UNIT.to_owned()).into()],
            Self::Apart => {
                spec.place.distinct_hosts = true;
                // Few hosts have room: of these too few are in one site, or have one label.
                (spec.place.sites, spec.place.require) = Default::default();
            }
            Self::InTurn => spec.borough = boroughs[number as usize % boroughs.len()].clone(),
            Self::Wishing => spec.place.prefer = wishes()?,
            Self::ApartFrom => spec.place.apart = others(number)?,
        }
        Ok(())
    }

    /// Instances of a workload, on so many hosts. Of a large request no two of which may share a host, 77 of 1,000 hosts that are filled by best fit to four
    /// fifths have room for one.
    fn each(self, hosts: u32) -> u32 {
        if self == Self::Apart { EACH.min(hosts / 25) } else { EACH }
    }

    /// How many such workloads there is room for at once: where no two may share a host, each takes most of the hosts with room.
    fn at_once(self) -> usize {
        if self == Self::Apart { 1 } else { usize::MAX }
    }
}

/// What some would like of a host.
fn wishes() -> Outcome<Vec<Prefer>> {
    let (fast, elsewhere) = ("label.disk == nvme".parse()?, "site == slough".parse()?);
    Ok(vec![Prefer { when: fast, weight: 40 }, Prefer { when: elsewhere, weight: -20 }])
}

/// Workloads that came before that of this number, some long before.
fn others(number: u32) -> Outcome<Vec<WorkloadName>> {
    (1..=OTHERS).map(|part| Ok(spec(number * part / (OTHERS + 1), 1)?.workload)).collect()
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
    /// Hosts of two sizes, filled with workloads of a thousand.
    pub(crate) fn new(hosts: u32, full: u64) -> Outcome<Self> {
        let mut estate = Self::empty(hosts, full, Wants::new(hosts.into())?)?;
        for number in 1..=hosts {
            register(&mut estate.state, number, host(number, full)?)?;
        }
        let (cpu, memory) = Wants::of_many(estate.room() * PERCENT / 100);
        let mut asked = Amounts::default();
        let mut engine = Engine::new(&estate.state);
        while asked.cpu < cpu && asked.memory < memory {
            estate.hand_in(EACH, |spec| {
                for _ in 0..EACH {
                    asked += spec.resources.amounts();
                }
            })?;
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
        // Filling takes time by workloads: each that changes the mix has hosts ranked anew.
        let each = GPU_EACH.max(hosts / GPU_WORKLOADS);
        let mut asked = 0;
        while asked < whole * GPU_PERCENT / 100 {
            estate.hand_in(each, |spec| {
                let millis = |of: &DeviceRequest| u64::from(of.count) * u64::from(of.share.0);
                asked += u64::from(each) * spec.resources.devices.iter().map(millis).sum::<u64>();
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

    /// How many instances there are.
    pub(crate) fn instances(&self) -> usize {
        self.state.instances().len()
    }

    /// How many instances would fill it.
    fn room(&self) -> u64 {
        u64::from(self.hosts) * self.full
    }

    fn apply(&mut self, command: Command) -> Outcome {
        records::apply(&mut self.state, command)
    }

    /// Hands in another workload, changed.
    fn hand_in(&mut self, count: u32, change: impl FnOnce(&mut WorkloadSpec)) -> Outcome<WorkloadKey> {
        let mut spec = self.draw(count)?;
        change(&mut spec);
        self.take_in(spec)
    }

    /// Another workload, with what some real request asks for.
    fn draw(&mut self, count: u32) -> Outcome<WorkloadSpec> {
        self.workloads += 1;
        let mut spec = spec(self.workloads, count)?;
        self.wants.draw().of(&mut spec);
        Ok(spec)
    }

    fn take_in(&mut self, spec: WorkloadSpec) -> Outcome<WorkloadKey> {
        let key = spec.key();
        self.apply(Command::ApplyWorkload { spec: Box::new(spec), expect_revision: None })?;
        Ok(key)
    }

    /// Hands in another workload of a thousand.
    fn hand_in_crowd(&mut self, crowd: Crowd) -> Outcome<WorkloadKey> {
        let number = self.workloads;
        let mut spec = self.draw(crowd.each(self.hosts))?;
        crowd.change(&mut spec, number, &self.boroughs)?;
        self.take_in(spec)
    }

    /// Runs passes until nothing waits that fits, and takes their placements in.
    fn place(&mut self, engine: &mut Engine) -> Outcome<Placed> {
        let mut placed = Placed::default();
        while self.state.pending_count() > 0 {
            let state = self.state.clone();
            let begun = spent()?;
            let plan = counted_pass(engine, &state);
            let (displacing, took) = (plan.preemptions.len(), spent()? - begun);
            let count = plan.placements.len() + displacing;
            placed += Placed { count, displacing, passes: 1, took };
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

    /// Takes back what there is no room for: of a workload that has room for some, the others.
    fn withdraw(&mut self, engine: &Engine) -> Outcome {
        for unplaced in engine.unplaced() {
            let placed =
                self.state.instances_of(&unplaced.workload).filter(|one| one.placed.is_some()).count();
            let Some(workload) = self.state.workload(&unplaced.workload) else { continue };
            let count = placed as u32;
            let spec = Box::new(WorkloadSpec { count, ..WorkloadSpec::clone(&workload.current().spec) });
            self.apply(match count {
                0 => Command::StopWorkload { key: unplaced.workload, purge: false },
                _ => Command::ApplyWorkload { spec, expect_revision: None },
            })?;
        }
        Ok(())
    }

    /// The same estate by itself, and an engine that has met what is asked for.
    pub(crate) fn begin(&self) -> Outcome<(Self, Engine)> {
        let mut estate = self.clone();
        let mut engine = Engine::new(&estate.state);
        let each = estate.wants.each();
        let others = WARM_UP.saturating_sub(each.len() as u32);
        for want in each {
            estate.hand_in(1, |spec| want.of(spec))?;
        }
        for _ in 0..others {
            estate.hand_in(1, |_| ())?;
        }
        estate.place(&mut engine)?;
        estate.withdraw(&engine)?;
        counting_begins();
        Ok((estate, engine))
    }

    /// Workloads of 1,000 that wait at once; those for which there is no room together, in batches of which each ends before the next one comes.
    pub(crate) fn crowds(&self, crowd: Crowd) -> Outcome<Placed> {
        let (mut estate, mut engine) = self.begin()?;
        let each = u64::from(crowd.each(self.hosts));
        let mut left = (self.room() / SERIES_SHARE / each).min(100) as usize;
        let mut placed = Placed::default();
        while left > 0 {
            let batch = left.min(crowd.at_once());
            let keys = (0..batch).map(|_| estate.hand_in_crowd(crowd)).collect::<Outcome<Vec<_>>>()?;
            placed += estate.place_all(&mut engine)?;
            keys.into_iter().try_for_each(|key| estate.end(key))?;
            left -= batch;
        }
        Ok(placed)
    }

    /// The same one by one: each ends before the next one comes, so that the estate stays as full as it is.
    pub(crate) fn crowds_one_by_one(&self, crowd: Crowd) -> Outcome<Sample> {
        let (mut estate, mut engine) = self.begin()?;
        let mut series = Series::default();
        for _ in 0..ROUNDS {
            let key = estate.hand_in_crowd(crowd)?;
            series.add(estate.place_all(&mut engine)?);
            estate.end(key)?;
        }
        Ok(series.times)
    }

    /// As much ends as comes, so many times: the oldest workload of 1,000, and another one that asks for the same.
    pub(crate) fn churn(&self, times: usize) -> Outcome<Series> {
        let (mut estate, mut engine) = self.begin()?;
        let filling = 1..=(self.instances() / EACH as usize) as u32;
        let mut oldest =
            filling.map(|number| Ok(spec(number, 1)?.key())).collect::<Outcome<VecDeque<_>>>()?;
        let mut series = Series::default();
        for _ in 0..times {
            let key = oldest.pop_front().ok_or("nothing is there that could end")?;
            let ended =
                estate.state.workload(&key).ok_or("what is to end is not there")?.current().spec.clone();
            estate.end(key)?;
            oldest.push_back(estate.hand_in(EACH, |spec| {
                (spec.resources, spec.place) = (ended.resources.clone(), ended.place.clone());
            })?);
            series.add(estate.place_all(&mut engine)?);
        }
        Ok(series)
    }

    /// Stops a workload, and lets its hosts say that it is gone.
    fn end(&mut self, key: WorkloadKey) -> Outcome {
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

    /// Workloads of 1 on a full estate, until so many have displaced others.
    pub(crate) fn preempting(&self, count: usize) -> Outcome<Series> {
        let (mut estate, mut engine) = self.begin()?;
        while engine.unplaced().is_empty() {
            estate.hand_in(EACH, |spec| {
                spec.priority = 10;
                (spec.place.sites, spec.place.require) = Default::default();
            })?;
            estate.place(&mut engine)?;
        }
        counting_begins();
        let mut series = Series::default();
        for round in 0.. {
            if series.placed.displacing >= count {
                break;
            }
            if round > count * ROUNDS_OF_ONE {
                return Err(format!("only {} of {count} displaced others", series.placed.displacing).into());
            }
            estate.hand_in(1, |spec| spec.priority = 80)?;
            let one = estate.place(&mut engine)?;
            // Small ones may still find room.
            if one.displacing > 0 {
                series.add(one);
            }
        }
        Ok(series)
    }

    /// So many decisions, each by itself.
    pub(crate) fn one_by_one(&self, count: usize) -> Outcome<Series> {
        let (mut estate, mut engine) = self.begin()?;
        let mut series = Series::default();
        for _ in 0..count {
            estate.hand_in(1, |_| ())?;
            series.add(estate.place(&mut engine)?);
            estate.withdraw(&engine)?;
        }
        Ok(series)
    }

    /// Hosts of a rack are lost, so many at once and one rack after the other, and what was on them is placed again.
    pub(crate) fn failing(&self, at_once: usize, times: usize) -> Outcome<Series> {
        let (mut estate, mut engine) = self.begin()?;
        let mut racks: BTreeMap<_, Vec<HostId>> = BTreeMap::new();
        for (id, host) in estate.state.hosts() {
            racks.entry((host.inventory.rack.clone(), host.inventory.site.clone())).or_default().push(*id);
        }
        let mut series = Series::default();
        for lost in racks.values().flat_map(|rack| rack.chunks_exact(at_once)).take(times) {
            let verdict = |host: &HostId| HostVerdict {
                host: *host,
                state: HostState::Lost,
                reason: "silent".to_owned(),
            };
            estate.apply(Command::JudgeHosts(lost.iter().map(verdict).collect()))?;
            series.add(estate.place_all(&mut engine)?);
        }
        Ok(series)
    }

    /// So many passes, each for one that fits while many wait that do not.
    pub(crate) fn fruitless(&self, times: usize) -> Outcome<Series> {
        let (mut estate, mut engine) = self.begin()?;
        let too_much = estate.too_much_cpu();
        for _ in 0..FRUITLESS / EACH {
            estate.hand_in(EACH, |spec| spec.resources.cpu = too_much)?;
        }
        estate.place(&mut engine)?;
        counting_begins();
        let mut series = Series::default();
        for _ in 0..times {
            estate.hand_in(1, |_| ())?;
            series.add(estate.pass_for_one(&mut engine)?);
        }
        Ok(series)
    }

    /// What one that fits nowhere is told, so many times: why, with the changes that would help; and what a plan of its workload says.
    pub(crate) fn told(&self, times: usize) -> Outcome<Told> {
        let (mut estate, mut engine) = self.begin()?;
        let too_much = estate.too_much_cpu();
        estate.hand_in(1, |spec| spec.resources.cpu = too_much)?;
        estate.place(&mut engine)?;
        let Some(waiting) = estate.state.pending().next().cloned() else { return wrong("it was placed") };
        let spec = WorkloadSpec::clone(waiting.spec());
        let mut told = Told::default();
        for _ in 0..times {
            let begun = spent()?;
            let mut explainer = Explainer::of(&estate.state, NOW);
            explainer.instance(&waiting);
            if explainer.changes(&waiting, explain::MAX_TRIALS).is_empty() {
                return wrong("nothing is said to help");
            }
            let explained = spent()?;
            told.explain.add(explained - begun);
            if plan(&estate.state, std::slice::from_ref(&spec), NOW).is_err() {
                return wrong("it would be refused");
            }
            told.plan.add(spent()? - explained);
        }
        Ok(told)
    }

    /// Little more than the processors of the largest host: some hosts are empty.
    fn too_much_cpu(&self) -> MilliCpu {
        let each = self.state.hosts().values().map(|host| host.inventory.capacity.cpu.0);
        MilliCpu(each.max().unwrap_or(0) + 1)
    }

    /// One pass, in which one is placed.
    fn pass_for_one(&mut self, engine: &mut Engine) -> Outcome<Placed> {
        let state = self.state.clone();
        let begun = spent()?;
        let plan = counted_pass(engine, &state);
        let took = spent()? - begun;
        drop(state);
        if plan.placements.len() != 1 {
            return wrong("the one that fits was not placed");
        }
        self.apply(Command::PlaceMany(plan.placements))?;
        Ok(Placed { count: 1, displacing: 0, passes: 1, took })
    }
}

/// A host on which so many fit, times its size. Three of four have fast disks, and one of eight an older runtime.
fn host(number: u32, full: u64) -> Outcome<Inventory> {
    let mut inventory = inventory(number)?;
    // Hosts side by side are in different sites: by pairs, so that both sites have hosts of all kinds.
    let pair = number as usize / 2;
    let (cpu, memory) = Wants::of_many(full);
    let size = SIZES[pair % SIZES.len()];
    inventory.capacity =
        Amounts { cpu: MilliCpu(cpu.0 * size / 7), memory: Bytes(memory.0 * size / 7), ..inventory.capacity };
    inventory.labels.insert(UNIT.to_owned(), format!("u{number}"));
    let group = pair / SIZES.len();
    if group.is_multiple_of(4) {
        inventory.labels.insert("disk".to_owned(), "hdd".to_owned());
    }
    if group % 8 == 1 {
        let older = DriverInfo { version: "27.5.1".to_owned(), healthy: true, ..DriverInfo::default() };
        inventory.drivers.insert(DriverKind::Docker, older);
    }
    Ok(inventory)
}
