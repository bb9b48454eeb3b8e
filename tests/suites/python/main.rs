//! A client in another language, generated from the API's files, can do what the operator's command does.

use std::{env, path::PathBuf, process::Command, time::Duration};

use supercloud_tests::{
    Outcome, World, Wrong, hold,
    process::complete,
    programs,
    world::{SMALL, Shape},
};

/// Generating and running together.
const PATIENCE: Duration = Duration::from_secs(180);

/// A Python with grpcio-tools and grpcio-reflection, which `scripts/test` makes.
fn python() -> Outcome<PathBuf> {
    let given = env::var_os("SUPERCLOUD_PYTHON").map(PathBuf::from);
    let made =
        env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache/supercloud/python/bin/python"));
    let found = given.or(made).filter(|path| path.exists());
    found.ok_or_else(|| {
        Wrong("no Python for the client: run scripts/test, or set SUPERCLOUD_PYTHON".to_owned()).into()
    })
}

/// Generates the client, runs a part of it, and gives what it says.
fn client(world: &World, part: &str) -> Outcome<String> {
    let generated = world.file("generated");
    std::fs::create_dir_all(&generated)?;
    let protos = programs::repository().join("proto");
    let mut command = Command::new(python()?);
    command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/suites/python/client.py"));
    command.arg(part).arg(&protos).arg(&generated).arg(&world.cluster.credentials);
    command.args(world.cluster.servers()).env("PYTHONDONTWRITEBYTECODE", "1");
    Ok(complete(&mut command, b"", PATIENCE)?.with_code(0)?.stdout)
}

#[test]
fn reflection_lists_all_services_and_health_is_told() -> Outcome {
    World::with(Shape { nodes: 1, hosts: 0 }, |world| {
        let said = client(world, "reflection")?;
        for service in ["Agent", "Borough", "Event", "Host", "Instance", "Scheduler", "Workload"] {
            let name = format!("supercloud.v1.{service}Service");
            hold(said.contains(&name), || format!("{name} is not among them: {said}"))?;
        }
        hold(said.contains("health SERVING"), || said.clone())
    })
}

#[test]
fn a_generated_client_does_all_that_the_command_does() -> Outcome {
    World::with(SMALL, |world| {
        let said = client(world, "work")?;
        hold(said.trim_end().ends_with("all done"), || said.clone())
    })
}
