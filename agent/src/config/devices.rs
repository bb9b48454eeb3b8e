//! The tables `[[devices]]`.

use std::path::{Component, Path, PathBuf};

use supercloud_proto::{
    device::{MAX_DEVICES, MAX_LABELS, MODEL_EXPECTED, PciAddress, is_model},
    name::{DeviceKind, DeviceName},
    problem::{Problem, quoted},
};

use super::{labels, parsed, table::Table};
use crate::devices::{DeviceSettings, Devices};

/// All devices; what is wrong is noted.
pub(super) fn read(root: &mut Table, problems: &mut Vec<Problem>) -> Devices {
    let tables = root.tables("devices", problems);
    if tables.len() > MAX_DEVICES {
        let expected = format!("at most {MAX_DEVICES} devices");
        problems.push(Problem::new("devices", expected, tables.len().to_string()));
    }
    let mut devices = Devices::new();
    for table in tables {
        let path = table.at("name");
        let Some((name, device)) = device(table, problems) else { continue };
        let again = format!("{} again", quoted(name.as_str()));
        if devices.insert(name, device).is_some() {
            problems.push(Problem::new(path, "a name that no other device has", again));
        }
    }
    devices
}

fn device(mut table: Table, problems: &mut Vec<Problem>) -> Option<(DeviceName, DeviceSettings)> {
    let [name, kind, model] = ["name", "kind", "model"].map(|key| {
        let text = table.text(key, problems);
        if text.is_none() {
            problems.push(Problem::new(table.at(key), format!("the {key} of the device"), "nothing"));
        }
        text
    });
    let name: Option<DeviceName> = parsed(&table.at("name"), name, problems);
    let kind: Option<DeviceKind> = parsed(&table.at("kind"), kind, problems);
    if let Some(model) = model.as_ref().filter(|model| !is_model(model)) {
        problems.push(Problem::new(table.at("model"), MODEL_EXPECTED, quoted(model)));
    }
    let labels = labels(&mut table, problems);
    if labels.len() > MAX_LABELS {
        let expected = format!("at most {MAX_LABELS} labels");
        problems.push(Problem::new(table.at("labels"), expected, labels.len().to_string()));
    }
    let shared = table.flag("shared", problems).unwrap_or(false);
    let nodes = nodes(&mut table, problems);
    let env = table.table("env", problems).map(|env| env.into_texts(problems)).unwrap_or_default();
    for (variable, _) in env.iter().filter(|(variable, _)| !is_variable(variable)) {
        let expected = "the name of a variable, of letters, digits and \"_\"";
        problems.push(Problem::new(table.at("env"), expected, quoted(variable)));
    }
    let pci = table.text("pci", problems);
    let pci: Option<PciAddress> = parsed(&table.at("pci"), pci, problems);
    if nodes.is_empty() && env.is_empty() && pci.is_none() {
        let expected =
            "device nodes or variables, by which a container gets the device, or its PCI address for VMs";
        problems.push(Problem::new(table.at("nodes"), expected, "nothing"));
    }
    table.finish(problems);
    let env = env.into_iter().collect();
    Some((name?, DeviceSettings { kind: kind?, model: model?, labels, shared, nodes, env, pci }))
}

fn nodes(table: &mut Table, problems: &mut Vec<Problem>) -> Vec<PathBuf> {
    let nodes = table.texts("nodes", problems).unwrap_or_default();
    for (i, node) in nodes.iter().enumerate() {
        let path = Path::new(node);
        let is_plain =
            path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
        if !path.starts_with("/dev") || !is_plain || node.contains(':') {
            let expected = "a path below /dev without \"..\" and \":\"";
            problems.push(Problem::new(table.at(&format!("nodes[{i}]")), expected, quoted(node)));
        }
    }
    nodes.into_iter().map(PathBuf::from).collect()
}

fn is_variable(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}
