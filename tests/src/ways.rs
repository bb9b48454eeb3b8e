//! An open way to each node of a cluster, and what each of them says about the cluster. No retries: who asks decides what an error means.

use std::path::Path;

use supercloud_proto::{
    pki::{Credentials, Servers, client::Trust},
    v1::{ListNodesRequest, ListNodesResponse, scheduler_service_client::SchedulerServiceClient},
};
use tokio::time::{Duration, timeout};
use tonic::transport::Channel;

use crate::{Outcome, Wrong, wrong};

/// Longest wait for a node to tell what it sees; it asks nobody for that.
const LOOK: Duration = Duration::from_secs(2);

/// A connection to each node, by its place in the cluster. One that breaks is made anew by the next call over it.
#[derive(Debug, Clone)]
pub struct Ways {
    addresses: Vec<String>,
    channels: Vec<Channel>,
}

impl Ways {
    /// Connects to all of them; they must be there.
    pub async fn open(servers: &[String], credentials: &Path) -> Outcome<Self> {
        let credentials = Credentials::load(credentials)?;
        let mut channels = Vec::new();
        for server in servers {
            let one = Servers::new(std::slice::from_ref(server), Trust::Mutual(&credentials))?;
            channels.push(one.connect().await?.channel);
        }
        Ok(Self { addresses: servers.to_vec(), channels })
    }

    /// How many nodes there are.
    pub fn count(&self) -> usize {
        self.channels.len()
    }

    /// The way to one.
    pub fn to(&self, place: usize) -> Channel {
        self.channels[place].clone()
    }

    /// The cluster as one node sees it.
    pub async fn seen_by(&self, place: usize) -> Outcome<ListNodesResponse> {
        let mut client = SchedulerServiceClient::new(self.to(place));
        match timeout(LOOK, client.list(ListNodesRequest {})).await {
            Ok(answer) => Ok(answer?.into_inner()),
            Err(_) => wrong(format!("{} does not say what it sees", self.addresses[place])),
        }
    }

    /// The cluster as each of these nodes sees it.
    pub async fn seen_by_all(&self, places: &[usize]) -> Outcome<Vec<ListNodesResponse>> {
        let mut seen = Vec::new();
        for place in places {
            seen.push(self.seen_by(*place).await?);
        }
        Ok(seen)
    }

    /// The place of the leader, if these nodes agree on it.
    pub async fn leader(&self, places: &[usize]) -> Outcome<usize> {
        let seen = self.seen_by_all(places).await?;
        let mut leaders = seen.iter().map(|seen| (seen.leader, seen.term));
        let leader = leaders.next().unwrap_or_default();
        if leader.0 == 0 || leaders.any(|other| other != leader) {
            let told: Vec<_> = seen.iter().map(|seen| (seen.answered_by, seen.leader, seen.term)).collect();
            return wrong(format!("no leader is agreed on; (node, its leader, its term): {told:?}"));
        }
        self.place_of(leader.0, &seen[0])
    }

    /// The place of the node with a number.
    pub fn place_of(&self, number: u64, seen: &ListNodesResponse) -> Outcome<usize> {
        let node = seen.nodes.iter().find(|node| node.id == number);
        let place = node.and_then(|node| self.addresses.iter().position(|one| *one == node.api_address));
        place.ok_or_else(|| Wrong(format!("node {number} has no place: {seen:?}")).into())
    }
}
