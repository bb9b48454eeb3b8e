//! What differs between two specs, field by field, in the words of the file: for `plan`, and for people who compare revisions.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::WorkloadSpec;
use crate::problem::join;

/// One field that differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldDiff {
    /// Path of the field.
    pub path: String,
    /// Its value before; `None`: it was not there.
    pub before: Option<String>,
    /// Its value after; `None`: it is not there.
    pub after: Option<String>,
}

/// The fields in which two specs differ, by path and with list items in their order; empty: they are the same.
pub fn diff(before: &WorkloadSpec, after: &WorkloadSpec) -> Vec<FieldDiff> {
    let mut found = Vec::new();
    compare("", Some(&before.to_value()), Some(&after.to_value()), &mut found);
    found
}

fn compare(path: &str, before: Option<&Value>, after: Option<&Value>, found: &mut Vec<FieldDiff>) {
    if before == after {
        return;
    }
    let mappings = (before.and_then(Value::as_object), after.and_then(Value::as_object));
    let lists = (before.and_then(Value::as_array), after.and_then(Value::as_array));
    match (mappings, lists) {
        // A mapping that comes or goes as a whole is still told field by field.
        ((Some(_), _) | (_, Some(_)), _) if is_mapping_or_none(before) && is_mapping_or_none(after) => {
            let (before, after) = mappings;
            let names: BTreeSet<&String> =
                before.into_iter().chain(after).flat_map(|mapping| mapping.keys()).collect();
            for name in names {
                compare(&join(path, name), field(before, name), field(after, name), found);
            }
        }
        (_, (Some(before), Some(after))) => {
            for i in 0..before.len().max(after.len()) {
                compare(&format!("{path}[{i}]"), before.get(i), after.get(i), found);
            }
        }
        _ => {
            let shown = |value: Option<&Value>| value.map(show);
            found.push(FieldDiff { path: path.to_owned(), before: shown(before), after: shown(after) });
        }
    }
}

fn field<'v>(mapping: Option<&'v Map<String, Value>>, name: &str) -> Option<&'v Value> {
    mapping.and_then(|mapping| mapping.get(name))
}

fn is_mapping_or_none(value: Option<&Value>) -> bool {
    value.is_none_or(Value::is_object)
}

/// A value on one line: a text as it is, all else as JSON.
fn show(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{samples, spec::parse};

    const BEFORE: &str = "
workload: w
borough: b
kind: service
count: 3
container: { image: a:1, command: [ x, y ], ports: { http: 80 } }
resources: { cpu: 250m, memory: 64MiB }
";
    const AFTER: &str = "
workload: w
borough: b
kind: service
count: 5
container: { image: a:2, command: [ x ], ports: { http: { port: 80, host: 8080 } }, env: { A: one } }
resources: { cpu: 250m, memory: 64MiB }
place: { sites: [ slough ] }
";

    #[test]
    fn differences_are_told_field_by_field() {
        let spec = |text| parse(text).unwrap().remove(0);
        let shown: Vec<String> = diff(&spec(BEFORE), &spec(AFTER))
            .into_iter()
            .map(|d| {
                format!("{}: {} -> {}", d.path, d.before.unwrap_or_default(), d.after.unwrap_or_default())
            })
            .collect();
        assert_eq!(
            shown,
            [
                "container.command[1]: y -> ",
                "container.env.A:  -> one",
                "container.image: a:1 -> a:2",
                "container.ports.http: 80 -> {\"host\":8080,\"port\":80}",
                "count: 3 -> 5",
                "place.sites:  -> [\"slough\"]",
            ]
        );
    }

    proptest! {
        #[test]
        fn specs_differ_exactly_when_a_field_does(a in samples::workload_spec(), b in samples::workload_spec()) {
            prop_assert_eq!(diff(&a, &a), []);
            prop_assert_eq!(diff(&a, &b).is_empty(), a == b);
        }
    }
}
