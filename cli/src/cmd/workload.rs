//! `workload list|show|scale|stop|history` and `stop`.

use supercloud_proto::v1::{
    ListWorkloadsRequest, ScaleWorkloadRequest, StopWorkloadRequest, Workload, WorkloadHistoryRequest,
    workload_service_client::WorkloadServiceClient,
};

use super::{progress, target};
use crate::{
    args::{Format, StopArgs, WaitArgs, WorkloadCommand},
    failure::Failure,
    output::{self, Shown, say},
    session::{Session, pages, request_id},
    show::workload,
};

pub(super) async fn run(session: &Session, format: Format, command: &WorkloadCommand) -> Result<(), Failure> {
    match command {
        WorkloadCommand::List => list(session, format).await,
        WorkloadCommand::Show { workload } => show(session, format, workload).await,
        WorkloadCommand::Scale { workload, count, wait } => {
            scale(session, format, workload, *count, wait).await
        }
        WorkloadCommand::Stop(args) => stop(session, format, args).await,
        WorkloadCommand::History { workload } => history(session, format, workload).await,
    }
}

/// All workloads, page by page.
pub(super) async fn list_all(
    session: &Session,
    request: ListWorkloadsRequest,
) -> Result<Vec<Workload>, Failure> {
    pages(async |page_token| {
        let request = ListWorkloadsRequest { page_token, ..request.clone() };
        let page = session
            .call(request, async |channel, request| WorkloadServiceClient::new(channel).list(request).await)
            .await?;
        Ok((page.workloads, page.next_page_token))
    })
    .await
}

async fn list(session: &Session, format: Format) -> Result<(), Failure> {
    let request =
        ListWorkloadsRequest { borough: session.borough(), stale: session.stale, ..Default::default() };
    let shown: Vec<Shown> = list_all(session, request).await?.iter().map(workload::shown).collect();
    output::list(format, &workload::HEADINGS, &shown)
}

async fn show(session: &Session, format: Format, text: &str) -> Result<(), Failure> {
    let answer = target::workload(session, text).await?;
    let record = answer.workload.unwrap_or_default();
    let shown = Shown {
        name: workload::full_name(&record),
        value: workload::value(&record, &answer.instances),
        row: Vec::new(),
    };
    output::one(format, &shown, || {
        let spec =
            shown.value.get("spec").and_then(|spec| serde_saphyr::to_string(spec).ok()).unwrap_or_default();
        format!(
            "{}\nspec:\n{}",
            workload::text(&record, &answer.instances, format == Format::Wide),
            indent(&spec)
        )
    })
}

fn indent(text: &str) -> String {
    text.lines().map(|line| format!("  {line}\n")).collect()
}

async fn scale(
    session: &Session,
    format: Format,
    text: &str,
    count: u32,
    wait: &WaitArgs,
) -> Result<(), Failure> {
    let (borough, name) = session.workload(text)?;
    let request = ScaleWorkloadRequest {
        request_id: request_id()?,
        borough: borough.clone(),
        workload: name.clone(),
        count,
    };
    let answer = session
        .call(request, async |channel, request| WorkloadServiceClient::new(channel).scale(request).await)
        .await?;
    let record = answer.workload.unwrap_or_default();
    output::one(format, &workload::shown(&record), || {
        format!("{} scaled from {} to {count}", workload::full_name(&record), answer.before)
    })?;
    if wait.wait {
        let waited = progress::Waited { borough, workload: name, after_index: answer.index };
        progress::until_running(session, &[waited], wait.timeout).await?;
    }
    Ok(())
}

pub(super) async fn stop(session: &Session, format: Format, args: &StopArgs) -> Result<(), Failure> {
    let (borough, name) = session.workload(&args.workload)?;
    let request = StopWorkloadRequest {
        request_id: request_id()?,
        borough: borough.clone(),
        workload: name.clone(),
        purge: args.purge,
    };
    let answer = session
        .call(request, async |channel, request| WorkloadServiceClient::new(channel).stop(request).await)
        .await?;
    let shown = answer.workload.as_ref().map(workload::shown).unwrap_or_else(|| Shown {
        name: format!("{borough}/{name}"),
        value: serde_json::json!({ "forgotten": true }),
        row: Vec::new(),
    });
    let forgotten = if args.purge { ", to be forgotten" } else { "" };
    output::one(format, &shown, || match answer.stopping {
        0 => format!("{} is stopped{forgotten}", shown.name),
        1 => format!("{} stopping{forgotten}: 1 instance told to stop", shown.name),
        many => format!("{} stopping{forgotten}: {many} instances told to stop", shown.name),
    })?;
    if args.wait.wait {
        let waited = progress::Waited { borough, workload: name, after_index: answer.index };
        match progress::until_gone(session, &waited, args.wait.timeout).await {
            // It was to be forgotten, and has been.
            Err(Failure::Refused { .. }) if args.purge => say("stopped and forgotten"),
            other => other?,
        }
    }
    Ok(())
}

async fn history(session: &Session, format: Format, text: &str) -> Result<(), Failure> {
    let (borough, name) = session.workload(text)?;
    let request = WorkloadHistoryRequest { borough, workload: name, stale: session.stale };
    let shown: Vec<Shown> = session
        .call(request, async |channel, request| WorkloadServiceClient::new(channel).history(request).await)
        .await?
        .revisions
        .iter()
        .map(workload::revision)
        .collect();
    output::list(format, &workload::REVISIONS, &shown)
}
