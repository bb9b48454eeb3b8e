//! How much there is of devices, by their kinds: a short list, empty where there are none, so that a copy of that costs nothing.

use supercloud_proto::{device::DeviceRequest, name::DeviceKind};

/// Thousandths of devices by kind; of no kind of which there are none.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ByKind(Vec<(DeviceKind, u64)>);

impl ByKind {
    /// Counts so much more of a kind.
    pub fn add(&mut self, kind: &DeviceKind, thousandths: u64) {
        self.change(kind, |of| of.saturating_add(thousandths));
    }

    /// Counts so much less.
    pub fn take(&mut self, kind: &DeviceKind, thousandths: u64) {
        self.change(kind, |of| of.saturating_sub(thousandths));
    }

    /// Counts what these ask for, so many times.
    pub fn add_asked(&mut self, requests: &[DeviceRequest], times: u64) {
        requests.iter().for_each(|request| self.add(&request.kind, asked(request) * times));
    }

    /// Counts no more what these ask for.
    pub fn take_asked(&mut self, requests: &[DeviceRequest]) {
        requests.iter().for_each(|request| self.take(&request.kind, asked(request)));
    }

    fn change(&mut self, kind: &DeviceKind, change: impl FnOnce(u64) -> u64) {
        let place = self.0.partition_point(|(other, _)| other < kind);
        if self.0.get(place).is_none_or(|(other, _)| other != kind) {
            self.0.insert(place, (kind.clone(), 0));
        }
        self.0[place].1 = change(self.0[place].1);
        if self.0[place].1 == 0 {
            self.0.remove(place);
        }
    }

    /// How much of a kind.
    #[must_use]
    pub fn of(&self, kind: &DeviceKind) -> u64 {
        self.0.iter().find(|(other, _)| other == kind).map_or(0, |(_, thousandths)| *thousandths)
    }

    /// Each kind with how much of it.
    pub fn iter(&self) -> impl Iterator<Item = &(DeviceKind, u64)> {
        self.0.iter()
    }

    /// Whether there is nothing of any.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn asked(request: &DeviceRequest) -> u64 {
    u64::from(request.count) * u64::from(request.share.0)
}
