//! What a spec may not be, beyond what its types forbid: all of it at once, each problem under the path that people write.
//!
//! The same rules hold for a spec from a file and for one that came over the API. Rules about the whole stand here, those about
//! what a task runs in `container` and `vm`, and what is still to come in `support`.

use std::collections::{BTreeMap, BTreeSet};

use prost::Message as _;

use super::{
    Driver, Health, HealthCheck, MAX_COUNT, MAX_PRIORITY, MAX_SHARE, MAX_SPREAD, MAX_TASKS, Place, Restart,
    Spread, SpreadOver, Task, WorkloadSpec, duration_text, parse::node::is_within, wire::ONLY_TASK,
};
use crate::{
    amount::{Amounts, Bytes, Mbits, MilliCpu},
    condition::{Attribute, is_value},
    cores::Numa,
    device::{self, DeviceRequest, SHARE_EXPECTED},
    id::Millis,
    name::WorkloadName,
    problem::{Problem, join, quoted, shortened},
    v1,
};

mod container;
mod image;
mod support;
mod vm;

/// Largest encoded spec: every node holds every spec in memory, with a history of revisions.
const MAX_SPEC_BYTES: usize = 256 << 10;
/// Most processor time of one instance: more than any host has.
const MAX_CPU: MilliCpu = MilliCpu(4_096_000);
/// Least memory of containers: Docker refuses less.
const MIN_CONTAINER_MEMORY: Bytes = Bytes(6 << 20);
/// Least memory of a VM: no kernel of today boots in less.
const MIN_VM_MEMORY: Bytes = Bytes(32 << 20);
/// Most memory of one instance: more than any host has.
const MAX_MEMORY: Bytes = Bytes(64 << 40);
/// Most disk of one instance: more than any host has.
const MAX_DISK: Bytes = Bytes(1 << 50);
/// Most network bandwidth of one instance: more than any host has.
const MAX_NETWORK: Mbits = Mbits(10_000_000);
/// Most processes of one instance: the most that Linux can number.
const MAX_PIDS: u32 = 1 << 22;
/// Most sites, conditions or wishes in one place.
const MAX_PLACE_ITEMS: usize = 64;
/// Most values that are given shares.
const MAX_SHARES: usize = 16;
/// Most restarts within a window: beyond it nothing is learnt by trying.
const MAX_RESTARTS: u32 = 1_000;
/// Longest window, wait or time between checks.
const MAX_TIME: Millis = 24 * 3_600_000;
/// Longest time between the request to stop and the kill: a host that is emptied waits for it.
const MAX_STOP_GRACE: Millis = 10 * 60_000;
/// Longest path or other short text, in bytes.
const MAX_TEXT: usize = 1_024;

/// How tasks were written, and so what their paths are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TaskStyle {
    /// `container:` or `vm:` at the top.
    Short,
    /// A list of `tasks:`.
    List,
}

/// Where a rule looks, and where it puts what it finds.
struct Checker {
    path: String,
    problems: Vec<Problem>,
}

impl WorkloadSpec {
    /// The least that an instance may ask for.
    pub fn least_amounts(&self) -> Amounts {
        let vms = self.tasks.iter().filter_map(|task| match &task.driver {
            Driver::Vm(vm) => Some(vm),
            Driver::Container(_) => None,
        });
        let memory = if vms.clone().next().is_some() { MIN_VM_MEMORY } else { MIN_CONTAINER_MEMORY };
        let disks = vms.flat_map(|vm| &vm.disks).fold(0, |sum: u64, disk| sum.saturating_add(disk.size.0));
        Amounts { cpu: MilliCpu(1), memory, disk: Bytes(disks) }
    }

    /// Everything that is wrong with it; empty: nothing. Paths are those of the short form when there is one task named `main`.
    pub fn check(&self) -> Vec<Problem> {
        let short = matches!(self.tasks.as_slice(), [only] if only.name.as_str() == ONLY_TASK);
        self.check_as(if short { TaskStyle::Short } else { TaskStyle::List })
    }

    /// The same, with the paths of the form in which it was written.
    pub(super) fn check_as(&self, style: TaskStyle) -> Vec<Problem> {
        let mut problems = support::unsupported(self, style);
        let mut checker = Checker { path: String::new(), problems: Vec::new() };
        checker.whole(self, style);
        // What is refused as a whole need not be mended in its parts.
        let apart = |rule: &Problem| !problems.iter().any(|refused| is_within(&rule.path, &refused.path));
        let rules: Vec<Problem> = checker.problems.into_iter().filter(apart).collect();
        problems.splice(0..0, rules);
        problems
    }
}

/// The path of a task's driver.
fn driver_path(style: TaskStyle, i: usize, task: &Task) -> String {
    let driver = match task.driver {
        Driver::Container(_) => "container",
        Driver::Vm(_) => "vm",
    };
    match style {
        TaskStyle::Short => driver.to_owned(),
        TaskStyle::List => format!("tasks[{i}].{driver}"),
    }
}

impl Checker {
    /// Notes a problem of a field, unless it is sound.
    fn expect(&mut self, sound: bool, field: &str, expected: impl Into<String>, found: impl Into<String>) {
        if !sound {
            self.problems.push(Problem::new(join(&self.path, field), expected, found));
        }
    }

    /// Runs rules whose fields stand within this path.
    fn within(&mut self, path: &str, rules: impl FnOnce(&mut Self)) {
        let inner = join(&self.path, path);
        let outer = std::mem::replace(&mut self.path, inner);
        rules(self);
        self.path = outer;
    }

    // The words for what is wrong are made only where something is: a spec that is handed in is looked at by some forty of these rules.

    fn at_most(&mut self, field: &str, what: &str, len: usize, most: usize) {
        if len > most {
            self.expect(false, field, format!("at most {most} {what}"), len.to_string());
        }
    }

    fn time(&mut self, field: &str, length: Millis, least: Millis, most: Millis) {
        if !(least..=most).contains(&length) {
            let expected = format!("{} to {}", duration_text(least), duration_text(most));
            self.expect(false, field, expected, duration_text(length));
        }
    }

    fn size(&mut self, field: &str, size: Bytes, least: Bytes, most: Bytes) {
        if !(least..=most).contains(&size) {
            self.expect(false, field, format!("{} to {}", least.exact(), most.exact()), size.exact());
        }
    }

    /// An absolute path without detours. Control characters are refused too: paths end up in files of other programs.
    fn absolute_path(&mut self, field: &str, path: &str) {
        let part = |part: &str| !part.is_empty() && part != "." && part != "..";
        let sound = path.strip_prefix('/').is_some_and(|rest| rest.split('/').all(part));
        let sound = sound && path.len() <= MAX_TEXT && !path.chars().any(char::is_control);
        let expected = "an absolute path without \".\", \"..\", \"//\" or \"/\" at its end";
        self.expect(sound, field, expected, quoted(path));
    }

    fn whole(&mut self, spec: &WorkloadSpec, style: TaskStyle) {
        let number = |number: u32| number.to_string();
        let sound = spec.count <= spec.most_instances();
        self.expect(sound, "count", spec.count_expected(), number(spec.count));
        let urgency = format!("0 to {MAX_PRIORITY}");
        self.expect(spec.priority <= MAX_PRIORITY, "priority", urgency, number(spec.priority));
        self.tasks(&spec.tasks, style);
        self.ports(spec, style);
        self.within("resources", |checker| checker.resources(spec));
        self.within("place", |checker| checker.place(&spec.place, &spec.workload));
        if let Some(health) = &spec.health {
            self.within("health", |checker| checker.health(health, spec));
        }
        self.within("restart", |checker| checker.restart(&spec.restart));
        let missing = spec.update.max_unavailable;
        let expected = format!("1 to {MAX_COUNT}");
        self.expect((1..=MAX_COUNT).contains(&missing), "update.max_unavailable", expected, number(missing));
        self.time("stop_grace", spec.stop_grace, 1, MAX_STOP_GRACE);
        let bytes = v1::WorkloadSpec::from(spec).encoded_len();
        let expected = format!("at most {MAX_SPEC_BYTES} bytes in all its texts");
        self.expect(bytes <= MAX_SPEC_BYTES, "", expected, format!("{bytes} bytes"));
    }

    fn tasks(&mut self, tasks: &[Task], style: TaskStyle) {
        let some = (1..=MAX_TASKS).contains(&tasks.len());
        self.expect(some, "tasks", format!("1 to {MAX_TASKS} tasks"), tasks.len().to_string());
        let mut names = BTreeSet::new();
        for (i, task) in tasks.iter().enumerate() {
            let found = || format!("{} again", quoted(task.name.as_str()));
            let field = format!("tasks[{i}].name");
            self.expect(names.insert(&task.name), &field, "a name that no other task has", found());
            let path = driver_path(style, i, task);
            match &task.driver {
                Driver::Container(container) => self.within(&path, |checker| checker.container(container)),
                Driver::Vm(vm) => {
                    let alone = "no VM, or a VM as the only task";
                    self.expect(tasks.len() == 1, &path, alone, format!("one of {} tasks", tasks.len()));
                    self.within(&path, |checker| checker.vm(vm));
                }
            }
        }
    }

    /// Ports must differ over all tasks: containers of an instance share one network namespace.
    fn ports(&mut self, spec: &WorkloadSpec, style: TaskStyle) {
        let (mut names, mut inside, mut outside) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        for (i, task) in spec.tasks.iter().enumerate() {
            let Driver::Container(container) = &task.driver else { continue };
            let path = driver_path(style, i, task);
            for port in &container.ports {
                let field = format!("{path}.ports.{}", port.name);
                let protocol = port.protocol.as_str();
                let name = quoted(port.name.as_str());
                self.expect(names.insert(&port.name), &field, "a name that no other port has", name);
                self.expect(port.port > 0, &field, "1 to 65535", "0");
                let again = format!("{}/{protocol} again", port.port);
                let fresh = inside.insert((port.port, port.protocol));
                self.expect(fresh, &field, "a port that no other entry has", again);
                let Some(host) = port.host else { continue };
                let field = format!("{field}.host");
                self.expect(host > 0, &field, "1 to 65535", "0");
                let again = format!("{host}/{protocol} again");
                let fresh = outside.insert((host, port.protocol));
                self.expect(fresh, &field, "a host port that no other entry has", again);
            }
        }
    }

    fn resources(&mut self, spec: &WorkloadSpec) {
        let resources = &spec.resources;
        let is_vm = spec.tasks.iter().any(|task| matches!(task.driver, Driver::Vm(_)));
        let least = spec.least_amounts();
        let cpu = (least.cpu.0..=MAX_CPU.0).contains(&resources.cpu.0);
        self.expect(cpu, "cpu", format!("1m to {MAX_CPU} cores"), resources.cpu.to_string());
        self.size("memory", resources.memory, least.memory, MAX_MEMORY);
        self.size("disk", resources.disk, Bytes(0), MAX_DISK);
        if let Some(pids) = resources.pids {
            let expected = format!("1 to {MAX_PIDS}");
            self.expect((1..=MAX_PIDS).contains(&pids), "pids", expected, pids.to_string());
            self.expect(!is_vm, "pids", "no such limit for a VM", pids.to_string());
        }
        self.at_most("devices", "kinds", resources.devices.len(), device::MAX_REQUESTS);
        let mut kinds = BTreeSet::new();
        for (i, request) in resources.devices.iter().enumerate() {
            let found = || format!("{} again", quoted(request.kind.as_str()));
            let field = format!("devices[{i}]");
            self.expect(kinds.insert(&request.kind), &join(&field, "kind"), "each kind once", found());
            self.within(&field, |checker| checker.device(request));
        }
        if resources.network > MAX_NETWORK {
            let expected = format!("at most {MAX_NETWORK}");
            self.expect(false, "network", expected, resources.network.to_string());
        }
        let is_whole = resources.cpu.0.is_multiple_of(1000);
        let expected = "whole cores, since dedicated is set";
        self.expect(!resources.dedicated || is_whole, "cpu", expected, resources.cpu.to_string());
        let is_bound = resources.numa == Numa::One;
        let expected = "any, or dedicated set beside it: only cores of its own can be of one node";
        self.expect(resources.dedicated || !is_bound, "numa", expected, resources.numa.as_str());
        let expected = format!("at least {}, the sum of the disks", least.disk.exact());
        self.expect(least.disk <= resources.disk, "disk", expected, resources.disk.exact());
    }

    fn device(&mut self, request: &DeviceRequest) {
        let count = request.count;
        let expected = format!("1 to {}", device::MAX_COUNT);
        self.expect((1..=device::MAX_COUNT).contains(&count), "count", expected, count.to_string());
        self.expect(request.share.is_sound(), "share", SHARE_EXPECTED, request.share.to_string());
        let is_part = request.to_vm && request.share.is_sound() && !request.is_whole();
        self.expect(!is_part, "share", "1: a VM has its devices whole", request.share.to_string());
        self.at_most("models", "models", request.models.len(), device::MAX_RULES);
        for (i, model) in request.models.iter().enumerate() {
            let sound = device::is_model(model);
            self.expect(sound, &format!("models[{i}]"), device::MODEL_EXPECTED, quoted(model));
        }
        self.at_most("require", "conditions", request.require.len(), device::MAX_RULES);
        for (i, condition) in request.require.iter().enumerate() {
            let of_device = matches!(condition.attribute, Attribute::Label(_));
            let expected = "a condition on a label of the device, as \"label.memory >= 16\"";
            self.expect(of_device, &format!("require[{i}]"), expected, quoted(&condition.to_string()));
        }
    }

    fn place(&mut self, place: &Place, own: &WorkloadName) {
        for (field, len) in [
            ("sites", place.sites.len()),
            ("require", place.require.len()),
            ("prefer", place.prefer.len()),
            ("tolerate", place.tolerate.len()),
            ("apart", place.apart.len()),
            ("together", place.together.len()),
        ] {
            self.at_most(field, "items", len, MAX_PLACE_ITEMS);
        }
        let mut sites = BTreeSet::new();
        for (i, site) in place.sites.iter().enumerate() {
            let found = quoted(site.as_str());
            self.expect(
                sites.insert(site),
                &format!("sites[{i}]"),
                "each site once",
                format!("{found} again"),
            );
        }
        self.spread(&place.spread);
        for (i, wish) in place.prefer.iter().enumerate() {
            let sound = (-100..=100).contains(&wish.weight);
            self.expect(sound, &format!("prefer[{i}].weight"), "-100 to 100", wish.weight.to_string());
        }
        let mut named = BTreeSet::from([own]);
        for (field, workloads) in [("apart", &place.apart), ("together", &place.together)] {
            for (i, workload) in workloads.iter().enumerate() {
                let expected = match () {
                    () if workload == own => "another workload than this one",
                    () if field == "together" && place.apart.contains(workload) => "none of apart",
                    () => "each workload once",
                };
                let found = quoted(workload.as_str());
                self.expect(named.insert(workload), &format!("{field}[{i}]"), expected, found);
            }
        }
    }

    fn spread(&mut self, spread: &[Spread]) {
        let wide = spread.iter().filter(|spread| spread.over != SpreadOver::Host).count();
        self.at_most("spread", "items beside host", wide, MAX_SPREAD);
        // What is too long as a whole is not looked at to its end.
        for (i, Spread { over, shares }) in spread.iter().enumerate().take(2 * MAX_SPREAD) {
            let before = spread[..i].iter().map(|spread| &spread.over);
            let is_label = |over: &SpreadOver| matches!(over, SpreadOver::Label(_));
            // Sites, racks and hosts stand in this order, and a label anywhere before hosts.
            let is_late = |before: &&SpreadOver| match is_label(over) {
                true => *before == over || **before == SpreadOver::Host,
                false => !is_label(before) && *before >= over,
            };
            if let Some(other) = before.into_iter().find(is_late) {
                let expected = "each once, in the order site, rack, host, and labels before host";
                self.expect(false, &format!("spread[{i}]"), expected, format!("{over} after {other}"));
            }
            if !shares.is_empty() {
                self.within(&format!("spread[{i}].shares"), |checker| checker.shares(over, shares));
            }
        }
    }

    fn shares(&mut self, over: &SpreadOver, shares: &BTreeMap<String, u32>) {
        self.expect(*over != SpreadOver::Host, "", "no shares over host", shares.len().to_string());
        self.at_most("", "values", shares.len(), MAX_SHARES);
        for (value, share) in shares.iter().take(MAX_SHARES) {
            let expected = "a value of letters, digits, \"-\", \"_\", \".\", \"/\" and \"+\"";
            self.expect(is_value(value), &shortened(value), expected, quoted(value));
            let expected = format!("1 to {MAX_SHARE}");
            self.expect((1..=MAX_SHARE).contains(share), &shortened(value), expected, share.to_string());
        }
    }

    fn health(&mut self, health: &Health, spec: &WorkloadSpec) {
        self.time("every", health.every, 1, MAX_TIME);
        self.time("timeout", health.timeout, 1, health.every.max(1));
        let failures = health.unhealthy_after;
        self.expect((1..=100).contains(&failures), "unhealthy_after", "1 to 100", failures.to_string());
        let (field, port) = match &health.check {
            HealthCheck::Http { port, path } => {
                let sound = path.starts_with('/') && path.len() <= MAX_TEXT && path.is_ascii();
                self.expect(sound, "http.path", "a path that starts with \"/\"", quoted(path));
                ("http.port", port)
            }
            HealthCheck::Tcp { port } => ("tcp.port", port),
        };
        let known = spec.ports().any(|(_, known)| known.name == *port);
        self.expect(known, field, "the name of a port", quoted(port.as_str()));
    }

    fn restart(&mut self, restart: &Restart) {
        let attempts = restart.attempts;
        self.expect(
            attempts <= MAX_RESTARTS,
            "attempts",
            format!("0 to {MAX_RESTARTS}"),
            attempts.to_string(),
        );
        self.time("within", restart.within, 1, MAX_TIME);
        self.time("max_delay", restart.max_delay, 0, MAX_TIME);
        let most = format!("at most max_delay, {}", duration_text(restart.max_delay));
        self.expect(restart.delay <= restart.max_delay, "delay", most, duration_text(restart.delay));
    }
}

#[cfg(test)]
mod tests;
