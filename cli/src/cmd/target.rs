//! What a person means by a target: an instance by its id, or a workload's newest running instance.

use supercloud_proto::{
    id::InstanceId,
    v1::{GetWorkloadRequest, GetWorkloadResponse, workload_service_client::WorkloadServiceClient},
};

use crate::{failure::Failure, session::Session, show::instance};

/// Whether the text is an instance id.
pub(super) fn instance_id(text: &str) -> Option<String> {
    text.parse::<InstanceId>().ok().map(|id| id.to_string())
}

/// A workload with its instances.
pub(super) async fn workload(session: &Session, text: &str) -> Result<GetWorkloadResponse, Failure> {
    let (borough, workload) = session.workload(text)?;
    let request = GetWorkloadRequest { borough, workload, stale: session.stale };
    session
        .call(request, async |channel, request| WorkloadServiceClient::new(channel).get(request).await)
        .await
}

/// The instance that is meant: by its id, or the workload's newest one, a running one before others.
pub(super) async fn instance(session: &Session, text: &str) -> Result<String, Failure> {
    if let Some(id) = instance_id(text) {
        return Ok(id);
    }
    let answer = workload(session, text).await?;
    let placed = answer.instances.iter().filter(|one| !one.host.is_empty());
    let best =
        placed.max_by_key(|one| (instance::is_running(one), instance::is_wanted(one), one.order_index));
    best.map(|one| one.id.clone()).ok_or_else(|| Failure::Refused {
        message: format!("{text} has no instance on any host; `supercloud explain {text}` says why"),
        problems: Vec::new(),
    })
}
