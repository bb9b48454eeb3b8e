//! Rules for boroughs: created, and given more or less.

use std::sync::Arc;

use supercloud_proto::{name::BoroughName, problem::Problem, spec::MAX_PRIORITY};

use super::{Step, telling::differences};
use crate::state::{
    command::{Change, Done, Rejection},
    fits::Amount,
    model::{Borough, EventKind, Subject},
    quota::{Allowance, BoroughChange},
};

impl Step<'_> {
    pub(super) fn create_borough(&mut self, name: &BoroughName, title: &str) -> Result<Done, Rejection> {
        if self.state.boroughs.contains_key(name) {
            return Err(Rejection::Exists(format!("borough {name}")));
        }
        let borough = Borough {
            name: name.clone(),
            title: title.to_owned(),
            created: self.time,
            allowance: Allowance::default(),
        };
        self.put_borough(borough, EventKind::BoroughCreated, format!("borough {title} created"));
        Ok(Done::Nothing)
    }

    pub(super) fn set_borough(
        &mut self,
        name: &BoroughName,
        change: &BoroughChange,
    ) -> Result<Done, Rejection> {
        let known = self.state.boroughs.get(name);
        let before = known.ok_or_else(|| Rejection::NotFound(format!("borough {name}")))?;
        let after = Borough {
            title: change.title.clone().unwrap_or_else(|| before.title.clone()),
            allowance: before.allowance.with(change),
            ..Borough::clone(before)
        };
        let problems = problems(&after.allowance, change);
        if !problems.is_empty() {
            return Err(Rejection::Invalid(problems));
        }
        let differences = differences(facts(before), facts(&after));
        if differences.is_empty() {
            return Ok(Done::Applied(Change::Unchanged));
        }
        self.put_borough(after, EventKind::BoroughChanged, differences);
        Ok(Done::Applied(Change::Updated))
    }

    fn put_borough(&mut self, borough: Borough, kind: EventKind, message: String) {
        let subject = Subject { borough: Some(borough.name.clone()), ..Subject::default() };
        self.state.boroughs.insert(borough.name.clone(), Arc::new(borough));
        self.event(kind, subject, message);
    }
}

/// Each amount with what is guaranteed of it, and its quota.
fn amounts(allowance: &Allowance) -> [(Amount, u64, Option<u64>); 3] {
    let Allowance { quota, guarantee, .. } = allowance;
    [
        (Amount::Cpu, guarantee.cpu.0, quota.cpu.map(|most| most.0)),
        (Amount::Memory, guarantee.memory.0, quota.memory.map(|most| most.0)),
        (Amount::Disk, guarantee.disk.0, quota.disk.map(|most| most.0)),
    ]
}

/// What is wrong with an allowance, by the fields of the change that made it so.
fn problems(allowance: &Allowance, change: &BoroughChange) -> Vec<Problem> {
    let given =
        [change.guarantee_cpu.is_some(), change.guarantee_memory.is_some(), change.guarantee_disk.is_some()];
    let above = |((what, guarantee, quota), is_given): ((Amount, u64, Option<u64>), bool)| {
        let quota = quota.filter(|quota| guarantee > *quota)?;
        let (guarantee, quota) = (what.exact(guarantee), what.exact(quota));
        Some(if is_given {
            Problem::new(field("guarantee", what), format!("at most the quota of {quota}"), guarantee)
        } else {
            Problem::new(field("quota", what), format!("at least the guarantee of {guarantee}"), quota)
        })
    };
    let mut problems: Vec<Problem> = amounts(allowance).into_iter().zip(given).filter_map(above).collect();
    let (least, most) = (Allowance::LEAST_WEIGHT, Allowance::MOST_WEIGHT);
    if !(least..=most).contains(&allowance.weight) {
        problems.push(Problem::new(
            "change.weight",
            format!("{least} to {most}"),
            allowance.weight.to_string(),
        ));
    }
    if allowance.max_priority > MAX_PRIORITY {
        let expected = format!("0 to {MAX_PRIORITY}");
        problems.push(Problem::new("change.max_priority", expected, allowance.max_priority.to_string()));
    }
    problems
}

/// The field of the request that changes an amount.
fn field(of: &str, what: Amount) -> String {
    let unit = match what {
        Amount::Cpu => "millis",
        Amount::Memory | Amount::Disk => "bytes",
        Amount::Network => "mbits",
    };
    format!("change.{of}_{}_{unit}", what.as_str())
}

/// All that can be changed of a borough, in words.
fn facts(borough: &Borough) -> Vec<(String, String)> {
    let mut facts = vec![("title".to_owned(), format!("{:?}", borough.title))];
    for (what, guarantee, quota) in amounts(&borough.allowance) {
        let quota = quota.map_or_else(|| "none".to_owned(), |most| what.exact(most));
        facts.push((format!("quota.{}", what.as_str()), quota));
        facts.push((format!("guarantee.{}", what.as_str()), what.exact(guarantee)));
    }
    facts.push(("weight".to_owned(), borough.allowance.weight.to_string()));
    facts.push(("max_priority".to_owned(), borough.allowance.max_priority.to_string()));
    facts.push(("private_hosts".to_owned(), borough.allowance.private_hosts.to_string()));
    facts
}
