//! What most tests begin with: a container and a VM that run.

use supercloud_tests::{
    Outcome, World,
    docker::{self, Container},
    hold,
    libvirt::{self, Domain},
    specs::{self, RECORDS, WEB},
};

/// A container and a VM, as the runtimes know them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Both {
    pub(crate) container: Container,
    pub(crate) domain: Domain,
}

impl Both {
    /// Hands both in and waits until they run.
    pub(crate) fn start(world: &World) -> Outcome<Self> {
        world.cluster.cli.apply_and_wait(&format!("{}---\n{}", specs::web(1), specs::records()))?;
        Self::look(world)
    }

    /// What runs now; an error unless it is exactly one container and one domain.
    pub(crate) fn look(world: &World) -> Outcome<Self> {
        let id = &world.cluster.id;
        Ok(Self { container: docker::only_container(id)?, domain: libvirt::only_domain(id)? })
    }

    /// Holds that exactly these two run, in the very same run: nothing doubled, nothing started anew.
    pub(crate) fn must_go_on(&self, world: &World) -> Outcome {
        let now = Self::look(world)?;
        hold(&now == self, || format!("expected {self:?}, found {now:?}"))
    }
}

/// Holds that the scheduler still knows both workloads as running, with the same objects.
pub(crate) fn must_be_known(world: &World, both: &Both) -> Outcome {
    let cli = &world.cluster.cli;
    for (workload, runtime_id) in [(WEB, &both.container.id), (RECORDS, &both.domain.uuid)] {
        let instance = cli.running(workload)?;
        let task = supercloud_tests::cli::task(&instance)?;
        let known = supercloud_tests::cli::text(task, "runtime_id");
        hold(known == runtime_id, || {
            format!("{workload}: expected {runtime_id}, the scheduler knows {known}")
        })?;
    }
    Ok(())
}
