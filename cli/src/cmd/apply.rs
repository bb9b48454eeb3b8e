//! `apply`: hands specs in, one after the other, and with `--wait` watches until all of them run.

use serde_json::{Value, json};
use supercloud_proto::{
    spec::WorkloadSpec,
    v1::{ApplyWorkloadRequest, ApplyWorkloadResponse, workload_service_client::WorkloadServiceClient},
};

use super::progress;
use crate::{
    args::{ApplyArgs, Format},
    failure::Failure,
    output,
    session::{Session, request_id},
    show::{plan::change_word, workload},
};

pub(super) async fn run(
    session: &Session,
    format: Format,
    args: &ApplyArgs,
    specs: &[WorkloadSpec],
) -> Result<(), Failure> {
    let mut answers = Vec::with_capacity(specs.len());
    for spec in specs {
        let request = ApplyWorkloadRequest {
            request_id: request_id()?,
            spec: Some(spec.into()),
            expect_revision: args.expect_revision,
        };
        let answer = session
            .call(request, async |channel, request| WorkloadServiceClient::new(channel).apply(request).await)
            .await?;
        if !matches!(format, Format::Json | Format::Yaml) {
            output::line(&line(format, &answer))?;
        }
        answers.push(answer);
    }
    if matches!(format, Format::Json | Format::Yaml) {
        output::document(format, &Value::Array(answers.iter().map(value).collect()))?;
    }
    if args.wait.wait {
        let waited: Vec<progress::Waited> = specs
            .iter()
            .zip(&answers)
            .map(|(spec, answer)| progress::Waited {
                borough: spec.borough.to_string(),
                workload: spec.workload.to_string(),
                after_index: answer.index,
            })
            .collect();
        progress::until_running(session, &waited, args.wait.timeout).await?;
    }
    Ok(())
}

fn name(answer: &ApplyWorkloadResponse) -> String {
    answer.workload.as_ref().map(workload::full_name).unwrap_or_default()
}

fn line(format: Format, answer: &ApplyWorkloadResponse) -> String {
    if format == Format::Name {
        return name(answer);
    }
    let revision = answer.workload.as_ref().map_or(0, |workload| workload.revision);
    format!("{} {} (revision {revision})", name(answer), change_word(answer.change))
}

fn value(answer: &ApplyWorkloadResponse) -> Value {
    json!({
        "workload": answer.workload.as_ref().map(|one| workload::value(one, &[])),
        "change": change_word(answer.change),
        "index": answer.index,
    })
}
