//! The published schema is the one that the code gives, and agrees with the reader field by field.

use std::{collections::BTreeSet, fs, path::Path};

use super::*;
use crate::spec::{WorkloadSpec, parse::read_unchecked};

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/spec.schema.json");

/// To write the file anew: `WRITE_SCHEMA=1 cargo test -p supercloud-proto the_published_schema`.
#[test]
fn the_published_schema_is_this_one() {
    let text = format!("{:#}\n", schema());
    if std::env::var_os("WRITE_SCHEMA").is_some() {
        fs::write(Path::new(FILE), &text).unwrap();
    }
    let published = fs::read_to_string(Path::new(FILE)).unwrap();
    assert!(
        published == text,
        "docs/spec.schema.json is not what schema() makes; see this test on how to write it anew"
    );
}

/// Two specs that together have every field.
const FULL: [&str; 3] = [
    r#"{ "workload": "w", "borough": "b", "kind": "service", "count": 2, "priority": 1, "class": "spare",
    "container": { "image": "a", "command": ["x"], "env": {"A": "b"}, "user": "u",
        "ports": {"a": 1, "b": {"port": 2, "host": 3, "protocol": "udp"}},
        "mounts": [{"volume": "v", "path": "/a", "read_only": true}] },
    "resources": {"cpu": "1", "memory": "1GiB", "disk": "1B", "pids": 3, "network": "1.5Gbps", "dedicated": true, "numa": "one", "devices": [
        {"kind": "gpu", "count": 2, "share": 0.5, "models": ["T4"], "require": ["label.a exists"]}]},
    "place": {"sites": ["s"], "require": ["arch == a"], "prefer": [{"when": "arch == a", "weight": -3}],
        "spread": ["site", "label.a", {"over": "rack", "shares": {"r1": 70}}], "distinct_hosts": true,
        "all_or_none": true, "tolerate": ["gpu", "team=parks"], "apart": ["x"], "together": ["y"],
        "private": true},
    "health": {"http": {"port": "a", "path": "/"}, "every": "1s", "timeout": "2s", "unhealthy_after": 4},
    "restart": {"attempts": 1, "within": "1s", "delay": "2s", "max_delay": "3s"},
    "update": {"max_unavailable": 2, "canary": 1, "healthy_for": "1s", "deadline": "2s", "auto_revert": true},
    "stop_grace": "3s", "exclusive": true, "schedule": "x" }"#,
    r#"{ "workload": "w", "borough": "b", "kind": "batch",
    "tasks": [{"name": "a", "container": {"image": "a"}},
        {"name": "b", "vm": {"image": {"url": "u", "sha256": "0", "format": "raw"}}}],
    "health": {"tcp": {"port": "a"}},
    "resources": {"cpu": 0.5, "memory": 0} }"#,
    r#"{ "workload": "w", "borough": "b", "kind": "batch",
    "vm": {"image": {"path": "p"}, "boot": {"kernel": "k", "initrd": "i", "cmdline": "c"},
        "cloud_init": {"user_data": "u", "meta_data": "m", "network_config": "n"},
        "disks": [{"name": "d", "size": "1GiB"}]},
    "resources": {"cpu": 1, "memory": "1GiB"} }"#,
];

/// Whether a value is as a schema says, for the words that ours uses (patterns aside), and which fields of which definition it
/// has. It reads only the schema and shares nothing with the reader.
struct Validator {
    root: Value,
    used: BTreeSet<String>,
}

impl Validator {
    fn new() -> Self {
        Self { root: schema(), used: BTreeSet::new() }
    }

    fn valid(&mut self, schema: &Value, value: &Value, name: &str) -> bool {
        if let Some(reference) = schema["$ref"].as_str() {
            let name = reference.strip_prefix("#/$defs/").unwrap();
            let definition = self.root["$defs"][name].clone();
            return self.valid(&definition, value, name);
        }
        if let Some(words) = schema["enum"].as_array() {
            return words.contains(value);
        }
        if let Some(only) = schema.get("const") {
            return only == value;
        }
        if let Some(choices) = schema["anyOf"].as_array() {
            return choices.iter().any(|choice| self.valid(choice, value, name));
        }
        match schema["type"].as_str().unwrap() {
            "string" => value.is_string(),
            "boolean" => value.is_boolean(),
            "number" => value.as_f64().is_some_and(|number| number > 0.0),
            "integer" => value.as_i64().is_some_and(|number| {
                (schema["minimum"].as_i64().unwrap()..=schema["maximum"].as_i64().unwrap()).contains(&number)
            }),
            "array" => value
                .as_array()
                .is_some_and(|items| items.iter().all(|item| self.valid(&schema["items"], item, name))),
            "object" => self.valid_object(schema, value, name),
            other => panic!("the schema has the type {other}"),
        }
    }

    fn valid_object(&mut self, schema: &Value, value: &Value, name: &str) -> bool {
        let Some(fields) = value.as_object() else { return false };
        let has = |name: &Value| fields.contains_key(name.as_str().unwrap());
        let required = schema["required"].as_array().is_none_or(|names| names.iter().all(has));
        let one = schema["oneOf"]
            .as_array()
            .is_none_or(|choices| choices.iter().filter(|choice| has(&choice["required"][0])).count() == 1);
        let fields = fields.iter().all(|(field, value)| match schema["properties"].get(field) {
            Some(property) => {
                self.used.insert(format!("{name}.{field}"));
                self.valid(property, value, name)
            }
            None => match &schema["additionalProperties"] {
                Value::Bool(false) => false,
                free => self.valid(free, value, name),
            },
        });
        required && one && fields
    }
}

#[test]
fn the_schema_and_the_reader_know_the_same_fields() {
    let mut written = Validator::new();
    let mut printed = Validator::new();
    let root = schema();
    for text in FULL {
        let value: Value = serde_json::from_str(text).unwrap();
        assert!(written.valid(&root, &value, ""), "{value:#}");
        // What was read and is printed again has every field that was written: the reader passed none over.
        let spec: WorkloadSpec = read_unchecked(&value).unwrap();
        assert!(printed.valid(&root, &spec.to_value(), ""), "{:#}", spec.to_value());
    }
    let known: BTreeSet<String> = SHAPES
        .iter()
        .flat_map(|shape| shape.fields.iter().map(|field| format!("{}.{}", shape.name, field.name)))
        .collect();
    assert_eq!(written.used, known);
    assert_eq!(printed.used, known);
}

#[test]
fn the_schema_refuses_what_the_reader_refuses() {
    let good: Value = serde_json::from_str(FULL[2]).unwrap();
    let root = schema();
    let mut cases = vec![good.clone(); 4];
    cases[0]["unknown"] = 1.into();
    cases[1]["container"] = json!({ "image": "a" });
    cases[2]["resources"]["cpu"] = true.into();
    cases[3].as_object_mut().unwrap().remove("kind");
    for case in cases {
        assert!(!Validator::new().valid(&root, &case, ""), "{case:#}");
        assert!(read_unchecked(&case).is_err(), "{case:#}");
    }
    assert!(Validator::new().valid(&root, &good, ""));
}
