//! How the cluster is, as an operator reads it at a glance: every node is asked how it is, the leader what it knows of the others, and what
//! follows from both is said in words. Needs no leader: whoever does not answer is told as such.

use std::collections::BTreeMap;

use futures::future::join_all;
use supercloud_proto::v1;

use super::{Api, nodes};
use crate::raft::{self, Member, MemberKind, NodeId, Role, limits::PROMOTE_GAP};

/// A node that has applied so much less than is committed is told: some seconds of a busy cluster.
const LAG: u64 = 10_000;
/// A disk with less free is told, in bytes: a snapshot and the log beside it need as much.
const LEAST_FREE: u64 = 2 << 30;
/// Or with less of it free, in percent.
const LEAST_FREE_PERCENT: u64 = 5;

/// What a node said, or why it did not.
type Answer = Result<v1::ReportResponse, String>;

impl Api {
    /// What the leader knows of the members; nothing where it cannot be asked.
    pub(super) async fn sights(&self) -> Vec<v1::MemberSight> {
        let status = self.core.status();
        let leader = status.leader.and_then(|leader| status.members.get(leader));
        match leader {
            Some(leader) => self.ask(leader).await.map(|answer| answer.members).unwrap_or_default(),
            None => Vec::new(),
        }
    }

    async fn ask(&self, member: &Member) -> Answer {
        if member.id == self.core.node() {
            return Ok(self.core.report(self.sessions.count()).await);
        }
        self.core.report_of(member).await
    }

    pub(super) async fn cluster_health(&self) -> v1::SchedulerHealthResponse {
        let asked = self.core.status().members;
        let answers = join_all(asked.members.values().map(|member| self.ask(member))).await;
        // After the answers: an election may have ended meanwhile.
        let status = self.core.status();
        let answers = asked.members.keys().copied().zip(answers).collect();
        v1::SchedulerHealthResponse { cluster_id: self.core.cluster().to_owned(), ..assess(&status, answers) }
    }
}

/// Everything that follows from what the nodes said.
fn assess(status: &raft::Status, answers: Vec<(NodeId, Answer)>) -> v1::SchedulerHealthResponse {
    let leader = status.leader;
    let of_leader =
        answers.iter().find(|(id, _)| Some(*id) == leader).and_then(|(_, answer)| answer.as_ref().ok());
    let sights = of_leader.map(|answer| answer.members.clone()).unwrap_or_default();
    let known = nodes::nodes(status, &sights, &BTreeMap::new());
    let health = |node: v1::Node| {
        let id = NodeId(node.id);
        let answer = answers.iter().find(|(asked, _)| *asked == id).map(|(_, answer)| answer.clone());
        let (report, problem) = match answer {
            Some(Ok(answer)) => (answer.report, String::new()),
            Some(Err(problem)) => (None, problem),
            None => (None, "it joined a moment ago".to_owned()),
        };
        let silent = sights.iter().find(|sight| sight.id == node.id && !sight.reachable);
        let removal = (node.voter && !sights.is_empty()).then(|| outlook(status, &sights, id));
        v1::NodeHealth {
            node: Some(node),
            report,
            problem,
            silent_ms: silent.map(|sight| sight.silent_ms),
            removal,
        }
    };
    let nodes: Vec<v1::NodeHealth> = known.into_iter().map(health).collect();
    let warnings = warnings(status, &nodes);
    v1::SchedulerHealthResponse {
        cluster_id: String::new(),
        answered_by: status.id.0,
        leader: leader.map_or(0, |leader| leader.0),
        nodes,
        warnings,
    }
}

/// What the removal of a voter would leave; the rule by which the leader permits it.
fn outlook(status: &raft::Status, sights: &[v1::MemberSight], without: NodeId) -> v1::RemovalOutlook {
    let left: Vec<&Member> = status.members.voters().filter(|member| member.id != without).collect();
    let reachable = |member: &&&Member| sights.iter().any(|sight| sight.id == member.id.0 && sight.reachable);
    v1::RemovalOutlook {
        reachable: left.iter().filter(reachable).count() as u32,
        needed: (left.len() / 2 + 1) as u32,
    }
}

fn warnings(status: &raft::Status, nodes: &[v1::NodeHealth]) -> Vec<String> {
    let mut warnings = Vec::new();
    if status.role == Role::Removed {
        warnings.push(format!(
            "node {}, which answers, was removed from the cluster; ask another one",
            status.id
        ));
    } else if status.leader.is_none() {
        warnings.push(format!("node {} knows no leader: nothing can be changed", status.id));
    }
    margin(nodes, &mut warnings);
    let committed =
        nodes.iter().filter_map(|node| node.report.as_ref()).map(|report| report.commit_index).max();
    for health in nodes {
        of_node(status, health, committed.unwrap_or(0), &mut warnings);
    }
    let mut versions: Vec<&str> = nodes
        .iter()
        .filter_map(|health| health.report.as_ref())
        .map(|report| report.version.as_str())
        .collect();
    versions.sort_unstable();
    versions.dedup();
    if versions.len() > 1 {
        warnings.push(format!("the nodes run different versions: {}", versions.join(", ")));
    }
    warnings
}

/// Whether the cluster bears the loss of a voter.
fn margin(nodes: &[v1::NodeHealth], warnings: &mut Vec<String>) {
    let voters: Vec<&v1::Node> =
        nodes.iter().filter_map(|health| health.node.as_ref()).filter(|node| node.voter).collect();
    let (count, needed) = (voters.len(), voters.len() / 2 + 1);
    if count == 1 {
        warnings.push("there is one voter: nothing takes over when it is gone".to_owned());
        return;
    }
    if count > 0 && count.is_multiple_of(2) {
        let fewer = count - 1;
        warnings.push(format!("{count} voters bear the loss of no more nodes than {fewer} do"));
    }
    if voters.iter().any(|node| node.reachable.is_none()) {
        return;
    }
    let reachable = voters.iter().filter(|node| node.reachable == Some(true)).count();
    if reachable <= needed && reachable < count {
        warnings.push(format!(
            "{reachable} of {count} voters are within reach and {needed} are needed: no further one may fail"
        ));
    }
}

fn of_node(status: &raft::Status, health: &v1::NodeHealth, committed: u64, warnings: &mut Vec<String>) {
    let Some(node) = &health.node else { return };
    let id = node.id;
    if let Some(silent) = health.silent_ms {
        let seconds = silent / 1000;
        warnings.push(format!(
            "node {id} has not been heard of for {seconds} s; remove and replace it if it does not come back"
        ));
    }
    let Some(report) = &health.report else {
        warnings.push(format!("node {id} does not say how it is: {}", health.problem));
        return;
    };
    let behind = committed.saturating_sub(report.applied_index);
    let learner = status.members.get(NodeId(id)).is_some_and(|member| member.kind == MemberKind::Learner);
    if learner && behind > PROMOTE_GAP {
        warnings.push(format!(
            "node {id} is a learner and {behind} entries behind; it is promoted once it has caught up"
        ));
    } else if !learner && behind > LAG {
        warnings.push(format!("node {id} has yet to apply {behind} committed entries"));
    }
    let leader = status.leader.map_or(0, |leader| leader.0);
    if report.leader != leader && leader != 0 {
        let other = if report.leader == 0 { "nobody".to_owned() } else { format!("node {}", report.leader) };
        warnings.push(format!("node {id} takes {other} for the leader, not node {leader}"));
    }
    let (free, total) = (report.disk_free_bytes, report.disk_total_bytes);
    if total > 0 && (free < LEAST_FREE || free < total / 100 * LEAST_FREE_PERCENT) {
        let (free, total) = (free >> 20, total >> 20);
        warnings.push(format!("node {id}: its disk has {free} MiB free of {total} MiB"));
    }
}

#[cfg(test)]
mod tests;
