//! `event list|watch`. A watch that breaks goes on where it was, on another node if need be.

use std::time::Duration;

use supercloud_proto::v1::{ListEventsRequest, WatchEventsRequest, event_service_client::EventServiceClient};
use tokio::time::sleep;

use crate::{
    args::{EventCommand, Format},
    failure::Failure,
    output::{self, Shown, say, streamed},
    session::Session,
    show::event,
};

/// Wait before a broken watch is opened again.
const REOPEN: Duration = Duration::from_millis(500);

pub(super) async fn run(session: &Session, format: Format, command: &EventCommand) -> Result<(), Failure> {
    match command {
        EventCommand::List { workload, instance, host, limit } => {
            let (borough, workload) = subject(session, workload.as_deref())?;
            let request = ListEventsRequest {
                borough,
                workload,
                instance: instance.clone(),
                host: host.clone(),
                after_index: 0,
                limit: *limit,
            };
            list(session, format, request).await
        }
        EventCommand::Watch { workload, after } => {
            let (borough, workload) = subject(session, workload.as_deref())?;
            watch(session, format, WatchEventsRequest { borough, workload, after_index: *after }).await
        }
    }
}

fn subject(session: &Session, workload: Option<&str>) -> Result<(String, String), Failure> {
    workload.map_or_else(|| Ok((session.borough(), String::new())), |text| session.workload(text))
}

async fn list(session: &Session, format: Format, request: ListEventsRequest) -> Result<(), Failure> {
    let shown: Vec<Shown> = session
        .call(request, async |channel, request| EventServiceClient::new(channel).list(request).await)
        .await?
        .events
        .iter()
        .map(event::shown)
        .collect();
    output::list(format, &event::HEADINGS, &shown)
}

async fn watch(session: &Session, format: Format, mut request: WatchEventsRequest) -> Result<(), Failure> {
    loop {
        let mut stream = session
            .call(request.clone(), async |channel, request| {
                EventServiceClient::new(channel).watch(request).await
            })
            .await?;
        let broken = loop {
            match stream.message().await {
                Ok(Some(answer)) => {
                    for one in &answer.events {
                        streamed(format, &event::shown(one), || event::text(one))?;
                    }
                    request.after_index = Some(answer.index);
                }
                Ok(None) => break Failure::Unreachable("the node ended the watch".to_owned()),
                Err(status) => break status.into(),
            }
        };
        match broken {
            Failure::Unreachable(why) => say(&format!("{why}; going on")),
            failure => return Err(failure),
        }
        sleep(REOPEN).await;
    }
}
