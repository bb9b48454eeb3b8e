//! Conversions between the spec and the API's messages: the whole, and a task. What a driver runs stands in `driver`.
//!
//! What the API leaves out takes the default of the type. An absent number cannot be told from 0; it is taken as given, except
//! where the API says what 0 means (`pids`) and for `stop_grace_ms`, where 0 means the default and `check` refuses a written 0.

use super::{
    Class, DEFAULT_STOP_GRACE, Driver, Health, HealthCheck, Place, Prefer, Resources, Restart, Spread,
    SpreadOver, Task, Update, WorkloadKind, WorkloadSpec,
};
use crate::{
    amount::{Bytes, Mbits, MilliCpu},
    condition::{Condition, is_value},
    device::DeviceRequest,
    problem::{Faults, Problem, Problems, quoted},
    taint::Toleration,
    v1,
    wire::wire_enum,
};

mod driver;

/// What the text of something to spread over looks like.
const SPREAD_EXPECTED: &str = "site, rack, host or label.NAME";
/// Name of a task that was given none.
pub(super) const ONLY_TASK: &str = "main";

wire_enum!(WorkloadKind, "a kind of workload", { Service, Batch, Daemon, Cron });
wire_enum!(Class as WorkloadClass, "guaranteed, standard or spare", { Guaranteed, Standard, Spare }, 0 => Standard);

impl Class {
    /// Its number where it stands in a message: none for the usual one, so that what older versions wrote has the bytes that it had.
    pub(crate) fn number(self) -> i32 {
        if self == Self::default() { 0 } else { self.into() }
    }
}

impl WorkloadSpec {
    /// The spec of a message, or everything that keeps it from being one. Says nothing of what [`WorkloadSpec::check`] looks at.
    pub fn from_wire(message: v1::WorkloadSpec) -> Result<Self, Problems> {
        Self::try_from(message)
    }
}

impl From<WorkloadSpec> for v1::WorkloadSpec {
    fn from(spec: WorkloadSpec) -> Self {
        Self {
            workload: spec.workload.into(),
            borough: spec.borough.into(),
            kind: spec.kind.into(),
            count: spec.count,
            priority: spec.priority,
            tasks: spec.tasks.into_iter().map(Into::into).collect(),
            resources: Some(spec.resources.into()),
            place: Some(spec.place.into()),
            health: spec.health.map(Into::into),
            restart: Some(spec.restart.into()),
            update: Some(spec.update.into()),
            stop_grace_ms: spec.stop_grace,
            exclusive: spec.exclusive,
            schedule: spec.schedule.unwrap_or_default(),
            class: spec.class.number(),
        }
    }
}

impl From<&WorkloadSpec> for v1::WorkloadSpec {
    fn from(spec: &WorkloadSpec) -> Self {
        spec.clone().into()
    }
}

impl TryFrom<v1::WorkloadSpec> for WorkloadSpec {
    type Error = Problems;

    fn try_from(mut message: v1::WorkloadSpec) -> Result<Self, Problems> {
        if let [only] = message.tasks.as_mut_slice()
            && only.name.is_empty()
        {
            only.name = ONLY_TASK.to_owned();
        }
        let mut faults = Faults::default();
        let workload = faults.take("workload", message.workload.parse());
        let borough = faults.take("borough", message.borough.parse());
        let kind = faults.take("kind", message.kind.try_into());
        let tasks = faults.each("tasks", message.tasks, Task::try_from);
        let resources = faults.take("resources", Resources::try_from(message.resources.unwrap_or_default()));
        let place = faults.take("place", message.place.unwrap_or_default().try_into());
        let health = faults.optional("health", message.health);
        let class = faults.take("class", message.class.try_into());
        let whole = || {
            Some(Self {
                workload: workload?,
                borough: borough?,
                kind: kind?,
                count: message.count,
                priority: message.priority,
                tasks: tasks?,
                resources: resources?,
                place: place?,
                health: health?,
                restart: message.restart.map(Into::into).unwrap_or_default(),
                update: message.update.map(Into::into).unwrap_or_default(),
                stop_grace: match message.stop_grace_ms {
                    0 => DEFAULT_STOP_GRACE,
                    given => given,
                },
                exclusive: message.exclusive,
                schedule: Some(message.schedule).filter(|schedule| !schedule.is_empty()),
                class: class?,
            })
        };
        let whole = whole().map(WorkloadSpec::with_devices_told);
        faults.finish(whole)
    }
}

impl From<Task> for v1::TaskSpec {
    fn from(task: Task) -> Self {
        let driver = match task.driver {
            Driver::Container(container) => v1::task_spec::Driver::Container(container.into()),
            Driver::Vm(vm) => v1::task_spec::Driver::Vm(vm.into()),
        };
        Self { name: task.name.into(), driver: Some(driver) }
    }
}

impl From<&Task> for v1::TaskSpec {
    fn from(task: &Task) -> Self {
        task.clone().into()
    }
}

impl TryFrom<v1::TaskSpec> for Task {
    type Error = Problems;

    fn try_from(message: v1::TaskSpec) -> Result<Self, Problems> {
        let mut faults = Faults::default();
        let name = faults.take("name", message.name.parse());
        let driver = match message.driver {
            Some(v1::task_spec::Driver::Container(container)) => {
                faults.take("container", container.try_into()).map(Driver::Container)
            }
            Some(v1::task_spec::Driver::Vm(vm)) => faults.take("vm", vm.try_into()).map(Driver::Vm),
            None => {
                faults.push(Problem::new("", "a container or a vm", "neither"));
                None
            }
        };
        faults.finish(name.zip(driver).map(|(name, driver)| Self { name, driver }))
    }
}

impl From<Resources> for v1::Resources {
    fn from(resources: Resources) -> Self {
        Self {
            cpu_millis: resources.cpu.0,
            memory_bytes: resources.memory.0,
            disk_bytes: resources.disk.0,
            pids: resources.pids.unwrap_or_default(),
            devices: resources.devices.into_iter().map(Into::into).collect(),
            network_mbits: resources.network.0,
            dedicated: resources.dedicated,
            numa: resources.numa.number(),
        }
    }
}

impl TryFrom<v1::Resources> for Resources {
    type Error = Problems;

    fn try_from(message: v1::Resources) -> Result<Self, Problems> {
        let mut faults = Faults::default();
        let devices = faults.each("devices", message.devices, DeviceRequest::try_from);
        let numa = faults.take("numa", message.numa.try_into());
        let whole = devices.zip(numa).map(|(devices, numa)| Self {
            cpu: MilliCpu(message.cpu_millis),
            memory: Bytes(message.memory_bytes),
            disk: Bytes(message.disk_bytes),
            pids: Some(message.pids).filter(|pids| *pids != 0),
            devices,
            network: Mbits(message.network_mbits),
            dedicated: message.dedicated,
            numa,
        });
        faults.finish(whole)
    }
}

impl From<Place> for v1::PlaceSpec {
    fn from(place: Place) -> Self {
        let prefer = |wish: Prefer| v1::Preference { when: wish.when.to_string(), weight: wish.weight };
        let (spread, spread_over) = match place.spread.iter().all(Spread::is_plain) {
            true => (place.spread.iter().map(|spread| spread.over.to_string()).collect(), Vec::new()),
            false => (Vec::new(), place.spread.into_iter().map(Into::into).collect()),
        };
        Self {
            sites: place.sites.into_iter().map(Into::into).collect(),
            require: place.require.iter().map(ToString::to_string).collect(),
            prefer: place.prefer.into_iter().map(prefer).collect(),
            spread,
            distinct_hosts: place.distinct_hosts,
            tolerate: place.tolerate.iter().map(ToString::to_string).collect(),
            apart: place.apart.into_iter().map(Into::into).collect(),
            together: place.together.into_iter().map(Into::into).collect(),
            all_or_none: place.all_or_none,
            private: place.private,
            spread_over,
        }
    }
}

impl TryFrom<v1::PlaceSpec> for Place {
    type Error = Problems;

    fn try_from(message: v1::PlaceSpec) -> Result<Self, Problems> {
        let mut faults = Faults::default();
        let sites = faults.each("sites", message.sites, |site| site.parse());
        let require = faults.each("require", message.require, |text| text.parse::<Condition>());
        let prefer = faults.each("prefer", message.prefer, |wish| {
            let when = wish.when.parse().map_err(|invalid| Problem::from(invalid).within("when"))?;
            Ok::<_, Problem>(Prefer { when, weight: wish.weight })
        });
        if !message.spread.is_empty() && !message.spread_over.is_empty() {
            faults.push(Problem::new("spread_over", "either spread or spread_over", "both"));
        }
        let plain = faults.each("spread", message.spread, |text| text.parse::<SpreadOver>());
        let in_full = faults.each("spread_over", message.spread_over, Spread::try_from);
        let spread = plain.zip(in_full).map(|(plain, in_full)| {
            let plain = plain.into_iter().map(Spread::from);
            plain.chain(in_full).collect()
        });
        let tolerate = faults.each("tolerate", message.tolerate, |text| text.parse::<Toleration>());
        let apart = faults.each("apart", message.apart, |name| name.parse());
        let together = faults.each("together", message.together, |name| name.parse());
        let whole = || {
            Some(Self {
                sites: sites?,
                require: require?,
                prefer: prefer?,
                spread: spread?,
                distinct_hosts: message.distinct_hosts,
                tolerate: tolerate?,
                apart: apart?,
                together: together?,
                all_or_none: message.all_or_none,
                private: message.private,
            })
        };
        let whole = whole();
        faults.finish(whole)
    }
}

impl std::str::FromStr for SpreadOver {
    type Err = Problem;

    fn from_str(text: &str) -> Result<Self, Problem> {
        let label = || text.strip_prefix("label.").filter(|name| is_value(name));
        let word = Self::ALL.into_iter().find(|over| over.to_string() == text);
        word.or_else(|| Some(Self::Label(label()?.to_owned())))
            .ok_or_else(|| Problem::new("", SPREAD_EXPECTED, quoted(text)))
    }
}

impl From<Spread> for v1::SpreadSpec {
    fn from(spread: Spread) -> Self {
        Self { over: spread.over.to_string(), shares: spread.shares }
    }
}

impl TryFrom<v1::SpreadSpec> for Spread {
    type Error = Problem;

    fn try_from(message: v1::SpreadSpec) -> Result<Self, Problem> {
        let over = message.over.parse().map_err(|invalid: Problem| invalid.within("over"))?;
        Ok(Self { over, shares: message.shares })
    }
}

impl From<Health> for v1::HealthSpec {
    fn from(health: Health) -> Self {
        let check = match health.check {
            HealthCheck::Http { port, path } => {
                v1::health_spec::Check::Http(v1::HttpCheck { port: port.into(), path })
            }
            HealthCheck::Tcp { port } => v1::health_spec::Check::Tcp(v1::TcpCheck { port: port.into() }),
        };
        Self {
            check: Some(check),
            every_ms: health.every,
            timeout_ms: health.timeout,
            unhealthy_after: health.unhealthy_after,
        }
    }
}

impl TryFrom<v1::HealthSpec> for Health {
    type Error = Problems;

    fn try_from(message: v1::HealthSpec) -> Result<Self, Problems> {
        let mut faults = Faults::default();
        let check = match message.check {
            Some(v1::health_spec::Check::Http(http)) => faults
                .take("http.port", http.port.parse())
                .map(|port| HealthCheck::Http { port, path: http.path }),
            Some(v1::health_spec::Check::Tcp(tcp)) => {
                faults.take("tcp.port", tcp.port.parse()).map(|port| HealthCheck::Tcp { port })
            }
            None => {
                faults.push(Problem::new("", "http or tcp", "neither"));
                None
            }
        };
        faults.finish(check.map(|check| Self {
            check,
            every: message.every_ms,
            timeout: message.timeout_ms,
            unhealthy_after: message.unhealthy_after,
        }))
    }
}

impl From<Restart> for v1::RestartSpec {
    fn from(restart: Restart) -> Self {
        Self {
            attempts: restart.attempts,
            within_ms: restart.within,
            delay_ms: restart.delay,
            max_delay_ms: restart.max_delay,
        }
    }
}

impl From<v1::RestartSpec> for Restart {
    fn from(message: v1::RestartSpec) -> Self {
        Self {
            attempts: message.attempts,
            within: message.within_ms,
            delay: message.delay_ms,
            max_delay: message.max_delay_ms,
        }
    }
}

impl From<Update> for v1::UpdateSpec {
    fn from(update: Update) -> Self {
        Self {
            max_unavailable: update.max_unavailable,
            canary: update.canary,
            healthy_for_ms: update.healthy_for,
            deadline_ms: update.deadline,
            auto_revert: update.auto_revert,
        }
    }
}

impl From<v1::UpdateSpec> for Update {
    fn from(message: v1::UpdateSpec) -> Self {
        Self {
            max_unavailable: message.max_unavailable,
            canary: message.canary,
            healthy_for: message.healthy_for_ms,
            deadline: message.deadline_ms,
            auto_revert: message.auto_revert,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::samples;

    proptest! {
        #[test]
        fn a_spec_survives_the_wire(spec in samples::workload_spec()) {
            prop_assert_eq!(WorkloadSpec::from_wire(v1::WorkloadSpec::from(&spec)), Ok(spec));
        }
    }

    #[test]
    fn what_is_left_out_takes_its_default() {
        let task = v1::TaskSpec {
            name: String::new(),
            driver: Some(v1::task_spec::Driver::Container(v1::ContainerSpec::default())),
        };
        let message = v1::WorkloadSpec {
            workload: "w".to_owned(),
            borough: "b".to_owned(),
            kind: v1::WorkloadKind::Service.into(),
            tasks: vec![task],
            ..Default::default()
        };
        let spec = WorkloadSpec::from_wire(message).unwrap();
        assert_eq!(spec.tasks[0].name.as_str(), ONLY_TASK);
        assert_eq!((spec.restart, spec.update), (Restart::default(), Update::default()));
        assert_eq!((spec.stop_grace, spec.resources.pids), (DEFAULT_STOP_GRACE, None));
        assert_eq!((spec.priority, spec.exclusive, spec.schedule.clone()), (0, None, None));
        assert_eq!((spec.class, v1::WorkloadSpec::from(spec).class), (Class::Standard, 0));
    }

    #[test]
    fn what_is_plainly_spread_is_written_as_it_always_was() {
        let written = |spread: Vec<Spread>| {
            let message = v1::PlaceSpec::from(Place { spread: spread.clone(), ..Place::default() });
            assert_eq!(Place::try_from(message.clone()).unwrap().spread, spread);
            (message.spread, message.spread_over.len())
        };
        let plain = [SpreadOver::Site, SpreadOver::Host].map(Spread::from).to_vec();
        assert_eq!(written(plain.clone()), (vec!["site".to_owned(), "host".to_owned()], 0));
        let label = Spread::from(SpreadOver::Label("feed".to_owned()));
        assert_eq!(written([plain, vec![label]].concat()), (Vec::new(), 3));
        let both = v1::PlaceSpec {
            spread: vec!["site".to_owned()],
            spread_over: vec![v1::SpreadSpec { over: "rack".to_owned(), shares: Default::default() }],
            ..Default::default()
        };
        assert_eq!(Place::try_from(both).unwrap_err().0[0].path, "spread_over");
    }

    #[test]
    fn all_problems_come_at_once() {
        let vm = v1::VmSpec { image: Some(v1::VmImage::default()), ..Default::default() };
        let task = |driver| v1::TaskSpec { name: "a".to_owned(), driver };
        let message = v1::WorkloadSpec {
            workload: "W".to_owned(),
            borough: "b".to_owned(),
            kind: 9,
            tasks: vec![task(None), task(Some(v1::task_spec::Driver::Vm(vm)))],
            place: Some(v1::PlaceSpec { spread: vec!["room".to_owned()], ..Default::default() }),
            health: Some(v1::HealthSpec::default()),
            ..Default::default()
        };
        let problems = WorkloadSpec::from_wire(message).unwrap_err();
        let paths: Vec<&str> = problems.0.iter().map(|problem| problem.path.as_str()).collect();
        assert_eq!(paths, ["workload", "kind", "tasks[0]", "tasks[1].vm.image", "place.spread[0]", "health"]);
    }
}
