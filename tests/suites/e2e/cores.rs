//! Cores of an instance's own: a container and a VM each have one while they run, and everything else on the host stays off it, whatever happens to the agent.

use supercloud_tests::{
    Outcome, World,
    cli::{Cli, text},
    docker::{self, docker},
    hold,
    libvirt::{self, virsh},
    specs::{RECORDS, records, script},
    wait::{LATER, SOON, until},
    world::SMALL,
};

/// Says on which processors it may run, again and again.
const TELL: &str = "while true; do /bin/busybox grep Cpus_allowed_list /proc/self/status; sleep 1; done";

/// The example, asking for one core of its own and memory of its node.
fn alone(spec: &str) -> String {
    let asked = "resources: { cpu: 1, dedicated: true, numa: one,";
    spec.replace("resources: { cpu: 50m,", asked).replace("resources: { cpu: 500m,", asked)
}

/// On which processors and NUMA nodes Docker lets the container of a workload run.
fn sets(cluster: &str, workload: &str) -> Outcome<(String, String)> {
    let all = docker::containers(cluster)?;
    let own = all.iter().find(|one| one.running && one.label("workload") == workload);
    let Some(own) = own else { return Ok((String::new(), String::new())) };
    let format = "{{.HostConfig.CpusetCpus}} {{.HostConfig.CpusetMems}}";
    let told = docker(&["inspect", "--format", format, &own.id])?;
    let (cpus, mems) = told.trim_end_matches('\n').split_once(' ').unwrap_or_default();
    Ok((cpus.to_owned(), mems.to_owned()))
}

/// The kernel's word, read in the container.
fn allowed(cli: &Cli, workload: &str) -> Outcome<String> {
    let instance = cli.instance(workload)?;
    let told = cli.ok(&[
        "exec",
        text(&instance, "id"),
        "/bin/busybox",
        "grep",
        "Cpus_allowed_list",
        "/proc/1/status",
    ])?;
    Ok(told.split_whitespace().last().unwrap_or_default().to_owned())
}

/// On which processors the virtual processors of a domain run, and QEMU's own threads.
fn pins(name: &str) -> Outcome<Vec<String>> {
    let of = |verb: &str| -> Outcome<Vec<String>> {
        let told = virsh(&[verb, name])?;
        let lines = told.lines().filter(|line| line.contains(|c: char| c.is_ascii_digit()));
        Ok(lines.filter_map(|line| line.split_whitespace().last().map(str::to_owned)).collect())
    };
    Ok([of("vcpupin")?, of("emulatorpin")?].concat())
}

/// The domain of a workload's instance.
fn domain(world: &World, workload: &str) -> Outcome<String> {
    let instance = world.cluster.cli.running(workload)?;
    let domains = libvirt::domains(&world.cluster.id)?;
    let own = domains.iter().find(|domain| domain.name.ends_with(text(&instance, "id")));
    Ok(own.map(|domain| domain.name.clone()).unwrap_or_default())
}

#[test]
fn whoever_has_a_core_of_his_own_is_alone_on_it() -> Outcome {
    World::with(SMALL, |world| {
        let agent = &mut world.agents[0];
        agent.kill()?;
        agent.replace_settings("cpu = \"1\"", "cpu = \"2\"")?;
        agent.run()?;
        agent.await_ready(&world.cluster)?;
        let (cli, id) = (&world.cluster.cli, &world.cluster.id);
        cli.apply_and_wait(&format!("{}---\n{}", script("plain", "service", TELL), records()))?;
        assert_eq!(sets(id, "plain")?.0, "", "a host on which nobody has cores is left as it is");
        let ordinary = domain(world, RECORDS)?;

        // The machine's last processor is given; its first one is always shared.
        until("the host tells its cores", SOON, || {
            let host = cli.ok(&["host", "show", "h1"])?;
            hold(host.contains("1 of them always shared"), || host)
        })?;
        cli.apply_and_wait(&alone(&script("own", "service", TELL)))?;
        let host = cli.json(&["host", "show", "h1"])?;
        let own = text(&host, "own_cpus").to_owned();
        assert_eq!(text(&cli.instance("camden/own")?, "cores"), format!("{own} of node 0"));
        assert_eq!(sets(id, "own")?, (own.clone(), "0".to_owned()));
        assert_eq!(allowed(cli, "camden/own")?, own);
        let is_kept_off = |what: &str| {
            until(what, SOON, || {
                let (plain, vm) = (sets(id, "plain")?.0, pins(&ordinary)?);
                let kept_off = |set: &String| !set.is_empty() && !set.contains(&own);
                hold(kept_off(&plain) && vm.len() == 2 && vm.iter().all(kept_off), || {
                    format!("{plain} {vm:?}")
                })
            })
        };
        is_kept_off("the others are kept off it")?;
        assert!(!allowed(cli, "camden/plain")?.contains(&own));

        // What was moved while the agent was away is put right when it is back.
        world.agents[0].kill()?;
        let plain = docker::containers(id)?.into_iter().find(|one| one.label("workload") == "plain");
        docker(&["update", "--cpuset-cpus", &own, &plain.map(|one| one.id).unwrap_or_default()])?;
        virsh(&["emulatorpin", &ordinary, &own, "--live"])?;
        world.agents[0].run()?;
        is_kept_off("the others are kept off it again")?;

        // What is given back is everybody's.
        cli.stop_and_wait("camden/own")?;
        until("the others have all processors again", SOON, || {
            let (plain, vm) = (sets(id, "plain")?.0, pins(&ordinary)?);
            hold(plain.contains(&own) && vm.iter().all(|set| set.contains(&own)), || {
                format!("{plain} {vm:?}")
            })
        })?;

        let vm = alone(&records()).replace("records", "steady");
        cli.apply_and_wait(&vm)?;
        let steady = domain(world, "hackney/steady")?;
        assert_eq!(pins(&steady)?, [own.clone(), own.clone()], "{steady}");
        let xml = virsh(&["dumpxml", &steady])?;
        assert!(xml.contains("<memory mode='strict' nodeset='0'/>"), "{xml}");
        until("the container is kept off the VM's core", LATER, || {
            let plain = sets(id, "plain")?.0;
            hold(!plain.is_empty() && !plain.contains(&own), || plain)
        })
    })
}
