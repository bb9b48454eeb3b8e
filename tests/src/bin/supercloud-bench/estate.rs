//! The calls that the benches of the core make: open connections, the estate's sums, specs that are handed in by the thousand. Measures nothing.

use std::time::Duration;

use supercloud_proto::{
    pki::{Credentials, Servers, Trust},
    spec,
    v1::{
        self, ApplyWorkloadRequest, ListSitesRequest, host_service_client::HostServiceClient,
        workload_service_client::WorkloadServiceClient,
    },
};
use supercloud_tests::{Outcome, Wrong, wrong};
use tokio::time::{Instant, sleep};
use tonic::{Status, transport::Channel};

/// Whose the workloads of the benches are.
pub(crate) const BOROUGH: &str = "camden";
/// Attempts at a hand-in: a node that has too much under way says so, and a busy machine breaks a connection now and then.
const ATTEMPTS: usize = 100;
/// Wait before another attempt.
const AGAIN_AFTER: Duration = Duration::from_millis(200);
/// Time between two looks at the estate: a look goes over all hosts, so that twenty a second were five parts of a hundred of a busy leader.
const LOOK: Duration = Duration::from_millis(200);

/// A runtime for a bench.
pub(crate) fn runtime() -> Outcome<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().enable_all().build()?)
}

/// A connection of its own to one node.
pub(crate) async fn open(address: &str, credentials: &Credentials) -> Outcome<Channel> {
    let servers = Servers::new(&[address.to_owned()], Trust::Mutual(credentials))?;
    Ok(servers.connect().await?.channel)
}

/// An operator at one node.
#[derive(Clone)]
pub(crate) struct Operator {
    /// For further clients.
    pub(crate) channel: Channel,
}

/// What the hosts come to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Sums {
    /// Hosts that are ready.
    pub(crate) ready: usize,
    /// Instances that have a host.
    pub(crate) instances: usize,
}

impl Operator {
    /// Connects to a node.
    pub(crate) async fn at(node: &str, credentials: &Credentials) -> Outcome<Self> {
        Ok(Self { channel: open(node, credentials).await? })
    }

    /// A client of workloads.
    pub(crate) fn workloads(&self) -> WorkloadServiceClient<Channel> {
        WorkloadServiceClient::new(self.channel.clone())
    }

    /// Hands a spec in until it is taken, under one request id: its own name, as no workload is handed in twice.
    pub(crate) async fn apply(&self, spec: v1::WorkloadSpec) -> Outcome {
        let request = handed_in(spec.clone(), spec.workload);
        let mut last = None;
        for _ in 0..ATTEMPTS {
            match self.workloads().apply(request.clone()).await {
                Ok(_) => return Ok(()),
                Err(status) if status.code() == tonic::Code::InvalidArgument => return Err(status.into()),
                Err(status) => last = Some(status),
            }
            sleep(AGAIN_AFTER).await;
        }
        wrong(format!("a hand-in is not taken: {last:?}"))
    }

    /// The sums over all sites, by a linearizable read.
    pub(crate) async fn sums(&self) -> Result<Sums, Status> {
        let mut hosts = HostServiceClient::new(self.channel.clone());
        let sites = hosts.list_sites(ListSitesRequest::default()).await?.into_inner().sites;
        let add = |sums: Sums, site: &v1::Site| Sums {
            ready: sums.ready + site.ready as usize,
            instances: sums.instances + site.instances as usize,
        };
        Ok(sites.iter().fold(Sums::default(), add))
    }

    /// Waits until the estate is as wanted, and gives the last look. A look that comes too late is given too: what there is then counts.
    pub(crate) async fn until(&self, within: Duration, wanted: impl Fn(&Sums) -> bool) -> Outcome<Sums> {
        let begun = Instant::now();
        let mut told = begun;
        loop {
            // A node that is busy may refuse a read; the next look finds it better.
            let sums = self.sums().await.unwrap_or_default();
            if wanted(&sums) || begun.elapsed() > within {
                return Ok(sums);
            }
            if told.elapsed() > Duration::from_secs(5) {
                told = Instant::now();
                eprintln!("  {} hosts ready, {} instances placed", sums.ready, sums.instances);
            }
            sleep(LOOK).await;
        }
    }

    /// Waits until so many hosts are ready, and gives how many are then: where a machine is too slow for all of them, the bench goes on with
    /// those that it has, and tells how many they are.
    pub(crate) async fn until_ready(&self, hosts: usize, within: Duration) -> Outcome<usize> {
        let Sums { ready, .. } = self.until(within, |sums| sums.ready >= hosts).await?;
        if ready < hosts {
            eprintln!("  only {ready} of {hosts} hosts are ready after {} s", within.as_secs());
        }
        if ready == 0 { wrong("no host is ready") } else { Ok(ready) }
    }
}

/// A spec of a small container. Needs so many thousandths of a core.
pub(crate) fn container(workload: &str, count: u32, cpu_millis: u32) -> Outcome<v1::WorkloadSpec> {
    let text = format!(
        "workload: {workload}
borough: {BOROUGH}
kind: service
count: {count}
container:
  image: registry.example/boroughs/planning-portal:4.2.17
  command: [ /usr/bin/serve, --listen, \"0.0.0.0:8080\", --workers, \"4\" ]
  env: {{ MODE: live, LOG: info, DATABASE: \"postgres://planning.internal:5432/portal\" }}
resources: {{ cpu: {cpu_millis}m, memory: 64MiB }}
"
    );
    let spec = spec::parse(&text)?.pop().ok_or_else(|| Wrong("no spec".to_owned()))?;
    Ok(spec.into())
}

/// Hands a spec in.
pub(crate) fn handed_in(spec: v1::WorkloadSpec, request_id: String) -> ApplyWorkloadRequest {
    ApplyWorkloadRequest { spec: Some(spec), request_id, ..ApplyWorkloadRequest::default() }
}
