//! What a decision costs: from an instance that waits to a host chosen and its resources taken, with all filters and scores, by the engine that
//! the leader runs. In this process, on a state of real commands: no log, no network. Times are processor time of the one thread.
//!
//! The estate: hosts of two sizes, some with other labels and versions, four fifths full of workloads of a thousand that ask for what real requests ask for,
//! some of them for a site, a label or a version (`wants`). Then, each on that estate by itself:
//! - `decisions_w1000`, `decisions_spread`, `decisions_labels`, `decisions_apart`, `decisions_boroughs`, `decisions_prefer`, `decisions_apart_from`: workloads of
//!   1,000 that wait at once, plain, spread over sites and racks, over a label of which each host has another value, no two on a host, of 33 boroughs, which take
//!   turns, with a wish for a label and one against a site, and apart from five other workloads of 1,000;
//!   `decisions_w1000_p50_us` and on: the same workloads one by one, each gone before the next one comes: how long one took, with all its instances;
//! - `decisions_churn`: the oldest workload of 1,000 ends and another one like it comes, time and again; `decisions_churn_p50_us` and on: how long one took;
//! - `decisions_w1`: workloads of 1;
//! - `decision_p50_us` and on: another workload of one comes, and a pass is run for it alone, with all that it costs to learn what changed since the
//!   last;
//! - `decisions_failing`: up to a twentieth of the hosts are lost one after the other, and each time what was on the host is placed again;
//!   `decisions_failing_p50_us` and on: how long that took for all of a host;
//! - `decisions_failing_rack`: the same of ten hosts of a rack at once, a thousand instances; `decisions_failing_rack_passes`: the most passes it took;
//! - `decisions_preempting`: workloads of 1 on a full estate that displace what is less urgent; `decisions_preempting_p50_us` and on: how long one
//!   took, with what makes way for it and its own placement;
//! - `decisions_fruitless_p50_us` and on: a pass for one instance that fits while a tenth of a million wait that fit nowhere; `decisions_fruitless_us` is the
//!   p50;
//! - `decisions_explain_ms`: to say why one fits nowhere and what would help; `decisions_plan_ms`: to say what an apply of its workload would do. Processor time, p50.
//!
//! On another estate, of requests of the trace, most of them with GPUs, of which four fifths are given away:
//! - `decisions_devices`: workloads of 1; `decisions_devices_p50_us` and on: each alone.
//!
//! Keys are of 10,000 hosts with some 1,000,000 instances (`decisions_instances`); of 1,000 and 100,000 hosts, with a hundred instances each too, they end in `_1k` and `_100k`. Workloads of
//! which no two may be on a host come one by one, and are of 40 on 1,000 hosts and of 400 on 10,000: so many hosts have room for the largest requests.
//! `decision_cost_ratio_100k` is the larger of what `decisions_w1000` and `decisions_w1` cost more with 100,000 hosts than with 10,000; of each series of workloads of 1,000 it is
//! `decisions_spread_cost_ratio_100k` and so on.
//!
//! Memory: `decisions_rss_mib` is what this process has with the estate and one engine that has met all that is asked for, `decisions_engine_mib` what
//! of it is the engine's, and `decisions_instance_bytes` the rest by instances.

use supercloud_tests::Outcome;

use crate::{
    Options,
    report::Report,
    sample::{Sample, micros, millis},
    usage::own_rss_mib,
};

mod estate;

pub(crate) use estate::{Crowd, Estate, Placed};

/// An estate: hosts, and how its keys end.
const ESTATES: [(u32, &str); 3] = [(1_000, "_1k"), (10_000, ""), (100_000, "_100k")];
/// Instances that would fill a host of the mean size: four fifths of them are a hundred.
const FULL: u64 = 125;
/// Workloads of 1,000, by the beginnings of their keys.
const CROWDS: [(&str, Crowd); 7] = [
    ("decisions_w1000", Crowd::Plain),
    ("decisions_spread", Crowd::Spread),
    ("decisions_labels", Crowd::Labels),
    ("decisions_apart", Crowd::Apart),
    ("decisions_boroughs", Crowd::InTurn),
    ("decisions_prefer", Crowd::Wishing),
    ("decisions_apart_from", Crowd::ApartFrom),
];
/// Workloads of 1,000 that end and come.
const CHURNS: usize = 200;
/// Workloads of one.
const SINGLES: u32 = 20_000;
/// Decisions that are timed one by one.
const TIMED: usize = 5_000;
/// Decisions of a series at least: one alone takes some tens of milliseconds on a small estate.
const ENOUGH: usize = 250_000;
/// The same with GPUs.
const ENOUGH_GPUS: usize = 20_000;
/// Hosts of a rack that are lost at once.
const RACK: usize = 10;
/// Hosts of the largest estate with GPUs: to fill a larger one takes minutes.
const MOST_GPU_HOSTS: u32 = 10_000;
/// Most workloads of one with GPUs.
const GPU_SINGLES: u32 = 2_000;
/// Workloads of one that displace others.
const PREEMPTING: usize = 200;
/// Passes in which one fits and many do not.
const FRUITLESS: usize = 1_000;
/// Times that somebody asks why and what would be.
const TOLD: usize = 5;
/// Most times that hosts are lost.
const LOSSES: usize = 1_000;

/// The bench.
pub(crate) fn run(options: &Options, report: &mut Report) -> Outcome {
    let estates = if options.quick { &ESTATES[..1] } else { &ESTATES[..] };
    let base = own_rss_mib()?;
    let costs = estates
        .iter()
        .map(|(hosts, suffix)| {
            let mut note = |key: &str, value: f64| report.note(format!("{key}{suffix}"), value);
            let cost = measure(*hosts, base, &mut note)?;
            if *hosts <= MOST_GPU_HOSTS {
                devices(*hosts, &mut note)?;
            }
            Ok(cost)
        })
        .collect::<Outcome<Vec<_>>>()?;
    if let [_, ten, hundred] = &costs[..] {
        let singles = ten.singles / hundred.singles;
        report.note("decision_cost_ratio_100k", singles.max(ten.rates[0] / hundred.rates[0]));
        for (place, (key, _)) in CROWDS.iter().enumerate() {
            report.note(format!("{key}_cost_ratio_100k"), ten.rates[place] / hundred.rates[place]);
        }
    }
    Ok(())
}

/// Decisions a second on an estate.
struct Costs {
    /// Of workloads of 1,000, as in [`CROWDS`].
    rates: Vec<f64>,
    singles: f64,
}

/// One estate.
fn measure(hosts: u32, base: f64, note: &mut impl FnMut(&str, f64)) -> Outcome<Costs> {
    let estate = Estate::new(hosts, FULL)?;
    memory(&estate, base, note)?;
    let mut rates = Vec::new();
    for (key, crowd) in CROWDS {
        rates.push(at_length(ENOUGH, || estate.crowds(crowd))?.rate());
        note(key, rates[rates.len() - 1]);
        note_times(note, key, &estate.crowds_one_by_one(crowd)?);
    }
    let churn = estate.churn(CHURNS)?;
    note("decisions_churn", churn.placed.rate());
    note_times(note, "decisions_churn", &churn.times);
    let singles = at_length(ENOUGH, || estate.singles(SINGLES.min(hosts * 5)))?.rate();
    note("decisions_w1", singles);
    note_times(note, "decision", &estate.one_by_one(TIMED)?.times);
    for (key, at_once) in [("decisions_failing", 1), ("decisions_failing_rack", RACK)] {
        let failing = estate.failing(at_once, LOSSES.min(hosts as usize / 20 / at_once))?;
        note(key, failing.placed.rate());
        note_times(note, key, &failing.times);
        note(&format!("{key}_passes"), failing.passes as f64);
    }
    let preempting = estate.preempting(PREEMPTING)?;
    note("decisions_preempting", preempting.placed.rate());
    note_times(note, "decisions_preempting", &preempting.times);
    let fruitless = estate.fruitless(FRUITLESS)?;
    note_times(note, "decisions_fruitless", &fruitless.times);
    note("decisions_fruitless_us", micros(fruitless.times.permille(500)));
    let told = estate.told(TOLD)?;
    for (key, times) in [("decisions_explain_ms", told.explain), ("decisions_plan_ms", told.plan)] {
        note(key, millis(times.permille(500)));
    }
    Ok(Costs { rates, singles })
}

/// A series time and again, each on the estate as it was, until it is enough. The first is not counted: of its time up to a half is the kernel's, who clears
/// memory that the process did not have yet, and a scheduler that has run for a while has it.
fn at_length(enough: usize, series: impl Fn() -> Outcome<Placed>) -> Outcome<Placed> {
    series()?;
    let mut placed = series()?;
    while placed.count < enough {
        placed += series()?;
    }
    Ok(placed)
}

/// What an estate takes, and an engine. The first engines take what was left behind by filling, those after them are looked at.
fn memory(estate: &Estate, base: f64, note: &mut impl FnMut(&str, f64)) -> Outcome {
    let first = estate.begin()?;
    let all = own_rss_mib()?;
    let few = (estate.begin()?, estate.begin()?, first);
    let before = own_rss_mib()?;
    let more = (estate.begin()?, estate.begin()?);
    let engine = (own_rss_mib()? - before) / 2.0;
    drop((few, more));
    note("decisions_instances", estate.instances() as f64);
    note("decisions_rss_mib", all - base);
    note("decisions_engine_mib", engine);
    note("decisions_instance_bytes", (all - base - engine) * f64::from(1 << 20) / estate.instances() as f64);
    Ok(())
}

/// The estate with GPUs.
fn devices(hosts: u32, note: &mut impl FnMut(&str, f64)) -> Outcome {
    let estate = Estate::with_gpus(hosts)?;
    let singles = GPU_SINGLES.min(hosts / 5);
    note("decisions_devices", at_length(ENOUGH_GPUS, || estate.singles(singles))?.rate());
    note_times(note, "decisions_devices", &estate.one_by_one(singles as usize)?.times);
    Ok(())
}

fn note_times(note: &mut impl FnMut(&str, f64), key: &str, times: &Sample) {
    for (part, parts) in [("p50", 500), ("p99", 990), ("p999", 999)] {
        note(&format!("{key}_{part}_us"), micros(times.permille(parts)));
    }
}
