//! Workloads: handed in, changed, planned, watched.

use std::{future::ready, pin::Pin, time::Duration};

use futures::{Stream, StreamExt as _, stream};
use supercloud_proto::{
    name::WorkloadKey,
    problem::{Faults, Problem, Problems},
    spec::{MAX_COUNT, WorkloadSpec},
    v1::{self, workload_service_server::WorkloadService},
};
use tokio::time::Instant;
use tonic::{Request, Response, Status};

use super::{Api, CATCH_UP, Changed, ending::cut_off, input, open, refusals, show};
use crate::{
    clock,
    placement::{self, plan::Refused},
    state::{Command, Done, State, codec},
    watch as states,
};

/// Most specs of one plan: they are tried together, and a pass over all that waits follows.
const MAX_PLANNED: usize = 100;
/// Time between two messages of a watch in the long run. What changes in between arrives with the next one.
const WATCH_PACE: Duration = Duration::from_millis(20);
/// Messages that go out at once after a quiet time: a start or a stop of an instance makes about five, and somebody waits for the last.
const WATCH_BURST: u32 = 8;

/// Checks a borough and a workload.
fn key(faults: &mut Faults, borough: &str, workload: &str) -> Option<WorkloadKey> {
    let borough = faults.take("borough", borough.parse());
    let workload = faults.take("workload", workload.parse());
    Some(WorkloadKey { borough: borough?, workload: workload? })
}

fn only_key(borough: &str, workload: &str) -> Result<WorkloadKey, Status> {
    let mut faults = Faults::default();
    let key = key(&mut faults, borough, workload);
    input::finish(faults, key)
}

/// The spec of a message with everything that is wrong with it.
fn checked(message: v1::WorkloadSpec) -> Result<WorkloadSpec, Problems> {
    let spec = WorkloadSpec::from_wire(message)?;
    match spec.check() {
        problems if problems.is_empty() => Ok(spec),
        problems => Err(Problems(problems)),
    }
}

/// A plan's refusal: all of them, with the code of the first.
fn refused(refused: Vec<Refused>) -> Status {
    let text = refused.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
    let first = refused.into_iter().next().map(|refused| refusals::rejection(refused.rejection));
    let code = first.map_or(tonic::Code::Internal, |status| status.code());
    Status::new(code, text)
}

impl Api {
    fn show_changed(&self, changed: &Changed, key: &WorkloadKey) -> Option<v1::Workload> {
        changed.state.workload(key).map(|workload| show::workload(&changed.state, workload))
    }
}

fn moment(state: &State, key: &WorkloadKey) -> v1::WatchWorkloadResponse {
    let index = state.applied();
    let Some(workload) = state.workload(key) else {
        return v1::WatchWorkloadResponse { workload: None, instances: Vec::new(), index };
    };
    let instances = show::instances_of(state, workload, input::MAX_PAGE_BYTES);
    v1::WatchWorkloadResponse { workload: Some(show::workload(state, workload)), instances, index }
}

#[tonic::async_trait]
impl WorkloadService for Api {
    async fn apply(
        &self,
        request: Request<v1::ApplyWorkloadRequest>,
    ) -> Result<Response<v1::ApplyWorkloadResponse>, Status> {
        let (caller, request) = open(request)?;
        let mut faults = Faults::default();
        let id = input::request_id(&mut faults, request.request_id);
        let spec = match request.spec {
            Some(spec) => faults.take("", checked(spec)),
            None => {
                faults.push(Problem::new("spec", "a spec", "nothing"));
                None
            }
        };
        let spec = input::finish(faults, spec)?;
        caller.must_see(&spec.borough, format!("borough {}", spec.borough))?;
        let key = spec.key();
        let command =
            Command::ApplyWorkload { spec: Box::new(spec), expect_revision: request.expect_revision };
        let changed = self.change(&caller.by(), &id, command).await?;
        let Done::Applied(change) = changed.done else {
            return Err(Status::internal("an apply was answered with something else"));
        };
        let workload = self.show_changed(&changed, &key);
        let change = codec::change_message(change).into();
        Ok(Response::new(v1::ApplyWorkloadResponse { workload, change, index: changed.index }))
    }

    async fn plan(&self, request: Request<v1::PlanRequest>) -> Result<Response<v1::PlanResponse>, Status> {
        let (caller, request) = open(request)?;
        let mut faults = Faults::default();
        let count = request.specs.len();
        if !(1..=MAX_PLANNED).contains(&count) {
            faults.push(Problem::new("specs", format!("1 to {MAX_PLANNED} specs"), count.to_string()));
        }
        let specs = faults.each("specs", request.specs.into_iter().take(MAX_PLANNED), checked);
        let specs = input::finish(faults, specs)?;
        for spec in &specs {
            caller.must_see(&spec.borough, format!("borough {}", spec.borough))?;
        }
        // What an apply would be refused for is not planned.
        for spec in &specs {
            let command = Command::ApplyWorkload { spec: Box::new(spec.clone()), expect_revision: None };
            self.core.admit(&command).await.map_err(|error| refusals::propose(&error))?;
        }
        let state = self.state(request.stale).await?;
        let (index, now) = (state.applied(), clock::unix_now());
        let plan = self.heavy(move || placement::plan(&state, &specs, now)).await?.map_err(refused)?;
        let plans = plan.workloads.into_iter().map(|plan| show::plan(plan, &caller)).collect();
        let boroughs = plan.boroughs.into_iter().map(show::borough_plan).collect();
        Ok(self.answer(request.stale, v1::PlanResponse { plans, index, boroughs }))
    }

    async fn scale(
        &self,
        request: Request<v1::ScaleWorkloadRequest>,
    ) -> Result<Response<v1::ScaleWorkloadResponse>, Status> {
        let (caller, request) = open(request)?;
        let mut faults = Faults::default();
        let id = input::request_id(&mut faults, request.request_id);
        let key = key(&mut faults, &request.borough, &request.workload);
        if request.count > MAX_COUNT {
            faults.push(Problem::new("count", format!("0 to {MAX_COUNT}"), request.count.to_string()));
        }
        let key = input::finish(faults, key)?;
        caller.must_see(&key.borough, format!("workload {key}"))?;
        let command = Command::ScaleWorkload { key: key.clone(), count: request.count };
        let changed = self.change(&caller.by(), &id, command).await?;
        let Done::Scaled { before } = changed.done else {
            return Err(Status::internal("a scale was answered with something else"));
        };
        let workload = self.show_changed(&changed, &key);
        Ok(Response::new(v1::ScaleWorkloadResponse { workload, before, index: changed.index }))
    }

    async fn stop(
        &self,
        request: Request<v1::StopWorkloadRequest>,
    ) -> Result<Response<v1::StopWorkloadResponse>, Status> {
        let (caller, request) = open(request)?;
        let mut faults = Faults::default();
        let id = input::request_id(&mut faults, request.request_id);
        let key = key(&mut faults, &request.borough, &request.workload);
        let key = input::finish(faults, key)?;
        caller.must_see(&key.borough, format!("workload {key}"))?;
        let command = Command::StopWorkload { key: key.clone(), purge: request.purge };
        let changed = self.change(&caller.by(), &id, command).await?;
        let Done::Instances(stopping) = changed.done else {
            return Err(Status::internal("a stop was answered with something else"));
        };
        let workload = self.show_changed(&changed, &key);
        Ok(Response::new(v1::StopWorkloadResponse { workload, stopping, index: changed.index }))
    }

    async fn list(
        &self,
        request: Request<v1::ListWorkloadsRequest>,
    ) -> Result<Response<v1::ListWorkloadsResponse>, Status> {
        let (caller, request) = open(request)?;
        let mut faults = Faults::default();
        let borough = input::optional(&mut faults, "borough", &request.borough);
        let size = input::page_size(&mut faults, "page_size", request.page_size);
        let after = match request.page_token.split_once('/') {
            Some((borough, workload)) => key(&mut faults, borough, workload),
            None if request.page_token.is_empty() => None,
            None => {
                faults.push(Problem::new("page_token", "the token of the page before", "something else"));
                None
            }
        };
        input::finish(faults, Some(()))?;
        let state = self.state(request.stale).await?;
        let index = state.applied();
        let wanted = move |key: &WorkloadKey| {
            after.as_ref().is_none_or(|after| key > after)
                && borough.as_ref().is_none_or(|borough| key.borough == *borough)
                && caller.sees(&key.borough)
        };
        let page = move || {
            let shown = state.workloads().iter().filter(|(key, _)| wanted(key));
            input::page(shown, size, |(key, _)| key.to_string(), |(_, found)| show::workload(&state, found))
        };
        let page = self.heavy(page).await?;
        let next_page_token = page.next;
        Ok(self.answer(
            request.stale,
            v1::ListWorkloadsResponse { workloads: page.items, next_page_token, index },
        ))
    }

    async fn get(
        &self,
        request: Request<v1::GetWorkloadRequest>,
    ) -> Result<Response<v1::GetWorkloadResponse>, Status> {
        let (caller, request) = open(request)?;
        let key = only_key(&request.borough, &request.workload)?;
        caller.must_see(&key.borough, format!("workload {key}"))?;
        let state = self.state(request.stale).await?;
        let v1::WatchWorkloadResponse { workload, instances, index } = moment(&state, &key);
        if workload.is_none() {
            return Err(refusals::not_found(format!("workload {key}")));
        }
        Ok(self.answer(request.stale, v1::GetWorkloadResponse { workload, instances, index }))
    }

    async fn history(
        &self,
        request: Request<v1::WorkloadHistoryRequest>,
    ) -> Result<Response<v1::WorkloadHistoryResponse>, Status> {
        let (caller, request) = open(request)?;
        let key = only_key(&request.borough, &request.workload)?;
        caller.must_see(&key.borough, format!("workload {key}"))?;
        let state = self.state(request.stale).await?;
        let workload = state.workload(&key).ok_or_else(|| refusals::not_found(format!("workload {key}")))?;
        let newest_first = workload.revisions.iter().rev();
        let revisions = show::within(
            newest_first.map(|record| codec::workload_revision_message(record)),
            input::MAX_PAGE_BYTES,
        );
        Ok(self.answer(request.stale, v1::WorkloadHistoryResponse { revisions, index: state.applied() }))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<v1::WatchWorkloadResponse, Status>> + Send>>;

    async fn watch(
        &self,
        request: Request<v1::WatchWorkloadRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let (caller, request) = open(request)?;
        let key = only_key(&request.borough, &request.workload)?;
        caller.must_see(&key.borough, format!("workload {key}"))?;
        let permit = self.watch_permit()?;
        let first = match request.after_index {
            // Nothing was seen before: begin with a state that has every acknowledged write.
            0 => self.state(false).await?,
            seen => states::applied(&self.core.changes(), seen, CATCH_UP)
                .await
                .map_err(|error| Status::unavailable(format!("this node lags behind: {error}")))?,
        };
        if first.workload(&key).is_none() {
            return Err(refusals::not_found(format!("workload {key}")));
        }
        let changes = states::workload_changes(self.core.changes(), key.clone());
        let moments = paced(changes).map(move |state| {
            let _held = &permit;
            moment(&state, &key)
        });
        Ok(Response::new(Box::pin(cut_off(until_gone(moments).map(Ok), self.ended()))))
    }
}

/// Ends a watch after the moment in which the workload is gone.
fn until_gone(
    moments: impl Stream<Item = v1::WatchWorkloadResponse> + Send,
) -> impl Stream<Item = v1::WatchWorkloadResponse> + Send {
    moments.scan(false, |gone, moment| {
        let last = std::mem::replace(gone, moment.workload.is_none());
        ready((!last).then_some(moment))
    })
}

/// Takes the next state only after a moment once a burst is used up, so that a workload in turmoil costs a message now and then and not
/// one for each change.
fn paced<T: Send + 'static>(
    states: impl Stream<Item = T> + Send + 'static,
) -> impl Stream<Item = T> + Send + 'static {
    let saved = WATCH_PACE * (WATCH_BURST - 1);
    // `paid`: the time up to which messages were sent, at the pace.
    stream::unfold((Box::pin(states), Instant::now()), move |(mut states, paid)| async move {
        if let Some(earliest) = paid.checked_sub(saved).filter(|earliest| *earliest > Instant::now()) {
            tokio::time::sleep_until(earliest).await;
        }
        let state = states.next().await?;
        Some((state, (states, paid.max(Instant::now()) + WATCH_PACE)))
    })
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn a_watch_tells_a_start_at_once_and_a_turmoil_at_its_pace() {
        let begun = Instant::now();
        let mut all = Box::pin(paced(stream::iter(0..WATCH_BURST + 4)));
        for number in 0..WATCH_BURST {
            assert_eq!(all.next().now_or_never(), Some(Some(number)));
        }
        assert_eq!(all.count().await, 4);
        assert!(begun.elapsed() >= 4 * WATCH_PACE);
    }
}
