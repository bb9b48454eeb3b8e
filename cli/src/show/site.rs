//! Sites.

use serde_json::{Value, json};
use supercloud_proto::v1;

use super::{
    host::{amounts, host_amounts_value, network},
    object,
};
use crate::output::{Headings, Shown, facts};

/// Headings of the list. Of each amount what is given away, by the site's policy, and what there is.
pub const HEADINGS: Headings = Headings {
    usual: &["site", "hosts", "ready", "instances", "cpu", "memory", "disk", "policy"],
    wide: &["network"],
};

/// One site.
pub fn shown(site: &v1::Site) -> Shown {
    let (used, all) = (amounts(site.used), amounts(site.allocatable));
    Shown {
        name: site.name.clone(),
        value: object([
            ("name", json!(site.name)),
            ("hosts", json!(site.hosts)),
            ("ready", json!(site.ready)),
            ("instances", json!(site.instances)),
            ("allocatable", host_amounts_value(all, network(site.allocatable))),
            ("used", host_amounts_value(used, network(site.used))),
            ("policy", policy_value(&site.policy.unwrap_or_default())),
        ]),
        row: vec![
            site.name.clone(),
            site.hosts.to_string(),
            site.ready.to_string(),
            site.instances.to_string(),
            format!("{}/{}", used.cpu, all.cpu),
            format!("{}/{}", used.memory, all.memory),
            format!("{}/{}", used.disk, all.disk),
            unusual(&site.policy.unwrap_or_default()),
            format!("{}/{}", network(site.used), network(site.allocatable)),
        ],
    }
}

/// One site in lines.
pub fn text(site: &v1::Site) -> String {
    let (used, all) = (amounts(site.used), amounts(site.allocatable));
    let policy = site.policy.unwrap_or_default();
    facts(&[
        ("site", site.name.clone()),
        ("hosts", format!("{}, {} of them ready", site.hosts, site.ready)),
        ("instances", site.instances.to_string()),
        ("cpu", format!("{} of {} given away", used.cpu, all.cpu)),
        ("memory", format!("{} of {} given away", used.memory, all.memory)),
        ("disk", format!("{} of {} given away", used.disk, all.disk)),
        ("network", format!("{} of {} given away", network(site.used), network(site.allocatable))),
        ("standard", format!("{} % of its processors", policy.standard_cpu_percent)),
        ("spare", format!("{} % of its processors", policy.spare_cpu_percent)),
        ("packing", packing(&policy).to_owned()),
        ("cost", policy.cost.to_string()),
    ])
}

/// A policy for programs.
fn policy_value(policy: &v1::SitePolicy) -> Value {
    object([
        ("standard_cpu_percent", json!(policy.standard_cpu_percent)),
        ("spare_cpu_percent", json!(policy.spare_cpu_percent)),
        ("packing", json!(packing(policy))),
        ("cost", json!(policy.cost)),
    ])
}

/// What of a policy is not as usual, in a few words.
fn unusual(policy: &v1::SitePolicy) -> String {
    let percent = |class: &str, percent: u32| (percent != 100).then(|| format!("{class} {percent} %"));
    let parts = [
        percent("standard", policy.standard_cpu_percent),
        percent("spare", policy.spare_cpu_percent),
        (policy.packing() == v1::Packing::Spread).then(|| "spread".to_owned()),
        (policy.cost > 0).then(|| format!("cost {}", policy.cost)),
    ];
    super::dash(&parts.into_iter().flatten().collect::<Vec<_>>().join(", "))
}

fn packing(policy: &v1::SitePolicy) -> &'static str {
    match policy.packing() {
        v1::Packing::Spread => "spread",
        v1::Packing::Pack | v1::Packing::Unspecified => "pack",
    }
}
