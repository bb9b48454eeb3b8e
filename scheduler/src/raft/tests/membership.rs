//! Nodes that join, catch up, leave and are gone.

use super::harness::{Cluster, DEADLINE, eventually, often};
use crate::raft::{ChangeError, Log, MemberKind, NodeId, Role, Start, limits};

async fn joined(cluster: &mut Cluster) -> NodeId {
    let leader = cluster.log(cluster.leader().await);
    let next = NodeId(leader.status().borrow().members.next_id);
    let id = leader.add_learner(format!("peer-{next}"), format!("api-{next}")).await.unwrap();
    assert_eq!(id, next);
    cluster.start(id, &Start::Join).unwrap();
    eventually("the learner to be promoted everywhere", || {
        let voter = |on: NodeId| {
            let status = cluster.status(on);
            status.members.get(id).is_some_and(|member| member.kind == MemberKind::Voter)
        };
        cluster.running().into_iter().all(voter).then_some(())
    })
    .await;
    id
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_of_one_grows_to_three_through_snapshots() {
    let mut cluster = Cluster::found_with(1, often(), limits::TICK / 2).await;
    for number in 0..50 {
        cluster.write(&format!("{number}")).await;
    }
    let (two, three) = (joined(&mut cluster).await, joined(&mut cluster).await);
    assert_eq!((two, three), (NodeId(2), NodeId(3)));
    assert!(cluster.network.snapshots_sent() >= 2);
    let written = cluster.write("all").await;
    assert_eq!(cluster.agree(written.index).await.entries.len(), 51);
    // The new ones are full members: they survive the first one.
    cluster.kill(NodeId(1)).await;
    let written = cluster.write("without the first").await;
    assert_eq!(cluster.agree(written.index).await.entries.len(), 52);
    // And they keep what they learned across a restart, membership and all.
    for id in [two, three] {
        cluster.kill(id).await;
    }
    for id in [two, three] {
        cluster.start(id, &Start::Again).unwrap();
    }
    let written = cluster.write("again").await;
    assert_eq!(cluster.agree(written.index).await.entries.len(), 53);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_that_was_away_too_long_catches_up_by_a_snapshot() {
    let mut cluster = Cluster::found_with(3, often(), limits::TICK / 2).await;
    let away = cluster.followers().await[0];
    cluster.kill(away).await;
    for number in 0..60 {
        cluster.write(&format!("{number}")).await;
    }
    let leader = cluster.leader().await;
    eventually("the log to be compacted", || (cluster.status(leader).first_index > 20).then_some(())).await;
    cluster.start(away, &Start::Again).unwrap();
    let written = cluster.write("back").await;
    assert_eq!(cluster.agree(written.index).await.entries.len(), 61);
    assert!(cluster.network.snapshots_sent() >= 1);
    // What it installed is what it starts from.
    cluster.kill(away).await;
    cluster.start(away, &Start::Again).unwrap();
    assert_eq!(cluster.agree(written.index).await.entries.len(), 61);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_node_learns_it_and_its_number_is_not_used_again() {
    let mut cluster = Cluster::found(3).await;
    let leader = cluster.leader().await;
    let log = cluster.log(leader);
    // Without both of the others it would be refused for their sake.
    eventually("the others to be heard of", || (cluster.status(leader).reachable.len() == 3).then_some(()))
        .await;
    assert_eq!(log.remove(leader).await, Err(ChangeError::Leads { id: leader }));
    let gone = cluster.followers().await[0];
    remove(&log, gone).await;
    eventually("the removed node to know", || (cluster.status(gone).role == Role::Removed).then_some(()))
        .await;
    assert_eq!(log.remove(gone).await, Err(ChangeError::NotMember { id: gone }));
    cluster.kill(gone).await;
    let added = log.add_learner("peer-4".into(), "api-4".into()).await.unwrap();
    assert_eq!(added, NodeId(4));
    let again = log.add_learner("peer-4".into(), "api-4".into()).await;
    assert_eq!(again, Err(ChangeError::AlreadyMember { id: added }));
    let written = cluster.write("two are enough").await;
    assert_eq!(cluster.agree(written.index).await.entries.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_leader_changes_the_membership_and_only_of_members() {
    let cluster = Cluster::found(3).await;
    let leader = cluster.leader().await;
    let followers = cluster.followers().await;
    let refusal = cluster.log(followers[0]).remove(followers[1]).await;
    assert!(matches!(refusal, Err(ChangeError::NotLeader { leader: Some(named) }) if named.id == leader));
    let ripe = cluster.log(leader).promote(followers[0]).await;
    assert_eq!(ripe, Err(ChangeError::AlreadyMember { id: followers[0] }));
    let unknown = NodeId(9);
    assert_eq!(cluster.log(leader).remove(unknown).await, Err(ChangeError::NotMember { id: unknown }));
    assert_eq!(
        cluster.log(leader).transfer_leadership(unknown).await,
        Err(ChangeError::NotMember { id: unknown })
    );
}

/// Removes a member, as soon as the leader has heard from enough others.
async fn remove(log: &Log<usize>, id: NodeId) {
    let removed = async {
        loop {
            match log.remove(id).await {
                Err(ChangeError::NoQuorum { .. }) => tokio::time::sleep(limits::TICK).await,
                other => return other.unwrap(),
            }
        }
    };
    tokio::time::timeout(DEADLINE, removed).await.expect("the others are heard in time");
}
