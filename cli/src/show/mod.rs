//! API messages as things to show: a JSON value with the words of the spec, and a row.

use serde_json::{Map, Value};

pub mod borough;
pub mod event;
pub mod explanation;
pub mod health;
pub mod host;
pub mod instance;
pub mod node;
pub mod plan;
pub mod saved;
pub mod site;
pub mod volume;
pub mod workload;

/// An object without what is empty: absent reads better than `""`.
pub fn object(fields: impl IntoIterator<Item = (&'static str, Value)>) -> Value {
    let given = fields.into_iter().filter(|(_, value)| !is_empty(value));
    Value::Object(given.map(|(key, value)| (key.to_owned(), value)).collect::<Map<_, _>>())
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

/// "-" for nothing, in tables.
pub fn dash(text: &str) -> String {
    if text.is_empty() { "-".to_owned() } else { text.to_owned() }
}
