//! The network namespace that the containers of one instance share.
//!
//! The instance's first container holds it (see `request`). Two things follow, and are done here: before another container starts, the
//! holder must run; and when the holder is started anew, Docker gives it a new namespace, so those that still run in the old one, cut off
//! from everything, are restarted into the new one. When the holder has ended and is not to run again, the others cannot
//! start: a workload whose tasks outlive each other puts the one that lives longest first.

use std::time::Duration;

use bollard::query_parameters::RestartContainerOptions;
use tracing::info;

use super::{
    DockerDriver,
    failure::{Failure, within},
    request,
};
use crate::driver::{ACT_DEADLINE, DriverError, Phase, Seen, TaskRun};

impl DockerDriver {
    /// Starts one container of an instance, with regard to the namespace it shares.
    pub(super) async fn start_in_network(&self, run: &TaskRun) -> Result<Seen, DriverError> {
        match request::holder(run) {
            Some(holder) => {
                self.have_holder(&holder).await?;
                self.bring_up(run).await
            }
            None => self.start_holder(run).await,
        }
    }

    async fn have_holder(&self, holder: &TaskRun) -> Result<(), DriverError> {
        match self.find(holder).await?.map(|found| found.seen.phase) {
            Some(Phase::Running { .. }) => Ok(()),
            Some(Phase::Ended { reason, .. }) => Err(DriverError::Refused(format!(
                "task {} holds the network of this instance and does not run: {reason}",
                holder.mark.task
            ))),
            // Ordered together with this task and about to be started anyway.
            Some(Phase::Created) | None => {
                self.have_image(holder).await?;
                self.bring_up(holder).await.map(|_| ())
            }
        }
    }

    /// Starts a holder and, when it had ended, takes the others that run into its new namespace.
    async fn start_holder(&self, holder: &TaskRun) -> Result<Seen, DriverError> {
        let others: Vec<TaskRun> = request::containers(&holder.order)
            .filter(|at| *at != holder.task)
            .filter_map(|at| request::sibling(holder, at))
            .collect();
        if others.is_empty() {
            return self.bring_up(holder).await;
        }
        let before = self.find(holder).await?.map(|found| found.seen.phase);
        let seen = self.bring_up(holder).await?;
        let renewed = matches!(before, Some(Phase::Ended { .. })) && is_running(&seen);
        for other in others.iter().filter(|_| renewed) {
            if let Some(found) = self.find(other).await?
                && is_running(&found.seen)
            {
                self.restart(other, &found.seen.runtime_id).await?;
            }
        }
        Ok(seen)
    }

    async fn restart(&self, run: &TaskRun, id: &str) -> Result<(), DriverError> {
        info!(instance = %run.mark.instance, task = %run.mark.task, "restarted into the new network of its instance");
        let docker = self.client.docker().await?;
        let grace = run.order.stop_grace;
        let seconds = i32::try_from(grace.div_ceil(1000)).unwrap_or(i32::MAX);
        let options = RestartContainerOptions { signal: None, t: Some(seconds) };
        let deadline = ACT_DEADLINE.saturating_add(Duration::from_millis(grace));
        self.forget(id);
        within("restart", deadline, docker.restart_container(id, Some(options)))
            .await
            .map_err(Failure::of_act)
    }
}

fn is_running(seen: &Seen) -> bool {
    matches!(seen.phase, Phase::Running { .. })
}
