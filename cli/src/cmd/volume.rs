//! `volume list|forget`.

use supercloud_proto::v1::{
    ForgetVolumesRequest, ListVolumesRequest, volume_service_client::VolumeServiceClient,
};

use crate::{
    args::{Format, VolumeCommand},
    failure::Failure,
    output::{self, Shown},
    session::{Session, pages, request_id},
    show::volume,
};

pub(super) async fn run(session: &Session, format: Format, command: &VolumeCommand) -> Result<(), Failure> {
    match command {
        VolumeCommand::List => list(session, format).await,
        VolumeCommand::Forget { workload, host } => forget(session, workload, host).await,
    }
}

async fn list(session: &Session, format: Format) -> Result<(), Failure> {
    let request =
        ListVolumesRequest { borough: session.borough(), stale: session.stale, ..Default::default() };
    let volumes = pages(async |page_token| {
        let request = ListVolumesRequest { page_token, ..request.clone() };
        let page = session
            .call(request, async |channel, request| VolumeServiceClient::new(channel).list(request).await)
            .await?;
        Ok((page.volumes, page.next_page_token))
    })
    .await?;
    let shown: Vec<Shown> = volumes.iter().map(volume::shown).collect();
    output::list(format, &volume::HEADINGS, &shown)
}

async fn forget(session: &Session, text: &str, host: &str) -> Result<(), Failure> {
    let (borough, workload) = session.workload(text)?;
    let name = format!("{borough}/{workload}");
    let request =
        ForgetVolumesRequest { request_id: request_id()?, borough, workload, host: host.to_owned() };
    session
        .call(request, async |channel, request| VolumeServiceClient::new(channel).forget(request).await)
        .await?;
    output::line(&format!(
        "volumes of {name} on {host} forgotten: its next instance may start elsewhere, with empty ones; what is in them stays on the disk of {host} until it is removed there"
    ))
}
