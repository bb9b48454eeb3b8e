//! Disks that are nearly full: what is taken, what is refused, and that everything goes on once there is space.

use super::harness::{Cluster, eventually};
use crate::raft::{NodeId, ProposeError, Space};

const FULL: Space = Space { free: 1 << 20, short: true };

fn tell(cluster: &Cluster, nodes: &[NodeId], space: Space) {
    for id in nodes {
        cluster.log(*id).tell_space(space);
    }
}

async fn refused(cluster: &Cluster, leader: NodeId, nodes: &[NodeId]) {
    eventually("the leader knows", || {
        let short = cluster.status(leader).short;
        nodes.iter().all(|id| short.contains(id)).then_some(())
    })
    .await;
    let error = cluster.log(leader).propose(b"refused".to_vec()).await.unwrap_err();
    assert_eq!(error, ProposeError::NoSpace { nodes: nodes.to_vec() });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_follower_takes_nothing_and_catches_up() {
    let cluster = Cluster::found(3).await;
    let followers = cluster.followers().await;
    let full = followers[0];
    tell(&cluster, &[full], FULL);
    let before = cluster.view(full).entries.len();
    let leader = cluster.leader().await;
    eventually("the leader knows", || cluster.status(leader).short.contains(&full).then_some(())).await;
    for number in 0..20 {
        cluster.write(&format!("{number}")).await;
    }
    assert_eq!(cluster.view(full).entries.len(), before, "it took what it has no room for");
    assert_ne!(cluster.status(leader).successor(), Some(full));
    tell(&cluster, &[full], Space::default());
    let written = cluster.write("after").await;
    assert_eq!(cluster.agree(written.index).await.entries.len(), 21);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_takes_nothing_that_could_not_be_kept() {
    let cluster = Cluster::found(3).await;
    cluster.write("before").await;
    let (leader, followers) = (cluster.leader().await, cluster.followers().await);
    tell(&cluster, &[leader], FULL);
    refused(&cluster, leader, &[leader]).await;
    assert!(cluster.log(leader).read_index().await.is_ok(), "reads go on");
    tell(&cluster, &[leader], Space::default());
    tell(&cluster, &followers, FULL);
    let mut both = followers.clone();
    both.sort();
    refused(&cluster, leader, &both).await;
    tell(&cluster, &followers, Space::default());
    eventually("the leader knows", || cluster.status(leader).short.is_empty().then_some(())).await;
    let written = cluster.write("after").await;
    assert_eq!(cluster.agree(written.index).await.entries.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_elected_while_all_are_full_serves_reads() {
    let cluster = Cluster::found(3).await;
    let written = cluster.write("before").await;
    cluster.agree(written.index).await;
    let (leader, followers) = (cluster.leader().await, cluster.followers().await);
    tell(&cluster, &[leader, followers[0], followers[1]], FULL);
    refused(&cluster, leader, &[NodeId(1), NodeId(2), NodeId(3)]).await;
    cluster.log(leader).transfer_leadership(followers[0]).await.unwrap();
    let read = cluster.log(followers[0]).read_index().await;
    assert!(read.is_ok(), "{read:?}");
    refused(&cluster, followers[0], &[NodeId(1), NodeId(2), NodeId(3)]).await;
    assert_eq!(cluster.view(followers[1]).entries.len(), 1);
}
