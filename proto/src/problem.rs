//! What is wrong with an input: the path of the field, what was expected there and what was found. All problems at once.
//!
//! The same words serve a spec that a person wrote and a message that a program sent, so that both learn of everything in one
//! answer. `faults` collects them while a value is being made, `status` carries them over gRPC.

use std::fmt;

use crate::{
    amount::InvalidAmount,
    condition::InvalidCondition,
    id::InvalidInstanceId,
    name::{InvalidName, NAME_EXPECTED},
    v1,
};

mod faults;
mod status;

pub use self::{
    faults::Faults,
    status::{of_status, status},
};

/// Most characters of a found text that are shown: enough to recognise it, too few to flood a terminal.
const MAX_SHOWN: usize = 80;

/// One thing that is wrong with an input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Path of the field: `resources.memory`, `tasks[0].container.image`.
    pub path: String,
    /// What was expected there.
    pub expected: String,
    /// What was found.
    pub found: String,
    /// What may have been meant.
    pub suggestion: Option<String>,
}

impl Problem {
    /// A problem without a suggestion.
    pub fn new(path: impl Into<String>, expected: impl Into<String>, found: impl Into<String>) -> Self {
        Self { path: path.into(), expected: expected.into(), found: found.into(), suggestion: None }
    }

    /// A field of the spec whose work is still to come.
    pub fn not_supported(path: impl Into<String>, found: impl Into<String>) -> Self {
        Self::new(path, "this field to be left out: it is not supported by this version yet", found)
    }

    /// The same with a suggestion.
    pub fn suggesting(mut self, suggestion: impl Into<String>) -> Self {
        self.suggestion = Some(suggestion.into());
        self
    }

    /// The same, as seen from what contains it: `image` within `tasks[0]` is `tasks[0].image`.
    pub fn within(mut self, parent: &str) -> Self {
        self.path = join(parent, &self.path);
        self
    }
}

/// The path of `child` within `parent`. Either may be empty; a child that starts with `[` is an item of its parent.
pub fn join(parent: &str, child: &str) -> String {
    let dot = if parent.is_empty() || child.is_empty() || child.starts_with('[') { "" } else { "." };
    format!("{parent}{dot}{child}")
}

/// A name as it stands in a path: as it is, and cut when it is longer than any that is meant.
pub fn shortened(name: &str) -> String {
    match name.char_indices().nth(MAX_SHOWN) {
        None => name.to_owned(),
        Some((end, _)) => format!("{}...", &name[..end]),
    }
}

/// A text as it is shown to people: in quotes, with escapes, and cut when it is long.
pub fn quoted(text: &str) -> String {
    match text.char_indices().nth(MAX_SHOWN) {
        None => format!("{text:?}"),
        Some((end, _)) => format!("{:?}... ({} bytes)", &text[..end], text.len()),
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        write!(f, "expected {}, found {}", self.expected, self.found)?;
        match &self.suggestion {
            Some(suggestion) => write!(f, " (did you mean {suggestion}?)"),
            None => Ok(()),
        }
    }
}

impl From<Problem> for v1::Problem {
    fn from(problem: Problem) -> Self {
        Self {
            path: problem.path,
            expected: problem.expected,
            found: problem.found,
            suggestion: problem.suggestion.unwrap_or_default(),
        }
    }
}

impl From<v1::Problem> for Problem {
    fn from(problem: v1::Problem) -> Self {
        let suggestion = (!problem.suggestion.is_empty()).then_some(problem.suggestion);
        Self { path: problem.path, expected: problem.expected, found: problem.found, suggestion }
    }
}

/// All that is wrong with an input; never empty.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
pub struct Problems(pub Vec<Problem>);

impl Problems {
    /// The same, as seen from what contains it.
    pub fn within(self, parent: &str) -> Self {
        Self(self.0.into_iter().map(|problem| problem.within(parent)).collect())
    }
}

impl From<Problem> for Problems {
    fn from(problem: Problem) -> Self {
        Self(vec![problem])
    }
}

impl From<std::convert::Infallible> for Problems {
    fn from(never: std::convert::Infallible) -> Self {
        match never {}
    }
}

impl From<InvalidName> for Problem {
    fn from(invalid: InvalidName) -> Self {
        Self::new("", NAME_EXPECTED, quoted(&invalid.found))
    }
}

impl From<InvalidAmount> for Problem {
    fn from(invalid: InvalidAmount) -> Self {
        Self::new("", invalid.expected, quoted(&invalid.found))
    }
}

impl From<InvalidCondition> for Problem {
    fn from(invalid: InvalidCondition) -> Self {
        Self::new("", invalid.expected, quoted(&invalid.found))
    }
}

impl From<InvalidInstanceId> for Problem {
    fn from(invalid: InvalidInstanceId) -> Self {
        Self::new("", "an instance id such as \"i-2f-0\"", quoted(&invalid.found))
    }
}

macro_rules! alone {
    ($($invalid:ty),*) => {$(
        impl From<$invalid> for Problems {
            fn from(invalid: $invalid) -> Self {
                Problem::from(invalid).into()
            }
        }
    )*};
}

alone!(InvalidName, InvalidAmount, InvalidCondition, InvalidInstanceId);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_join_as_people_write_them() {
        for (parent, child, whole) in
            [("", "a", "a"), ("a", "", "a"), ("a", "b", "a.b"), ("a", "[0].b", "a[0].b"), ("", "", "")]
        {
            assert_eq!(join(parent, child), whole);
        }
    }

    #[test]
    fn long_text_is_cut_between_characters() {
        let shown = quoted(&"ä".repeat(500));
        assert!(shown.ends_with("... (1000 bytes)") && shown.chars().count() < 110, "{shown}");
        assert_eq!(quoted("a\nb"), r#""a\nb""#);
    }
}
