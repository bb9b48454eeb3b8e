//! Devices: what a host has beside processors, memory and disk, as GPUs; what a spec asks for of them; and what an instance was given. A device is of one
//! kind, and is given away whole or, where its operator says so, in shares. Conversions to and from the API's messages stand in `wire`.

use std::{collections::BTreeMap, fmt};

use crate::{
    amount::{InvalidAmount, MilliCpu},
    condition::{Attribute, Condition},
    name::{DeviceKind, DeviceName},
    problem::{Problem, quoted},
};

mod wire;

pub use self::wire::{devices_from_wire, devices_to_wire};

/// Most kinds of devices that a spec asks for.
pub const MAX_REQUESTS: usize = 8;
/// Most devices of one kind that an instance gets.
pub const MAX_COUNT: u32 = 64;
/// Most models, and most conditions, of one request: they are looked at for every device of the kind in the estate.
pub const MAX_RULES: usize = 16;
/// Longest fault that is told of a device, in bytes.
pub const MAX_FAULT: usize = 512;
/// Most labels of a device.
pub const MAX_LABELS: usize = 64;
/// Most devices of a host.
pub const MAX_DEVICES: usize = 256;

/// What a model looks like.
pub const MODEL_EXPECTED: &str =
    "1 to 63 letters, digits, spaces and any of \"-\", \"_\", \".\", \"/\" and \"+\"";

/// Whether a text is the name of a model.
pub fn is_model(text: &str) -> bool {
    let is_known = |c: char| c.is_ascii_alphanumeric() || " -_./+".contains(c);
    (1..=63).contains(&text.len()) && text.trim() == text && text.chars().all(is_known)
}

/// A part of a device, in thousandths. Text: `0.5` or `1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Share(pub u32);

/// What the text of a share looks like.
pub const SHARE_EXPECTED: &str = "a part of a device as \"0.5\" or \"0.125\", at most 1";

impl Share {
    /// Nothing of a device.
    pub const NONE: Self = Self(0);
    /// All of a device.
    pub const WHOLE: Self = Self(1_000);

    /// Whether it is a part that can be asked for.
    pub fn is_sound(self) -> bool {
        (1..=Self::WHOLE.0).contains(&self.0)
    }
}

impl std::str::FromStr for Share {
    type Err = InvalidAmount;

    fn from_str(text: &str) -> Result<Self, InvalidAmount> {
        let invalid = || InvalidAmount { expected: SHARE_EXPECTED, found: text.to_owned() };
        if text.ends_with('m') {
            return Err(invalid());
        }
        // Thousandths of a core are written in the same way.
        let MilliCpu(thousandths) = text.parse().map_err(|_| invalid())?;
        let share = u32::try_from(thousandths).map(Self).ok();
        share.filter(|share| share.is_sound()).ok_or_else(invalid)
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, rest) = (self.0 / Self::WHOLE.0, self.0 % Self::WHOLE.0);
        let decimals = format!("{rest:03}");
        match decimals.trim_end_matches('0') {
            "" => f.pad(&whole.to_string()),
            decimals => f.pad(&format!("{whole}.{decimals}")),
        }
    }
}

/// One device of a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// What it is one of, as `gpu`.
    pub kind: DeviceKind,
    /// Its model, as its maker names it.
    pub model: String,
    /// Set by the operator.
    pub labels: BTreeMap<String, String>,
    /// Whether it is given away in parts: whoever holds one is trusted not to take more.
    pub shared: bool,
    /// Why it cannot be used; empty: it can.
    pub fault: String,
    /// Where it is on the PCI bus, by which a VM gets it; `None`: no VM does.
    pub pci: Option<PciAddress>,
}

impl Device {
    /// Whether it can be used.
    pub fn is_well(&self) -> bool {
        self.fault.is_empty()
    }
}

/// Where a device is on the PCI bus. Text: `0000:01:00.0`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PciAddress {
    /// Domain.
    pub domain: u16,
    /// Bus.
    pub bus: u8,
    /// Slot, below 32.
    pub slot: u8,
    /// Function, below 8.
    pub function: u8,
}

/// What the text of an address looks like.
pub const PCI_EXPECTED: &str = "an address on the PCI bus as \"0000:01:00.0\"";

impl std::str::FromStr for PciAddress {
    type Err = Problem;

    fn from_str(text: &str) -> Result<Self, Problem> {
        let number = |digits: &str, length: usize| {
            let is_sound = digits.len() == length && digits.bytes().all(|b| b.is_ascii_hexdigit());
            u16::from_str_radix(digits, 16).ok().filter(|_| is_sound)
        };
        let parse = || {
            let (domain, rest) = text.split_once(':')?;
            let (bus, rest) = rest.split_once(':')?;
            let (slot, function) = rest.split_once('.')?;
            let (bus, slot) = (number(bus, 2)? as u8, number(slot, 2)? as u8);
            let address =
                Self { domain: number(domain, 4)?, bus, slot, function: number(function, 1)? as u8 };
            (address.slot < 32 && address.function < 8).then_some(address)
        };
        parse().ok_or_else(|| Problem::new("", PCI_EXPECTED, quoted(text)))
    }
}

impl fmt::Display for PciAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { domain, bus, slot, function } = self;
        write!(f, "{domain:04x}:{bus:02x}:{slot:02x}.{function}")
    }
}

/// Devices of one kind that each instance is to get.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceRequest {
    /// The kind.
    pub kind: DeviceKind,
    /// How many of them, 1 to [`MAX_COUNT`].
    pub count: u32,
    /// How much of each.
    pub share: Share,
    /// Any of these models; empty: any model.
    pub models: Vec<String>,
    /// Conditions on the labels of each device, all of which must hold.
    pub require: Vec<Condition>,
    /// Whether it is for a VM, as the tasks of its spec say: then only what has a PCI address will do.
    pub to_vm: bool,
}

impl DeviceRequest {
    /// Whether all of each device is asked for.
    pub fn is_whole(&self) -> bool {
        self.share == Share::WHOLE
    }

    /// Whether a device is one of those asked for, whatever is free of it.
    pub fn suits(&self, device: &Device) -> bool {
        let holds = |condition: &Condition| match &condition.attribute {
            Attribute::Label(name) => condition.holds(device.labels.get(name).map(String::as_str)),
            _ => condition.holds(None),
        };
        device.kind == self.kind
            && (!self.to_vm || device.pci.is_some())
            && (device.shared || self.is_whole())
            && (self.models.is_empty() || self.models.contains(&device.model))
            && self.require.iter().all(holds)
    }
}

impl fmt::Display for DeviceRequest {
    /// `2 gpu`, `0.5 of 1 gpu T4 or V100 with label.memory >= 16`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.is_whole() {
            write!(f, "{} of ", self.share)?;
        }
        write!(f, "{} {}", self.count, self.kind)?;
        if !self.models.is_empty() {
            write!(f, " {}", self.models.join(" or "))?;
        }
        let conditions: Vec<String> = self.require.iter().map(ToString::to_string).collect();
        if !conditions.is_empty() {
            write!(f, " with {}", conditions.join(" and "))?;
        }
        if self.to_vm { f.write_str(" for a VM") } else { Ok(()) }
    }
}

/// A device, or a part of one, that an instance has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GivenDevice {
    /// Name on its host.
    pub name: DeviceName,
    /// Its kind.
    pub kind: DeviceKind,
    /// How much of it.
    pub share: Share,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_read_and_written_without_loss() {
        for (text, thousandths) in [("0.5", 500), ("1", 1_000), ("0.125", 125), ("0.001", 1)] {
            assert_eq!(text.parse(), Ok(Share(thousandths)), "{text}");
            assert_eq!(Share(thousandths).to_string(), text);
        }
        for bad in ["0", "1.001", "2", "500m", "", "-1", "0.0001", "half"] {
            let error = bad.parse::<Share>().unwrap_err();
            assert_eq!((error.expected, error.found.as_str()), (SHARE_EXPECTED, bad));
        }
    }

    #[test]
    fn an_address_is_read_and_written_without_loss() {
        for text in ["0000:01:00.0", "ffff:ff:1f.7", "0001:0a:1e.3"] {
            assert_eq!(text.parse::<PciAddress>().map(|address| address.to_string()), Ok(text.to_owned()));
        }
        for bad in
            ["", "01:00.0", "0000:01:20.0", "0000:01:00.8", "0000:1:00.0", "0000:01:00.0 ", "0000:01:+0.0"]
        {
            assert!(bad.parse::<PciAddress>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_request_suits_by_kind_model_label_and_share() {
        let device = Device {
            kind: "gpu".parse().unwrap(),
            model: "T4".to_owned(),
            labels: [("memory".to_owned(), "16".to_owned())].into(),
            shared: false,
            fault: String::new(),
            pci: None,
        };
        let request = |kind: &str, share, models: &[&str], require: &[&str]| DeviceRequest {
            kind: kind.parse().unwrap(),
            count: 1,
            share: Share(share),
            models: models.iter().map(|model| (*model).to_owned()).collect(),
            require: require.iter().map(|text| text.parse().unwrap()).collect(),
            to_vm: false,
        };
        assert!(request("gpu", 1_000, &[], &[]).suits(&device));
        assert!(request("gpu", 1_000, &["V100", "T4"], &["label.memory >= 16"]).suits(&device));
        assert!(!request("nic", 1_000, &[], &[]).suits(&device));
        assert!(!request("gpu", 1_000, &["V100"], &[]).suits(&device));
        assert!(!request("gpu", 1_000, &[], &["label.memory > 16"]).suits(&device));
        assert!(!request("gpu", 500, &[], &[]).suits(&device), "it is not given away in parts");
        let to_vm = DeviceRequest { to_vm: true, ..request("gpu", 1_000, &[], &[]) };
        assert!(!to_vm.suits(&device), "no VM could get it");
        assert!(to_vm.suits(&Device { pci: "0000:01:00.0".parse().ok(), ..device.clone() }));
        assert_eq!(to_vm.to_string(), "1 gpu for a VM");
        assert!(request("gpu", 500, &[], &[]).suits(&Device { shared: true, ..device }));
        let told = request("gpu", 250, &["T4", "P4"], &["label.memory >= 16", "label.old missing"]);
        assert_eq!(told.to_string(), "0.25 of 1 gpu T4 or P4 with label.memory >= 16 and label.old missing");
        assert_eq!(request("gpu", 1_000, &[], &[]).to_string(), "1 gpu");
    }
}
