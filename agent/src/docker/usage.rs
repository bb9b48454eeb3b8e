//! What a container uses, by one reading: Docker's own rate needs a second reading a second later, and a rate over the caller's own
//! interval is the better one.

use bollard::query_parameters::StatsOptions;
use futures::StreamExt;
use supercloud_proto::amount::Bytes;

use super::{DockerDriver, failure::within, id_of};
use crate::driver::{ASK_DEADLINE, DriverError, Seen};

/// One reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Processor time used since the container was started, in nanoseconds of one core.
    pub cpu_nanos: u64,
    /// Memory used, without file pages that could be dropped.
    pub memory: Bytes,
    /// Processes and threads.
    pub pids: u64,
}

impl DockerDriver {
    /// What a running container uses; all zero for one that does not run, `Missing` when it is not there.
    pub async fn usage(&self, seen: &Seen) -> Result<Usage, DriverError> {
        let docker = self.client.docker().await?;
        let mut readings = docker.stats(id_of(seen)?, Some(StatsOptions { stream: false, one_shot: true }));
        let reading = async { readings.next().await.transpose() };
        let stats = within("stats", ASK_DEADLINE, reading)
            .await
            .map_err(|failure| failure.of_question("stats"))?
            .ok_or(DriverError::Missing)?;
        let memory = stats.memory_stats.unwrap_or_default();
        // The name of the droppable pages differs between the kernel's two ways to count.
        let droppable = memory
            .stats
            .as_ref()
            .and_then(|all| all.get("total_inactive_file").or_else(|| all.get("inactive_file")).copied());
        let used = memory.usage.unwrap_or_default().saturating_sub(droppable.unwrap_or_default());
        Ok(Usage {
            cpu_nanos: stats.cpu_stats.and_then(|cpu| cpu.cpu_usage?.total_usage).unwrap_or_default(),
            memory: Bytes(used),
            pids: stats.pids_stats.and_then(|pids| pids.current).unwrap_or_default(),
        })
    }
}
