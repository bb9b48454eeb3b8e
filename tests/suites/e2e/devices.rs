//! Devices: a container has those that it was given and no others, and whoever finds none free is told.

use std::process::Command;

use supercloud_tests::{
    Outcome, World,
    cli::{items, text},
    docker, hold,
    process::complete,
    specs::script,
    wait::{SOON, until},
    world::SMALL,
    wrong,
};

/// Longest time that making a node may take.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(10);
/// Says what a container has of devices, and stays.
const TELL: &str = "echo \"has $SUPERCLOUD_DEVICES, sees $VISIBLE;\"; ls /dev; sleep 1000";

/// A device node of this test: `/dev/zero` under another name. Taken away at the end.
struct Node(String);

impl Node {
    fn make(name: &str) -> Outcome<Self> {
        let path = format!("/dev/supercloud-{}-{name}", std::process::id());
        complete(Command::new("mknod").args([&path, "c", "1", "5"]), b"", PATIENCE)?.with_code(0)?;
        Ok(Self(path))
    }

    fn name(&self) -> &str {
        self.0.trim_start_matches("/dev/")
    }

    /// Its table in an agent's file.
    fn table(&self, name: &str, more: &str) -> String {
        let visible = name.trim_start_matches("gpu");
        format!(
            "[[devices]]\nname = {name:?}\nkind = \"gpu\"\nmodel = \"zero\"\nnodes = [{:?}]\nenv = {{ VISIBLE = {visible:?} }}\n{more}\n",
            self.0
        )
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.0) {
            eprintln!("{}: {error}", self.0);
        }
    }
}

fn asking(workload: &str, devices: &str) -> String {
    let asked = format!("memory: 16MiB, devices: [ {devices} ] }}");
    script(workload, "service", TELL).replace("memory: 16MiB }", &asked)
}

#[test]
fn a_container_has_the_devices_it_was_given_and_no_others() -> Outcome {
    let (shared, whole) = (Node::make("a")?, Node::make("b")?);
    World::with(SMALL, |world| {
        let agent = &mut world.agents[0];
        agent.kill()?;
        agent.add_settings(&shared.table("gpu0", "shared = true"))?;
        agent.add_settings(&whole.table("gpu1", "labels = { memory = \"32\" }"))?;
        agent.add_settings("[[devices]]\nname = \"gpu2\"\nkind = \"gpu\"\nmodel = \"zero\"\nnodes = [\"/dev/supercloud-none\"]\n")?;
        agent.run()?;
        agent.await_ready(&world.cluster)?;
        let cli = &world.cluster.cli;
        until("the host has its devices", SOON, || {
            let host = cli.ok(&["host", "show", "h1"])?;
            hold(host.contains("memory=32") && host.contains("/dev/supercloud-none: No such file"), || host)
        })?;

        cli.apply_and_wait(&asking("half", "{ kind: gpu, share: 0.5 }"))?;
        cli.apply_and_wait(&asking("large", "{ kind: gpu, require: [ label.memory >= 32 ] }"))?;
        cli.apply_and_wait(&script("plain", "service", TELL))?;
        for (workload, said, has) in [
            ("camden/half", "has gpu0=0.5, sees 0;", [true, false]),
            ("camden/large", "has gpu1=1, sees 1;", [false, true]),
            ("camden/plain", "has , sees ;", [false, false]),
        ] {
            until("it says what it has", SOON, || {
                let logs = cli.ok(&["logs", workload])?;
                let seen = [&shared, &whole].map(|node| logs.lines().any(|line| line == node.name()));
                hold(logs.contains(said) && seen == has, || logs)
            })?;
        }
        let instance = cli.instance("camden/half")?;
        let device = instance.pointer("/devices/0").cloned().unwrap_or_default();
        assert_eq!((text(&device, "name"), text(&device, "share")), ("gpu0", "0.5"), "{instance}");
        let read = format!("/bin/busybox dd if={} bs=3 count=1 2>&1 | /bin/busybox tail -n 1", shared.0);
        let read = cli.ok(&["exec", text(&instance, "id"), "/bin/sh", "-c", &read])?;
        assert!(read.starts_with("1+0"), "it is opened and read: {read}");

        cli.apply(&asking("pair", "{ kind: gpu, count: 3 }"))?;
        let told = until("it is told why it waits", SOON, || {
            let told = cli.json(&["explain", "camden/pair"])?;
            match items(&told)?.first() {
                Some(one) if text(one, "summary").contains("devices") => Ok(one.clone()),
                _ => wrong(told.to_string()),
            }
        })?;
        assert!(text(&told, "summary").contains("/dev/supercloud-none"), "{told}");

        // What is given back is given away again.
        let host = cli.json(&["host", "show", "h1"])?;
        let given: Vec<&str> = items(&host["devices"])?.iter().map(|device| text(device, "given")).collect();
        assert_eq!(given, ["0.5", "1", "0"], "{host}");
        cli.stop_and_wait("camden/half")?;
        cli.apply_and_wait(&asking("next", "{ kind: gpu, share: 1 }"))?;
        let next = cli.running("camden/next")?;
        assert_eq!(next.pointer("/devices/0/name").and_then(|name| name.as_str()), Some("gpu0"));
        assert_eq!(docker::containers(&world.cluster.id)?.iter().filter(|one| one.running).count(), 3);
        Ok(())
    })
}
