//! Nodes that know different feature levels in one cluster: what not all know is not proposed, the level goes up by itself once they do, and who
//! knows less is refused from then on.

use std::{net::SocketAddr, path::Path};

use supercloud_proto::{
    pki::Trust,
    v1::{
        ListNodesRequest, PlanRequest, scheduler_service_client::SchedulerServiceClient,
        workload_service_client::WorkloadServiceClient,
    },
};
use supercloud_scheduler::{
    server::{self, Node, StartError},
    state::{
        Command,
        level::{FIRST, KNOWN, Level},
    },
};

use tokio::runtime::Runtime;

use crate::support::{Outcome, connect, dev_config, ready, until};

/// A node with a runtime of its own, so that its connections end with it as a process' would.
struct Process {
    node: Node,
    runtime: Runtime,
}

impl Process {
    /// Of a version that knows this level; founds a cluster, or joins the one at `join`, or goes on. Its addresses stay once it has them.
    async fn start(
        directory: &Path,
        knows: Level,
        join: Option<SocketAddr>,
        at: &[SocketAddr],
    ) -> Outcome<Result<Self, StartError>> {
        let mut config = dev_config(directory)?;
        config.knows = knows;
        config.join = join.map(|address| address.to_string());
        if let [api, peer] = at {
            (config.api_listen, config.peer_listen) = (*api, *peer);
        }
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        match runtime.spawn(async move { server::start(&config).await }).await? {
            Ok(node) => Ok(Ok(Self { node, runtime })),
            Err(error) => {
                runtime.shutdown_background();
                Ok(Err(error))
            }
        }
    }

    async fn stop(self) -> Outcome {
        let ended = self.runtime.spawn(self.node.shutdown()).await;
        self.runtime.shutdown_background();
        Ok(ended?)
    }
}

/// Asks what an apply would do that takes level 4.
async fn plan_of_spare_work(node: &Node) -> Outcome<Result<(), tonic::Status>> {
    let spec = "{ workload: w, borough: b, kind: service, class: spare, container: { image: 'w:1' }, resources: { cpu: 1, memory: 1GiB } }";
    let specs = supercloud_proto::spec::parse(spec)?.iter().map(Into::into).collect();
    let mut client = WorkloadServiceClient::new(connect(node, Trust::Plain).await?);
    Ok(client.plan(PlanRequest { specs, stale: false }).await.map(drop))
}

fn addresses(node: &Node) -> Outcome<Vec<SocketAddr>> {
    let status = node.core().status();
    let member = status.members.get(status.id).ok_or("it is no member")?;
    Ok(vec![member.api_address.parse()?, member.peer_address.parse()?])
}

async fn reaches(node: &Node, level: Level) -> Outcome {
    until("the level", || async { Ok((node.core().view().level() == level).then_some(())) }).await
}

#[tokio::test]
async fn the_level_follows_the_member_that_knows_least() -> Outcome {
    let folder = tempfile::tempdir()?;
    let [one, two, three] = ["n1", "n2", "n3"].map(|name| folder.path().join(name));
    let old = Process::start(&one, FIRST, None, &[]).await??;
    ready(&old.node).await?;
    let at = addresses(&old.node)?;
    let new = Process::start(&two, KNOWN, Some(at[0]), &[]).await??;
    until("it votes", || async {
        Ok((new.node.core().status().members.voters().count() == 2).then_some(()))
    })
    .await?;

    // On whichever node it is asked for. The leader names who holds it up, as soon as it has asked.
    for node in [&old.node, &new.node] {
        let refusal = until("who holds it up", || async {
            let error = node
                .core()
                .propose("test", "", Command::CompareStates)
                .await
                .err()
                .ok_or("it was proposed")?;
            let text = error.to_string();
            Ok(text.contains("node 1 runs version").then_some(text))
        })
        .await?;
        assert!(refusal.starts_with("the cluster is at feature level 1, this needs 2: "), "{refusal}");
    }
    assert_eq!(new.node.core().view().level(), FIRST);
    for node in [&old.node, &new.node] {
        let refusal = plan_of_spare_work(node).await?.err().ok_or("it was planned")?;
        assert_eq!(refusal.code(), tonic::Code::FailedPrecondition, "{refusal}");
        let expected = "the cluster is at feature level 1, this needs 4: ";
        assert!(refusal.message().starts_with(expected), "{refusal}");
    }

    // The last one is upgraded.
    old.stop().await?;
    let old = Process::start(&one, KNOWN, None, &at).await??;
    reaches(&old.node, KNOWN).await?;
    reaches(&new.node, KNOWN).await?;
    let refusal = plan_of_spare_work(&new.node).await?.err().ok_or("its borough is not there")?;
    assert_eq!(refusal.code(), tonic::Code::NotFound, "now it is tried: {refusal}");
    new.node.core().propose("test", "", Command::CompareStates).await?.result?;
    let leader =
        if new.node.core().status().leader == Some(new.node.core().node()) { &new.node } else { &old.node };
    let listed = until("all are asked", || async {
        let mut client = SchedulerServiceClient::new(connect(leader, Trust::Plain).await?);
        let listed = client.list(ListNodesRequest {}).await?.into_inner();
        Ok(listed.nodes.iter().all(|node| node.level == KNOWN).then_some(listed))
    })
    .await?;
    assert_eq!(listed.level, KNOWN);
    assert!(listed.nodes.iter().all(|node| !node.version.is_empty()));

    // Nobody who knows less comes in, or comes back.
    let joiner = Process::start(&three, FIRST, Some(at[0]), &[]).await?.err().ok_or("it joined")?;
    let expected = format!(
        "the cluster is at feature level {KNOWN}, the joining node's version knows level 1: install version"
    );
    assert!(joiner.to_string().contains(&expected), "{joiner}");
    let record = one.join("node.json");
    let format = format!("\"format\": {KNOWN}");
    until("it is noted", || async { Ok(std::fs::read_to_string(&record)?.contains(&format).then_some(())) })
        .await?;
    old.stop().await?;
    let downgraded = Process::start(&one, FIRST, None, &at).await?.err().ok_or("it started")?;
    let expected =
        format!("{} has format {KNOWN}, this version of the program knows formats up to 1", record.display());
    assert!(downgraded.to_string().starts_with(&expected), "{downgraded}");
    new.stop().await?;
    Ok(())
}
