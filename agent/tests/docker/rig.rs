//! What the tests stand on: a driver for a cluster of its own, tasks to run, and the clearing away.

use std::{
    collections::BTreeMap,
    error::Error,
    fmt::Debug,
    net::TcpListener,
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixListener},
    },
    path::{Path, PathBuf},
    process::Command,
    str::FromStr,
    sync::Arc,
    time::Duration,
};

use bollard::{API_DEFAULT_VERSION, Docker};
use supercloud_agent::{
    docker::{DockerDriver, DockerSettings},
    driver::{Driver, Mark, Owner, Phase, Seen, TaskRun},
};
use supercloud_proto::{
    amount::{Bytes, MilliCpu},
    id::InstanceId,
    instance::{Desired, PortBinding},
    name::{HostName, TaskName, WorkloadKey},
    order::Order,
    spec::{Class, Container, Driver as Spec, Protocol, Resources, Restart, Task, WorkloadKind},
};
use tokio::time::{Instant, sleep};

pub(crate) type Done = Result<(), Box<dyn Error>>;

pub(crate) const SOCKET: &str = "/var/run/docker.sock";
pub(crate) const IMAGE: &str = "supercloud/hello:1";
/// Longest wait for anything that should come soon, on a machine with busy neighbours.
pub(crate) const SOON: Duration = Duration::from_secs(20);
/// Time between two looks.
const POLL: Duration = Duration::from_millis(50);
/// Host ports of these tests.
const PORTS: std::ops::Range<u16> = 28_000..32_000;
/// Label of what the tests make that is not the driver's.
pub(crate) const FOREIGN: &str = "supercloud-test";

/// A cluster of one test.
pub(crate) struct Rig {
    pub(crate) driver: DockerDriver,
    pub(crate) owner: Owner,
    /// To look and to act behind the driver's back.
    pub(crate) docker: Docker,
}

impl Rig {
    pub(crate) async fn new() -> Result<Self, Box<dyn Error>> {
        let owner =
            Owner { cluster: format!("{:032x}", rand::random::<u128>()), host: HostName::new("host-1")? };
        let docker = Docker::connect_with_unix(SOCKET, 60, API_DEFAULT_VERSION)?.negotiate_version().await?;
        Ok(Self { driver: Self::driver(Path::new(SOCKET), &owner), owner, docker })
    }

    pub(crate) fn driver(socket: &Path, owner: &Owner) -> DockerDriver {
        DockerDriver::connect(socket, owner.clone(), DockerSettings::default())
    }

    /// One container that runs `command`, or the image's own.
    pub(crate) fn run(&self, command: &[&str]) -> TaskRun {
        self.run_of(vec![("web", container(command))])
    }

    /// The first task of an instance with these containers.
    pub(crate) fn run_of(&self, containers: Vec<(&str, Container)>) -> TaskRun {
        let tasks: Vec<Task> = containers
            .into_iter()
            .map(|(task, container)| Task { name: named(task), driver: Spec::Container(container) })
            .collect();
        let workload = WorkloadKey { borough: named("camden"), workload: named("portal") };
        let mark = Mark {
            owner: self.owner.clone(),
            instance: InstanceId { index: 0x2f, ordinal: 0 },
            workload: workload.clone(),
            revision: 1,
            task: tasks[0].name.clone(),
            order_index: 50,
        };
        let order = Order {
            instance: mark.instance,
            index: 50,
            workload,
            revision: 1,
            slot: 0,
            desired: Desired::Run,
            reason: String::new(),
            kind: WorkloadKind::Service,
            tasks,
            resources: Resources {
                cpu: MilliCpu(500),
                memory: Bytes(64 << 20),
                disk: Bytes(0),
                pids: Some(64),
                devices: Vec::new(),
                network: Default::default(),
                dedicated: false,
                numa: Default::default(),
            },
            ports: Vec::new(),
            restart: Restart::default(),
            stop_grace: 1_000,
            exclusive: false,
            devices: Vec::new(),
            class: Class::default(),
            cores: None,
        };
        TaskRun { mark, order: Arc::new(order), task: 0, pin: None }
    }

    /// What the driver lists, when that is exactly one.
    pub(crate) async fn only(&self) -> Result<Seen, Box<dyn Error>> {
        let mut all = self.driver.list().await?;
        assert_eq!(all.len(), 1, "{all:?}");
        Ok(all.remove(0))
    }

    /// Looks until what is listed has ended; exit code and reason.
    pub(crate) async fn await_end(&self, task: &TaskName) -> Result<(Option<i32>, String), Box<dyn Error>> {
        let deadline = Instant::now() + SOON;
        loop {
            let all = self.driver.list().await?;
            let phase = all.into_iter().find(|seen| seen.mark.task == *task).map(|seen| seen.phase);
            match phase {
                Some(Phase::Ended { exit_code, reason, at }) => {
                    assert!(at.is_some(), "an end has its time: {reason}");
                    return Ok((exit_code, reason));
                }
                other => assert!(Instant::now() < deadline, "still {other:?}"),
            }
            sleep(POLL).await;
        }
    }

    pub(crate) async fn kill(&self, seen: &Seen) -> Done {
        Ok(self.docker.kill_container(&seen.runtime_id, None).await?)
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        let cluster = &self.owner.cluster;
        let script = format!(
            "docker ps -aq --filter label=supercloud.cluster={cluster} | xargs -r docker rm -fv
             docker ps -aq --filter label={FOREIGN}={cluster} | xargs -r docker rm -fv
             docker volume ls -q --filter label=supercloud.cluster={cluster} | xargs -r docker volume rm
             docker network ls -q --filter label=supercloud.cluster={cluster} | xargs -r docker network rm
             docker network ls -q --filter label={FOREIGN}={cluster} | xargs -r docker network rm"
        );
        match Command::new("sh").args(["-c", &script]).output() {
            Ok(output) if output.stderr.is_empty() => {}
            Ok(output) => eprintln!("clearing away: {}", String::from_utf8_lossy(&output.stderr)),
            Err(error) => eprintln!("clearing away: {error}"),
        }
    }
}

/// A name that is written in a test.
#[expect(clippy::expect_used, reason = "a literal of a test that is no label is the test's mistake")]
pub(crate) fn named<T: FromStr<Err: Debug>>(text: &str) -> T {
    text.parse().expect("a DNS label")
}

/// A container of the test image.
pub(crate) fn container(command: &[&str]) -> Container {
    Container {
        image: IMAGE.to_owned(),
        command: command.iter().map(|part| (*part).to_owned()).collect(),
        env: BTreeMap::from([("MODE".to_owned(), "test".to_owned())]),
        ..Container::default()
    }
}

/// Runs in a shell and waits for ever after.
pub(crate) fn shell(script: &str) -> [String; 3] {
    ["/bin/sh".to_owned(), "-c".to_owned(), format!("{script}; while :; do sleep 3600; done")]
}

/// The same task with changes to its order.
pub(crate) fn with(mut run: TaskRun, change: impl FnOnce(&mut Order)) -> TaskRun {
    change(Arc::make_mut(&mut run.order));
    run
}

/// A host port that nobody listens on, below those that outgoing connections get. As long as this process lives no other test is given it: a name in
/// the abstract namespace says so, since a port that Docker is to publish cannot be held by binding it.
pub(crate) fn free_port() -> std::io::Result<u16> {
    let start = std::process::id() as u16;
    for step in 0..PORTS.len() as u16 {
        let port = PORTS.start + start.wrapping_add(step) % PORTS.len() as u16;
        let name = SocketAddr::from_abstract_name(format!("supercloud-agent-tests-port-{port}"))?;
        if let Ok(held) = UnixListener::bind_addr(&name)
            && TcpListener::bind(("127.0.0.1", port)).is_ok()
        {
            std::mem::forget(held);
            return Ok(port);
        }
    }
    Err(std::io::Error::other("every port is in use"))
}

/// The order's word for a published port of task `web`.
pub(crate) fn published(port: u16, host_port: u16) -> PortBinding {
    PortBinding {
        name: named("http"),
        task: named("web"),
        port,
        host_port,
        address: "127.0.0.1".to_owned(),
        protocol: Protocol::Tcp,
    }
}

/// A path that does not exist yet, in a folder that goes with the first value.
pub(crate) fn socket_path() -> std::io::Result<(tempfile::TempDir, PathBuf)> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("docker.sock");
    Ok((folder, path))
}
