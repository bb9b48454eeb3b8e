//! What holds while nothing is broken: acknowledged means everywhere soon, reads see what was written before them.

use std::collections::BTreeSet;

use super::harness::{Cluster, eventually, often};
use crate::raft::{NodeId, ProposeError, Role, SnapshotPolicy, Start, limits};

#[tokio::test(flavor = "multi_thread")]
async fn one_node_keeps_everything_across_restarts() {
    let mut cluster = Cluster::found_with(1, often(), limits::TICK / 5).await;
    let node = NodeId(1);
    let mut last = 0;
    for life in 0..3 {
        for number in 0..30 {
            let committed = cluster.write(&format!("{life}-{number}")).await;
            assert!(committed.index > last);
            assert_eq!(committed.outcome, life * 30 + number + 1);
            assert!(cluster.view(node).applied >= committed.index, "answered before it was published");
            last = committed.index;
        }
        eventually("the log to be compacted", || (cluster.status(node).first_index > 5).then_some(())).await;
        cluster.kill(node).await;
        cluster.start(node, &Start::Again).unwrap();
        cluster.agree(last).await;
    }
    let view = cluster.agree(last).await;
    let entries: Vec<String> =
        view.entries.iter().map(|(_, entry)| String::from_utf8(entry.clone()).unwrap()).collect();
    let expected: Vec<String> =
        (0..3).flat_map(|life| (0..30).map(move |number| format!("{life}-{number}"))).collect();
    assert_eq!(entries, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn three_nodes_apply_the_same_and_many_writes_share_an_append() {
    let cluster = Cluster::found(3).await;
    let log = cluster.log(cluster.leader().await);
    let writes = (0..2000).map(|number| {
        let log = log.clone();
        tokio::spawn(async move { log.propose(format!("w{number}").into_bytes()).await.unwrap().index })
    });
    let mut indexes = BTreeSet::new();
    for write in writes.collect::<Vec<_>>() {
        indexes.insert(write.await.unwrap());
    }
    assert_eq!(indexes.len(), 2000);
    let view = cluster.agree(*indexes.last().unwrap()).await;
    assert_eq!(view.entries.len(), 2000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_on_any_node_sees_every_write_before_it() {
    let cluster = Cluster::found(3).await;
    for round in 0..20 {
        let written = cluster.write(&format!("r{round}")).await.index;
        for id in cluster.running() {
            let read = cluster.log(id).read_index().await.unwrap();
            assert!(read >= written, "node {id} read at {read}, {written} was acknowledged");
            assert!(cluster.view(id).applied >= read);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_proposed_is_refused() {
    // The production tick: writing the largest entry takes longer than an election at a faster one.
    let cluster = Cluster::found_with(3, SnapshotPolicy::default(), limits::TICK).await;
    let leader = cluster.leader().await;
    let follower = cluster.followers().await[0];
    let refusal = cluster.log(follower).propose(vec![1]).await.unwrap_err();
    let ProposeError::NotLeader { leader: Some(named) } = refusal else { panic!("{refusal:?}") };
    assert_eq!((named.id, named.api_address), (leader, format!("api-{leader}")));
    let log = cluster.log(leader);
    assert_eq!(log.propose(vec![]).await, Err(ProposeError::Empty));
    let found = limits::MAX_ENTRY_BYTES + 1;
    let limit = limits::MAX_ENTRY_BYTES;
    assert_eq!(log.propose(vec![0; found]).await, Err(ProposeError::TooLarge { limit, found }));
    let largest = log.propose(vec![0; limit]).await.unwrap();
    cluster.agree(largest.index).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn leadership_is_handed_over() {
    let cluster = Cluster::found(3).await;
    cluster.write("before").await;
    let leader = cluster.leader().await;
    let heir = cluster.followers().await[0];
    cluster.log(leader).transfer_leadership(heir).await.unwrap();
    eventually("the heir to lead", || (cluster.status(heir).role == Role::Leader).then_some(())).await;
    let after = cluster.write("after").await;
    assert_eq!(cluster.agree(after.index).await.entries.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_far_behind_is_sent_no_message_that_it_would_refuse() {
    // The network of these tests panics when a message is refused.
    let cluster = Cluster::found(3).await;
    let away = cluster.followers().await[0];
    cluster.network.cut(away);
    let log = cluster.log(cluster.leader().await);
    let mut last = 0;
    for number in 0..16 {
        last = log.propose(vec![number; limits::MAX_MESSAGE_BYTES as usize / 2]).await.unwrap().index;
    }
    assert!(16 * limits::MAX_MESSAGE_BYTES / 2 > limits::MAX_PEER_MESSAGE_BYTES as u64);
    cluster.network.heal();
    assert_eq!(cluster.agree(last).await.entries.len(), 16);
    assert_eq!(cluster.network.snapshots_sent(), 0);
}
