//! Conversions between these types and the API's messages.

use super::{Desired, InstanceReport, InstanceState, PortBinding, TaskStatus};
use crate::{
    problem::{Faults, Problems},
    spec::Protocol,
    v1,
    wire::{port, wire_enum},
};

wire_enum!(Desired as InstanceDesired, "what is wanted of an instance", { Run, Stop });
wire_enum!(InstanceState, "an instance's state", {
    Pending, Placed, Preparing, Starting, Running, Restarting, Stopping, Stopped, Completed, Failed, Unknown, Lost,
});

impl From<TaskStatus> for v1::TaskStatus {
    fn from(task: TaskStatus) -> Self {
        Self {
            name: task.name.into(),
            state: task.state.into(),
            runtime_id: task.runtime_id,
            started_ms: task.started.unwrap_or_default(),
            finished_ms: task.finished.unwrap_or_default(),
            exit_code: task.exit_code,
            restarts: task.restarts,
            reason: task.reason,
        }
    }
}

impl From<&TaskStatus> for v1::TaskStatus {
    fn from(task: &TaskStatus) -> Self {
        task.clone().into()
    }
}

impl TryFrom<v1::TaskStatus> for TaskStatus {
    type Error = Problems;

    fn try_from(message: v1::TaskStatus) -> Result<Self, Problems> {
        let mut faults = Faults::default();
        let name = faults.take("name", message.name.parse());
        let state = faults.take("state", message.state.try_into());
        let whole = name.zip(state).map(|(name, state)| Self {
            name,
            state,
            runtime_id: message.runtime_id,
            started: Some(message.started_ms).filter(|ms| *ms != 0),
            finished: Some(message.finished_ms).filter(|ms| *ms != 0),
            exit_code: message.exit_code,
            restarts: message.restarts,
            reason: message.reason,
        });
        faults.finish(whole)
    }
}

impl From<PortBinding> for v1::PortBinding {
    fn from(binding: PortBinding) -> Self {
        Self {
            name: binding.name.into(),
            task: binding.task.into(),
            port: binding.port.into(),
            host_port: binding.host_port.into(),
            address: binding.address,
            udp: binding.protocol == Protocol::Udp,
        }
    }
}

impl From<&PortBinding> for v1::PortBinding {
    fn from(binding: &PortBinding) -> Self {
        binding.clone().into()
    }
}

impl TryFrom<v1::PortBinding> for PortBinding {
    type Error = Problems;

    fn try_from(message: v1::PortBinding) -> Result<Self, Problems> {
        let mut faults = Faults::default();
        let name = faults.take("name", message.name.parse());
        let task = faults.take("task", message.task.parse());
        let inside = faults.take("port", port(message.port));
        let host_port = faults.take("host_port", port(message.host_port));
        let whole = || {
            Some(Self {
                name: name?,
                task: task?,
                port: inside?,
                host_port: host_port?,
                address: message.address,
                protocol: if message.udp { Protocol::Udp } else { Protocol::Tcp },
            })
        };
        let whole = whole();
        faults.finish(whole)
    }
}

impl From<InstanceReport> for v1::InstanceReport {
    fn from(report: InstanceReport) -> Self {
        Self {
            instance: report.instance.to_string(),
            sequence: report.sequence,
            order_index: report.order_index,
            state: report.state.into(),
            reason: report.reason,
            tasks: report.tasks.into_iter().map(Into::into).collect(),
            time_ms: report.time,
            unordered: report.unordered,
        }
    }
}

impl From<&InstanceReport> for v1::InstanceReport {
    fn from(report: &InstanceReport) -> Self {
        report.clone().into()
    }
}

impl TryFrom<v1::InstanceReport> for InstanceReport {
    type Error = Problems;

    fn try_from(message: v1::InstanceReport) -> Result<Self, Problems> {
        let mut faults = Faults::default();
        let instance = faults.take("instance", message.instance.parse());
        let state = faults.take("state", message.state.try_into());
        let tasks = faults.each("tasks", message.tasks, TaskStatus::try_from);
        let whole = || {
            Some(Self {
                instance: instance?,
                sequence: message.sequence,
                order_index: message.order_index,
                state: state?,
                reason: message.reason,
                tasks: tasks?,
                time: message.time_ms,
                unordered: message.unordered,
            })
        };
        let whole = whole();
        faults.finish(whole)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::samples;

    proptest! {
        #[test]
        fn a_report_survives_the_wire(report in samples::instance_report()) {
            prop_assert_eq!(InstanceReport::try_from(v1::InstanceReport::from(&report)), Ok(report));
        }

        #[test]
        fn a_binding_survives_the_wire(binding in samples::port_binding()) {
            prop_assert_eq!(PortBinding::try_from(v1::PortBinding::from(&binding)), Ok(binding));
        }
    }

    #[test]
    fn every_state_survives_the_wire() {
        for state in InstanceState::ALL {
            assert_eq!(InstanceState::try_from(i32::from(state)), Ok(state));
        }
        for desired in [Desired::Run, Desired::Stop] {
            assert_eq!(Desired::try_from(i32::from(desired)), Ok(desired));
        }
        assert!(InstanceState::try_from(0).is_err() && InstanceState::try_from(13).is_err());
    }

    #[test]
    fn problems_of_a_report_tell_where_they_are() {
        let task = v1::TaskStatus { name: "main".to_owned(), state: 99, ..Default::default() };
        let message =
            v1::InstanceReport { instance: "x".to_owned(), tasks: vec![task], ..Default::default() };
        let problems = InstanceReport::try_from(message).unwrap_err();
        let paths: Vec<&str> = problems.0.iter().map(|problem| problem.path.as_str()).collect();
        assert_eq!(paths, ["instance", "state", "tasks[0].state"]);
    }
}
