//! `site list|show|set`.

use supercloud_proto::v1::{
    ListSitesRequest, Packing, SetSiteRequest, Site, SiteChange, host_service_client::HostServiceClient,
};

use crate::{
    args::{Format, PackingWord, SetSiteArgs, SiteCommand},
    failure::Failure,
    output::{self, Shown},
    session::{Session, request_id},
    show::site,
};

pub(super) async fn run(session: &Session, format: Format, command: &SiteCommand) -> Result<(), Failure> {
    match command {
        SiteCommand::List => list(session, format).await,
        SiteCommand::Show { name } => show(session, format, name).await,
        SiteCommand::Set(args) => set(session, format, args).await,
    }
}

async fn all(session: &Session) -> Result<Vec<Site>, Failure> {
    let request = ListSitesRequest { stale: session.stale };
    let call = async |channel, request| HostServiceClient::new(channel).list_sites(request).await;
    Ok(session.call(request, call).await?.sites)
}

async fn list(session: &Session, format: Format) -> Result<(), Failure> {
    let shown: Vec<Shown> = all(session).await?.iter().map(site::shown).collect();
    output::list(format, &site::HEADINGS, &shown)
}

async fn show(session: &Session, format: Format, name: &str) -> Result<(), Failure> {
    let found = all(session).await?.into_iter().find(|site| site.name == name);
    let message = format!("site {name} has neither hosts nor a policy");
    let record = found.ok_or_else(|| Failure::Refused { message, problems: Vec::new() })?;
    output::one(format, &site::shown(&record), || site::text(&record))
}

async fn set(session: &Session, format: Format, args: &SetSiteArgs) -> Result<(), Failure> {
    let change = SiteChange {
        standard_cpu_percent: args.change.standard_cpu_percent,
        spare_cpu_percent: args.change.spare_cpu_percent,
        packing: args.change.packing.map(|word| packing(word).into()),
        cost: args.change.cost,
    };
    let request = SetSiteRequest { request_id: request_id()?, name: args.name.clone(), change: Some(change) };
    let answer = session
        .call(request, async |channel, request| HostServiceClient::new(channel).set_site(request).await)
        .await?;
    let word = if answer.changed { "changed" } else { "unchanged" };
    let record = answer.site.unwrap_or_default();
    output::one(format, &site::shown(&record), || format!("site {} {word}", record.name))
}

fn packing(word: PackingWord) -> Packing {
    match word {
        PackingWord::Pack => Packing::Pack,
        PackingWord::Spread => Packing::Spread,
    }
}
