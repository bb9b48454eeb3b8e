//! Saved states.

use std::path::Path;

use serde_json::{Value, json};
use supercloud_proto::saved::Summary;

use super::object;
use crate::{
    output::{Shown, facts},
    time::moment,
};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// One file.
pub fn shown(file: &Path, summary: &Summary) -> Shown {
    let Summary { head, whole, state_format, boroughs, workloads, instances, hosts } = summary;
    let node = |member: &supercloud_proto::saved::SavedMember| {
        object([
            ("id", json!(member.id)),
            ("api_address", json!(member.api_address)),
            ("peer_address", json!(member.peer_address)),
            ("voter", json!(member.voter)),
        ])
    };
    Shown {
        name: file.display().to_string(),
        value: object([
            ("file", json!(file.display().to_string())),
            ("cluster_id", json!(head.cluster_id)),
            ("index", json!(head.index)),
            ("term", json!(head.term)),
            ("saved", json!(moment(head.saved_ms))),
            ("saved_by", json!(head.node_id)),
            ("confirmed", json!(head.confirmed)),
            ("version", json!(head.version)),
            ("format", json!(head.format)),
            ("state_format", json!(state_format)),
            ("boroughs", json!(boroughs)),
            ("workloads", json!(workloads)),
            ("instances", json!(instances)),
            ("hosts", json!(hosts)),
            ("nodes", Value::Array(head.members.iter().map(node).collect())),
            ("bytes", json!(whole.bytes)),
            ("sha256", json!(hex(&whole.sha256))),
        ]),
        row: Vec::new(),
    }
}

/// One file for people.
pub fn text(summary: &Summary) -> String {
    let Summary { head, whole, state_format, boroughs, workloads, instances, hosts } = summary;
    let nodes: Vec<String> =
        head.members.iter().map(|member| format!("{} ({})", member.id, member.api_address)).collect();
    let confirmed = if head.confirmed { "" } else { "; a majority did not confirm that it was the latest" };
    facts(&[
        ("cluster", head.cluster_id.clone()),
        ("log index", format!("{}, term {}", head.index, head.term)),
        ("saved", format!("{} by node {}{confirmed}", moment(head.saved_ms), head.node_id)),
        ("nodes", nodes.join(", ")),
        (
            "holds",
            format!("{boroughs} boroughs, {workloads} workloads, {instances} instances, {hosts} hosts"),
        ),
        ("format", format!("{} (state {state_format}), written by version {}", head.format, head.version)),
        ("size", format!("{} bytes", whole.bytes)),
        ("sha256", hex(&whole.sha256)),
    ])
}

/// What to run on the first node.
pub fn restore_command(file: &Path, summary: &Summary) -> String {
    let first = summary.head.members.first();
    let address = |of: fn(&supercloud_proto::saved::SavedMember) -> &String, otherwise: &str| {
        first.map_or(otherwise.to_owned(), |member| of(member).clone())
    };
    format!(
        "supercloud-scheduler restore --from {} --authority ca.pem --api-address {} --peer-address {}",
        file.display(),
        address(|member| &member.api_address, "HOST:7400"),
        address(|member| &member.peer_address, "HOST:7401"),
    )
}
