//! What an apply would do.

use serde_json::{Value, json};
use supercloud_proto::v1;

use super::{borough, explanation, object};

/// The word of a change.
pub fn change_word(change: i32) -> &'static str {
    match v1::ApplyChange::try_from(change) {
        Ok(v1::ApplyChange::Created) => "created",
        Ok(v1::ApplyChange::Updated) => "updated",
        Ok(v1::ApplyChange::Scaled) => "scaled",
        Ok(v1::ApplyChange::Unchanged) => "unchanged",
        Ok(v1::ApplyChange::Unspecified) | Err(_) => "changed in a way that this version does not know",
    }
}

/// Whose plan it is.
pub fn name(plan: &v1::WorkloadPlan) -> String {
    format!("{}/{}", plan.borough, plan.workload)
}

/// One plan for programs, with what its borough would use.
pub fn value(plan: &v1::WorkloadPlan, boroughs: &[v1::BoroughPlan]) -> Value {
    let diffs =
        plan.diffs.iter().map(|diff| json!({"path": diff.path, "before": diff.before, "after": diff.after}));
    let placements =
        plan.placements.iter().map(|placement| json!({"slot": placement.slot, "host": placement.host}));
    let borough = boroughs.iter().find(|borough| borough.borough == plan.borough);
    object([
        ("borough", json!(plan.borough)),
        ("workload", json!(plan.workload)),
        ("change", json!(change_word(plan.change))),
        ("revision", json!(plan.revision)),
        ("diffs", Value::Array(diffs.collect())),
        ("placements", Value::Array(placements.collect())),
        ("stops", json!(plan.stops)),
        ("displaces", json!(plan.displaces)),
        ("displaces_own", json!(plan.displaces_own)),
        ("waiting", json!(plan.waiting)),
        ("unplaced", json!(plan.unplaced)),
        ("unplaced_because", plan.unplaced_because.as_ref().map_or(Value::Null, explanation::value)),
        ("borough_use", borough.map_or(Value::Null, borough::plan_value)),
    ])
}

/// In lines for people.
pub fn text(plan: &v1::WorkloadPlan) -> String {
    let word = match change_word(plan.change) {
        "unchanged" => "would not change".to_owned(),
        word => format!("would be {word} (revision {})", plan.revision),
    };
    let mut text = format!("{} {word}\n", name(plan));
    for diff in &plan.diffs {
        text.push_str(&match (diff.before.as_str(), diff.after.as_str()) {
            ("", after) => format!("  + {}: {after}\n", diff.path),
            (before, "") => format!("  - {}: {before}\n", diff.path),
            (before, after) => format!("  ~ {}: {before} -> {after}\n", diff.path),
        });
    }
    for placement in &plan.placements {
        text.push_str(&format!("  place slot {} on {}\n", placement.slot, placement.host));
    }
    for stop in &plan.stops {
        text.push_str(&format!("  stop {stop}\n"));
    }
    for displaced in &plan.displaces_own {
        text.push_str(&format!("  displace {displaced}\n"));
    }
    let others = (plan.displaces as usize).saturating_sub(plan.displaces_own.len());
    if others > 0 {
        text.push_str(&format!("  displace {others} of other boroughs\n"));
    }
    if plan.waiting > 0 {
        text.push_str(&format!("  {} would wait, for its time or for the end of another\n", plan.waiting));
    }
    if plan.unplaced > 0 {
        text.push_str(&format!("  {} could not be placed: ", plan.unplaced));
        let because = plan.unplaced_because.as_ref().map(explanation::text).unwrap_or_default();
        text.push_str(&because.trim_end().replace('\n', "\n  "));
        text.push('\n');
    }
    text
}
