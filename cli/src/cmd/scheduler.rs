//! `scheduler list`: answered by any node, with or without a leader.

use supercloud_proto::v1::{ListNodesRequest, scheduler_service_client::SchedulerServiceClient};

use crate::{
    args::Format,
    failure::Failure,
    output::{self, Shown},
    session::Session,
    show::node,
};

pub(super) async fn list(session: &Session, format: Format) -> Result<(), Failure> {
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
