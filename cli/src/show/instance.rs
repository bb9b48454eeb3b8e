//! Instances and their tasks.

use serde_json::{Value, json};
use supercloud_proto::{
    amount::{Amounts, Bytes, Mbits},
    cores::Cores,
    device::Share,
    instance::{Desired, InstanceState},
    v1,
};

use super::{dash, host::host_amounts_value, object};
use crate::{
    output::{Headings, Shown, facts},
    time::{age, moment, now},
};

/// Headings of the list.
pub const HEADINGS: Headings = Headings {
    usual: &["instance", "workload", "rev", "host", "state", "restarts", "ports", "age"],
    wide: &["slot", "runtime id", "reason"],
};

/// The word of a state; a number that this version does not know is shown as it is.
pub fn state_word(state: i32) -> String {
    InstanceState::try_from(state)
        .map_or_else(|_| format!("state {state}"), |state| state.as_str().to_owned())
}

/// Whether it shall run.
pub fn is_wanted(instance: &v1::Instance) -> bool {
    Desired::try_from(instance.desired).is_ok_and(|desired| desired == Desired::Run)
}

/// Whether it runs.
pub fn is_running(instance: &v1::Instance) -> bool {
    InstanceState::try_from(instance.state).is_ok_and(|state| state == InstanceState::Running)
}

/// Restarts of all its tasks.
pub fn restarts(instance: &v1::Instance) -> u32 {
    instance.tasks.iter().map(|task| task.restarts).sum()
}

/// What is wanted and seen, in one word: one that is told to stop is stopping, whatever it does.
pub fn word(instance: &v1::Instance) -> String {
    let state = state_word(instance.state);
    if is_wanted(instance) || matches!(state.as_str(), "stopped" | "lost" | "stopping" | "failed") {
        state
    } else {
        "stopping".to_owned()
    }
}

fn ports(instance: &v1::Instance) -> String {
    let one = |port: &v1::PortBinding| format!("{}={}:{}", port.name, port.address, port.host_port);
    instance.ports.iter().map(one).collect::<Vec<_>>().join(",")
}

/// Why it is in its state: its own reason, or the last end of a task.
pub fn reason(instance: &v1::Instance) -> String {
    let of_task = || instance.tasks.iter().map(|task| task.reason.clone()).find(|reason| !reason.is_empty());
    let own =
        [&instance.state_reason, &instance.desired_reason].into_iter().find(|reason| !reason.is_empty());
    own.cloned().or_else(of_task).unwrap_or_default()
}

/// One instance.
pub fn shown(instance: &v1::Instance) -> Shown {
    let runtime = instance.tasks.first().map(|task| task.runtime_id.clone()).unwrap_or_default();
    Shown {
        name: instance.id.clone(),
        value: value(instance),
        row: vec![
            instance.id.clone(),
            format!("{}/{}", instance.borough, instance.workload),
            instance.revision.to_string(),
            dash(&instance.host),
            word(instance),
            restarts(instance).to_string(),
            dash(&ports(instance)),
            age(instance.created_ms, now()),
            instance.slot.to_string(),
            dash(runtime.get(..12).unwrap_or(&runtime)),
            reason(instance),
        ],
    }
}

fn value(instance: &v1::Instance) -> Value {
    let taken = instance.taken.map(Amounts::from).unwrap_or_default();
    object([
        ("id", json!(instance.id)),
        ("borough", json!(instance.borough)),
        ("workload", json!(instance.workload)),
        ("revision", json!(instance.revision)),
        ("slot", json!(instance.slot)),
        ("host", json!(instance.host)),
        ("desired", json!(if is_wanted(instance) { "run" } else { "stop" })),
        ("desired_reason", json!(instance.desired_reason)),
        ("state", json!(state_word(instance.state))),
        ("reason", json!(instance.state_reason)),
        ("tasks", Value::Array(instance.tasks.iter().map(task).collect())),
        ("ports", Value::Array(instance.ports.iter().map(port).collect())),
        ("takes", host_amounts_value(taken, Mbits(instance.taken.unwrap_or_default().network_mbits))),
        ("devices", Value::Array(instance.devices.iter().map(device).collect())),
        ("cores", json!(cores(instance))),
        ("replaces", json!(instance.replaces)),
        ("awaited_host", json!(instance.awaited_host)),
        ("failures", json!(instance.failures)),
        ("order_index", json!(instance.order_index)),
        ("created", json!(moment(instance.created_ms))),
        ("changed", json!(moment(instance.changed_ms))),
        ("not_before", json!(moment(instance.not_before_ms))),
    ])
}

fn task(task: &v1::TaskStatus) -> Value {
    object([
        ("name", json!(task.name)),
        ("state", json!(state_word(task.state))),
        ("runtime_id", json!(task.runtime_id)),
        ("restarts", json!(task.restarts)),
        ("exit_code", json!(task.exit_code)),
        ("reason", json!(task.reason)),
        ("started", json!(moment(task.started_ms))),
        ("finished", json!(moment(task.finished_ms))),
    ])
}

fn device(device: &v1::GivenDevice) -> Value {
    object([
        ("name", json!(device.name)),
        ("kind", json!(device.kind)),
        ("share", json!(Share(device.share_millis).to_string())),
    ])
}

/// Its own cores in words: `2-3 of node 0`; nothing where it has none.
fn cores(instance: &v1::Instance) -> String {
    let cores = instance.cores.clone().map(Cores::try_from);
    cores.and_then(Result::ok).map(|cores| cores.to_string()).unwrap_or_default()
}

/// Its devices in words: `gpu0, 0.5 of gpu1`.
fn devices(instance: &v1::Instance) -> String {
    let one = |device: &v1::GivenDevice| match Share(device.share_millis) {
        Share::WHOLE => device.name.clone(),
        share => format!("{share} of {}", device.name),
    };
    instance.devices.iter().map(one).collect::<Vec<_>>().join(", ")
}

fn port(port: &v1::PortBinding) -> Value {
    object([
        ("name", json!(port.name)),
        ("task", json!(port.task)),
        ("port", json!(port.port)),
        ("host_port", json!(port.host_port)),
        ("address", json!(port.address)),
        ("protocol", json!(if port.udp { "udp" } else { "tcp" })),
    ])
}

/// One instance in lines.
pub fn text(instance: &v1::Instance, archived: bool) -> String {
    let taken = instance.taken.map(Amounts::from).unwrap_or_default();
    let mut takes = format!("{} cpu, {} memory, {} disk", taken.cpu, taken.memory, taken.disk);
    let network = Mbits(instance.taken.unwrap_or_default().network_mbits);
    if network.0 > 0 {
        takes += &format!(", {network} network");
    }
    let mut text = facts(&[
        ("instance", instance.id.clone()),
        (
            "workload",
            format!(
                "{}/{}, revision {}, slot {}",
                instance.borough, instance.workload, instance.revision, instance.slot
            ),
        ),
        (
            "state",
            if archived {
                format!("{} (finished; from the archive)", word(instance))
            } else {
                word(instance)
            },
        ),
        ("reason", reason(instance)),
        ("host", dash(&instance.host)),
        ("awaits room on", instance.awaited_host.clone()),
        ("ports", ports(instance)),
        ("devices", devices(instance)),
        ("cores", cores(instance)),
        ("takes", if taken.memory > Bytes(0) { takes } else { String::new() }),
        ("replaces", instance.replaces.clone()),
        ("created", moment(instance.created_ms)),
        ("not before", moment(instance.not_before_ms)),
    ]);
    for task in &instance.tasks {
        text.push_str(&task_text(task));
    }
    text
}

fn task_text(task: &v1::TaskStatus) -> String {
    let ended = task.exit_code.map(|code| format!("exit code {code}")).unwrap_or_default();
    let facts = facts(&[
        ("  state", state_word(task.state)),
        ("  runtime id", task.runtime_id.clone()),
        ("  restarts", task.restarts.to_string()),
        ("  last end", ended),
        ("  reason", task.reason.clone()),
        ("  started", moment(task.started_ms)),
        ("  finished", moment(task.finished_ms)),
    ]);
    format!("task {}\n{facts}", task.name)
}
