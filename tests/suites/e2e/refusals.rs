//! A refusal explains itself, and changes nothing.

use serde_json::Value;
use supercloud_tests::{
    Outcome, World,
    cli::{items, number, text},
    docker,
    specs::{example, example_path},
    wait::{SOON, until},
    world::SMALL,
    wrong,
};

/// What the scheduler counts on top of a container's memory, for what the runtime itself needs.
const OVERHEAD: u64 = 8 << 20;

#[test]
fn five_mistakes_five_messages_exit_1_and_nothing_created() -> Outcome {
    World::with(SMALL, |world| {
        let cli = &world.cluster.cli;
        let index = |cli: &supercloud_tests::cli::Cli| -> Outcome<Value> { cli.json(&["event", "list"]) };
        let before = until("nothing is written by itself any more", SOON, || {
            let events = index(cli)?;
            let raised = items(&events)?.iter().any(|event| text(event, "kind") == "level-raised");
            if raised {
                Ok(events)
            } else {
                wrong(format!("the cluster's level is not raised yet: {events}"))
            }
        })?;
        let answer = cli.run(&["apply", "-f", &example_path("five-mistakes.yaml")])?.with_code(1)?;
        assert_eq!(answer.stdout, "");
        assert!(answer.stderr.contains("5 problems in the spec"), "{answer}");
        let told: Vec<&str> = answer.stderr.lines().filter(|line| line.contains("expected")).collect();
        assert_eq!(told.len(), 5, "{answer}");
        for (path, found) in [
            ("kind", "servce"),
            ("container.ports.http", "80800"),
            ("container.mounts[0].path", "data"),
            ("resources.cpu", "lots"),
            ("resources.memmory", "memmory"),
        ] {
            let line = told.iter().find(|line| line.trim_start().starts_with(path));
            assert!(
                line.is_some_and(|line| line.contains("found") && line.contains(found)),
                "{path}: {answer}"
            );
        }
        assert_eq!(cli.json(&["workload", "list"])?, Value::Array(Vec::new()));
        assert_eq!(index(cli)?, before, "nothing was even written");
        assert_eq!(docker::containers(&world.cluster.id)?, []);
        Ok(())
    })
}

#[test]
fn what_no_host_can_bear_is_pending_and_explained_by_filter_and_shortfall() -> Outcome {
    World::with(SMALL, |world| {
        let cli = &world.cluster.cli;
        cli.apply(&example("too-big.yaml")?)?;
        let workload = "westminster/climate-model";
        let explanation = until("it is explained", SOON, || {
            let instance = cli.instance(workload)?;
            let explained = cli.json(&["explain", workload])?;
            match items(&explained)?.first() {
                Some(one) if text(&instance, "state") == "pending" => Ok(one.clone()),
                _ => wrong(format!("{instance}, {explained}")),
            }
        })?;
        assert_eq!((number(&explanation, "hosts"), number(&explanation, "fitting")), (1, 0));
        let filters = explanation.get("filters").cloned().unwrap_or_default();
        let fell: Vec<(&str, u64)> =
            items(&filters)?.iter().map(|one| (text(one, "filter"), number(one, "hosts"))).collect();
        assert_eq!(fell.iter().map(|(_, hosts)| hosts).sum::<u64>(), 1, "{fell:?}");
        assert!(fell.contains(&("resources", 1)), "{fell:?}");
        let nearest = explanation.get("nearest").cloned().unwrap_or_default();
        assert_eq!(text(&nearest, "host"), "h1");
        let short = nearest.get("shortfalls").cloned().unwrap_or_default();
        let short: Vec<(&str, u64, u64)> = items(&short)?
            .iter()
            .map(|one| (text(one, "what"), number(one, "needed"), number(one, "free")))
            .collect();
        assert_eq!(
            short,
            [
                ("cpu", 512_000, 1_000),
                ("memory", (8 << 40) + OVERHEAD, 1 << 30),
                ("disk", 100 << 40, 4 << 30)
            ],
            "need and what is free, of each amount"
        );
        let changes = explanation.get("changes").cloned().unwrap_or_default();
        let kinds: Vec<&str> = items(&changes)?.iter().map(|one| text(one, "kind")).collect();
        assert_eq!(kinds, ["resize"], "no other single change helps: {changes}");
        // People read the same in words.
        let words = cli.ok(&["explain", workload])?;
        assert!(words.contains("resources") && words.contains("nearest: h1"), "{words}");
        assert!(words.contains("it would fit: ask for 1 cpu and 1016MiB memory and 4GiB disk"), "{words}");
        assert_eq!(docker::containers(&world.cluster.id)?, []);
        Ok(())
    })
}
