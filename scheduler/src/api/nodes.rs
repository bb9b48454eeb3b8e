//! The cluster itself: its nodes, tokens to join it, and joining. What a token grants stands in the state; who signs stands in `admission`.
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
    name::{BoroughName, HostName, PersonName},
    pki::{Token, address::ServerAddress},
    problem::{Faults, Problem, quoted},
    v1::{self, scheduler_service_server::SchedulerService},
};
use tokio::time::{Instant, sleep};
use tonic::{Request, Response, Status};

use super::{Api, input, open, refusals};
use crate::{
    clock,
    raft::{self, ChangeError, MemberKind, NodeId, Role, limits::MAX_LEARNERS},
    state::{Command, Done, Grant, Rejection},
};

/// Life of a token where nothing is asked for: long enough to walk to a machine.
const DEFAULT_TTL: Duration = Duration::from_secs(60 * 60);
/// Longest life of a token.
const MAX_TTL: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// Most certificate names of a scheduler that joins; the authority checks each.
const MAX_SERVER_NAMES: usize = crate::ca::MAX_SERVER_NAMES;
/// How long adding a node is tried again while another change of the membership is under way.
const ADD_DEADLINE: Duration = Duration::from_secs(5);
/// Wait in between.
const ADD_AGAIN: Duration = Duration::from_millis(100);
/// Marks a call that was passed on: it is not passed on again.
const PASSED_ON: &str = "supercloud-passed-on";

/// The words for a token that is not accepted: the same whatever is wrong with it.
fn denied() -> Status {
    refusals::rejection(Rejection::Denied("the token is unknown, used or lapsed".to_owned()))
}

/// What a token shall grant, checked.
fn grant_of(request: &v1::CreateTokenRequest) -> Result<(Grant, u64), Status> {
    let mut faults = Faults::default();
    input::request_id(&mut faults, request.request_id.clone());
    let ttl = match request.ttl_ms {
        0 => DEFAULT_TTL.as_millis() as u64,
        ttl => ttl,
    };
    if ttl > MAX_TTL.as_millis() as u64 {
        let expected = format!("at most {} ms (seven days)", MAX_TTL.as_millis());
        faults.push(Problem::new("ttl_ms", expected, ttl.to_string()));
    }
    let role = request.role();
    let needs_none = |faults: &mut Faults, path: &str, text: &str| {
        if !text.is_empty() {
            faults.push(Problem::new(path, "nothing for this role", quoted(text)));
        }
    };
    if role != v1::TokenRole::Borough {
        needs_none(&mut faults, "borough", &request.borough);
    }
    let grant = match role {
        v1::TokenRole::Scheduler => {
            needs_none(&mut faults, "name", &request.name);
            Some(Grant::Scheduler)
        }
        v1::TokenRole::Agent => faults.take("name", request.name.parse::<HostName>()).map(Grant::Agent),
        v1::TokenRole::Operator => {
            let name = faults.take("name", request.name.parse::<PersonName>());
            name.map(|name| Grant::Operator(name.into()))
        }
        v1::TokenRole::Borough => {
            let borough = faults.take("borough", request.borough.parse::<BoroughName>());
            let name = faults.take("name", request.name.parse::<PersonName>());
            borough.zip(name).map(|(borough, name)| Grant::Borough(borough, name.into()))
        }
        v1::TokenRole::Unspecified => {
            faults.push(Problem::new("role", "scheduler, agent, operator or borough", "nothing"));
            None
        }
    };
    input::finish(faults, grant.map(|grant| (grant, ttl)))
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

fn node_message(status: &raft::Status, member: &raft::Member) -> v1::Node {
    let role = if status.leader == Some(member.id) {
        v1::NodeRole::Leader
    } else if member.kind == MemberKind::Learner {
        v1::NodeRole::Learner
    } else if member.id == status.id && status.role == Role::Candidate {
        v1::NodeRole::Candidate
    } else {
        v1::NodeRole::Follower
    };
    v1::Node {
        id: member.id.0,
        peer_address: member.peer_address.clone(),
        api_address: member.api_address.clone(),
        role: role.into(),
        voter: member.kind == MemberKind::Voter,
        matched_index: status.matched.get(&member.id).copied().unwrap_or(0),
        reachable: None,
    }
}

fn nodes(status: &raft::Status) -> Vec<v1::Node> {
    status.members.members.values().map(|member| node_message(status, member)).collect()
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
        let good = |state: &crate::state::State| {
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

    async fn join_with_token(
        &self,
        request: v1::JoinRequest,
        passed_on: bool,
    ) -> Result<v1::JoinResponse, Status> {
        let token: Token =
            request.token.parse().map_err(|error: supercloud_proto::pki::token::TokenError| {
                Status::invalid_argument(error.to_string())
            })?;
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
        may_be_added(&self.core.status(), &addresses)?;
        if self.use_up(token).await? != Grant::Scheduler {
            return Err(denied());
        }
        let node = self.add(addresses).await?;
        let certificate_pem = self.admission.sign(&Grant::Scheduler, Some(node), &request)?;
        Ok(v1::JoinResponse {
            node_id: node.0,
            ca_key_pem: self.admission.authority_pem(),
            ..self.joined(certificate_pem)
        })
    }

    async fn join_in_development(
        &self,
        request: v1::JoinRequest,
        passed_on: bool,
    ) -> Result<v1::JoinResponse, Status> {
        let addresses = addresses(&request)?;
        if self.core.status().role != Role::Leader {
            return self.pass_on(request, passed_on).await;
        }
        may_be_added(&self.core.status(), &addresses)?;
        let node = self.add(addresses).await?;
        Ok(v1::JoinResponse { node_id: node.0, ..self.joined(String::new()) })
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
            ca_key_pem: String::new(),
            servers: status.members.members.values().map(|member| member.api_address.clone()).collect(),
            nodes: nodes(&status),
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

#[tonic::async_trait]
impl SchedulerService for Api {
    async fn list(
        &self,
        request: Request<v1::ListNodesRequest>,
    ) -> Result<Response<v1::ListNodesResponse>, Status> {
        open(request)?;
        let status = self.core.status();
        Ok(Response::new(v1::ListNodesResponse {
            cluster_id: self.core.cluster().to_owned(),
            nodes: nodes(&status),
            answered_by: status.id.0,
            leader: status.leader.map_or(0, |leader| leader.0),
            term: status.term,
            commit_index: status.commit,
            applied_index: status.applied,
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }))
    }

    async fn create_token(
        &self,
        request: Request<v1::CreateTokenRequest>,
    ) -> Result<Response<v1::CreateTokenResponse>, Status> {
        let (caller, request) = open(request)?;
        let (grant, ttl) = grant_of(&request)?;
        let token = self.admission.token()?;
        if let Grant::Borough(borough, _) = &grant
            && !self.state(false).await?.boroughs().contains_key(borough)
        {
            return Err(refusals::not_found(format!("borough {borough}")));
        }
        let expires = clock::unix_now().saturating_add(ttl);
        let command = Command::CreateToken {
            id: token.id().to_owned(),
            secret_hash: token.secret_hash().to_vec(),
            grant,
            expires,
        };
        // The secret is new with every call, so the caller's request id cannot name it; the token's own id does, for repetitions on the way.
        let id = format!("token-{}", token.id());
        self.change(&caller.by(), &id, command).await?;
        Ok(Response::new(v1::CreateTokenResponse { token: token.reveal(), expires_ms: expires }))
    }

    async fn join(&self, request: Request<v1::JoinRequest>) -> Result<Response<v1::JoinResponse>, Status> {
        let passed_on = request.metadata().contains_key(PASSED_ON);
        let (_, request) = open(request)?;
        let _place = self.admission.place()?;
        let joined = if self.admission.is_development() {
            self.join_in_development(request, passed_on).await?
        } else {
            self.join_with_token(request, passed_on).await?
        };
        tracing::info!(node = joined.node_id, "somebody joined the cluster");
        Ok(Response::new(joined))
    }
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    #[test]
    fn a_token_names_what_its_role_needs_and_nothing_else() {
        let ask = |role: v1::TokenRole, name: &str, borough: &str, ttl_ms| {
            grant_of(&v1::CreateTokenRequest {
                role: role.into(),
                name: name.to_owned(),
                borough: borough.to_owned(),
                ttl_ms,
                ..Default::default()
            })
        };
        let hour = DEFAULT_TTL.as_millis() as u64;
        let agent = ask(v1::TokenRole::Agent, "h1", "", 0).unwrap();
        assert_eq!(agent, (Grant::Agent("h1".parse().unwrap()), hour));
        assert!(ask(v1::TokenRole::Scheduler, "", "", 5).is_ok());
        assert!(ask(v1::TokenRole::Borough, "bob", "camden", 0).is_ok());
        let bad = [
            ask(v1::TokenRole::Unspecified, "", "", 0),
            ask(v1::TokenRole::Scheduler, "n1", "", 0),
            ask(v1::TokenRole::Agent, "", "", 0),
            ask(v1::TokenRole::Operator, "anna", "camden", 0),
            ask(v1::TokenRole::Borough, "bob", "", 0),
            ask(v1::TokenRole::Operator, "anna", "", 8 * 24 * hour),
        ];
        for refused in bad {
            assert_eq!(refused.unwrap_err().code(), Code::InvalidArgument);
        }
    }

    #[test]
    fn an_address_can_be_dialled() {
        let check = |text: &str| address(&mut Faults::default(), "peer_address", text).is_some();
        assert!(check("10.0.0.1:7401") && check("[fd00::1]:7401") && check("node-1.example:7401"));
        for bad in ["", "10.0.0.1", "0.0.0.0:7401", "[::]:7401", "https://a:1", "a:0", "a:70000"] {
            assert!(!check(bad), "{bad}");
        }
    }
}
