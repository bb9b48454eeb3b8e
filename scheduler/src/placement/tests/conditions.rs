//! Random conditions on hosts and devices, and a naive judge of them: it reads their text word by word and shares no code with what it judges.

use proptest::prelude::*;

use crate::state::Host;

/// Numbers of versions with more than one digit, with words between them, and one that is the beginning of another one.
pub(super) const KERNELS: [&str; 4] = ["5.10", "6.1", "6.12", "6.12-rc1"];
pub(super) const DOCKERS: [&str; 3] = ["24.0.7", "24.0.10", ""];
pub(super) const LIBVIRTS: [&str; 3] = ["9.0", "10.0", ""];
pub(super) const ARCHES: [&str; 2] = ["amd64", "arm64"];
pub(super) const SYSTEMS: [&str; 2] = ["debian-9", "debian-12"];
pub(super) const GENERATIONS: [&str; 3] = ["9", "10", "10.1"];
/// Of devices, what their label says.
pub(super) const SIZES: [&str; 3] = ["8", "16", "80"];

/// What is asked for of hosts, with values that there are or may be; what stands there more often is asked for more often.
const ATTRIBUTES: [(&str, &[&str]); 12] = [
    ("label.tier", &["0", "1", "2"]),
    ("label.tier", &["0", "1", "2"]),
    ("label.tier", &["0", "1", "2"]),
    ("label.gen", &GENERATIONS),
    ("arch", &ARCHES),
    ("os", &SYSTEMS),
    ("kernel", &KERNELS),
    ("host", &["h0", "h1", "h2"]),
    ("site", &["site-0", "site-1"]),
    ("rack", &["rack-0", "rack-1"]),
    ("docker", &["24.0.7", "24.0.9", "24.0.10"]),
    ("libvirt", &["9.0", "9.1", "10.0"]),
];

/// What may be said of an attribute.
const SIGNS: [&str; 10] = ["==", "!=", "in", "not in", "<", "<=", ">=", ">", "exists", "missing"];

fn text(attribute: &str, sign: &str, one: &str, other: &str) -> String {
    match sign {
        "exists" | "missing" => format!("{attribute} {sign}"),
        "in" | "not in" if one == other => format!("{attribute} {sign} [{one}]"),
        "in" | "not in" => format!("{attribute} {sign} [{one}, {other}]"),
        _ => format!("{attribute} {sign} {one}"),
    }
}

fn of(attributes: &'static [(&'static str, &'static [&'static str])]) -> impl Strategy<Value = String> {
    (
        0..attributes.len(),
        prop::sample::select(&SIGNS[..]),
        any::<(prop::sample::Index, prop::sample::Index)>(),
    )
        .prop_map(move |(attribute, sign, (one, other))| {
            let (attribute, values) = attributes[attribute];
            text(attribute, sign, values[one.index(values.len())], values[other.index(values.len())])
        })
}

/// A condition on hosts.
pub(super) fn random_condition() -> BoxedStrategy<String> {
    of(&ATTRIBUTES).boxed()
}

/// None, one or two of them.
pub(super) fn random_conditions() -> BoxedStrategy<Vec<String>> {
    let conditions = prop_oneof![
        7 => Just(Vec::new()),
        2 => prop::collection::vec(random_condition(), 1),
        1 => prop::collection::vec(random_condition(), 2),
    ];
    conditions.boxed()
}

/// Conditions on devices.
pub(super) fn random_device_conditions() -> BoxedStrategy<Vec<String>> {
    let conditions =
        prop_oneof![3 => Just(Vec::new()), 1 => prop::collection::vec(of(&[("label.memory", &SIZES)]), 1..3)];
    conditions.boxed()
}

/// What an attribute is worth on a host.
fn value_on<'h>(host: &'h Host, attribute: &str) -> Option<&'h str> {
    let inventory = &host.inventory;
    let version = |of: &str| {
        let driver = inventory.drivers.iter().find(|(kind, _)| kind.as_str() == of);
        driver.map(|(_, info)| info.version.as_str()).filter(|version| !version.is_empty())
    };
    match attribute {
        "arch" => Some(&inventory.arch),
        "os" => Some(&inventory.os),
        "kernel" => Some(&inventory.kernel),
        "host" => Some(host.name.as_str()),
        "site" => Some(inventory.site.as_str()),
        "rack" => inventory.rack.as_ref().map(|rack| rack.as_str()),
        "docker" | "libvirt" => version(attribute),
        label => inventory.labels.get(label.strip_prefix("label.").unwrap()).map(String::as_str),
    }
}

/// Whether a condition is true of a host.
pub(super) fn holds_on(text: &str, host: &Host) -> bool {
    holds(text, |attribute| value_on(host, attribute))
}

/// Whether a condition is true where attributes have these values.
pub(super) fn holds<'v>(text: &str, value: impl Fn(&str) -> Option<&'v str>) -> bool {
    let words: Vec<&str> = text.split([' ', ',', '[', ']']).filter(|word| !word.is_empty()).collect();
    let (attribute, sign, wanted) = match words.as_slice() {
        [attribute, "not", "in", wanted @ ..] => (attribute, "not in", wanted),
        [attribute, sign, wanted @ ..] => (attribute, *sign, wanted),
        _ => panic!("{text} is no condition"),
    };
    let value = value(attribute);
    let is_one = value.is_some_and(|value| wanted.contains(&value));
    let compared = value.zip(wanted.first()).map(|(value, bound)| version(value).cmp(&version(bound)));
    match sign {
        "==" | "in" => is_one,
        "!=" | "not in" => !is_one,
        "exists" => value.is_some(),
        "missing" => value.is_none(),
        "<" => compared.is_some_and(|order| order.is_lt()),
        "<=" => compared.is_some_and(|order| order.is_le()),
        ">=" => compared.is_some_and(|order| order.is_ge()),
        ">" => compared.is_some_and(|order| order.is_gt()),
        other => panic!("{other} is none of the signs"),
    }
}

/// A part of a version: numbers come before words.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Number(u64),
    Word(String),
}

fn version(text: &str) -> Vec<Part> {
    let letters: Vec<char> = text.chars().collect();
    let alike = letters.chunk_by(|one, other| one.is_ascii_digit() == other.is_ascii_digit());
    let part = |letters: &[char]| {
        let text: String = letters.iter().collect();
        text.parse().map_or(Part::Word(text), Part::Number)
    };
    alike.map(part).collect()
}
