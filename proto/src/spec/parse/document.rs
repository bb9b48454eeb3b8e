//! Reads one document into a spec, with stand-ins for what could not be read.

use std::str::FromStr;

use super::{
    driver::{container, vm},
    node::{Node, Object},
};
use crate::{
    amount::{Bytes, Mbits, MilliCpu},
    condition::{Attribute, Condition, Test},
    cores::Numa,
    device::{self, DeviceRequest, Share},
    name::InvalidName,
    spec::{
        Class, Container, DEFAULT_HEALTH_EVERY, DEFAULT_HEALTH_TIMEOUT, DEFAULT_PRIORITY, DEFAULT_STOP_GRACE,
        DEFAULT_UNHEALTHY_AFTER, Driver, Health, HealthCheck, MAX_COUNT, MAX_PRIORITY, MAX_SHARE, Place,
        Prefer, Resources, Restart, Spread, SpreadOver, Task, Update, WorkloadKind, WorkloadSpec,
        check::TaskStyle,
        shape::{self, Form},
        wire::ONLY_TASK,
    },
};

const KINDS: [WorkloadKind; 4] =
    [WorkloadKind::Service, WorkloadKind::Batch, WorkloadKind::Daemon, WorkloadKind::Cron];

/// The spec, and the way in which its tasks were written. `None` only when the document is no mapping.
pub(super) fn read(root: &Node<'_>) -> Option<(WorkloadSpec, TaskStyle)> {
    let top = root.object(&shape::WORKLOAD)?;
    let listed = top.has("tasks") && !top.has("container") && !top.has("vm");
    let style = if listed { TaskStyle::List } else { TaskStyle::Short };
    let spec = WorkloadSpec {
        workload: top.or("workload", stand_in(), Node::parsed),
        borough: top.or("borough", stand_in(), Node::parsed),
        kind: top.or("kind", WorkloadKind::Service, |node| node.word(shape::KINDS, &KINDS)),
        count: top.or("count", 1, |node| node.whole(0, MAX_COUNT.into())),
        priority: top.or("priority", DEFAULT_PRIORITY, |node| node.whole(0, MAX_PRIORITY.into())),
        tasks: match style {
            TaskStyle::List => top.or("tasks", Vec::new(), |list| list.each(unread_task, task)),
            TaskStyle::Short => vec![Task { name: named(ONLY_TASK), driver: driver(&top) }],
        },
        resources: top.or("resources", Resources::default(), resources),
        place: top.or("place", Place::default(), place),
        health: top.maybe("health", health),
        restart: top.or("restart", Restart::default(), restart),
        update: top.or("update", Update::default(), update),
        stop_grace: top.or("stop_grace", DEFAULT_STOP_GRACE, Node::duration),
        exclusive: top.maybe("exclusive", Node::flag),
        schedule: top.maybe("schedule", Node::text),
        class: top.or("class", Class::default(), |node| node.word(shape::CLASSES, &Class::ALL)),
    };
    Some((spec.with_devices_told(), style))
}

/// A name in the place of one that could not be read, and unlike any that people give.
pub(super) fn stand_in<T: FromStr<Err = InvalidName>>() -> T {
    named("not-read-0-9")
}

#[expect(clippy::expect_used, reason = "called with constants that are names")]
fn named<T: FromStr<Err = InvalidName>>(name: &'static str) -> T {
    name.parse().expect("a name")
}

fn unread_task() -> Task {
    Task { name: stand_in(), driver: Driver::Container(Container::default()) }
}

fn task(node: &Node<'_>) -> Option<Task> {
    let object = node.object(&shape::TASK)?;
    Some(Task { name: object.or("name", stand_in(), Node::parsed), driver: driver(&object) })
}

fn driver(object: &Object<'_>) -> Driver {
    let of_container = object.maybe("container", |node| container(node).map(Driver::Container));
    if object.has("container") {
        return of_container.unwrap_or_else(|| Driver::Container(Container::default()));
    }
    object.or("vm", Driver::Container(Container::default()), |node| vm(node).map(Driver::Vm))
}

fn resources(node: &Node<'_>) -> Option<Resources> {
    let object = node.object(&shape::RESOURCES)?;
    Some(Resources {
        cpu: object.or("cpu", MilliCpu(0), Node::cpu),
        memory: object.or("memory", Bytes(0), Node::size),
        disk: object.or("disk", Bytes(0), Node::size),
        pids: object.maybe("pids", |node| node.whole(1, shape::MANY)),
        devices: object.or("devices", Vec::new(), |list| list.each(unread_device, device)),
        network: object.or("network", Mbits(0), Node::bandwidth),
        dedicated: object.or("dedicated", false, Node::flag),
        numa: object.or("numa", Numa::default(), |node| node.word(shape::NUMA, &Numa::ALL)),
    })
}

fn device(node: &Node<'_>) -> Option<DeviceRequest> {
    let object = node.object(&shape::DEVICE)?;
    Some(DeviceRequest {
        kind: object.or("kind", stand_in(), Node::parsed),
        count: object.or("count", 1, |node| node.whole(1, device::MAX_COUNT.into())),
        share: object.or("share", Share::WHOLE, Node::share),
        models: object.or("models", Vec::new(), |list| list.sound(Node::text)),
        require: object.or("require", Vec::new(), |list| list.each(unread_device_condition, Node::parsed)),
        to_vm: false,
    })
}

fn unread_device() -> DeviceRequest {
    DeviceRequest {
        kind: stand_in(),
        count: 1,
        share: Share::WHOLE,
        models: Vec::new(),
        require: Vec::new(),
        to_vm: false,
    }
}

fn unread_device_condition() -> Condition {
    Condition { attribute: Attribute::Label("not-read".to_owned()), test: Test::Exists }
}

fn place(node: &Node<'_>) -> Option<Place> {
    let object = node.object(&shape::PLACE)?;
    Some(Place {
        sites: object.or("sites", Vec::new(), |list| list.each(stand_in, Node::parsed)),
        require: object.or("require", Vec::new(), |list| list.each(unread_condition, Node::parsed)),
        prefer: object.or("prefer", Vec::new(), |list| list.each(unread_wish, prefer)),
        spread: object.or("spread", Vec::new(), |list| list.sound(spread)),
        distinct_hosts: object.or("distinct_hosts", false, Node::flag),
        tolerate: object.or("tolerate", Vec::new(), |list| list.sound(Node::parsed)),
        apart: object.or("apart", Vec::new(), |list| list.sound(Node::parsed)),
        together: object.or("together", Vec::new(), |list| list.sound(Node::parsed)),
        all_or_none: object.or("all_or_none", false, Node::flag),
        private: object.or("private", false, Node::flag),
    })
}

fn spread(node: &Node<'_>) -> Option<Spread> {
    if !node.is_mapping() {
        return spread_over(node).map(Spread::from);
    }
    let object = node.object(&shape::SPREAD_OVER)?;
    let shares = object.maybe("shares", |shares| shares.entries(&Form::Shares)).unwrap_or_default();
    let share = |(value, node): (&str, Node<'_>)| Some((value.to_owned(), node.whole(1, MAX_SHARE.into())?));
    let shares = shares.into_iter().filter_map(share).collect();
    Some(Spread { over: object.maybe("over", spread_over)?, shares })
}

fn spread_over(node: &Node<'_>) -> Option<SpreadOver> {
    if node.starts_with("label.") { node.parsed() } else { node.word(shape::SPREAD, &SpreadOver::ALL) }
}

fn prefer(node: &Node<'_>) -> Option<Prefer> {
    let object = node.object(&shape::PREFER)?;
    let weight = object.or("weight", 0, |node| node.whole(-100, 100));
    Some(Prefer { when: object.or("when", unread_condition(), Node::parsed), weight })
}

fn unread_condition() -> Condition {
    Condition { attribute: Attribute::Arch, test: Test::Exists }
}

fn unread_wish() -> Prefer {
    Prefer { when: unread_condition(), weight: 0 }
}

fn health(node: &Node<'_>) -> Option<Health> {
    let object = node.object(&shape::HEALTH)?;
    let http = object.maybe("http", |node| {
        let http = node.object(&shape::HTTP)?;
        let port = http.or("port", stand_in(), Node::parsed);
        Some(HealthCheck::Http { port, path: http.or("path", "/".to_owned(), Node::text) })
    });
    let tcp = object.maybe("tcp", |node| {
        let tcp = node.object(&shape::TCP)?;
        Some(HealthCheck::Tcp { port: tcp.or("port", stand_in(), Node::parsed) })
    });
    Some(Health {
        every: object.or("every", DEFAULT_HEALTH_EVERY, Node::duration),
        timeout: object.or("timeout", DEFAULT_HEALTH_TIMEOUT, Node::duration),
        unhealthy_after: object
            .or("unhealthy_after", DEFAULT_UNHEALTHY_AFTER, |node| node.whole(1, shape::MANY)),
        check: http.or(tcp)?,
    })
}

fn restart(node: &Node<'_>) -> Option<Restart> {
    let object = node.object(&shape::RESTART)?;
    let default = Restart::default();
    Some(Restart {
        attempts: object.or("attempts", default.attempts, |node| node.whole(0, shape::MANY)),
        within: object.or("within", default.within, Node::duration),
        delay: object.or("delay", default.delay, Node::duration),
        max_delay: object.or("max_delay", default.max_delay, Node::duration),
    })
}

fn update(node: &Node<'_>) -> Option<Update> {
    let object = node.object(&shape::UPDATE)?;
    let default = Update::default();
    let most = i64::from(MAX_COUNT);
    Some(Update {
        max_unavailable: object.or("max_unavailable", default.max_unavailable, |node| node.whole(1, most)),
        canary: object.or("canary", default.canary, |node| node.whole(0, most)),
        healthy_for: object.or("healthy_for", default.healthy_for, Node::duration),
        deadline: object.or("deadline", default.deadline, Node::duration),
        auto_revert: object.or("auto_revert", default.auto_revert, Node::flag),
    })
}
