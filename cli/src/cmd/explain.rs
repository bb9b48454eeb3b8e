//! `explain`: why an instance is where it is, or why it waits.

use serde_json::Value;
use supercloud_proto::v1::{ExplainRequest, ExplainResponse, instance_service_client::InstanceServiceClient};

use super::target;
use crate::{
    args::{Format, TargetArgs},
    failure::Failure,
    output,
    session::Session,
    show::explanation,
};

pub(super) async fn run(session: &Session, format: Format, args: &TargetArgs) -> Result<(), Failure> {
    let mut request = ExplainRequest { stale: session.stale, ..ExplainRequest::default() };
    match target::instance_id(&args.target) {
        Some(id) => request.id = id,
        None => (request.borough, request.workload) = session.workload(&args.target)?,
    }
    let ExplainResponse { explanations, others, .. } = session
        .call(request, async |channel, request| InstanceServiceClient::new(channel).explain(request).await)
        .await?;
    match format {
        Format::Json | Format::Yaml => {
            output::document(format, &Value::Array(explanations.iter().map(explanation::value).collect()))
        }
        Format::Name => explanations.iter().try_for_each(|one| output::line(&explanation::shown(one).name)),
        Format::Table | Format::Wide if explanations.is_empty() => {
            output::line(&format!("{} has no instances", args.target))
        }
        Format::Table | Format::Wide => {
            explanations.iter().try_for_each(|one| output::line(explanation::text(one).trim_end()))?;
            if others == 0 {
                return Ok(());
            }
            output::line(&format!("not told here: {others} more of {} (ask by id)", args.target))
        }
    }
}
