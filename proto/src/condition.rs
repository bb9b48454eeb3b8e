//! Conditions on a host, as written in `place.require`: `arch == amd64`, `label.tier != test`, `label.disk in [nvme, ssd]`,
//! `label.gpu exists`, `kernel >= 6.1`. Larger and smaller are meant as of versions (`version`). What an attribute is worth on a host is not known here: [`Condition::holds`] is told.

use std::fmt;

use crate::version;

/// Most values behind `in`.
pub const MAX_VALUES: usize = 32;

/// One condition.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Condition {
    /// What it looks at.
    pub attribute: Attribute,
    /// What must be true of it.
    pub test: Test,
}

/// What a condition looks at.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Attribute {
    /// Processor architecture.
    Arch,
    /// Operating system.
    Os,
    /// Kernel release.
    Kernel,
    /// Name of the host.
    Host,
    /// Site.
    Site,
    /// Rack.
    Rack,
    /// Version of its Docker.
    Docker,
    /// Version of its libvirt.
    Libvirt,
    /// A label set by the operator.
    Label(String),
}

/// What must be true of an attribute.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Test {
    /// It is this.
    Is(String),
    /// It is not this, or not there.
    IsNot(String),
    /// It is one of these.
    In(Vec<String>),
    /// It is none of these, or not there.
    NotIn(Vec<String>),
    /// It is a version that stands so to this one.
    Version(Order, String),
    /// It is there.
    Exists,
    /// It is not there.
    Missing,
}

/// How one version stands to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Order {
    /// It is older.
    Below,
    /// It is older or the same.
    AtMost,
    /// It is the same or newer.
    AtLeast,
    /// It is newer.
    Above,
}

impl Order {
    /// Every order, the signs that begin with another one first.
    const ALL: [Self; 4] = [Self::AtMost, Self::AtLeast, Self::Below, Self::Above];

    /// Its sign.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Below => "<",
            Self::AtMost => "<=",
            Self::AtLeast => ">=",
            Self::Above => ">",
        }
    }

    fn holds(self, value: &str, than: &str) -> bool {
        let order = version::compare(value, than);
        match self {
            Self::Below => order.is_lt(),
            Self::AtMost => order.is_le(),
            Self::AtLeast => order.is_ge(),
            Self::Above => order.is_gt(),
        }
    }
}

/// Text that is no condition.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected}, found {found:?}")]
pub struct InvalidCondition {
    /// What was expected.
    pub expected: &'static str,
    /// The text.
    pub found: String,
}

const SHAPE: &str =
    "a condition as \"arch == amd64\", \"kernel >= 6.1\", \"rack in [r1, r2]\" or \"label.ssd exists\"";
const ATTRIBUTES: &str =
    "one of arch, os, kernel, host, site, rack, docker, libvirt or label.NAME on the left";
const VALUE: &str = "a value of letters, digits, \"-\", \"_\", \".\", \"/\" and \"+\" on the right";

impl Condition {
    /// Whether it holds where the attribute has this value.
    pub fn holds(&self, value: Option<&str>) -> bool {
        match &self.test {
            Test::Is(wanted) => value == Some(wanted.as_str()),
            Test::IsNot(unwanted) => value != Some(unwanted.as_str()),
            Test::In(wanted) => value.is_some_and(|value| wanted.iter().any(|w| w == value)),
            Test::NotIn(unwanted) => !value.is_some_and(|value| unwanted.iter().any(|u| u == value)),
            Test::Version(order, than) => value.is_some_and(|value| order.holds(value, than)),
            Test::Exists => value.is_some(),
            Test::Missing => value.is_none(),
        }
    }
}

impl std::str::FromStr for Condition {
    type Err = InvalidCondition;

    fn from_str(text: &str) -> Result<Self, InvalidCondition> {
        let invalid = |expected| InvalidCondition { expected, found: text.to_owned() };
        let (left, operator, right) = split(text).ok_or_else(|| invalid(SHAPE))?;
        let attribute = attribute(left).ok_or_else(|| invalid(ATTRIBUTES))?;
        let value = || is_value(right).then(|| right.to_owned()).ok_or_else(|| invalid(VALUE));
        let test = match operator {
            "==" => Test::Is(value()?),
            "!=" => Test::IsNot(value()?),
            "in" => Test::In(values(right).ok_or_else(|| invalid(VALUE))?),
            "not in" => Test::NotIn(values(right).ok_or_else(|| invalid(VALUE))?),
            "exists" if right.is_empty() => Test::Exists,
            "missing" if right.is_empty() => Test::Missing,
            sign => {
                let order = Order::ALL.into_iter().find(|order| order.as_str() == sign);
                Test::Version(order.ok_or_else(|| invalid(SHAPE))?, value()?)
            }
        };
        Ok(Self { attribute, test })
    }
}

/// Splits into attribute, operator and the rest.
fn split(text: &str) -> Option<(&str, &str, &str)> {
    for operator in ["==", "!="].into_iter().chain(Order::ALL.map(Order::as_str)) {
        if let Some((left, right)) = text.split_once(operator) {
            return Some((left.trim(), operator, right.trim()));
        }
    }
    let (left, rest) = text.trim().split_once(char::is_whitespace)?;
    let rest = rest.trim();
    let (operator, right) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    match right.trim_start().strip_prefix("in") {
        Some(right) if operator == "not" => Some((left, "not in", right.trim())),
        _ => Some((left, operator, right.trim())),
    }
}

fn attribute(text: &str) -> Option<Attribute> {
    Some(match text {
        "arch" => Attribute::Arch,
        "os" => Attribute::Os,
        "kernel" => Attribute::Kernel,
        "host" => Attribute::Host,
        "site" => Attribute::Site,
        "rack" => Attribute::Rack,
        "docker" => Attribute::Docker,
        "libvirt" => Attribute::Libvirt,
        _ => Attribute::Label(text.strip_prefix("label.").filter(|name| is_value(name))?.to_owned()),
    })
}

/// Whether the text can be the name or the value of a label.
pub fn is_value(text: &str) -> bool {
    (1..=128).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_./+".contains(&b))
}

fn values(text: &str) -> Option<Vec<String>> {
    let inner = text.strip_prefix('[')?.strip_suffix(']')?;
    let values: Vec<String> = inner.split(',').map(|value| value.trim().to_owned()).collect();
    ((1..=MAX_VALUES).contains(&values.len()) && values.iter().all(|value| is_value(value))).then_some(values)
}

impl fmt::Display for Attribute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Arch => f.write_str("arch"),
            Self::Os => f.write_str("os"),
            Self::Kernel => f.write_str("kernel"),
            Self::Host => f.write_str("host"),
            Self::Site => f.write_str("site"),
            Self::Rack => f.write_str("rack"),
            Self::Docker => f.write_str("docker"),
            Self::Libvirt => f.write_str("libvirt"),
            Self::Label(name) => write!(f, "label.{name}"),
        }
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.attribute)?;
        match &self.test {
            Test::Is(value) => write!(f, "== {value}"),
            Test::IsNot(value) => write!(f, "!= {value}"),
            Test::In(values) => write!(f, "in [{}]", values.join(", ")),
            Test::NotIn(values) => write!(f, "not in [{}]", values.join(", ")),
            Test::Version(order, than) => write!(f, "{} {than}", order.as_str()),
            Test::Exists => f.write_str("exists"),
            Test::Missing => f.write_str("missing"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_round_trips() {
        for text in [
            "arch == amd64",
            "label.tier != test",
            "rack in [r1, r2]",
            "label.ssd exists",
            "label.old missing",
            "kernel == 6.1.0+x",
            "kernel >= 6.1",
            "docker < 24.0.7",
            "libvirt <= 9",
            "os > 12",
            "rack not in [r1, r2]",
        ] {
            let condition: Condition = text.parse().unwrap();
            assert_eq!(condition.to_string(), text);
        }
        assert_eq!("rack  not  in [r1]".parse::<Condition>().unwrap().to_string(), "rack not in [r1]");
        assert_eq!("kernel>=6".parse::<Condition>().unwrap().to_string(), "kernel >= 6");
        assert_eq!("arch==amd64".parse::<Condition>().unwrap().to_string(), "arch == amd64");
        for bad in [
            "",
            "arch",
            "arch = amd64",
            "cpu == 4",
            "arch ==",
            "arch == a b",
            "label. == x",
            "rack in []",
            "rack exists x",
            "rack not [r1]",
            "rack notin [r1]",
            "rack not in r1",
            "kernel => 6",
            "kernel >= ",
            "kernel < 6 < 7",
        ] {
            assert!(bad.parse::<Condition>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_missing_attribute_is_unequal_to_everything() {
        let holds = |text: &str, value| text.parse::<Condition>().unwrap().holds(value);
        assert!(
            !holds("label.a == x", None) && holds("label.a != x", None) && !holds("label.a in [x]", None)
        );
        assert!(
            holds("label.a == x", Some("x"))
                && !holds("label.a != x", Some("x"))
                && holds("label.a in [y, x]", Some("x"))
        );
        assert!(holds("label.a exists", Some("")) && holds("label.a missing", None));
        assert!(holds("label.a not in [x]", None) && holds("label.a not in [x]", Some("y")));
        assert!(!holds("label.a not in [y, x]", Some("x")));
        for (value, below, at_most, at_least, above) in [
            (None, false, false, false, false),
            (Some("6.1"), true, true, false, false),
            (Some("6.12"), false, true, true, false),
            (Some("6.12.1"), false, false, true, true),
        ] {
            let found = ["<", "<=", ">=", ">"].map(|sign| holds(&format!("kernel {sign} 6.12"), value));
            assert_eq!(found, [below, at_most, at_least, above], "{value:?}");
        }
    }
}
