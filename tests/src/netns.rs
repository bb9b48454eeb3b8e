//! A network of the test's own: a network namespace for each node, joined by a bridge in one more namespace, and one link from there to
//! the test. What is lost between nodes is dropped by nftables in the receiver's namespace.
//!
//! Decisions
//! * **The bridge has a namespace to itself.** Docker sets the policy of this machine's FORWARD chain to DROP, and bridged packets pass it;
//!   in a namespace there are no rules but ours, and deleting the namespace deletes everything.
//! * **The test hears every node always**: it stands for clients, and a client that reaches a node which is cut off from the others is
//!   the one that could read what is old.
//! * **Dropped where it arrives.** Both directions of a link are then one kind of rule, and the sender notices nothing, as in life.
//! * **Addresses from 198.18.0.0/15**, which is set apart for tests of networks (RFC 2544) and used neither by Docker nor by our agents.
//!   A test takes one /24 of it, held by a name in the abstract socket namespace, as `ports` does.

use std::{
    collections::BTreeSet,
    net::Ipv4Addr,
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixListener},
    },
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use crate::{
    Outcome,
    partition::Lost,
    process::{complete, write},
    wrong,
};

/// How the names of our namespaces begin; the number of the block follows.
const PREFIX: &str = "supercloud-tests-";
/// Blocks there are: the third part of an address.
const BLOCKS: u8 = 250;
/// Last part of the test's own address.
const TEST: u8 = 254;
/// Most nodes of a network: as many as a cluster may have.
const MOST: usize = 7;
/// Where iproute2 keeps namespaces.
const NAMESPACES: &str = "/run/netns";
/// Where a world notes which network is its own.
const NOTE: &str = "network";
/// Longest time for one command of iproute2 or nftables; deleting a namespace waits for the kernel.
const PATIENCE: Duration = Duration::from_secs(20);

/// The network of one test. It is gone once this is dropped; what runs in it must have ended before.
#[derive(Debug)]
pub struct Network {
    block: u8,
    namespaces: Vec<Namespace>,
    lost: Lost,
    _held: UnixListener,
}

/// The namespace of one node.
#[derive(Debug, Clone)]
pub struct Namespace {
    name: String,
    /// The node's address.
    pub address: Ipv4Addr,
}

impl Namespace {
    /// The file that stands for it.
    pub fn path(&self) -> PathBuf {
        Path::new(NAMESPACES).join(&self.name)
    }

    /// A command that runs a program within it. The program takes the command's place, so that its number is the child's.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path().display())).arg(program);
        command
    }
}

impl Network {
    /// Makes a network of so many nodes, and notes in the world's folder that it is there.
    pub fn make(folder: &Path, nodes: usize) -> Outcome<Self> {
        if !(1..=MOST).contains(&nodes) {
            return wrong(format!("a network has 1 to {MOST} nodes, not {nodes}"));
        }
        let (block, held) = take_block()?;
        write(&folder.join(NOTE), &block.to_string())?;
        // What a test that was killed left in this very block, should its folder be gone.
        remove(block)?;
        let namespaces = (0..nodes).map(|node| Namespace {
            name: name(block, &node.to_string()),
            address: Ipv4Addr::new(198, 18, block, u8::try_from(node + 1).unwrap_or(TEST)),
        });
        let network = Self { block, namespaces: namespaces.collect(), lost: Lost::new(), _held: held };
        network.build()?;
        Ok(network)
    }

    /// The namespace of a node.
    pub fn namespace(&self, node: usize) -> &Namespace {
        &self.namespaces[node]
    }

    /// From now on exactly these links lose everything.
    pub fn lose(&mut self, lost: &Lost) -> Outcome {
        let changed: BTreeSet<usize> = self.lost.symmetric_difference(lost).map(|(_, to)| *to).collect();
        for receiver in changed {
            self.drop_at(receiver, lost)?;
        }
        self.lost.clone_from(lost);
        Ok(())
    }

    /// From now on everything arrives.
    pub fn heal(&mut self) -> Outcome {
        self.lose(&Lost::new())
    }

    /// Replaces what one node does not hear, in one step.
    fn drop_at(&self, receiver: usize, lost: &Lost) -> Outcome {
        let unheard = lost.iter().filter(|(_, to)| *to == receiver).map(|(from, _)| *from);
        let rules: String =
            unheard.map(|from| format!("ip saddr {} drop\n", self.namespaces[from].address)).collect();
        let table = format!(
            "table inet faults\nflush table inet faults\ntable inet faults {{ chain input {{ \
             type filter hook input priority 0; policy accept;\n{rules}}}\n}}\n"
        );
        run(self.namespaces[receiver].command("nft").args(["-f", "-"]), &table)
    }

    fn build(&self) -> Outcome {
        let switch = name(self.block, "switch");
        let test = test_link(self.block);
        let (mut links, mut ports) = (String::new(), String::new());
        links.push_str(&format!(
            "netns add {switch}\nlink add {test} type veth peer name test netns {switch}\n"
        ));
        links
            .push_str(&format!("addr add {}/24 dev {test}\nlink set {test} up\n", address(self.block, TEST)));
        ports.push_str("link add bridge type bridge\nlink set bridge up\nlink set test master bridge up\n");
        for (node, Namespace { name, .. }) in self.namespaces.iter().enumerate() {
            links.push_str(&format!(
                "netns add {name}\nlink add node{node} netns {switch} type veth peer name eth0 netns {name}\n"
            ));
            ports.push_str(&format!("link set node{node} master bridge up\n"));
        }
        batch(None, &links)?;
        batch(Some(&switch), &ports)?;
        for Namespace { name, address } in &self.namespaces {
            batch(
                Some(name),
                &format!("link set lo up\naddr add {address}/24 dev eth0\nlink set eth0 up\n"),
            )?;
        }
        Ok(())
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        if let Err(error) = remove(self.block) {
            eprintln!("removing the network: {error}");
        }
    }
}

/// Removes the network that a world noted, if it noted one.
pub fn clear(folder: &Path) -> Outcome {
    match std::fs::read_to_string(folder.join(NOTE)).ok().and_then(|text| text.trim().parse().ok()) {
        Some(block) => remove(block),
        None => Ok(()),
    }
}

/// Deletes the namespaces of a block, and with them the links and the bridge.
fn remove(block: u8) -> Outcome {
    // By itself it would go some time after its other end, and its name shall be free at once.
    if Path::new("/sys/class/net").join(test_link(block)).exists() {
        batch(None, &format!("link delete {}\n", test_link(block)))?;
    }
    let Ok(entries) = std::fs::read_dir(NAMESPACES) else { return Ok(()) };
    let prefix = name(block, "");
    let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    let deletions: String =
        names.filter(|name| name.starts_with(&prefix)).map(|name| format!("netns delete {name}\n")).collect();
    batch(None, &deletions)
}

fn name(block: u8, part: &str) -> String {
    format!("{PREFIX}{block}-{part}")
}

/// The test's end of its link to the bridge; at most 15 letters.
fn test_link(block: u8) -> String {
    format!("sctests{block}")
}

fn address(block: u8, last: u8) -> Ipv4Addr {
    Ipv4Addr::new(198, 18, block, last)
}

fn take_block() -> Outcome<(u8, UnixListener)> {
    // Begins elsewhere in each process, so that addresses are not used again at once.
    let start = u8::try_from(std::process::id() % u32::from(BLOCKS))?;
    for step in 0..BLOCKS {
        let block = u8::try_from((u16::from(start) + u16::from(step)) % u16::from(BLOCKS))?;
        let name = SocketAddr::from_abstract_name(format!("supercloud-tests-network-{block}"))?;
        if let Ok(held) = UnixListener::bind_addr(&name) {
            return Ok((block, held));
        }
    }
    wrong("every block of addresses is in use")
}

/// Runs several commands of iproute2 within one namespace, or outside all of them.
fn batch(namespace: Option<&str>, commands: &str) -> Outcome {
    if commands.is_empty() {
        return Ok(());
    }
    let mut command = Command::new("ip");
    if let Some(name) = namespace {
        command.args(["-n", name]);
    }
    run(command.args(["-batch", "-"]), commands)
}

fn run(command: &mut Command, input: &str) -> Outcome {
    complete(command, input.as_bytes(), PATIENCE)?.with_code(0)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{partition, proxy::Proxy};

    const PORT: u16 = 7501;

    /// Whether one node can connect to another, before which something listens.
    fn reaches(network: &Network, from: usize, to: usize) -> Outcome<bool> {
        let connect = format!("exec 3<>/dev/tcp/{}/{PORT}", network.namespace(to).address);
        let mut command = network.namespace(from).command("timeout");
        let answer = complete(command.args(["1", "bash", "-c", &connect]), b"", PATIENCE)?;
        Ok(answer.code == Some(0))
    }

    #[test]
    fn links_are_lost_and_healed_and_everything_is_gone_in_the_end() -> Outcome {
        let folder = tempfile::tempdir()?;
        let mut network = Network::make(folder.path(), 3)?;
        let listeners = network.namespaces.iter().map(|node| {
            // Behind them is nothing: being let in is all.
            let (listen, nothing) = ((node.address, PORT).into(), (node.address, 1).into());
            Proxy::start(Some(&node.path()), listen, nothing, 0)
        });
        let listeners = listeners.collect::<Outcome<Vec<_>>>()?;
        for (lost, expected) in [
            (Lost::new(), [true, true, true]),
            (partition::isolate(2, 3), [true, false, false]),
            (partition::one_way(0, 1), [false, true, true]),
            (Lost::new(), [true, true, true]),
        ] {
            network.lose(&lost)?;
            let found = [reaches(&network, 0, 1)?, reaches(&network, 1, 2)?, reaches(&network, 2, 0)?];
            assert_eq!(found, expected, "{lost:?}");
        }
        let paths: Vec<PathBuf> = network.namespaces.iter().map(Namespace::path).collect();
        drop(listeners);
        drop(network);
        assert!(paths.iter().all(|path| !path.exists()));
        Ok(())
    }

    #[test]
    fn two_tests_have_different_addresses() -> Outcome {
        let (mine, other) = (take_block()?, take_block()?);
        assert_ne!(mine.0, other.0);
        Ok(())
    }
}
