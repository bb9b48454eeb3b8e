//! The client of the benches: one process, one connection, the API's own watch. It measures nothing itself.

use std::{path::Path, time::Duration};

use supercloud_proto::{
    instance::InstanceState,
    pki::{Credentials, Servers, client::Trust},
    spec,
    v1::{
        ApplyWorkloadRequest, StopWorkloadRequest, WatchWorkloadRequest, WatchWorkloadResponse,
        workload_service_client::WorkloadServiceClient,
    },
};
use supercloud_tests::{Outcome, Wrong, wrong};
use tokio::{runtime::Runtime, time::timeout};
use tonic::transport::Channel;

/// Longest wait for what is measured in fractions of a second.
const PATIENCE: Duration = Duration::from_secs(60);

/// A connection to a cluster.
pub(crate) struct Client {
    runtime: Runtime,
    workloads: WorkloadServiceClient<Channel>,
}

impl Client {
    /// Connects, so that what is measured later begins with the call.
    pub(crate) fn connect(servers: &[String], credentials: &Path) -> Outcome<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let credentials = Credentials::load(credentials)?;
        let servers = Servers::new(servers, Trust::Mutual(&credentials))?;
        let channel = runtime.block_on(servers.connect())?.channel;
        Ok(Self { runtime, workloads: WorkloadServiceClient::new(channel) })
    }

    /// Hands in a workload of one instance and returns its id as soon as it is seen running.
    pub(crate) fn start(&self, text: &str) -> Outcome<String> {
        let mut specs = spec::parse(text)?;
        let spec = specs.pop().ok_or("no spec")?;
        let (borough, workload) = (spec.borough.to_string(), spec.workload.to_string());
        let request = ApplyWorkloadRequest { spec: Some(spec.into()), ..ApplyWorkloadRequest::default() };
        let mut workloads = self.workloads.clone();
        self.patiently("it runs", async {
            let after_index = workloads.apply(request).await?.into_inner().index;
            let watch = WatchWorkloadRequest { borough, workload, after_index };
            let mut seen = workloads.watch(watch).await?.into_inner();
            while let Some(seen) = seen.message().await? {
                if let Some(id) = running(&seen) {
                    return Ok(id);
                }
            }
            wrong("the watch has ended")
        })
    }

    /// Stops and forgets a workload, and returns once nothing is left of it.
    pub(crate) fn end(&self, borough: &str, workload: &str) -> Outcome {
        let (borough, workload) = (borough.to_owned(), workload.to_owned());
        let mut workloads = self.workloads.clone();
        self.patiently("it is gone", async {
            let request = StopWorkloadRequest {
                borough: borough.clone(),
                workload: workload.clone(),
                purge: true,
                ..StopWorkloadRequest::default()
            };
            let after_index = workloads.stop(request).await?.into_inner().index;
            let watch = WatchWorkloadRequest { borough, workload, after_index };
            let mut seen = match workloads.watch(watch).await {
                Err(status) if status.code() == tonic::Code::NotFound => return Ok(()),
                other => other?.into_inner(),
            };
            while let Some(seen) = seen.message().await? {
                if seen.workload.is_none() || seen.instances.is_empty() {
                    return Ok(());
                }
            }
            Ok(())
        })
    }

    fn patiently<T>(&self, what: &str, work: impl Future<Output = Outcome<T>>) -> Outcome<T> {
        let late = || Wrong(format!("not within {} s: {what}", PATIENCE.as_secs()));
        self.runtime.block_on(async { timeout(PATIENCE, work).await }).map_err(|_| late())?
    }
}

/// The id of an instance that runs.
fn running(seen: &WatchWorkloadResponse) -> Option<String> {
    let runs = |state: i32| InstanceState::try_from(state).is_ok_and(|state| state == InstanceState::Running);
    seen.instances.iter().find(|instance| runs(instance.state)).map(|instance| instance.id.clone())
}
