//! Development mode: no certificates, and nobody from elsewhere.

use std::time::Duration;

use supercloud_tests::{
    Outcome, Wrong,
    cli::Cli,
    hold, listeners,
    ports::Ports,
    process::{Process, complete},
    scheduler, wait,
};

/// A command that refuses its settings does so at once.
const PATIENCE: Duration = Duration::from_secs(10);

#[test]
fn without_certificates_nothing_listens_beyond_loopback() -> Outcome {
    let folder = tempfile::tempdir()?;
    let mut ports = Ports::take()?;
    let (api, peer) = (format!("127.0.0.1:{}", ports.one()?), format!("127.0.0.1:{}", ports.one()?));
    let data = folder.path().join("data");
    let mut command = scheduler::program()?;
    command.args([
        "run",
        "--dev",
        "--api-listen",
        &api,
        "--peer-listen",
        &peer,
        "--data-dir",
        &data.to_string_lossy(),
    ]);
    let mut node = Process::start("a node for development", &mut command, &folder.path().join("log"))?;
    let home = folder.path().join("home");
    let cli = Cli::new(vec![api.clone()], &home, &home)?.with_credentials(None);
    wait::until("it answers without certificates", wait::SOON, || {
        node.must_run()?;
        cli.ok(&["--dev", "borough", "create", "camden"]).map(drop)
    })?;
    let listens = listeners::of(node.pid())?;
    assert!(!listens.is_empty());
    assert!(listens.iter().all(|at| at.ip().is_loopback()), "{listens:?}");
    let written = node.written()?;
    hold(written.to_lowercase().contains("without certificates") || written.contains("--dev"), || {
        format!("it does not say what it is: {written}")
    })
}

#[test]
fn an_open_address_without_certificates_is_refused_with_every_other_mistake() -> Outcome {
    let folder = tempfile::tempdir()?;
    let data = folder.path().join("data");
    let mut command = scheduler::program()?;
    command.args(["run", "--dev", "--api-listen", "0.0.0.0:7400", "--peer-listen", "here", "--lease", "1s"]);
    let refused = complete(command.arg("--data-dir").arg(&data), b"", PATIENCE)?.with_code(1)?;
    for path in ["api_listen", "peer_listen", "lease"] {
        let line = refused.stderr.lines().find(|line| line.contains(&format!("{path}: ")));
        let line = line.ok_or_else(|| Wrong(format!("{path} is not told: {refused}")))?;
        assert!(line.contains("expected") && line.contains("found"), "{line}");
    }
    hold(!data.join("raft").exists(), || "something was made".to_owned())
}
