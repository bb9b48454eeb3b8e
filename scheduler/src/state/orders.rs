//! Orders as they follow from the state: what a host is told about the instances on it.

use supercloud_proto::{
    id::{HostId, LogIndex},
    instance::PortBinding,
    order::Order,
    spec::Resources,
};

use super::{State, model::Instance};

impl State {
    /// The orders of a host that were decided after `after`; all of them with 0.
    pub fn orders_of(&self, host: HostId, after: LogIndex) -> impl Iterator<Item = Order> {
        self.instances_on(host)
            .filter(move |instance| instance.order_index > after)
            .map(|instance| self.order_of(instance))
    }

    /// The orders that a session has to send which has sent those up to `sent`; `None`: the host is not known any more.
    pub fn unsent_orders(&self, host: HostId, sent: LogIndex) -> Option<Vec<Order>> {
        let is_new = *self.orders_indexes().get(&host)? > sent;
        Some(if is_new { self.orders_of(host, sent).collect() } else { Vec::new() })
    }

    fn order_of(&self, instance: &Instance) -> Order {
        let spec = instance.spec();
        Order {
            instance: instance.id,
            index: instance.order_index,
            workload: instance.workload().clone(),
            revision: instance.revision(),
            slot: instance.slot,
            desired: instance.desired,
            reason: instance.desired_reason().to_owned(),
            kind: spec.kind,
            tasks: spec.tasks.clone(),
            // Which devices it has is said below; what was asked for is not the agent's to read.
            resources: Resources { devices: Vec::new(), ..spec.resources.clone() },
            ports: self.bindings(instance),
            restart: spec.restart,
            stop_grace: spec.stop_grace,
            exclusive: spec.is_exclusive(),
            devices: instance.given_devices().collect(),
            class: spec.class,
            cores: instance.cores().cloned(),
        }
    }

    /// The published ports of an instance, with the address of its host; none while it is pending.
    pub fn bindings(&self, instance: &Instance) -> Vec<PortBinding> {
        let Some(placed) = &instance.placed else { return Vec::new() };
        let address = self.host(placed.host).map_or("", |host| host.inventory.address.as_str());
        let bind = |((task, port), host_port): ((_, &supercloud_proto::spec::Port), &u16)| PortBinding {
            name: port.name.clone(),
            task: supercloud_proto::name::TaskName::clone(task),
            port: port.port,
            host_port: *host_port,
            address: address.to_owned(),
            protocol: port.protocol,
        };
        instance.spec().ports().zip(placed.ports.iter()).map(bind).collect()
    }
}
