//! The log over real sockets: the gRPC transport on one side, the service's functions on the other.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock};

use futures::{StreamExt as _, stream::BoxStream};
use supercloud_proto::v1;
use supercloud_proto::v1::peer_service_server::{PeerService, PeerServiceServer};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Request, Response, Status, Streaming};

use super::harness::{Journal, View, eventually, often};
use crate::raft::{
    Connect, GrpcTransport, Log, Member, MemberKind, NodeId, PeerAddress, ProposeError, Role, Settings,
    Start, install_snapshot, limits, snapshot_offset, start, step_stream,
};

/// Serves the three calls of the log, and nothing else. Each snapshot is cut off after some pieces when it comes for the first time.
struct Peer {
    log: Arc<OnceLock<Log<usize>>>,
    transfers: Transfers,
}

/// Of which snapshot each transfer was, and where in its file it began.
type Transfers = Arc<Mutex<Vec<(v1::SnapshotMark, u64)>>>;

/// Pieces that get through then.
const BEFORE_THE_CUT: usize = 2;

impl Peer {
    fn log(&self) -> Result<&Log<usize>, Status> {
        self.log.get().ok_or_else(|| Status::unavailable("not started yet"))
    }
}

#[tonic::async_trait]
impl PeerService for Peer {
    type RelayStream = BoxStream<'static, Result<v1::RelayResponse, Status>>;
    type FetchArchiveStream = BoxStream<'static, Result<v1::FetchArchiveResponse, Status>>;

    async fn step(
        &self,
        request: Request<Streaming<v1::StepRequest>>,
    ) -> Result<Response<v1::StepResponse>, Status> {
        step_stream(self.log()?, None, request.into_inner()).await.map(Response::new)
    }

    async fn install_snapshot(
        &self,
        request: Request<Streaming<v1::InstallSnapshotRequest>>,
    ) -> Result<Response<v1::InstallSnapshotResponse>, Status> {
        let log = self.log()?;
        let mut pieces = request.into_inner().peekable();
        let first = std::pin::Pin::new(&mut pieces).peek().await.and_then(|piece| piece.as_ref().ok());
        let begun = first.map(|piece| (piece.mark.clone().unwrap_or_default(), piece.offset));
        let cut = {
            let (mark, offset) = begun.unwrap_or_default();
            let mut transfers = self.transfers.lock().unwrap();
            let new = transfers.iter().all(|(known, _)| *known != mark);
            transfers.push((mark, offset));
            new
        };
        let taken = if cut { BEFORE_THE_CUT } else { usize::MAX };
        let broken = cut.then(|| Err(Status::unavailable("cut off by the test")));
        let pieces = pieces.take(taken).chain(futures::stream::iter(broken));
        install_snapshot(log, None, pieces).await.map(Response::new)
    }

    async fn snapshot_offset(
        &self,
        request: Request<v1::SnapshotOffsetRequest>,
    ) -> Result<Response<v1::SnapshotOffsetResponse>, Status> {
        snapshot_offset(self.log()?, None, request.into_inner()).map(Response::new)
    }

    async fn report(&self, _: Request<v1::ReportRequest>) -> Result<Response<v1::ReportResponse>, Status> {
        Err(Status::unimplemented("not part of this test"))
    }

    async fn propose(&self, _: Request<v1::ProposeRequest>) -> Result<Response<v1::ProposeResponse>, Status> {
        Err(Status::unimplemented("not part of this test"))
    }

    async fn describe(
        &self,
        _: Request<v1::DescribeRequest>,
    ) -> Result<Response<v1::DescribeResponse>, Status> {
        Err(Status::unimplemented("not part of this test"))
    }

    async fn heartbeats(
        &self,
        _: Request<v1::HeartbeatsRequest>,
    ) -> Result<Response<v1::HeartbeatsResponse>, Status> {
        Err(Status::unimplemented("not part of this test"))
    }

    async fn relay(
        &self,
        _: Request<Streaming<v1::RelayRequest>>,
    ) -> Result<Response<Self::RelayStream>, Status> {
        Err(Status::unimplemented("not part of this test"))
    }

    async fn fetch_archive(
        &self,
        _: Request<v1::FetchArchiveRequest>,
    ) -> Result<Response<Self::FetchArchiveStream>, Status> {
        Err(Status::unimplemented("not part of this test"))
    }

    async fn change_members(
        &self,
        _: Request<v1::ChangeMembersRequest>,
    ) -> Result<Response<v1::ChangeMembersResponse>, Status> {
        Err(Status::unimplemented("not part of this test"))
    }
}

struct Node {
    log: Log<usize>,
    view: Arc<Mutex<View>>,
    transfers: Transfers,
    server: tokio::task::JoinHandle<()>,
}

impl Node {
    async fn stop(self) {
        self.log.shutdown().await;
        self.server.abort();
    }
}

fn connect() -> Connect {
    Arc::new(|peer: PeerAddress| {
        let connected = async move {
            let channel: Channel =
                Endpoint::from_shared(format!("http://{}", peer.address))?.connect().await?;
            Ok(channel)
        };
        Box::pin(connected)
    })
}

fn member(id: u64, listener: &TcpListener) -> Member {
    let address = listener.local_addr().unwrap().to_string();
    Member {
        id: NodeId(id),
        peer_address: address,
        api_address: format!("api-{id}"),
        kind: MemberKind::Voter,
    }
}

fn node(root: &std::path::Path, listener: TcpListener, id: NodeId, how: &Start) -> Node {
    let peer_address = listener.local_addr().unwrap().to_string();
    let slot = Arc::new(OnceLock::new());
    let transfers = Arc::new(Mutex::new(Vec::new()));
    let peer = Peer { log: slot.clone(), transfers: transfers.clone() };
    let service = PeerServiceServer::new(peer).max_decoding_message_size(limits::MAX_STEP_REQUEST_BYTES);
    let serving =
        Server::builder().add_service(service).serve_with_incoming(TcpListenerStream::new(listener));
    let server = tokio::spawn(async move { serving.await.unwrap() });
    let (journal, view) = Journal::new();
    let settings = Settings {
        cluster: "test".into(),
        id,
        directory: root.join(id.to_string()),
        peer_address,
        snapshots: often(),
        tick: limits::TICK,
    };
    let runtime = tokio::runtime::Handle::current();
    let log =
        start(settings, how, journal, |reports| GrpcTransport::new(id, connect(), reports, runtime)).unwrap();
    assert!(slot.set(log.clone()).is_ok());
    Node { log, view, transfers, server }
}

async fn leader(nodes: &BTreeMap<u64, Node>) -> Log<usize> {
    eventually("a leader", || {
        nodes
            .values()
            .find(|node| node.log.status().borrow().role == Role::Leader)
            .map(|node| node.log.clone())
    })
    .await
}

/// Writes until it is acknowledged; an unknown outcome counts as written.
async fn write(nodes: &BTreeMap<u64, Node>, entry: Vec<u8>) {
    for _ in 0..100 {
        match leader(nodes).await.propose(entry.clone()).await {
            Ok(_) | Err(ProposeError::OutcomeUnknown) => return,
            Err(_) => tokio::time::sleep(limits::TICK).await,
        }
    }
    panic!("nobody acknowledged");
}

async fn agreed(nodes: &BTreeMap<u64, Node>, entries: usize) {
    eventually("agreement", || {
        let views: Vec<View> = nodes.values().map(|node| node.view.lock().unwrap().clone()).collect();
        let same = views.windows(2).all(|pair| pair[0].entries == pair[1].entries);
        (same && views.iter().all(|view| view.entries.len() >= entries)).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn three_nodes_and_a_fourth_that_joins_by_a_snapshot_of_many_pieces() {
    let root = tempfile::tempdir().unwrap();
    let mut listeners = BTreeMap::new();
    for id in 1..=4 {
        listeners.insert(id, TcpListener::bind("127.0.0.1:0").await.unwrap());
    }
    let members: Vec<Member> = (1..=3).map(|id| member(id, &listeners[&id])).collect();
    let mut nodes = BTreeMap::new();
    for id in 1..=3 {
        let how = Start::Found { members: members.clone() };
        nodes.insert(id, node(root.path(), listeners.remove(&id).unwrap(), NodeId(id), &how));
    }
    for number in 0..25_u8 {
        write(&nodes, vec![number; 100_000]).await;
    }
    agreed(&nodes, 25).await;

    let listener = listeners.remove(&4).unwrap();
    let joining = member(4, &listener);
    let added = leader(&nodes).await.add_learner(joining.peer_address, joining.api_address).await.unwrap();
    assert_eq!(added, NodeId(4));
    nodes.insert(4, node(root.path(), listener, added, &Start::Join));
    agreed(&nodes, 25).await;
    eventually("the promotion", || {
        let status = nodes[&4].log.status().borrow().clone();
        status.members.get(added).is_some_and(|member| member.kind == MemberKind::Voter).then_some(())
    })
    .await;
    assert!(nodes[&4].log.status().borrow().first_index > 2, "it did not come by a snapshot");
    // The transfer that was cut off went on where it was.
    let transfers = nodes[&4].transfers.lock().unwrap().clone();
    let through = (BEFORE_THE_CUT * limits::SNAPSHOT_CHUNK_BYTES) as u64;
    assert_eq!(transfers.last().map(|(_, begun)| *begun), Some(through), "{}", transfers.len());
    for node in nodes.values() {
        assert!(node.log.read_index().await.is_ok());
    }

    // A member that goes away and a leader that goes away are both survived.
    let led = leader(&nodes).await.status().borrow().id;
    nodes.remove(&led.0).unwrap().stop().await;
    write(&nodes, b"without the leader".to_vec()).await;
    agreed(&nodes, 26).await;

    // One that is removed learns it over the wire.
    let leads = leader(&nodes).await;
    let led = leads.status().borrow().id;
    let gone = *nodes.keys().find(|id| **id != led.0).unwrap();
    leads.remove(NodeId(gone)).await.unwrap();
    let mut status = nodes[&gone].log.status();
    let known = status.wait_for(|status| status.role == Role::Removed);
    tokio::time::timeout(super::harness::DEADLINE, known).await.unwrap().unwrap();
    for node in nodes.into_values() {
        node.stop().await;
    }
}
