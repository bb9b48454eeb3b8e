//! How fast the link is on which this host is reached, as the kernel tells it. Many do not tell, as those of virtual machines: then it is not known.

use std::{fs, net::Ipv4Addr};

use supercloud_proto::amount::Mbits;

/// Bandwidth of the link by which an address of this host, or else everything, is reached; 0: not known.
pub(super) fn speed(address: &str) -> Mbits {
    let address = address.parse().unwrap_or(Ipv4Addr::UNSPECIFIED);
    let known = || {
        let routes = fs::read_to_string("/proc/net/route").ok()?;
        let link = link(&routes, address)?;
        parse_speed(&fs::read_to_string(format!("/sys/class/net/{link}/speed")).ok()?)
    };
    known().unwrap_or_default()
}

/// The kernel says -1 where a link is down or has no speed of its own.
fn parse_speed(text: &str) -> Option<Mbits> {
    text.trim().parse().map(Mbits).ok()
}

/// The link of the narrowest route to an address; of equals the first.
fn link(routes: &str, address: Ipv4Addr) -> Option<&str> {
    let mut best: Option<(u32, &str)> = None;
    for line in routes.lines() {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [link, network, _, _, _, _, _, mask, ..] = fields[..] else { continue };
        // Numbers stand there as they lie in memory.
        let number =
            |hex| u32::from_str_radix(hex, 16).map(|number| u32::from_be_bytes(number.to_ne_bytes()));
        let (Ok(network), Ok(mask)) = (number(network), number(mask)) else { continue };
        let leads_there = u32::from(address) & mask == network;
        if leads_there && best.is_none_or(|(narrowest, _)| mask > narrowest) {
            best = Some((mask, link));
        }
    }
    best.map(|(_, link)| link)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_endian = "little")]
    fn the_narrowest_route_leads_to_an_address() {
        let routes = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n\
            eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
            docker0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n\
            eth1\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n";
        let to = |a, b, c, d| link(routes, Ipv4Addr::new(a, b, c, d));
        assert_eq!(to(192, 0, 2, 7), Some("eth1"));
        assert_eq!(to(172, 17, 0, 2), Some("docker0"));
        assert_eq!(to(198, 51, 100, 1), Some("eth0"));
        assert_eq!(link("nonsense\n", Ipv4Addr::UNSPECIFIED), None);
    }

    #[test]
    fn what_the_kernel_does_not_tell_is_not_known() {
        assert_eq!(parse_speed("10000\n"), Some(Mbits(10_000)));
        assert_eq!(parse_speed("-1\n"), None);
    }
}
