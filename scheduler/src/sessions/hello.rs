//! The opening of a session: who calls, whether they may, and the host's record brought up to date. Ends with a welcome or a refusal.

use std::time::Duration;

use supercloud_proto::{
    host::{HostState, Inventory},
    id::HostId,
    name::HostName,
    problem::{Faults, Problem, quoted},
    v1,
};

use super::{Place, Sessions};
use crate::{
    api::caller::Caller,
    core::Core,
    state::{
        Command, Done, State,
        apply::hosts::verdict_of,
        level::{self, Level},
    },
    watch as states,
};

/// The protocol that this version speaks.
const PROTOCOL: u32 = 1;
/// Longest id of an installation.
const MAX_INCARNATION: usize = 128;
/// How long a session waits until this node has applied the registration of its host.
const CATCH_UP: Duration = Duration::from_secs(5);

/// Why a session is refused, or ended by this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// In words.
    pub reason: String,
    /// Whether trying again is of no use without a change.
    pub permanent: bool,
}

impl Refusal {
    /// Trying again is of no use.
    pub(super) fn permanent(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), permanent: true }
    }

    /// It may well work the next time.
    pub(super) fn passing(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), permanent: false }
    }
}

/// A hello that was understood.
#[derive(Debug, Clone)]
pub struct Greeted {
    /// Its host.
    pub host: HostName,
    /// What the host is.
    pub inventory: Inventory,
    /// Id of its agent's installation.
    pub incarnation: String,
}

/// What follows from a hello.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Admission {
    /// The host is registered as it is.
    Known(HostId),
    /// This is to be proposed first.
    Register(Command),
    /// Not now.
    Refused(Refusal),
}

/// Decides about a hello by a state that holds everything acknowledged before it.
#[must_use]
pub fn admission(state: &State, greeted: &Greeted) -> Admission {
    if let Err(refusal) = refuse_copies(state, greeted) {
        return Admission::Refused(refusal);
    }
    match is_registered(state, greeted) {
        Some(host) => Admission::Known(host),
        None => Admission::Register(Command::RegisterHost {
            name: greeted.host.clone(),
            inventory: Box::new(greeted.inventory.clone()),
            incarnation: greeted.incarnation.clone(),
        }),
    }
}

/// A session that stands.
pub(super) struct Admitted {
    pub(super) place: Place,
    pub(super) host: HostId,
    /// A state in which the host is registered.
    pub(super) state: State,
    /// What the host is, where that is more than older members know: to be registered once there are none.
    pub(super) withheld: Option<Inventory>,
}

/// Reads a hello, and checks that the caller may say it.
pub(super) fn greet(hello: v1::Hello, caller: &Caller, cluster_id: &str) -> Result<Greeted, Refusal> {
    if hello.protocol != PROTOCOL {
        let spoken = hello.protocol;
        return Err(Refusal::permanent(format!("expected protocol {PROTOCOL}, the agent speaks {spoken}")));
    }
    if !hello.cluster_id.is_empty() && hello.cluster_id != cluster_id {
        let named = quoted(&hello.cluster_id);
        return Err(Refusal::permanent(format!(
            "this is cluster {cluster_id}, the agent belongs to {named}"
        )));
    }
    let mut faults = Faults::default();
    let host: Option<HostName> = faults.take("host", hello.host.parse());
    let inventory: Option<Inventory> = faults.required("inventory", hello.inventory);
    let incarnation = hello.incarnation;
    let graphic = incarnation.bytes().all(|byte| byte.is_ascii_graphic());
    if incarnation.is_empty() || incarnation.len() > MAX_INCARNATION || !graphic {
        let expected = format!("1 to {MAX_INCARNATION} printable characters");
        faults.push(Problem::new("incarnation", expected, quoted(&incarnation)));
    }
    let whole = host.zip(inventory).map(|(host, inventory)| Greeted { host, inventory, incarnation });
    let greeted = faults.finish(whole).map_err(|problems| Refusal::permanent(problems.to_string()))?;
    if !caller.speaks_for(&greeted.host) {
        let (host, by) = (&greeted.host, caller.by());
        return Err(Refusal::permanent(format!("the certificate is that of {by}, not of host {host}")));
    }
    Ok(greeted)
}

/// Whether a host's record says all that its agent says.
fn is_registered(state: &State, greeted: &Greeted) -> Option<HostId> {
    let host = state.host_named(greeted.host.as_str())?;
    let same = host.incarnation == greeted.incarnation
        && *host.inventory == greeted.inventory
        && (host.state, host.state_reason.clone()) == verdict_of(&greeted.inventory);
    same.then_some(host.id)
}

/// Refuses a machine that speaks as a host while another machine is heard as that host: one of the two is a copy of the other, with its ledger
/// and its certificate, and would do all its work a second time. They are told apart by their boots. A host that truly booted anew was silent for
/// long enough to be suspected, or soon is, and is let in then.
fn refuse_copies(state: &State, greeted: &Greeted) -> Result<(), Refusal> {
    let Some(host) = state.host_named(greeted.host.as_str()) else { return Ok(()) };
    let heard = matches!(host.state, HostState::Ready | HostState::Degraded);
    if !heard || host.inventory.boot_id == greeted.inventory.boot_id {
        return Ok(());
    }
    tracing::error!(host = %greeted.host, "two machines speak as one host, or it booted this very moment; the second is refused");
    Err(Refusal::passing(format!(
        "host {} is heard from another boot of a machine: was it copied? After a true restart the next attempts are let in",
        greeted.host
    )))
}

/// Takes the session's place and registers the host, where its record is not what the agent says.
pub(super) async fn admit(sessions: &Sessions, greeted: Greeted, by: &str) -> Result<Admitted, Refusal> {
    let core = sessions.core();
    // A full set of orders that is behind would have an agent without a memory begin anew what was stopped long ago.
    let state = core.read().await;
    let state = state
        .map_err(|error| Refusal::passing(format!("this node cannot say what is wanted now: {error}")))?;
    let (known, withheld) = as_known(state.level(), greeted.inventory);
    let greeted = Greeted { inventory: known, ..greeted };
    let take_place = || sessions.take_place(&greeted.host, &greeted.incarnation);
    let (place, command) = match admission(&state, &greeted) {
        Admission::Refused(refusal) => return Err(refusal),
        Admission::Known(host) => {
            return Ok(Admitted { place: take_place()?, host, state, withheld });
        }
        Admission::Register(command) => (take_place()?, command),
    };
    let outcome = core.propose(by, "", command).await;
    let outcome =
        outcome.map_err(|error| Refusal::passing(format!("the host cannot register now: {error}")))?;
    let host = match outcome.result {
        Ok(Done::Registered(host)) => host,
        Ok(_) => return Err(Refusal::passing("the registration was answered with something else")),
        Err(rejection) => return Err(Refusal::passing(format!("the host was not registered: {rejection}"))),
    };
    let state = states::applied(&core.changes(), outcome.index, CATCH_UP).await;
    let state = state.map_err(|error| Refusal::passing(format!("this node lags behind: {error}")))?;
    Ok(Admitted { place, host, state, withheld })
}

/// An inventory as all members of a cluster at this level know it, and the whole where that is more.
pub(super) fn as_known(level: Level, inventory: Inventory) -> (Inventory, Option<Inventory>) {
    if level >= level::of_inventory(&inventory) {
        return (inventory, None);
    }
    (level::inventory_at(level, &inventory), Some(inventory))
}

/// Sessions that the nodes left open a second when one has died: a handshake costs each of them less than a millisecond of a core.
const RECONNECTS_A_SECOND: u32 = 1_000;
/// The spread of a small estate.
const LEAST_SPREAD: Duration = Duration::from_millis(200);
/// The widest: well within a lease, and before a silent host is suspected.
const WIDEST_SPREAD: Duration = Duration::from_millis(2_500);

/// The first message of a session that stands.
pub(super) fn welcome(core: &Core, host: HostId) -> v1::Welcome {
    let (members, timing) = (core.status().members, core.timing());
    let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    v1::Welcome {
        host_id: host.0,
        cluster_id: core.cluster().to_owned(),
        heartbeat_every_ms: millis(timing.heartbeat_every),
        lease_ms: millis(timing.lease),
        servers: members.members.values().map(|member| member.api_address.clone()).collect(),
        reconnect_spread_ms: millis(reconnect_spread(core.view().hosts().len(), members.voters().count())),
    }
}

/// Over what time the agents of one node are to come back to the others when it dies. It follows from the estate, not from who has a session now:
/// the first to come after a start must know it too.
fn reconnect_spread(hosts: usize, nodes: usize) -> Duration {
    let agents = u32::try_from(hosts / nodes.max(1)).unwrap_or(u32::MAX);
    (Duration::from_secs(1) / RECONNECTS_A_SECOND).saturating_mul(agents).clamp(LEAST_SPREAD, WIDEST_SPREAD)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use supercloud_proto::{
        amount::{Bytes, Mbits},
        pki::Identity,
    };

    use super::*;

    #[test]
    fn the_spread_of_reconnects_follows_the_estate() {
        for (hosts, nodes, millis) in [(0, 1, 200), (3, 3, 200), (3_000, 3, 1_000), (10_000, 1, 2_500)] {
            let spread = reconnect_spread(hosts, nodes);
            assert_eq!(spread, Duration::from_millis(millis), "{hosts} hosts, {nodes} nodes");
        }
    }

    #[test]
    fn devices_are_withheld_from_members_that_do_not_know_them() {
        let plain: Inventory = hello().inventory.unwrap().try_into().unwrap();
        let mut whole = plain.clone();
        let device = supercloud_proto::device::Device {
            kind: "gpu".parse().unwrap(),
            model: "T4".to_owned(),
            labels: BTreeMap::new(),
            shared: false,
            fault: String::new(),
            pci: None,
        };
        whole.devices.insert("gpu0".parse().unwrap(), device);
        assert_eq!(as_known(level::SECOND, plain.clone()), (plain.clone(), None));
        assert_eq!(as_known(level::SECOND, whole.clone()), (plain, Some(whole.clone())));
        assert_eq!(as_known(level::THIRD, whole.clone()), (whole.clone(), None));
        let wired = Inventory { network: Mbits(1_000), ..whole.clone() };
        assert_eq!(as_known(level::THIRD, wired.clone()), (whole, Some(wired.clone())));
        assert_eq!(as_known(level::FOURTH, wired.clone()), (wired.clone(), None));
        let node = supercloud_proto::cores::NumaNode { number: 0, memory: Bytes(1), cpus: Vec::new() };
        let told = Inventory { nodes: vec![node], ..wired.clone() };
        assert_eq!(as_known(level::FOURTH, told.clone()), (wired, Some(told.clone())));
        assert_eq!(as_known(level::FIFTH, told.clone()), (told, None));
    }

    fn hello() -> v1::Hello {
        let inventory = v1::Inventory {
            site: "slough".to_owned(),
            capacity: Some(v1::HostAmounts::default()),
            port_first: 20_000,
            port_last: 20_100,
            ..Default::default()
        };
        v1::Hello {
            host: "h1".to_owned(),
            cluster_id: "c".to_owned(),
            inventory: Some(inventory),
            protocol: PROTOCOL,
            incarnation: "one".to_owned(),
        }
    }

    fn refused(hello: v1::Hello, host: &str) -> String {
        let caller = Caller::Known(Identity::Agent { host: host.parse().unwrap() });
        let refusal = greet(hello, &caller, "c").unwrap_err();
        assert!(refusal.permanent);
        refusal.reason
    }

    #[test]
    fn a_hello_is_of_this_cluster_protocol_and_certificate() {
        let agent = Caller::Known(Identity::Agent { host: "h1".parse().unwrap() });
        assert_eq!(greet(hello(), &agent, "c").unwrap().host.as_str(), "h1");
        let unnamed = v1::Hello { cluster_id: String::new(), ..hello() };
        assert!(greet(unnamed, &Caller::Dev, "c").is_ok());
        assert!(refused(hello(), "h2").contains("agent:h2"));
        assert!(refused(v1::Hello { protocol: 2, ..hello() }, "h1").contains("protocol"));
        assert!(refused(v1::Hello { cluster_id: "d".to_owned(), ..hello() }, "h1").contains("cluster c"));
        let bad = v1::Hello { host: "H1".to_owned(), incarnation: String::new(), inventory: None, ..hello() };
        let reason = refused(bad, "h1");
        for field in ["host", "inventory", "incarnation"] {
            assert!(reason.contains(field), "{reason}");
        }
    }
}
