//! Joining the cluster: a token and a request for a certificate go in, a certificate comes out; a scheduler gets its number too. What a token
//! grants stands in the state; who signs stands in `admission`.
//!
//! Decisions
//! * **A token is used up before anything is granted.** What can be refused is refused before (the request, the addresses, the number of nodes
//!   that still join), so that a mistake costs no token; what fails after it costs one, and no more.
//! * **A node is added by the leader.** Another node passes the call on to it, once.
//! * **A node that was added but never heard of** (its joiner did not get the answer) may be joined again at its address: it has
//!   acknowledged nothing, so that nothing is forgotten.
//! * **In development** there are no certificates and no tokens: whoever reaches the loopback address may join.

use std::{future::Future, time::Duration};

use supercloud_proto::{
    pki::{Token, address::ServerAddress, token::TokenError},
    problem::{Faults, Problem, quoted},
    v1,
};
use tokio::time::{Instant, sleep};
use tonic::{Request, Response, Status};

use super::{Api, input, nodes::nodes, refusals};
use crate::{
    clock,
    raft::{self, ChangeError, MemberKind, NodeId, Role, limits::MAX_LEARNERS},
    state::{Command, Done, Grant, Rejection, State, level},
};

/// Most certificate names of a scheduler that joins; the authority checks each.
const MAX_SERVER_NAMES: usize = crate::ca::MAX_SERVER_NAMES;
/// How long adding a node is tried again while another change of the membership is under way.
const ADD_DEADLINE: Duration = Duration::from_secs(5);
/// Wait in between.
const ADD_AGAIN: Duration = Duration::from_millis(100);
/// Marks a call that was passed on: it is not passed on again.
pub(super) const PASSED_ON: &str = "supercloud-passed-on";

/// The words for a token that is not accepted: the same whatever is wrong with it.
fn denied() -> Status {
    refusals::rejection(Rejection::Denied("the token is unknown, used or lapsed".to_owned()))
}

/// Where a joining scheduler is reached.
struct Addresses {
    peer: String,
    api: String,
}

/// An address that others can dial: a host and a port, both written out.
fn address(faults: &mut Faults, path: &str, text: &str) -> Option<String> {
    let parsed = text.parse::<ServerAddress>().ok().filter(|address| address.to_string() == text);
    let everywhere = text.starts_with("0.0.0.0:") || text.starts_with("[::]:");
    if parsed.is_none() || everywhere {
        faults.push(Problem::new(path, "host:port at which the others reach it", quoted(text)));
        return None;
    }
    Some(text.to_owned())
}

fn addresses(request: &v1::JoinRequest) -> Result<Addresses, Status> {
    let mut faults = Faults::default();
    let peer = address(&mut faults, "peer_address", &request.peer_address);
    let api = address(&mut faults, "api_address", &request.api_address);
    if request.server_names.len() > MAX_SERVER_NAMES {
        let found = request.server_names.len().to_string();
        faults.push(Problem::new("server_names", format!("at most {MAX_SERVER_NAMES}"), found));
    }
    let whole = peer.zip(api).map(|(peer, api)| Addresses { peer, api });
    input::finish(faults, whole)
}

/// Refuses a node that cannot be added now, before its token is used up. A member at its address that never acknowledged anything is no
/// obstacle.
fn may_be_added(status: &raft::Status, addresses: &Addresses) -> Result<(), Status> {
    if let Some(member) = status.members.members.values().find(|m| m.peer_address == addresses.peer) {
        return if is_unheard(status, member.id) {
            Ok(())
        } else {
            Err(refusals::change(&ChangeError::AlreadyMember { id: member.id }))
        };
    }
    let learners = status.members.learners().count();
    if learners >= MAX_LEARNERS {
        return Err(Status::failed_precondition(format!(
            "{learners} nodes are still joining; wait until they have caught up, then join with the same token"
        )));
    }
    Ok(())
}

/// Whether a member still joins and has acknowledged nothing. Only the leader knows.
fn is_unheard(status: &raft::Status, id: NodeId) -> bool {
    let learner = status.members.get(id).is_some_and(|member| member.kind == MemberKind::Learner);
    learner && status.role == Role::Leader && status.matched.get(&id).copied().unwrap_or(0) == 0
}

impl Api {
    /// The grant of a token that is still good; it is not used up by this.
    async fn look_up(&self, token: &Token) -> Result<Grant, Status> {
        let good = |state: &State| {
            let stored = state.token(token.id())?;
            let lives = stored.expires > clock::unix_now() && token.matches(&stored.secret_hash);
            lives.then(|| stored.grant.clone())
        };
        if let Some(grant) = good(&self.core.view()) {
            return Ok(grant);
        }
        good(&self.state(false).await?).ok_or_else(denied)
    }

    /// Uses a token up, through the log: of two who hold it only one gets in.
    async fn use_up(&self, token: &Token) -> Result<Grant, Status> {
        let command =
            Command::UseToken { id: token.id().to_owned(), secret_hash: token.secret_hash().to_vec() };
        match self.change("join", "", command).await?.done {
            Done::Granted(grant) => Ok(grant),
            _ => Err(Status::internal("the use of a token was answered with something else")),
        }
    }

    pub(super) async fn join_with_token(
        &self,
        request: v1::JoinRequest,
        passed_on: bool,
    ) -> Result<v1::JoinResponse, Status> {
        let token: Token =
            request.token.parse().map_err(|error: TokenError| Status::invalid_argument(error.to_string()))?;
        let grant = self.look_up(&token).await?;
        if grant == Grant::Scheduler {
            return self.join_scheduler(request, &token, passed_on).await;
        }
        // Signed before the token is used up, handed out after it: a request that cannot be signed costs no token.
        let certificate_pem = self.admission.sign(&grant, None, &request)?;
        if self.use_up(&token).await? != grant {
            return Err(denied());
        }
        Ok(self.joined(certificate_pem))
    }

    async fn join_scheduler(
        &self,
        request: v1::JoinRequest,
        token: &Token,
        passed_on: bool,
    ) -> Result<v1::JoinResponse, Status> {
        let addresses = addresses(&request)?;
        // Whether it could be signed is tried with a number that nobody gets.
        self.admission.sign(&Grant::Scheduler, Some(NodeId(u64::MAX)), &request)?;
        if self.core.status().role != Role::Leader {
            return self.pass_on(request, passed_on).await;
        }
        let _gate = self.core.levels().gate().await;
        self.must_know(&request).await?;
        may_be_added(&self.core.status(), &addresses)?;
        if self.use_up(token).await? != Grant::Scheduler {
            return Err(denied());
        }
        let node = self.add(addresses).await?;
        let certificate_pem = self.admission.sign(&Grant::Scheduler, Some(node), &request)?;
        Ok(v1::JoinResponse {
            node_id: node.0,
            history: self.core.history().to_owned(),
            ca_key_pem: self.admission.authority_pem(),
            ..self.joined(certificate_pem)
        })
    }

    pub(super) async fn join_in_development(
        &self,
        request: v1::JoinRequest,
        passed_on: bool,
    ) -> Result<v1::JoinResponse, Status> {
        let addresses = addresses(&request)?;
        if self.core.status().role != Role::Leader {
            return self.pass_on(request, passed_on).await;
        }
        let _gate = self.core.levels().gate().await;
        self.must_know(&request).await?;
        may_be_added(&self.core.status(), &addresses)?;
        let node = self.add(addresses).await?;
        let history = self.core.history().to_owned();
        Ok(v1::JoinResponse { node_id: node.0, history, ..self.joined(String::new()) })
    }

    /// Refuses a node that would not know what the cluster may use.
    async fn must_know(&self, request: &v1::JoinRequest) -> Result<(), Status> {
        let (level, known) = (self.state(false).await?.level(), request.level.max(level::FIRST));
        if known >= level {
            return Ok(());
        }
        Err(Status::failed_precondition(format!(
            "the cluster is at feature level {level}, the joining node's version knows level {known}: install version {} or later there",
            env!("CARGO_PKG_VERSION")
        )))
    }

    /// Adds a node, and gives its number.
    async fn add(&self, addresses: Addresses) -> Result<NodeId, Status> {
        let deadline = Instant::now() + ADD_DEADLINE;
        loop {
            match self.core.add_node(addresses.peer.clone(), addresses.api.clone()).await {
                Ok(node) => return Ok(node),
                Err(ChangeError::AlreadyMember { id }) if is_unheard(&self.core.status(), id) => {
                    return Ok(id);
                }
                Err(ChangeError::Busy | ChangeError::Overloaded) if Instant::now() < deadline => {
                    sleep(ADD_AGAIN).await;
                }
                Err(error) => return Err(refusals::change(&error)),
            }
        }
    }

    /// What every joiner gets.
    fn joined(&self, certificate_pem: String) -> v1::JoinResponse {
        let status = self.core.status();
        v1::JoinResponse {
            certificate_pem,
            ca_pem: self.admission.ca_pem(),
            cluster_id: self.core.cluster().to_owned(),
            node_id: 0,
            history: String::new(),
            ca_key_pem: String::new(),
            servers: status.members.members.values().map(|member| member.api_address.clone()).collect(),
            nodes: nodes(&status, &self.core.sights(&status), &self.core.levels().known()),
        }
    }

    /// Passes a join on to the leader.
    fn pass_on(
        &self,
        request: v1::JoinRequest,
        passed_on: bool,
    ) -> impl Future<Output = Result<v1::JoinResponse, Status>> + Send {
        let status = self.core.status();
        let leader = status.leader.and_then(|id| status.members.get(id)).cloned();
        let admission = self.admission.clone();
        async move {
            let leader = leader.filter(|_| !passed_on);
            let Some(leader) = leader else {
                return Err(refusals::change(&ChangeError::NotLeader { leader: None }));
            };
            let mut client = admission.node(&leader.api_address).await?;
            let mut request = Request::new(request);
            request.metadata_mut().insert(PASSED_ON, tonic::metadata::MetadataValue::from_static("1"));
            client.join(request).await.map(Response::into_inner)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_can_be_dialled() {
        let check = |text: &str| address(&mut Faults::default(), "peer_address", text).is_some();
        assert!(check("10.0.0.1:7401") && check("[fd00::1]:7401") && check("node-1.example:7401"));
        for bad in ["", "10.0.0.1", "0.0.0.0:7401", "[::]:7401", "https://a:1", "a:0", "a:70000"] {
            assert!(!check(bad), "{bad}");
        }
    }
}
