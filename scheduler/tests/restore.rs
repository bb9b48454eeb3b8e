//! The day on which the cluster cannot be brought back: its state was saved, all nodes go, the first node of a new history is made of the file.
//! Agents and people come with their old certificates, agents get orders that are newer than any they had, an old node stays out.

mod support;

use std::{fs, path::Path};

use supercloud_proto::{
    pki::{Credentials, Trust},
    saved,
    v1::{
        self, TokenRole, borough_service_client::BoroughServiceClient,
        event_service_client::EventServiceClient, scheduler_service_client::SchedulerServiceClient,
        workload_service_client::WorkloadServiceClient,
    },
};
use supercloud_scheduler::{
    commands::{self, Addresses},
    raft::Role,
    restore::{Authority, INDEX_LEAP, Wish, restore},
    server::Node,
};
use support::{
    Agent, DEADLINE, Outcome, connect, free_addresses, hello, join, ready, run, spec, tls_node, token, until,
};
use tokio::time::timeout;
use tonic::{Code, transport::Channel};

/// A further node of the cluster of `first`, once it votes.
async fn further(
    first: &Node,
    operator: &Channel,
    data: &Path,
    (api, peer): &(String, String),
) -> Outcome<Node> {
    let token = token(operator.clone(), TokenRole::Scheduler, "", "").await?;
    let addresses = Addresses::check(api, peer, Vec::new())?;
    commands::join(data, &token.parse()?, &first.api_address().to_string(), addresses).await?;
    let node = run(data, api, peer).await?;
    until("it votes", || async {
        let status = node.core().status();
        Ok(status.members.voters().any(|member| member.id == status.id).then_some(()))
    })
    .await?;
    Ok(node)
}

/// What a node saves, as a file.
async fn save(channel: Channel, stale: bool, path: &Path) -> Outcome<saved::Summary> {
    let request = v1::SaveSnapshotRequest { stale };
    let mut pieces = SchedulerServiceClient::new(channel).save_snapshot(request).await?.into_inner();
    let mut bytes = Vec::new();
    while let Some(piece) = pieces.message().await? {
        bytes.extend(piece.data);
    }
    fs::write(path, &bytes)?;
    Ok(saved::inspect(bytes.as_slice())?)
}

async fn create_borough(channel: Channel, name: &str) -> Outcome {
    let request = v1::CreateBoroughRequest { name: name.to_owned(), ..Default::default() };
    BoroughServiceClient::new(channel).create(request).await?;
    Ok(())
}

async fn boroughs(channel: Channel) -> Outcome<Vec<String>> {
    let listed = BoroughServiceClient::new(channel).list(v1::ListBoroughsRequest::default()).await?;
    Ok(listed.into_inner().boroughs.into_iter().map(|borough| borough.name).collect())
}

/// The order of the one instance, where there is one.
async fn ordered(node: &Node, agent: &Credentials) -> Outcome<Option<(Agent, v1::Order)>> {
    let channel = connect(node, Trust::Mutual(agent)).await?;
    let mut session = Agent::open(channel, hello("h1", "one")).await?;
    let (_, orders) = session.welcomed().await?;
    Ok(orders.into_iter().next().map(|order| (session, order)))
}

/// What a node without a leader can still save: what it has, marked as unconfirmed, and only for who asks for that.
async fn rescue(alone: Channel, directory: &Path) -> Outcome {
    let age = || async {
        let mut client = BoroughServiceClient::new(alone.clone());
        let request = v1::ListBoroughsRequest { stale: true };
        let answer = client.list(request).await?;
        let age = answer.metadata().get("supercloud-stale-ms").ok_or("no age")?.to_str()?.parse::<u64>()?;
        Outcome::Ok(Some(age).filter(|age| *age > 1_000))
    };
    until("what it shows grows old", age).await?;
    let refused =
        save(alone.clone(), false, &directory.join("none")).await.err().ok_or("saved without a leader")?;
    assert!(refused.to_string().contains("no leader"), "{refused}");
    let rescued = save(alone, true, &directory.join("rescued.saved")).await?;
    assert!(!rescued.head.confirmed && rescued.boroughs == 2);
    Ok(())
}

/// Whoever watched events before is told to list again, not given what comes after a gap; a workload is shown as it is.
async fn assert_watches_begin_anew(operator: &Channel, before: u64, restored: u64) -> Outcome {
    let events = |after| v1::WatchEventsRequest { after_index: Some(after), ..Default::default() };
    let mut client = EventServiceClient::new(operator.clone());
    // Nobody can fill the gap: that is known a moment later.
    let gone = until("the gap is told", || {
        let mut client = client.clone();
        async move { Ok(client.watch(events(before)).await.err()) }
    })
    .await?;
    assert_eq!(gone.code(), Code::OutOfRange);
    assert!(gone.message().contains("no longer kept; list again"), "{gone}");
    let mut watch = client.watch(events(restored)).await?.into_inner();
    let first = timeout(DEADLINE, watch.message()).await??.ok_or("the watch has ended")?;
    assert!(first.events.iter().all(|event| event.index > restored) && first.index > restored);
    let watched = v1::WatchWorkloadRequest {
        borough: "camden".to_owned(),
        workload: "web".to_owned(),
        after_index: before,
    };
    let mut watch = WorkloadServiceClient::new(operator.clone()).watch(watched).await?.into_inner();
    let moment = timeout(DEADLINE, watch.message()).await??.ok_or("the watch has ended")?;
    assert!(moment.index > restored && moment.instances[0].state() == v1::InstanceState::Running);
    Ok(())
}

#[tokio::test]
async fn a_cluster_goes_on_from_a_saved_state() -> Outcome {
    let directory = tempfile::tempdir()?;
    let (first, anna) = tls_node(directory.path()).await?;
    let operator = connect(&first, Trust::Mutual(&anna)).await?;
    let places = [free_addresses().await?, free_addresses().await?];
    let data = |name: &str| directory.path().join(name);
    let second = further(&first, &operator, &data("n2"), &places[0]).await?;
    create_borough(operator.clone(), "camden").await?;
    let host = token(operator.clone(), TokenRole::Agent, "h1", "").await?;
    let host = join(&first, &host).await?;
    let mut session = Agent::open(connect(&first, Trust::Mutual(&host)).await?, hello("h1", "one")).await?;
    session.welcomed().await?;
    let apply = v1::ApplyWorkloadRequest { spec: Some(spec("camden", "web", 1)), ..Default::default() };
    WorkloadServiceClient::new(operator.clone()).apply(apply).await?;
    let before = session.orders().await?.pop().ok_or("no order")?;
    let unused = token(operator.clone(), TokenRole::Operator, "mallory", "").await?;

    // Saved by a follower; what comes after it is lost, but not the indexes that it took.
    let file = data("state.saved");
    let summary = save(connect(&second, Trust::Mutual(&anna)).await?, false, &file).await?;
    assert_eq!((summary.boroughs, summary.workloads, summary.instances, summary.hosts), (1, 1, 1, 1));
    assert!(summary.head.confirmed && summary.head.index >= before.index);
    assert_eq!((summary.head.next_node_id, summary.head.members.len()), (3, 2));
    create_borough(operator.clone(), "hackney").await?;

    // Alone the second has no leader, but can still tell what it has.
    drop(session);
    first.shutdown().await;
    rescue(connect(&second, Trust::Mutual(&anna)).await?, directory.path()).await?;
    second.shutdown().await;

    // Where the first node was, so that hosts and people find it.
    let old = Addresses::check(
        &summary.head.members[0].api_address,
        &summary.head.members[0].peer_address,
        vec![],
    )?;
    let (api, peer) = (old.api.clone(), old.peer.clone());
    let authority = data("n1").join("ca.pem");
    let made = restore(Wish {
        from: &file,
        data_dir: &data("restored"),
        addresses: old,
        authority: Authority::Kept(&authority),
        operator: None,
    })?;
    assert_eq!((made.node, made.index), (1001, summary.head.index + INDEX_LEAP));
    let node = run(&data("restored"), &api, &peer).await?;
    ready(&node).await?;
    let operator = connect(&node, Trust::Mutual(&anna)).await?;
    assert_eq!(boroughs(operator.clone()).await?, ["camden"]);
    let listed =
        SchedulerServiceClient::new(operator.clone()).list(v1::ListNodesRequest {}).await?.into_inner();
    assert_eq!((listed.cluster_id.as_str(), listed.leader), (summary.head.cluster_id.as_str(), 1001));

    // The same instance on the same host, by an order that is newer than whatever the agent had.
    let (mut session, order) = ordered(&node, &host).await?.ok_or("no order")?;
    assert_eq!((&order.instance, order.desired()), (&before.instance, v1::InstanceDesired::Run));
    assert_eq!(order.index, made.index);
    session.report(&order, v1::InstanceState::Running, 1).await?;
    let spent = join(&node, &unused).await.err().ok_or("a token of before is good")?;
    assert!(spent.to_string().contains("unknown, used or lapsed"), "{spent}");

    assert_watches_begin_anew(&operator, before.index, made.index).await?;

    // An old node that comes back finds itself removed, and changes nothing.
    let second = run(&data("n2"), &places[0].0, &places[0].1).await?;
    until("the old node learns that it is out", || async {
        Ok((second.core().status().role == Role::Removed).then_some(()))
    })
    .await?;
    assert!(second.core().read().await.is_err());
    second.shutdown().await;
    assert_eq!(node.core().status().members.members.len(), 1);

    // Others join the new history.
    let third = further(&node, &operator, &data("n3"), &places[1]).await?;
    assert_eq!((third.core().node().0, third.core().history()), (1002, node.core().history()));
    assert_eq!(boroughs(connect(&third, Trust::Mutual(&anna)).await?).await?, ["camden"]);
    third.shutdown().await;
    node.shutdown().await;
    Ok(())
}

#[tokio::test]
async fn the_state_is_the_operators_alone() -> Outcome {
    let directory = tempfile::tempdir()?;
    let (node, anna) = tls_node(directory.path()).await?;
    let operator = connect(&node, Trust::Mutual(&anna)).await?;
    create_borough(operator.clone(), "camden").await?;
    let bob = token(operator, TokenRole::Borough, "bob", "camden").await?;
    let bob = join(&node, &bob).await?;
    let mut client = SchedulerServiceClient::new(connect(&node, Trust::Mutual(&bob)).await?);
    let refused = client.save_snapshot(v1::SaveSnapshotRequest { stale: true }).await;
    assert_eq!(refused.err().map(|status| status.code()), Some(Code::PermissionDenied));
    node.shutdown().await;
    Ok(())
}
