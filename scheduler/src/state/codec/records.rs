//! Records as messages and back. The API shows the same messages that snapshots hold.

use std::sync::Arc;

use imbl::Vector;
use supercloud_proto::{
    host::HostState,
    id::{HostId, LogIndex},
    log::v1 as stored,
    problem::Problems,
    spec::WorkloadSpec,
    v1,
};

use super::entry::{parse_grant, parsed, token, wrong};
use crate::state::{
    State,
    model::{Host, Instance, RevisionRecord, Token, Workload},
};

/// A workload, without counts and history.
pub fn workload_message(workload: &Workload) -> v1::Workload {
    let current = workload.current();
    v1::Workload {
        spec: Some(current.spec.as_ref().into()),
        revision: current.revision,
        stopped: workload.stopped,
        purging: workload.purging,
        created_ms: workload.created,
        changed_ms: workload.changed,
        changed_index: workload.changed_index,
        applied_ms: current.applied,
        applied_by: current.applied_by.clone(),
        counts: None,
        history: Vec::new(),
    }
}

/// One revision.
pub fn workload_revision_message(record: &RevisionRecord) -> v1::WorkloadRevision {
    v1::WorkloadRevision {
        revision: record.revision,
        spec: Some(record.spec.as_ref().into()),
        applied_ms: record.applied,
        applied_by: record.applied_by.clone(),
    }
}

/// A workload with all its revisions.
pub(super) fn whole_workload_message(workload: &Workload) -> v1::Workload {
    let older = workload.revisions.len() - 1;
    v1::Workload {
        history: workload
            .revisions
            .iter()
            .take(older)
            .map(|record| workload_revision_message(record))
            .collect(),
        ..workload_message(workload)
    }
}

pub(super) fn parse_workload(message: v1::Workload) -> Result<Workload, Problems> {
    let current = v1::WorkloadRevision {
        revision: message.revision,
        spec: message.spec,
        applied_ms: message.applied_ms,
        applied_by: message.applied_by,
    };
    let records = message.history.into_iter().chain([current]).map(parse_revision);
    let revisions: Vector<_> = records.collect::<Result<_, _>>()?;
    let key =
        revisions.last().map(|record| record.spec.key()).ok_or_else(|| wrong("revision", "one", "none"))?;
    Ok(Workload {
        key,
        revisions,
        stopped: message.stopped,
        purging: message.purging,
        created: message.created_ms,
        changed: message.changed_ms,
        changed_index: message.changed_index,
    })
}

fn parse_revision(message: v1::WorkloadRevision) -> Result<Arc<RevisionRecord>, Problems> {
    let spec = message.spec.ok_or_else(|| wrong("spec", "a spec", "none"))?;
    let spec = WorkloadSpec::try_from(spec)?;
    Ok(Arc::new(RevisionRecord {
        key: spec.key(),
        revision: message.revision,
        spec: Arc::new(spec),
        applied: message.applied_ms,
        applied_by: message.applied_by,
    }))
}

/// A host, without what is counted.
pub fn host_message(host: &Host) -> v1::Host {
    v1::Host {
        name: (&host.name).into(),
        id: host.id.0,
        state: host.state.into(),
        state_reason: host.state_reason.clone(),
        state_since_ms: host.state_since,
        schedulable: host.schedulable,
        inventory: Some(host.inventory.as_ref().into()),
        used: None,
        instances: 0,
        registered_ms: host.registered,
        device_use: Vec::new(),
        own_cpus: Vec::new(),
    }
}

pub(super) fn host_record(host: &Host, orders_index: LogIndex) -> stored::HostRecord {
    stored::HostRecord { host: Some(host_message(host)), incarnation: host.incarnation.clone(), orders_index }
}

pub(super) fn parse_host(record: stored::HostRecord) -> Result<Host, Problems> {
    let message = record.host.ok_or_else(|| wrong("host", "a host", "none"))?;
    let inventory = message.inventory.ok_or_else(|| wrong("inventory", "an inventory", "none"))?;
    Ok(Host {
        id: HostId(message.id),
        name: parsed("name", &message.name)?,
        inventory: Arc::new(inventory.try_into()?),
        incarnation: record.incarnation,
        state: HostState::try_from(message.state)?,
        state_reason: message.state_reason,
        state_since: message.state_since_ms,
        schedulable: message.schedulable,
        registered: message.registered_ms,
    })
}

impl State {
    /// An instance as the API shows it and a snapshot holds it; with the name and address of its host, which this state knows.
    pub fn instance_message(&self, instance: &Instance) -> v1::Instance {
        let host = instance.host().and_then(|id| self.host(id));
        let awaited = instance.awaited_host();
        v1::Instance {
            id: instance.id.to_string(),
            borough: (&instance.workload().borough).into(),
            workload: (&instance.workload().workload).into(),
            revision: instance.revision(),
            slot: instance.slot,
            host: host.map(|host| String::from(&host.name)).unwrap_or_default(),
            host_id: instance.host().map_or(0, |id| id.0),
            desired: instance.desired.into(),
            desired_reason: instance.desired_reason().to_owned(),
            state: instance.state.into(),
            state_reason: instance.state_reason().to_owned(),
            order_index: instance.order_index,
            created_ms: instance.created,
            changed_ms: instance.changed,
            not_before_ms: instance.not_before(),
            tasks: instance.tasks.iter().map(|task| task.status().into()).collect(),
            ports: self.bindings(instance).into_iter().map(Into::into).collect(),
            replaces: instance.replaces().map(|id| id.to_string()).unwrap_or_default(),
            failures: instance.failures(),
            report_sequence: instance.report_sequence,
            taken: instance.placed.as_ref().map(|placed| placed.taken.into()),
            devices: instance.given_devices().map(Into::into).collect(),
            cores: instance.cores().map(Into::into),
            awaited_rank: instance.awaited().map_or(0, |awaited| awaited.rank),
            awaited_host_id: awaited.map_or(0, |id| id.0),
            awaited_host: awaited.and_then(|id| self.host_name(id)).map(String::from).unwrap_or_default(),
        }
    }
}

pub(super) fn token_record(of: &Token) -> stored::CreateToken {
    token(&of.id, &of.secret_hash, &of.grant, of.expires)
}

pub(super) fn parse_token(record: stored::CreateToken) -> Result<Token, Problems> {
    Ok(Token {
        grant: parse_grant(record.role(), &record.name, &record.borough)?,
        id: record.id,
        secret_hash: record.secret_hash,
        expires: record.expires_ms,
    })
}
