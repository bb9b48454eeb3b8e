//! The cluster itself: its nodes, and tokens to join it. Joining stands in `joining`; who signs, in `admission`.

use std::{collections::BTreeMap, time::Duration};

use supercloud_proto::{
    name::{BoroughName, HostName, PersonName},
    problem::{Faults, Problem, quoted},
    v1::{self, scheduler_service_server::SchedulerService},
};
use tonic::{Request, Response, Status};

use super::{Api, input, joining::PASSED_ON, open, refusals, saving};
use crate::{
    clock,
    core::{Known, MemberChange, health::role_of},
    raft::{self, MemberKind, NodeId},
    state::{Command, Grant},
};

/// Life of a token where nothing is asked for: long enough to walk to a machine.
const DEFAULT_TTL: Duration = Duration::from_secs(60 * 60);
/// Longest life of a token.
const MAX_TTL: Duration = Duration::from_secs(7 * 24 * 60 * 60);
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

fn node_message(
    status: &raft::Status,
    sights: &[v1::MemberSight],
    known: &BTreeMap<NodeId, Known>,
    member: &raft::Member,
) -> v1::Node {
    let sight = sights.iter().find(|sight| sight.id == member.id.0);
    let known = known.get(&member.id);
    let told = |sight: &v1::MemberSight| (sight.version.clone(), sight.level);
    let (version, level) =
        known.map(|known| (known.version.clone(), known.level)).or(sight.map(told)).unwrap_or_default();
    v1::Node {
        id: member.id.0,
        peer_address: member.peer_address.clone(),
        api_address: member.api_address.clone(),
        role: role_of(status, member).into(),
        voter: member.kind == MemberKind::Voter,
        matched_index: sight.map_or(0, |sight| sight.matched_index),
        reachable: sight.map(|sight| sight.reachable),
        version,
        level,
    }
}

/// The nodes, with what the leader knows of them, where it could be asked, and what this node was told of their versions.
pub(super) fn nodes(
    status: &raft::Status,
    sights: &[v1::MemberSight],
    known: &BTreeMap<NodeId, Known>,
) -> Vec<v1::Node> {
    status.members.members.values().map(|member| node_message(status, sights, known, member)).collect()
}

/// The node that a change is about.
fn named(request_id: String, node_id: u64) -> Result<NodeId, Status> {
    let mut faults = Faults::default();
    input::request_id(&mut faults, request_id);
    if node_id == 0 {
        faults.push(Problem::new("node_id", "the number of a node", "0"));
    }
    input::finish(faults, Some(NodeId(node_id)))
}

impl Api {
    async fn change_members(&self, by: &str, change: MemberChange) -> Result<NodeId, Status> {
        let answer = self.core.change_members(change).await;
        match &answer {
            Ok(node) => tracing::info!(by, ?change, %node, "the membership was changed"),
            Err(error) => tracing::warn!(by, ?change, %error, "the membership was not changed"),
        }
        answer.map_err(|error| refusals::members(&error))
    }
}

#[tonic::async_trait]
impl SchedulerService for Api {
    async fn list(
        &self,
        request: Request<v1::ListNodesRequest>,
    ) -> Result<Response<v1::ListNodesResponse>, Status> {
        open(request)?;
        let sights = self.sights().await;
        let status = self.core.status();
        Ok(Response::new(v1::ListNodesResponse {
            cluster_id: self.core.cluster().to_owned(),
            nodes: nodes(&status, &sights, &self.core.levels().known()),
            answered_by: status.id.0,
            leader: status.leader.map_or(0, |leader| leader.0),
            term: status.term,
            commit_index: status.commit,
            applied_index: status.applied,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            level: self.core.view().level(),
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

    async fn remove(
        &self,
        request: Request<v1::RemoveNodeRequest>,
    ) -> Result<Response<v1::RemoveNodeResponse>, Status> {
        let (caller, request) = open(request)?;
        let node = named(request.request_id, request.node_id)?;
        self.change_members(&caller.by(), MemberChange::Remove(node)).await?;
        Ok(Response::new(v1::RemoveNodeResponse {}))
    }

    async fn transfer_leadership(
        &self,
        request: Request<v1::TransferLeadershipRequest>,
    ) -> Result<Response<v1::TransferLeadershipResponse>, Status> {
        let (caller, request) = open(request)?;
        let mut faults = Faults::default();
        input::request_id(&mut faults, request.request_id);
        let to = input::finish(faults, Some(request.node_id))?;
        let to = (to != 0).then_some(NodeId(to));
        let leader = self.change_members(&caller.by(), MemberChange::Transfer(to)).await?;
        Ok(Response::new(v1::TransferLeadershipResponse { leader: leader.0 }))
    }

    async fn promote(
        &self,
        request: Request<v1::PromoteNodeRequest>,
    ) -> Result<Response<v1::PromoteNodeResponse>, Status> {
        let (caller, request) = open(request)?;
        let node = named(request.request_id, request.node_id)?;
        self.change_members(&caller.by(), MemberChange::Promote(node)).await?;
        Ok(Response::new(v1::PromoteNodeResponse {}))
    }

    async fn health(
        &self,
        request: Request<v1::SchedulerHealthRequest>,
    ) -> Result<Response<v1::SchedulerHealthResponse>, Status> {
        open(request)?;
        Ok(Response::new(self.cluster_health().await))
    }

    type SaveSnapshotStream = saving::Pieces;

    async fn save_snapshot(
        &self,
        request: Request<v1::SaveSnapshotRequest>,
    ) -> Result<Response<Self::SaveSnapshotStream>, Status> {
        let (caller, request) = open(request)?;
        let pieces = self.save(&caller.by(), request.stale).await?;
        Ok(Response::new(pieces))
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
}
