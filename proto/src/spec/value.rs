//! A spec as people write it, for output in YAML or JSON and for comparing two: parsing what comes out gives the same spec back.
//! What has a default is written out, since a reader of output wants to see what holds; what is empty is left out.

use serde_json::{Map, Value, json};

use super::{
    Container, Driver, Health, HealthCheck, ImageSource, Place, Port, Protocol, Spread, Task, Vm,
    WorkloadSpec, duration_text, wire::ONLY_TASK,
};
use crate::{cores::Numa, device::DeviceRequest};

/// A mapping that is built field by field.
#[derive(Default)]
struct Fields(Map<String, Value>);

impl Fields {
    fn put(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.0.insert(name.to_owned(), value.into());
        self
    }

    fn maybe(self, name: &str, value: Option<impl Into<Value>>) -> Self {
        match value {
            Some(value) => self.put(name, value),
            None => self,
        }
    }

    fn list<T>(self, name: &str, items: &[T], value: impl Fn(&T) -> Value) -> Self {
        if items.is_empty() { self } else { self.put(name, items.iter().map(value).collect::<Vec<_>>()) }
    }

    fn mapping(self, name: &str, fields: Fields) -> Self {
        if fields.0.is_empty() { self } else { self.put(name, fields.0) }
    }

    fn flag(self, name: &str, flag: bool) -> Self {
        if flag { self.put(name, true) } else { self }
    }
}

impl WorkloadSpec {
    /// The spec in the shape in which people write it. Ports are told by their names, so their order is lost; what parsing and
    /// [`WorkloadSpec::from_wire`] of the same gives has them ordered by name.
    pub fn to_value(&self) -> Value {
        let head = Fields::default()
            .put("workload", self.workload.as_str())
            .put("borough", self.borough.as_str())
            .put("kind", self.kind.as_str())
            .put("count", self.count)
            .put("priority", self.priority)
            .put("class", self.class.as_str());
        let tasks = match self.tasks.as_slice() {
            [only] if only.name.as_str() == ONLY_TASK => driver(head, only),
            tasks => head.put("tasks", tasks.iter().map(task).collect::<Vec<_>>()),
        };
        let resources = Fields::default()
            .put("cpu", self.resources.cpu.to_string())
            .put("memory", self.resources.memory.exact())
            .put("disk", self.resources.disk.exact())
            .maybe("pids", self.resources.pids)
            .maybe(
                "network",
                Some(self.resources.network.to_string()).filter(|_| self.resources.network.0 > 0),
            )
            .maybe("dedicated", self.resources.dedicated.then_some(true))
            .maybe("numa", Some(self.resources.numa.as_str()).filter(|_| self.resources.numa != Numa::Any))
            .list("devices", &self.resources.devices, device);
        let restart = json!({
            "attempts": self.restart.attempts,
            "within": duration_text(self.restart.within),
            "delay": duration_text(self.restart.delay),
            "max_delay": duration_text(self.restart.max_delay),
        });
        let update = json!({
            "max_unavailable": self.update.max_unavailable,
            "canary": self.update.canary,
            "healthy_for": duration_text(self.update.healthy_for),
            "deadline": duration_text(self.update.deadline),
            "auto_revert": self.update.auto_revert,
        });
        let whole = tasks
            .mapping("resources", resources)
            .mapping("place", place(&self.place))
            .maybe("health", self.health.as_ref().map(health))
            .put("restart", restart)
            .put("update", update)
            .put("stop_grace", duration_text(self.stop_grace))
            .maybe("exclusive", self.exclusive)
            .maybe("schedule", self.schedule.as_deref());
        Value::Object(whole.0)
    }
}

fn device(request: &DeviceRequest) -> Value {
    let fields = Fields::default()
        .put("kind", request.kind.as_str())
        .put("count", request.count)
        .put("share", request.share.to_string())
        .list("models", &request.models, |model| model.as_str().into())
        .list("require", &request.require, |condition| condition.to_string().into());
    Value::Object(fields.0)
}

fn task(task: &Task) -> Value {
    Value::Object(driver(Fields::default().put("name", task.name.as_str()), task).0)
}

fn driver(fields: Fields, task: &Task) -> Fields {
    match &task.driver {
        Driver::Container(of) => fields.put("container", container(of).0),
        Driver::Vm(of) => fields.put("vm", vm(of).0),
    }
}

fn container(container: &Container) -> Fields {
    let env = container
        .env
        .iter()
        .fold(Fields::default(), |fields, (name, value)| fields.put(name, value.as_str()));
    let ports =
        container.ports.iter().fold(Fields::default(), |fields, of| fields.put(of.name.as_str(), port(of)));
    Fields::default()
        .put("image", container.image.as_str())
        .list("command", &container.command, |word| word.as_str().into())
        .mapping("env", env)
        .mapping("ports", ports)
        .list("mounts", &container.mounts, |mount| {
            let fields = Fields::default()
                .put("volume", mount.volume.as_str())
                .put("path", mount.path.as_str())
                .flag("read_only", mount.read_only);
            Value::Object(fields.0)
        })
        .maybe("user", container.user.as_deref())
}

/// A port in its short form where that says all.
fn port(port: &Port) -> Value {
    if port.host.is_none() && port.protocol == Protocol::Tcp {
        return port.port.into();
    }
    let fields = Fields::default()
        .put("port", port.port)
        .maybe("host", port.host)
        .maybe("protocol", (port.protocol != Protocol::Tcp).then_some(port.protocol.as_str()));
    Value::Object(fields.0)
}

fn vm(vm: &Vm) -> Fields {
    let image = vm.image.as_ref().map(|image| {
        let fields = match &image.source {
            ImageSource::Path(path) => Fields::default().put("path", path.as_str()),
            ImageSource::Url(url) => Fields::default().put("url", url.as_str()),
        };
        fields.maybe("sha256", image.sha256.as_deref()).put("format", image.format.as_str()).0
    });
    let boot = vm.boot.as_ref().map(|boot| {
        let fields = Fields::default().put("kernel", boot.kernel.as_str());
        fields.maybe("initrd", boot.initrd.as_deref()).put("cmdline", boot.cmdline.as_str()).0
    });
    let cloud_init = vm.cloud_init.as_ref().map(|settings| {
        Fields::default()
            .put("user_data", settings.user_data.as_str())
            .maybe("meta_data", settings.meta_data.as_deref())
            .maybe("network_config", settings.network_config.as_deref())
            .0
    });
    Fields::default().maybe("image", image).maybe("boot", boot).maybe("cloud_init", cloud_init).list(
        "disks",
        &vm.disks,
        |disk| json!({ "name": disk.name.as_str(), "size": disk.size.exact() }),
    )
}

fn place(place: &Place) -> Fields {
    Fields::default()
        .list("sites", &place.sites, |site| site.as_str().into())
        .list("require", &place.require, |condition| condition.to_string().into())
        .list("prefer", &place.prefer, |wish| json!({ "when": wish.when.to_string(), "weight": wish.weight }))
        .list("spread", &place.spread, spread)
        .flag("distinct_hosts", place.distinct_hosts)
        .list("tolerate", &place.tolerate, |toleration| toleration.to_string().into())
        .list("apart", &place.apart, |workload| workload.as_str().into())
        .list("together", &place.together, |workload| workload.as_str().into())
        .flag("all_or_none", place.all_or_none)
        .flag("private", place.private)
}

/// A word, unless there are shares.
fn spread(spread: &Spread) -> Value {
    let over = spread.over.to_string();
    if spread.shares.is_empty() { over.into() } else { json!({ "over": over, "shares": spread.shares }) }
}

fn health(health: &Health) -> Value {
    let fields = match &health.check {
        HealthCheck::Http { port, path } => {
            Fields::default().put("http", json!({ "port": port.as_str(), "path": path }))
        }
        HealthCheck::Tcp { port } => Fields::default().put("tcp", json!({ "port": port.as_str() })),
    };
    let fields = fields
        .put("every", duration_text(health.every))
        .put("timeout", duration_text(health.timeout))
        .put("unhealthy_after", health.unhealthy_after);
    Value::Object(fields.0)
}
