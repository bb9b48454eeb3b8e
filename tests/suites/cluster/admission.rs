//! Who may come in: single-use tokens, certificates of this cluster, and each role within its bounds.

use supercloud_tests::{
    Outcome, World, agent,
    cli::Cli,
    hold, listeners,
    ports::Ports,
    scheduler::Cluster,
    specs,
    world::{SMALL, Shape},
    wrong,
};

const ALONE: Shape = Shape { nodes: 1, hosts: 0 };

/// Joins as a person: the credentials' file and the answer's text.
fn login(world: &World, token: &str, name: &str) -> Outcome<Cli> {
    let file = world.file(&format!("{name}.pem"));
    let cli = world.cluster.cli.with_credentials(None);
    cli.ok(&["login", "--token", token, "--out", &file.to_string_lossy(), "--name", name])?;
    Ok(world.cluster.cli.with_credentials(Some(&file)))
}

#[test]
fn a_token_is_good_once() -> Outcome {
    World::with(ALONE, |world| {
        let token = world.cluster.token(&["operator", "alice"])?;
        let alice = login(world, &token, "alice")?;
        alice.ok(&["borough", "create", "barnet"])?;
        let file = world.file("second.pem");
        let cli = world.cluster.cli.with_credentials(None);
        let second =
            cli.run(&["login", "--token", &token, "--out", &file.to_string_lossy()])?.with_code(1)?;
        assert!(!file.exists(), "{second}");
        let other = if token.ends_with('x') { 'y' } else { 'x' };
        let mistyped = format!("{}{other}", &token[..token.len() - 1]);
        let refused = cli.run(&["login", "--token", &mistyped, "--out", &file.to_string_lossy()])?;
        assert!(refused.code != Some(0) && refused.stderr.contains("mistyped"), "{refused}");
        // The events say who did what, and never the secret.
        let events = world.cluster.cli.ok(&["event", "list"])?;
        let secret = token.split('-').nth(2).unwrap_or_default();
        hold(events.contains("token-used") && !secret.is_empty() && !events.contains(secret), || {
            events.clone()
        })
    })
}

#[test]
fn an_agents_token_is_good_once_and_its_agent_listens_on_nothing() -> Outcome {
    World::with(SMALL, |world| {
        let token = world.cluster.token(&["agent", "h9"])?;
        let servers = world.cluster.servers();
        // A join does not replace credentials that are there, and does not spend the token on it.
        let refused = world.agents[0].join(&token, &servers)?;
        assert!(refused.code != Some(0), "{refused}");
        let (first, second) = (world.folder().join("h9"), world.folder().join("h9-again"));
        agent::join(&first, &token, &servers)?.with_code(0)?;
        let refused = agent::join(&second, &token, &servers)?;
        assert!(refused.code != Some(0) && !second.join("credentials.pem").exists(), "{refused}");

        let pid = world.agents[0].process()?.pid();
        let listens = listeners::of(pid)?;
        hold(listens.is_empty(), || format!("the agent listens at {listens:?}"))
    })
}

#[test]
fn credentials_of_another_cluster_or_none_are_refused() -> Outcome {
    World::with(ALONE, |world| {
        let folder = world.folder().join("other");
        std::fs::create_dir(&folder)?;
        let mut ports = Ports::take()?;
        let other = Cluster::start(&folder, 1, &mut ports)?;
        let stranger = world.cluster.cli.with_credentials(Some(&other.credentials));
        let refused = stranger.run(&["borough", "list"])?;
        assert!(matches!(refused.code, Some(1..=3)) && refused.stdout.is_empty(), "{refused}");
        let nobody = world.cluster.cli.with_credentials(None);
        let refused = nobody.run(&["borough", "list"])?;
        assert!(matches!(refused.code, Some(1..=3)) && refused.stdout.is_empty(), "{refused}");
        // A token of the other cluster lets nobody into this one, and is not even sent.
        let token = other.token(&["operator", "mallory"])?;
        let file = world.file("mallory.pem");
        let refused = nobody.run(&["login", "--token", &token, "--out", &file.to_string_lossy()])?;
        assert!(refused.code != Some(0) && !file.exists(), "{refused}");
        assert!(refused.stderr.contains("not of the cluster"), "{refused}");
        let unused = login_elsewhere(&other, &token)?;
        hold(unused == Some(0), || format!("the token was spent: {unused:?}"))
    })
}

fn login_elsewhere(cluster: &Cluster, token: &str) -> Outcome<Option<i32>> {
    let file = cluster.credentials.with_file_name("mallory.pem");
    let cli = cluster.cli.with_credentials(None);
    Ok(cli.run(&["login", "--token", token, "--out", &file.to_string_lossy()])?.code)
}

#[test]
fn a_boroughs_person_sees_and_changes_its_own_only() -> Outcome {
    World::with(ALONE, |world| {
        let cli = &world.cluster.cli;
        cli.apply(&specs::web(1))?;
        cli.apply(&specs::script("waste", "service", "exec sleep 1000").replace("camden", "hackney"))?;
        let token = world.cluster.token(&["borough", "bob", "--borough", "camden"])?;
        let bob = login(world, &token, "bob")?;
        assert_eq!(bob.ok(&["workload", "list", "-o", "name"])?.trim(), "camden/planning-portal");
        assert!(!bob.ok(&["event", "list"])?.contains("hackney"));
        for forbidden in [
            &["workload", "show", "hackney/waste"] as &[&str],
            &["workload", "scale", "hackney/waste", "3"],
            &["stop", "hackney/waste"],
            &["explain", "hackney/waste"],
            &["borough", "create", "mine"],
            &["host", "close", "h1"],
            &["token", "create", "operator", "bob"],
        ] {
            bob.run(forbidden)?.with_code(1)?;
        }
        let foreign = specs::web(1).replace("camden", "hackney");
        bob.run_with(&["apply", "-f", "-"], &foreign)?.with_code(1)?;
        bob.ok(&["workload", "scale", "camden/planning-portal", "2"])?;
        if cli.instances("hackney/waste")?.len() == 1 {
            Ok(())
        } else {
            wrong("hackney's workload was changed")
        }
    })
}

#[test]
fn a_node_listens_where_it_was_told_and_nowhere_else() -> Outcome {
    World::with(Shape { nodes: 3, hosts: 0 }, |world| {
        for node in &mut world.cluster.nodes {
            let mut expected = vec![node.place.api.clone(), node.place.peer_listen.clone()];
            expected.sort();
            let pid = node.process()?.pid();
            let mut found: Vec<String> = listeners::of(pid)?.iter().map(ToString::to_string).collect();
            found.sort();
            assert_eq!(found, expected);
        }
        Ok(())
    })
}
