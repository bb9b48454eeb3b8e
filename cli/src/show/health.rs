//! How the scheduler cluster is.

use serde_json::{Value, json};
use supercloud_proto::v1;

use super::{node, object};
use crate::{
    output::{Headings, Shown, table},
    time::length,
};

const HEADINGS: Headings = Headings {
    usual: &[
        "node",
        "role",
        "term",
        "applied",
        "behind",
        "snapshot",
        "agents",
        "reachable",
        "disk free",
        "without it",
    ],
    wide: &["version", "up", "api", "peers"],
};

/// The whole for programs.
pub fn value(answer: &v1::SchedulerHealthResponse) -> Value {
    let committed = committed(answer);
    object([
        ("cluster_id", json!(answer.cluster_id)),
        ("answered_by", json!(answer.answered_by)),
        ("leader", json!(answer.leader)),
        ("commit_index", json!(committed)),
        ("nodes", Value::Array(answer.nodes.iter().map(|health| of_node(health, committed)).collect())),
        // Told even when there are none.
        ("healthy", json!(answer.warnings.is_empty())),
        ("warnings", json!(answer.warnings)),
    ])
}

/// The highest log index that any node knows to be committed.
fn committed(answer: &v1::SchedulerHealthResponse) -> u64 {
    let reports = answer.nodes.iter().filter_map(|health| health.report.as_ref());
    reports.map(|report| report.commit_index).max().unwrap_or(0)
}

fn of_node(health: &v1::NodeHealth, committed: u64) -> Value {
    let listed = health.node.as_ref().map(|one| node::shown(one).value).unwrap_or_default();
    let mut all = listed.as_object().cloned().unwrap_or_default();
    if let Some(report) = &health.report {
        let said = json!({
            "role": node::role(report.role()),
            "term": report.term,
            "leader": report.leader,
            "commit_index": report.commit_index,
            "applied_index": report.applied_index,
            "behind": committed.saturating_sub(report.applied_index),
            "last_index": report.last_index,
            "snapshot_index": report.snapshot_index,
            "version": report.version,
            "uptime_ms": report.uptime_ms,
            "agents": report.agents,
            "disk_free_bytes": report.disk_free_bytes,
            "disk_total_bytes": report.disk_total_bytes,
        });
        all.extend(said.as_object().cloned().unwrap_or_default());
    }
    let more = object([
        ("problem", json!(health.problem)),
        ("silent_ms", json!(health.silent_ms)),
        (
            "without_it",
            json!(health.removal.map(|left| json!({ "reachable": left.reachable, "needed": left.needed }))),
        ),
    ]);
    all.extend(more.as_object().cloned().unwrap_or_default());
    Value::Object(all)
}

/// The whole for people: a line, the nodes, and what to look at.
pub fn text(answer: &v1::SchedulerHealthResponse, wide: bool) -> String {
    let committed = committed(answer);
    let leader = match answer.leader {
        0 => "no leader known".to_owned(),
        id => format!("node {id} leads"),
    };
    let rows: Vec<Shown> = answer.nodes.iter().map(|health| row(health, committed)).collect();
    let mut text = format!(
        "cluster {}: {leader}, log index {committed}\n\n{}\n",
        answer.cluster_id,
        table(&HEADINGS, &rows, wide)
    );
    for warning in &answer.warnings {
        text.push_str(&format!("\nwarning: {warning}"));
    }
    text
}

fn row(health: &v1::NodeHealth, committed: u64) -> Shown {
    let listed = health.node.clone().unwrap_or_default();
    let reachable = match (listed.reachable, health.silent_ms) {
        (Some(true), _) => "yes".to_owned(),
        (Some(false), Some(silent)) => format!("no, for {}", length(silent)),
        (Some(false), None) => "no".to_owned(),
        (None, _) => "-".to_owned(),
    };
    let left = health.removal.map_or("-".to_owned(), |left| {
        let word = if left.reachable >= left.needed { "goes on" } else { "stops" };
        format!("{word} ({} of {})", left.reachable, left.needed)
    });
    let said = |show: fn(&v1::NodeReport) -> String| health.report.as_ref().map_or("-".to_owned(), show);
    let behind = health.report.as_ref().map(|report| committed.saturating_sub(report.applied_index));
    Shown {
        name: listed.id.to_string(),
        value: Value::Null,
        row: vec![
            listed.id.to_string(),
            node::role(listed.role()).to_owned(),
            said(|report| report.term.to_string()),
            said(|report| report.applied_index.to_string()),
            behind.map_or("-".to_owned(), |behind| behind.to_string()),
            said(|report| report.snapshot_index.to_string()),
            said(|report| report.agents.to_string()),
            reachable,
            said(|report| match report.disk_total_bytes {
                0 => "-".to_owned(),
                total => format!(
                    "{}% ({} GiB)",
                    u128::from(report.disk_free_bytes) * 100 / u128::from(total),
                    report.disk_free_bytes >> 30
                ),
            }),
            left,
            said(|report| report.version.clone()),
            said(|report| length(report.uptime_ms)),
            listed.api_address.clone(),
            listed.peer_address,
        ],
    }
}
