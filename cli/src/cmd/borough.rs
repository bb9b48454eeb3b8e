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
    let call = |channel| {
        let request = request.clone();
        async move { BoroughServiceClient::new(channel).create(request).await }
    };
    let record = session.call(call).await?.borough.unwrap_or_default();
    output::one(format, &borough::shown(&record), || format!("borough {} created", record.name))
}

async fn list(session: &Session, format: Format) -> Result<(), Failure> {
    let stale = session.stale;
    let call =
        |channel| async move { BoroughServiceClient::new(channel).list(ListBoroughsRequest { stale }).await };
    let shown: Vec<Shown> = session.call(call).await?.boroughs.iter().map(borough::shown).collect();
    output::list(format, &borough::HEADINGS, &shown)
}

async fn show(session: &Session, format: Format, name: &str) -> Result<(), Failure> {
    let request = GetBoroughRequest { name: name.to_owned(), stale: session.stale };
    let call = |channel| {
        let request = request.clone();
        async move { BoroughServiceClient::new(channel).get(request).await }
    };
    let record = session.call(call).await?.borough.unwrap_or_default();
    output::one(format, &borough::shown(&record), || borough::text(&record))
}
