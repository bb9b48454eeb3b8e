//! Rules for what agents saw. A report moves what is seen of an instance; it decides something only where an instance is over.

use std::sync::Arc;

use supercloud_proto::{
    id::{HostId, InstanceId},
    instance::{Desired, InstanceReport, InstanceState, TaskStatus},
    spec::WorkloadKind,
};

use super::{
    Step,
    telling::{Note, Text},
};
use crate::state::{
    command::{Done, HostReports, Rejection},
    model::{EventKind, Instance, Subject, TaskSeen},
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

    /// What several agents saw. Whoever waits for a host that is not known learns of its removal from the state.
    pub(super) fn report_many(&mut self, hosts: &[HostReports]) -> Done {
        for HostReports { host, reports } in hosts {
            // A rejection is that of an unknown host, of which nothing was changed.
            let _ = self.report(*host, reports);
        }
        Done::Nothing
    }

    fn report_one(&mut self, host: HostId, report: &InstanceReport) {
        let known =
            self.state.instances.get(&report.instance).filter(|instance| instance.host() == Some(host));
        let Some(instance) = known else { return self.unrecognised(host, report) };
        if report.sequence <= instance.report_sequence || !may_report(report.state) {
            return;
        }
        // Over is over: what it took was given to others the moment it was reported to have ended.
        let state =
            if instance.state.is_over() && !report.state.is_over() { instance.state } else { report.state };
        let changed = instance.state != state;
        let mut notes: Vec<Note> = restarts(instance, report)
            .map(|text| self.note(EventKind::InstanceRestarted, instance, Text::Said(text)))
            .collect();
        if changed && is_news(state) {
            notes.push(self.note(EventKind::InstanceState, instance, Text::Said(describe(report))));
        }
        notes.into_iter().for_each(|note| self.tellings.note(note));
        let time = self.time;
        self.change(report.instance, |instance| {
            instance.state = state;
            instance.set_state_reason(&report.reason);
            instance.tasks = report.tasks.iter().map(|task| TaskSeen::of(task, instance.spec())).collect();
            instance.report_sequence = report.sequence;
            if changed {
                instance.changed = time;
            }
        });
        self.settle(report.instance);
    }

    /// Draws the consequence where an instance is over.
    fn settle(&mut self, id: InstanceId) {
        let over = |instance: &&Arc<Instance>| instance.state.is_over();
        let Some(instance) = self.state.instances.get(&id).filter(over).cloned() else { return };
        match (instance.desired, instance.state) {
            (Desired::Stop, InstanceState::Stopped) => self.take(id, instance.desired_reason()),
            (Desired::Run, InstanceState::Stopped) => {
                // Its host says that nothing is left of it although nobody told it to stop.
                let failed = Instance { state: InstanceState::Failed, ..Instance::clone(&instance) };
                self.succeed(&failed, "gone from its host without an order");
                self.take(id, "gone from its host without an order");
            }
            (Desired::Run, InstanceState::Failed) => {
                let reason = format!("failed: {}", instance.state_reason());
                self.succeed(&instance, &reason);
            }
            (Desired::Run, InstanceState::Completed) if instance.spec().kind != WorkloadKind::Batch => {
                self.succeed(&instance, "a service that ended");
            }
            _ => {}
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

fn describe(report: &InstanceReport) -> Arc<str> {
    match report.reason.as_str() {
        "" => report.state.as_str().into(),
        reason => format!("{}: {reason}", report.state.as_str()).into(),
    }
}

/// What is to be said of tasks that were started anew since the last report.
fn restarts<'r>(
    instance: &'r Instance,
    report: &'r InstanceReport,
) -> impl Iterator<Item = Arc<str>> + use<'r> {
    let before = |task: &TaskStatus| {
        instance.tasks.iter().find(|known| *known.name() == task.name).map_or(0, TaskSeen::restarts)
    };
    report.tasks.iter().filter(move |task| task.restarts > before(task)).map(|task| {
        format!("task {} started anew (restart {}): {}", task.name, task.restarts, last_end(task)).into()
    })
}

fn last_end(task: &TaskStatus) -> &str {
    if task.reason.is_empty() { "no reason given" } else { &task.reason }
}
