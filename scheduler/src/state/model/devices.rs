//! What is given away of a host's devices: a short list, empty on the many hosts that have none.

use supercloud_proto::{device::Share, name::DeviceName};

/// What is given away of each device, by name. Those of which nothing is are not there.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DevicesUse(Vec<(DeviceName, Share)>);

impl DevicesUse {
    /// How much of a device is given away.
    pub fn given(&self, device: &DeviceName) -> Share {
        self.place(device).map_or(Share::NONE, |place| self.0[place].1)
    }

    /// How much of a device is not.
    pub fn free(&self, device: &DeviceName) -> Share {
        Share(Share::WHOLE.0.saturating_sub(self.given(device).0))
    }

    /// How much of each of these is not, which come by name.
    pub fn free_of_each<'a>(
        &'a self,
        devices: impl Iterator<Item = &'a DeviceName>,
    ) -> impl Iterator<Item = Share> {
        let mut given = self.0.iter().peekable();
        devices.map(move |device| {
            while given.next_if(|(known, _)| known < device).is_some() {}
            let given = given.next_if(|(known, _)| known == device).map_or(0, |(_, share)| share.0);
            Share(Share::WHOLE.0.saturating_sub(given))
        })
    }

    /// Gives so much of a device away.
    pub fn give(&mut self, device: &DeviceName, share: Share) {
        match self.place(device) {
            Ok(place) => self.0[place].1.0 += share.0,
            Err(place) => self.0.insert(place, (device.clone(), share)),
        }
    }

    /// Takes so much of a device back.
    pub fn take_back(&mut self, device: &DeviceName, share: Share) {
        let Ok(place) = self.place(device) else { return };
        let given = &mut self.0[place].1.0;
        *given = given.saturating_sub(share.0);
        if *given == 0 {
            self.0.remove(place);
        }
    }

    /// Whether no less of any device is given away in another one.
    pub fn is_within(&self, other: &Self) -> bool {
        self.0.iter().all(|(device, share)| *share <= other.given(device))
    }

    /// All of which something is given away, by name.
    pub fn iter(&self) -> impl Iterator<Item = &(DeviceName, Share)> {
        self.0.iter()
    }

    fn place(&self, device: &DeviceName) -> Result<usize, usize> {
        self.0.binary_search_by(|(known, _)| known.cmp(device))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_add_up_and_nothing_is_left_of_what_is_given_back() {
        let [first, second]: [DeviceName; 2] = ["gpu0", "gpu1"].map(|name| name.parse().unwrap());
        let mut used = DevicesUse::default();
        used.give(&second, Share::WHOLE);
        used.give(&first, Share(300));
        let before = used.clone();
        used.give(&first, Share(400));
        assert_eq!(
            (used.given(&first), used.free(&first), used.free(&second)),
            (Share(700), Share(300), Share::NONE)
        );
        let all: Vec<DeviceName> = ["gpu", "gpu0", "gpu00", "gpu1"].map(|name| name.parse().unwrap()).into();
        let each: Vec<Share> = all.iter().map(|device| used.free(device)).collect();
        assert_eq!(used.free_of_each(all.iter()).collect::<Vec<_>>(), each);
        assert!(used.free_of_each(all[2..].iter()).eq(each[2..].iter().copied()), "others are passed over");
        assert!(before.is_within(&used) && !used.is_within(&before));
        used.take_back(&first, Share(400));
        assert_eq!(used, before);
        used.take_back(&first, Share(300));
        used.take_back(&second, Share::WHOLE);
        assert_eq!(used, DevicesUse::default());
    }
}
