//! A world of one test: a cluster, hosts, a container and a domain that are not ours, all in one folder. It takes down whatever it
//! put up, and when the test fails it prints the last of every log first.

use std::{
    fs,
    path::{Path, PathBuf},
};

use tempfile::TempDir;

use crate::{Outcome, agent::Agent, docker, leftovers, libvirt, ports::Ports, scheduler::Cluster};

/// The boroughs that the examples belong to.
pub const BOROUGHS: [&str; 4] = ["camden", "hackney", "islington", "westminster"];

/// What a world is to have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Scheduler nodes, 1 or 3.
    pub nodes: usize,
    /// Hosts, 0 to 2.
    pub hosts: usize,
}

/// One node and one host: what most tests need.
pub const SMALL: Shape = Shape { nodes: 1, hosts: 1 };

/// The world of one test.
#[derive(Debug)]
pub struct World {
    // In the order of taking down: agents before the cluster, so that their logs end quietly.
    /// The hosts.
    pub agents: Vec<Agent>,
    /// The scheduler.
    pub cluster: Cluster,
    foreign: Option<(docker::Foreign, libvirt::Foreign)>,
    folder: TempDir,
    passed: bool,
    ports: Ports,
}

impl World {
    /// Makes a world, lets the test act in it, and takes it down. What is not ours must have been left alone.
    pub fn with(shape: Shape, test: impl FnOnce(&mut Self) -> Outcome) -> Outcome {
        Self::with_settings(shape, &[], test)
    }

    /// The same, with further arguments of `supercloud-scheduler run`.
    pub fn with_settings(
        shape: Shape,
        settings: &[&str],
        test: impl FnOnce(&mut Self) -> Outcome,
    ) -> Outcome {
        let mut world = Self::make(shape, settings)?;
        test(&mut world)?;
        if let Some((container, domain)) = &world.foreign {
            container.must_be_untouched()?;
            domain.must_be_untouched()?;
        }
        world.passed = true;
        Ok(())
    }

    fn make(shape: Shape, settings: &[&str]) -> Outcome<Self> {
        let folder = leftovers::folder()?;
        let mut ports = Ports::take()?;
        let path = folder.path().to_owned();
        let cluster = Cluster::start_with(&path, shape.nodes, &mut ports, settings);
        let cluster = cluster.inspect_err(|_| print_logs(&path))?;
        leftovers::note_cluster(&path, &cluster.id)?;
        let mut world = Self { agents: Vec::new(), cluster, foreign: None, folder, passed: false, ports };
        for borough in BOROUGHS {
            world.cluster.cli.ok(&["borough", "create", borough])?;
        }
        if shape.hosts > 0 {
            world.foreign = Some((docker::Foreign::start()?, libvirt::Foreign::define(&path)?));
        }
        for number in 1..=shape.hosts {
            let agent = Agent::start(&path, number, &mut world.ports, &world.cluster)?;
            world.agents.push(agent);
        }
        Ok(world)
    }

    /// A folder for the test's own files.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A file of the test's own.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

/// Prints the last of every log in a folder.
pub fn print_logs(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    let mut logs: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    logs.retain(|path| path.extension().is_some_and(|extension| extension == "log"));
    logs.sort();
    for log in logs {
        eprintln!("--- the last of {}\n{}", log.display(), crate::process::tail(&log));
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if !self.passed {
            print_logs(self.folder.path());
        }
        // Agents and nodes first: an agent would bring back what is removed below.
        for agent in &mut self.agents {
            agent.process = None;
        }
        for node in &mut self.cluster.nodes {
            node.process = None;
        }
        for cleared in [docker::clear(&self.cluster.id), libvirt::clear(&self.cluster.id)] {
            if let Err(error) = cleared {
                eprintln!("clearing away: {error}");
            }
        }
    }
}
