//! Who may do what, over real TLS: operators, two boroughs' people, an agent and a stranger; and a cluster that grows by tokens.

mod support;

use supercloud_proto::{
    pki::{Token, Trust},
    v1::{
        self, borough_service_client::BoroughServiceClient, event_service_client::EventServiceClient,
        host_service_client::HostServiceClient, instance_service_client::InstanceServiceClient,
        scheduler_message::Message as Down, scheduler_service_client::SchedulerServiceClient,
        workload_service_client::WorkloadServiceClient,
    },
};
use supercloud_scheduler::commands::{self, Addresses};
use support::{Agent, Outcome, connect, free_addresses, hello, join, run, spec, tls_node, token, until};
use tonic::{Code, transport::Channel};

async fn create_boroughs(operator: &Channel) -> Outcome {
    for name in ["camden", "barnet"] {
        let request = v1::CreateBoroughRequest { name: name.to_owned(), ..Default::default() };
        BoroughServiceClient::new(operator.clone()).create(request).await?;
    }
    Ok(())
}

fn apply(borough: &str) -> v1::ApplyWorkloadRequest {
    v1::ApplyWorkloadRequest { spec: Some(spec(borough, "web", 1)), ..Default::default() }
}

fn get(borough: &str) -> v1::GetWorkloadRequest {
    v1::GetWorkloadRequest { borough: borough.to_owned(), workload: "web".to_owned(), stale: false }
}

/// The code of a call that was refused; `Ok` for one that was not.
fn code<T>(answer: Result<T, tonic::Status>) -> Code {
    answer.err().map_or(Code::Ok, |status| status.code())
}

#[tokio::test]
async fn a_borough_sees_and_changes_what_is_its_own() -> Outcome {
    let directory = tempfile::tempdir()?;
    let (node, anna) = tls_node(directory.path()).await?;
    let operator = connect(&node, Trust::Mutual(&anna)).await?;
    create_boroughs(&operator).await?;
    let bob = token(operator.clone(), v1::TokenRole::Borough, "bob", "camden").await?;
    let bob = join(&node, &bob).await?;
    let camden = connect(&node, Trust::Mutual(&bob)).await?;
    let mut workloads = WorkloadServiceClient::new(camden.clone());
    let mut all = WorkloadServiceClient::new(operator.clone());

    let mine = workloads.apply(apply("camden")).await?.into_inner().workload.ok_or("no workload")?;
    assert_eq!(mine.applied_by, "borough:camden/bob");
    assert_eq!(code(workloads.apply(apply("barnet")).await), Code::NotFound);
    all.apply(apply("barnet")).await?;
    assert_eq!(code(workloads.get(get("barnet")).await), Code::NotFound);
    let stop =
        v1::StopWorkloadRequest { borough: "barnet".into(), workload: "web".into(), ..Default::default() };
    assert_eq!(code(workloads.stop(stop).await), Code::NotFound);
    let watch = v1::WatchWorkloadRequest { borough: "barnet".into(), workload: "web".into(), after_index: 0 };
    assert_eq!(code(workloads.watch(watch).await), Code::NotFound);
    let list = v1::ListWorkloadsRequest::default();
    assert_eq!(workloads.list(list.clone()).await?.into_inner().workloads.len(), 1);
    assert_eq!(all.list(list).await?.into_inner().workloads.len(), 2);

    let instances = all.get(get("barnet")).await?.into_inner().instances;
    let theirs = v1::GetInstanceRequest { id: instances[0].id.clone(), stale: false };
    let mut mine = InstanceServiceClient::new(camden.clone());
    assert_eq!(code(mine.get(theirs).await), Code::NotFound);
    let logs = v1::LogsRequest { instance: instances[0].id.clone(), ..Default::default() };
    assert_eq!(code(mine.logs(logs).await), Code::NotFound);
    let seen = mine.list(v1::ListInstancesRequest::default()).await?.into_inner().instances;
    assert!(seen.len() == 1 && seen[0].borough == "camden");
    let boroughs = BoroughServiceClient::new(camden.clone()).list(v1::ListBoroughsRequest::default()).await?;
    assert_eq!(boroughs.into_inner().boroughs.len(), 1);
    let events = until("events are archived", || async {
        let request = v1::ListEventsRequest::default();
        let events = EventServiceClient::new(camden.clone()).list(request).await?.into_inner().events;
        Ok(Some(events).filter(|events| !events.is_empty()))
    });
    assert!(events.await?.iter().all(|event| event.borough == "camden"));
    let other = v1::ListEventsRequest { borough: "barnet".into(), ..Default::default() };
    assert_eq!(code(EventServiceClient::new(camden.clone()).list(other).await), Code::NotFound);

    // What only operators may.
    let create = v1::CreateBoroughRequest { name: "brent".into(), ..Default::default() };
    assert_eq!(code(BoroughServiceClient::new(camden.clone()).create(create).await), Code::PermissionDenied);
    let change = v1::BoroughChange { weight: Some(1_000), ..Default::default() };
    let set = v1::SetBoroughRequest { name: "camden".into(), change: Some(change), ..Default::default() };
    assert_eq!(code(BoroughServiceClient::new(camden.clone()).set(set).await), Code::PermissionDenied);
    let change = v1::SiteChange { cost: Some(1), ..Default::default() };
    let set = v1::SetSiteRequest { name: "slough".into(), change: Some(change), ..Default::default() };
    assert_eq!(code(HostServiceClient::new(camden.clone()).set_site(set).await), Code::PermissionDenied);
    let tokens = SchedulerServiceClient::new(camden).create_token(v1::CreateTokenRequest::default()).await;
    assert_eq!(code(tokens), Code::PermissionDenied);
    node.shutdown().await;
    Ok(())
}

#[tokio::test]
async fn strangers_and_agents_reach_what_is_theirs_and_tokens_work_once() -> Outcome {
    let directory = tempfile::tempdir()?;
    let (node, anna) = tls_node(directory.path()).await?;
    let operator = connect(&node, Trust::Mutual(&anna)).await?;
    let stranger = connect(&node, Trust::Joining(anna.ca())).await?;
    let list = WorkloadServiceClient::new(stranger.clone()).list(v1::ListWorkloadsRequest::default()).await;
    assert_eq!(code(list), Code::Unauthenticated);
    let nodes = SchedulerServiceClient::new(stranger.clone()).list(v1::ListNodesRequest::default()).await;
    assert_eq!(code(nodes), Code::Unauthenticated);
    let forged = Token::generate(anna.ca())?.reveal();
    assert!(join(&node, &forged).await.is_err(), "a token that nobody made was taken");

    let text = token(operator.clone(), v1::TokenRole::Agent, "h1", "").await?;
    // A request that cannot be signed costs no token.
    let bad = v1::JoinRequest { token: text.clone(), csr_pem: "nonsense".into(), ..Default::default() };
    assert_eq!(code(SchedulerServiceClient::new(stranger.clone()).join(bad).await), Code::InvalidArgument);
    let agent = join(&node, &text).await?;
    let again = join(&node, &text).await.err().ok_or("a token worked twice")?;
    assert!(again.to_string().contains("unknown, used or lapsed"), "{again}");

    let channel = connect(&node, Trust::Mutual(&agent)).await?;
    let list = WorkloadServiceClient::new(channel.clone()).list(v1::ListWorkloadsRequest::default()).await;
    assert_eq!(code(list), Code::PermissionDenied);
    let mut other = Agent::open(channel.clone(), hello("h2", "one")).await?;
    let Down::Refused(refused) = other.next().await? else {
        return Err("an agent spoke for another host".into());
    };
    assert!(refused.permanent && refused.reason.contains("agent:h1"), "{}", refused.reason);
    Agent::open(channel, hello("h1", "one")).await?.welcomed().await?;
    let session = Agent::open(operator, hello("h1", "one")).await;
    assert!(session.is_err(), "an operator opened an agent's session");
    node.shutdown().await;
    Ok(())
}

#[tokio::test]
async fn a_second_node_joins_and_passes_logs_on() -> Outcome {
    let directory = tempfile::tempdir()?;
    let (first, anna) = tls_node(directory.path()).await?;
    let operator = connect(&first, Trust::Mutual(&anna)).await?;
    let text = token(operator.clone(), v1::TokenRole::Scheduler, "", "").await?;
    let (api, peer) = free_addresses().await?;
    let data = directory.path().join("n2");
    let addresses = Addresses::check(&api, &peer, Vec::new())?;
    let address = first.api_address().to_string();
    assert_eq!(commands::join(&data, &text.parse()?, &address, addresses).await?, 2);
    let second = run(&data, &api, &peer).await?;
    until("both vote", || async {
        let voters = first.core().status().members.voters().count();
        Ok((voters == 2 && second.core().read().await.is_ok()).then_some(()))
    })
    .await?;

    // Everything through the second node; the agent's session is with the first.
    create_boroughs(&operator).await?;
    let text = token(connect(&second, Trust::Mutual(&anna)).await?, v1::TokenRole::Agent, "h1", "").await?;
    let credentials = join(&second, &text).await?;
    let mut agent =
        Agent::open(connect(&first, Trust::Mutual(&credentials)).await?, hello("h1", "one")).await?;
    agent.welcomed().await?;
    let far = connect(&second, Trust::Mutual(&anna)).await?;
    WorkloadServiceClient::new(far.clone()).apply(apply("camden")).await?;
    let order = agent.orders().await?.pop().ok_or("no order")?;
    agent.report(&order, v1::InstanceState::Running, 1).await?;
    let logs = v1::LogsRequest { instance: order.instance.clone(), ..Default::default() };
    let (answered, lines) = tokio::join!(agent.answer_logs(b"from afar\n"), async {
        let mut stream = InstanceServiceClient::new(far.clone()).logs(logs.clone()).await?.into_inner();
        let mut text = Vec::new();
        while let Some(piece) = stream.message().await? {
            text.extend(piece.data);
        }
        Outcome::Ok(text)
    });
    answered?;
    assert_eq!(lines?, b"from afar\n");

    // No session anywhere: the answer names the host.
    drop(agent);
    until("the session is gone", || async {
        let refused = InstanceServiceClient::new(far.clone()).logs(logs.clone()).await.err();
        let status = refused.ok_or("logs of a host without a session")?;
        assert_eq!(status.code(), Code::Unavailable);
        Ok(status.message().contains("host h1 has no session").then_some(()))
    })
    .await?;
    second.shutdown().await;
    first.shutdown().await;
    Ok(())
}
