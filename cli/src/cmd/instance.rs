//! `instance list|show`.

use supercloud_proto::v1::{
    GetInstanceRequest, Instance, ListInstancesRequest, instance_service_client::InstanceServiceClient,
};

use crate::{
    args::{Format, InstanceCommand},
    failure::Failure,
    output::{self, Shown},
    session::{Session, pages},
    show::instance,
};

pub(super) async fn run(session: &Session, format: Format, command: &InstanceCommand) -> Result<(), Failure> {
    match command {
        InstanceCommand::List { workload, host } => list(session, format, workload.as_deref(), host).await,
        InstanceCommand::Show { id } => show(session, format, id).await,
    }
}

async fn list(session: &Session, format: Format, workload: Option<&str>, host: &str) -> Result<(), Failure> {
    let (borough, workload) = match workload {
        Some(text) => session.workload(text)?,
        None => (session.borough(), String::new()),
    };
    let request = ListInstancesRequest {
        borough,
        workload,
        host: host.to_owned(),
        stale: session.stale,
        ..ListInstancesRequest::default()
    };
    let shown: Vec<Shown> = list_all(session, request).await?.iter().map(instance::shown).collect();
    output::list(format, &instance::HEADINGS, &shown)
}

async fn list_all(session: &Session, request: ListInstancesRequest) -> Result<Vec<Instance>, Failure> {
    pages(async |page_token| {
        let request = ListInstancesRequest { page_token, ..request.clone() };
        let page = session
            .call(request, async |channel, request| InstanceServiceClient::new(channel).list(request).await)
            .await?;
        Ok((page.instances, page.next_page_token))
    })
    .await
}

async fn show(session: &Session, format: Format, id: &str) -> Result<(), Failure> {
    let request = GetInstanceRequest { id: id.to_owned(), stale: session.stale };
    let answer = session
        .call(request, async |channel, request| InstanceServiceClient::new(channel).get(request).await)
        .await?;
    let record = answer.instance.unwrap_or_default();
    output::one(format, &instance::shown(&record), || instance::text(&record, answer.archived))
}
