//! What is wrong with an input: the path of the field, what was expected there and what was found. All problems at once.

use std::fmt;

use crate::v1;

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
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: expected {}, found {}", self.path, self.expected, self.found)?;
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
