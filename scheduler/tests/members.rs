//! The membership as an operator sees and changes it, on nodes over real sockets: a dead node is noticed, removed and replaced, the leadership moves, a
//! leader goes.

mod support;

use supercloud_proto::{
    pki::Trust,
    v1::{
        self, borough_service_client::BoroughServiceClient, scheduler_service_client::SchedulerServiceClient,
    },
};
use supercloud_scheduler::{raft::NodeId, raft::Role, state::level::KNOWN};
use support::{Outcome, connect, dev_join, free_addresses, join, three, tls_node, token, until, voters};
use tonic::{Code, transport::Channel};

type Client = SchedulerServiceClient<Channel>;

async fn create_borough(channel: Channel, name: &str) -> Outcome {
    let request = v1::CreateBoroughRequest { name: name.to_owned(), ..Default::default() };
    BoroughServiceClient::new(channel).create(request).await?;
    Ok(())
}

fn remove(node_id: u64) -> v1::RemoveNodeRequest {
    v1::RemoveNodeRequest { request_id: "r".to_owned(), node_id }
}

fn transfer(node_id: u64) -> v1::TransferLeadershipRequest {
    v1::TransferLeadershipRequest { request_id: "t".to_owned(), node_id }
}

fn left(reachable: u32, needed: u32) -> v1::RemovalOutlook {
    v1::RemovalOutlook { reachable, needed }
}

fn promote(node_id: u64) -> v1::PromoteNodeRequest {
    v1::PromoteNodeRequest { request_id: "p".to_owned(), node_id }
}

/// The other order: the new node first, then the dead one out.
#[tokio::test]
async fn a_dead_node_is_replaced() -> Outcome {
    let directory = tempfile::tempdir()?;
    let (mut nodes, mut clients) = three(directory.path()).await?;
    nodes.remove(2).shutdown().await;

    // A learner that never came is behind for ever: it cannot be promoted, counts in no majority, and goes again.
    let (api_address, peer_address) = free_addresses().await?;
    let never = v1::JoinRequest { api_address, peer_address, level: KNOWN, ..Default::default() };
    assert_eq!(clients[0].join(never).await?.into_inner().node_id, 4);
    let refused = clients[1].promote(promote(4)).await.err().ok_or("it was promoted")?;
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(
        refused.message().contains("node 4 is") && refused.message().contains("entries behind"),
        "{refused}"
    );
    create_borough(connect(&nodes[1], Trust::Plain).await?, "camden").await?;
    clients[1].remove(remove(4)).await?;

    let fifth = dev_join(&directory.path().join("n5"), &nodes[1].api_address().to_string()).await?;
    assert_eq!(fifth.core().node(), NodeId(5));
    until("it votes", || async { Ok((voters(&fifth) == 4).then_some(())) }).await?;
    // Again, by whoever did not want to wait; and of nobody.
    clients[1].promote(promote(5)).await?;
    let nobody = clients[1].promote(promote(9)).await.err().ok_or("node 9 was promoted")?;
    assert_eq!(nobody.code(), Code::NotFound);
    clients[1].remove(remove(3)).await?;
    until("all agree", || async {
        Ok((voters(&fifth) == 3 && voters(&nodes[0]) == 3 && voters(&nodes[1]) == 3).then_some(()))
    })
    .await?;
    let settled = || {
        let mut client = clients[1].clone();
        async move {
            let health = client.health(v1::SchedulerHealthRequest {}).await?.into_inner();
            // The disk of the machine that tests may well be full.
            let warnings = health.warnings.iter().filter(|warning| !warning.contains("its disk")).count();
            Ok((warnings == 0 && health.nodes.iter().all(|node| node.report.is_some())).then_some(()))
        }
    };
    until("nothing is to be warned of", settled).await?;
    fifth.shutdown().await;
    for node in nodes {
        node.shutdown().await;
    }
    Ok(())
}

#[tokio::test]
async fn a_dead_node_is_removed_and_never_comes_back() -> Outcome {
    let directory = tempfile::tempdir()?;
    let (mut nodes, mut clients) = three(directory.path()).await?;
    let listed = clients[0].list(v1::ListNodesRequest {}).await?.into_inner();
    assert_eq!(listed.leader, 1);
    nodes.remove(2).shutdown().await;
    until("the leader misses it", || {
        let mut client = clients[0].clone();
        async move {
            let listed = client.list(v1::ListNodesRequest {}).await?.into_inner().nodes;
            let reachable: Vec<_> = listed.iter().map(|node| node.reachable).collect();
            Ok((reachable == [Some(true), Some(true), Some(false)]).then_some(()))
        }
    })
    .await?;
    // A follower asks the leader.
    let seen = clients[1].list(v1::ListNodesRequest {}).await?.into_inner().nodes;
    let reachable: Vec<_> = seen.iter().map(|node| node.reachable).collect();
    assert_eq!(reachable, [Some(true), Some(true), Some(false)]);
    let health = clients[1].health(v1::SchedulerHealthRequest {}).await?.into_inner();
    assert_eq!((health.answered_by, health.leader), (2, 1));
    let (second, third) = (&health.nodes[1], &health.nodes[2]);
    let report = second.report.as_ref().ok_or("the one that answers says nothing of itself")?;
    assert!(report.disk_total_bytes > 0 && report.applied_index > 0 && report.leader == 1);
    assert_eq!((second.removal, second.silent_ms), (Some(left(1, 2)), None));
    assert!(third.report.is_none() && !third.problem.is_empty() && third.silent_ms.is_some());
    assert_eq!(third.removal, Some(left(2, 2)));
    let warned = |what: &str| health.warnings.iter().any(|warning| warning.contains(what));
    assert!(warned("2 of 3 voters are within reach") && warned("node 3 has not been heard of"), "{health:?}");

    // Without the second nobody could agree, with or without the leader. Nothing of it moves the leadership.
    for id in [1, 2] {
        let refused = clients[1].remove(remove(id)).await.err().ok_or("the quorum was given away")?;
        assert_eq!(refused.code(), Code::FailedPrecondition);
        assert!(refused.message().contains("only 1 voters can be reached, and 2 are needed"), "{refused}");
    }
    let gone = clients[1].transfer_leadership(transfer(3)).await.err().ok_or("a dead node leads")?;
    assert!(gone.message().contains("not heard of"), "{gone}");
    assert_eq!(nodes[0].core().status().role, Role::Leader);

    // Asked of the follower; a repetition is answered alike, on any node.
    clients[1].remove(remove(3)).await?;
    clients[1].remove(remove(3)).await?;
    clients[0].remove(remove(3)).await?;
    let unknown = clients[0].remove(remove(9)).await.err().ok_or("node 9 was removed")?;
    assert_eq!((unknown.code(), unknown.message()), (Code::NotFound, "node 9 is not a member"));
    let nobody = clients[0].remove(remove(0)).await.err().ok_or("node 0 was removed")?;
    assert_eq!(nobody.code(), Code::InvalidArgument);
    create_borough(connect(&nodes[1], Trust::Plain).await?, "camden").await?;

    // The removed node starts again from its directory: it learns that it is out, and answers no reads.
    let again = dev_join(&directory.path().join("n3"), &nodes[0].api_address().to_string()).await?;
    until("it learns that it was removed", || async {
        Ok((again.core().status().role == Role::Removed).then_some(()))
    })
    .await?;
    assert!(again.core().read().await.is_err());
    assert_eq!((voters(&nodes[0]), voters(&nodes[1])), (2, 2));
    again.shutdown().await;
    // And a new one gets a number that was never used.
    let fourth = dev_join(&directory.path().join("n4"), &nodes[1].api_address().to_string()).await?;
    assert_eq!(fourth.core().node(), NodeId(4));
    until("it votes", || async { Ok((voters(&fourth) == 3).then_some(())) }).await?;
    fourth.shutdown().await;
    for node in nodes {
        node.shutdown().await;
    }
    Ok(())
}

#[tokio::test]
async fn the_leadership_moves_and_a_leader_is_removed() -> Outcome {
    let directory = tempfile::tempdir()?;
    let (nodes, mut clients) = three(directory.path()).await?;
    // Asked of a follower, for another one; again, for the one that leads already; then for any.
    for _ in 0..2 {
        assert_eq!(clients[1].transfer_leadership(transfer(3)).await?.into_inner().leader, 3);
    }
    assert_eq!(nodes[2].core().status().role, Role::Leader);
    let next = clients[0].transfer_leadership(transfer(0)).await?.into_inner().leader;
    assert!(next == 1 || next == 2, "{next}");

    // The leader goes at its own word: the leadership first.
    let leads = usize::try_from(next)? - 1;
    clients[leads].remove(remove(next)).await?;
    until("it is out", || async { Ok((nodes[leads].core().status().role == Role::Removed).then_some(())) })
        .await?;
    let other = &nodes[2];
    create_borough(connect(other, Trust::Plain).await?, "camden").await?;
    let left: Vec<NodeId> = other.core().status().members.members.keys().copied().collect();
    assert_eq!(left.len(), 2);
    assert!(!left.contains(&NodeId(next)));
    for node in nodes {
        node.shutdown().await;
    }
    Ok(())
}

#[tokio::test]
async fn the_membership_is_the_operators_alone() -> Outcome {
    let directory = tempfile::tempdir()?;
    let (node, anna) = tls_node(directory.path()).await?;
    let operator = connect(&node, Trust::Mutual(&anna)).await?;
    create_borough(operator.clone(), "camden").await?;
    let bob = token(operator.clone(), v1::TokenRole::Borough, "bob", "camden").await?;
    let bob = join(&node, &bob).await?;
    let mut client = Client::new(connect(&node, Trust::Mutual(&bob)).await?);
    let refused = client.remove(remove(1)).await.err().ok_or("a borough removed a node")?;
    assert_eq!(refused.code(), Code::PermissionDenied);
    let refused = client.transfer_leadership(transfer(0)).await.err().ok_or("a borough moved the leader")?;
    assert_eq!(refused.code(), Code::PermissionDenied);
    let refused = client.promote(promote(1)).await.err().ok_or("a borough promoted a node")?;
    assert_eq!(refused.code(), Code::PermissionDenied);
    let refused =
        client.health(v1::SchedulerHealthRequest {}).await.err().ok_or("a borough looked inside")?;
    assert_eq!(refused.code(), Code::PermissionDenied);
    // The only node cannot go, nor hand anything over.
    let mut client = Client::new(operator);
    let last = client.remove(remove(1)).await.err().ok_or("the last node was removed")?;
    assert_eq!(last.code(), Code::FailedPrecondition);
    let alone = client.transfer_leadership(transfer(0)).await.err().ok_or("it went nowhere")?;
    assert!(alone.message().contains("no other voter"), "{alone}");
    node.shutdown().await;
    Ok(())
}
