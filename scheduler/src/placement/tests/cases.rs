//! Runs the text files of `placement/cases`: blocks of commands, a line `---`, and what they are to print, up to an empty line. To take over
//! what is printed now, run with `UPDATE_CASES=1` and read the difference.
//!
//! Commands, with `word=value` in any order and `"` around what holds spaces:
//!
//!     host NAME [site= rack= cpu= memory= disk= network= reserved=MEMORY network-reserved= arch= os= kernel= ports=FIRST-LAST drivers=docker,libvirt docker=VERSION libvirt=VERSION
//!         device=NAME:KIND:MODEL[:shared][:pci][:fault=WORDS][:LABEL=VALUE] label.X= taint.X=
//!         node=NUMBER:MEMORY:CORE/CORE... (a core is its processors with + between, and k behind where it is kept)]
//!     judge NAME ready|degraded|suspect|lost [REASON]      close NAME      open NAME
//!     workload BOROUGH/NAME [count= cpu= memory= disk= network= priority= class= sites=A,B apart=A,B together=A,B tolerate=A,B=VALUE require=CONDITION prefer=CONDITION:WEIGHT dedicated numa=one distinct gang private exclusive unavailable=MOST mounts spread=OVER[:VALUE=SHARE],OVER vm image= port=NAME:PORT[@HOST][/udp]
//!         device=KIND[:count=][:share=][:models=A|B][:require=CONDITION]]
//!     borough NAME [quota-cpu= quota-memory= quota-disk= (none: lifted) guarantee-cpu= guarantee-memory= guarantee-disk= weight= max-priority= private-hosts=]
//!     site NAME [standard=PERCENT spare=PERCENT packing=pack|spread cost=]
//!     scale BOROUGH/NAME COUNT      report BOROUGH/NAME SLOT STATE [REASON]      time SECONDS (moves the clock on)
//!     level (raises the feature level to the highest)      gone BOROUGH/NAME SLOT (those of it that are to stop are gone)
//!     replace BOROUGH/NAME (those of older revisions stop)      purge BOROUGH/NAME      remove HOST      forget BOROUGH/NAME HOST (its volumes there)      volumes
//!     pass [PLACEMENTS]      explain BOROUGH/NAME SLOT      explain-spec ...as workload...      plan ...as workload... [; ...]      hosts

use std::{env, fs, path::Path, str::FromStr};

use supercloud_proto::{
    amount::{Bytes, MilliCpu},
    cores::{Cpu, Numa, NumaNode, cpu_list},
    device::{Device, DeviceRequest, Share},
    host::{DriverInfo, HostState, Inventory, PortRange},
    instance::{Desired, InstanceState},
    name::{BoroughName, DeviceName, PortName, RackName, SiteName, WorkloadKey, WorkloadName},
    spec::{Class, Driver, DriverKind, Port, Prefer, Protocol, Spread, WorkloadSpec},
};

use super::estate::{Estate, inventory, mount, spec, vm};
use crate::placement::{
    Explainer, Explanation, PlannedStop, explain,
    pass::{MAX_PLACEMENTS, Why},
    plan,
    score::RULES,
};
use crate::state::{BoroughChange, Packing, Quota, SiteChange, fits::FILTERS};

#[test]
fn cases_print_what_is_written_in_them() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/placement/cases");
    let mut files: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 10, "only {} cases in {}", files.len(), folder.display());
    let (mut wrong, mut all) = (Vec::new(), String::new());
    for file in files {
        let written = fs::read_to_string(&file).unwrap();
        let printed = replay(&written);
        all += &printed;
        if env::var_os("UPDATE_CASES").is_some() {
            fs::write(&file, &printed).unwrap();
        } else if written != printed {
            wrong.push(format!("{}:\n{printed}", file.display()));
        }
    }
    assert!(wrong.is_empty(), "these print something else now:\n{}", wrong.join("\n"));
    // Each filter rules out some host in some case, and each rule gives some host a score.
    let is_told = |name: &str, words: &[String]| {
        assert!(words.iter().any(|words| all.contains(words)), "no case tells of {name}");
    };
    FILTERS.iter().for_each(|filter| is_told(filter.name, &[format!("  {} ruled out ", filter.name)]));
    RULES
        .iter()
        .for_each(|rule| is_told(rule.name, &["(", ", "].map(|before| format!("{before}{} ", rule.name))));
}

/// The text with what its commands print now.
fn replay(text: &str) -> String {
    let mut estate = Estate::default();
    let mut printed = String::new();
    let mut out = String::new();
    let mut in_output = false;
    for line in text.lines() {
        match (in_output, line) {
            (true, "") => {
                printed += &std::mem::take(&mut out);
                printed += "\n";
                in_output = false;
            }
            (true, _) => {}
            (false, "---") => {
                in_output = true;
                printed += "---\n";
            }
            (false, line) => {
                printed += line;
                printed += "\n";
                if !line.starts_with('#') && !line.is_empty() {
                    out += &run(&mut estate, line);
                }
            }
        }
    }
    printed + &out
}

fn run(estate: &mut Estate, line: &str) -> String {
    let words = words(line);
    let (command, rest) = words.split_first().unwrap();
    let rest: Vec<&str> = rest.iter().map(String::as_str).collect();
    match (command.as_str(), rest.as_slice()) {
        ("host", [name, settings @ ..]) => estate.host(name, inventory_of(settings)),
        ("judge", [name, state, reason @ ..]) => estate.judge(name, host_state(state), &reason.join(" ")),
        ("close", [name]) => estate.schedulable(name, false),
        ("open", [name]) => estate.schedulable(name, true),
        ("workload", settings) => estate.workload(&spec_of(settings)),
        ("borough", [name, settings @ ..]) => {
            estate.allow(&BoroughName::new(name).unwrap(), &borough_change_of(settings));
        }
        ("site", [name, settings @ ..]) => {
            estate.site(&SiteName::new(name).unwrap(), site_change_of(settings));
        }
        ("scale", [key, count]) => estate.scale(&key_of(key), count.parse().unwrap()),
        ("report", [key, slot, state, reason @ ..]) => {
            let instance = estate.instance(&key_of(key), slot.parse().unwrap());
            estate.report(&instance, instance_state(state), &reason.join(" "));
        }
        ("level", []) => estate.raise_level(),
        ("gone", [key, slot]) => {
            let (key, slot) = (key_of(key), slot.parse::<u32>().unwrap());
            let stopping = |instance: &&std::sync::Arc<crate::state::Instance>| {
                instance.slot == slot && instance.desired == Desired::Stop
            };
            let gone: Vec<_> = estate.state.instances_of(&key).filter(stopping).cloned().collect();
            gone.iter().for_each(|instance| estate.report(instance, InstanceState::Stopped, ""));
        }
        ("purge", [key]) => estate.purge(&key_of(key)),
        ("remove", [host]) => estate.remove(host),
        ("replace", [key]) => estate.replace(&key_of(key)),
        ("forget", [key, host]) => {
            let refused = estate.forget(&key_of(key), host).result.err();
            return refused.map_or_else(String::new, |refused| format!("refused: {refused}\n"));
        }
        ("volumes", []) => return volumes(estate),
        ("time", [seconds]) => estate.now += seconds.parse::<u64>().unwrap() * 1000,
        ("pass", limit) => {
            return passed(estate, limit.first().map_or(MAX_PLACEMENTS, |text| text.parse().unwrap()));
        }
        ("explain", [key, slot]) => {
            let instance = estate.instance(&key_of(key), slot.parse().unwrap());
            let mut explainer = Explainer::of(&estate.state, estate.now);
            let changes = explainer.changes(&instance, explain::MAX_TRIALS);
            let told = explainer.instance(&instance);
            return explained(&Explanation { changes, ..told });
        }
        ("explain-spec", settings) => {
            return explained(&Explainer::of(&estate.state, estate.now).spec(&spec_of(settings), None));
        }
        ("plan", settings) => return planned(estate, settings),
        ("hosts", []) => return hosts(estate),
        _ => panic!("no such command: {line}"),
    }
    String::new()
}

fn passed(estate: &mut Estate, limit: usize) -> String {
    let before = estate.state.clone();
    let plan = estate.pass(limit);
    let mut out = String::new();
    for placement in &plan.placements {
        let instance = estate.state.instance(placement.instance).unwrap();
        let host = estate.state.host_name(placement.host).unwrap();
        out +=
            &format!("{} slot {} -> {host}{}", instance.workload(), instance.slot, ports(&placement.ports));
        let devices: Vec<&str> = placement.devices.iter().map(DeviceName::as_str).collect();
        out += &if devices.is_empty() { String::new() } else { format!(" devices {}", devices.join(" ")) };
        out += &placement.cores.as_ref().map_or_else(String::new, |cores| format!(" cores {cores}"));
        out += "\n";
    }
    for preemption in &plan.preemptions {
        let name = |id| {
            let instance = before.instance(id).unwrap();
            format!("{} slot {}", instance.workload(), instance.slot)
        };
        let victims: Vec<String> = preemption.victims.iter().map(|id| name(*id)).collect();
        let who = name(preemption.instance);
        out += &match preemption.host.and_then(|host| before.host_name(host)) {
            Some(host) if victims.is_empty() => format!("{who} awaits {host}\n"),
            Some(host) => format!("{who} awaits {host}: {} make way\n", victims.join(", ")),
            None => format!("{who} awaits no host any more\n"),
        };
    }
    for shape in &plan.unplaced {
        let (workload, revision) = (&shape.workload, shape.revision);
        let why = if shape.why == Why::Quota { ", kept by quota" } else { "" };
        out += &format!("unplaced: {} of {workload} revision {revision}{why}\n", shape.instances);
    }
    if let Some(at) = plan.next_wake {
        out += &format!("next wake in {} s\n", (at - estate.now) / 1000);
    }
    if plan.more {
        out += "more to come\n";
    }
    if out.is_empty() { "nothing to place\n".to_owned() } else { out }
}

fn explained(explanation: &Explanation) -> String {
    let mut out = format!("{}\n", explanation.summary);
    let host = explanation.host.as_ref().map_or("none", |host| host.as_str());
    out += &format!("host {host}, {} hosts, {} fitting\n", explanation.hosts, explanation.fitting);
    for filter in explanation.filters.iter().filter(|filter| filter.hosts > 0) {
        out += &format!("  {} ruled out {}\n", filter.filter, filter.hosts);
        for reason in &filter.reasons {
            out += &format!("    {} x {}\n", reason.hosts, reason.reason);
        }
        if filter.others > 0 {
            out += &format!("    and {} other reasons\n", filter.others);
        }
    }
    for excess in &explanation.quota {
        out += &format!("  quota: {excess}\n");
    }
    for nearest in &explanation.nearest {
        out += &format!("  nearest {}\n", nearest.host);
        for missing in &nearest.shortfalls {
            out += &format!("    {} {}/{}: {}\n", missing.what, missing.needed, missing.free, missing.reason);
        }
    }
    for score in &explanation.scores {
        let parts: Vec<String> =
            score.parts.iter().map(|part| format!("{} {}", part.rule, part.score)).collect();
        out += &format!("  {} scores {} ({})\n", score.host, score.score, parts.join(", "));
    }
    for told in &explanation.changes {
        out += &format!("  would fit: {} ({})\n", told.change, told.kind);
    }
    if explanation.ahead > 0 {
        out += &format!("  before it come {}\n", explanation.ahead);
    }
    out
}

fn planned(estate: &mut Estate, settings: &[&str]) -> String {
    let specs: Vec<WorkloadSpec> = settings.split(|word| *word == ";").map(spec_of).collect();
    for spec in &specs {
        estate.borough(&spec.borough);
    }
    let plan = match plan::plan(&estate.state, &specs, estate.now) {
        Ok(plan) => plan,
        Err(refused) => {
            return refused.iter().map(|refused| format!("refused: {refused}\n")).collect();
        }
    };
    let mut out = String::new();
    for plan in plan.workloads {
        out += &format!("{}: {:?}, revision {}\n", plan.workload, plan.change, plan.revision);
        for diff in &plan.diffs {
            let text = |value: &Option<String>| value.clone().unwrap_or_else(|| "unset".to_owned());
            out += &format!("  {}: {} -> {}\n", diff.path, text(&diff.before), text(&diff.after));
        }
        for placement in &plan.placements {
            out += &format!("  slot {} -> {}\n", placement.slot, placement.host);
        }
        for stop in &plan.stops {
            out += &format!("  stops {}{}\n", stop.instance, on(stop));
        }
        for displaced in &plan.displaces {
            out +=
                &format!("  displaces {} of {}{}\n", displaced.instance, displaced.workload, on(displaced));
        }
        if plan.waiting > 0 {
            out += &format!("  waiting: {}\n", plan.waiting);
        }
        if let Some(because) = &plan.unplaced_because {
            out += &format!("  unplaced: {}: {}\n", plan.unplaced, because.summary);
            for told in &because.changes {
                out += &format!("  would fit: {} ({})\n", told.change, told.kind);
            }
        }
    }
    for of in plan.boroughs.iter().filter(|of| of.quota != Quota::default()) {
        let (before, after) = (of.before, of.after);
        out += &format!(
            "{}: cpu {} -> {}, memory {} -> {}\n",
            of.borough, before.cpu, after.cpu, before.memory, after.memory
        );
    }
    out
}

fn on(stop: &PlannedStop) -> String {
    stop.host.as_ref().map_or(String::new(), |host| format!(" on {host}"))
}

fn hosts(estate: &Estate) -> String {
    let line = |host: &std::sync::Arc<crate::state::Host>| {
        let used = estate.state.used(host.id);
        let taken = used.taken;
        let held: Vec<u16> = used.ports.iter().map(|(_, port)| *port).collect();
        let (name, count) = (&host.name, used.instances.len());
        let devices: String = used.devices.iter().map(|(name, share)| format!(" {name}={share}")).collect();
        let (cpu, memory, ports) = (taken.cpu, taken.memory, ports(&held));
        let network = if used.network.0 > 0 { format!(", network {}", used.network) } else { String::new() };
        let cores = cpu_list(used.cores.cpus());
        let cores = if cores.is_empty() { cores } else { format!(", cores {cores}") };
        format!("{name}: {count} instances, cpu {cpu}, memory {memory}{network}{cores}{ports}{devices}\n")
    };
    estate.state.hosts().values().map(line).collect()
}

fn volumes(estate: &Estate) -> String {
    let mut out = String::new();
    for (key, homes) in estate.state.homes() {
        for home in homes.iter() {
            let host = estate.state.host_name(home.host).unwrap();
            out += &format!("{key} slot {} lives on {host}\n", home.slot);
        }
    }
    out
}

fn ports(ports: &[u16]) -> String {
    let texts: Vec<String> = ports.iter().map(u16::to_string).collect();
    if texts.is_empty() { String::new() } else { format!(" ports {}", texts.join(" ")) }
}

fn words(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut quoted = false;
    for character in line.chars() {
        match character {
            '"' => quoted = !quoted,
            ' ' if !quoted => words.push(String::new()),
            other => words.last_mut().unwrap().push(other),
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

fn key_of(text: &str) -> WorkloadKey {
    let (borough, workload) = text.split_once('/').unwrap();
    WorkloadKey {
        borough: BoroughName::new(borough).unwrap(),
        workload: WorkloadName::new(workload).unwrap(),
    }
}

fn inventory_of(settings: &[&str]) -> Inventory {
    let mut found = inventory();
    for setting in settings {
        let (word, value) = setting.split_once('=').unwrap();
        match word {
            "site" => found.site = SiteName::new(value).unwrap(),
            "rack" => found.rack = Some(RackName::new(value).unwrap()),
            "cpu" => found.capacity.cpu = value.parse().unwrap(),
            "memory" => found.capacity.memory = value.parse().unwrap(),
            "disk" => found.capacity.disk = value.parse().unwrap(),
            "network" => found.network = value.parse().unwrap(),
            "network-reserved" => found.network_reserved = value.parse().unwrap(),
            "reserved" => found.reserved.memory = value.parse().unwrap(),
            "arch" => found.arch = value.to_owned(),
            "os" => found.os = value.to_owned(),
            "kernel" => found.kernel = value.to_owned(),
            "docker" => drop(found.drivers.insert(DriverKind::Docker, of_version(value))),
            "libvirt" => drop(found.drivers.insert(DriverKind::Libvirt, of_version(value))),
            "ports" => {
                let (first, last) = value.split_once('-').unwrap();
                found.ports = PortRange { first: first.parse().unwrap(), last: last.parse().unwrap() };
            }
            "drivers" => {
                let all = [DriverKind::Docker, DriverKind::Libvirt];
                let there = |kind: &DriverKind| value.split(',').any(|name| name == kind.as_str());
                let healthy = DriverInfo { healthy: true, ..DriverInfo::default() };
                found.drivers = all.into_iter().filter(there).map(|kind| (kind, healthy.clone())).collect();
            }
            "node" => found.nodes.push(node_of(value)),
            "device" => {
                let (name, device) = device_of(value);
                found.devices.insert(name, device);
            }
            "silent" => {
                let info = DriverInfo { reason: value.to_owned(), ..DriverInfo::default() };
                found.drivers.insert(DriverKind::Docker, info);
            }
            _ if let Some(taint) = word.strip_prefix("taint.") => {
                found.taints.insert(taint.to_owned(), value.to_owned());
            }
            _ => {
                let label = word.strip_prefix("label.").unwrap_or_else(|| panic!("no such setting: {word}"));
                found.labels.insert(label.to_owned(), value.to_owned());
            }
        }
    }
    found
}

fn of_version(version: &str) -> DriverInfo {
    DriverInfo { version: version.to_owned(), healthy: true, ..DriverInfo::default() }
}

fn borough_change_of(settings: &[&str]) -> BoroughChange {
    fn limit<T: FromStr>(value: &str) -> Option<Option<T>> {
        Some(if value == "none" { None } else { Some(amount(value)) })
    }
    fn amount<T: FromStr>(value: &str) -> T {
        value.parse().unwrap_or_else(|_| panic!("no amount: {value}"))
    }
    let mut change = BoroughChange::default();
    for setting in settings {
        let (word, value) = setting.split_once('=').unwrap();
        match word {
            "quota-cpu" => change.quota_cpu = limit(value),
            "quota-memory" => change.quota_memory = limit(value),
            "quota-disk" => change.quota_disk = limit(value),
            "guarantee-cpu" => change.guarantee_cpu = Some(amount(value)),
            "guarantee-memory" => change.guarantee_memory = Some(amount(value)),
            "guarantee-disk" => change.guarantee_disk = Some(amount(value)),
            "weight" => change.weight = Some(amount(value)),
            "max-priority" => change.max_priority = Some(amount(value)),
            "private-hosts" => change.private_hosts = Some(amount(value)),
            _ => panic!("no such setting: {word}"),
        }
    }
    change
}

fn site_change_of(settings: &[&str]) -> SiteChange {
    let mut change = SiteChange::default();
    for setting in settings {
        let (word, value) = setting.split_once('=').unwrap();
        match (word, value) {
            ("standard", percent) => change.standard_cpu_percent = Some(percent.parse().unwrap()),
            ("spare", percent) => change.spare_cpu_percent = Some(percent.parse().unwrap()),
            ("packing", "pack") => change.packing = Some(Packing::Pack),
            ("packing", "spread") => change.packing = Some(Packing::Spread),
            ("cost", cost) => change.cost = Some(cost.parse().unwrap()),
            _ => panic!("no such setting: {setting}"),
        }
    }
    change
}

fn spec_of(settings: &[&str]) -> WorkloadSpec {
    let mut wanted = spec(settings[0]);
    for setting in &settings[1..] {
        let (word, value) = setting.split_once('=').unwrap_or((setting, ""));
        match word {
            "count" => wanted.count = value.parse().unwrap(),
            "priority" => wanted.priority = value.parse().unwrap(),
            "class" => {
                wanted.class = Class::ALL.into_iter().find(|class| class.as_str() == value).unwrap();
            }
            "cpu" => wanted.resources.cpu = value.parse::<MilliCpu>().unwrap(),
            "memory" => wanted.resources.memory = value.parse::<Bytes>().unwrap(),
            "disk" => wanted.resources.disk = value.parse::<Bytes>().unwrap(),
            "network" => wanted.resources.network = value.parse().unwrap(),
            "sites" => {
                wanted.place.sites = value.split(',').map(|site| SiteName::new(site).unwrap()).collect();
            }
            "apart" | "together" => {
                let others = value.split(',').map(|other| WorkloadName::new(other).unwrap()).collect();
                match word {
                    "apart" => wanted.place.apart = others,
                    _ => wanted.place.together = others,
                }
            }
            "tolerate" => {
                wanted.place.tolerate = value.split(',').map(|one| one.parse().unwrap()).collect();
            }
            "require" => wanted.place.require.push(value.parse().unwrap()),
            "prefer" => {
                let (when, weight) = value.rsplit_once(':').unwrap();
                let (when, weight) = (when.parse().unwrap(), weight.parse().unwrap());
                wanted.place.prefer.push(Prefer { when, weight });
            }
            "device" => wanted.resources.devices.push(device_request_of(value)),
            "dedicated" => wanted.resources.dedicated = true,
            "numa" => {
                wanted.resources.numa = Numa::ALL.into_iter().find(|numa| numa.as_str() == value).unwrap();
            }
            "distinct" => wanted.place.distinct_hosts = true,
            "gang" => wanted.place.all_or_none = true,
            "private" => wanted.place.private = true,
            "exclusive" => wanted.exclusive = Some(true),
            "unavailable" => wanted.update.max_unavailable = value.parse().unwrap(),
            "spread" => wanted.place.spread = value.split(',').map(spread_of).collect(),
            "vm" => vm(&mut wanted),
            "image" | "port" | "mounts" => {
                let Driver::Container(container) = &mut wanted.tasks[0].driver else {
                    panic!("a VM has no {word}")
                };
                match word {
                    "image" => container.image = value.to_owned(),
                    "mounts" => container.mounts.push(mount()),
                    _ => container.ports.push(port_of(value)),
                }
            }
            _ => panic!("no such setting: {word}"),
        }
    }
    wanted.with_devices_told()
}

/// `OVER[:VALUE=SHARE...]`.
fn spread_of(text: &str) -> Spread {
    let mut parts = text.split(':');
    let over = parts.next().unwrap().parse().unwrap();
    let share = |part: &str| {
        let (value, share) = part.split_once('=').unwrap();
        (value.to_owned(), share.parse().unwrap())
    };
    Spread { over, shares: parts.map(share).collect() }
}

/// `NUMBER:MEMORY:CORE/CORE...`.
fn node_of(text: &str) -> NumaNode {
    let parts: Vec<&str> = text.split(':').collect();
    let [number, memory, cores] = parts.as_slice() else { panic!("no node: {text}") };
    let core = |text: &str| {
        let kept = text.ends_with('k');
        let numbers: Vec<u16> =
            text.trim_end_matches('k').split('+').map(|number| number.parse().unwrap()).collect();
        numbers.iter().map(|number| Cpu { core: numbers[0], number: *number, kept }).collect::<Vec<_>>()
    };
    NumaNode {
        number: number.parse().unwrap(),
        memory: memory.parse().unwrap(),
        cpus: cores.split('/').flat_map(core).collect(),
    }
}

/// `NAME:KIND:MODEL[:shared][:pci][:fault=WORDS][:LABEL=VALUE]`.
fn device_of(text: &str) -> (DeviceName, Device) {
    let parts: Vec<&str> = text.split(':').collect();
    let [name, kind, model, rest @ ..] = parts.as_slice() else { panic!("no device: {text}") };
    let mut device = Device {
        kind: kind.parse().unwrap(),
        model: (*model).to_owned(),
        labels: Default::default(),
        shared: false,
        fault: String::new(),
        pci: None,
    };
    for part in rest {
        match part.split_once('=') {
            None if *part == "pci" => device.pci = "0000:01:00.0".parse().ok(),
            None => device.shared = *part == "shared",
            Some(("fault", why)) => device.fault = why.to_owned(),
            Some((label, value)) => drop(device.labels.insert(label.to_owned(), value.to_owned())),
        }
    }
    (name.parse().unwrap(), device)
}

/// `KIND[:count=][:share=][:models=A|B][:require=CONDITION]`.
fn device_request_of(text: &str) -> DeviceRequest {
    let mut parts = text.split(':');
    let kind = parts.next().unwrap().parse().unwrap();
    let mut request = DeviceRequest {
        kind,
        count: 1,
        share: Share::WHOLE,
        models: Vec::new(),
        require: Vec::new(),
        to_vm: false,
    };
    for part in parts {
        let (word, value) = part.split_once('=').unwrap();
        match word {
            "count" => request.count = value.parse().unwrap(),
            "share" => request.share = value.parse().unwrap(),
            "models" => request.models = value.split('|').map(str::to_owned).collect(),
            "require" => request.require.push(value.parse().unwrap()),
            _ => panic!("no such setting: {part}"),
        }
    }
    request
}

/// `NAME:PORT[@HOST][/udp]`.
fn port_of(text: &str) -> Port {
    let (text, protocol) =
        text.strip_suffix("/udp").map_or((text, Protocol::Tcp), |text| (text, Protocol::Udp));
    let (name, numbers) = text.split_once(':').unwrap();
    let (port, host) = numbers.split_once('@').map_or((numbers, None), |(port, host)| (port, Some(host)));
    Port {
        name: PortName::new(name).unwrap(),
        port: port.parse().unwrap(),
        host: host.map(|host| host.parse().unwrap()),
        protocol,
    }
}

fn host_state(text: &str) -> HostState {
    let all = [HostState::Ready, HostState::Degraded, HostState::Suspect, HostState::Lost];
    all.into_iter().find(|state| state.as_str() == text).unwrap()
}

fn instance_state(text: &str) -> InstanceState {
    InstanceState::ALL.into_iter().find(|state| state.as_str() == text).unwrap()
}
