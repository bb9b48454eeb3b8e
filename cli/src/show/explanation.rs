//! Why something is where it is, or nowhere.

use serde_json::{Value, json};
use supercloud_proto::{spec::near_text, v1};

use super::object;
use crate::{output::Shown, time::moment};

/// Hosts that are shown with their scores.
const SCORES: usize = 3;

/// One explanation.
pub fn shown(explanation: &v1::PlacementExplanation) -> Shown {
    Shown { name: explanation.instance.clone(), value: value(explanation), row: Vec::new() }
}

/// For programs.
pub fn value(explanation: &v1::PlacementExplanation) -> Value {
    let filters = explanation.filters.iter().map(|filter| {
        let reasons = filter.reasons.iter().map(|one| json!({"reason": one.reason, "hosts": one.hosts}));
        let reasons: Vec<Value> = reasons.collect();
        json!({"filter": filter.filter, "hosts": filter.hosts, "reasons": reasons, "others": filter.others})
    });
    let scores = explanation.scores.iter().map(|score| {
        let parts = score.parts.iter().map(|part| json!({"rule": part.rule, "score": part.score}));
        let near = score.near.iter().map(|near| {
            let share = near.share.map(|share| ("share", json!(share)));
            let fields = [("over", json!(near.over)), ("instances", json!(near.instances))];
            object(fields.into_iter().chain(share))
        });
        json!({
            "host": score.host,
            "score": score.score,
            "parts": parts.collect::<Vec<_>>(),
            "near": near.collect::<Vec<_>>(),
        })
    });
    object([
        ("instance", json!(explanation.instance)),
        ("host", json!(explanation.host)),
        ("summary", json!(explanation.summary)),
        ("quota", explanation.quota.iter().map(excess).collect()),
        ("hosts", json!(explanation.hosts)),
        ("fitting", json!(explanation.fitting)),
        ("filters", Value::Array(filters.collect())),
        ("home", explanation.home.as_ref().map_or(Value::Null, home)),
        ("ahead", json!(explanation.ahead)),
        ("alike", json!(explanation.alike)),
        ("gang_waiting", json!(explanation.gang_waiting)),
        ("gang_fitting", json!(explanation.gang_fitting)),
        ("nearest", explanation.nearest.as_ref().map_or(Value::Null, nearest)),
        ("nearest_misses", explanation.nearest_misses.iter().map(nearest).collect()),
        ("scores", Value::Array(scores.collect())),
        (
            "changes",
            explanation
                .changes
                .iter()
                .map(|told| json!({"kind": told.kind, "change": told.change, "host": told.host}))
                .collect(),
        ),
    ])
}

fn excess(excess: &v1::QuotaExcess) -> Value {
    json!({
        "what": excess.what,
        "quota": excess.quota,
        "used": excess.used,
        "needed": excess.needed,
        "reason": excess.reason,
    })
}

fn home(home: &v1::HomeExplanation) -> Value {
    object([
        ("host", json!(home.host)),
        ("since", json!(moment(home.since_ms))),
        ("because", json!(home.because)),
    ])
}

fn nearest(miss: &v1::NearMiss) -> Value {
    let shortfalls = miss.shortfalls.iter().map(|short| {
        json!({"what": short.what, "needed": short.needed, "free": short.free, "reason": short.reason})
    });
    json!({"host": miss.host, "shortfalls": shortfalls.collect::<Vec<_>>()})
}

/// In lines for people.
pub fn text(explanation: &v1::PlacementExplanation) -> String {
    text_of(explanation, "it")
}

/// The same, where what would fit is called so.
pub fn text_of(explanation: &v1::PlacementExplanation, whom: &str) -> String {
    let mut text = format!("{}\n", explanation.summary);
    for filter in explanation.filters.iter().filter(|filter| filter.hosts > 0) {
        let hosts = if filter.hosts == 1 { "host" } else { "hosts" };
        text.push_str(&format!("  {:<15} {:>6} {hosts} ruled out\n", filter.filter, filter.hosts));
        for reason in &filter.reasons {
            text.push_str(&format!("  {:<15} {:>6}   {}\n", "", reason.hosts, reason.reason));
        }
        if filter.others > 0 {
            let reasons = if filter.others == 1 { "reason" } else { "reasons" };
            text.push_str(&format!("  {:<15} {:>6}   and {} other {reasons}\n", "", "", filter.others));
        }
    }
    for (place, miss) in misses(explanation).enumerate() {
        let short: Vec<&str> = miss.shortfalls.iter().map(|short| short.reason.as_str()).collect();
        let word = if place == 0 { "nearest" } else { "then" };
        text.push_str(&format!("  {word}: {} ({})\n", miss.host, short.join("; ")));
    }
    for told in &explanation.changes {
        text.push_str(&format!("  {whom} would fit: {}\n", told.change));
    }
    if explanation.ahead > 0 && !explanation.changes.is_empty() {
        text.push_str(&format!("  but {} that wait come first\n", explanation.ahead));
    }
    if explanation.alike > 0 {
        text.push_str(&format!("  {} more of this revision wait like it\n", explanation.alike));
    }
    // What its quota keeps goes nowhere yet.
    let scores = explanation.scores.iter().filter(|_| explanation.quota.is_empty());
    for (place, score) in scores.take(SCORES).enumerate() {
        let counts = |part: &&v1::ScorePart| part.score != 0 || score.parts.len() == 1;
        let parts: Vec<String> =
            score.parts.iter().filter(counts).map(|part| format!("{} {}", part.rule, part.score)).collect();
        let words = |near: &v1::Near| format!(", {}", near_text(near.instances, &near.over, near.share));
        let near: Vec<String> = score.near.iter().map(words).collect();
        text.push_str(&format!(
            "  {}. {} scores {} ({}){}\n",
            place + 1,
            score.host,
            score.score,
            parts.join(", "),
            near.concat()
        ));
    }
    text
}

/// The nearest misses; an older scheduler names only one.
fn misses(explanation: &v1::PlacementExplanation) -> impl Iterator<Item = &v1::NearMiss> {
    let further = explanation.nearest_misses.iter().skip(1);
    explanation.nearest.iter().chain(further)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_that_are_not_told_are_counted_below_those_that_are() {
        let reason = v1::FilterReason { reason: "needs label.a exists".to_owned(), hosts: 3 };
        let mut filter =
            v1::FilterResult { filter: "require".to_owned(), hosts: 3, reasons: vec![reason], others: 2 };
        let told = |filter: &v1::FilterResult| {
            text(&v1::PlacementExplanation { filters: vec![filter.clone()], ..Default::default() })
        };
        let lines = [
            "",
            "  require              3 hosts ruled out",
            "                       3   needs label.a exists",
            "                           and 2 other reasons",
            "",
        ];
        assert_eq!(told(&filter), lines.join("\n"));
        filter.others = 1;
        assert!(told(&filter).ends_with("and 1 other reason\n"));
        filter.others = 0;
        assert!(!told(&filter).contains("other"));
    }
}
