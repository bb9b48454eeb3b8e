//! `borough create|set|list|show`.

use supercloud_proto::v1::{
    BoroughChange, CreateBoroughRequest, GetBoroughRequest, Limit, ListBoroughsRequest, SetBoroughRequest,
    borough_service_client::BoroughServiceClient,
};

use crate::{
    args::{BoroughChangeArgs, BoroughCommand, Format, Most, SetBoroughArgs},
    failure::Failure,
    output::{self, Shown},
    session::{Session, request_id},
    show::borough,
};

pub(super) async fn run(session: &Session, format: Format, command: &BoroughCommand) -> Result<(), Failure> {
    match command {
        BoroughCommand::Create { name, title } => create(session, format, name, title).await,
        BoroughCommand::Set(args) => set(session, format, args).await,
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

async fn set(session: &Session, format: Format, args: &SetBoroughArgs) -> Result<(), Failure> {
    let request = SetBoroughRequest {
        request_id: request_id()?,
        name: args.name.clone(),
        change: Some(change(&args.change)),
    };
    let answer = session
        .call(request, async |channel, request| BoroughServiceClient::new(channel).set(request).await)
        .await?;
    let word = if answer.changed { "changed" } else { "unchanged" };
    let record = answer.borough.unwrap_or_default();
    if record.above_max_priority > 0 {
        output::say(&borough::above(&record));
    }
    output::one(format, &borough::shown(&record), || format!("borough {} {word}", record.name))
}

fn change(args: &BoroughChangeArgs) -> BoroughChange {
    BoroughChange {
        title: args.title.clone(),
        quota_cpu_millis: args.quota_cpu.map(|most| limit(most, |cpu| cpu.0)),
        quota_memory_bytes: args.quota_memory.map(|most| limit(most, |size| size.0)),
        quota_disk_bytes: args.quota_disk.map(|most| limit(most, |size| size.0)),
        guarantee_cpu_millis: args.guarantee_cpu.map(|cpu| cpu.0),
        guarantee_memory_bytes: args.guarantee_memory.map(|size| size.0),
        guarantee_disk_bytes: args.guarantee_disk.map(|size| size.0),
        weight: args.weight,
        max_priority: args.max_priority,
        private_hosts: args.private_hosts,
    }
}

fn limit<T>(Most(most): Most<T>, amount: fn(T) -> u64) -> Limit {
    Limit { at_most: most.map(amount) }
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
