//! One bridge network for each borough that has a container on this host: made when it is first needed, taken away with the borough's last
//! container.
//!
//! Decisions
//! - **A borough's containers reach each other, and no other borough's** (invariant I7). Docker lets nothing pass from one bridge to
//!   another, but for a moment whenever somebody makes a network: so a rule of our own stands beside it (see `firewall`). On Docker's default
//!   bridge, which all containers would share, every port is open to all. Published ports are reached by everybody.
//! - **The host is part of the name**: two agents may share one Docker. Its parts are joined by dots, as a volume's are.
//! - **Addresses come from [`DockerSettings::networks`](super::DockerSettings)**, a /24 each: Docker's own pools are good for thirty
//!   networks. What is taken, Docker's list says; who else makes a network this moment, its refusal.
//! - **Docker may hold two networks of one name.** Its API does not promise that names are unique. One too many is taken away as soon as it
//!   is seen, and a network of our name that does not bear our labels is left alone and not used.
//! - **A network goes only while Docker shows no container of the borough.** A start may slip in between; it then finds its network
//!   gone and makes it again (see `life`). `docker network prune`, which takes the networks of stopped containers, is survived alike.

use std::{collections::HashMap, time::Duration};

use bollard::{
    models::{
        Ipam, IpamConfig, Network, NetworkConnectRequest, NetworkCreateRequest, NetworkDisconnectRequest,
    },
    query_parameters::{ListContainersOptions, ListNetworksOptions},
};
use supercloud_proto::name::BoroughName;
use tokio::time::sleep;
use tracing::{debug, info, warn};

use super::{
    DockerDriver,
    failure::{Failure, within},
    mark, request,
    subnet::Subnet,
};
use crate::driver::{ACT_DEADLINE, ASK_DEADLINE, DriverError, TaskRun};

/// Attempts to make one network: enough to pass over three ranges of addresses that something unknown holds, as below.
const TRIES: usize = 64;
/// Attempts to get one range of addresses that Docker refuses and does not list. It is somebody's who makes a network this moment and will be
/// listed in a fifth of a second or so; else something lies in the way of which the list knows nothing, and the next range is tried.
const TRIES_OF_RANGE: usize = 20;
/// Time between two attempts.
const POLL: Duration = Duration::from_millis(50);

impl DockerDriver {
    /// The network of a run's borough, made unless it is there. For a container that joins another's namespace there is nothing to do.
    pub(super) async fn have_network(&self, run: &TaskRun) -> Result<(), DriverError> {
        let borough = &run.mark.workload.borough;
        if request::holder(run).is_some() {
            return Ok(());
        }
        self.apart.get_or_try_init(|| self.keep_apart()).await?;
        if self.is_there(borough).await? {
            return Ok(());
        }
        let _alone = self.networks.lock().await;
        // Somebody may have cleared the host's rules since.
        self.keep_apart().await?;
        self.make_network(borough).await?;
        // Somebody else who works for this owner may have made it as well.
        self.is_there(borough).await.map(|_| ())
    }

    /// Gives a container that does not run the network of its borough, made anew if need be. A container remembers the network's id and
    /// would look for the one that is gone even when another bears its name.
    pub(super) async fn attach_anew(&self, run: &TaskRun, container: &str) -> Result<(), DriverError> {
        self.have_network(run).await?;
        let name = mark::network_name(&self.client.owner, &run.mark.workload.borough);
        let docker = self.client.docker().await?;
        let off = NetworkDisconnectRequest { container: container.to_owned(), force: Some(true) };
        match within("disconnect", ACT_DEADLINE, docker.disconnect_network(&name, off)).await {
            Err(failure @ Failure::Silent(_)) => return Err(failure.of_act()),
            Err(Failure::Answer { message, .. }) => debug!(container, message, "was on no network"),
            Ok(()) => {}
        }
        let on = NetworkConnectRequest { container: container.to_owned(), endpoint_config: None };
        within("connect", ACT_DEADLINE, docker.connect_network(&name, on)).await.map_err(Failure::of_act)
    }

    async fn make_network(&self, borough: &BoroughName) -> Result<(), DriverError> {
        let name = mark::network_name(&self.client.owner, borough);
        let (mut refused, mut skipped) = (Vec::<Subnet>::new(), Vec::<Subnet>::new());
        for _ in 0..TRIES {
            let all = self.networks(None).await?;
            if let Some(there) = all.iter().find(|network| network.name.as_ref() == Some(&name)) {
                return self.adopt(there, &name, borough);
            }
            let taken: Vec<Subnet> = all.iter().flat_map(subnets).chain(skipped.iter().copied()).collect();
            let Some(subnet) = self.settings.networks.free(&name, &taken) else {
                return Err(self.exhausted(borough));
            };
            match self.create_network(&name, borough, subnet).await {
                Ok(()) => return Ok(()),
                Err(Failure::Answer { message, .. }) if message.contains("overlap") => {
                    debug!(network = name, %subnet, message, "these addresses are somebody's; trying again");
                    refused.push(subnet);
                    if refused.iter().filter(|other| **other == subnet).count() >= TRIES_OF_RANGE {
                        skipped.push(subnet);
                    }
                }
                Err(Failure::Answer { status: 409, .. }) => {}
                Err(failure) => return Err(failure.of_act()),
            }
            sleep(POLL).await;
        }
        Err(DriverError::Refused(format!(
            "no addresses for the network of borough {borough}: {TRIES} attempts in {} failed, others were first",
            self.settings.networks
        )))
    }

    fn adopt(&self, there: &Network, name: &str, borough: &BoroughName) -> Result<(), DriverError> {
        if is_ours(there, &mark::network_labels(&self.client.owner, borough)) {
            return Ok(());
        }
        Err(DriverError::Refused(format!("the network {name} is there and is not this borough's")))
    }

    fn exhausted(&self, borough: &BoroughName) -> DriverError {
        let pool = self.settings.networks;
        DriverError::Refused(format!(
            "no network is left for borough {borough}: all {} of docker.networks = \"{pool}\" are taken (`docker network ls` tells by whom)",
            pool.size()
        ))
    }

    async fn create_network(&self, name: &str, borough: &BoroughName, subnet: Subnet) -> Result<(), Failure> {
        let range = IpamConfig { subnet: Some(subnet.to_string()), ..IpamConfig::default() };
        let wanted = NetworkCreateRequest {
            name: name.to_owned(),
            driver: Some("bridge".to_owned()),
            enable_ipv6: Some(false),
            ipam: Some(Ipam { config: Some(vec![range]), ..Ipam::default() }),
            // Within a borough they may talk, whatever the daemon's own default is.
            options: Some(HashMap::from([(
                "com.docker.network.bridge.enable_icc".to_owned(),
                "true".to_owned(),
            )])),
            labels: Some(mark::network_labels(&self.client.owner, borough)),
            ..NetworkCreateRequest::default()
        };
        let docker = self.client.docker().await.map_err(|error| Failure::Silent(error.to_string()))?;
        let made = within("create network", ACT_DEADLINE, docker.create_network(wanted)).await?;
        if !made.warning.is_empty() {
            warn!(network = name, warning = made.warning, "made, with a warning of Docker's");
        }
        info!(network = name, %subnet, "made the network of a borough");
        Ok(())
    }

    /// Takes the network of a borough away if Docker shows no container of the borough. It never fails: what the caller removed is gone,
    /// and a network without containers is used again or goes with the next.
    pub(super) async fn drop_network(&self, borough: &BoroughName) {
        let _alone = self.networks.lock().await;
        match self.drop_unused(borough).await {
            Ok(()) => {}
            Err(error) => warn!(%borough, %error, "the borough's network stays for now"),
        }
    }

    async fn drop_unused(&self, borough: &BoroughName) -> Result<(), DriverError> {
        let docker = self.client.docker().await?;
        let options = ListContainersOptions {
            all: true,
            limit: Some(1),
            filters: Some(self.of_borough(borough)),
            ..ListContainersOptions::default()
        };
        let containers = within("list", ASK_DEADLINE, docker.list_containers(Some(options)))
            .await
            .map_err(|failure| failure.of_question("list"))?;
        if containers.is_empty() {
            for id in self.found(borough).await? {
                self.remove_network(&id).await?;
            }
        }
        Ok(())
    }

    /// Whether the borough's network is there. Of several, those that nobody uses are taken away until one is left.
    async fn is_there(&self, borough: &BoroughName) -> Result<bool, DriverError> {
        let mut ids = self.found(borough).await?;
        ids.sort();
        let mut left = ids.len();
        for id in ids.iter().rev() {
            if left <= 1 {
                break;
            }
            left -= usize::from(self.remove_network(id).await?);
        }
        Ok(left > 0)
    }

    /// Whether it is gone now. Docker refuses to remove a network that is in use, and that is as it should be.
    async fn remove_network(&self, id: &str) -> Result<bool, DriverError> {
        let docker = self.client.docker().await?;
        match within("remove network", ACT_DEADLINE, docker.remove_network(id)).await {
            Ok(()) | Err(Failure::Answer { status: 404, .. }) => Ok(true),
            Err(Failure::Answer { message, .. }) => {
                debug!(network = id, message, "a borough's network stays");
                Ok(false)
            }
            Err(failure) => Err(failure.of_act()),
        }
    }

    /// Ids of the networks that bear a borough's name and labels.
    async fn found(&self, borough: &BoroughName) -> Result<Vec<String>, DriverError> {
        let name = mark::network_name(&self.client.owner, borough);
        let labels = mark::network_labels(&self.client.owner, borough);
        let listed = self.networks(Some(self.of_borough(borough))).await?;
        let ours = listed.into_iter().filter(|network| network.name.as_ref() == Some(&name));
        Ok(ours.filter(|network| is_ours(network, &labels)).filter_map(|network| network.id).collect())
    }

    async fn networks(
        &self,
        filters: Option<HashMap<String, Vec<String>>>,
    ) -> Result<Vec<Network>, DriverError> {
        let docker = self.client.docker().await?;
        let options = ListNetworksOptions { filters };
        within("list networks", ASK_DEADLINE, docker.list_networks(Some(options)))
            .await
            .map_err(|failure| failure.of_question("list networks"))
    }

    fn of_borough(&self, borough: &BoroughName) -> HashMap<String, Vec<String>> {
        HashMap::from([("label".to_owned(), mark::borough_filters(&self.client.owner, borough))])
    }
}

/// Whether a network bears all of `labels`.
fn is_ours(network: &Network, labels: &HashMap<String, String>) -> bool {
    network
        .labels
        .as_ref()
        .is_some_and(|found| labels.iter().all(|(key, value)| found.get(key) == Some(value)))
}

/// The IPv4 ranges of a network; those of IPv6 are none of ours.
fn subnets(network: &Network) -> Vec<Subnet> {
    let ranges = network.ipam.iter().flat_map(|ipam| ipam.config.iter().flatten());
    ranges.filter_map(|range| range.subnet.as_deref()?.parse().ok()).collect()
}
