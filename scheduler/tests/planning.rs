//! `Plan` on every node, stale and not, and on one that has no leader any more.

mod support;

use supercloud_proto::{
    pki::Trust,
    v1::{
        self, borough_service_client::BoroughServiceClient, workload_service_client::WorkloadServiceClient,
    },
};
use supercloud_scheduler::{raft::Role, server::Node};
use support::{Agent, Outcome, connect, hello, spec, three, until};
use tonic::{Code, Response, Status};

/// Header of the answer to a stale read.
const AGE: &str = "supercloud-stale-ms";

/// Plans one workload that finds a host and two that find none.
async fn plan(node: &Node, stale: bool) -> Outcome<Result<Response<v1::PlanResponse>, Status>> {
    let mut large = spec("camden", "large", 1);
    large.resources = Some(v1::Resources { cpu_millis: 8_000, memory_bytes: 1 << 30, ..Default::default() });
    let mut far = spec("camden", "far", 2);
    far.place = Some(v1::PlaceSpec { sites: vec!["slough".to_owned()], ..Default::default() });
    let request = v1::PlanRequest { specs: vec![spec("camden", "web", 2), large, far], stale };
    let channel = connect(node, Trust::Plain).await?;
    Ok(WorkloadServiceClient::new(channel).plan(request).await)
}

/// What it is to say, wherever it is asked for.
fn check(answer: Response<v1::PlanResponse>, stale: bool) -> Outcome {
    assert_eq!(answer.metadata().contains_key(AGE), stale);
    let plans = answer.into_inner().plans;
    let [web, large, far] = plans.as_slice() else {
        return Err(format!("{} plans of 3", plans.len()).into());
    };
    let hosts: Vec<&str> = web.placements.iter().map(|placement| placement.host.as_str()).collect();
    assert_eq!((hosts.as_slice(), web.unplaced, web.waiting), (["h1", "h1"].as_slice(), 0, 0));
    for (plan, unplaced, change) in [(large, 1, "ask for 3800m cpu"), (far, 2, "leave out place.sites")] {
        assert_eq!((plan.placements.len(), plan.unplaced, plan.waiting), (0, unplaced, 0));
        let because = plan.unplaced_because.as_ref().ok_or("it is told why")?;
        let misses: Vec<&str> = because.nearest_misses.iter().map(|miss| miss.host.as_str()).collect();
        assert_eq!(misses, ["h1"]);
        assert_eq!(because.nearest.as_ref(), because.nearest_misses.first());
        let told: Vec<&str> = because.changes.iter().map(|told| told.change.as_str()).collect();
        assert!(told.contains(&change), "{told:?}");
    }
    Ok(())
}

#[tokio::test]
async fn every_node_plans_and_one_without_a_leader_does_so_from_what_it_has() -> Outcome {
    let directory = tempfile::tempdir()?;
    let (mut nodes, _) = three(directory.path()).await?;
    let channel = connect(&nodes[0], Trust::Plain).await?;
    let borough = v1::CreateBoroughRequest { name: "camden".to_owned(), ..Default::default() };
    BoroughServiceClient::new(channel.clone()).create(borough).await?;
    let mut agent = Agent::open(channel, hello("h1", "one")).await?;
    agent.welcomed().await?;
    until("every node knows the host", || async {
        Ok(nodes.iter().all(|node| node.core().view().hosts().len() == 1).then_some(()))
    })
    .await?;
    let leads = |node: &Node| node.core().status().role == Role::Leader;
    assert!(nodes.iter().any(leads) && nodes.iter().filter(|node| !leads(node)).count() == 2);
    for node in &nodes {
        for stale in [false, true] {
            check(plan(node, stale).await??, stale)?;
            assert!(node.core().view().workloads().is_empty(), "a plan changes nothing");
        }
    }

    let place = nodes.iter().position(|node| !leads(node)).ok_or("all lead")?;
    let left = nodes.remove(place);
    for node in nodes {
        node.shutdown().await;
    }
    until("it misses its leader", || async { Ok(left.core().status().leader.is_none().then_some(())) })
        .await?;
    let refused = plan(&left, false).await?.err().ok_or("it planned without a leader as if there was one")?;
    assert_eq!(refused.code(), Code::Unavailable, "{refused}");
    check(plan(&left, true).await??, true)?;
    left.shutdown().await;
    Ok(())
}
