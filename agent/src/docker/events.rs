//! Hints from Docker's events. A hint says "look again", never what is there: events may come twice, and while the stream is down they
//! are lost. So each new stream begins with "anything may have changed", and asks for the events since just before that was said.
//!
//! Docker tells of a container's end before its own lists show it: in between it takes down the network, which lasts a third of a
//! second where a port is published. Whoever looks at once sees the container running and looks no more. An inspection waits for the
//! lock that Docker holds meanwhile, so an end is passed on after one.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bollard::{errors::Error, models::EventMessage, query_parameters::EventsOptions};
use futures::{StreamExt, stream, stream::BoxStream};
use tokio::time::sleep;
use tracing::{debug, warn};

use super::{
    client::Client,
    failure::within,
    mark::{INSTANCE, filters},
};
use crate::driver::{ASK_DEADLINE, DriverError, Hint};

/// First wait before the next attempt to hear Docker; doubles.
const FIRST_WAIT: Duration = Duration::from_millis(250);
/// Longest such wait. The agent also looks by a timer of its own.
const LONGEST_WAIT: Duration = Duration::from_secs(15);
/// The events after which a container's phase may be another. Docker has many more, among them one for each health check.
const EVENTS: [&str; 7] = ["create", "start", "die", "oom", "pause", "unpause", "destroy"];

/// The hints of an owner's containers; never ends.
pub(super) fn hints(client: Arc<Client>) -> BoxStream<'static, Hint> {
    let listener = Listener { client, events: None, wait: Duration::ZERO };
    stream::unfold(listener, async |mut listener| Some((listener.next().await, listener))).boxed()
}

struct Listener {
    client: Arc<Client>,
    events: Option<BoxStream<'static, Result<EventMessage, Error>>>,
    /// Before the next attempt.
    wait: Duration,
}

impl Listener {
    async fn next(&mut self) -> Hint {
        loop {
            let Some(events) = &mut self.events else {
                sleep(self.wait).await;
                self.wait = (self.wait * 2).clamp(FIRST_WAIT, LONGEST_WAIT);
                match listen(&self.client).await {
                    Ok(events) => {
                        self.events = Some(events);
                        return Hint::Anything;
                    }
                    Err(error) => debug!(%error, "no events"),
                }
                continue;
            };
            match events.next().await {
                Some(Ok(event)) => {
                    self.wait = FIRST_WAIT;
                    let_it_end(&self.client, &event).await;
                    return hint(&event);
                }
                Some(Err(error)) => warn!(%error, "Docker's events broke off"),
                None => warn!("Docker's events ended"),
            }
            self.events = None;
        }
    }
}

/// After the event of an end: returns when lists show it. It waits in vain only where Docker hangs, and not for long.
async fn let_it_end(client: &Client, event: &EventMessage) {
    let id = event.actor.as_ref().and_then(|actor| actor.id.as_ref());
    if let (Some("die"), Some(id)) = (event.action.as_deref(), id)
        && let Err(error) = client.inspect(id).await
    {
        debug!(%error, "an end may be told before it is seen");
    }
}

async fn listen(client: &Client) -> Result<BoxStream<'static, Result<EventMessage, Error>>, DriverError> {
    let docker = client.docker().await?;
    within("ping", ASK_DEADLINE, docker.ping()).await.map_err(|failure| failure.of_question("ping"))?;
    let words = |all: &[&str]| all.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let options = EventsOptions {
        since: Some(now_seconds().to_string()),
        until: None,
        filters: Some(HashMap::from([
            ("type".to_owned(), words(&["container"])),
            ("event".to_owned(), words(&EVENTS)),
            ("label".to_owned(), filters(&client.owner)),
        ])),
    };
    Ok(docker.events(Some(options)).boxed())
}

/// Seconds of the clock that Docker's events bear too.
fn now_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn hint(event: &EventMessage) -> Hint {
    let attributes = event.actor.as_ref().and_then(|actor| actor.attributes.as_ref());
    let instance = attributes.and_then(|all| all.get(INSTANCE)).and_then(|text| text.parse().ok());
    instance.map_or(Hint::Anything, Hint::Instance)
}

#[cfg(test)]
mod tests {
    use bollard::models::EventActor;
    use supercloud_proto::id::InstanceId;

    use super::*;

    #[test]
    fn an_event_names_its_instance_or_nothing() {
        let event = |attributes: &[(&str, &str)]| EventMessage {
            actor: Some(EventActor {
                id: None,
                attributes: Some(
                    attributes.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
                ),
            }),
            ..EventMessage::default()
        };
        assert_eq!(
            hint(&event(&[(INSTANCE, "i-2f-0")])),
            Hint::Instance(InstanceId { index: 0x2f, ordinal: 0 })
        );
        assert_eq!(hint(&event(&[(INSTANCE, "odd")])), Hint::Anything);
        assert_eq!(hint(&EventMessage::default()), Hint::Anything);
    }
}
