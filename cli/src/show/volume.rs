//! Volumes: where they live.

use serde_json::json;
use supercloud_proto::v1;

use super::{dash, object};
use crate::{
    output::{Headings, Shown},
    time::{age, moment, now},
};

/// Headings of the list.
pub const HEADINGS: Headings =
    Headings { usual: &["borough", "workload", "slot", "host", "since", "in use by"], wide: &[] };

/// Where the volumes of one slot live.
pub fn shown(home: &v1::VolumeHome) -> Shown {
    Shown {
        name: format!("{}/{} {}", home.borough, home.workload, home.host),
        value: object([
            ("borough", json!(home.borough)),
            ("workload", json!(home.workload)),
            ("slot", json!(home.slot)),
            ("host", json!(home.host)),
            ("since", json!(moment(home.since_ms))),
            ("used_by", json!(home.used_by)),
        ]),
        row: vec![
            home.borough.clone(),
            home.workload.clone(),
            home.slot.to_string(),
            home.host.clone(),
            age(home.since_ms, now()),
            dash(&home.used_by.join(" ")),
        ],
    }
}
