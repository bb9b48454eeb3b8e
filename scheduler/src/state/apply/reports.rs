//! Rules for what agents saw. A report moves what is seen of an instance; it decides something only where an instance is over.

use std::sync::Arc;

use supercloud_proto::{
    id::HostId,
    instance::{Desired, InstanceReport, InstanceState, TaskStatus},
    spec::WorkloadKind,
};

use super::Step;
use crate::state::{
    command::{Done, Rejection},
    model::{EventKind, Instance, Subject},
};

impl Step<'_> {
    pub(super) fn report(&mut self, host: HostId, reports: &[InstanceReport]) -> Result<Done, Rejection> {
        if !self.state.hosts.contains_key(&host) {
            return Err(Rejection::NotFound(format!("host number {host}")));
        }
        for report in reports {
            self.report_one(host, report);
        }
        Ok(Done::Nothing)
    }

    fn report_one(&mut self, host: HostId, report: &InstanceReport) {
        let known =
            self.state.instances.get(&report.instance).filter(|instance| instance.host() == Some(host));
        let Some(instance) = known.cloned() else { return self.unrecognised(host, report) };
        if report.sequence <= instance.report_sequence || !may_report(report.state) {
            return;
        }
        self.note_restarts(&instance, report);
        // Over is over: what it took was given to others the moment it was reported to have ended.
        let state =
            if instance.state.is_over() && !report.state.is_over() { instance.state } else { report.state };
        let changed = instance.state != state;
        let seen = Instance {
            state,
            state_reason: shared(&instance.state_reason, &report.reason),
            tasks: report.tasks.clone(),
            report_sequence: report.sequence,
            changed: if changed { self.time } else { instance.changed },
            ..Instance::clone(&instance)
        };
        if changed && is_news(state) {
            let subject = self.about(&seen);
            self.event(EventKind::InstanceState, subject, describe(report));
        }
        self.put(seen.clone());
        self.settle(&seen);
    }

    /// Draws the consequence where an instance is over.
    fn settle(&mut self, instance: &Instance) {
        match (instance.desired, instance.state) {
            (Desired::Stop, InstanceState::Stopped) => {
                let reason = instance.desired_reason.clone();
                self.take(instance.id, &reason);
            }
            (Desired::Run, InstanceState::Stopped) => {
                // Its host says that nothing is left of it although nobody told it to stop.
                let failed = Instance { state: InstanceState::Failed, ..instance.clone() };
                self.succeed(&failed, "gone from its host without an order");
                self.take(instance.id, "gone from its host without an order");
            }
            (Desired::Run, InstanceState::Failed) => {
                let reason = format!("failed: {}", instance.state_reason);
                self.succeed(instance, &reason);
            }
            (Desired::Run, InstanceState::Completed) if instance.spec.kind != WorkloadKind::Batch => {
                self.succeed(instance, "a service that ended");
            }
            _ => {}
        }
    }

    fn note_restarts(&mut self, instance: &Instance, report: &InstanceReport) {
        for task in &report.tasks {
            let before = instance.tasks.iter().find(|t| t.name == task.name).map_or(0, |t| t.restarts);
            if task.restarts > before {
                let subject = self.about(instance);
                let message = format!(
                    "task {} started anew (restart {}): {}",
                    task.name,
                    task.restarts,
                    last_end(task)
                );
                self.event(EventKind::InstanceRestarted, subject, message);
            }
        }
    }

    /// Something runs there that is not, or no longer, anybody's order for that host. It is left alone, and told.
    fn unrecognised(&mut self, host: HostId, report: &InstanceReport) {
        if report.state == InstanceState::Stopped {
            return;
        }
        let subject = Subject {
            instance: Some(report.instance),
            host: self.state.host_name(host).cloned(),
            ..Subject::default()
        };
        let message =
            format!("{} is {} without an order; it is left alone", report.instance, report.state.as_str());
        self.event(EventKind::InstanceUnrecognised, subject, message);
    }
}

/// Whether an agent has a say in this: that an instance waits, is placed or has lost its host is for the scheduler to know.
fn may_report(state: InstanceState) -> bool {
    !matches!(state, InstanceState::Pending | InstanceState::Placed | InstanceState::Lost)
}

/// Whether reaching this state is worth an event.
fn is_news(state: InstanceState) -> bool {
    use InstanceState::{Completed, Failed, Restarting, Running, Unknown};
    matches!(state, Running | Restarting | Completed | Failed | Unknown)
}

fn describe(report: &InstanceReport) -> String {
    match report.reason.as_str() {
        "" => report.state.as_str().to_owned(),
        reason => format!("{}: {reason}", report.state.as_str()),
    }
}

fn last_end(task: &TaskStatus) -> &str {
    if task.reason.is_empty() { "no reason given" } else { &task.reason }
}

/// Keeps the text that is there where it is the same.
fn shared(present: &Arc<str>, new: &str) -> Arc<str> {
    if present.as_ref() == new { present.clone() } else { new.into() }
}
