//! What a decision costs: from an instance that waits to a host chosen and its resources taken, with all filters and scores, by the engine that
//! the leader runs. In this process, on a state of real commands: no log, no network. Times are processor time of the one thread.
//!
//! The estate: hosts of one kind, seven tenths full of workloads of a thousand that ask for what real requests ask for (`wants`). Then, each on that
//! estate by itself:
//! - `decisions_w1000`, `decisions_spread`, `decisions_labels`, `decisions_apart`: workloads of 1,000, plain, spread over sites and racks, over a label of which
//!   each host has another value, and no two on a host;
//! - `decisions_boroughs`: workloads of 1,000 of 33 boroughs, which take turns;
//! - `decisions_churn`: a workload of 1,000 ends and another one comes, time and again;
//! - `decisions_w1`: workloads of 1;
//! - `decision_p50_us` and on: another workload of one comes, and a pass is run for it alone, with all that it costs to learn what changed since the
//!   last;
//! - `decisions_failing`: a tenth of the hosts are lost one after the other, and each time what was on the host is placed again;
//!   `decisions_failing_p50_us` and on: how long that took for all of a host;
//! - `decisions_failing_rack`: the same of ten hosts of a rack at once;
//! - `decisions_preempting`: workloads of 1 on a full estate, each of which displaces what is less urgent; `decisions_preempting_p50_us` and on: how long one
//!   took, with what makes way for it and its own placement;
//! - `decisions_fruitless_us`: a pass for one instance that fits while a tenth of a million wait that fit nowhere.
//!
//! On another estate, of up to 10,000 hosts and of requests of the trace, most of them with GPUs, of which four fifths are given away:
//! - `decisions_devices`: workloads of 1; `decisions_devices_p50_us` and on: each alone.
//!
//! Keys are of 10,000 hosts with 1,001,000 instances; of 1,000 and 100,000 hosts, with 100,000 and 980,000, they end in `_1k` and `_100k`.
//! `decision_cost_ratio_100k` is the larger of what `decisions_w1000` and `decisions_w1` cost more with 100,000 hosts than with 10,000.

use supercloud_tests::Outcome;

use crate::{
    Options,
    report::Report,
    sample::{Sample, micros},
    usage::own_rss_mib,
};

mod estate;

pub(crate) use estate::{Estate, Placed};

/// An estate: hosts, instances that would fill one, and how its keys end.
const ESTATES: [(u32, u64, &str); 3] = [(1_000, 143, "_1k"), (10_000, 143, ""), (100_000, 14, "_100k")];
/// Workloads of one.
const SINGLES: u32 = 20_000;
/// Decisions that are timed one by one.
const TIMED: usize = 5_000;
/// Hosts of a rack that are lost at once.
const RACK: usize = 10;
/// Filling more hosts with GPUs takes minutes: their orders are made anew whenever the mix changes.
const MOST_GPU_HOSTS: u32 = 10_000;
/// Workloads of one that displace others.
const PREEMPTING: u32 = 500;
/// Most times that hosts are lost.
const LOSSES: usize = 1_000;

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
    let estate = Estate::new(hosts, full)?;
    let before = own_rss_mib()?;
    let plain = estate.crowds(|_| ())?.rate();
    note("decisions_w1000", plain);
    note("decisions_spread", estate.spread()?.rate());
    note("decisions_labels", estate.labels()?.rate());
    note("decisions_apart", estate.apart()?.rate());
    note("decisions_boroughs", estate.in_turn()?.rate());
    note("decisions_churn", estate.churn()?.rate());
    let singles = estate.singles(SINGLES.min(hosts * 5))?.rate();
    note("decisions_w1", singles);
    note_times(&mut note, "decision", &estate.one_by_one(TIMED)?.1);
    note("decisions_engine_mib", own_rss_mib()? - before);
    for (key, at_once) in [("decisions_failing", 1), ("decisions_failing_rack", RACK)] {
        let (placed, times) = estate.failing(at_once, LOSSES.min(hosts as usize / 10 / at_once))?;
        note(key, placed.rate());
        note_times(&mut note, key, &times);
    }
    let (placed, times) = estate.preempting(PREEMPTING.min(hosts / 10))?;
    note("decisions_preempting", placed.rate());
    note_times(&mut note, "decisions_preempting", &times);
    note("decisions_fruitless_us", micros(estate.fruitless()?));
    drop(estate);
    if hosts > MOST_GPU_HOSTS {
        return Ok((plain, singles));
    }
    let estate = Estate::with_gpus(hosts)?;
    note("decisions_devices", estate.singles(hosts / 5)?.rate());
    note_times(&mut note, "decisions_devices", &estate.one_by_one(TIMED.min(hosts as usize / 5))?.1);
    Ok((plain, singles))
}

fn note_times(note: &mut impl FnMut(&str, f64), key: &str, times: &Sample) {
    for (part, parts) in [("p50", 500), ("p99", 990), ("p999", 999)] {
        note(&format!("{key}_{part}_us"), micros(times.permille(parts)));
    }
}
