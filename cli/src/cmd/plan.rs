//! `plan`: what an apply would do. The exit code says it too: 0 nothing, 10 changes, 11 changes that cannot all be placed.

use serde_json::Value;
use supercloud_proto::{
    spec::WorkloadSpec,
    v1::{
        ApplyChange, PlanRequest, PlanResponse, WorkloadPlan, workload_service_client::WorkloadServiceClient,
    },
};

use crate::{
    args::Format,
    failure::Failure,
    output,
    session::Session,
    show::{borough, plan},
};

/// Exit code where something would change.
const CHANGES: u8 = 10;
/// Exit code where something would change and not all of it finds a host.
const UNPLACED: u8 = 11;

pub(super) async fn run(session: &Session, format: Format, specs: &[WorkloadSpec]) -> Result<(), Failure> {
    let request = PlanRequest { specs: specs.iter().map(Into::into).collect(), stale: session.stale };
    let answer = session
        .call(request, async |channel, request| WorkloadServiceClient::new(channel).plan(request).await)
        .await?;
    let PlanResponse { plans, boroughs, .. } = &answer;
    match format {
        Format::Json | Format::Yaml => {
            let values = plans.iter().map(|one| plan::value(one, boroughs)).collect();
            output::document(format, &Value::Array(values))?;
        }
        Format::Name => plans.iter().try_for_each(|one| output::line(&plan::name(one)))?,
        Format::Table | Format::Wide => {
            plans.iter().try_for_each(|one| output::line(plan::text(one).trim_end()))?;
            boroughs.iter().try_for_each(|one| output::line(&borough::plan_text(one)))?;
        }
    }
    match code(plans) {
        0 => Ok(()),
        code => Err(Failure::Code(code)),
    }
}

fn code(plans: &[WorkloadPlan]) -> u8 {
    let changes =
        plans.iter().any(|plan| plan.change() != ApplyChange::Unchanged || !plan.placements.is_empty());
    match () {
        () if plans.iter().any(|plan| plan.unplaced > 0) => UNPLACED,
        () if changes => CHANGES,
        () => 0,
    }
}
