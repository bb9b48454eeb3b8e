//! The JSON Schema of a spec, made from the same table by which the reader refuses unknown fields. It says what one document of a
//! file looks like; rules between fields are told by the check alone.

use serde_json::{Map, Value, json};

use super::{
    MAX_SHARE,
    shape::{self, Form, Shape},
};
use crate::name::MAX_NAME_LEN;

/// Every shape, each a definition of the schema.
static SHAPES: [&Shape; 20] = [
    &shape::WORKLOAD,
    &shape::TASK,
    &shape::CONTAINER,
    &shape::PORT,
    &shape::MOUNT,
    &shape::VM,
    &shape::IMAGE,
    &shape::BOOT,
    &shape::CLOUD_INIT,
    &shape::DISK,
    &shape::RESOURCES,
    &shape::DEVICE,
    &shape::PLACE,
    &shape::SPREAD_OVER,
    &shape::PREFER,
    &shape::HEALTH,
    &shape::HTTP,
    &shape::TCP,
    &shape::RESTART,
    &shape::UPDATE,
];

/// The schema, draft 2020-12.
pub fn schema() -> Value {
    let definitions: Map<String, Value> =
        SHAPES.iter().map(|shape| (shape.name.to_owned(), of_shape(shape))).collect();
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Supercloud workload",
        "$ref": "#/$defs/workload",
        "$defs": definitions,
    })
}

fn of_shape(shape: &Shape) -> Value {
    let property = |field: &shape::Field| {
        let mut schema = of_form(&field.form);
        if let Value::Object(schema) = &mut schema {
            schema.insert("description".to_owned(), field.about.into());
        }
        (field.name.to_owned(), schema)
    };
    let required: Vec<&str> =
        shape.fields.iter().filter(|field| field.required).map(|field| field.name).collect();
    let mut schema = json!({
        "description": shape.about,
        "type": "object",
        "properties": shape.fields.iter().map(property).collect::<Map<_, _>>(),
        "required": required,
        "additionalProperties": false,
    });
    if let (Value::Object(schema), false) = (&mut schema, shape.one_of.is_empty()) {
        let choices: Vec<Value> = shape.one_of.iter().map(|name| json!({ "required": [name] })).collect();
        schema.insert("oneOf".to_owned(), choices.into());
    }
    schema
}

fn reference(shape: &Shape) -> Value {
    json!({ "$ref": format!("#/$defs/{}", shape.name) })
}

fn name() -> Value {
    json!({ "type": "string", "pattern": "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$", "maxLength": MAX_NAME_LEN })
}

fn of_form(form: &Form) -> Value {
    match form {
        Form::Name => name(),
        Form::Text | Form::Condition | Form::Toleration => json!({ "type": "string" }),
        Form::Flag => json!({ "type": "boolean" }),
        Form::Whole(least, most) => json!({ "type": "integer", "minimum": least, "maximum": most }),
        Form::Cpu => json!({ "anyOf": [
            { "type": "number", "exclusiveMinimum": 0 },
            { "type": "string", "pattern": "^([0-9]+(\\.[0-9]{1,3})?|[0-9]+m)$" },
        ] }),
        Form::Share => json!({ "anyOf": [
            { "type": "number", "exclusiveMinimum": 0, "maximum": 1 },
            { "type": "string", "pattern": "^(1|0\\.[0-9]{1,3})$" },
        ] }),
        Form::Size => json!({ "anyOf": [
            { "const": 0 },
            { "type": "string", "pattern": "^[0-9]+(\\.[0-9]{1,3})? *(TiB|GiB|MiB|KiB|TB|GB|MB|kB)$" },
            { "type": "string", "pattern": "^[0-9]+B$" },
        ] }),
        Form::Bandwidth => json!({ "anyOf": [
            { "const": 0 },
            { "type": "string", "pattern": "^([0-9]+Mbps|[0-9]+(\\.[0-9]{1,3})?Gbps)$" },
        ] }),
        Form::Duration => json!({ "type": "string", "pattern": "^[0-9]+(ms|s|m|h)$" }),
        Form::Word(words) => json!({ "enum": words }),
        Form::Spread(long) => json!({ "anyOf": [
            { "type": "string", "pattern": "^(site|rack|host|label\\..+)$" },
            reference(long),
        ] }),
        Form::Shares => json!({
            "type": "object",
            "additionalProperties": { "type": "integer", "minimum": 1, "maximum": MAX_SHARE },
        }),
        Form::List(items) => json!({ "type": "array", "items": of_form(items) }),
        Form::TextMap => json!({ "type": "object", "additionalProperties": { "type": "string" } }),
        Form::Ports(long) => json!({
            "type": "object",
            "propertyNames": name(),
            "additionalProperties": {
                "anyOf": [ { "type": "integer", "minimum": 1, "maximum": 65_535 }, reference(long) ],
            },
        }),
        Form::Object(shape) => reference(shape),
    }
}

#[cfg(test)]
mod tests;
