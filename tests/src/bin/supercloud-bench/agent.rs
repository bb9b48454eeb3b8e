//! An agent at rest, with containers that run: the memory and the processor time of its process. The real agent on the real Docker.

use std::{
    thread,
    time::{Duration, Instant},
};

use supercloud_tests::{Outcome, Shape, World, docker, wait, wrong};

use crate::{Options, estate::BOROUGH, report::Report, usage};

/// Containers.
const COUNT: usize = 50;
const QUICK_COUNT: usize = 5;
/// Longest time until all of them run.
const RUNNING: Duration = Duration::from_secs(120);
/// Time after which the last start has died away.
const SETTLE: Duration = Duration::from_secs(15);
/// Time over which processor time is counted: ten heartbeats, and one of the looks that come every minute.
const REST: Duration = Duration::from_secs(65);
const QUICK_REST: Duration = Duration::from_secs(10);

/// The bench.
pub(crate) fn run(options: &Options, report: &mut Report) -> Outcome {
    let (count, rest) = if options.quick { (QUICK_COUNT, QUICK_REST) } else { (COUNT, REST) };
    World::with(Shape { nodes: 1, hosts: 1 }, |world| {
        world.cluster.cli.apply(&idle(count))?;
        wait::until("all containers run", RUNNING, || {
            let instances = world.cluster.cli.instances("camden/idle")?;
            let running =
                instances.iter().filter(|one| supercloud_tests::cli::text(one, "state") == "running");
            match running.count() {
                running if running == count => Ok(()),
                running => wrong(format!("{running} of {count} run")),
            }
        })?;
        thread::sleep(SETTLE);
        let process = world.agents[0].process()?.pid();
        let (before, begun) = (usage::cpu(process)?, Instant::now());
        thread::sleep(rest);
        let cores = (usage::cpu(process)? - before).as_secs_f64() / begun.elapsed().as_secs_f64();
        report.note("agent_containers", count as f64);
        report.note("agent_cpu_percent", cores * 100.0);
        report.note("agent_rss_mib", usage::rss_mib(process)?);
        report.probe()
    })
}

/// Containers that sleep.
fn idle(count: usize) -> String {
    format!(
        "workload: idle
borough: {BOROUGH}
kind: service
count: {count}
stop_grace: 1s
container:
  image: {image}
  command: [ /bin/busybox, sleep, \"100000\" ]
resources: {{ cpu: 10m, memory: 6MiB }}
",
        image = docker::IMAGE
    )
}
