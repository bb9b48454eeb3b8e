//! `borough create|list|show`.

use supercloud_proto::v1::{
    CreateBoroughRequest, GetBoroughRequest, ListBoroughsRequest,
    borough_service_client::BoroughServiceClient,
};

use crate::{
    args::{BoroughCommand, Format},
    failure::Failure,
    output::{self, Shown},
    session::{Session, request_id},
    show::borough,
};

pub(super) async fn run(session: &Session, format: Format, command: &BoroughCommand) -> Result<(), Failure> {
    match command {
        BoroughCommand::Create { name, title } => create(session, format, name, title).await,
        BoroughCommand::List => list(session, format).await,
        BoroughCommand::Show { name } => show(session, format, name).await,
    }
}

async fn create(session: &Session, format: Format, name: &str, title: &str) -> Result<(), Failure> {
    let request =
        CreateBoroughRequest { request_id: request_id()?, name: name.to_owned(), title: title.to_owned() };
    let record = session
        .call(request, async |channel, request| BoroughServiceClient::new(channel).create(request).await)
        .await?
        .borough
        .unwrap_or_default();
    output::one(format, &borough::shown(&record), || format!("borough {} created", record.name))
}

async fn list(session: &Session, format: Format) -> Result<(), Failure> {
    let request = ListBoroughsRequest { stale: session.stale };
    let shown: Vec<Shown> = session
        .call(request, async |channel, request| BoroughServiceClient::new(channel).list(request).await)
        .await?
        .boroughs
        .iter()
        .map(borough::shown)
        .collect();
    output::list(format, &borough::HEADINGS, &shown)
}

async fn show(session: &Session, format: Format, name: &str) -> Result<(), Failure> {
    let request = GetBoroughRequest { name: name.to_owned(), stale: session.stale };
    let record = session
        .call(request, async |channel, request| BoroughServiceClient::new(channel).get(request).await)
        .await?
        .borough
        .unwrap_or_default();
    output::one(format, &borough::shown(&record), || borough::text(&record))
}
