//! `scheduler list`, answered by any node with or without a leader; `scheduler remove` and `scheduler transfer-leader`, which any node passes on
//! to the leader.

use supercloud_proto::v1::{
    ListNodesRequest, RemoveNodeRequest, TransferLeadershipRequest,
    scheduler_service_client::SchedulerServiceClient,
};

use super::snapshot;
use crate::{
    args::{Format, Global, SchedulerCommand},
    failure::Failure,
    output::{self, Shown},
    session::{Session, request_id},
    show::node,
};

pub(super) async fn run(global: &Global, format: Format, command: &SchedulerCommand) -> Result<(), Failure> {
    let open = || Session::new(global);
    match command {
        SchedulerCommand::List => list(&open()?, format).await,
        SchedulerCommand::Remove { node } => remove(&open()?, *node).await,
        SchedulerCommand::TransferLeader { node } => transfer(&open()?, *node).await,
        SchedulerCommand::Snapshot(command) => snapshot::run(global, format, command).await,
    }
}

async fn list(session: &Session, format: Format) -> Result<(), Failure> {
    let answer = session
        .call(ListNodesRequest {}, async |channel, request| {
            SchedulerServiceClient::new(channel).list(request).await
        })
        .await?;
    if matches!(format, Format::Json | Format::Yaml) {
        return output::document(format, &node::cluster(&answer));
    }
    let shown: Vec<Shown> = answer.nodes.iter().map(node::shown).collect();
    output::list(format, &node::HEADINGS, &shown)
}

async fn remove(session: &Session, node: u64) -> Result<(), Failure> {
    let request = RemoveNodeRequest { request_id: request_id()?, node_id: node };
    session
        .call(request, async |channel, request| SchedulerServiceClient::new(channel).remove(request).await)
        .await?;
    output::line(&format!("node {node} removed; where it still runs, stop it: it cannot come back"))
}

async fn transfer(session: &Session, node: Option<u64>) -> Result<(), Failure> {
    let request = TransferLeadershipRequest { request_id: request_id()?, node_id: node.unwrap_or_default() };
    let answer = session
        .call(request, async |channel, request| {
            SchedulerServiceClient::new(channel).transfer_leadership(request).await
        })
        .await?;
    output::line(&format!("node {} leads", answer.leader))
}
