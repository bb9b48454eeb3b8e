//! A table of a TOML file that is taken apart key by key: what has the wrong kind and what is left over is noted with its path.

use supercloud_proto::problem::Problem;
use toml::Value;

/// A table, its path, and the keys that were asked for.
pub(super) struct Table {
    path: String,
    values: toml::Table,
    known: Vec<String>,
}

impl Table {
    /// A table at a path; the file itself is at the empty one.
    pub(super) fn new(path: &str, values: toml::Table) -> Self {
        Self { path: path.to_owned(), values, known: Vec::new() }
    }

    /// The path of a key.
    pub(super) fn at(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    fn take(&mut self, key: &str) -> Option<Value> {
        self.known.push(key.to_owned());
        self.values.remove(key)
    }

    fn wrong(&self, key: &str, expected: &str, found: &Value, problems: &mut Vec<Problem>) {
        problems.push(Problem::new(self.at(key), expected, kind_of(found)));
    }

    /// A text.
    pub(super) fn text(&mut self, key: &str, problems: &mut Vec<Problem>) -> Option<String> {
        match self.take(key)? {
            Value::String(text) => Some(text),
            other => {
                self.wrong(key, "a text in quotes", &other, problems);
                None
            }
        }
    }

    /// A list of texts.
    pub(super) fn texts(&mut self, key: &str, problems: &mut Vec<Problem>) -> Option<Vec<String>> {
        let Value::Array(items) = self.take(key).inspect(|value| {
            if !value.is_array() {
                self.wrong(key, "a list of texts", value, problems);
            }
        })?
        else {
            return None;
        };
        let mut texts = Vec::new();
        for (i, item) in items.into_iter().enumerate() {
            match item {
                Value::String(text) => texts.push(text),
                other => self.wrong(&format!("{key}[{i}]"), "a text in quotes", &other, problems),
            }
        }
        Some(texts)
    }

    /// Yes or no.
    pub(super) fn flag(&mut self, key: &str, problems: &mut Vec<Problem>) -> Option<bool> {
        match self.take(key)? {
            Value::Boolean(flag) => Some(flag),
            other => {
                self.wrong(key, "true or false", &other, problems);
                None
            }
        }
    }

    /// A table within.
    pub(super) fn table(&mut self, key: &str, problems: &mut Vec<Problem>) -> Option<Self> {
        match self.take(key)? {
            Value::Table(values) => Some(Self::new(&self.at(key), values)),
            other => {
                self.wrong(key, "a table", &other, problems);
                None
            }
        }
    }

    /// A list of tables.
    pub(super) fn tables(&mut self, key: &str, problems: &mut Vec<Problem>) -> Vec<Self> {
        let items = match self.take(key) {
            None => return Vec::new(),
            Some(Value::Array(items)) => items,
            Some(other) => {
                self.wrong(key, "a list of tables", &other, problems);
                return Vec::new();
            }
        };
        let mut tables = Vec::new();
        for (i, item) in items.into_iter().enumerate() {
            let key = format!("{key}[{i}]");
            match item {
                Value::Table(values) => tables.push(Self::new(&self.at(&key), values)),
                other => self.wrong(&key, "a table", &other, problems),
            }
        }
        tables
    }

    /// All keys of a table whose keys are free, with their texts.
    pub(super) fn into_texts(mut self, problems: &mut Vec<Problem>) -> Vec<(String, String)> {
        let keys: Vec<_> = self.values.keys().cloned().collect();
        keys.into_iter().filter_map(|key| Some((key.clone(), self.text(&key, problems)?))).collect()
    }

    /// Notes what is left over.
    pub(super) fn finish(self, problems: &mut Vec<Problem>) {
        for key in self.values.keys() {
            let mut problem = Problem::new(self.at(key), "no such field", format!("{key:?}"));
            if let Some(near) = nearest(key, &self.known) {
                problem = problem.suggesting(near);
            }
            problems.push(problem);
        }
    }
}

fn kind_of(value: &Value) -> String {
    match value {
        Value::String(text) => format!("{text:?}"),
        Value::Integer(number) => format!("the number {number}"),
        Value::Float(number) => format!("the number {number}"),
        Value::Boolean(flag) => flag.to_string(),
        Value::Datetime(_) => "a time".to_owned(),
        Value::Array(_) => "a list".to_owned(),
        Value::Table(_) => "a table".to_owned(),
    }
}

/// The known key that is at most two changes away.
fn nearest<'a>(key: &str, known: &'a [String]) -> Option<&'a str> {
    let near = known.iter().map(|other| (distance(key, other), other.as_str()));
    near.filter(|(distance, _)| *distance <= 2).min().map(|(_, other)| other)
}

/// Changes of single letters from one text to the other (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}
