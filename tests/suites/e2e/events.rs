//! What happened, and what would.

use std::collections::BTreeSet;

use serde_json::Value;
use supercloud_tests::{
    Outcome, World,
    cli::{items, number, text},
    docker, hold,
    specs::{self, WEB},
    wait::{SOON, until},
    world::SMALL,
    wrong,
};

#[test]
fn events_are_listed_and_watched_from_an_index() -> Outcome {
    World::with(SMALL, |world| {
        let cli = &world.cluster.cli;
        cli.apply_and_wait(&specs::web(1))?;
        let listed = until("the whole life is told", SOON, || {
            let listed = cli.json(&["event", "list", "--workload", WEB])?;
            let kinds: BTreeSet<&str> = items(&listed)?.iter().map(|one| text(one, "kind")).collect();
            let expected = ["workload-applied", "instance-created", "instance-placed", "instance-state"];
            if expected.iter().all(|kind| kinds.contains(kind)) {
                Ok(listed.clone())
            } else {
                wrong(listed.to_string())
            }
        })?;
        let places: Vec<(u64, u64)> =
            items(&listed)?.iter().map(|one| (number(one, "index"), number(one, "ordinal"))).collect();
        assert!(places.is_sorted(), "oldest first: {places:?}");
        let applied = items(&listed)?.iter().find(|one| text(one, "kind") == "workload-applied");
        assert!(applied.is_some_and(|one| text(one, "by").starts_with("operator")), "{applied:?}");

        // A watch from an earlier index tells again what was, and then what happens.
        let from = places[0].0 - 1;
        let arguments = ["event", "watch", "--workload", WEB, "--after", &from.to_string(), "-o", "json"];
        let watching = cli.follow(&arguments, &world.file("watch.log"))?;
        let told = |what: &str| -> Outcome {
            let written = watching.written()?;
            hold(written.contains(what), || written)
        };
        until("the past is told", SOON, || told("workload-applied"))?;
        cli.ok(&["workload", "scale", WEB, "2"])?;
        until("the present is told", SOON, || told("workload-scaled"))?;
        for line in watching.written()?.lines() {
            let event: Value = serde_json::from_str(line)?;
            assert!(number(&event, "index") > from, "{event}");
        }
        let about_host = cli.json(&["event", "list", "--host", "h1"])?;
        hold(items(&about_host)?.iter().any(|one| text(one, "kind") == "host-registered"), || {
            about_host.to_string()
        })
    })
}

#[test]
fn plan_says_by_its_exit_code_what_an_apply_would_do() -> Outcome {
    World::with(SMALL, |world| {
        let cli = &world.cluster.cli;
        let plan = |specs: &str, code: i32| cli.run_with(&["plan", "-f", "-"], specs)?.with_code(code);
        let new = plan(&specs::web(2), 10)?;
        assert!(new.stdout.contains("camden/planning-portal would be created (revision 1)"), "{new}");
        assert!(new.stdout.contains("place slot 1 on h1"), "{new}");
        assert_eq!(cli.json(&["workload", "list"])?, Value::Array(Vec::new()), "a plan changes nothing");

        cli.apply_and_wait(&specs::web(2))?;
        plan(&specs::web(2), 0)?;
        let other = plan(&specs::web(2).replace("MODE: live", "MODE: drill"), 10)?;
        assert!(other.stdout.contains("container.env.MODE: live -> drill"), "{other}");
        let too_big = plan(&specs::example("too-big.yaml")?, 11)?;
        assert!(too_big.stdout.contains("could not be placed"), "{too_big}");
        let wrong_spec = cli.run(&["plan", &specs::example_path("five-mistakes.yaml")])?.with_code(1)?;
        assert!(wrong_spec.stderr.contains("5 problems"), "{wrong_spec}");
        hold(docker::containers(&world.cluster.id)?.len() == 2, || "a plan changed something".to_owned())
    })
}
