//! Nodes for tests, each with a runtime of its own, so that a node can be killed with all its connections as a process would be.

use std::{collections::BTreeMap, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use supercloud_proto::{pki::Credentials, v1};
use tokio::{net::TcpListener, runtime::Runtime};
use tonic::{Status, Streaming, transport::server::TcpIncoming};

use crate::{
    core::{Core, Settings},
    leader::Timing,
    peer_service::{RelayAnswers, RelayHandler},
    peers::PeerTrust,
    raft::{Member, MemberKind, NodeId, Role, SnapshotPolicy, Start},
    state::State,
};

/// Within which anything that is waited for must have happened.
pub(super) const DEADLINE: Duration = Duration::from_secs(30);

/// Timing that lets a host be lost within a test.
pub(super) fn fast() -> Timing {
    Timing {
        heartbeat_every: Duration::from_millis(200),
        lease: Duration::from_millis(1_000),
        margin: Duration::from_millis(250),
        slow_eviction: Duration::from_millis(200),
    }
}

/// Waits for a state of this node.
pub(super) async fn until(core: &Core, what: impl FnMut(&State) -> bool) -> State {
    let mut states = core.changes();
    let reached = tokio::time::timeout(DEADLINE, states.wait_for(what)).await;
    reached.expect("in time").unwrap().clone()
}

/// Has no sessions.
struct NoSessions;

#[tonic::async_trait]
impl RelayHandler for NoSessions {
    fn agents(&self) -> usize {
        0
    }

    async fn relay(&self, _requests: Streaming<v1::RelayRequest>) -> Result<RelayAnswers, Status> {
        Err(Status::not_found("no session here"))
    }
}

/// A running node.
pub(super) struct Node {
    pub(super) core: Core,
    runtime: Option<Runtime>,
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Node {
    /// A cluster of one, founded or started again.
    pub(super) async fn alone(directory: &Path, again: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let start = if again { Start::Again } else { Start::Found { members: vec![member(1, address)] } };
        Self::start(1, directory, listener, start, SnapshotPolicy::default(), PeerTrust::Plain).await
    }

    /// A cluster of one with mutual TLS.
    pub(super) async fn alone_with_tls(directory: &Path, credentials: Credentials) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let start = Start::Found { members: vec![member(1, listener.local_addr().unwrap())] };
        let trust = PeerTrust::Mutual(Box::new(credentials));
        Self::start(1, directory, listener, start, SnapshotPolicy::default(), trust).await
    }

    async fn start(
        id: u64,
        directory: &Path,
        listener: TcpListener,
        start: Start,
        snapshots: SnapshotPolicy,
        trust: PeerTrust,
    ) -> Self {
        let address = listener.local_addr().unwrap().to_string();
        let settings = Settings {
            timing: fast(),
            snapshots,
            ..Settings::new("c-1".to_owned(), NodeId(id), directory.to_owned(), address)
        };
        let listener = listener.into_std().unwrap();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let started = runtime.spawn(async move {
            let mut server = tonic::transport::Server::builder();
            if let PeerTrust::Mutual(credentials) = &trust {
                server = server.tls_config(credentials.peer_server_tls().unwrap()).unwrap();
            }
            let core = Core::start(settings, start, trust).await.unwrap();
            let service = core.peer_service(Arc::new(NoSessions));
            let incoming = TcpIncoming::from(TcpListener::from_std(listener).unwrap());
            tokio::spawn(server.add_service(service).serve_with_incoming(incoming));
            core
        });
        Self { core: started.await.unwrap(), runtime: Some(runtime) }
    }

    pub(super) async fn stop(self) {
        self.core.shutdown().await;
    }

    /// Cuts all connections in an instant, and then frees the directory.
    async fn kill(mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
        self.core.shutdown().await;
    }
}

fn member(id: u64, address: SocketAddr) -> Member {
    Member {
        id: NodeId(id),
        peer_address: address.to_string(),
        api_address: "127.0.0.1:1".to_owned(),
        kind: MemberKind::Voter,
    }
}

/// Several nodes.
pub(super) struct Cluster {
    nodes: BTreeMap<NodeId, Node>,
    folder: tempfile::TempDir,
    snapshots: SnapshotPolicy,
}

impl Cluster {
    pub(super) async fn of_three(snapshots: SnapshotPolicy) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut listeners = Vec::new();
        for _ in 0..3 {
            listeners.push(TcpListener::bind("127.0.0.1:0").await.unwrap());
        }
        let members: Vec<Member> = listeners
            .iter()
            .zip(1..)
            .map(|(listener, id)| member(id, listener.local_addr().unwrap()))
            .collect();
        let mut nodes = BTreeMap::new();
        for (listener, id) in listeners.into_iter().zip(1..) {
            let start = Start::Found { members: members.clone() };
            let directory = folder.path().join(id.to_string());
            nodes.insert(
                NodeId(id),
                Node::start(id, &directory, listener, start, snapshots, PeerTrust::Plain).await,
            );
        }
        Self { nodes, folder, snapshots }
    }

    pub(super) fn directory(&self, id: NodeId) -> std::path::PathBuf {
        self.folder.path().join(id.to_string())
    }

    /// A node joins, and its core is returned.
    pub(super) async fn join(&mut self, leader: NodeId) -> Core {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let id = self.core(leader).add_node(address, "127.0.0.1:1".to_owned()).await.unwrap();
        let directory = self.folder.path().join(id.to_string());
        let node =
            Node::start(id.0, &directory, listener, Start::Join, self.snapshots, PeerTrust::Plain).await;
        let core = node.core.clone();
        self.nodes.insert(id, node);
        core
    }

    /// The node that leads and is followed by all that are left.
    pub(super) async fn leader(&self) -> NodeId {
        let settled = async {
            loop {
                let statuses: Vec<_> = self.nodes.values().map(|node| node.core.status()).collect();
                let leads = statuses.iter().find(|status| status.role == Role::Leader);
                if let Some(leads) = leads
                    && statuses.iter().all(|status| status.leader == Some(leads.id))
                {
                    return leads.id;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(DEADLINE, settled).await.expect("a leader in time")
    }

    pub(super) fn core(&self, id: NodeId) -> Core {
        self.nodes[&id].core.clone()
    }

    pub(super) fn follower(&self, leader: NodeId) -> Core {
        self.nodes.iter().find(|(id, _)| **id != leader).unwrap().1.core.clone()
    }

    pub(super) fn other_follower(&self, leader: NodeId) -> Core {
        self.nodes.iter().rfind(|(id, _)| **id != leader).unwrap().1.core.clone()
    }

    pub(super) async fn kill(mut self, id: NodeId) -> Self {
        self.nodes.remove(&id).unwrap().kill().await;
        self
    }

    pub(super) async fn stop(mut self) {
        while let Some((_, node)) = self.nodes.pop_first() {
            node.stop().await;
        }
    }
}
