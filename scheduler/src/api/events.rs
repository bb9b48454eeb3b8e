//! Events: listed from this node's archive, and followed live. A borough's people see the events of their borough.

use std::pin::Pin;

use futures::{Stream, stream};
use supercloud_proto::{
    id::InstanceId,
    name::{BoroughName, HostName, WorkloadName},
    problem::{Faults, Problem},
    v1::{self, event_service_server::EventService},
};
use tonic::{Request, Response, Status};

use super::{Api, caller::Caller, ending::cut_off, input, open, refusals, show};
use crate::archive::{EventBatch, EventFilter, Subscription, WatchError};

/// The borough to filter by: the caller's own where they are confined to one.
///
/// `Err` with nothing to see: another borough than their own was asked for.
fn borough(caller: &Caller, asked: Option<&BoroughName>) -> Result<Option<String>, Status> {
    if let Some(asked) = asked {
        caller.must_see(asked, format!("borough {asked}"))?;
    }
    Ok(asked.or(caller.confined_to()).map(String::from))
}

fn listed(caller: &Caller, request: &v1::ListEventsRequest) -> Result<(EventFilter, usize), Status> {
    let mut faults = Faults::default();
    let asked: Option<BoroughName> = input::optional(&mut faults, "borough", &request.borough);
    let workload: Option<WorkloadName> = input::optional(&mut faults, "workload", &request.workload);
    let instance: Option<InstanceId> = input::optional(&mut faults, "instance", &request.instance);
    let host: Option<HostName> = input::optional(&mut faults, "host", &request.host);
    let limit = input::page_size(&mut faults, "limit", request.limit);
    input::finish(faults, Some(()))?;
    let filter = EventFilter {
        borough: borough(caller, asked.as_ref())?,
        workload: workload.map(String::from),
        instance,
        host: host.map(String::from),
        after: request.after_index,
    };
    Ok((filter, limit))
}

fn watched(caller: &Caller, request: &v1::WatchEventsRequest) -> Result<EventFilter, Status> {
    let mut faults = Faults::default();
    let asked: Option<BoroughName> = input::optional(&mut faults, "borough", &request.borough);
    let workload: Option<WorkloadName> = input::optional(&mut faults, "workload", &request.workload);
    if workload.is_some() && asked.is_none() && caller.confined_to().is_none() {
        faults.push(Problem::new("borough", "the borough of the workload", "nothing"));
    }
    input::finish(faults, Some(()))?;
    let borough = borough(caller, asked.as_ref())?;
    Ok(EventFilter { borough, workload: workload.map(String::from), ..EventFilter::default() })
}

/// The next message of a watch, or why it ends. Batches of which nothing is to be shown still say how far it is: the index moves on.
async fn next(
    subscription: &mut Subscription,
    filter: &EventFilter,
) -> Result<v1::WatchEventsResponse, Status> {
    match subscription.next().await {
        Ok(EventBatch { mut events, index }) => {
            events.retain(|event| filter.admits(event));
            Ok(v1::WatchEventsResponse { events, index })
        }
        Err(error) => Err(refusals::watch(&error)),
    }
}

#[tonic::async_trait]
impl EventService for Api {
    async fn list(
        &self,
        request: Request<v1::ListEventsRequest>,
    ) -> Result<Response<v1::ListEventsResponse>, Status> {
        let (caller, request) = open(request)?;
        let (filter, limit) = listed(&caller, &request)?;
        let archive = self.core.archive();
        // Whoever saw a write acknowledged by this node, or its outcome, sees what it brought.
        archive.reach(self.core.view().applied()).await;
        let found = archive.events(filter, limit).await;
        let found = found.map_err(|error| refusals::watch(&WatchError::Archive(error)))?;
        // The latest are wanted; what is too much for one message is cut off at the old end.
        let latest = show::within(found.events.into_iter().rev(), input::MAX_PAGE_BYTES);
        let events = latest.into_iter().rev().collect();
        Ok(Response::new(v1::ListEventsResponse { events, index: found.index }))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<v1::WatchEventsResponse, Status>> + Send>>;

    async fn watch(
        &self,
        request: Request<v1::WatchEventsRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let (caller, request) = open(request)?;
        let filter = watched(&caller, &request)?;
        let permit = self.watch_permit()?;
        let subscription = self.core.archive().subscribe(request.after_index);
        let subscription = subscription.map_err(|error| refusals::watch(&error))?;
        let start = Some((subscription, filter, permit));
        let messages = stream::unfold(start, |place| async move {
            let (mut subscription, filter, permit) = place?;
            let message = next(&mut subscription, &filter).await;
            let go_on = message.is_ok().then_some((subscription, filter, permit));
            Some((message, go_on))
        });
        Ok(Response::new(Box::pin(cut_off(messages, self.ended()))))
    }
}
