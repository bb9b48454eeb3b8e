//! The Docker driver, over bollard. It knows containers, images and Docker's ways; it knows nothing of orders' fates, of ledgers or of
//! the scheduler.
//!
//! Decisions
//! - **What is there counts, not what Docker says about it.** Docker has answered 500 and started the container. After an act that
//!   seems to have failed we look, and believe what we see.
//! - **A name belongs to one instance's task.** A container that stands under our name is adopted when its labels say that it is this
//!   instance's task, whatever order made it; else the start is refused and the container left alone.
//! - **Images are immutable.** An image that is here is never pulled again, whatever its tag promises.
//! - **Published ports listen on [`DockerSettings::bind`]**, on every address unless set: an order's address is where the host is
//!   *reached*, which behind a translation of addresses is none of its own.
//! - **At most [`PARALLEL_STARTS`] containers are made or started at a time**: more only makes each slower. Waiting for one's turn is
//!   outside the deadline, since a queue is no silence of Docker's.
//!
//! From the ground: `mark`, `phase`, `request`, `subnet` (pure), `failure` · `client` · `list` · `firewall` · `bridge` · `life`, `network`, `image`, `logs`, `exec`, `events`, `usage`.

use std::{
    net::{IpAddr, Ipv4Addr},
    path::Path,
    sync::{Arc, Mutex},
};

use futures::stream::BoxStream;
use supercloud_proto::{host::DriverInfo, id::Millis, spec::DriverKind, v1};
use tokio::sync::{Mutex as Turn, OnceCell, Semaphore};
use tonic::async_trait;

use self::{client::Client, list::Remembered};
use crate::{
    devices::Devices,
    driver::{Driver, DriverError, ExecIo, Hint, LogOptions, Owner, Pin, Seen, TaskRun},
};

mod bridge;
mod client;
mod events;
mod exec;
mod failure;
mod firewall;
mod image;
mod life;
mod list;
mod logs;
mod mark;
mod network;
mod phase;
mod request;
mod subnet;
mod usage;

pub use subnet::{NoRange, Pool};
pub use usage::Usage;

/// Most containers made or started at a time. Measured: two cores are busy with four; eight start no more a second.
pub const PARALLEL_STARTS: usize = 4;

/// What an operator may choose about Docker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DockerSettings {
    /// Address on which published ports listen.
    pub bind: IpAddr,
    /// Addresses of the boroughs' networks. Agents that share a Docker may share them.
    pub networks: Pool,
    /// Whether a rule of our own keeps these networks apart, beside those of Docker.
    pub firewall: bool,
    /// Devices of the host.
    pub devices: Devices,
}

impl Default for DockerSettings {
    fn default() -> Self {
        Self {
            bind: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            networks: Pool::default(),
            firewall: true,
            devices: Devices::new(),
        }
    }
}

/// Containers by the Docker behind one socket.
pub struct DockerDriver {
    client: Arc<Client>,
    settings: DockerSettings,
    starts: Semaphore,
    /// Held by whoever makes or takes away a borough's network.
    networks: Turn<()>,
    /// Set once the rule that keeps boroughs apart stands.
    apart: OnceCell<()>,
    /// Whether Docker has an init to put in front of a task.
    init: OnceCell<bool>,
    remembered: Mutex<Remembered>,
}

impl DockerDriver {
    /// A driver for the Docker behind `socket`. Touches nothing yet: whether Docker is there, [`Driver::probe`] tells, and each call tries.
    pub fn connect(socket: &Path, owner: Owner, settings: DockerSettings) -> Self {
        Self {
            client: Arc::new(Client::new(socket.to_owned(), owner)),
            settings,
            starts: Semaphore::new(PARALLEL_STARTS),
            networks: Turn::default(),
            apart: OnceCell::new(),
            init: OnceCell::new(),
            remembered: Mutex::default(),
        }
    }
}

/// The id under which a container was seen. Anything else in its place would be another address of Docker's API.
fn id_of(seen: &Seen) -> Result<&str, DriverError> {
    let id = seen.runtime_id.as_str();
    if !id.is_empty() && id.bytes().all(|b| b.is_ascii_hexdigit()) {
        Ok(id)
    } else {
        Err(DriverError::Refused(format!("{id:?} is no container id")))
    }
}

#[async_trait]
impl Driver for DockerDriver {
    fn kind(&self) -> DriverKind {
        DriverKind::Docker
    }

    async fn probe(&self) -> DriverInfo {
        match self.client.version().await {
            Ok(version) => DriverInfo {
                version: version.version.unwrap_or_default(),
                healthy: true,
                ..DriverInfo::default()
            },
            Err(error) => DriverInfo { reason: error.to_string(), ..DriverInfo::default() },
        }
    }

    async fn list(&self) -> Result<Vec<Seen>, DriverError> {
        self.list_marked().await
    }

    async fn prepare(&self, run: &TaskRun) -> Result<(), DriverError> {
        self.have_image(run).await
    }

    async fn start(&self, run: &TaskRun) -> Result<Seen, DriverError> {
        self.start_in_network(run).await
    }

    async fn stop(&self, seen: &Seen, grace: Millis) -> Result<(), DriverError> {
        self.stop_within(seen, grace).await
    }

    async fn pin(&self, seen: &Seen, pin: &Pin) -> Result<(), DriverError> {
        self.move_to(seen, pin).await
    }

    async fn remove(&self, seen: &Seen) -> Result<(), DriverError> {
        self.take_away(seen).await
    }

    async fn logs(
        &self,
        seen: &Seen,
        options: LogOptions,
    ) -> Result<BoxStream<'static, Result<v1::LogsResponse, DriverError>>, DriverError> {
        logs::open(&self.client, id_of(seen)?, options).await
    }

    async fn exec(&self, seen: &Seen, start: v1::ExecStart) -> Result<ExecIo, DriverError> {
        exec::open(&self.client, id_of(seen)?, start).await
    }

    fn hints(&self) -> BoxStream<'static, Hint> {
        events::hints(Arc::clone(&self.client))
    }
}

#[cfg(test)]
mod tests {
    use supercloud_proto::{
        id::InstanceId,
        name::{BoroughName, HostName, TaskName, WorkloadKey, WorkloadName},
    };

    use super::*;
    use crate::driver::{Mark, Phase};

    #[test]
    fn only_a_container_id_becomes_part_of_an_address() {
        let seen = |id: &str| Seen {
            mark: Mark {
                owner: Owner { cluster: "ab".repeat(16), host: HostName::new("h").unwrap() },
                instance: InstanceId { index: 1, ordinal: 0 },
                workload: WorkloadKey {
                    borough: BoroughName::new("b").unwrap(),
                    workload: WorkloadName::new("w").unwrap(),
                },
                revision: 1,
                task: TaskName::new("t").unwrap(),
                order_index: 1,
            },
            runtime_id: id.to_owned(),
            phase: Phase::Created,
            cpus: None,
        };
        assert!(id_of(&seen("0123abc")).is_ok());
        for bad in ["", "name", "../volumes", "12/34"] {
            assert!(matches!(id_of(&seen(bad)), Err(DriverError::Refused(_))), "{bad}");
        }
    }
}
