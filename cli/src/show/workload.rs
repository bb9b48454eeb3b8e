//! Workloads, their counts and revisions.

use serde_json::{Value, json};
use supercloud_proto::{
    spec::{WorkloadKind, WorkloadSpec},
    v1,
};

use super::{instance, object};
use crate::{
    output::{Headings, Shown, facts, table},
    time::{age, moment, now},
};

/// Headings of the list.
pub const HEADINGS: Headings = Headings {
    usual: &["workload", "kind", "rev", "running", "state", "changed"],
    wide: &["priority", "pending", "starting", "failing", "stopping", "index"],
};

/// Headings of the history.
pub const REVISIONS: Headings = Headings { usual: &["revision", "applied", "by", "count"], wide: &[] };

fn spec_of(spec: Option<&v1::WorkloadSpec>) -> v1::WorkloadSpec {
    spec.cloned().unwrap_or_default()
}

fn spec_value(spec: &v1::WorkloadSpec) -> Value {
    WorkloadSpec::try_from(spec.clone()).map_or(Value::Null, |spec| spec.to_value())
}

/// Borough and workload.
pub fn full_name(workload: &v1::Workload) -> String {
    let spec = spec_of(workload.spec.as_ref());
    format!("{}/{}", spec.borough, spec.workload)
}

/// How it stands, in one word.
pub fn word(workload: &v1::Workload) -> &'static str {
    let counts = workload.counts.unwrap_or_default();
    let here = counts.running + counts.completed;
    match () {
        () if workload.stopped && counts.stopping > 0 => "stopping",
        () if workload.stopped => "stopped",
        () if counts.desired > 0 && counts.completed >= counts.desired => "completed",
        () if counts.failing > 0 => "failing",
        () if counts.pending > 0 => "pending",
        () if here >= counts.desired && counts.current >= counts.desired => "running",
        () if counts.current < counts.desired && here >= counts.desired => "rolling out",
        () => "starting",
    }
}

/// One workload.
pub fn shown(workload: &v1::Workload) -> Shown {
    let spec = spec_of(workload.spec.as_ref());
    let counts = workload.counts.unwrap_or_default();
    let kind = WorkloadKind::try_from(spec.kind).map_or("?", WorkloadKind::as_str);
    Shown {
        name: full_name(workload),
        value: value(workload, &[]),
        row: vec![
            full_name(workload),
            kind.to_owned(),
            workload.revision.to_string(),
            format!("{}/{}", counts.running, counts.desired),
            word(workload).to_owned(),
            age(workload.changed_ms, now()),
            spec.priority.to_string(),
            counts.pending.to_string(),
            counts.starting.to_string(),
            counts.failing.to_string(),
            counts.stopping.to_string(),
            workload.changed_index.to_string(),
        ],
    }
}

/// A workload with its instances, for programs.
pub fn value(workload: &v1::Workload, instances: &[v1::Instance]) -> Value {
    let counts = workload.counts.unwrap_or_default();
    object([
        ("spec", spec_value(&spec_of(workload.spec.as_ref()))),
        ("revision", json!(workload.revision)),
        ("state", json!(word(workload))),
        ("stopped", json!(workload.stopped)),
        (
            "counts",
            json!({
                "desired": counts.desired, "running": counts.running, "pending": counts.pending,
                "starting": counts.starting, "failing": counts.failing, "stopping": counts.stopping,
                "completed": counts.completed, "current": counts.current, "unknown": counts.unknown,
            }),
        ),
        ("applied_by", json!(workload.applied_by)),
        ("created", json!(moment(workload.created_ms))),
        ("changed", json!(moment(workload.changed_ms))),
        ("changed_index", json!(workload.changed_index)),
        ("instances", Value::Array(instances.iter().map(|one| instance::shown(one).value).collect())),
    ])
}

/// One workload in lines, with its instances as a table.
pub fn text(workload: &v1::Workload, instances: &[v1::Instance], wide: bool) -> String {
    let spec = spec_of(workload.spec.as_ref());
    let counts = workload.counts.unwrap_or_default();
    let facts = facts(&[
        ("workload", full_name(workload)),
        (
            "kind",
            WorkloadKind::try_from(spec.kind)
                .map_or_else(|_| "?".to_owned(), |kind| kind.as_str().to_owned()),
        ),
        (
            "revision",
            format!(
                "{} (applied {} by {})",
                workload.revision,
                moment(workload.applied_ms),
                workload.applied_by
            ),
        ),
        ("state", format!("{}: {} of {} running", word(workload), counts.running, counts.desired)),
        ("pending", some(counts.pending)),
        ("failing", some(counts.failing)),
    ]);
    if instances.is_empty() {
        return facts;
    }
    let rows: Vec<Shown> = instances.iter().map(instance::shown).collect();
    format!("{facts}\n{}\n", table(&instance::HEADINGS, &rows, wide))
}

fn some(count: u32) -> String {
    if count == 0 { String::new() } else { count.to_string() }
}

/// One revision.
pub fn revision(revision: &v1::WorkloadRevision) -> Shown {
    let spec = spec_of(revision.spec.as_ref());
    Shown {
        name: revision.revision.to_string(),
        value: object([
            ("revision", json!(revision.revision)),
            ("applied", json!(moment(revision.applied_ms))),
            ("applied_by", json!(revision.applied_by)),
            ("spec", spec_value(&spec)),
        ]),
        row: vec![
            revision.revision.to_string(),
            moment(revision.applied_ms),
            revision.applied_by.clone(),
            spec.count.to_string(),
        ],
    }
}
