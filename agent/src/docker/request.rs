//! From a task to the request that makes its container. Pure: nothing is asked and nothing done here.
//!
//! Decisions
//! - **Limits are the instance's, Docker's are the container's.** An instance has one amount for all its tasks, and a host is never given
//!   more than it can bear: processor and memory are divided evenly among the tasks, what is left over goes to the first ones. The
//!   limit of processes is per container.
//! - **The limit of processor time is what was asked for, the weight says who gets it first**: where a site gives away more than there is, an
//!   instance may still use all that it asked for while others do not. When all want it at once, [`PRECEDENCE`] gives the class guaranteed what it asked for and
//!   leaves the class spare the rest.
//! - **Disk is not limited**: Docker can do so only on XFS with project quotas. The scheduler still counts it.
//! - **One network namespace.** The first container of an instance holds it, with the host name and all published ports; the others
//!   join it. No further image is needed for that. While the holder does not run, the others have no network; see `network`.
//! - **Cores of its own are a set of processors** (`cpuset`), which all containers of the instance have, and no quota; memory of one NUMA node is a set of
//!   one node. What has none of its own gets the set of the rest, where others have some.
//! - **Docker restarts nothing** by itself; the agent does, by its orders.
//! - **Every container of an instance gets its devices** (see `devices`).
//! - **A container is on its borough's network** (see `bridge`) and has the few capabilities of [`CAPABILITIES`].

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    path::Path,
    sync::Arc,
};

use bollard::models::{
    ContainerCreateBody, DeviceMapping, HostConfig, HostConfigLogConfig, Mount as DockerMount, MountType,
    PortBinding, RestartPolicy, RestartPolicyNameEnum,
};
use supercloud_proto::{
    amount::MilliCpu,
    cores::cpu_list,
    order::Order,
    spec::{Class, Container, DEFAULT_PIDS, Driver, Protocol},
};

use super::{
    DockerSettings,
    mark::{DEVICES, container_name, network_name, to_labels, volume_name},
};
use crate::{
    devices::{Granted, granted},
    driver::{DriverError, TaskRun},
};

/// Size of one log file; with [`LOG_FILES`] it bounds what a task can write to the host's disk.
const LOG_SIZE: &str = "10m";
/// Log files kept.
const LOG_FILES: &str = "3";
/// Docker's weight of one core.
const SHARES_PER_CORE: u64 = 1024;
/// How many times the weight of the next lower class one has: as many as the most that a site gives away of a processor. So what is guaranteed comes to all
/// that it asked for, whatever the others asked for; but for a container of more than 25 cores where most is given away, since weights end at [`SHARES`].
const PRECEDENCE: u64 = 10;
/// The kernel's bounds of that weight.
const SHARES: (u64, u64) = (2, 262_144);
/// The least quota the kernel takes: 1 ms in every 100 ms.
const LEAST_CPU: MilliCpu = MilliCpu(10);
const NANOS_PER_MILLI: u64 = 1_000_000;
/// All that root in a container may do beyond what anybody may; every other capability is dropped. Images of servers commonly begin
/// as root, make their data directory their user's (CHOWN, FOWNER, DAC_OVERRIDE), listen on a port below 1024 (NET_BIND_SERVICE), become
/// that user (SETUID, SETGID) and send signals to what runs as it (KILL).
/// Of Docker's own list these are left out: NET_RAW, with which one forges a neighbour's address; MKNOD, SYS_CHROOT, AUDIT_WRITE, SETFCAP,
/// SETPCAP and FSETID, which servers have no use for.
const CAPABILITIES: [&str; 7] =
    ["CHOWN", "DAC_OVERRIDE", "FOWNER", "KILL", "NET_BIND_SERVICE", "SETGID", "SETUID"];

/// The container that the run is about.
pub(super) fn container(run: &TaskRun) -> Result<&Container, DriverError> {
    match run.order.tasks.get(run.task).map(|task| &task.driver) {
        Some(Driver::Container(container)) => Ok(container),
        _ => Err(DriverError::Refused(format!("task {} is no container", run.mark.task))),
    }
}

/// Places of the containers among an order's tasks. The first holds the network.
pub(super) fn containers(order: &Order) -> impl Iterator<Item = usize> {
    let is_container = |driver: &Driver| matches!(driver, Driver::Container(_));
    order.tasks.iter().enumerate().filter(move |(_, task)| is_container(&task.driver)).map(|(at, _)| at)
}

/// The run of another task of the same instance.
pub(super) fn sibling(run: &TaskRun, task: usize) -> Option<TaskRun> {
    let name = run.order.tasks.get(task)?.name.clone();
    let mark = crate::driver::Mark { task: name, ..run.mark.clone() };
    Some(TaskRun { mark, order: Arc::clone(&run.order), task, pin: run.pin.clone() })
}

/// The run of the task that holds the network of this one; `None` when it does so itself.
pub(super) fn holder(run: &TaskRun) -> Option<TaskRun> {
    let first = containers(&run.order).next()?;
    if first == run.task { None } else { sibling(run, first) }
}

/// The request. `init`: whether Docker has a small init to put in front.
pub(super) fn body(
    run: &TaskRun,
    settings: &DockerSettings,
    init: bool,
) -> Result<ContainerCreateBody, DriverError> {
    let container = container(run)?;
    let bind = settings.bind;
    let of_devices = of_devices(run, settings)?;
    let mut labels: HashMap<String, String> =
        to_labels(&run.mark).into_iter().map(|(label, value)| (label.to_owned(), value)).collect();
    // Also where it is nothing: what the image says of it does not hold.
    labels.insert(DEVICES.to_owned(), of_devices.text());
    let Granted { nodes, env } = of_devices;
    let holder = holder(run);
    let ports = if holder.is_none() { ports(&run.order, bind) } else { BTreeMap::new() };
    Ok(ContainerCreateBody {
        image: Some(container.image.clone()),
        // An entry point of our own also keeps the image's arguments out.
        entrypoint: (!container.command.is_empty()).then(|| container.command.clone()),
        env: Some(environment(container, env)),
        user: container.user.clone(),
        hostname: holder.is_none().then(|| run.mark.instance.to_string()),
        labels: Some(labels),
        exposed_ports: (!ports.is_empty()).then(|| ports.keys().cloned().collect()),
        // Used when Docker itself goes down; our own stop says its grace again.
        stop_timeout: i64::try_from(run.order.stop_grace.div_ceil(1000)).ok(),
        host_config: Some(HostConfig {
            network_mode: Some(match holder {
                Some(holder) => format!("container:{}", container_name(&holder.mark)),
                None => network_name(&run.mark.owner, &run.mark.workload.borough),
            }),
            port_bindings: (!ports.is_empty())
                .then(|| ports.into_iter().map(|(port, hosts)| (port, Some(hosts))).collect()),
            mounts: Some(mounts(run, container)),
            devices: (!nodes.is_empty()).then(|| nodes.iter().map(|node| device(node)).collect()),
            init: Some(init),
            ..limits(run)
        }),
        ..ContainerCreateBody::default()
    })
}

fn ports(order: &Order, bind: IpAddr) -> BTreeMap<String, Vec<PortBinding>> {
    let mut all = BTreeMap::<String, Vec<PortBinding>>::new();
    for port in &order.ports {
        let protocol = match port.protocol {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        };
        all.entry(format!("{}/{protocol}", port.port)).or_default().push(PortBinding {
            host_ip: Some(bind.to_string()),
            host_port: Some(port.host_port.to_string()),
        });
    }
    all
}

/// What the container gets of devices, as the agent's file has them now.
pub(super) fn of_devices(run: &TaskRun, settings: &DockerSettings) -> Result<Granted, DriverError> {
    granted(&settings.devices, &run.order.devices).map_err(|name| {
        DriverError::Refused(format!("device {name} is not one of this agent's configuration"))
    })
}

/// The spec's variables, with those of devices over them.
fn environment(container: &Container, of_devices: BTreeMap<String, String>) -> Vec<String> {
    let mut all = container.env.clone();
    all.extend(of_devices);
    all.into_iter().map(|(name, value)| format!("{name}={value}")).collect()
}

/// A device node under its own path, to be read and written.
fn device(node: &Path) -> DeviceMapping {
    let path = node.to_string_lossy().into_owned();
    DeviceMapping {
        path_on_host: Some(path.clone()),
        path_in_container: Some(path),
        cgroup_permissions: Some("rw".to_owned()),
    }
}

fn mounts(run: &TaskRun, container: &Container) -> Vec<DockerMount> {
    let mount = |mount: &supercloud_proto::spec::Mount| DockerMount {
        typ: Some(MountType::VOLUME),
        source: Some(volume_name(&run.mark.owner.cluster, &run.mark.workload, &mount.volume)),
        target: Some(mount.path.clone()),
        read_only: Some(mount.read_only),
        ..DockerMount::default()
    };
    container.mounts.iter().map(mount).collect()
}

fn limits(run: &TaskRun) -> HostConfig {
    let resources = &run.order.resources;
    let (parts, place) = (run.order.tasks.len().max(1) as u64, run.task as u64);
    let share = |total: u64| total / parts + u64::from(place < total % parts);
    let whole = |amount: u64| i64::try_from(amount).unwrap_or(i64::MAX);
    let cpu = share(resources.cpu.0);
    let memory = Some(whole(share(resources.memory.0))).filter(|memory| *memory > 0);
    let usual = cpu.saturating_mul(SHARES_PER_CORE) / 1000;
    let shares = match run.order.class {
        Class::Guaranteed => usual.saturating_mul(PRECEDENCE),
        Class::Standard => usual,
        Class::Spare => usual / PRECEDENCE,
    };
    let is_shared = run.order.cores.is_none();
    let node = run.order.cores.as_ref().and_then(|cores| cores.node);
    HostConfig {
        // Cores of its own are bound enough: a quota would stop it on them.
        nano_cpus: (cpu > 0 && is_shared)
            .then(|| whole(cpu.max(LEAST_CPU.0).saturating_mul(NANOS_PER_MILLI))),
        cpu_shares: Some(whole(shares.clamp(SHARES.0, SHARES.1))),
        cpuset_cpus: run.pin.as_ref().map(|pin| cpu_list(pin.cpus.iter().copied())),
        cpuset_mems: node.map(|node| node.to_string()),
        memory,
        // Memory and swap together: none of it may be swap.
        memory_swap: memory,
        pids_limit: Some(i64::from(resources.pids.unwrap_or(DEFAULT_PIDS))),
        security_opt: Some(vec!["no-new-privileges".to_owned()]),
        cap_drop: Some(vec!["ALL".to_owned()]),
        cap_add: Some(CAPABILITIES.map(str::to_owned).to_vec()),
        restart_policy: Some(RestartPolicy {
            name: Some(RestartPolicyNameEnum::NO),
            maximum_retry_count: None,
        }),
        log_config: Some(HostConfigLogConfig {
            typ: Some("json-file".to_owned()),
            config: Some(HashMap::from([
                ("max-size".to_owned(), LOG_SIZE.to_owned()),
                ("max-file".to_owned(), LOG_FILES.to_owned()),
            ])),
        }),
        ..HostConfig::default()
    }
}

#[cfg(test)]
mod tests;
