//! Boroughs.

use serde_json::{Value, json};
use supercloud_proto::{
    amount::{Amounts, Bytes, MilliCpu},
    v1,
};

use super::{
    dash,
    host::{amounts, amounts_value},
    object,
};
use crate::{
    output::{Headings, Shown, facts},
    time::moment,
};

/// Headings of the list. Of each amount what is used, and the quota where there is one.
pub const HEADINGS: Headings = Headings {
    usual: &["name", "title", "workloads", "instances", "cpu", "memory", "disk", "guarantee", "weight"],
    wide: &["max priority", "private hosts", "created"],
};

/// One borough.
pub fn shown(borough: &v1::Borough) -> Shown {
    let (used, quota) = (used(borough), borough.quota.unwrap_or_default());
    let guarantee = amounts(borough.guarantee);
    Shown {
        name: borough.name.clone(),
        value: object([
            ("name", json!(borough.name)),
            ("title", json!(borough.title)),
            ("workloads", json!(borough.workloads)),
            ("instances", json!(borough.instances)),
            ("used", amounts_value(used)),
            ("quota", quota_value(&quota)),
            (
                "guarantee",
                if guarantee == Amounts::default() { Value::Null } else { amounts_value(guarantee) },
            ),
            ("weight", json!(borough.weight)),
            ("max_priority", json!(borough.max_priority)),
            ("above_max_priority", json!(borough.above_max_priority)),
            ("private_hosts", json!(borough.private_hosts)),
            ("used_private_hosts", json!(borough.used_private_hosts)),
            ("created", json!(moment(borough.created_ms))),
        ]),
        row: vec![
            borough.name.clone(),
            borough.title.clone(),
            borough.workloads.to_string(),
            borough.instances.to_string(),
            of_quota(used.cpu, quota.cpu_millis.map(MilliCpu), "/"),
            of_quota(used.memory, quota.memory_bytes.map(Bytes), "/"),
            of_quota(used.disk, quota.disk_bytes.map(Bytes), "/"),
            dash(&guarantee_text(guarantee)),
            borough.weight.to_string(),
            max_priority(borough),
            format!("{}/{}", borough.used_private_hosts, borough.private_hosts),
            moment(borough.created_ms),
        ],
    }
}

/// One borough in lines.
pub fn text(borough: &v1::Borough) -> String {
    let quota = borough.quota.unwrap_or_default();
    facts(&[
        ("borough", borough.name.clone()),
        ("title", borough.title.clone()),
        ("workloads", borough.workloads.to_string()),
        ("instances", borough.instances.to_string()),
        ("uses", uses(used(borough), &quota)),
        ("guarantee", guarantee_text(amounts(borough.guarantee))),
        ("weight", borough.weight.to_string()),
        ("priority", priority(borough)),
        ("private", private(borough)),
        ("created", moment(borough.created_ms)),
    ])
}

/// The highest priority; empty where it is not told.
fn max_priority(borough: &v1::Borough) -> String {
    borough.max_priority.map_or_else(String::new, |most| most.to_string())
}

/// The highest priority, with who is above it.
fn priority(borough: &v1::Borough) -> String {
    let most = max_priority(borough);
    let above = if borough.above_max_priority > 0 { format!("; {}", above(borough)) } else { String::new() };
    if most.is_empty() { most } else { format!("at most {most}{above}") }
}

/// The hosts that it keeps to itself; empty where there are none and may be none.
fn private(borough: &v1::Borough) -> String {
    let (used, most) = (borough.used_private_hosts, borough.private_hosts);
    if used + most == 0 { String::new() } else { format!("{used} of {most} hosts") }
}

/// How many workloads have a higher priority than would now be let in.
pub fn above(borough: &v1::Borough) -> String {
    let (count, most) = (borough.above_max_priority, max_priority(borough));
    let who = if count == 1 { "1 workload is".to_owned() } else { format!("{count} workloads are") };
    format!("{who} above {most}, until applied again")
}

fn used(borough: &v1::Borough) -> Amounts {
    Amounts {
        cpu: MilliCpu(borough.used_cpu_millis),
        memory: Bytes(borough.used_memory_bytes),
        disk: Bytes(borough.used_disk_bytes),
    }
}

fn uses(used: Amounts, quota: &v1::Quota) -> String {
    format!(
        "{} cpu, {} memory, {} disk",
        of_quota(used.cpu, quota.cpu_millis.map(MilliCpu), " of "),
        of_quota(used.memory, quota.memory_bytes.map(Bytes), " of "),
        of_quota(used.disk, quota.disk_bytes.map(Bytes), " of "),
    )
}

/// What is used, and of how much where there is a quota.
fn of_quota<T: std::fmt::Display>(used: T, quota: Option<T>, of: &str) -> String {
    quota.map_or_else(|| used.to_string(), |quota| format!("{used}{of}{quota}"))
}

/// What is guaranteed; empty: nothing.
fn guarantee_text(guarantee: Amounts) -> String {
    let parts = [
        (guarantee.cpu.0 > 0).then(|| format!("{} cpu", guarantee.cpu)),
        (guarantee.memory.0 > 0).then(|| format!("{} memory", guarantee.memory)),
        (guarantee.disk.0 > 0).then(|| format!("{} disk", guarantee.disk)),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// A quota for programs: the amounts that have one.
fn quota_value(quota: &v1::Quota) -> Value {
    object([
        ("cpu", quota.cpu_millis.map_or(Value::Null, |cpu| json!(MilliCpu(cpu).to_string()))),
        ("memory", quota.memory_bytes.map_or(Value::Null, |size| json!(Bytes(size).exact()))),
        ("disk", quota.disk_bytes.map_or(Value::Null, |size| json!(Bytes(size).exact()))),
    ])
}

/// What an apply would let a borough use, for programs.
pub fn plan_value(plan: &v1::BoroughPlan) -> Value {
    object([
        ("quota", quota_value(&plan.quota.unwrap_or_default())),
        ("before", amounts_value(amounts(plan.before))),
        ("after", amounts_value(amounts(plan.after))),
    ])
}

/// The same in a line for people.
pub fn plan_text(plan: &v1::BoroughPlan) -> String {
    let (before, after, quota) = (amounts(plan.before), amounts(plan.after), plan.quota.unwrap_or_default());
    format!(
        "borough {} would use {}; now {} cpu, {} memory, {} disk",
        plan.borough,
        uses(after, &quota),
        before.cpu,
        before.memory,
        before.disk
    )
}
