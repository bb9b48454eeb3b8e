//! Taints: marks by which an operator keeps a host for those who say that they may be there. Conversions are those of plain text.

use std::{collections::BTreeMap, fmt};

use crate::{
    condition::is_value,
    name::is_label,
    problem::{Problem, quoted},
};

/// What a toleration looks like.
pub const TOLERATION_EXPECTED: &str = "the name of a taint as \"gpu\", or with its value as \"team=parks\"";

/// Most taints of a host.
pub const MAX_TAINTS: usize = 64;

/// A taint that a workload puts up with.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Toleration {
    /// The taint's name.
    pub name: String,
    /// Its value; `None`: whatever it is.
    pub value: Option<String>,
}

impl Toleration {
    /// Whether it puts up with a taint.
    pub fn covers(&self, name: &str, value: &str) -> bool {
        self.name == name && self.value.as_ref().is_none_or(|wanted| wanted == value)
    }
}

impl std::str::FromStr for Toleration {
    type Err = Problem;

    fn from_str(text: &str) -> Result<Self, Problem> {
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name.trim_end(), Some(value.trim_start())),
            None => (text, None),
        };
        if is_label(name) && value.is_none_or(is_value) {
            Ok(Self { name: name.to_owned(), value: value.map(str::to_owned) })
        } else {
            Err(Problem::new("", TOLERATION_EXPECTED, quoted(text)))
        }
    }
}

impl fmt::Display for Toleration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            Some(value) => write!(f, "{}={value}", self.name),
            None => f.write_str(&self.name),
        }
    }
}

/// A taint as text: its name, and its value where it has one.
pub fn taint_text(name: &str, value: &str) -> String {
    if value.is_empty() { name.to_owned() } else { format!("{name}={value}") }
}

/// The taints that none of these cover.
pub fn untolerated<'t>(
    taints: &'t BTreeMap<String, String>,
    tolerations: &[Toleration],
) -> impl Iterator<Item = (&'t String, &'t String)> {
    taints.iter().filter(move |(name, value)| !tolerations.iter().any(|one| one.covers(name, value)))
}

/// What is wrong with the taints of a host; paths are names of taints.
pub fn check_taints(taints: &BTreeMap<String, String>) -> Vec<Problem> {
    let mut problems = Vec::new();
    if taints.len() > MAX_TAINTS {
        problems.push(Problem::new("", format!("at most {MAX_TAINTS} taints"), taints.len().to_string()));
    }
    for (name, value) in taints {
        if !is_label(name) {
            let expected = "a taint's name of a-z, 0-9 and \"-\"";
            problems.push(Problem::new("", expected, quoted(name)));
        } else if !value.is_empty() && !is_value(value) {
            let expected = "nothing, or letters, digits, \"-\", \"_\", \".\", \"/\" and \"+\"";
            problems.push(Problem::new(name, expected, quoted(value)));
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_toleration_covers_a_taint_by_name_and_by_value_where_it_has_one() {
        let any: Toleration = "team".parse().unwrap();
        let one: Toleration = "team = parks".parse().unwrap();
        assert_eq!((any.to_string(), one.to_string()), ("team".to_owned(), "team=parks".to_owned()));
        assert!(any.covers("team", "parks") && any.covers("team", "") && !any.covers("gpu", "parks"));
        assert!(one.covers("team", "parks") && !one.covers("team", "roads") && !one.covers("team", ""));
        for bad in ["", "Team", "team=", "a=b=c", "team=a b", "=parks"] {
            let problem = bad.parse::<Toleration>().unwrap_err();
            assert_eq!(problem.expected, TOLERATION_EXPECTED, "{bad}");
        }
        let taints = [("gpu".to_owned(), String::new()), ("team".to_owned(), "parks".to_owned())].into();
        let left: Vec<&str> = untolerated(&taints, &[one]).map(|(name, _)| name.as_str()).collect();
        assert_eq!(left, ["gpu"]);
        assert_eq!(
            (taint_text("gpu", ""), taint_text("team", "parks")),
            ("gpu".to_owned(), "team=parks".to_owned())
        );
    }
}
