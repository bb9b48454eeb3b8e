//! A value of a document together with its path, and readers that note what is wrong instead of stopping. A reader that finds
//! something wrong answers `None`; its caller goes on with a stand-in, so that the rest is looked at too.

use std::{cell::RefCell, str::FromStr};

use serde_json::{Map, Value};

use super::suggest::nearest;
use crate::{
    amount::{BYTES_EXPECTED, Bytes, MBITS_EXPECTED, Mbits, MilliCpu},
    device::Share,
    id::Millis,
    problem::{Problem, join, quoted, shortened},
    spec::{
        duration::parse_duration,
        shape::{Form, Shape, alternatives},
    },
};

/// Most problems that are kept of one document: more than anyone mends at a time.
const MAX_NOTED: usize = 200;

/// What was found to be wrong, and where nothing sound was read.
#[derive(Default)]
pub(super) struct Notes {
    problems: RefCell<Vec<Problem>>,
    spoiled: RefCell<Vec<String>>,
}

impl Notes {
    /// Notes a problem; its place is spoiled.
    fn add(&self, problem: Problem) {
        self.spoil(problem.path.clone());
        let mut problems = self.problems.borrow_mut();
        if problems.len() < MAX_NOTED {
            problems.push(problem);
        }
    }

    /// Notes that a place holds a stand-in, for a reason that is noted elsewhere.
    fn spoil(&self, path: String) {
        let mut spoiled = self.spoiled.borrow_mut();
        if spoiled.len() < MAX_NOTED {
            spoiled.push(path);
        }
    }

    /// The problems, together with those of `more` that do not speak of a stand-in.
    pub(super) fn with(self, more: Vec<Problem>) -> Vec<Problem> {
        let spoiled = self.spoiled.into_inner();
        let mut problems = self.problems.into_inner();
        let sound = |problem: &Problem| !spoiled.iter().any(|place| is_within(&problem.path, place));
        problems.extend(more.into_iter().filter(sound));
        if problems.len() >= MAX_NOTED {
            problems.truncate(MAX_NOTED);
            problems.push(Problem::new(
                "",
                format!("fewer than {MAX_NOTED} problems"),
                "more, not listed here",
            ));
        }
        problems
    }
}

/// Whether a path is that of a place or of something within it.
pub(in crate::spec) fn is_within(path: &str, place: &str) -> bool {
    path.strip_prefix(place).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

/// A value and where it stands.
pub(super) struct Node<'a> {
    value: &'a Value,
    path: String,
    notes: &'a Notes,
}

/// A mapping with known fields, and where it stands.
pub(super) struct Object<'a> {
    map: &'a Map<String, Value>,
    shape: &'static Shape,
    path: String,
    notes: &'a Notes,
}

/// A value in words.
pub(super) fn describe(value: &Value) -> String {
    match value {
        Value::Null => "nothing".to_owned(),
        Value::Bool(flag) => flag.to_string(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => quoted(text),
        Value::Array(items) => format!("a list of {}", items.len()),
        Value::Object(_) => "a mapping".to_owned(),
    }
}

impl<'a> Node<'a> {
    /// A whole document.
    pub(super) fn root(value: &'a Value, notes: &'a Notes) -> Self {
        Self { value, path: String::new(), notes }
    }

    fn note(&self, expected: impl Into<String>) {
        self.notes.add(Problem::new(self.path.clone(), expected, describe(self.value)));
    }

    fn refuse<T>(&self, expected: impl Into<String>) -> Option<T> {
        self.note(expected);
        None
    }

    /// A mapping with known fields. Notes fields that are not known, that are missing, and that exclude each other.
    pub(super) fn object(&self, shape: &'static Shape) -> Option<Object<'a>> {
        let Value::Object(map) = self.value else { return self.refuse(shape.expected()) };
        let object = Object { map, shape, path: self.path.clone(), notes: self.notes };
        let meant = object.note_unknown();
        object.note_missing(&meant);
        object.note_choice(&meant);
        Some(object)
    }

    /// The items of a list.
    fn list(&self) -> Option<Vec<Node<'a>>> {
        let Value::Array(items) = self.value else { return self.refuse("a list") };
        let node = |(i, value)| Node { value, path: format!("{}[{i}]", self.path), notes: self.notes };
        Some(items.iter().enumerate().map(node).collect())
    }

    /// A list's items, with a stand-in for each that could not be read: the others keep their places.
    pub(super) fn each<T>(
        &self,
        stand_in: impl Fn() -> T,
        read: impl Fn(&Node<'a>) -> Option<T>,
    ) -> Option<Vec<T>> {
        Some(self.list()?.iter().map(|item| read(item).unwrap_or_else(&stand_in)).collect())
    }

    /// What could be read of a list's items: for those that have no stand-in which nobody could have meant.
    pub(super) fn sound<T>(&self, read: impl Fn(&Node<'a>) -> Option<T>) -> Option<Vec<T>> {
        Some(self.list()?.iter().filter_map(read).collect())
    }

    /// The entries of a mapping with free names, by name.
    pub(super) fn entries(&self, expected: &Form) -> Option<Vec<(&'a str, Node<'a>)>> {
        let Value::Object(map) = self.value else { return self.refuse(expected.expected()) };
        let mut entries: Vec<(&str, Node<'a>)> = map
            .iter()
            .map(|(name, value)| {
                (name.as_str(), Node { value, path: join(&self.path, &shortened(name)), notes: self.notes })
            })
            .collect();
        entries.sort_by_key(|(name, _)| *name);
        Some(entries)
    }

    /// Text. A number or a truth value where text belongs is most often a text without quotes, and its true spelling is lost.
    pub(super) fn text(&self) -> Option<String> {
        match self.value {
            Value::String(text) => Some(text.clone()),
            Value::Number(_) | Value::Bool(_) => {
                let found = describe(self.value);
                let problem = Problem::new(self.path.clone(), "text", format!("{found} without quotes"));
                self.notes.add(problem.suggesting(format!("\"{found}\"")));
                None
            }
            _ => self.refuse("text"),
        }
    }

    /// Text that something is parsed of.
    pub(super) fn parsed<T: FromStr<Err: Into<Problem>>>(&self) -> Option<T> {
        self.parse(&self.text()?)
    }

    /// The same of a text at hand, as the name of an entry.
    pub(super) fn parse<T: FromStr<Err: Into<Problem>>>(&self, text: &str) -> Option<T> {
        text.parse().map_err(|invalid: T::Err| self.notes.add(invalid.into().within(&self.path))).ok()
    }

    /// True or false.
    pub(super) fn flag(&self) -> Option<bool> {
        self.value.as_bool().or_else(|| self.refuse(Form::Flag.expected()))
    }

    /// A whole number between two, as an integer that has room for them.
    pub(super) fn whole<T: TryFrom<i64>>(&self, least: i64, most: i64) -> Option<T> {
        let number = self.value.as_i64().filter(|number| (least..=most).contains(number));
        let number = number.and_then(|number| T::try_from(number).ok());
        number.or_else(|| self.refuse(Form::Whole(least, most).expected()))
    }

    /// Processor time, as text or as a number of cores.
    pub(super) fn cpu(&self) -> Option<MilliCpu> {
        match self.value {
            Value::Number(number) => self.parse(&number.to_string()),
            Value::String(text) => self.parse(text),
            _ => self.refuse(Form::Cpu.expected()),
        }
    }

    /// A part of a device, as text or as a number.
    pub(super) fn share(&self) -> Option<Share> {
        match self.value {
            Value::Number(number) => self.parse(&number.to_string()),
            Value::String(text) => self.parse(text),
            _ => self.refuse(Form::Share.expected()),
        }
    }

    /// A size. Only 0 needs no unit: who writes `256` rarely means bytes.
    pub(super) fn size(&self) -> Option<Bytes> {
        match self.value {
            Value::Number(number) if number.as_u64() == Some(0) => Some(Bytes(0)),
            Value::String(text) if text.ends_with('B') => self.parse(text),
            _ => self.refuse(BYTES_EXPECTED),
        }
    }

    /// A network bandwidth. Only 0 needs no unit.
    pub(super) fn bandwidth(&self) -> Option<Mbits> {
        match self.value {
            Value::Number(number) if number.as_u64() == Some(0) => Some(Mbits(0)),
            Value::String(text) => self.parse(text),
            _ => self.refuse(MBITS_EXPECTED),
        }
    }

    /// A length of time.
    pub(super) fn duration(&self) -> Option<Millis> {
        match self.value {
            Value::String(text) => {
                let noted = |invalid| self.notes.add(Problem::from(invalid).within(&self.path));
                parse_duration(text).map_err(noted).ok()
            }
            _ => self.refuse(Form::Duration.expected()),
        }
    }

    /// One of some words.
    pub(super) fn word<T: Clone>(&self, words: &[&'static str], meanings: &[T]) -> Option<T> {
        let Value::String(text) = self.value else { return self.refuse(alternatives(words)) };
        if let Some(at) = words.iter().position(|word| word == text) {
            return meanings.get(at).cloned();
        }
        let mut problem = Problem::new(self.path.clone(), alternatives(words), quoted(text));
        problem.suggestion = nearest(text, words.iter().copied()).map(str::to_owned);
        self.notes.add(problem);
        None
    }

    /// Whether this is a text that begins so.
    pub(super) fn starts_with(&self, start: &str) -> bool {
        self.value.as_str().is_some_and(|text| text.starts_with(start))
    }

    /// Whether this is a mapping: some fields take a short form too.
    pub(super) fn is_mapping(&self) -> bool {
        self.value.is_object()
    }
}

impl<'a> Object<'a> {
    /// Whether a field was written.
    pub(super) fn has(&self, name: &str) -> bool {
        self.map.contains_key(name)
    }

    /// What stands in a field, if it was written and could be read.
    pub(super) fn maybe<T>(&self, name: &str, read: impl FnOnce(&Node<'a>) -> Option<T>) -> Option<T> {
        debug_assert!(self.shape.fields.iter().any(|field| field.name == name), "{name} is not in the shape");
        let value = self.map.get(name)?;
        read(&Node { value, path: join(&self.path, name), notes: self.notes })
    }

    /// What stands in a field, or a default, which also stands in for what could not be read.
    pub(super) fn or<T>(&self, name: &str, default: T, read: impl FnOnce(&Node<'a>) -> Option<T>) -> T {
        self.maybe(name, read).unwrap_or(default)
    }

    /// Notes fields that are not known; the answer is the known fields that were meant by them.
    fn note_unknown(&self) -> Vec<&'static str> {
        let known = || self.shape.fields.iter().map(|field| field.name);
        let free = || known().filter(|name| !self.map.contains_key(*name));
        let mut meant = Vec::new();
        for name in self.map.keys().filter(|name| !known().any(|known| known == name.as_str())) {
            let expected = format!("one of {}", known().collect::<Vec<_>>().join(", "));
            let mut problem = Problem::new(join(&self.path, &shortened(name)), expected, "an unknown field");
            if let Some(near) = nearest(name, free()) {
                problem = problem.suggesting(near);
                meant.push(near);
            }
            self.notes.add(problem);
        }
        meant
    }

    fn note_missing(&self, meant: &[&str]) {
        for field in self.shape.fields.iter().filter(|field| field.required && !self.has(field.name)) {
            let path = join(&self.path, field.name);
            if meant.contains(&field.name) {
                self.notes.spoil(path);
            } else {
                self.notes.add(Problem::new(path, field.form.expected(), "nothing"));
            }
        }
    }

    /// Notes where exactly one of several fields belongs and none or several stand.
    fn note_choice(&self, meant: &[&str]) {
        let Some((first, _)) = self.shape.one_of.split_first() else { return };
        let written: Vec<&&str> = self.shape.one_of.iter().filter(|name| self.has(name)).collect();
        let expected = || format!("one of {}", alternatives(self.shape.one_of));
        match written.as_slice() {
            [_] => {}
            [] => match self.shape.one_of.iter().find(|name| meant.contains(name)) {
                Some(name) => {
                    self.notes.spoil(join(&self.path, name));
                    self.notes.spoil(join(&self.path, first));
                }
                None => self.notes.add(Problem::new(join(&self.path, first), expected(), "none of them")),
            },
            [kept, more @ ..] => {
                for name in more {
                    let found = format!("this beside {kept}");
                    self.notes.add(Problem::new(join(&self.path, name), expected(), found));
                }
            }
        }
    }
}
