//! Boroughs.

use serde_json::json;
use supercloud_proto::{
    amount::{Bytes, MilliCpu},
    v1,
};

use super::object;
use crate::{
    output::{Headings, Shown, facts},
    time::moment,
};

/// Headings of the list.
pub const HEADINGS: Headings =
    Headings { usual: &["name", "title", "workloads", "instances", "cpu", "memory"], wide: &["created"] };

/// One borough.
pub fn shown(borough: &v1::Borough) -> Shown {
    let (cpu, memory) = (MilliCpu(borough.used_cpu_millis), Bytes(borough.used_memory_bytes));
    Shown {
        name: borough.name.clone(),
        value: object([
            ("name", json!(borough.name)),
            ("title", json!(borough.title)),
            ("workloads", json!(borough.workloads)),
            ("instances", json!(borough.instances)),
            ("used", json!({"cpu": cpu.to_string(), "memory": memory.exact()})),
            ("created", json!(moment(borough.created_ms))),
        ]),
        row: vec![
            borough.name.clone(),
            borough.title.clone(),
            borough.workloads.to_string(),
            borough.instances.to_string(),
            cpu.to_string(),
            memory.to_string(),
            moment(borough.created_ms),
        ],
    }
}

/// One borough in lines.
pub fn text(borough: &v1::Borough) -> String {
    facts(&[
        ("borough", borough.name.clone()),
        ("title", borough.title.clone()),
        ("workloads", borough.workloads.to_string()),
        ("instances", borough.instances.to_string()),
        (
            "uses",
            format!("{} cpu, {} memory", MilliCpu(borough.used_cpu_millis), Bytes(borough.used_memory_bytes)),
        ),
        ("created", moment(borough.created_ms)),
    ])
}
