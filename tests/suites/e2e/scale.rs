//! More, fewer, and another revision.

use std::collections::BTreeSet;

use supercloud_tests::{
    Outcome, World,
    cli::{items, number, text},
    docker, hold,
    specs::{self, WEB},
    wait::{LATER, SOON, until},
    world::{SMALL, Shape},
    wrong,
};

#[test]
fn count_goes_up_and_down_and_what_stays_is_not_touched() -> Outcome {
    World::with(Shape { nodes: 1, hosts: 2 }, |world| {
        let cli = &world.cluster.cli;
        cli.apply_and_wait(&specs::web(2))?;
        let first: BTreeSet<String> =
            docker::containers(&world.cluster.id)?.into_iter().map(|one| one.id).collect();
        assert_eq!(first.len(), 2);
        cli.ok(&["workload", "scale", WEB, "4", "--wait", "--timeout", "60s"])?;
        let more: BTreeSet<String> =
            docker::containers(&world.cluster.id)?.into_iter().map(|one| one.id).collect();
        assert!(more.len() == 4 && more.is_superset(&first), "{first:?} {more:?}");
        let ports: BTreeSet<(String, u64)> = cli
            .instances(WEB)?
            .iter()
            .filter_map(|one| {
                Some((text(one, "host").to_owned(), number(one.pointer("/ports/0")?, "host_port")))
            })
            .collect();
        assert_eq!(ports.len(), 4, "each has a port of its own: {ports:?}");

        cli.ok(&["workload", "scale", WEB, "1", "--wait", "--timeout", "60s"])?;
        until("one is left", SOON, || docker::only_container(&world.cluster.id).map(drop))?;
        let shown = cli.workload(WEB)?;
        assert_eq!(number(&shown, "revision"), 1, "a new count is no new revision");
        cli.ok(&["workload", "scale", WEB, "0"])?;
        until("none is left", LATER, || {
            let left = docker::containers(&world.cluster.id)?;
            if left.is_empty() { Ok(()) } else { wrong(format!("{left:?}")) }
        })
    })
}

#[test]
fn a_new_revision_replaces_the_old_one_a_few_at_a_time() -> Outcome {
    World::with(SMALL, |world| {
        let cli = &world.cluster.cli;
        cli.apply_and_wait(&specs::web(3))?;
        let old: BTreeSet<String> =
            docker::containers(&world.cluster.id)?.into_iter().map(|one| one.id).collect();
        let applied = cli.apply(&specs::web(3).replace("MODE: live", "MODE: drill"))?;
        assert!(applied.stdout.contains("updated (revision 2)"), "{applied}");
        let mut fewest = usize::MAX;
        until("all three are of the new revision", LATER, || {
            fewest = fewest.min(docker::count_running(&world.cluster.id)?);
            let now = docker::containers(&world.cluster.id)?;
            let renewed = now.iter().filter(|one| one.running && one.label("revision") == "2").count();
            if renewed == 3 && now.len() == 3 { Ok(()) } else { wrong(format!("{now:?}")) }
        })?;
        assert!(fewest >= 2, "max_unavailable is 1, and only {fewest} ran");
        let new: BTreeSet<String> =
            docker::containers(&world.cluster.id)?.into_iter().map(|one| one.id).collect();
        assert!(new.is_disjoint(&old));
        assert_eq!(cli.ok(&["exec", WEB, "sh", "-c", "echo $MODE"])?, "drill\n");
        let history = cli.json(&["workload", "history", WEB])?;
        let revisions: Vec<u64> = items(&history)?.iter().map(|one| number(one, "revision")).collect();
        hold(revisions == [2, 1], || history.to_string())
    })
}

#[test]
fn a_batch_runs_to_its_end_once_and_is_completed() -> Outcome {
    World::with(SMALL, |world| {
        let cli = &world.cluster.cli;
        cli.apply_and_wait(&specs::script("count-votes", "batch", "echo counted"))?;
        until("it is completed", SOON, || {
            let shown = cli.workload("camden/count-votes")?;
            hold(text(&shown, "state") == "completed", || shown.to_string())
        })?;
        until("nothing runs any more", SOON, || {
            let now = docker::containers(&world.cluster.id)?;
            if now.iter().all(|one| !one.running) { Ok(()) } else { wrong(format!("{now:?}")) }
        })
    })
}

#[test]
fn a_gang_runs_as_a_whole_once_there_is_room_for_all() -> Outcome {
    World::with(Shape { nodes: 1, hosts: 2 }, |world| {
        let cli = &world.cluster.cli;
        let gang = |count: u32| {
            let rules = "place: { distinct_hosts: true, all_or_none: true }\n";
            specs::web(count) + rules
        };
        until("every member is known to know gangs", LATER, || cli.apply(&gang(3)))?;
        let words = until("the explanation tells of the gang", LATER, || {
            let words = cli.ok(&["explain", WEB])?;
            hold(
                words.contains("one of 3 that are given hosts at once or not at all; 2 would find hosts"),
                || words.clone(),
            )
            .map(|()| words)
        })?;
        assert!(words.contains("distinct-hosts"), "{words}");
        let states = |state: &str| -> Outcome<usize> {
            Ok(cli.instances(WEB)?.iter().filter(|one| text(one, "state") == state).count())
        };
        assert_eq!((states("pending")?, states("running")?), (3, 0), "none runs before all can");
        cli.ok(&["workload", "scale", WEB, "2"])?;
        until("two run", LATER, || {
            let running = states("running")?;
            hold(running == 2, || format!("{running} run"))
        })
    })
}

#[test]
fn distinct_hosts_and_sites_are_obeyed_and_the_rest_waits_with_a_reason() -> Outcome {
    World::with(Shape { nodes: 1, hosts: 2 }, |world| {
        let cli = &world.cluster.cli;
        let apart = specs::web(3) + "place: { distinct_hosts: true }\n";
        cli.apply(&apart)?;
        let hosts = until("two run and one waits", LATER, || {
            let all = cli.instances(WEB)?;
            let on: BTreeSet<&str> = all
                .iter()
                .filter(|one| text(one, "state") == "running")
                .map(|one| text(one, "host"))
                .collect();
            let waiting = all.iter().filter(|one| text(one, "state") == "pending").count();
            if on.len() == 2 && waiting == 1 { Ok(on.len()) } else { wrong(format!("{all:?}")) }
        })?;
        assert_eq!(hosts, 2);
        let words = cli.ok(&["explain", WEB])?;
        assert!(words.contains("distinct-hosts"), "{words}");

        let there =
            specs::script("here-only", "service", "exec sleep 1000") + "place: { sites: [ slough ] }\n";
        cli.apply_and_wait(&there)?;
        let placed = cli.running("camden/here-only")?;
        hold(text(&placed, "host") == "h2", || placed.to_string())
    })
}
