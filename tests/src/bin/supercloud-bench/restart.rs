//! A node that holds a million instances: the memory it takes, and how soon it serves again after `kill -9`.
//!
//! It is filled through its API, like any other: hosts with sessions of their own, workloads of a thousand, reports that all of them run.
//! The start is counted from the process's beginning to its first answer to a linearizable read.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use supercloud_proto::{
    pki::Credentials,
    v1::{ListWorkloadsRequest, Workload},
};
use supercloud_tests::{Outcome, Shape, World, scheduler::Node, wrong};
use tokio::{task::JoinSet, time::sleep};

use crate::{
    Options,
    enrol::enrol,
    estate::{Operator, Sums, container, runtime},
    hosts::{Fleet, Manner, Offer},
    report::Report,
    usage,
};

/// Hosts.
const HOSTS: usize = 10_000;
/// Workloads.
const WORKLOADS: usize = 1_000;
/// Instances of each.
const COUNT: u32 = 1_000;
/// Hosts and workloads at a size that only shows that the bench works.
const QUICK: (usize, usize) = (200, 20);
/// Thousandths of a core that an instance needs: a host of [`OFFER`] holds 128 of them, and has 100 when all are placed.
const CPU_MILLIS: u32 = 500;
/// What each host has.
const OFFER: Offer = Offer { cpu_millis: 64_000, memory_gib: 512 };
/// Arguments of the node, and the hosts' own pace: they are here to fill it, not to be judged while it is full of work.
const SETTINGS: [&str; 6] = ["--heartbeat-every", "10s", "--lease", "600s", "--log-level", "warn"];
const HEARTBEAT: Duration = Duration::from_secs(10);
/// Workloads that are handed in before those before them are placed.
const AHEAD: usize = 20;
/// Longest time for the hosts, for the placements, and for the reports.
const READY: Duration = Duration::from_secs(120);
const PLACED: Duration = Duration::from_secs(120);
const REPORTED: Duration = Duration::from_secs(60);
/// Longest time for the start.
const SERVING: Duration = Duration::from_secs(120);
/// Time after the last report in which what was under way dies away; the hosts stay.
const SETTLE: Duration = Duration::from_secs(15);
/// Time after the first answer in which memory still counts: what a start holds on to is seen then.
const AFTER_START: Duration = Duration::from_secs(5);
/// Wait before a node that does not answer yet is asked again.
const AGAIN_AFTER: Duration = Duration::from_millis(10);

/// The bench.
pub(crate) fn run(options: &Options, report: &mut Report) -> Outcome {
    let (hosts, workloads) = if options.quick { QUICK } else { (HOSTS, WORKLOADS) };
    World::with_settings(Shape { nodes: 1, hosts: 0 }, &SETTINGS, |world| {
        let credentials = Credentials::load(&world.cluster.credentials)?;
        let node = &mut world.cluster.nodes[0];
        let (address, pid) = (node.place.api.clone(), node.process()?.pid());
        let runtime = runtime()?;
        let loaded = runtime.block_on(fill(&address, pid, &credentials, (hosts, workloads), report))?;
        report.note("restart_data_mib", mib_below(&node.place.data)?.round());
        let restarted = runtime.block_on(restart(node, &credentials, report))?;
        report.note("scheduler_rss_mib_1m_restarted", restarted.round());
        report.note("scheduler_rss_mib_1m", loaded.max(restarted).round());
        report.probe()
    })
}

/// Fills the node, and lets the hosts go in the end. Gives the memory that it takes with all of them, once what filled it has died away.
async fn fill(
    address: &str,
    pid: u32,
    credentials: &Credentials,
    (hosts, workloads): (usize, usize),
    report: &mut Report,
) -> Outcome<f64> {
    let operator = Operator::at(address, credentials).await?;
    eprintln!("  {hosts} hosts join");
    let nodes = [address.to_owned()];
    let each = enrol(&nodes, credentials, hosts).await?;
    let fleet = Fleet::start(&nodes, each, Manner::Prompt, OFFER, HEARTBEAT).await;
    let ready = operator.until_ready(hosts, READY).await?;
    report.note("restart_hosts", ready as f64);
    report.note("scheduler_rss_mib_hosts", usage::rss_mib(pid)?.round());
    let wanted = workloads * COUNT as usize;
    let begun = Instant::now();
    hand_in(&operator, workloads, begun).await?;
    let Sums { instances, .. } = operator.until(PLACED, |sums| sums.instances >= wanted).await?;
    let running = until_running(&operator, wanted).await?;
    eprintln!(
        "  {instances} instances placed, {running} running, after {:.0} s",
        begun.elapsed().as_secs_f64()
    );
    report.note("restart_instances", instances as f64);
    report.note("restart_instances_running", running as f64);
    sleep(SETTLE).await;
    let settled = usage::rss_mib(pid)?;
    report.note("scheduler_rss_mib_1m_peak", usage::peak_rss_mib(pid)?.round());
    report.note("scheduler_rss_mib_1m_loaded", settled.round());
    report.note("restart_sessions_ended", fleet.ended() as f64);
    Ok(settled)
}

/// Hands workloads in, not many more than are placed: what waits is looked at by every pass.
async fn hand_in(operator: &Operator, workloads: usize, begun: Instant) -> Outcome {
    let spec = container("many", COUNT, CPU_MILLIS)?;
    for first in (0..workloads).step_by(AHEAD) {
        let mut hand_ins = JoinSet::new();
        for number in first..(first + AHEAD).min(workloads) {
            let mut spec = spec.clone();
            spec.workload = format!("many-{number:05}");
            let operator = operator.clone();
            hand_ins.spawn(async move { operator.apply(spec).await });
        }
        for done in hand_ins.join_all().await {
            done?;
        }
        let least = first.saturating_sub(AHEAD) * COUNT as usize;
        operator.until(PLACED.saturating_sub(begun.elapsed()), |sums| sums.instances >= least).await?;
    }
    Ok(())
}

/// Waits until so many instances are reported to run, and gives how many do.
async fn until_running(operator: &Operator, wanted: usize) -> Outcome<usize> {
    let begun = Instant::now();
    loop {
        // A node that is busy may refuse a read; the next look finds it better.
        let running = running(operator).await.unwrap_or_default();
        if running >= wanted || begun.elapsed() > REPORTED {
            return Ok(running);
        }
        sleep(Duration::from_secs(1)).await;
    }
}

async fn running(operator: &Operator) -> Outcome<usize> {
    let (mut running, mut page_token) = (0, String::new());
    loop {
        let request = ListWorkloadsRequest { page_token, stale: true, ..ListWorkloadsRequest::default() };
        let page = operator.workloads().list(request).await?.into_inner();
        let counts =
            |workload: &Workload| workload.counts.as_ref().map_or(0, |counts| counts.running as usize);
        running += page.workloads.iter().map(counts).sum::<usize>();
        if page.next_page_token.is_empty() {
            return Ok(running);
        }
        page_token = page.next_page_token;
    }
}

/// Kills the node and starts it; gives the most memory that it takes soon after.
async fn restart(node: &mut Node, credentials: &Credentials, report: &mut Report) -> Outcome<f64> {
    node.kill()?;
    let begun = Instant::now();
    node.start()?;
    let pid = node.process()?.pid();
    while begun.elapsed() < SERVING {
        node.process()?.must_run()?;
        if let Ok(operator) = Operator::at(&node.place.api, credentials).await
            && let Ok(sums) = operator.sums().await
        {
            report.note("restart_s_1m", begun.elapsed().as_secs_f64());
            report.note("restart_instances_after", sums.instances as f64);
            let mut most = usage::rss_mib(pid)?;
            let answered = Instant::now();
            while answered.elapsed() < AFTER_START {
                sleep(AFTER_START / 20).await;
                most = most.max(usage::rss_mib(pid)?);
            }
            return Ok(most);
        }
        sleep(AGAIN_AFTER).await;
    }
    wrong(format!("the node does not serve within {} s", SERVING.as_secs()))
}

fn mib_below(folder: &Path) -> Outcome<f64> {
    let mut bytes = 0;
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                folders.push(entry.path());
            } else {
                bytes += entry.metadata()?.len();
            }
        }
    }
    Ok(bytes as f64 / f64::from(1 << 20))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_summed_up_below_a_folder() -> Outcome {
        let folder = tempfile::tempdir()?;
        std::fs::create_dir(folder.path().join("a"))?;
        std::fs::write(folder.path().join("a/b"), vec![0; 1 << 20])?;
        std::fs::write(folder.path().join("c"), vec![0; 1 << 19])?;
        assert!((mib_below(folder.path())? - 1.5).abs() < 1e-9);
        Ok(())
    }
}
