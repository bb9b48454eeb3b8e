//! An instance's record. There are a million of them, so it is kept small: what its revision says is looked up there, and what few instances have
//! to say stands apart.

use std::sync::Arc;

use supercloud_proto::{
    amount::Amounts,
    cores::Cores,
    device::{DeviceRequest, GivenDevice},
    id::{HostId, InstanceId, LogIndex, Revision, UnixMillis},
    instance::{Desired, InstanceState},
    name::{DeviceName, WorkloadKey},
    spec::WorkloadSpec,
};

use super::{Ports, RevisionRecord, TaskSeen};

/// One running copy of a workload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    /// Id.
    pub id: InstanceId,
    /// Revision that it runs, with whose it is and what it wants; shared with the workload's record.
    pub record: Arc<RevisionRecord>,
    /// Which copy, from 0. At most one instance of a slot has `desired == Run`.
    pub slot: u32,
    /// What is wanted of it.
    pub desired: Desired,
    /// Where it is; `None` while pending.
    pub placed: Option<Placed>,
    /// What is seen of it.
    pub state: InstanceState,
    /// Log index of the latest decision about it.
    pub order_index: LogIndex,
    /// Created at.
    pub created: UnixMillis,
    /// State last changed at.
    pub changed: UnixMillis,
    /// Its tasks as last reported.
    pub tasks: Box<[TaskSeen]>,
    /// Sequence of the last report taken into account.
    pub report_sequence: u64,
    /// What an instance has that follows another one, was told to stop, has a reason for its state, or was given devices.
    pub background: Option<Box<Background>>,
}

/// What few instances have to say.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Background {
    /// Why that is wanted of it, where there is more to say than the spec does.
    pub desired_reason: Arc<str>,
    /// Why it is in that state.
    pub state_reason: Arc<str>,
    /// Not to be placed before; 0: at once.
    pub not_before: UnixMillis,
    /// The one it took over from.
    pub replaces: Option<InstanceId>,
    /// Failed instances in a row in this slot before it.
    pub failures: u32,
    /// Names of its devices, in the order of [`Resources::each_device`](supercloud_proto::spec::Resources::each_device).
    pub devices: Box<[DeviceName]>,
    /// Where others make way for it while it is pending.
    pub awaited: Option<Awaited>,
    /// Cores of its own.
    pub cores: Option<Box<Cores>>,
}

/// Where others make way for an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Awaited {
    /// The host.
    pub host: HostId,
    /// What has no higher priority than this does not get the room.
    pub rank: u32,
}

impl Background {
    /// Nothing where there is nothing to say.
    pub fn boxed(self) -> Option<Box<Self>> {
        (self != Self::default()).then(|| Box::new(self))
    }
}

/// Where an instance is and what it was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    /// Its host.
    pub host: HostId,
    /// Host ports, in the order of [`WorkloadSpec::ports`].
    pub ports: Ports,
    /// What it asked for, with a VM's overhead, as decided when it was placed: what its borough is charged. What of it counts on the host follows
    /// from the policy of the host's site.
    pub taken: Amounts,
}

impl Instance {
    /// Whose.
    pub fn workload(&self) -> &WorkloadKey {
        &self.record.key
    }

    /// Number of the revision that it runs; always kept in the workload while this exists.
    pub fn revision(&self) -> Revision {
        self.record.revision
    }

    /// What that revision wants. Its count is that of some moment: only the workload's own record follows every scale.
    pub fn spec(&self) -> &WorkloadSpec {
        &self.record.spec
    }

    /// Why that is wanted of it, where there is more to say than the spec does.
    pub fn desired_reason(&self) -> &str {
        self.background.as_ref().map_or("", |background| &background.desired_reason)
    }

    /// Why it is in that state.
    pub fn state_reason(&self) -> &str {
        self.background.as_ref().map_or("", |background| &background.state_reason)
    }

    /// Says why it is in that state. The text that is there is kept where it is the same, and an empty one takes no memory.
    pub fn set_state_reason(&mut self, reason: &str) {
        if self.state_reason() == reason {
            return;
        }
        let reason = if reason.is_empty() { Arc::default() } else { reason.into() };
        self.change_background(|background| background.state_reason = reason);
    }

    /// Says which devices it has.
    pub fn set_devices(&mut self, devices: Box<[DeviceName]>) {
        if !devices.is_empty() {
            self.change_background(|background| background.devices = devices);
        }
    }

    /// Says which cores it has for itself.
    pub fn set_cores(&mut self, cores: Option<Box<Cores>>) {
        if cores.is_some() {
            self.change_background(|background| background.cores = cores);
        }
    }

    /// Cores of its host that it has for itself.
    pub fn cores(&self) -> Option<&Cores> {
        self.background.as_ref().and_then(|background| background.cores.as_deref())
    }

    /// Says where others make way for it.
    pub fn set_awaited(&mut self, awaited: Option<Awaited>) {
        if self.awaited() != awaited {
            self.change_background(|background| background.awaited = awaited);
        }
    }

    /// Where others make way for it while it is pending.
    pub fn awaited(&self) -> Option<Awaited> {
        self.background.as_ref().and_then(|background| background.awaited)
    }

    /// The host on which others make way for it while it is pending.
    pub fn awaited_host(&self) -> Option<HostId> {
        self.awaited().map(|awaited| awaited.host)
    }

    fn change_background(&mut self, change: impl FnOnce(&mut Background)) {
        let mut background = self.background.take().map_or_else(Background::default, |boxed| *boxed);
        change(&mut background);
        self.background = background.boxed();
    }

    /// Not to be placed before; 0: at once.
    pub fn not_before(&self) -> UnixMillis {
        self.background.as_ref().map_or(0, |background| background.not_before)
    }

    /// The one it took over from.
    pub fn replaces(&self) -> Option<InstanceId> {
        self.background.as_ref().and_then(|background| background.replaces)
    }

    /// Failed instances in a row in this slot before it.
    pub fn failures(&self) -> u32 {
        self.background.as_ref().map_or(0, |background| background.failures)
    }

    /// Its host.
    pub fn host(&self) -> Option<HostId> {
        self.placed.as_ref().map(|placed| placed.host)
    }

    /// Names of its devices, in the order of the spec's requests.
    pub fn device_names(&self) -> &[DeviceName] {
        self.background.as_ref().map_or(&[], |background| &background.devices)
    }

    /// Its devices with what of the spec asked for each.
    pub fn devices(&self) -> impl Iterator<Item = (&DeviceName, &DeviceRequest)> {
        self.device_names().iter().zip(self.spec().resources.each_device())
    }

    /// Its devices as they are told.
    pub fn given_devices(&self) -> impl Iterator<Item = GivenDevice> {
        self.devices().map(|(name, request)| GivenDevice {
            name: name.clone(),
            kind: request.kind.clone(),
            share: request.share,
        })
    }

    /// Whether it waits for a host.
    pub fn is_pending(&self) -> bool {
        self.desired == Desired::Run && self.placed.is_none()
    }

    /// Whether it is to run and may. One that is on its way out is in nobody's way: its successor may take its place.
    pub fn is_to_stay(&self) -> bool {
        self.desired == Desired::Run && !self.state.is_over()
    }

    /// Whether it stays on its host and must not share it with some workload.
    pub fn minds_neighbours(&self) -> bool {
        self.placed.is_some() && self.is_to_stay() && !self.spec().place.apart.is_empty()
    }

    /// Whether it still takes what it was given: everything placed does, until its host says that it is over, or the host is gone.
    pub fn takes(&self) -> Option<&Placed> {
        self.placed.as_ref().filter(|_| !self.state.is_over())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_stays_small() {
        // With its two counters it fits the allocator's pieces of 160 bytes; the next larger ones are 32 megabytes more for a million.
        assert!(size_of::<Instance>() <= 144, "{}", size_of::<Instance>());
    }
}
