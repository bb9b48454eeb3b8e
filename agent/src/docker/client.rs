//! The connection to Docker: opened when first needed, so that an agent starts while Docker is away.

use std::path::PathBuf;

use bollard::{
    API_DEFAULT_VERSION, Docker,
    errors::Error,
    models::{ContainerInspectResponse, SystemVersion},
};
use tokio::sync::OnceCell;

use super::failure::{Failure, within};
use crate::driver::{ASK_DEADLINE, DriverError, Owner};

/// bollard's own deadline, in seconds: longer than any of ours, which are set call by call.
const TRANSPORT_DEADLINE: u64 = 7 * 24 * 3600;

/// The way to one Docker, for one owner.
pub(super) struct Client {
    pub(super) owner: Owner,
    socket: PathBuf,
    docker: OnceCell<Docker>,
}

impl Client {
    pub(super) fn new(socket: PathBuf, owner: Owner) -> Self {
        Self { owner, socket, docker: OnceCell::new() }
    }

    /// bollard's client, its API version agreed with the daemon. Before the daemon has answered once, each call tries anew.
    pub(super) async fn docker(&self) -> Result<&Docker, DriverError> {
        let connect = self.docker.get_or_try_init(|| async {
            let path = self.socket.to_string_lossy();
            let docker = Docker::connect_with_unix(&path, TRANSPORT_DEADLINE, API_DEFAULT_VERSION)?;
            docker.negotiate_version().await
        });
        within("connect", ASK_DEADLINE, connect).await.map_err(|failure| failure.of_question("connect"))
    }

    /// What Docker is. Agrees on the API version anew when the daemon has become an older one.
    pub(super) async fn version(&self) -> Result<SystemVersion, DriverError> {
        let docker = self.docker().await?;
        let ask = async {
            let version = docker.version().await?;
            let ours = docker.client_version().to_string();
            if version.api_version.as_deref().is_some_and(|theirs| older(theirs, &ours)) {
                docker.clone().negotiate_version().await?;
            }
            Ok::<_, Error>(version)
        };
        within("version", ASK_DEADLINE, ask).await.map_err(|failure| failure.of_question("version"))
    }

    /// One container by id or name; `None` when there is none.
    pub(super) async fn inspect(
        &self,
        container: &str,
    ) -> Result<Option<ContainerInspectResponse>, DriverError> {
        let docker = self.docker().await?;
        match within("inspect", ASK_DEADLINE, docker.inspect_container(container, None)).await {
            Ok(found) => Ok(Some(found)),
            Err(Failure::Answer { status: 404, .. }) => Ok(None),
            Err(failure) => Err(failure.of_question("inspect")),
        }
    }
}

/// Whether version `a` ("1.41") is before `b`.
fn older(a: &str, b: &str) -> bool {
    let parts = |text: &str| -> Vec<u32> { text.split('.').map_while(|part| part.parse().ok()).collect() };
    parts(a) < parts(b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_by_number() {
        assert!(older("1.9", "1.41"));
        assert!(!older("1.41", "1.41"));
        assert!(!older("1.53", "1.41"));
    }
}
