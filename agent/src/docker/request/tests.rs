//! Cases of building requests.

use supercloud_proto::{
    amount::Bytes,
    cores::Cores,
    device::{GivenDevice, Share},
    id::InstanceId,
    instance::{Desired, PortBinding as OrderPort},
    name::{BoroughName, HostName, PortName, TaskName, VolumeName, WorkloadKey, WorkloadName},
    spec::{Class, Mount, Resources, Restart, Task, Vm, WorkloadKind},
};

use super::*;
use crate::{
    devices::DeviceSettings,
    driver::{Mark, Owner, Pin},
};

fn settings() -> DockerSettings {
    let device = |kind: &str, node: &str| DeviceSettings {
        kind: kind.parse().unwrap(),
        model: "T4".to_owned(),
        labels: BTreeMap::new(),
        shared: true,
        nodes: vec![node.into()],
        env: [("VISIBLE_GPUS".to_owned(), node.to_owned())].into(),
        pci: None,
    };
    let devices = [("gpu0", device("gpu", "/dev/gpu0")), ("gpu1", device("gpu", "/dev/gpu1"))];
    let devices = devices.map(|(name, device)| (name.parse().unwrap(), device)).into();
    DockerSettings { devices, ..DockerSettings::default() }
}

fn port(task: &str, port: u16, host_port: u16, protocol: Protocol) -> OrderPort {
    OrderPort {
        name: PortName::new("p").unwrap(),
        task: TaskName::new(task).unwrap(),
        port,
        host_port,
        address: "10.0.0.1".into(),
        protocol,
    }
}

fn run(tasks: Vec<(&str, Driver)>, task: usize) -> TaskRun {
    let key = WorkloadKey {
        borough: BoroughName::new("camden").unwrap(),
        workload: WorkloadName::new("portal").unwrap(),
    };
    let tasks: Vec<Task> =
        tasks.into_iter().map(|(name, driver)| Task { name: TaskName::new(name).unwrap(), driver }).collect();
    let mark = Mark {
        owner: Owner { cluster: "ab".repeat(16), host: HostName::new("h").unwrap() },
        instance: InstanceId { index: 1, ordinal: 0 },
        workload: key.clone(),
        revision: 1,
        task: tasks[task].name.clone(),
        order_index: 5,
    };
    let order = Order {
        instance: mark.instance,
        index: 5,
        workload: key,
        revision: 1,
        slot: 0,
        desired: Desired::Run,
        reason: String::new(),
        kind: WorkloadKind::Service,
        tasks,
        resources: Resources {
            cpu: MilliCpu(501),
            memory: Bytes(64 << 20),
            disk: Bytes(0),
            pids: None,
            devices: Vec::new(),
            network: Default::default(),
            dedicated: false,
            numa: Default::default(),
        },
        ports: vec![port("web", 80, 20_000, Protocol::Tcp), port("dns", 53, 20_001, Protocol::Udp)],
        restart: Restart::default(),
        stop_grace: 1_500,
        exclusive: false,
        devices: Vec::new(),
        class: Class::default(),
        cores: None,
    };
    TaskRun { mark, order: Arc::new(order), task, pin: None }
}

fn web() -> Container {
    Container {
        image: "supercloud/hello:1".into(),
        command: vec!["/bin/serve".into(), "-v".into()],
        env: BTreeMap::from([("B".into(), "2=2".into()), ("A".into(), "1".into())]),
        mounts: vec![Mount {
            volume: VolumeName::new("data").unwrap(),
            path: "/data".into(),
            read_only: true,
        }],
        user: Some("1000:1000".into()),
        ..Container::default()
    }
}

#[test]
fn a_class_weighs_ten_times_the_next_and_limits_stay() {
    let host = |class| {
        let mut run = run(vec![("web", Driver::Container(web()))], 0);
        Arc::get_mut(&mut run.order).unwrap().class = class;
        body(&run, &settings(), true).unwrap().host_config.unwrap()
    };
    assert_eq!(Class::ALL.map(|class| host(class).cpu_shares), [Some(5_130), Some(513), Some(51)]);
    assert_eq!(Class::ALL.map(|class| host(class).nano_cpus), [Some(501_000_000); 3]);
}

#[test]
fn cores_of_its_own_are_a_set_without_a_quota_and_others_get_the_rest() {
    let host = |pin: Option<&[u16]>, cores: Option<Cores>| {
        let mut run = run(vec![("web", Driver::Container(web()))], 0);
        run.pin = pin.map(|cpus| Pin { cpus: cpus.to_vec(), own: cores.is_some() });
        Arc::get_mut(&mut run.order).unwrap().cores = cores;
        let host = body(&run, &settings(), true).unwrap().host_config.unwrap();
        (host.cpuset_cpus, host.cpuset_mems, host.nano_cpus)
    };
    let text = |text: &str| Some(text.to_owned());
    assert_eq!(host(None, None), (None, None, Some(501_000_000)));
    assert_eq!(host(Some(&[0, 1, 4]), None), (text("0-1,4"), None, Some(501_000_000)));
    let cores = |node| Some(Cores { cpus: [2, 3].into(), node });
    assert_eq!(host(Some(&[2, 3]), cores(None)), (text("2-3"), None, None));
    assert_eq!(host(Some(&[2, 3]), cores(Some(1))), (text("2-3"), text("1"), None));
}

#[test]
fn one_container_has_it_all() {
    let body = body(&run(vec![("web", Driver::Container(web()))], 0), &settings(), true).unwrap();
    assert_eq!(body.entrypoint, Some(vec!["/bin/serve".to_owned(), "-v".to_owned()]));
    assert_eq!(body.cmd, None);
    assert_eq!(
        body.env,
        Some(
            [
                "A=1",
                "AMD_VISIBLE_DEVICES=",
                "B=2=2",
                "HABANA_VISIBLE_DEVICES=",
                "NVIDIA_VISIBLE_DEVICES=",
                "VISIBLE_GPUS="
            ]
            .map(str::to_owned)
            .to_vec()
        )
    );
    assert_eq!(body.user.as_deref(), Some("1000:1000"));
    assert_eq!(body.hostname.as_deref(), Some("i-1-0"));
    assert_eq!(body.stop_timeout, Some(2));
    assert_eq!(body.exposed_ports, Some(vec!["53/udp".to_owned(), "80/tcp".to_owned()]));
    assert_eq!(body.labels.unwrap()["supercloud.order-index"], "5");
    let host = body.host_config.unwrap();
    assert_eq!((host.nano_cpus, host.cpu_shares), (Some(501_000_000), Some(513)));
    assert_eq!((host.memory, host.memory_swap), (Some(64 << 20), Some(64 << 20)));
    assert_eq!(host.pids_limit, Some(4096));
    assert_eq!(host.init, Some(true));
    assert_eq!(host.security_opt, Some(vec!["no-new-privileges".to_owned()]));
    assert_eq!(host.restart_policy.unwrap().name, Some(RestartPolicyNameEnum::NO));
    assert_eq!(host.log_config.unwrap().config.unwrap()["max-size"], LOG_SIZE);
    assert_eq!(host.network_mode.as_deref(), Some("sc-abababab-h.camden"));
    assert_eq!(host.cap_drop, Some(vec!["ALL".to_owned()]));
    assert_eq!(host.cap_add, Some(CAPABILITIES.map(str::to_owned).to_vec()));
    let tcp = host.port_bindings.unwrap()["80/tcp"].clone().unwrap();
    assert_eq!((tcp[0].host_ip.as_deref(), tcp[0].host_port.as_deref()), (Some("0.0.0.0"), Some("20000")));
    let mount = &host.mounts.unwrap()[0];
    assert_eq!(mount.source.as_deref(), Some("sc-abababab-camden.portal.data"));
    assert_eq!((mount.target.as_deref(), mount.read_only), (Some("/data"), Some(true)));
}

#[test]
fn an_empty_command_leaves_the_images_own() {
    let plain = Container { command: vec![], ..web() };
    let body = body(&run(vec![("web", Driver::Container(plain))], 0), &settings(), false).unwrap();
    assert_eq!((body.entrypoint, body.cmd), (None, None));
    assert_eq!(body.host_config.unwrap().init, Some(false));
}

#[test]
fn tasks_share_the_limits_and_the_network_of_the_first() {
    let tasks = || vec![("web", Driver::Container(web())), ("dns", Driver::Container(web()))];
    let first = body(&run(tasks(), 0), &settings(), true).unwrap();
    let second = body(&run(tasks(), 1), &settings(), true).unwrap();
    assert_eq!(first.exposed_ports.map(|ports| ports.len()), Some(2));
    assert_eq!((second.exposed_ports, second.hostname), (None, None));
    let (first, second) = (first.host_config.unwrap(), second.host_config.unwrap());
    assert_eq!((first.nano_cpus, second.nano_cpus), (Some(251_000_000), Some(250_000_000)));
    assert_eq!((first.memory, second.memory), (Some(32 << 20), Some(32 << 20)));
    assert_eq!(second.network_mode.as_deref(), Some("container:sc-abababab-i-1-0-web"));
    assert_eq!(second.port_bindings, None);
}

#[test]
fn a_vm_is_refused() {
    let vm = run(vec![("vm", Driver::Vm(Vm::default()))], 0);
    assert!(matches!(body(&vm, &settings(), true), Err(DriverError::Refused(_))));
}

#[test]
fn a_container_gets_the_devices_of_its_order_and_no_others() {
    let given = |name: &str, share| GivenDevice {
        name: name.parse().unwrap(),
        kind: "gpu".parse().unwrap(),
        share: Share(share),
    };
    let body_with = |devices| {
        let greedy = Container { env: [("VISIBLE_GPUS".to_owned(), "all".to_owned())].into(), ..web() };
        let mut run = run(vec![("web", Driver::Container(greedy))], 0);
        run.order = Arc::new(Order { devices, ..Order::clone(&run.order) });
        body(&run, &settings(), true)
    };
    let some = body_with(vec![given("gpu1", 500)]).unwrap();
    let node = DeviceMapping {
        path_on_host: Some("/dev/gpu1".to_owned()),
        path_in_container: Some("/dev/gpu1".to_owned()),
        cgroup_permissions: Some("rw".to_owned()),
    };
    assert_eq!(some.host_config.unwrap().devices, Some(vec![node]));
    let own = |env: Option<Vec<String>>| -> Vec<String> {
        env.unwrap().into_iter().filter(|one| !one.ends_with("VISIBLE_DEVICES=")).collect()
    };
    assert_eq!(own(some.env), ["SUPERCLOUD_DEVICES=gpu1=0.5", "VISIBLE_GPUS=/dev/gpu1"]);
    let label = &some.labels.unwrap()["supercloud.devices"];
    assert!(label.starts_with("/dev/gpu1 ") && label.ends_with("VISIBLE_GPUS=/dev/gpu1"), "{label}");
    let none = body_with(Vec::new()).unwrap();
    assert_eq!(none.host_config.unwrap().devices, None);
    assert_eq!(own(none.env), ["VISIBLE_GPUS="], "what the spec says of it does not hold");
    let Err(DriverError::Refused(reason)) = body_with(vec![given("gpu7", 1_000)]) else {
        panic!("it was taken")
    };
    assert!(reason.contains("gpu7"), "{reason}");
}
