//! How things are shown: a thing is a JSON value for programs and a row for people, and one place prints either. Data goes to
//! standard output, talk to standard error.

use std::{
    io::{self, IsTerminal, Write},
    sync::{Mutex, PoisonError},
};

use comfy_table::{ContentArrangement, Table, presets};
use serde_json::Value;

use crate::{args::Format, failure::Failure};

/// How old what a stale read showed is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Age {
    /// The node heard the leader so many milliseconds ago.
    Heard(u64),
    /// It has heard none since it started.
    Never,
}

/// Of what this run of the command has read: the oldest. A process runs one command, and every value that it prints is told with it.
static AGE: Mutex<Option<Age>> = Mutex::new(None);

/// Remembers how old an answer is. Returns whether it is the first of its kind.
pub fn note_age(age: Age) -> bool {
    let mut known = AGE.lock().unwrap_or_else(PoisonError::into_inner);
    let before = *known;
    *known = Some(before.map_or(age, |before| before.max(age)));
    before.is_none()
}

/// The value with the age of what was read, in each object.
fn with_age(value: &Value) -> Value {
    let Some(age) = *AGE.lock().unwrap_or_else(PoisonError::into_inner) else { return value.clone() };
    let age = match age {
        Age::Heard(millis) => Value::from(millis),
        Age::Never => Value::Null,
    };
    let mut value = value.clone();
    let aged = |one: &mut Value| {
        if let Some(fields) = one.as_object_mut() {
            fields.insert("stale_ms".to_owned(), age.clone());
        }
    };
    match &mut value {
        Value::Array(items) => items.iter_mut().for_each(aged),
        one => aged(one),
    }
    value
}

/// Something that can be shown.
pub struct Shown {
    /// For `-o name`.
    pub name: String,
    /// For `-o json` and `-o yaml`.
    pub value: Value,
    /// For tables, as many cells as the headings; those of `-o wide` come last.
    pub row: Vec<String>,
}

/// Headings of a table.
pub struct Headings {
    /// Shown always.
    pub usual: &'static [&'static str],
    /// Added by `-o wide`.
    pub wide: &'static [&'static str],
}

/// Prints a list.
pub fn list(format: Format, headings: &Headings, items: &[Shown]) -> Result<(), Failure> {
    match format {
        Format::Json | Format::Yaml => {
            let values = Value::Array(items.iter().map(|item| item.value.clone()).collect());
            document(format, &values)
        }
        Format::Name => items.iter().try_for_each(|item| line(&item.name)),
        Format::Table | Format::Wide => {
            if items.is_empty() && io::stdout().is_terminal() {
                say("none");
                return Ok(());
            }
            line(&table(headings, items, format == Format::Wide))
        }
    }
}

/// Prints one thing: the text is for people.
pub fn one(format: Format, item: &Shown, text: impl FnOnce() -> String) -> Result<(), Failure> {
    match format {
        Format::Json | Format::Yaml => document(format, &item.value),
        Format::Name => line(&item.name),
        Format::Table | Format::Wide => line(text().trim_end()),
    }
}

/// Prints a value as JSON or YAML.
pub fn document(format: Format, value: &Value) -> Result<(), Failure> {
    let value = &with_age(value);
    let text = if format == Format::Yaml {
        serde_saphyr::to_string(value)
            .map_err(|error| Failure::Failed(format!("no YAML can be made of it: {error}")))?
    } else {
        serde_json::to_string_pretty(value)
            .map_err(|error| Failure::Failed(format!("no JSON can be made of it: {error}")))?
    };
    line(text.trim_end())
}

/// Prints a value on a line of its own, for streams; YAML as a document.
pub fn streamed(format: Format, item: &Shown, text: impl FnOnce() -> String) -> Result<(), Failure> {
    match format {
        Format::Json => line(&item.value.to_string()),
        Format::Yaml => {
            line("---")?;
            document(format, &item.value)
        }
        Format::Name => line(&item.name),
        Format::Table | Format::Wide => line(&text()),
    }
}

/// A table without frames: it can be read, cut and grepped.
pub fn table(headings: &Headings, items: &[Shown], wide: bool) -> String {
    let extra: &[&str] = if wide { headings.wide } else { &[] };
    let columns = headings.usual.len() + extra.len();
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(headings.usual.iter().chain(extra).map(|heading| heading.to_uppercase()));
    for item in items {
        table.add_row(item.row.iter().take(columns));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}

/// Aligned `key: value` lines, those without a value left out.
pub fn facts(facts: &[(&str, String)]) -> String {
    let width = facts.iter().map(|(key, _)| key.len()).max().unwrap_or(0) + 2;
    let given = facts.iter().filter(|(_, value)| !value.is_empty());
    given.map(|(key, value)| format!("{:width$}{value}\n", format!("{key}:"))).collect()
}

/// Prints a line of data.
pub fn line(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}")?;
    Ok(out.flush()?)
}

/// Says something to the person, beside the data.
pub fn say(text: &str) {
    // Nobody may be listening; that is no reason to fail.
    let _ = writeln!(io::stderr().lock(), "{text}");
}
