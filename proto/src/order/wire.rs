//! Conversions between these types and the API's messages.

use super::Order;
use crate::{
    cores::Cores,
    device::GivenDevice,
    instance::PortBinding,
    name::WorkloadKey,
    problem::{Faults, Problems},
    spec::{Resources, Task},
    v1,
};

impl From<Order> for v1::Order {
    fn from(order: Order) -> Self {
        Self {
            instance: order.instance.to_string(),
            index: order.index,
            borough: order.workload.borough.into(),
            workload: order.workload.workload.into(),
            revision: order.revision,
            slot: order.slot,
            desired: order.desired.into(),
            reason: order.reason,
            kind: order.kind.into(),
            tasks: order.tasks.into_iter().map(Into::into).collect(),
            resources: Some(order.resources.into()),
            ports: order.ports.into_iter().map(Into::into).collect(),
            restart: Some(order.restart.into()),
            stop_grace_ms: order.stop_grace,
            exclusive: order.exclusive,
            devices: order.devices.into_iter().map(Into::into).collect(),
            class: order.class.number(),
            cores: order.cores.map(Into::into),
        }
    }
}

impl From<&Order> for v1::Order {
    fn from(order: &Order) -> Self {
        order.clone().into()
    }
}

impl TryFrom<v1::Order> for Order {
    type Error = Problems;

    fn try_from(message: v1::Order) -> Result<Self, Problems> {
        let mut faults = Faults::default();
        let instance = faults.take("instance", message.instance.parse());
        let borough = faults.take("borough", message.borough.parse());
        let workload = faults.take("workload", message.workload.parse());
        let desired = faults.take("desired", message.desired.try_into());
        let kind = faults.take("kind", message.kind.try_into());
        let tasks = faults.each("tasks", message.tasks, Task::try_from);
        let ports = faults.each("ports", message.ports, PortBinding::try_from);
        let resources = faults.take("resources", Resources::try_from(message.resources.unwrap_or_default()));
        let devices = faults.each("devices", message.devices, GivenDevice::try_from);
        let cores = message.cores.map(|cores| faults.take("cores", Cores::try_from(cores)));
        let class = faults.take("class", message.class.try_into());
        let whole = || {
            Some(Self {
                instance: instance?,
                index: message.index,
                workload: WorkloadKey { borough: borough?, workload: workload? },
                revision: message.revision,
                slot: message.slot,
                desired: desired?,
                reason: message.reason,
                kind: kind?,
                tasks: tasks?,
                resources: resources?,
                ports: ports?,
                restart: message.restart.map(Into::into).unwrap_or_default(),
                stop_grace: message.stop_grace_ms,
                exclusive: message.exclusive,
                devices: devices?,
                class: class?,
                cores: match cores {
                    Some(cores) => Some(cores?),
                    None => None,
                },
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
        fn an_order_survives_the_wire(order in samples::order()) {
            prop_assert_eq!(Order::try_from(v1::Order::from(&order)), Ok(order));
        }
    }

    #[test]
    fn an_empty_order_is_refused_with_all_its_problems() {
        let problems = Order::try_from(v1::Order::default()).unwrap_err();
        let paths: Vec<&str> = problems.0.iter().map(|problem| problem.path.as_str()).collect();
        assert_eq!(paths, ["instance", "borough", "workload", "desired", "kind"]);
    }
}
