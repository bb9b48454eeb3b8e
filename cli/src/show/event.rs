//! Events.

use serde_json::json;
use supercloud_proto::v1;

use super::object;
use crate::{
    output::{Headings, Shown},
    time::moment,
};

/// Headings of the list.
pub const HEADINGS: Headings =
    Headings { usual: &["time", "event", "about", "what", "by"], wide: &["index"] };

/// What it is about, the nearest thing first.
fn about(event: &v1::Event) -> String {
    let workload = match (event.borough.as_str(), event.workload.as_str()) {
        ("", workload) => workload.to_owned(),
        (borough, "") => borough.to_owned(),
        (borough, workload) => format!("{borough}/{workload}"),
    };
    let parts = [workload, event.instance.clone(), event.host.clone()];
    parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ")
}

/// One event.
pub fn shown(event: &v1::Event) -> Shown {
    Shown {
        name: format!("{}.{}", event.index, event.ordinal),
        value: object([
            ("index", json!(event.index)),
            ("ordinal", json!(event.ordinal)),
            ("time", json!(moment(event.time_ms))),
            ("kind", json!(event.kind)),
            ("borough", json!(event.borough)),
            ("workload", json!(event.workload)),
            ("instance", json!(event.instance)),
            ("host", json!(event.host)),
            ("message", json!(event.message)),
            ("by", json!(event.by)),
            ("runs", event.runs.iter().map(run).collect()),
        ]),
        row: vec![
            moment(event.time_ms),
            event.kind.clone(),
            about(event),
            event.message.clone(),
            event.by.clone(),
            event.index.to_string(),
        ],
    }
}

/// Instances that follow each other, of an event of many.
fn run(run: &v1::EventRun) -> serde_json::Value {
    object([("first", json!(run.first)), ("count", json!(run.count)), ("host", json!(run.host))])
}

/// One event in a line.
pub fn text(event: &v1::Event) -> String {
    format!("{}  {:<20}  {}  {}", moment(event.time_ms), event.kind, about(event), event.message)
}
