//! The host ports of one instance: a short list that needs no memory of its own while it is short, which it nearly always is.

use std::{fmt, ops::Deref};

/// Ports that fit into the list itself: what is left of the sixteen bytes of a tag and a pointer.
const FEW: usize = 7;

/// Host ports in the order of [`WorkloadSpec::ports`](supercloud_proto::spec::WorkloadSpec::ports). Reads as a slice.
#[derive(Clone)]
pub struct Ports(List);

#[derive(Clone)]
enum List {
    Few { length: u8, ports: [u16; FEW] },
    Many(Box<Many>),
}

/// Behind one thin pointer.
#[derive(Clone)]
struct Many(Vec<u16>);

impl Deref for Ports {
    type Target = [u16];

    fn deref(&self) -> &[u16] {
        match &self.0 {
            List::Few { length, ports } => &ports[..usize::from(*length)],
            List::Many(ports) => &ports.0,
        }
    }
}

impl<'a> IntoIterator for &'a Ports {
    type Item = &'a u16;
    type IntoIter = std::slice::Iter<'a, u16>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl Default for Ports {
    fn default() -> Self {
        Self(List::Few { length: 0, ports: [0; FEW] })
    }
}

impl From<&[u16]> for Ports {
    fn from(ports: &[u16]) -> Self {
        if ports.len() > FEW {
            return Self(List::Many(Box::new(Many(ports.to_vec()))));
        }
        let mut few = [0; FEW];
        few[..ports.len()].copy_from_slice(ports);
        Self(List::Few { length: ports.len() as u8, ports: few })
    }
}

impl FromIterator<u16> for Ports {
    fn from_iter<I: IntoIterator<Item = u16>>(ports: I) -> Self {
        let mut ports = ports.into_iter();
        let (mut few, mut length) = ([0; FEW], 0);
        while let Some(port) = ports.next() {
            if length == FEW {
                let all = few.into_iter().chain([port]).chain(ports).collect();
                return Self(List::Many(Box::new(Many(all))));
            }
            few[length] = port;
            length += 1;
        }
        Self(List::Few { length: length as u8, ports: few })
    }
}

impl PartialEq for Ports {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Ports {}

impl fmt::Debug for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_number_of_ports_reads_back_in_order() {
        for length in 0..2 * FEW as u16 {
            let ports: Vec<u16> = (0..length).map(|port| 20_000 + port).collect();
            let collected: Ports = ports.iter().copied().collect();
            assert_eq!(*collected, ports);
            assert_eq!(Ports::from(ports.as_slice()), collected);
        }
        assert_eq!(size_of::<Option<Ports>>(), 16, "no larger than a boxed slice");
    }
}
