//! Devices: whether those that are asked for are free, and which an instance may get. A request asks for one kind, and a spec for each kind once, so that
//! no device is one of two requests.

use std::collections::BTreeSet;

use supercloud_proto::{
    device::{Device, DeviceRequest, Share},
    name::DeviceName,
    spec::WorkloadSpec,
};

use super::{Candidate, Reason, Request};

/// The devices asked for are free; chosen ones are each what the spec asks for and free.
pub(super) fn devices(candidate: &Candidate<'_>, request: &Request<'_>) -> Vec<Reason> {
    match request.devices {
        Some(chosen) => chosen_devices(candidate, request.spec, chosen),
        None => any_devices(candidate, request.spec),
    }
}

fn chosen_devices(candidate: &Candidate<'_>, spec: &WorkloadSpec, chosen: &[DeviceName]) -> Vec<Reason> {
    let asked: Vec<&DeviceRequest> = spec.resources.each_device().collect();
    let mut own = BTreeSet::new();
    if asked.len() != chosen.len() || !chosen.iter().all(|name| own.insert(name)) {
        return vec![Reason::DevicesUnasked];
    }
    let reason = |(request, name): (&DeviceRequest, &DeviceName)| {
        let known = candidate.host.inventory.devices.get(name);
        match known.filter(|device| device.is_well() && request.suits(device)) {
            None => Some(Reason::DevicesUnasked),
            Some(_) if candidate.used.devices.free(name) < request.share => {
                Some(Reason::DeviceTaken(name.clone()))
            }
            Some(_) => None,
        }
    };
    asked.into_iter().zip(chosen).filter_map(reason).collect()
}

fn any_devices(candidate: &Candidate<'_>, spec: &WorkloadSpec) -> Vec<Reason> {
    let reason = |request: &DeviceRequest| {
        let free = candidate.devices_for(request).count() as u64;
        if free >= u64::from(request.count) {
            return None;
        }
        let suiting = candidate.host.inventory.devices.values().filter(|device| request.suits(device));
        let (well, faulty): (Vec<&Device>, Vec<&Device>) = suiting.partition(|device| device.is_well());
        let (request, count) = (request.clone(), request.count as usize);
        Some(match (well.len() + faulty.len(), faulty.first()) {
            (0, _) if has_whole(candidate, &request) => Reason::DeviceWhole(request),
            (0, _) if has_unaddressed(candidate, &request) => Reason::DeviceUnaddressed(request),
            (0, _) => Reason::NoDevice(request),
            (there, _) if there < count => Reason::DevicesThere { request, there: there as u32 },
            (_, Some(device)) if well.len() < count => {
                Reason::DeviceFaulty { request, because: device.fault.clone() }
            }
            _ => Reason::FewDevices { request, free },
        })
    };
    spec.resources.devices.iter().filter_map(reason).collect()
}

/// Whether it has such devices, were they asked for whole.
fn has_whole(candidate: &Candidate<'_>, request: &DeviceRequest) -> bool {
    let whole = DeviceRequest { share: Share::WHOLE, ..request.clone() };
    candidate.host.inventory.devices.values().any(|device| whole.suits(device))
}

/// Whether it has such devices, were they not for a VM.
fn has_unaddressed(candidate: &Candidate<'_>, request: &DeviceRequest) -> bool {
    let anyhow = DeviceRequest { to_vm: false, ..request.clone() };
    candidate.host.inventory.devices.values().any(|device| anyhow.suits(device))
}

/// A device with room for a request.
#[derive(Debug, Clone, Copy)]
pub struct DeviceChoice<'a> {
    /// Its name.
    pub name: &'a DeviceName,
    /// What it is.
    pub device: &'a Device,
    /// How much of it is free.
    pub free: Share,
}

impl<'a> Candidate<'a> {
    /// Whether enough devices are free for each request.
    pub(super) fn has_devices(&self, spec: &WorkloadSpec) -> bool {
        spec.resources.devices.iter().all(|request| {
            let count = request.count as usize;
            self.devices_for(request).take(count).count() == count
        })
    }

    /// The devices with room for a request, by name.
    pub fn devices_for<'s>(
        &'s self,
        request: &'s DeviceRequest,
    ) -> impl Iterator<Item = DeviceChoice<'a>> + 's {
        let Self { host, used, .. } = *self;
        let choice = move |(name, device): (&'a DeviceName, &'a Device)| {
            let free = used.devices.free(name);
            let fits = free >= request.share && device.is_well() && request.suits(device);
            fits.then_some(DeviceChoice { name, device, free })
        };
        host.inventory.devices.iter().filter_map(choice)
    }
}
