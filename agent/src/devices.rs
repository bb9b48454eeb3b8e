//! Devices of this host as its operator wrote them: what the scheduler is told of them, and what a container, or a VM, gets of those that it was given. It opens none;
//! whether a device's nodes are there is looked at with the rest of the machine.
//!
//! Decisions. *A share is counted, not enforced*: no kernel divides a device of any kind, so an operator says which devices may be shared at all.
//! *Nobody gets a device by its variable*: a runtime such as NVIDIA's gives a container the devices that a variable names, whoever set it, the spec or
//! the image. So each variable that any device of the host has is set in every container, empty where it has no such device.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::FileTypeExt,
    path::{Path, PathBuf},
};

use supercloud_proto::{
    device::{Device, GivenDevice, MAX_FAULT, PciAddress},
    name::{DeviceKind, DeviceName},
};

/// In a container: its devices as `NAME=SHARE`, with commas between.
const OWN_VARIABLE: &str = "SUPERCLOUD_DEVICES";

/// Variables by which the runtimes of some makers give devices to whoever names them: set in every container of a host that has devices, whether or not
/// its operator lists them.
const RUNTIME_VARIABLES: [&str; 3] =
    ["AMD_VISIBLE_DEVICES", "HABANA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES"];

/// Where the kernel lists what is on the PCI bus.
const PCI_DEVICES: &str = "/sys/bus/pci/devices";

/// One device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceSettings {
    /// What it is one of.
    pub kind: DeviceKind,
    /// Its model.
    pub model: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Whether it is given away in shares.
    pub shared: bool,
    /// Device nodes that a container gets with it.
    pub nodes: Vec<PathBuf>,
    /// Variables that a container gets with it; the values of several devices are joined by commas.
    pub env: BTreeMap<String, String>,
    /// Where it is on the PCI bus, by which a VM gets it.
    pub pci: Option<PciAddress>,
}

/// All devices of a host.
pub type Devices = BTreeMap<DeviceName, DeviceSettings>;

/// What the scheduler is told of them.
pub fn found(devices: &Devices) -> BTreeMap<DeviceName, Device> {
    let told = |of: &DeviceSettings| Device {
        kind: of.kind.clone(),
        model: of.model.clone(),
        labels: of.labels.clone(),
        shared: of.shared,
        fault: fault(of),
        pci: of.pci,
    };
    devices.iter().map(|(name, of)| (name.clone(), told(of))).collect()
}

/// Why a device cannot be used; empty: it can.
fn fault(device: &DeviceSettings) -> String {
    let fault = |node: &PathBuf| match fs::metadata(node) {
        Err(error) => Some(format!("{}: {error}", node.display())),
        Ok(found) if found.file_type().is_char_device() || found.file_type().is_block_device() => None,
        Ok(_) => Some(format!("{} is no device node", node.display())),
    };
    let absent = |address: &PciAddress| {
        let is_there = Path::new(PCI_DEVICES).join(address.to_string()).exists();
        (!is_there).then(|| format!("there is no PCI device {address}"))
    };
    let of_pci = || device.pci.as_ref().and_then(absent);
    let mut fault = device.nodes.iter().find_map(fault).or_else(of_pci).unwrap_or_default();
    fault.retain(|c| !c.is_control());
    let end = fault.floor_char_boundary(MAX_FAULT);
    fault.truncate(end);
    fault
}

/// Where the devices are on the PCI bus that a VM was given.
///
/// # Errors
/// The name of a device that is not of this host, or has no such address.
pub fn addresses(devices: &Devices, given: &[GivenDevice]) -> Result<Vec<PciAddress>, DeviceName> {
    let address =
        |of: &GivenDevice| devices.get(&of.name).and_then(|device| device.pci).ok_or_else(|| of.name.clone());
    given.iter().map(address).collect()
}

/// What a container gets of its devices.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Granted {
    /// Device nodes, each once.
    pub nodes: BTreeSet<PathBuf>,
    /// Variables; they go over those of the spec.
    pub env: BTreeMap<String, String>,
}

impl Granted {
    /// All of it in one line, by which a container shows what it was made with; empty where it is nothing.
    pub fn text(&self) -> String {
        let nodes = self.nodes.iter().map(|node| node.display().to_string());
        let env = self.env.iter().map(|(name, value)| format!("{name}={value}"));
        nodes.chain(env).collect::<Vec<_>>().join(" ")
    }
}

/// What a container gets that was given these devices.
///
/// # Errors
/// The name of a device that is not of this host.
pub fn granted(devices: &Devices, given: &[GivenDevice]) -> Result<Granted, DeviceName> {
    let of_runtimes = RUNTIME_VARIABLES.iter().filter(|_| !devices.is_empty()).map(|name| (*name).to_owned());
    let all = devices.values().flat_map(|device| device.env.keys().cloned()).chain(of_runtimes);
    let mut granted =
        Granted { nodes: BTreeSet::new(), env: all.map(|name| (name, String::new())).collect() };
    for of in given {
        let device = devices.get(&of.name).ok_or_else(|| of.name.clone())?;
        granted.nodes.extend(device.nodes.iter().cloned());
        for (name, value) in &device.env {
            append(granted.env.entry(name.clone()).or_default(), value);
        }
        append(granted.env.entry(OWN_VARIABLE.to_owned()).or_default(), &own_text(of));
    }
    Ok(granted)
}

fn own_text(given: &GivenDevice) -> String {
    format!("{}={}", given.name, given.share)
}

fn append(list: &mut String, value: &str) {
    if !list.is_empty() {
        list.push(',');
    }
    list.push_str(value);
}

#[cfg(test)]
mod tests {
    use supercloud_proto::device::Share;

    use super::*;

    fn devices() -> Devices {
        let gpu = |number: usize| {
            let device = DeviceSettings {
                kind: "gpu".parse().unwrap(),
                model: "T4".to_owned(),
                labels: BTreeMap::new(),
                shared: true,
                nodes: vec![format!("/dev/gpu{number}").into(), "/dev/null".into()],
                env: [("VISIBLE".to_owned(), number.to_string())].into(),
                pci: None,
            };
            (format!("gpu{number}").parse().unwrap(), device)
        };
        [gpu(0), gpu(1)].into()
    }

    fn given(name: &str, share: u32) -> GivenDevice {
        GivenDevice { name: name.parse().unwrap(), kind: "gpu".parse().unwrap(), share: Share(share) }
    }

    /// Variables beside those of runtimes, which are empty.
    fn env(own: &[(&str, &str)]) -> BTreeMap<String, String> {
        let of_runtimes = RUNTIME_VARIABLES.iter().map(|name| (*name, ""));
        let all = of_runtimes.chain(own.iter().copied());
        all.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    #[test]
    fn a_container_gets_the_nodes_and_variables_of_its_devices_and_no_others() {
        let granted_of = |given: &[GivenDevice]| granted(&devices(), given);
        let both = granted_of(&[given("gpu1", 1_000), given("gpu0", 500)]).unwrap();
        let nodes: Vec<String> = both.nodes.iter().map(|node| node.display().to_string()).collect();
        assert_eq!(nodes, ["/dev/gpu0", "/dev/gpu1", "/dev/null"]);
        assert_eq!(both.env, env(&[("SUPERCLOUD_DEVICES", "gpu1=1,gpu0=0.5"), ("VISIBLE", "1,0")]));
        let none = granted_of(&[]).unwrap();
        assert_eq!(none.env, env(&[("VISIBLE", "")]));
        assert_eq!(
            granted(&Devices::new(), &[]),
            Ok(Granted::default()),
            "a host without devices changes nothing"
        );
        assert!(none.nodes.is_empty());
        assert_eq!(granted_of(&[given("gpu2", 1_000)]).unwrap_err().as_str(), "gpu2");
    }

    #[test]
    fn a_device_whose_nodes_are_not_there_has_a_fault() {
        let mut devices = devices();
        let fault = |devices: &Devices| found(devices)[&"gpu0".parse::<DeviceName>().unwrap()].fault.clone();
        assert!(fault(&devices).starts_with("/dev/gpu0: No such file"), "{}", fault(&devices));
        let nodes = |devices: &mut Devices, nodes: &[&str]| {
            let device = devices.get_mut(&"gpu0".parse::<DeviceName>().unwrap()).unwrap();
            device.nodes = nodes.iter().map(PathBuf::from).collect();
        };
        nodes(&mut devices, &["/dev/null"]);
        assert_eq!(fault(&devices), "");
        nodes(&mut devices, &["/dev/null", "/dev"]);
        assert_eq!(fault(&devices), "/dev is no device node");
        nodes(&mut devices, &[]);
        let address: PciAddress = "fffe:fe:1f.7".parse().unwrap();
        devices.values_mut().for_each(|device| device.pci = Some(address));
        assert_eq!(fault(&devices), "there is no PCI device fffe:fe:1f.7");
        assert_eq!(addresses(&devices, &[given("gpu1", 1_000)]), Ok(vec![address]));
        devices.values_mut().for_each(|device| device.pci = None);
        for name in ["gpu1", "gpu2"] {
            assert_eq!(addresses(&devices, &[given(name, 1_000)]).unwrap_err().as_str(), name);
        }
    }
}
