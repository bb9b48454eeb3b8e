//! What a container writes into its volume is found by the one that comes after it, on the same host.

use supercloud_tests::{
    Outcome, World,
    cli::{Cli, items, text},
    docker, hold,
    wait::{LATER, SOON, until},
    world::Shape,
    wrong,
};

const LEDGER: &str = "camden/ledger";

/// A container that adds a line to what is in its volume, and would rather be on some host.
fn ledger(line: &str, rather: &str) -> String {
    format!(
        "workload: ledger
borough: camden
kind: service
stop_grace: 1s
container:
  image: {}
  command: [ /bin/sh, -c, \"echo {line} >> /data/lines; exec sleep 10000\" ]
  mounts: [ {{ volume: lines, path: /data }} ]
resources: {{ cpu: 50m, memory: 16MiB }}
place: {{ prefer: [ {{ when: \"host == {rather}\", weight: 100 }} ] }}
",
        docker::IMAGE
    )
}

/// The host where the volumes live, once they do.
fn home(cli: &Cli) -> Outcome<String> {
    let listed = cli.json(&["volume", "list"])?;
    match &items(&listed)?[..] {
        [one] if text(one, "workload") == "ledger" => Ok(text(one, "host").to_owned()),
        _ => wrong(listed.to_string()),
    }
}

/// Waits until these lines are in the volume: a container that has just started has not written yet.
fn written(cli: &Cli, lines: &str) -> Outcome {
    until("its lines are written", SOON, || {
        let found = cli.run(&["exec", LEDGER, "cat", "/data/lines"])?;
        if found.stdout == lines { Ok(()) } else { wrong(found.to_string()) }
    })
}

#[test]
fn a_new_revision_finds_on_the_same_host_what_the_old_one_wrote() -> Outcome {
    World::with(Shape { nodes: 1, hosts: 2 }, |world| {
        let cli = &world.cluster.cli;
        let names: Vec<String> = world.agents.iter().map(|agent| agent.name.clone()).collect();
        let [first, second] = &names[..] else { return wrong(format!("{names:?}")) };
        cli.apply_and_wait(&ledger("old", first))?;
        // The cluster's level goes up by itself within a second or two.
        let home = until("its volumes live somewhere", LATER, || home(cli))?;
        hold(home == *first, || format!("at home on {home}"))?;
        written(cli, "old\n")?;

        cli.apply_and_wait(&ledger("new", second))?;
        let after = cli.running(LEDGER)?;
        hold(text(&after, "host") == first, || format!("expected on {first}: {after}"))?;
        written(cli, "old\nnew\n")?;

        let refused = cli.run(&["volume", "forget", LEDGER, first])?.with_code(1)?;
        assert!(refused.stderr.contains(text(&after, "id")), "{refused}");
        cli.stop_and_wait(LEDGER)?;
        cli.ok(&["volume", "forget", LEDGER, first])?;
        let volumes = docker::volumes_and_networks(&world.cluster.id)?;
        assert!(volumes.iter().any(|one| one.ends_with("camden.ledger.lines")), "{volumes:?}");
        cli.apply_and_wait(&ledger("newest", second))?;
        let moved = cli.running(LEDGER)?;
        hold(text(&moved, "host") == second, || format!("expected on {second}: {moved}"))
    })
}
