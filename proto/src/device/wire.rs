//! Conversions between these types and the API's messages.

use std::collections::BTreeMap;

use super::{
    Device, DeviceRequest, GivenDevice, MAX_DEVICES, MAX_FAULT, MAX_LABELS, MODEL_EXPECTED, SHARE_EXPECTED,
    Share, is_model,
};
use crate::{
    condition::Condition,
    name::{DeviceName, is_label},
    problem::{Faults, Problem, Problems, quoted},
    v1,
};

impl From<DeviceRequest> for v1::DeviceRequest {
    fn from(request: DeviceRequest) -> Self {
        Self {
            kind: request.kind.into(),
            count: request.count,
            share_millis: request.share.0,
            models: request.models,
            require: request.require.iter().map(ToString::to_string).collect(),
        }
    }
}

impl TryFrom<v1::DeviceRequest> for DeviceRequest {
    type Error = Problems;

    fn try_from(message: v1::DeviceRequest) -> Result<Self, Problems> {
        let mut faults = Faults::default();
        let kind = faults.take("kind", message.kind.parse());
        let require = faults.each("require", message.require, |text| text.parse::<Condition>());
        let whole = kind.zip(require).map(|(kind, require)| Self {
            kind,
            count: if message.count == 0 { 1 } else { message.count },
            share: if message.share_millis == 0 { Share::WHOLE } else { Share(message.share_millis) },
            models: message.models,
            require,
            // Whose it is shows in the spec it is of.
            to_vm: false,
        });
        faults.finish(whole)
    }
}

impl From<GivenDevice> for v1::GivenDevice {
    fn from(device: GivenDevice) -> Self {
        Self { name: device.name.into(), kind: device.kind.into(), share_millis: device.share.0 }
    }
}

impl TryFrom<v1::GivenDevice> for GivenDevice {
    type Error = Problems;

    fn try_from(message: v1::GivenDevice) -> Result<Self, Problems> {
        let mut faults = Faults::default();
        let name = faults.take("name", message.name.parse());
        let kind = faults.take("kind", message.kind.parse());
        let share = Share(message.share_millis);
        if !share.is_sound() {
            faults.push(Problem::new("share_millis", SHARE_EXPECTED, share.to_string()));
        }
        faults.finish(name.zip(kind).map(|(name, kind)| Self { name, kind, share }))
    }
}

/// The devices of a host as the API lists them, by name.
pub fn devices_to_wire(devices: &BTreeMap<DeviceName, Device>) -> Vec<v1::Device> {
    let message = |(name, device): (&DeviceName, &Device)| v1::Device {
        name: name.into(),
        kind: (&device.kind).into(),
        model: device.model.clone(),
        labels: device.labels.clone(),
        shared: device.shared,
        fault: device.fault.clone(),
        pci_address: device.pci.map(|address| address.to_string()).unwrap_or_default(),
    };
    devices.iter().map(message).collect()
}

/// The devices of a host by name. Refuses a name that is listed twice, and more than [`MAX_DEVICES`].
pub fn devices_from_wire(messages: Vec<v1::Device>) -> Result<BTreeMap<DeviceName, Device>, Problems> {
    let mut faults = Faults::default();
    if messages.len() > MAX_DEVICES {
        faults.push(Problem::new("", format!("at most {MAX_DEVICES}"), messages.len().to_string()));
    }
    let mut devices = BTreeMap::new();
    for (i, message) in messages.into_iter().enumerate() {
        let v1::Device { name, kind, model, labels, shared, fault, pci_address } = message;
        let path = format!("[{i}].name");
        let known: Option<DeviceName> = faults.take(&path, name.parse());
        let kind = faults.take(&format!("[{i}].kind"), kind.parse());
        let path_of = |field: &str| format!("[{i}].{field}");
        if !is_model(&model) {
            faults.push(Problem::new(path_of("model"), MODEL_EXPECTED, quoted(&model)));
        }
        if labels.len() > MAX_LABELS || !labels.keys().all(|label| is_label(label)) {
            let expected = format!("at most {MAX_LABELS} labels with names of a-z, 0-9 and \"-\"");
            faults.push(Problem::new(path_of("labels"), expected, format!("{} of them", labels.len())));
        }
        if fault.len() > MAX_FAULT || fault.chars().any(char::is_control) {
            let expected = format!("at most {MAX_FAULT} bytes without control characters");
            faults.push(Problem::new(path_of("fault"), expected, quoted(&fault)));
        }
        let pci = match pci_address.as_str() {
            "" => None,
            text => faults.take(&path_of("pci_address"), text.parse()),
        };
        let Some((known, kind)) = known.zip(kind) else { continue };
        if devices.insert(known, Device { kind, model, labels, shared, fault, pci }).is_some() {
            faults.push(Problem::new(path, "each device once", format!("{} again", quoted(&name))));
        }
    }
    faults.finish(Some(devices))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_request_leaves_out_is_one_whole_device() {
        let message = v1::DeviceRequest { kind: "gpu".to_owned(), ..Default::default() };
        let request = DeviceRequest::try_from(message).unwrap();
        assert_eq!((request.count, request.share), (1, Share::WHOLE));
    }

    #[test]
    fn every_problem_is_named() {
        let device = |name: &str, kind: &str| v1::Device {
            name: name.into(),
            kind: kind.into(),
            model: "T4".into(),
            ..Default::default()
        };
        let listed =
            vec![device("gpu0", "gpu"), device("gpu0", "gpu"), device("GPU1", "gpu"), device("x", "")];
        let problems = devices_from_wire(listed).unwrap_err();
        let paths: Vec<&str> = problems.0.iter().map(|problem| problem.path.as_str()).collect();
        assert_eq!(paths, ["[1].name", "[2].name", "[3].kind"]);
        let odd = v1::Device {
            model: "T4\n".into(),
            labels: [("A b".to_owned(), String::new())].into(),
            fault: "\u{1b}[2J".into(),
            pci_address: "1:2".into(),
            ..device("x", "gpu")
        };
        let problems = devices_from_wire(vec![odd]).unwrap_err();
        let paths: Vec<&str> = problems.0.iter().map(|problem| problem.path.as_str()).collect();
        assert_eq!(paths, ["[0].model", "[0].labels", "[0].fault", "[0].pci_address"]);
        let too_many = vec![device("gpu0", "gpu"); MAX_DEVICES + 1];
        assert_eq!(devices_from_wire(too_many).unwrap_err().0[0].expected, "at most 256");
        let given = v1::GivenDevice { name: "-".into(), kind: "gpu".into(), share_millis: 1_001 };
        let problems = GivenDevice::try_from(given).unwrap_err();
        let paths: Vec<&str> = problems.0.iter().map(|problem| problem.path.as_str()).collect();
        assert_eq!(paths, ["name", "share_millis"]);
    }
}
