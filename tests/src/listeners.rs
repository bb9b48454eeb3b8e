//! Where a process listens, as the kernel tells it.

use std::{
    collections::BTreeSet,
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use crate::{Outcome, Wrong};

/// The kernel's word for a socket that listens.
const LISTEN: &str = "0A";

/// The TCP addresses at which a process listens.
pub fn of(process: u32) -> Outcome<Vec<SocketAddr>> {
    let sockets = sockets(process)?;
    let mut found = Vec::new();
    for table in ["tcp", "tcp6"] {
        for line in fs::read_to_string(format!("/proc/{process}/net/{table}"))?.lines().skip(1) {
            let fields: Vec<&str> = line.split_whitespace().collect();
            if let [_, local, _, LISTEN, _, _, _, _, _, inode, ..] = fields.as_slice()
                && sockets.contains(*inode)
            {
                found.push(address(local)?);
            }
        }
    }
    found.sort();
    Ok(found)
}

/// The inodes of its sockets.
fn sockets(process: u32) -> Outcome<BTreeSet<String>> {
    let mut inodes = BTreeSet::new();
    for entry in fs::read_dir(format!("/proc/{process}/fd"))? {
        // A descriptor may be closed while we look.
        let Ok(target) = fs::read_link(entry?.path()) else { continue };
        let target = target.to_string_lossy().into_owned();
        if let Some(inode) = target.strip_prefix("socket:[").and_then(|rest| rest.strip_suffix(']')) {
            inodes.insert(inode.to_owned());
        }
    }
    Ok(inodes)
}

/// `0100007F:1F90` is 127.0.0.1:8080: words of four bytes, each in the machine's order.
fn address(text: &str) -> Outcome<SocketAddr> {
    let odd = || Wrong(format!("{text:?} is no address"));
    let (ip, port) = text.split_once(':').ok_or_else(odd)?;
    let mut bytes = Vec::new();
    for at in (0..ip.len()).step_by(8) {
        let word = u32::from_str_radix(ip.get(at..at + 8).ok_or_else(odd)?, 16)?;
        bytes.extend(word.to_ne_bytes());
    }
    let ip = match <[u8; 4]>::try_from(bytes.as_slice()) {
        Ok(four) => IpAddr::V4(Ipv4Addr::from(four)),
        Err(_) => IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(bytes.as_slice()).map_err(|_| odd())?)),
    };
    Ok(SocketAddr::new(ip, u16::from_str_radix(port, 16)?))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn listeners_of_both_kinds_are_seen() -> Outcome {
        let all = [TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("[::1]:0")?];
        let mut expected = all.iter().map(TcpListener::local_addr).collect::<Result<Vec<_>, _>>()?;
        expected.sort();
        let found = of(std::process::id())?;
        assert!(expected.iter().all(|one| found.contains(one)), "{found:?}");
        drop(all);
        let left = of(std::process::id())?;
        assert!(!expected.iter().any(|one| left.contains(one)), "{left:?}");
        Ok(())
    }
}
