//! `status`: the whole estate, a borough, or one workload, on one screen.

use serde_json::{Value, json};
use supercloud_proto::v1::{
    ListHostsRequest, ListNodesRequest, ListNodesResponse, ListWorkloadsRequest,
    host_service_client::HostServiceClient, scheduler_service_client::SchedulerServiceClient,
};
use tonic::Code;

use super::{target, workload::list_all};
use crate::{
    args::{Format, StatusArgs},
    failure::Failure,
    output::{self, Shown, line},
    session::Session,
    show::{host, node, workload},
};

pub(super) async fn run(session: &Session, format: Format, args: &StatusArgs) -> Result<(), Failure> {
    match &args.workload {
        Some(text) => one(session, format, text).await,
        None => all(session, format).await,
    }
}

async fn one(session: &Session, format: Format, text: &str) -> Result<(), Failure> {
    let answer = target::workload(session, text).await?;
    let record = answer.workload.unwrap_or_default();
    let shown = Shown {
        name: workload::full_name(&record),
        value: workload::value(&record, &answer.instances),
        row: Vec::new(),
    };
    output::one(format, &shown, || workload::text(&record, &answer.instances, format == Format::Wide))
}

async fn all(session: &Session, format: Format) -> Result<(), Failure> {
    let hosts = hosts(session).await?;
    let request =
        ListWorkloadsRequest { borough: session.borough(), stale: session.stale, ..Default::default() };
    let workloads = list_all(session, request).await?;
    let workloads: Vec<Shown> = workloads.iter().map(workload::shown).collect();
    // Asked last: by then an answer has come through whoever leads now, and an election is over.
    let nodes = session
        .call(ListNodesRequest {}, async |channel, request| {
            SchedulerServiceClient::new(channel).list(request).await
        })
        .await?;
    match format {
        Format::Json | Format::Yaml => output::document(
            format,
            &json!({
                "scheduler": node::cluster(&nodes),
                "hosts": hosts.iter().map(|one| one.value.clone()).collect::<Vec<Value>>(),
                "workloads": workloads.iter().map(|one| one.value.clone()).collect::<Vec<Value>>(),
            }),
        ),
        Format::Name => workloads.iter().try_for_each(|one| line(&one.name)),
        Format::Table | Format::Wide => {
            let wide = format == Format::Wide;
            line(&cluster_line(&nodes))?;
            line("")?;
            line(&output::table(&host::HEADINGS, &hosts, wide))?;
            line("")?;
            line(&output::table(&workload::HEADINGS, &workloads, wide))
        }
    }
}

/// The hosts; a borough's people may not see them, and then there are none to show.
async fn hosts(session: &Session) -> Result<Vec<Shown>, Failure> {
    let request = ListHostsRequest { page_size: 10_000, stale: session.stale, ..Default::default() };
    let visible = async |channel, request| match HostServiceClient::new(channel).list(request).await {
        Err(status) if status.code() == Code::PermissionDenied => {
            Ok(tonic::Response::new(Default::default()))
        }
        answer => answer,
    };
    Ok(session.call(request, visible).await?.hosts.iter().map(host::shown).collect())
}

fn cluster_line(answer: &ListNodesResponse) -> String {
    let leader = match answer.leader {
        0 => "no leader known".to_owned(),
        id => format!("node {id} leads"),
    };
    let voters = answer.nodes.iter().filter(|node| node.voter).count();
    let noun = if voters == 1 { "node" } else { "nodes" };
    format!("cluster {}: {voters} {noun}, {leader}, log index {}", answer.cluster_id, answer.applied_index)
}
