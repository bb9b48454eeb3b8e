//! Instances: listed, explained, and the way to their output. Who may not see an instance's borough is told that it does not exist.

use std::{pin::Pin, sync::Arc};

use futures::Stream;
use supercloud_proto::{
    id::InstanceId,
    name::{BoroughName, HostName, WorkloadKey, WorkloadName},
    problem::{Faults, Problem},
    v1::{self, instance_service_server::InstanceService},
};
use tonic::{Request, Response, Status, Streaming};

use super::{Api, caller::Caller, input, open, refusals, show};
use crate::{
    archive::WatchError,
    clock,
    placement::{Explainer, explain},
    sessions::relay,
    state::{Instance, State},
};

/// Most instances that one call explains: each is weighed against every host.
const MAX_EXPLAINED: usize = 16;

/// Which instances to list.
struct Wanted {
    borough: Option<BoroughName>,
    workload: Option<WorkloadKey>,
    host: Option<HostName>,
    after: Option<InstanceId>,
    size: usize,
}

impl Wanted {
    fn of(request: &v1::ListInstancesRequest) -> Result<Self, Status> {
        let mut faults = Faults::default();
        let borough: Option<BoroughName> = input::optional(&mut faults, "borough", &request.borough);
        let workload: Option<WorkloadName> = input::optional(&mut faults, "workload", &request.workload);
        if workload.is_some() && request.borough.is_empty() {
            faults.push(Problem::new("borough", "the borough of the workload", "nothing"));
        }
        let wanted = Self {
            workload: borough
                .clone()
                .zip(workload)
                .map(|(borough, workload)| WorkloadKey { borough, workload }),
            borough,
            host: input::optional(&mut faults, "host", &request.host),
            after: input::optional(&mut faults, "page_token", &request.page_token),
            size: input::page_size(&mut faults, "page_size", request.page_size),
        };
        input::finish(faults, Some(wanted))
    }

    /// A page by id; walks the narrowest index there is.
    fn page(&self, state: &State, caller: &Caller) -> Result<input::Page<v1::Instance>, Status> {
        let host = match &self.host {
            None => None,
            Some(name) => {
                let unknown = || refusals::not_found(format!("host {name}"));
                Some(state.host_named(name.as_str()).ok_or_else(unknown)?.id)
            }
        };
        let walk: Box<dyn Iterator<Item = &Arc<Instance>>> = match (&self.workload, host) {
            (Some(key), _) => Box::new(state.instances_of(key)),
            (None, Some(host)) => Box::new(state.instances_on(host)),
            (None, None) => match self.after {
                Some(after) => Box::new(state.instances().range(after..).map(|(_, instance)| instance)),
                None => Box::new(state.instances().values()),
            },
        };
        let shown = walk.filter(|instance| {
            self.after.is_none_or(|after| instance.id > after)
                && self.borough.as_ref().is_none_or(|borough| instance.workload().borough == *borough)
                && host.is_none_or(|host| instance.host() == Some(host))
                && caller.sees(&instance.workload().borough)
        });
        let mut told = show::Instances::of(state);
        Ok(input::page(shown, self.size, |found| found.id.to_string(), |found| told.tell(found)))
    }
}

fn parse_id(text: &str) -> Result<InstanceId, Status> {
    let mut faults = Faults::default();
    let id = faults.take("id", text.parse());
    input::finish(faults, id)
}

fn unknown(id: InstanceId) -> Status {
    refusals::not_found(format!("instance {id}"))
}

/// An instance of the state that the caller may see.
fn seen<'s>(state: &'s State, caller: &Caller, id: InstanceId) -> Result<&'s Arc<Instance>, Status> {
    let found = state.instance(id).filter(|instance| caller.sees(&instance.workload().borough));
    found.ok_or_else(|| unknown(id))
}

/// What an explanation is about.
struct Explained {
    /// Each with how many more of its workload wait with the same revision.
    instances: Vec<(Arc<Instance>, u32)>,
    /// How many there are of the workload beside these.
    others: u32,
}

/// The instances that an explanation is about.
fn explained(state: &State, caller: &Caller, request: &v1::ExplainRequest) -> Result<Explained, Status> {
    if !request.id.is_empty() {
        let instance = seen(state, caller, parse_id(&request.id)?)?.clone();
        return Ok(Explained { instances: vec![(instance, 0)], others: 0 });
    }
    let mut faults = Faults::default();
    let borough: Option<BoroughName> = faults.take("borough", request.borough.parse());
    let workload: Option<WorkloadName> = faults.take("workload", request.workload.parse());
    let key = borough.zip(workload).map(|(borough, workload)| WorkloadKey { borough, workload });
    let key = input::finish(faults, key)?;
    if !caller.sees(&key.borough) || state.workload(&key).is_none() {
        return Err(refusals::not_found(format!("workload {key}")));
    }
    Ok(explained_of(state, &key))
}

/// Those of a workload: the first that waits of each revision, or else those that have hosts. Instances of one revision want the same, but for those that mount volumes, each of which
/// goes where its own live.
fn explained_of(state: &State, key: &WorkloadKey) -> Explained {
    let (mut pending, placed): (Vec<_>, Vec<_>) = state
        .instances_of(key)
        .filter(|instance| instance.is_pending() || instance.placed.is_some())
        .cloned()
        .partition(|instance: &Arc<Instance>| instance.is_pending());
    let all = pending.len() + placed.len();
    pending.sort_by_key(|instance| (instance.revision(), instance.not_before(), instance.id));
    let are_alike = |one: &Arc<Instance>, other: &Arc<Instance>| {
        one.revision() == other.revision() && !one.spec().has_volumes()
    };
    let alike = pending.chunk_by(are_alike);
    let mut instances: Vec<_> =
        alike.map(|alike| (alike[0].clone(), alike.len() as u32 - 1)).take(MAX_EXPLAINED).collect();
    if instances.is_empty() {
        instances = placed.into_iter().map(|instance| (instance, 0)).take(MAX_EXPLAINED).collect();
    }
    let told: usize = instances.iter().map(|(_, alike)| 1 + *alike as usize).sum();
    Explained { instances, others: (all - told) as u32 }
}

impl Api {
    /// The host that an instance of the caller's runs on, for its output.
    async fn host_of(&self, caller: &Caller, id: &str) -> Result<(InstanceId, HostName), Status> {
        let mut faults = Faults::default();
        let id: Option<InstanceId> = faults.take("instance", id.parse());
        let id = input::finish(faults, id)?;
        let state = self.state(false).await?;
        let Ok(instance) = seen(&state, caller, id) else {
            return Err(match self.archived(caller, id).await? {
                Some(_) => Status::failed_precondition(format!(
                    "instance {id} is finished and cleared away; its output went with it"
                )),
                None => unknown(id),
            });
        };
        let host = instance.host().and_then(|host| state.host_name(host));
        match host {
            Some(host) => Ok((id, host.clone())),
            None => {
                Err(Status::failed_precondition(format!("instance {id} is pending: it runs nowhere yet")))
            }
        }
    }

    /// A finished instance that the caller may see.
    async fn archived(&self, caller: &Caller, id: InstanceId) -> Result<Option<v1::Instance>, Status> {
        let archive = self.core.archive();
        // It may have left the state just now.
        archive.reach(self.core.view().applied()).await;
        let found = archive.finished(id).await;
        let found = found.map_err(|error| refusals::watch(&WatchError::Archive(error)))?;
        let own = caller.confined_to().map(|borough| borough.as_str().to_owned());
        Ok(found.filter(|instance| own.is_none_or(|own| own == instance.borough)))
    }
}

#[tonic::async_trait]
impl InstanceService for Api {
    async fn list(
        &self,
        request: Request<v1::ListInstancesRequest>,
    ) -> Result<Response<v1::ListInstancesResponse>, Status> {
        let (caller, request) = open(request)?;
        let wanted = Wanted::of(&request)?;
        if let Some(borough) = &wanted.borough {
            caller.must_see(borough, format!("borough {borough}"))?;
        }
        let state = self.state(request.stale).await?;
        let index = state.applied();
        let page = self.heavy(move || wanted.page(&state, &caller)).await??;
        let next_page_token = page.next;
        Ok(self.answer(
            request.stale,
            v1::ListInstancesResponse { instances: page.items, next_page_token, index },
        ))
    }

    async fn get(
        &self,
        request: Request<v1::GetInstanceRequest>,
    ) -> Result<Response<v1::GetInstanceResponse>, Status> {
        let (caller, request) = open(request)?;
        let id = parse_id(&request.id)?;
        let state = self.state(request.stale).await?;
        let index = state.applied();
        if let Ok(instance) = seen(&state, &caller, id) {
            let instance = Some(show::instance(&state, instance));
            return Ok(
                self.answer(request.stale, v1::GetInstanceResponse { instance, archived: false, index })
            );
        }
        let instance = Some(self.archived(&caller, id).await?.ok_or_else(|| unknown(id))?);
        Ok(self.answer(request.stale, v1::GetInstanceResponse { instance, archived: true, index }))
    }

    async fn explain(
        &self,
        request: Request<v1::ExplainRequest>,
    ) -> Result<Response<v1::ExplainResponse>, Status> {
        let (caller, request) = open(request)?;
        let state = self.state(request.stale).await?;
        let (index, now) = (state.applied(), clock::unix_now());
        let Explained { instances, others } = explained(&state, &caller, &request)?;
        let explain = move || {
            if instances.is_empty() {
                return Vec::new();
            }
            let mut explainer = Explainer::of(&state, now);
            let tell = |(instance, alike): &(Arc<Instance>, u32)| v1::PlacementExplanation {
                alike: *alike,
                ..show::explanation(explainer.instance(instance))
            };
            let mut explanations: Vec<_> = instances.iter().map(tell).collect();
            // Instances of a workload that wait mostly wait for the same.
            if let Some(first) = instances.iter().position(|(instance, _)| instance.is_pending()) {
                let changes = explainer.changes(&instances[first].0, explain::MAX_TRIALS);
                explanations[first].changes = changes.into_iter().map(show::suggestion).collect();
            }
            explanations
        };
        let explanations = self.heavy(explain).await?;
        Ok(self.answer(request.stale, v1::ExplainResponse { explanations, index, others }))
    }

    type LogsStream = Pin<Box<dyn Stream<Item = Result<v1::LogsResponse, Status>> + Send>>;

    async fn logs(&self, request: Request<v1::LogsRequest>) -> Result<Response<Self::LogsStream>, Status> {
        let (caller, request) = open(request)?;
        let (_, host) = self.host_of(&caller, &request.instance).await?;
        let stream = relay::logs(&self.sessions, &host, request).await?;
        Ok(Response::new(stream))
    }

    type ExecStream = Pin<Box<dyn Stream<Item = Result<v1::ExecResponse, Status>> + Send>>;

    async fn exec(
        &self,
        request: Request<Streaming<v1::ExecRequest>>,
    ) -> Result<Response<Self::ExecStream>, Status> {
        let (caller, mut input) = open(request)?;
        let start = relay::exec_start(&mut input).await?;
        let (_, host) = self.host_of(&caller, &start.instance).await?;
        tracing::info!(by = caller.by(), instance = start.instance, command = ?start.command.first(), "exec");
        let stream = relay::exec(&self.sessions, &host, start, input).await?;
        Ok(Response::new(stream))
    }
}
