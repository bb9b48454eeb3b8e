//! Policies of sites and what changes of them as messages and back.

use supercloud_proto::{
    log::v1 as stored,
    name::SiteName,
    problem::{Problem, Problems},
    v1,
};

use super::entry::{parsed, wrong};
use crate::state::site::{Packing, SiteChange, SitePolicy};

/// A policy.
pub fn policy_message(policy: SitePolicy) -> v1::SitePolicy {
    v1::SitePolicy {
        standard_cpu_percent: policy.standard_cpu_percent,
        spare_cpu_percent: policy.spare_cpu_percent,
        packing: packing_message(policy.packing).into(),
        cost: policy.cost,
    }
}

/// A site as a snapshot holds it.
pub(super) fn site_record(name: &SiteName, policy: SitePolicy) -> stored::SiteRecord {
    stored::SiteRecord { name: name.into(), policy: Some(policy_message(policy)) }
}

pub(super) fn parse_site(record: stored::SiteRecord) -> Result<(SiteName, SitePolicy), Problems> {
    let message = record.policy.ok_or_else(|| wrong("policy", "a policy", "none"))?;
    let policy = SitePolicy {
        standard_cpu_percent: message.standard_cpu_percent,
        spare_cpu_percent: message.spare_cpu_percent,
        packing: parse_packing(message.packing)?,
        cost: message.cost,
    };
    Ok((parsed("name", &record.name)?, policy))
}

pub(super) fn change_message(change: SiteChange) -> v1::SiteChange {
    v1::SiteChange {
        standard_cpu_percent: change.standard_cpu_percent,
        spare_cpu_percent: change.spare_cpu_percent,
        packing: change.packing.map(|packing| packing_message(packing).into()),
        cost: change.cost,
    }
}

/// What changes of a site's policy.
///
/// # Errors
/// For a packing that there is not.
pub fn parse_change(message: v1::SiteChange) -> Result<SiteChange, Problems> {
    Ok(SiteChange {
        standard_cpu_percent: message.standard_cpu_percent,
        spare_cpu_percent: message.spare_cpu_percent,
        packing: message.packing.map(parse_packing).transpose()?,
        cost: message.cost,
    })
}

fn packing_message(packing: Packing) -> v1::Packing {
    match packing {
        Packing::Pack => v1::Packing::Pack,
        Packing::Spread => v1::Packing::Spread,
    }
}

fn parse_packing(number: i32) -> Result<Packing, Problem> {
    match v1::Packing::try_from(number) {
        Ok(v1::Packing::Pack | v1::Packing::Unspecified) => Ok(Packing::Pack),
        Ok(v1::Packing::Spread) => Ok(Packing::Spread),
        Err(_) => Err(Problem::new("packing", "pack or spread", format!("the unknown number {number}"))),
    }
}
