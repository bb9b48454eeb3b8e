//! `host list|show|close|open|remove`.

use supercloud_proto::v1::{
    GetHostRequest, ListHostsRequest, RemoveHostRequest, SetSchedulableRequest,
    host_service_client::HostServiceClient,
};

use crate::{
    args::{Format, HostCommand},
    failure::Failure,
    output::{self, Shown},
    session::{Session, pages, request_id},
    show::host,
};

pub(super) async fn run(session: &Session, format: Format, command: &HostCommand) -> Result<(), Failure> {
    match command {
        HostCommand::List { site } => list(session, format, site).await,
        HostCommand::Show { name } => show(session, format, name).await,
        HostCommand::Close { name } => set_schedulable(session, format, name, false).await,
        HostCommand::Open { name } => set_schedulable(session, format, name, true).await,
        HostCommand::Remove { name } => remove(session, name).await,
    }
}

async fn list(session: &Session, format: Format, site: &str) -> Result<(), Failure> {
    let request =
        ListHostsRequest { site: site.to_owned(), stale: session.stale, ..ListHostsRequest::default() };
    let hosts = pages(async |page_token| {
        let request = ListHostsRequest { page_token, ..request.clone() };
        let page = session
            .call(request, async |channel, request| HostServiceClient::new(channel).list(request).await)
            .await?;
        Ok((page.hosts, page.next_page_token))
    })
    .await?;
    let shown: Vec<Shown> = hosts.iter().map(host::shown).collect();
    output::list(format, &host::HEADINGS, &shown)
}

async fn show(session: &Session, format: Format, name: &str) -> Result<(), Failure> {
    let request = GetHostRequest { name: name.to_owned(), stale: session.stale };
    let answer = session
        .call(request, async |channel, request| HostServiceClient::new(channel).get(request).await)
        .await?;
    let record = answer.host.unwrap_or_default();
    output::one(format, &host::shown(&record), || {
        host::text(&record, &answer.instances, format == Format::Wide)
    })
}

async fn set_schedulable(
    session: &Session,
    format: Format,
    name: &str,
    schedulable: bool,
) -> Result<(), Failure> {
    let request = SetSchedulableRequest { request_id: request_id()?, name: name.to_owned(), schedulable };
    let record = session
        .call(request, async |channel, request| {
            HostServiceClient::new(channel).set_schedulable(request).await
        })
        .await?
        .host
        .unwrap_or_default();
    let word = if schedulable { "open" } else { "closed" };
    output::one(format, &host::shown(&record), || format!("host {name} is {word} to new work"))
}

async fn remove(session: &Session, name: &str) -> Result<(), Failure> {
    let request = RemoveHostRequest { request_id: request_id()?, name: name.to_owned() };
    let answer = session
        .call(request, async |channel, request| HostServiceClient::new(channel).remove(request).await)
        .await?;
    output::line(&format!("host {name} removed; {} instances counted as gone", answer.instances))
}
