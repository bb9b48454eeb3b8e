//! What a node does for the others: the `PeerService` of the peer port. It authenticates every caller as a scheduler of the cluster, and
//! delegates: messages and snapshots to the log, proposals to the core, heartbeats to the leader's table, logs and execs to whoever
//! holds agent sessions.

use std::{pin::Pin, sync::Arc};

use futures::{Stream, StreamExt as _};
use supercloud_proto::{
    pki::{Identity, identity},
    v1::{
        self,
        peer_service_server::{PeerService, PeerServiceServer},
    },
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::{
    archive::heal::PIECES_AHEAD,
    clock::unix_now,
    core::{Core, Known, levels, membership, propose},
    heartbeats::{BeatError, from_wire},
    leader::Taken,
    raft::{self, NodeId},
    state::Entry,
};

/// Answers of a relayed stream.
pub type RelayAnswers = Pin<Box<dyn Stream<Item = Result<v1::RelayResponse, Status>> + Send>>;

/// Whoever holds the sessions of agents: opens logs or an exec there for another node.
#[tonic::async_trait]
pub trait RelayHandler: Send + Sync + 'static {
    /// Serves one relay. `NOT_FOUND` when this node holds no session of that host.
    async fn relay(&self, requests: Streaming<v1::RelayRequest>) -> Result<RelayAnswers, Status>;
    /// How many agents have a session here.
    fn agents(&self) -> usize;
}

/// The service, for the server of the peer port.
pub type Service = PeerServiceServer<PeerApi>;

/// See the head of the module.
pub struct PeerApi {
    core: Core,
    relay: Arc<dyn RelayHandler>,
}

impl PeerApi {
    /// The service with its limits on messages.
    pub fn service(core: Core, relay: Arc<dyn RelayHandler>) -> Service {
        PeerServiceServer::new(Self { core, relay })
            .max_decoding_message_size(raft::limits::MAX_STEP_REQUEST_BYTES)
    }

    /// Number of the calling node; `None` only where there is no TLS.
    fn caller<T>(&self, request: &Request<T>) -> Result<Option<NodeId>, Status> {
        let Some(cluster) = self.core.peers().trust().cluster() else { return Ok(None) };
        let node = match identity::of_request(request, cluster) {
            Some(Ok(Identity::Scheduler { node })) => NodeId(node),
            Some(Ok(other)) => {
                return Err(Status::permission_denied(format!("{other} is not a scheduler of this cluster")));
            }
            Some(Err(error)) => return Err(Status::unauthenticated(error.to_string())),
            None => {
                return Err(Status::unauthenticated("expected the certificate of a scheduler, found none"));
            }
        };
        if self.core.status().members.was_removed(node) {
            // With the mark by which the log of the caller learns that it is out.
            return Err(raft::StepError::SenderRemoved { id: node }.into());
        }
        Ok(Some(node))
    }
}

#[tonic::async_trait]
impl PeerService for PeerApi {
    async fn step(
        &self,
        request: Request<Streaming<v1::StepRequest>>,
    ) -> Result<Response<v1::StepResponse>, Status> {
        let caller = self.caller(&request)?;
        let core = self.core.clone();
        let heard = request.into_inner().inspect(move |request| {
            if let Ok(request) = request {
                core.heard(caller.unwrap_or(NodeId(request.from)));
            }
        });
        raft::step_stream(self.core.log(), caller, heard).await.map(Response::new)
    }

    async fn install_snapshot(
        &self,
        request: Request<Streaming<v1::InstallSnapshotRequest>>,
    ) -> Result<Response<v1::InstallSnapshotResponse>, Status> {
        let caller = self.caller(&request)?;
        raft::install_snapshot(self.core.log(), caller, request.into_inner()).await.map(Response::new)
    }

    async fn propose(
        &self,
        request: Request<v1::ProposeRequest>,
    ) -> Result<Response<v1::ProposeResponse>, Status> {
        self.caller(&request)?;
        // What this node cannot read it must not spread: every node that met it in its log would stop.
        let mut entry = Entry::decode(&request.into_inner().command)
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        // One clock stamps the log, the leader's, which the pass reads too: a follower whose clock is wrong would otherwise let
        // tokens lapse, or hold back the successors of what failed, for as long as it is wrong.
        entry.time = unix_now();
        levels::admit(&self.core, &entry.command)
            .await
            .map_err(|error| Status::unimplemented(error.to_string()))?;
        let proposed = self.core.log().propose(entry.encode()).await;
        let committed = proposed.map_err(|error| refusal(&self.core, error))?;
        let outcome = committed.outcome.encode();
        Ok(Response::new(v1::ProposeResponse { index: committed.index, outcome }))
    }

    async fn describe(
        &self,
        request: Request<v1::DescribeRequest>,
    ) -> Result<Response<v1::DescribeResponse>, Status> {
        self.caller(&request)?;
        let Known { level, version } = self.core.levels().own().clone();
        let hashes = self.core.hashes().all().into_iter();
        let hashes = hashes.map(|(index, hash)| v1::StateHash { index, hash: hash.to_vec() }).collect();
        Ok(Response::new(v1::DescribeResponse { level, version, hashes }))
    }

    async fn heartbeats(
        &self,
        request: Request<v1::HeartbeatsRequest>,
    ) -> Result<Response<v1::HeartbeatsResponse>, Status> {
        self.caller(&request)?;
        let beats = from_wire(request.into_inner().heartbeats)
            .map_err(|problems| Status::invalid_argument(problems.to_string()))?;
        match self.core.lead().take_in(&beats).await {
            Ok(Taken { term, index }) => Ok(Response::new(v1::HeartbeatsResponse { term, index })),
            Err(error @ BeatError::NoLeader) => Err(Status::failed_precondition(error.to_string())),
            Err(error) => Err(Status::unavailable(error.to_string())),
        }
    }

    type RelayStream = RelayAnswers;

    async fn relay(
        &self,
        request: Request<Streaming<v1::RelayRequest>>,
    ) -> Result<Response<Self::RelayStream>, Status> {
        self.caller(&request)?;
        self.relay.relay(request.into_inner()).await.map(Response::new)
    }

    type FetchArchiveStream = ReceiverStream<Result<v1::FetchArchiveResponse, Status>>;

    async fn fetch_archive(
        &self,
        request: Request<v1::FetchArchiveRequest>,
    ) -> Result<Response<Self::FetchArchiveStream>, Status> {
        self.caller(&request)?;
        let (pieces, stream) = tokio::sync::mpsc::channel(PIECES_AHEAD);
        let archive = self.core.archive().clone();
        // Ends with the stream: it notices that nobody takes its pieces.
        tokio::spawn(async move { archive.serve_fetch(request.into_inner().after_index, pieces).await });
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn change_members(
        &self,
        request: Request<v1::ChangeMembersRequest>,
    ) -> Result<Response<v1::ChangeMembersResponse>, Status> {
        self.caller(&request)?;
        Ok(Response::new(membership::serve(&self.core, &request.into_inner()).await))
    }

    async fn report(
        &self,
        request: Request<v1::ReportRequest>,
    ) -> Result<Response<v1::ReportResponse>, Status> {
        self.caller(&request)?;
        Ok(Response::new(self.core.report(self.relay.agents()).await))
    }

    async fn snapshot_offset(
        &self,
        request: Request<v1::SnapshotOffsetRequest>,
    ) -> Result<Response<v1::SnapshotOffsetResponse>, Status> {
        let caller = self.caller(&request)?;
        raft::snapshot_offset(self.core.log(), caller, request.into_inner()).map(Response::new)
    }
}

/// A refused proposal as the follower that forwarded it understands it; `core::forward` reads it back.
fn refusal(core: &Core, error: raft::ProposeError) -> Status {
    let text = error.to_string();
    match error {
        raft::ProposeError::NotLeader { .. } => Status::failed_precondition(text),
        raft::ProposeError::Overloaded { .. } => Status::resource_exhausted(text),
        // The leadership is about to move to a node with space, if there is one.
        raft::ProposeError::NoSpace { nodes }
            if nodes.contains(&core.node()) && core.status().successor().is_some() =>
        {
            Status::failed_precondition(text)
        }
        raft::ProposeError::NoSpace { nodes } => Status::out_of_range(propose::space_wanted(core, &nodes)),
        raft::ProposeError::TooLarge { .. } | raft::ProposeError::Empty => Status::invalid_argument(text),
        raft::ProposeError::OutcomeUnknown | raft::ProposeError::Stopped => Status::aborted(text),
    }
}
