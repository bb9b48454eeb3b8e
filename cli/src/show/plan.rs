//! What an apply would do.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use supercloud_proto::v1;

use super::{borough, explanation, object};

/// Of more than so many instances the hosts are told, with how many on each.
const MANY: usize = 12;

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
        ("stops", plan.stops.iter().map(stop_value).collect()),
        ("displaces", json!(plan.displaces)),
        ("displaced", plan.displaced.iter().map(stop_value).collect()),
        ("waiting", json!(plan.waiting)),
        ("unplaced", json!(plan.unplaced)),
        ("unplaced_because", plan.unplaced_because.as_ref().map_or(Value::Null, explanation::value)),
        ("borough_use", borough.map_or(Value::Null, borough::plan_value)),
    ])
}

fn stop_value(stop: &v1::PlannedStop) -> Value {
    let of = format!("{}/{}", stop.borough, stop.workload);
    json!({"instance": stop.instance, "workload": of, "host": stop.host})
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
    text.push_str(&placements(&plan.placements));
    text.push_str(&stops("stop", &plan.stops, |stop| stop.instance.clone()));
    let whose = |stop: &v1::PlannedStop| format!("{} of {}/{}", stop.instance, stop.borough, stop.workload);
    text.push_str(&stops("displace", &plan.displaced, whose));
    let others = (plan.displaces as usize).saturating_sub(plan.displaced.len());
    if others > 0 {
        text.push_str(&format!("  displace {others} of other boroughs\n"));
    }
    if plan.waiting > 0 {
        text.push_str(&format!("  {} would wait, for its time or for the end of another\n", plan.waiting));
    }
    if plan.unplaced > 0 {
        text.push_str(&format!("  {} could not be placed: ", plan.unplaced));
        let whom = if plan.unplaced == 1 { "it" } else { "one of them" };
        let because = plan.unplaced_because.as_ref().map(|because| explanation::text_of(because, whom));
        text.push_str(&because.unwrap_or_default().trim_end().replace('\n', "\n  "));
        text.push('\n');
    }
    text
}

/// One line for each, or where they are many for each host.
fn placements(placements: &[v1::PlannedPlacement]) -> String {
    if placements.len() <= MANY {
        let line = |one: &v1::PlannedPlacement| format!("  place slot {} on {}\n", one.slot, one.host);
        return placements.iter().map(line).collect();
    }
    let hosts = by_host(placements.iter().map(|placement| (placement.host.as_str(), placement.slot)));
    let line = |(host, slots): (&str, Vec<u32>)| {
        let (first, last) = (slots.iter().min().unwrap_or(&0), slots.iter().max().unwrap_or(&0));
        format!("  place {} on {host}, of slots {first} to {last}\n", slots.len())
    };
    hosts.into_iter().map(line).collect()
}

/// The same of those that end.
fn stops(verb: &str, stops: &[v1::PlannedStop], name: impl Fn(&v1::PlannedStop) -> String) -> String {
    let on = |host: &str| if host.is_empty() { String::new() } else { format!(" on {host}") };
    if stops.len() <= MANY {
        let line = |stop: &v1::PlannedStop| format!("  {verb} {}{}\n", name(stop), on(&stop.host));
        return stops.iter().map(line).collect();
    }
    let hosts = by_host(stops.iter().map(|stop| (stop.host.as_str(), ())));
    hosts.into_iter().map(|(host, there)| format!("  {verb} {}{}\n", there.len(), on(host))).collect()
}

/// What is on each host, by the names of the hosts.
fn by_host<'h, T>(all: impl Iterator<Item = (&'h str, T)>) -> BTreeMap<&'h str, Vec<T>> {
    let mut hosts: BTreeMap<&str, Vec<T>> = BTreeMap::new();
    for (host, one) in all {
        hosts.entry(host).or_default().push(one);
    }
    hosts
}
