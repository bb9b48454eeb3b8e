//! Ports of this machine for one test.
//!
//! Decision: from below the range that the kernel gives to outgoing connections, because a node that is killed must find its port
//! free when it comes back; and in blocks, each held by a socket in the abstract namespace for as long as the test lives, because
//! tests of several checkouts may run at once and a port that Docker shall publish cannot be held by binding it.

use std::{
    net::TcpListener,
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixListener},
    },
};

use crate::{Outcome, wrong};

/// Ports in a block: three nodes with two ports each, and two hosts with thirty.
const BLOCK: u16 = 80;
/// First port of the first block.
const FIRST: u16 = 12_000;
/// Blocks there are; the last ends below 32768, where outgoing connections begin.
const BLOCKS: u16 = 200;

/// A block of free ports that no other test has.
#[derive(Debug)]
pub struct Ports {
    first: u16,
    used: u16,
    _held: UnixListener,
}

impl Ports {
    /// Takes a block.
    pub fn take() -> Outcome<Self> {
        // Begins elsewhere in each process, so that a port is not used again at once.
        let start = u16::try_from(std::process::id() % u32::from(BLOCKS))?;
        for step in 0..BLOCKS {
            let block = (start + step) % BLOCKS;
            let name = SocketAddr::from_abstract_name(format!("supercloud-tests-ports-{block}"))?;
            let Ok(held) = UnixListener::bind_addr(&name) else { continue };
            let first = FIRST + block * BLOCK;
            if (first..first + BLOCK).all(is_free) {
                return Ok(Self { first, used: 0, _held: held });
            }
        }
        wrong("every block of ports is in use")
    }

    /// The next port.
    pub fn one(&mut self) -> Outcome<u16> {
        self.several(1).map(|(first, _)| first)
    }

    /// The first and the last of several ports in a row.
    pub fn several(&mut self, count: u16) -> Outcome<(u16, u16)> {
        if count == 0 || self.used + count > BLOCK {
            return wrong(format!(
                "a test has {BLOCK} ports, {} are used, and {count} more were asked for",
                self.used
            ));
        }
        let first = self.first + self.used;
        self.used += count;
        Ok((first, first + count - 1))
    }
}

fn is_free(port: u16) -> bool {
    TcpListener::bind(("0.0.0.0", port)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_tests_never_share_a_port_and_none_is_given_twice() -> Outcome {
        let (mut mine, mut other) = (Ports::take()?, Ports::take()?);
        assert_ne!(mine.first, other.first);
        let (first, last) = mine.several(BLOCK - 1)?;
        assert_eq!(last - first, BLOCK - 2);
        assert_eq!(mine.one()?, last + 1);
        assert!(mine.one().is_err());
        assert!(other.one()? < 32_768);
        Ok(())
    }
}
