//! The addresses that boroughs' networks are made of. Pure arithmetic on ranges of IPv4; it asks nobody what is taken.

use std::{fmt, net::Ipv4Addr, str::FromStr};

/// Length of the prefix of one borough's network on one host: 253 containers.
const NETWORK_PREFIX: u8 = 24;
/// The widest range that makes sense: the whole of 10.0.0.0/8.
const WIDEST_PREFIX: u8 = 8;

/// A range of IPv4 addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Subnet {
    first: u32,
    prefix: u8,
}

impl Subnet {
    fn mask(prefix: u8) -> u32 {
        u32::MAX.checked_shl(32_u32.saturating_sub(u32::from(prefix))).unwrap_or(0)
    }

    /// Whether they share an address: the wider one holds the start of the narrower.
    fn overlaps(self, other: Self) -> bool {
        let mask = Self::mask(self.prefix.min(other.prefix));
        self.first & mask == other.first & mask
    }
}

impl FromStr for Subnet {
    type Err = NoRange;

    /// As Docker writes it. Address bits beyond the prefix are dropped: what matters is which addresses are taken.
    fn from_str(text: &str) -> Result<Self, NoRange> {
        let (address, prefix) = text.split_once('/').ok_or(NoRange)?;
        let address: Ipv4Addr = address.parse().map_err(|_| NoRange)?;
        let prefix: u8 = prefix.parse().map_err(|_| NoRange)?;
        if prefix > 32 {
            return Err(NoRange);
        }
        Ok(Self { first: u32::from(address) & Self::mask(prefix), prefix })
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", Ipv4Addr::from(self.first), self.prefix)
    }
}

/// A text that is no range of addresses, or none that networks can be cut from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an IPv4 range between /8 and /24 that begins at its first address, as \"10.213.0.0/16\"")]
pub struct NoRange;

/// The range that an agent cuts networks from, one /24 for each borough that has a container on its host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pool(Subnet);

impl Default for Pool {
    /// 10.213.0.0/16: 256 networks, away from Docker's own and from what is commonly used.
    fn default() -> Self {
        Self(Subnet { first: u32::from(Ipv4Addr::new(10, 213, 0, 0)), prefix: 16 })
    }
}

impl FromStr for Pool {
    type Err = NoRange;

    fn from_str(text: &str) -> Result<Self, NoRange> {
        let range: Subnet = text.parse()?;
        let first = Ipv4Addr::from(range.first);
        let usable = !(first.is_loopback() || first.is_multicast() || first.is_unspecified());
        // A range that begins elsewhere than it says is a mistake in one of its two halves.
        let exact = text.split_once('/').is_some_and(|(address, _)| address == first.to_string());
        let fits = (WIDEST_PREFIX..=NETWORK_PREFIX).contains(&range.prefix);
        if usable && exact && fits { Ok(Self(range)) } else { Err(NoRange) }
    }
}

impl fmt::Display for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Pool {
    /// Networks in it.
    pub(super) fn size(self) -> u32 {
        1 << NETWORK_PREFIX.saturating_sub(self.0.prefix)
    }

    /// The first free network at or after a place that follows from `name`, round to where it began.
    ///
    /// Agents that share a Docker and a pool thus seldom want the same network at the same time, while two makers of the *same* network
    /// always do, and Docker lets only one of them have it.
    pub(super) fn free(self, name: &str, taken: &[Subnet]) -> Option<Subnet> {
        let start = fnv1a(name) % self.size();
        (0..self.size())
            .map(|step| {
                let at = (start + step) % self.size();
                Subnet { first: self.0.first + (at << (32 - NETWORK_PREFIX)), prefix: NETWORK_PREFIX }
            })
            .find(|subnet| !taken.iter().any(|other| subnet.overlaps(*other)))
    }
}

/// FNV-1a, 32 bits: the same number for a name on every machine and in every release.
fn fnv1a(name: &str) -> u32 {
    name.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnet(text: &str) -> Subnet {
        text.parse().unwrap()
    }

    #[test]
    fn a_pool_is_a_range_that_networks_fit_in() {
        for good in ["10.213.0.0/16", "10.0.0.0/8", "192.168.7.0/24"] {
            assert_eq!(good.parse::<Pool>().unwrap().to_string(), good);
        }
        for bad in [
            "",
            "10.213.0.0",
            "10.213.0.1/16",
            "10.213.0.0/25",
            "0.0.0.0/0",
            "127.0.0.0/8",
            "224.0.0.0/8",
            "fd00::/64",
            "10.0.0.0/33",
        ] {
            assert_eq!(bad.parse::<Pool>(), Err(NoRange), "{bad}");
        }
        assert_eq!(Pool::default().to_string(), "10.213.0.0/16");
    }

    #[test]
    fn ranges_overlap_when_one_holds_the_other() {
        for (a, b, expected) in [
            ("10.0.1.0/24", "10.0.1.128/25", true),
            ("10.0.0.0/8", "10.213.4.0/24", true),
            ("10.0.1.0/24", "10.0.2.0/24", false),
            ("0.0.0.0/0", "10.0.2.0/24", true),
        ] {
            assert_eq!(subnet(a).overlaps(subnet(b)), expected, "{a} {b}");
            assert_eq!(subnet(b).overlaps(subnet(a)), expected, "{b} {a}");
        }
    }

    #[test]
    fn every_network_of_a_pool_is_given_once_and_then_none() {
        let pool: Pool = "10.9.0.0/22".parse().unwrap();
        let mut taken = vec![subnet("10.9.1.64/26"), subnet("172.17.0.0/16")];
        let mut given = Vec::new();
        while let Some(free) = pool.free("sc-1.h.camden", &taken) {
            taken.push(free);
            given.push(free.to_string());
        }
        given.sort();
        assert_eq!(given, ["10.9.0.0/24", "10.9.2.0/24", "10.9.3.0/24"]);
        assert_eq!((pool.size(), "10.9.8.0/24".parse::<Pool>().unwrap().size()), (4, 1));
    }

    #[test]
    fn one_name_wants_one_place_and_names_spread() {
        let pool = Pool::default();
        let wants: std::collections::BTreeSet<_> =
            (0..100).filter_map(|n| pool.free(&format!("sc-1.h{n}.camden"), &[])).collect();
        assert_eq!(pool.free("sc-1.h1.camden", &[]), pool.free("sc-1.h1.camden", &[]));
        assert!(wants.len() > 50, "{}", wants.len());
    }
}
