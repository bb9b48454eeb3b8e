//! Scheduler nodes.

use serde_json::{Value, json};
use supercloud_proto::v1;

use super::object;
use crate::output::{Headings, Shown};

/// Headings of the list.
pub const HEADINGS: Headings = Headings {
    usual: &["node", "role", "voter", "api", "peers", "reachable", "matched"],
    wide: &["version", "level"],
};

/// The word for a node's part.
pub fn role(role: v1::NodeRole) -> &'static str {
    match role {
        v1::NodeRole::Leader => "leader",
        v1::NodeRole::Follower => "follower",
        v1::NodeRole::Candidate => "candidate",
        v1::NodeRole::Learner => "learner",
        v1::NodeRole::Unspecified => "unknown",
    }
}

/// One node.
pub fn shown(node: &v1::Node) -> Shown {
    let reachable = match node.reachable {
        Some(true) => "yes",
        Some(false) => "no",
        None => "-",
    };
    // Only a leader asks the others.
    let known = |text: String| if node.level == 0 { "-".to_owned() } else { text };
    let matched = if node.matched_index == 0 { "-".to_owned() } else { node.matched_index.to_string() };
    Shown {
        name: node.id.to_string(),
        value: object([
            ("id", json!(node.id)),
            ("role", json!(role(node.role()))),
            ("voter", json!(node.voter)),
            ("api_address", json!(node.api_address)),
            ("peer_address", json!(node.peer_address)),
            ("matched_index", json!(node.matched_index)),
            ("reachable", json!(node.reachable)),
            ("version", json!(node.version)),
            ("level", json!(node.level)),
        ]),
        row: vec![
            node.id.to_string(),
            role(node.role()).to_owned(),
            if node.voter { "yes" } else { "no" }.to_owned(),
            node.api_address.clone(),
            node.peer_address.clone(),
            reachable.to_owned(),
            matched,
            known(node.version.clone()),
            known(node.level.to_string()),
        ],
    }
}

/// The whole cluster for programs.
pub fn cluster(answer: &v1::ListNodesResponse) -> Value {
    object([
        ("cluster_id", json!(answer.cluster_id)),
        ("leader", json!(answer.leader)),
        ("term", json!(answer.term)),
        ("commit_index", json!(answer.commit_index)),
        ("applied_index", json!(answer.applied_index)),
        ("answered_by", json!(answer.answered_by)),
        ("version", json!(answer.version)),
        ("level", json!(answer.level)),
        ("nodes", Value::Array(answer.nodes.iter().map(|node| shown(node).value).collect())),
    ])
}
