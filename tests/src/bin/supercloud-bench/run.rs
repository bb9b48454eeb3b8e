//! From handed in to running, beside `docker run` and `virsh start`: one container and one VM, with nothing else going on.
//!
//! Ours begins with the API call and ends when the API's watch shows the instance as running: scheduler, log, agent, runtime and the
//! way back. Theirs is the command, which returns when the runtime says that it runs. The command of theirs starts a program and ours is
//! a call of a program that runs already, so `supercloud apply --wait` is measured beside both: a person types that.
//!
//! A container of ours is on a network of its borough, which the first one on a host has to wait for; theirs is on Docker's own. So the
//! containers are measured once more beside another one of the borough, which keeps that network there, with theirs on it as well: what
//! is left then is what the way through scheduler and agent costs.

use std::time::{Duration, Instant};

use supercloud_tests::{Outcome, Shape, World, docker, libvirt};

use crate::{
    Options,
    api::Client,
    baseline::{self, Container, Domain},
    report::Report,
    sample::{median, millis},
};

/// Sizes of the cluster, with what their keys end in: three nodes are how it is meant to be run.
const CLUSTERS: [(usize, &str); 2] = [(3, ""), (1, "_one_node")];
const BOROUGH: &str = "camden";
/// A container that runs beside those that are measured.
const NEIGHBOUR: &str = "neighbour";

/// The bench.
pub(crate) fn run(options: &Options, report: &mut Report) -> Outcome {
    for (nodes, suffix) in CLUSTERS {
        eprintln!("{nodes} scheduler node(s), one host, {} rounds", options.rounds);
        World::with(Shape { nodes, hosts: 1 }, |world| {
            let client = Client::connect(&world.cluster.servers(), &world.cluster.credentials)?;
            let round = Rounds { world, client: &client, count: options.rounds };
            let copy = round.copy_of_container()?;
            round.containers(&copy, suffix, report)?;
            client.start(&container(NEIGHBOUR))?;
            let copy = copy.on_network_of(&docker::only_container(&world.cluster.id)?)?;
            round.containers(&copy, &format!("_same_network{suffix}"), report)?;
            client.end(BOROUGH, NEIGHBOUR)?;
            report.probe()?;
            round.guests(suffix, report)
        })?;
    }
    Ok(())
}

struct Rounds<'a> {
    world: &'a World,
    client: &'a Client,
    count: usize,
}

impl Rounds<'_> {
    /// Nothing is measured of the first: it warms up both sides, and is what the other side copies.
    fn copy_of_container(&self) -> Outcome<Container> {
        self.client.start(&container("warm"))?;
        let copy = Container::like(&docker::only_container(&self.world.cluster.id)?)?;
        self.client.end(BOROUGH, "warm")?;
        copy.end(&copy.start()?)?;
        Ok(copy)
    }

    fn containers(&self, copy: &Container, suffix: &str, report: &mut Report) -> Outcome {
        let (mut ours, mut typed, mut theirs) = (Vec::new(), Vec::new(), Vec::new());
        for round in 1..=self.count {
            let name = format!("web-{round}");
            ours.push(timed(|| self.client.start(&container(&name)))?.0);
            self.client.end(BOROUGH, &name)?;

            let (time, id) = timed(|| copy.start())?;
            theirs.push(time);
            copy.end(&id)?;

            let name = format!("typed-{round}");
            typed.push(self.typed(&container(&name))?);
            self.client.end(BOROUGH, &name)?;
            eprintln!(
                "  container {round}: {}",
                shown(&[("ours", &ours), ("docker run", &theirs), ("apply --wait", &typed)])
            );
        }
        let (own, typed, docker) = (median(&ours), median(&typed), median(&theirs));
        report.note(format!("run_vs_docker{suffix}"), own.as_secs_f64() / docker.as_secs_f64());
        report.note(format!("run_typed_vs_docker{suffix}"), typed.as_secs_f64() / docker.as_secs_f64());
        report.note(format!("run_container_ms{suffix}"), millis(own));
        report.note(format!("run_container_typed_ms{suffix}"), millis(typed));
        report.note(format!("docker_run_ms{suffix}"), millis(docker));
        Ok(())
    }

    fn guests(&self, suffix: &str, report: &mut Report) -> Outcome {
        self.client.start(&guest("warm"))?;
        let copy = Domain::like(&libvirt::only_domain(&self.world.cluster.id)?.name, self.world.folder())?;
        self.client.end(BOROUGH, "warm")?;
        copy.define()?;
        copy.start()?;
        copy.end()?;
        let (mut ours, mut defined, mut theirs) = (Vec::new(), Vec::new(), Vec::new());
        for round in 1..=self.count {
            let name = format!("vm-{round}");
            ours.push(timed(|| self.client.start(&guest(&name)))?.0);
            self.client.end(BOROUGH, &name)?;

            let definition = timed(|| copy.define())?.0;
            let start = timed(|| copy.start())?.0;
            defined.push(definition + start);
            theirs.push(start);
            copy.end()?;
            eprintln!(
                "  VM {round}: {}",
                shown(&[("ours", &ours), ("define and start", &defined), ("start", &theirs)])
            );
        }
        let (own, both, start) = (median(&ours), median(&defined), median(&theirs));
        report.note(format!("run_vs_virsh{suffix}"), own.as_secs_f64() / both.as_secs_f64());
        report.note(format!("run_vs_virsh_start_alone{suffix}"), own.as_secs_f64() / start.as_secs_f64());
        report.note(format!("run_vm_ms{suffix}"), millis(own));
        report.note(format!("virsh_define_start_ms{suffix}"), millis(both));
        Ok(())
    }

    /// As a person does it: the command, until it returns.
    fn typed(&self, text: &str) -> Outcome<Duration> {
        let answer = self.world.cluster.cli.run_with(&["apply", "--file", "-", "--wait"], text)?;
        Ok(answer.with_code(0)?.took)
    }
}

fn container(name: &str) -> String {
    format!(
        "workload: {name}
borough: {BOROUGH}
kind: service
stop_grace: 1s
container:
  image: {image}
  command: [ /bin/busybox, httpd, -f, -p, \"8080\", -h, /www ]
  env: {{ MODE: live }}
  ports: {{ http: 8080 }}
resources: {{ cpu: 50m, memory: 16MiB }}
",
        image = docker::IMAGE
    )
}

/// Without a disk: what is measured is the way to a running domain, not the making of files.
fn guest(name: &str) -> String {
    let (kernel, initrd) = baseline::guest();
    format!(
        "workload: {name}
borough: {BOROUGH}
kind: service
stop_grace: 1s
vm:
  boot: {{ kernel: {kernel:?}, initrd: {initrd:?}, cmdline: \"console=ttyS0 hostname={name}\" }}
resources: {{ cpu: 500m, memory: 256MiB }}
"
    )
}

fn timed<T>(work: impl FnOnce() -> Outcome<T>) -> Outcome<(Duration, T)> {
    let begun = Instant::now();
    let done = work()?;
    Ok((begun.elapsed(), done))
}

/// The latest of each, for whoever watches.
fn shown(sides: &[(&str, &Vec<Duration>)]) -> String {
    let latest = |(name, times): &(&str, &Vec<Duration>)| {
        format!("{name} {:.0} ms", times.last().map_or(0.0, |time| millis(*time)))
    };
    sides.iter().map(latest).collect::<Vec<_>>().join(", ")
}
