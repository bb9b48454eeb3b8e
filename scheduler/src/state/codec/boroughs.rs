//! Boroughs and what changes of them as messages and back.

use supercloud_proto::{
    amount::{Amounts, Bytes, MilliCpu},
    problem::Problems,
    spec::MAX_PRIORITY,
    v1,
};

use super::entry::parsed;
use crate::state::{
    model::Borough,
    quota::{Allowance, BoroughChange, Quota},
};

/// A borough, without what is counted.
pub fn borough_message(borough: &Borough) -> v1::Borough {
    let Allowance { quota, guarantee, weight, max_priority, private_hosts } = borough.allowance;
    v1::Borough {
        name: (&borough.name).into(),
        title: borough.title.clone(),
        created_ms: borough.created,
        quota: quota_message(quota),
        guarantee: (guarantee != Amounts::default()).then(|| guarantee.into()),
        weight,
        max_priority: Some(max_priority),
        private_hosts,
        ..v1::Borough::default()
    }
}

/// A quota; nothing where there is none.
pub fn quota_message(quota: Quota) -> Option<v1::Quota> {
    (quota != Quota::default()).then(|| v1::Quota {
        cpu_millis: quota.cpu.map(|most| most.0),
        memory_bytes: quota.memory.map(|most| most.0),
        disk_bytes: quota.disk.map(|most| most.0),
    })
}

/// A borough as a snapshot holds it. One with the usual weight and highest priority has the bytes that it had before there were any: hashes of states are
/// compared between versions.
pub(super) fn borough_record(borough: &Borough) -> v1::Borough {
    let message = borough_message(borough);
    v1::Borough {
        weight: if message.weight == Allowance::USUAL_WEIGHT { 0 } else { message.weight },
        max_priority: message.max_priority.filter(|most| *most != MAX_PRIORITY),
        ..message
    }
}

pub(super) fn parse_borough(message: v1::Borough) -> Result<Borough, Problems> {
    let quota = message.quota.map_or_else(Quota::default, |quota| Quota {
        cpu: quota.cpu_millis.map(MilliCpu),
        memory: quota.memory_bytes.map(Bytes),
        disk: quota.disk_bytes.map(Bytes),
    });
    let weight = if message.weight == 0 { Allowance::USUAL_WEIGHT } else { message.weight };
    Ok(Borough {
        name: parsed("name", &message.name)?,
        title: message.title,
        created: message.created_ms,
        allowance: Allowance {
            quota,
            guarantee: message.guarantee.map(Amounts::from).unwrap_or_default(),
            weight,
            max_priority: message.max_priority.unwrap_or(MAX_PRIORITY),
            private_hosts: message.private_hosts,
        },
    })
}

pub(super) fn change_message(change: &BoroughChange) -> v1::BoroughChange {
    let limit = |at_most| v1::Limit { at_most };
    v1::BoroughChange {
        title: change.title.clone(),
        quota_cpu_millis: change.quota_cpu.map(|most| limit(most.map(|most| most.0))),
        quota_memory_bytes: change.quota_memory.map(|most| limit(most.map(|most| most.0))),
        quota_disk_bytes: change.quota_disk.map(|most| limit(most.map(|most| most.0))),
        guarantee_cpu_millis: change.guarantee_cpu.map(|amount| amount.0),
        guarantee_memory_bytes: change.guarantee_memory.map(|amount| amount.0),
        guarantee_disk_bytes: change.guarantee_disk.map(|amount| amount.0),
        weight: change.weight,
        max_priority: change.max_priority,
        private_hosts: change.private_hosts,
    }
}

/// What changes of a borough.
pub fn parse_change(message: v1::BoroughChange) -> BoroughChange {
    BoroughChange {
        title: message.title,
        quota_cpu: message.quota_cpu_millis.map(|limit| limit.at_most.map(MilliCpu)),
        quota_memory: message.quota_memory_bytes.map(|limit| limit.at_most.map(Bytes)),
        quota_disk: message.quota_disk_bytes.map(|limit| limit.at_most.map(Bytes)),
        guarantee_cpu: message.guarantee_cpu_millis.map(MilliCpu),
        guarantee_memory: message.guarantee_memory_bytes.map(Bytes),
        guarantee_disk: message.guarantee_disk_bytes.map(Bytes),
        weight: message.weight,
        max_priority: message.max_priority,
        private_hosts: message.private_hosts,
    }
}
