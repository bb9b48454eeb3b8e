//! What a node says of itself, what a leader knows of the others, and the question to another node how it is. Knows no operator and no warning:
//! what is to be made of it stands in `api::health`.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use nix::sys::statvfs::statvfs;
use supercloud_proto::{id::Millis, v1};
use tokio::{sync::watch, time::timeout};

use super::Core;
use crate::{
    clock::boot_millis,
    raft::{self, Member, MemberKind, NodeId, Role, Status},
};

/// Within which another node says how it is. Longer than a busy disk takes, and short enough for an operator who waits.
const ANSWER_DEADLINE: Duration = Duration::from_secs(1);

/// Since when a leader has missed members. Empty on others. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Missed {
    since: Arc<Mutex<BTreeMap<NodeId, Millis>>>,
}

impl Missed {
    /// Keeps it up until the node stops.
    pub(crate) async fn run(self, mut nodes: watch::Receiver<Status>) {
        loop {
            self.note(&nodes.borrow_and_update(), boot_millis());
            // An end of the channel means that the node has stopped.
            let Ok(()) = nodes.changed().await else { return };
        }
    }

    fn note(&self, status: &Status, now: Millis) {
        let mut since = self.since();
        if status.role != Role::Leader {
            return since.clear();
        }
        let missed = |id: &NodeId| status.members.get(*id).is_some() && !status.reachable.contains(id);
        since.retain(|id, _| missed(id));
        for id in status.members.members.keys().filter(|id| missed(id)) {
            since.entry(*id).or_insert(now);
        }
    }

    fn since(&self) -> MutexGuard<'_, BTreeMap<NodeId, Millis>> {
        // The map is whole between two statements.
        self.since.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A node's part, as far as the one that tells it knows.
#[must_use]
pub(crate) fn role_of(status: &Status, member: &Member) -> v1::NodeRole {
    if status.leader == Some(member.id) {
        v1::NodeRole::Leader
    } else if member.kind == MemberKind::Learner {
        v1::NodeRole::Learner
    } else if member.id == status.id && status.role == Role::Candidate {
        v1::NodeRole::Candidate
    } else {
        v1::NodeRole::Follower
    }
}

impl Core {
    /// What this node says of itself and, where it leads, of the others. `agents`: how many have a session here.
    pub(crate) async fn report(&self, agents: usize) -> v1::ReportResponse {
        let status = self.status();
        let members = self.sights(&status);
        let directory = self.inner.directory.clone();
        // Asking a file system may block.
        let disk = tokio::task::spawn_blocking(move || statvfs(&directory).ok());
        let disk = disk.await.ok().flatten();
        let bytes = |blocks: u64| disk.map_or(0, |disk| blocks * disk.fragment_size());
        let role = status.members.get(status.id).map_or(v1::NodeRole::Unspecified, |me| role_of(&status, me));
        let report = v1::NodeReport {
            role: role.into(),
            term: status.term,
            leader: status.leader.map_or(0, |leader| leader.0),
            commit_index: status.commit,
            applied_index: status.applied,
            last_index: status.last_index,
            snapshot_index: status.snapshot,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_ms: u64::try_from(self.inner.began.elapsed().as_millis()).unwrap_or(u64::MAX),
            agents: u32::try_from(agents).unwrap_or(u32::MAX),
            disk_free_bytes: bytes(disk.map_or(0, |disk| disk.blocks_available())),
            disk_total_bytes: bytes(disk.map_or(0, |disk| disk.blocks())),
        };
        v1::ReportResponse { report: Some(report), members }
    }

    /// What this node knows of the members, if it leads; else nothing.
    pub(crate) fn sights(&self, status: &raft::Status) -> Vec<v1::MemberSight> {
        if status.role != Role::Leader {
            return Vec::new();
        }
        let (now, since, known) = (boot_millis(), self.inner.missed.since(), self.levels().known());
        let sight = |id: &NodeId| v1::MemberSight {
            id: id.0,
            version: known.get(id).map(|known| known.version.clone()).unwrap_or_default(),
            level: known.get(id).map_or(0, |known| known.level),
            matched_index: status.matched.get(id).copied().unwrap_or(0),
            reachable: status.reachable.contains(id),
            silent_ms: since.get(id).map_or(0, |since| now.saturating_sub(*since)),
        };
        status.members.members.keys().map(sight).collect()
    }

    /// Asks another node how it is.
    ///
    /// # Errors
    /// Why it does not say, in words.
    pub(crate) async fn report_of(&self, member: &Member) -> Result<v1::ReportResponse, String> {
        let asked = async {
            let mut client = self.inner.peers.client(member).await.map_err(|error| error.to_string())?;
            let answer = client.report(v1::ReportRequest {}).await;
            answer.map(tonic::Response::into_inner).map_err(|status| status.message().to_owned())
        };
        match timeout(ANSWER_DEADLINE, asked).await {
            Ok(answer) => answer,
            Err(_) => Err(format!("no answer within {} s", ANSWER_DEADLINE.as_secs())),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::raft::Members;

    #[test]
    fn a_leader_knows_since_when_it_has_missed_a_member() {
        let member = |id| Member {
            id: NodeId(id),
            peer_address: format!("p{id}"),
            api_address: format!("a{id}"),
            kind: MemberKind::Voter,
        };
        let members = (1..=3).map(|id| (NodeId(id), member(id))).collect();
        let status = |role, reachable: &[u64]| Status {
            id: NodeId(1),
            role,
            term: 1,
            leader: Some(NodeId(1)),
            commit: 1,
            applied: 1,
            last_index: 1,
            first_index: 1,
            snapshot: 1,
            members: Arc::new(Members { next_id: 4, members: BTreeMap::clone(&members) }),
            matched: BTreeMap::new(),
            reachable: reachable.iter().copied().map(NodeId).collect::<BTreeSet<_>>(),
            short: BTreeSet::new(),
        };
        let missed = Missed::default();
        let seen =
            |missed: &Missed| missed.since().iter().map(|(id, since)| (id.0, *since)).collect::<Vec<_>>();
        missed.note(&status(Role::Leader, &[1, 2]), 10);
        missed.note(&status(Role::Leader, &[1]), 20);
        assert_eq!(seen(&missed), [(2, 20), (3, 10)]);
        missed.note(&status(Role::Leader, &[1, 3]), 30);
        assert_eq!(seen(&missed), [(2, 20)]);
        missed.note(&status(Role::Follower, &[]), 40);
        assert!(seen(&missed).is_empty());
    }
}
