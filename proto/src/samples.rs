//! Samples of the domain types for property tests: everything that the types allow and the wire can carry, whether or not a check
//! would let it pass.

use proptest::{collection::vec, option, prelude::*};

use crate::{
    amount::{Amounts, Bytes, Mbits, MilliCpu},
    condition::Condition,
    cores::{Cores, Cpu, Numa, NumaNode},
    device::{Device, DeviceRequest, GivenDevice, PciAddress, Share},
    host::{DriverInfo, Inventory, PortRange},
    id::InstanceId,
    instance::{Desired, InstanceReport, InstanceState, PortBinding, TaskStatus},
    name::WorkloadKey,
    order::Order,
    spec::*,
    taint::Toleration,
};

fn label<T: std::str::FromStr<Err: std::fmt::Debug> + std::fmt::Debug>() -> impl Strategy<Value = T> {
    "[a-z0-9]([a-z0-9-]{0,8}[a-z0-9])?".prop_map(|text| text.parse().unwrap())
}

/// Any text without control characters, including what a YAML reader could take for something else.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        "\\PC{0,12}",
        prop::sample::select(vec![
            "yes", "null", "~", "1", "1e3", "0x1f", " a ", "a: b", "- x", "#", "'", "\"", "a\nb", "\t"
        ])
        .prop_map(str::to_owned),
    ]
}

fn some_text() -> impl Strategy<Value = String> {
    text().prop_filter("not empty", |text| !text.is_empty())
}

fn condition() -> impl Strategy<Value = Condition> {
    prop::sample::select(vec![
        "arch == amd64",
        "label.tier != test",
        "rack in [r1, r2]",
        "label.ssd exists",
        "host missing",
        "kernel >= 6.1",
        "docker < 24",
        "site not in [a, b]",
    ])
    .prop_map(|text| text.parse().unwrap())
}

fn protocol() -> impl Strategy<Value = Protocol> {
    prop_oneof![Just(Protocol::Tcp), Just(Protocol::Udp)]
}

fn port() -> impl Strategy<Value = Port> {
    (label(), any::<u16>(), option::of(any::<u16>()), protocol())
        .prop_map(|(name, port, host, protocol)| Port { name, port, host, protocol })
}

fn mount() -> impl Strategy<Value = Mount> {
    (label(), text(), any::<bool>()).prop_map(|(volume, path, read_only)| Mount { volume, path, read_only })
}

/// Ports with names of their own, ordered by name: what a spec can say in a map.
fn ports() -> impl Strategy<Value = Vec<Port>> {
    vec(port(), 0..3).prop_map(|mut ports| {
        ports.sort_by(|a, b| a.name.cmp(&b.name));
        ports.dedup_by(|a, b| a.name == b.name);
        ports
    })
}

fn container() -> impl Strategy<Value = Container> {
    let env = prop::collection::btree_map(some_text(), text(), 0..3);
    (text(), vec(text(), 0..3), env, ports(), vec(mount(), 0..3), option::of(some_text())).prop_map(
        |(image, command, env, ports, mounts, user)| Container { image, command, env, ports, mounts, user },
    )
}

fn image() -> impl Strategy<Value = VmImage> {
    let source = prop_oneof![text().prop_map(ImageSource::Path), text().prop_map(ImageSource::Url)];
    let format = prop_oneof![Just(ImageFormat::Qcow2), Just(ImageFormat::Raw)];
    (source, option::of("[0-9a-f]{64}"), format).prop_map(|(source, sha256, format)| VmImage {
        source,
        sha256,
        format,
    })
}

fn vm() -> impl Strategy<Value = Vm> {
    let boot = (text(), option::of(some_text()), text()).prop_map(|(kernel, initrd, cmdline)| VmBoot {
        kernel,
        initrd,
        cmdline,
    });
    let cloud_init = (text(), option::of(some_text()), option::of(some_text())).prop_map(
        |(user_data, meta_data, network_config)| CloudInit { user_data, meta_data, network_config },
    );
    let disk = (label(), any::<u64>()).prop_map(|(name, size)| VmDisk { name, size: Bytes(size) });
    (option::of(image()), option::of(boot), option::of(cloud_init), vec(disk, 0..3))
        .prop_map(|(image, boot, cloud_init, disks)| Vm { image, boot, cloud_init, disks })
}

fn task() -> impl Strategy<Value = Task> {
    let driver = prop_oneof![container().prop_map(Driver::Container), vm().prop_map(Driver::Vm)];
    (prop_oneof![Just("main".parse().unwrap()), label()], driver)
        .prop_map(|(name, driver)| Task { name, driver })
}

fn amounts() -> impl Strategy<Value = Amounts> {
    any::<(u64, u64, u64)>().prop_map(|(cpu, memory, disk)| Amounts {
        cpu: MilliCpu(cpu),
        memory: Bytes(memory),
        disk: Bytes(disk),
    })
}

fn share() -> impl Strategy<Value = Share> {
    (1..=Share::WHOLE.0).prop_map(Share)
}

fn device_request() -> impl Strategy<Value = DeviceRequest> {
    (label(), 1..=64u32, share(), vec(some_text(), 0..3), vec(condition(), 0..3)).prop_map(
        |(kind, count, share, models, require)| DeviceRequest {
            kind,
            count,
            share,
            models,
            require,
            to_vm: false,
        },
    )
}

fn device() -> impl Strategy<Value = Device> {
    let labels = prop::collection::btree_map("[a-z]{1,4}", text(), 0..3);
    let pci = option::of((any::<u16>(), any::<u8>(), 0..32u8, 0..8u8));
    let pci = pci
        .prop_map(|pci| pci.map(|(domain, bus, slot, function)| PciAddress { domain, bus, slot, function }));
    (label(), "[A-Z][a-z0-9]{0,6}", labels, any::<bool>(), "[a-z/]{0,12}", pci).prop_map(
        |(kind, model, labels, shared, fault, pci)| Device { kind, model, labels, shared, fault, pci },
    )
}

fn given_device() -> impl Strategy<Value = GivenDevice> {
    (label(), label(), share()).prop_map(|(name, kind, share)| GivenDevice { name, kind, share })
}

fn resources() -> impl Strategy<Value = Resources> {
    let own = (any::<bool>(), prop::sample::select(Numa::ALL.to_vec()));
    (amounts(), option::of(1..u32::MAX), vec(device_request(), 0..3), any::<u64>(), own).prop_map(
        |(amounts, pids, devices, network, (dedicated, numa))| Resources {
            cpu: amounts.cpu,
            memory: amounts.memory,
            disk: amounts.disk,
            pids,
            devices,
            network: Mbits(network),
            dedicated,
            numa,
        },
    )
}

fn cores() -> impl Strategy<Value = Cores> {
    (prop::collection::btree_set(0..99u16, 1..6), option::of(any::<u16>()))
        .prop_map(|(cpus, node)| Cores { cpus: cpus.into_iter().collect(), node })
}

/// Nodes whose cores have one processor or two, some of them kept.
fn nodes() -> impl Strategy<Value = Vec<NumaNode>> {
    let core = (any::<bool>(), any::<bool>());
    let node = (1..9u16, any::<u64>(), vec(core, 0..4));
    vec(node, 0..4).prop_map(|nodes| {
        let (mut number, mut next) = (0, 0);
        let mut told = Vec::new();
        for (gap, memory, cores) in nodes {
            number += gap;
            let mut cpus = Vec::new();
            for (is_double, kept) in cores {
                cpus.push(Cpu { core: next, number: next, kept });
                cpus.extend(is_double.then_some(Cpu { core: next, number: next + 1, kept }));
                next += 2;
            }
            told.push(NumaNode { number, memory: Bytes(memory), cpus });
        }
        told
    })
}

fn toleration() -> impl Strategy<Value = Toleration> {
    prop::sample::select(vec!["gpu", "team=parks", "a=1.2/x"]).prop_map(|text| text.parse().unwrap())
}

fn place() -> impl Strategy<Value = Place> {
    let prefer = (condition(), any::<i32>()).prop_map(|(when, weight)| Prefer { when, weight });
    let over = prop_oneof![
        2 => prop::sample::select(SpreadOver::ALL.to_vec()),
        1 => "[a-zA-Z0-9_./+-]{1,8}".prop_map(SpreadOver::Label),
    ];
    let shares = prop::collection::btree_map("[a-z]{1,4}", 1..=100u32, 0..3);
    let spread = prop_oneof![
        over.clone().prop_map(Spread::from),
        (over, shares).prop_map(|(over, shares)| Spread { over, shares }),
    ];
    let rules = (vec(label(), 0..3), vec(condition(), 0..3), vec(prefer, 0..2), vec(spread, 0..3));
    let others = (vec(label(), 0..3), vec(label(), 0..2));
    (rules, any::<(bool, bool, bool)>(), vec(toleration(), 0..3), others).prop_map(
        |((sites, require, prefer, spread), flags, tolerate, (apart, together))| {
            let (distinct_hosts, all_or_none, private) = flags;
            Place {
                sites,
                require,
                prefer,
                spread,
                distinct_hosts,
                tolerate,
                apart,
                together,
                private,
                all_or_none,
            }
        },
    )
}

fn health() -> impl Strategy<Value = Health> {
    let check = prop_oneof![
        (label(), text()).prop_map(|(port, path)| HealthCheck::Http { port, path }),
        label().prop_map(|port| HealthCheck::Tcp { port }),
    ];
    (check, any::<(u64, u64, u32)>()).prop_map(|(check, (every, timeout, unhealthy_after))| Health {
        check,
        every,
        timeout,
        unhealthy_after,
    })
}

fn restart() -> impl Strategy<Value = Restart> {
    any::<(u32, u64, u64, u64)>().prop_map(|(attempts, within, delay, max_delay)| Restart {
        attempts,
        within,
        delay,
        max_delay,
    })
}

fn update() -> impl Strategy<Value = Update> {
    any::<(u32, u32, u64, u64, bool)>().prop_map(
        |(max_unavailable, canary, healthy_for, deadline, auto_revert)| Update {
            max_unavailable,
            canary,
            healthy_for,
            deadline,
            auto_revert,
        },
    )
}

fn kind() -> impl Strategy<Value = WorkloadKind> {
    prop::sample::select(vec![
        WorkloadKind::Service,
        WorkloadKind::Batch,
        WorkloadKind::Daemon,
        WorkloadKind::Cron,
    ])
}

fn class() -> impl Strategy<Value = Class> {
    prop::sample::select(Class::ALL.to_vec())
}

/// Any spec.
pub(crate) fn workload_spec() -> impl Strategy<Value = WorkloadSpec> {
    let head = (label(), label(), kind(), any::<u32>(), any::<u32>());
    let tail = (restart(), update(), 1..u64::MAX, any::<Option<bool>>(), option::of(some_text()), class());
    (head, vec(task(), 0..3), resources(), place(), option::of(health()), tail).prop_map(
        |((workload, borough, kind, count, priority), tasks, resources, place, health, tail)| {
            WorkloadSpec {
                workload,
                borough,
                kind,
                count,
                priority,
                tasks,
                resources,
                place,
                health,
                restart: tail.0,
                update: tail.1,
                stop_grace: tail.2,
                exclusive: tail.3,
                schedule: tail.4,
                class: tail.5,
            }
            .with_devices_told()
        },
    )
}

fn state() -> impl Strategy<Value = InstanceState> {
    prop::sample::select(InstanceState::ALL.to_vec())
}

fn instance_id() -> impl Strategy<Value = InstanceId> {
    any::<(u64, u32)>().prop_map(|(index, ordinal)| InstanceId { index, ordinal })
}

fn task_status() -> impl Strategy<Value = TaskStatus> {
    let times = (option::of(1..u64::MAX), option::of(1..u64::MAX));
    (label(), state(), text(), times, any::<Option<i32>>(), any::<u32>(), text()).prop_map(
        |(name, state, runtime_id, (started, finished), exit_code, restarts, reason)| TaskStatus {
            name,
            state,
            runtime_id,
            started,
            finished,
            exit_code,
            restarts,
            reason,
        },
    )
}

/// Any report.
pub(crate) fn instance_report() -> impl Strategy<Value = InstanceReport> {
    (instance_id(), any::<(u64, u64, u64, bool)>(), state(), text(), vec(task_status(), 0..3)).prop_map(
        |(instance, (sequence, order_index, time, unordered), state, reason, tasks)| InstanceReport {
            instance,
            sequence,
            order_index,
            state,
            reason,
            tasks,
            time,
            unordered,
        },
    )
}

/// Any binding.
pub(crate) fn port_binding() -> impl Strategy<Value = PortBinding> {
    (label(), label(), any::<(u16, u16)>(), text(), protocol()).prop_map(
        |(name, task, (port, host_port), address, protocol)| PortBinding {
            name,
            task,
            port,
            host_port,
            address,
            protocol,
        },
    )
}

/// Any order.
pub(crate) fn order() -> impl Strategy<Value = Order> {
    let workload = (label(), label()).prop_map(|(borough, workload)| WorkloadKey { borough, workload });
    let desired = prop_oneof![Just(Desired::Run), Just(Desired::Stop)];
    let given = (vec(given_device(), 0..3), class(), option::of(cores()));
    let run = (kind(), vec(task(), 0..3), resources(), vec(port_binding(), 0..3), restart(), given);
    (instance_id(), workload, any::<(u64, u64, u32, u64, bool)>(), desired, text(), run).prop_map(
        |(
            instance,
            workload,
            numbers,
            desired,
            reason,
            (kind, tasks, resources, ports, restart, (devices, class, cores)),
        )| {
            let (index, revision, slot, stop_grace, exclusive) = numbers;
            Order {
                instance,
                index,
                workload,
                revision,
                slot,
                desired,
                reason,
                kind,
                tasks,
                resources,
                ports,
                restart,
                stop_grace,
                exclusive,
                devices,
                class,
                cores,
            }
        },
    )
}

/// Any inventory.
pub(crate) fn inventory() -> impl Strategy<Value = Inventory> {
    let driver =
        (text(), any::<bool>(), text(), text()).prop_map(|(version, healthy, reason, acceleration)| {
            DriverInfo { version, healthy, reason, acceleration }
        });
    let drivers = prop::collection::btree_map(prop::sample::select(DriverKind::ALL.to_vec()), driver, 0..3);
    let words = (text(), text(), text(), text(), text(), text());
    let ports =
        (1..u16::MAX, any::<u16>()).prop_map(|(first, last)| PortRange { first, last: last.max(first) });
    let labels = prop::collection::btree_map(text(), text(), 0..3);
    let devices = prop::collection::btree_map(label(), device(), 0..3);
    let taints = prop::collection::btree_map("[a-z]{1,4}", "[a-z0-9.]{0,4}", 0..3);
    let network = (any::<u64>().prop_map(Mbits), any::<u64>().prop_map(Mbits));
    let found = (drivers, devices, taints, network, nodes());
    (label(), option::of(label()), amounts(), amounts(), words, labels, ports, found).prop_map(
        |(
            site,
            rack,
            capacity,
            reserved,
            words,
            labels,
            ports,
            (drivers, devices, taints, network, nodes),
        )| {
            Inventory {
                site,
                rack,
                address: words.0,
                capacity,
                reserved,
                network: network.0,
                network_reserved: network.1,
                arch: words.1,
                kernel: words.2,
                os: words.3,
                labels,
                ports,
                drivers,
                agent_version: words.4,
                boot_id: words.5,
                devices,
                taints,
                nodes,
            }
        },
    )
}
