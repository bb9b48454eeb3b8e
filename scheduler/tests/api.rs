//! The API of one node in development, over real sockets: from handing in a workload to its logs, with an agent made of the test's own words.

mod support;

use std::time::Duration;

use supercloud_proto::{
    problem,
    v1::{
        self, agent_message::Message as Up, borough_service_client::BoroughServiceClient,
        event_service_client::EventServiceClient, host_service_client::HostServiceClient,
        instance_service_client::InstanceServiceClient, scheduler_message::Message as Down,
        scheduler_service_client::SchedulerServiceClient, workload_service_client::WorkloadServiceClient,
    },
};
use support::{Agent, DEADLINE, Outcome, dev_node, hello, spec, until};
use tokio::time::timeout;
use tonic::{Code, transport::Channel};

async fn create_borough(channel: &Channel, name: &str) -> Outcome {
    let request = v1::CreateBoroughRequest { name: name.to_owned(), ..Default::default() };
    let created = BoroughServiceClient::new(channel.clone()).create(request).await?.into_inner();
    assert_eq!(created.borough.map(|borough| borough.name).as_deref(), Some(name));
    Ok(())
}

fn apply(spec: v1::WorkloadSpec, request_id: &str) -> v1::ApplyWorkloadRequest {
    v1::ApplyWorkloadRequest { request_id: request_id.to_owned(), spec: Some(spec), expect_revision: None }
}

fn key() -> v1::GetWorkloadRequest {
    v1::GetWorkloadRequest { borough: "camden".to_owned(), workload: "web".to_owned(), stale: false }
}

/// All that a stream of logs gives.
async fn read_logs(
    instances: &mut InstanceServiceClient<Channel>,
    request: v1::LogsRequest,
) -> Outcome<Vec<u8>> {
    let mut stream = instances.logs(request).await?.into_inner();
    let mut text = Vec::new();
    while let Some(piece) = stream.message().await? {
        text.extend(piece.data);
    }
    Ok(text)
}

/// Waits until the instance is in the archive, with every event of its life.
async fn assert_archived(channel: &Channel, id: String) -> Outcome {
    let get = v1::GetInstanceRequest { id: id.clone(), stale: false };
    let archived = until("the instance is archived", || async {
        match InstanceServiceClient::new(channel.clone()).get(get.clone()).await {
            Ok(found) => Ok(Some(found.into_inner()).filter(|found| found.archived)),
            Err(status) if status.code() == Code::NotFound => Ok(None),
            Err(status) => Err(status.into()),
        }
    });
    assert_eq!(archived.await?.instance.map(|instance| instance.id), Some(id.clone()));
    let request = v1::ListEventsRequest { instance: id, ..Default::default() };
    let events = until("its last event is archived", || async {
        let listed = EventServiceClient::new(channel.clone()).list(request.clone()).await?.into_inner();
        let over = listed.events.last().is_some_and(|event| event.kind == "instance-gone");
        Ok(over.then_some(listed.events))
    })
    .await?;
    let kinds: Vec<&str> = events.iter().map(|event| event.kind.as_str()).collect();
    let life =
        ["instance-created", "instance-placed", "instance-state", "instance-stopping", "instance-gone"];
    assert_eq!(kinds, life);
    assert_eq!((events[0].by.as_str(), events[2].by.as_str()), ("dev", "agent:h1"));
    Ok(())
}

#[tokio::test]
async fn a_workload_from_hand_in_to_its_logs() -> Outcome {
    let directory = tempfile::tempdir()?;
    let (node, channel) = dev_node(directory.path()).await?;
    let mut workloads = WorkloadServiceClient::new(channel.clone());
    let mut instances = InstanceServiceClient::new(channel.clone());
    create_borough(&channel, "camden").await?;

    // Nothing to run on: planned as unplaced, applied as pending, explained.
    let plan = v1::PlanRequest { specs: vec![spec("camden", "web", 1)], stale: false };
    let plans = workloads.plan(plan).await?.into_inner().plans;
    assert_eq!((plans[0].change(), plans[0].unplaced), (v1::ApplyChange::Created, 1));
    let applied = workloads.apply(apply(spec("camden", "web", 1), "r1")).await?.into_inner();
    assert_eq!(applied.change(), v1::ApplyChange::Created);
    let counts = applied.workload.and_then(|workload| workload.counts).ok_or("no counts")?;
    assert_eq!((counts.desired, counts.pending, counts.current), (1, 1, 1));
    let why =
        v1::ExplainRequest { borough: "camden".to_owned(), workload: "web".to_owned(), ..Default::default() };
    let why = instances.explain(why).await?.into_inner().explanations;
    assert_eq!((why.len(), why[0].host.as_str()), (1, ""));
    assert!(!why[0].summary.is_empty());

    // A watch sees what is there at once.
    let watch =
        v1::WatchWorkloadRequest { borough: "camden".to_owned(), workload: "web".to_owned(), after_index: 0 };
    let mut watch = workloads.watch(watch).await?.into_inner();
    let first = timeout(DEADLINE, watch.message()).await??.ok_or("the watch has ended")?;
    assert_eq!(first.instances.len(), 1);
    let id = first.instances[0].id.clone();
    let logs = v1::LogsRequest { instance: id.clone(), ..Default::default() };
    let refused = instances.logs(logs.clone()).await.err().ok_or("a pending instance has no logs")?;
    assert_eq!(refused.code(), Code::FailedPrecondition);

    // A host comes: welcome, an empty full set, then the order.
    let mut agent = Agent::open(channel.clone(), hello("h1", "one")).await?;
    let (welcome, orders) = agent.welcomed().await?;
    assert!(welcome.host_id > 0 && welcome.lease_ms > welcome.heartbeat_every_ms && orders.is_empty());
    assert_eq!(welcome.servers, [node.api_address().to_string()]);
    let order = agent.orders().await?.pop().ok_or("no order")?;
    assert_eq!((order.instance.as_str(), order.desired()), (id.as_str(), v1::InstanceDesired::Run));
    agent.say(Up::Heartbeat(v1::Heartbeat { sequence: 7, ..Default::default() })).await?;
    let answered = loop {
        if let Down::HeartbeatAck(ack) = agent.next().await? {
            break ack.sequence;
        }
    };
    assert_eq!(answered, 7);
    agent.report(&order, v1::InstanceState::Running, 1).await?;
    loop {
        let moment = timeout(DEADLINE, watch.message()).await??.ok_or("the watch has ended")?;
        if moment.instances[0].state() == v1::InstanceState::Running {
            assert_eq!(moment.instances[0].host, "h1");
            break;
        }
    }
    let host = v1::GetHostRequest { name: "h1".to_owned(), stale: false };
    let host = HostServiceClient::new(channel.clone()).get(host).await?.into_inner();
    assert_eq!(host.instances.len(), 1);
    assert_eq!(host.host.map(|host| (host.instances, host.state())), Some((1, v1::HostState::Ready)));

    // Its logs come through the stream that the agent opens.
    let (answered, lines) = tokio::join!(agent.answer_logs(b"hello\n"), read_logs(&mut instances, logs));
    assert_eq!((answered?.instance, lines?), (id.clone(), b"hello\n".to_vec()));

    // Stopped and reported gone: in the archive, with its events.
    let stop = v1::StopWorkloadRequest {
        borough: "camden".to_owned(),
        workload: "web".to_owned(),
        ..Default::default()
    };
    assert_eq!(workloads.stop(stop).await?.into_inner().stopping, 1);
    let order = agent.orders().await?.pop().ok_or("no order")?;
    assert_eq!(order.desired(), v1::InstanceDesired::Stop);
    agent.report(&order, v1::InstanceState::Stopped, 2).await?;
    assert_archived(&channel, id).await?;
    node.shutdown().await;
    Ok(())
}

#[tokio::test]
async fn a_request_is_done_once_and_problems_come_together() -> Outcome {
    let directory = tempfile::tempdir()?;
    let (node, channel) = dev_node(directory.path()).await?;
    create_borough(&channel, "camden").await?;
    let mut workloads = WorkloadServiceClient::new(channel.clone());
    let first = workloads.apply(apply(spec("camden", "web", 1), "r1")).await?.into_inner();
    let again = workloads.apply(apply(spec("camden", "web", 1), "r1")).await?.into_inner();
    assert_eq!((first.index, first.change), (again.index, again.change));
    let other = workloads.apply(apply(spec("camden", "web", 2), "r1")).await.err().ok_or("refused")?;
    assert_eq!(other.code(), Code::FailedPrecondition);
    let twice = BoroughServiceClient::new(channel.clone())
        .create(v1::CreateBoroughRequest { name: "camden".to_owned(), ..Default::default() })
        .await;
    assert_eq!(twice.err().map(|status| status.code()), Some(Code::AlreadyExists));

    let wrong = v1::WorkloadSpec { count: 1_000_000, priority: 1_000, ..spec("Camden", "web", 1) };
    let refused = workloads.apply(apply(wrong, "a b")).await.err().ok_or("refused")?;
    let paths = |status: &tonic::Status| {
        let details = problem::of_status(status).unwrap_or_default();
        details.problems.into_iter().map(|problem| problem.path).collect::<Vec<_>>()
    };
    assert_eq!(
        (refused.code(), paths(&refused)),
        (Code::InvalidArgument, vec!["request_id".into(), "borough".into()])
    );
    let wrong = v1::WorkloadSpec { count: 1_000_000, priority: 1_000, ..spec("camden", "web", 1) };
    let refused = workloads.apply(apply(wrong, "")).await.err().ok_or("refused")?;
    assert_eq!(paths(&refused), ["count", "priority"]);
    assert_eq!(workloads.get(key()).await?.into_inner().workload.map(|found| found.revision), Some(1));
    let elsewhere = workloads.apply(apply(spec("barnet", "web", 1), "")).await.err().ok_or("refused")?;
    assert_eq!((elsewhere.code(), elsewhere.message()), (Code::NotFound, "borough barnet does not exist"));
    let tokens = SchedulerServiceClient::new(channel)
        .create_token(v1::CreateTokenRequest { role: v1::TokenRole::Scheduler.into(), ..Default::default() })
        .await;
    assert_eq!(tokens.err().map(|status| status.code()), Some(Code::FailedPrecondition));
    node.shutdown().await;
    Ok(())
}

#[tokio::test]
async fn lists_come_in_pages() -> Outcome {
    let directory = tempfile::tempdir()?;
    let (node, channel) = dev_node(directory.path()).await?;
    create_borough(&channel, "camden").await?;
    let mut workloads = WorkloadServiceClient::new(channel.clone());
    for name in ["a", "b", "c"] {
        workloads.apply(apply(spec("camden", name, 2), "")).await?;
    }
    let mut names = Vec::new();
    let mut request = v1::ListWorkloadsRequest { page_size: 2, ..Default::default() };
    loop {
        let page = workloads.list(request.clone()).await?.into_inner();
        assert!(page.workloads.len() <= 2);
        names.extend(page.workloads.into_iter().filter_map(|found| found.spec).map(|spec| spec.workload));
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() {
            break;
        }
    }
    assert_eq!(names, ["a", "b", "c"]);
    let mut instances = InstanceServiceClient::new(channel);
    let mut request = v1::ListInstancesRequest { page_size: 4, ..Default::default() };
    let page = instances.list(request.clone()).await?.into_inner();
    request.page_token = page.next_page_token;
    let rest = instances.list(request).await?.into_inner();
    assert_eq!((page.instances.len(), rest.instances.len(), rest.next_page_token.as_str()), (4, 2, ""));
    assert!(page.instances.iter().all(|one| rest.instances.iter().all(|two| one.id != two.id)));
    node.shutdown().await;
    Ok(())
}

#[tokio::test]
async fn one_host_has_one_session() -> Outcome {
    let directory = tempfile::tempdir()?;
    let (node, channel) = dev_node(directory.path()).await?;
    let mut first = Agent::open(channel.clone(), hello("h1", "one")).await?;
    first.welcomed().await?;
    let mut copy = Agent::open(channel.clone(), hello("h1", "two")).await?;
    let Down::Refused(refused) = copy.next().await? else { return Err("a copy was let in".into()) };
    assert!(refused.permanent && refused.reason.contains("copied"), "{}", refused.reason);
    // The same installation again: the older session ends.
    let mut again = Agent::open(channel.clone(), hello("h1", "one")).await?;
    again.welcomed().await?;
    assert!(first.next().await.is_err(), "the older session goes on");
    // A copied machine has the same installation and another boot; the first one goes on.
    let mut copied = hello("h1", "one");
    if let Some(inventory) = &mut copied.inventory {
        inventory.boot_id = "another".to_owned();
    }
    let mut copied = Agent::open(channel.clone(), copied).await?;
    let Down::Refused(refused) = copied.next().await? else {
        return Err("a copied machine was let in".into());
    };
    assert!(!refused.permanent && refused.reason.contains("copied"), "{}", refused.reason);
    again.say(Up::Heartbeat(v1::Heartbeat { sequence: 1, ..Default::default() })).await?;
    while !matches!(again.next().await?, Down::HeartbeatAck(_)) {}
    let odd = v1::Hello { protocol: 9, ..hello("h2", "one") };
    let mut odd = Agent::open(channel, odd).await?;
    assert!(matches!(odd.next().await?, Down::Refused(refused) if refused.permanent));
    node.shutdown().await;
    Ok(())
}

#[tokio::test]
async fn what_is_too_large_is_refused_and_the_end_is_told() -> Outcome {
    let directory = tempfile::tempdir()?;
    let (node, channel) = dev_node(directory.path()).await?;
    let mut boroughs = BoroughServiceClient::new(channel.clone());
    let huge = v1::CreateBoroughRequest { title: "x".repeat(5 << 20), ..Default::default() };
    let refused = boroughs.create(huge).await.err().ok_or("5 MiB were taken")?;
    assert_eq!(refused.code(), Code::OutOfRange, "{refused}");
    let mut request = tonic::Request::new(v1::ListBoroughsRequest::default());
    request.metadata_mut().insert("x", "y".repeat(20 << 10).parse()?);
    assert!(boroughs.list(request).await.is_err(), "20 KiB of headers were taken");

    let channel = support::connect(&node, supercloud_proto::pki::Trust::Plain).await?;
    create_borough(&channel, "camden").await?;
    let watch = v1::WatchEventsRequest { after_index: Some(0), ..Default::default() };
    let mut watch = EventServiceClient::new(channel).watch(watch).await?.into_inner();
    let is_seen = async {
        loop {
            let seen = watch.message().await?.ok_or("the watch has ended")?;
            if seen.events.iter().any(|event| event.kind == "borough-created") {
                return Outcome::Ok(());
            }
        }
    };
    timeout(DEADLINE, is_seen).await??;
    timeout(Duration::from_secs(10), node.shutdown()).await?;
    let told = loop {
        match timeout(DEADLINE, watch.message()).await? {
            Ok(Some(_)) => {}
            other => break other,
        }
    };
    assert_eq!(told.err().map(|status| status.code()), Some(Code::Unavailable));
    Ok(())
}
