//! Whole nodes without an API: one alone, and three over real sockets on loopback, without TLS.

mod node;

use std::time::Duration;

use supercloud_proto::{
    host::{DriverInfo, HostState},
    id::{HostId, InstanceId},
    instance::{Desired, InstanceReport, InstanceState},
    spec::{Driver, DriverKind},
    v1,
};
use tokio::task::JoinHandle;

use self::node::{Cluster, DEADLINE, Node, until};
use super::*;
use crate::{
    archive::EventFilter,
    heartbeats::Beat,
    state::{
        Done, Rejection,
        level::{FIRST, inventory_at},
        tests::world,
    },
};

fn borough(name: &str) -> Command {
    Command::CreateBorough { name: name.parse().unwrap(), title: name.to_owned() }
}

async fn boroughs(core: &Core) -> Vec<String> {
    core.read().await.unwrap().boroughs().keys().map(|name| name.to_string()).collect()
}

/// Registers a host with what every level knows of it: the cluster's may not have been raised yet.
async fn register(core: &Core, name: &str) -> HostId {
    let command = Command::RegisterHost {
        name: name.parse().unwrap(),
        inventory: Box::new(inventory_at(FIRST, &world::inventory("site-1"))),
        incarnation: name.to_owned(),
    };
    match core.propose("agent", &format!("register-{name}"), command).await.unwrap().result {
        Ok(Done::Registered(id)) => id,
        other => panic!("not registered: {other:?}"),
    }
}

fn beat(host: HostId, healthy: bool) -> Beat {
    let driver = DriverInfo { healthy, ..DriverInfo::default() };
    Beat { host, sequence: 1, drivers: [(DriverKind::Docker, driver)].into() }
}

/// Ids of the instances of `camden/portal` that are wanted and have a host.
fn placed(state: &State) -> Vec<InstanceId> {
    let portal = state.instances_of(&world::key("portal"));
    portal.filter(|i| i.desired == Desired::Run && i.placed.is_some()).map(|i| i.id).collect()
}

/// Where in the log boroughs were created, as the archive has it. Others make events too: the feature level is raised soon.
async fn created(core: &Core) -> Vec<LogIndex> {
    let list = core.archive().events(EventFilter::default(), 100).await.unwrap();
    let created = list.events.iter().filter(|event| event.kind == "borough-created");
    created.map(|event| event.index).collect()
}

/// Lets a host beat until the task ends; whether its driver is well can change.
fn keep_beating(core: &Core, host: HostId) -> (watch::Sender<bool>, JoinHandle<()>) {
    let (healthy, is_healthy) = watch::channel(true);
    let core = core.clone();
    let beats = tokio::spawn(async move {
        loop {
            let healthy = *is_healthy.borrow();
            // An agent tries again too.
            let _ = core.heartbeats().beat(beat(host, healthy)).await;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    (healthy, beats)
}

#[tokio::test]
async fn one_node_answers_a_repeated_request_and_keeps_everything_over_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::alone(folder.path(), false).await;
    let core = &node.core;
    until(core, |state| state.cluster_id() == Some("c-1")).await;
    let first = core.propose("operator:alice", "r1", borough("camden")).await.unwrap();
    assert_eq!(first.result, Ok(Done::Nothing));
    let again = core.propose("operator:alice", "r1", borough("camden")).await.unwrap();
    assert_eq!(again, first, "answered, not done again");
    let other = core.propose("operator:alice", "r1", borough("hackney")).await.unwrap();
    assert!(matches!(other.result, Err(Rejection::Precondition(_))), "{other:?}");
    let twice = core.propose("operator:alice", "r2", borough("camden")).await.unwrap();
    assert!(matches!(twice.result, Err(Rejection::Exists(_))), "{twice:?}");
    assert_eq!(boroughs(core).await, ["camden"]);
    core.archive().reach(first.index).await;
    assert_eq!(created(core).await, [first.index]);
    node.stop().await;

    let node = Node::alone(folder.path(), true).await;
    assert_eq!(boroughs(&node.core).await, ["camden"]);
    assert_eq!(created(&node.core).await, [first.index], "archived once");
    let again = node.core.propose("operator:alice", "r1", borough("camden")).await.unwrap();
    assert_eq!(again, first, "remembered");
    node.stop().await;
}

#[tokio::test]
async fn what_the_log_cannot_hold_is_refused_before_it() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::alone(folder.path(), false).await;
    node.core.read().await.unwrap();
    let title = "x".repeat(raft::limits::MAX_ENTRY_BYTES);
    let large = Command::CreateBorough { name: "camden".parse().unwrap(), title };
    let error = node.core.propose("test", "", large).await.unwrap_err();
    assert!(matches!(error, ProposeError::TooLarge { .. }), "{error}");
    let own = node.core.status().members.get(node.core.node()).cloned().unwrap();
    let mut client = node.core.peers().client(&own).await.unwrap();
    let refused = client.propose(v1::ProposeRequest { command: b"garbage".to_vec() }).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::InvalidArgument, "{refused}");
    node.stop().await;
}

#[tokio::test]
async fn the_loops_place_replace_and_judge() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::alone(folder.path(), false).await;
    let core = &node.core;
    core.propose("test", "b", borough("camden")).await.unwrap();
    let mut spec = world::service("portal", 2);
    let apply =
        |spec: &_| Command::ApplyWorkload { spec: Box::new(Clone::clone(spec)), expect_revision: None };
    core.propose("test", "w", apply(&spec)).await.unwrap();
    let host = register(core, "h1").await;
    let (healthy, beats) = keep_beating(core, host);
    let state = until(core, |state| placed(state).len() == 2).await;
    let first = placed(&state);
    // A rollout, one at a time, since each of them runs.
    report(core, host, &first, InstanceState::Running, 1).await;
    let Driver::Container(container) = &mut spec.tasks[0].driver else { panic!("a container") };
    container.image = "hello:2".to_owned();
    core.propose("test", "w2", apply(&spec)).await.unwrap();
    let state = until(core, |state| placed(state).len() == 2 && placed(state)[1] > first[1]).await;
    let second = placed(&state);
    assert_eq!(second[0], first[1], "the other one waits");
    report(core, host, &second[1..], InstanceState::Running, 2).await;
    let state = until(core, |state| placed(state).len() == 2 && placed(state)[0] > first[1]).await;
    assert_eq!(placed(&state)[0], second[1]);
    // The host beats, falls silent, is lost, and is back.
    let state_of = |wanted: HostState| move |state: &State| state.host(host).unwrap().state == wanted;
    healthy.send(false).unwrap();
    until(core, state_of(HostState::Degraded)).await;
    beats.abort();
    let lost = until(core, state_of(HostState::Lost)).await;
    assert_eq!(placed(&lost), [], "what was on it waits for another host");
    // Not answered until the leader knows that the verdict is applied.
    let (_healthy, beats) = keep_beating(core, host);
    until(core, state_of(HostState::Ready)).await;
    beats.abort();
    node.stop().await;
}

async fn report(core: &Core, host: HostId, instances: &[InstanceId], state: InstanceState, sequence: u64) {
    let reports = instances.iter().map(|instance| InstanceReport {
        instance: *instance,
        sequence,
        order_index: 0,
        state,
        reason: String::new(),
        tasks: Vec::new(),
        time: 1,
        unordered: false,
    });
    let command = Command::Report { host, reports: reports.collect() };
    core.propose("agent:h1", "", command).await.unwrap();
}

#[tokio::test]
async fn three_nodes_take_proposals_and_heartbeats_anywhere_and_survive_their_leader() {
    let cluster = Cluster::of_three(raft::SnapshotPolicy::default()).await;
    let leader = cluster.leader().await;
    let (one, two) = (cluster.follower(leader), cluster.other_follower(leader));
    one.propose("operator:alice", "b", borough("camden")).await.unwrap();
    assert_eq!(boroughs(&two).await, ["camden"], "a read on another follower sees it");
    let spec = Box::new(world::service("portal", 3));
    let apply = Command::ApplyWorkload { spec, expect_revision: None };
    two.propose("operator:alice", "w", apply).await.unwrap();
    let host = register(&one, "h1").await;
    let state = until(&two, |state| placed(state).len() == 3).await;
    assert_eq!(state.used(host).instances.len(), 3);
    // A heartbeat is answered by a node that knows all that was decided before; it may stand between an agent and its order to stop.
    let mut index = state.applied();
    for number in 0..10 {
        let id = format!("d{number}");
        let decided = cluster.core(leader).propose("test", &id, borough(&id)).await.unwrap();
        one.heartbeats().beat(beat(host, true)).await.unwrap();
        assert!(one.view().applied() >= decided.index);
        index = decided.index;
    }
    // Everybody archives the same.
    for core in [&one, &two] {
        let mut status = core.archive().status();
        let whole = status.wait_for(|status| status.index >= index);
        tokio::time::timeout(DEADLINE, whole).await.expect("in time").unwrap();
    }
    let list = |core: Core| async move {
        let mut events = core.archive().events(EventFilter::default(), 100).await.unwrap().events;
        events.retain(|event| event.index <= index);
        events
    };
    assert_eq!(list(one.clone()).await, list(two.clone()).await);

    let cluster = cluster.kill(leader).await;
    let outcome = one.propose("operator:alice", "after", borough("hackney")).await.unwrap();
    assert_eq!(outcome.result, Ok(Done::Nothing));
    assert!(boroughs(&two).await.contains(&"hackney".to_owned()));
    let next = cluster.leader().await;
    assert_ne!(next, leader);
    two.heartbeats().beat(beat(host, true)).await.unwrap();
    cluster.stop().await;
}

#[tokio::test]
async fn a_node_that_joins_gets_the_state_by_a_snapshot_and_the_archive_from_a_peer() {
    let policy = raft::SnapshotPolicy { entries: 10, bytes: 1 << 20, tail: 1 };
    let mut cluster = Cluster::of_three(policy).await;
    let leader = cluster.leader().await;
    let core = cluster.core(leader);
    for number in 0..60 {
        core.propose("test", &format!("r{number}"), borough(&format!("b{number}"))).await.unwrap();
    }
    until_status(&core, |status| status.first_index > 20).await;
    let joined = cluster.join(leader).await;
    let state = until(&joined, |state| state.boroughs().len() == 60).await;
    let mut status = joined.archive().status();
    let whole = status.wait_for(|status| status.index >= state.applied());
    let status = tokio::time::timeout(DEADLINE, whole).await.expect("in time").unwrap().clone();
    assert_eq!((status.gap, status.floor), (None, 0), "the peers had everything");
    let events = joined.archive().events(EventFilter::default(), 100).await.unwrap().events;
    let created = events.iter().filter(|event| event.kind == "borough-created").count();
    assert_eq!(created, 60);
    joined.propose("test", "last", borough("camden")).await.unwrap();
    cluster.stop().await;
}

async fn until_status(core: &Core, what: impl FnMut(&Status) -> bool) {
    let mut nodes = core.nodes();
    let reached = tokio::time::timeout(DEADLINE, nodes.wait_for(what)).await;
    reached.expect("in time").unwrap();
}

#[tokio::test]
async fn a_node_that_cannot_reach_a_majority_says_so_in_time() {
    let cluster = Cluster::of_three(raft::SnapshotPolicy::default()).await;
    let leader = cluster.leader().await;
    let left = cluster.follower(leader);
    let other = cluster.other_follower(leader).node();
    // The leader last: the two others could elect one while it ends.
    let cluster = cluster.kill(other).await.kill(leader).await;
    let (read, proposed, silent) = tokio::join!(
        left.read(),
        left.propose("test", "r", borough("camden")),
        left.heartbeats().beat(beat(HostId(1), true))
    );
    assert_eq!(read.err(), Some(ReadError::NoLeader));
    assert_eq!(proposed, Err(ProposeError::NoLeader));
    assert!(silent.is_err());
    assert_eq!(left.view().boroughs().len(), 0, "what it has can still be seen");
    cluster.stop().await;
}

#[tokio::test]
async fn a_workload_is_followed_through_its_changes_and_no_others() {
    use futures::StreamExt as _;
    let folder = tempfile::tempdir().unwrap();
    let node = Node::alone(folder.path(), false).await;
    let core = &node.core;
    core.propose("test", "b", borough("camden")).await.unwrap();
    let mut states = Box::pin(waits::workload_changes(core.changes(), world::key("portal")));
    assert!(states.next().await.unwrap().workload(&world::key("portal")).is_none());
    for (id, name) in ["other", "portal"].iter().enumerate() {
        let spec = Box::new(world::service(name, 1));
        let apply = Command::ApplyWorkload { spec, expect_revision: None };
        core.propose("test", &format!("w{id}"), apply).await.unwrap();
    }
    let next = tokio::time::timeout(DEADLINE, states.next()).await.expect("in time").unwrap();
    assert!(next.workload(&world::key("portal")).is_some());
    let index = next.applied();
    let late = waits::applied(&core.changes(), index + 1_000, Duration::from_millis(20)).await;
    assert!(matches!(late, Err(waits::WaitError::TimedOut { .. })));
    assert!(waits::applied(&core.changes(), index, DEADLINE).await.is_ok());
    node.stop().await;
}

#[tokio::test]
async fn with_tls_only_schedulers_are_served() {
    use supercloud_proto::pki::{Credentials, Identity, request};
    let ca = crate::ca::Ca::create(&"london".parse().unwrap(), std::time::SystemTime::now()).unwrap();
    let credentials = |identity: Identity| {
        let request = request::generate().unwrap();
        let grant = crate::ca::Grant::from(identity);
        let signed = ca.sign(&request.csr_pem, &grant, std::time::SystemTime::now()).unwrap();
        Credentials::new(ca.certificate().clone(), &signed, &request.key_pem).unwrap()
    };
    let folder = tempfile::tempdir().unwrap();
    let node = Node::alone_with_tls(folder.path(), credentials(Identity::Scheduler { node: 1 })).await;
    node.core.read().await.unwrap();
    let own = node.core.status().members.get(node.core.node()).cloned().unwrap();
    let call = |identity: Identity| {
        let (peers, own) = (Peers::new(PeerTrust::Mutual(Box::new(credentials(identity)))), own.clone());
        let command =
            Entry { time: 1, by: "test".to_owned(), request_id: "r".to_owned(), command: borough("camden") };
        async move {
            let mut client = peers.client(&own).await.unwrap();
            client.propose(v1::ProposeRequest { command: command.encode() }).await
        }
    };
    let agent = Identity::Agent { host: "h1".parse().unwrap() };
    assert_eq!(call(agent).await.unwrap_err().code(), tonic::Code::PermissionDenied);
    let operator = Identity::Operator { name: "alice".parse().unwrap() };
    assert_eq!(call(operator).await.unwrap_err().code(), tonic::Code::PermissionDenied);
    assert_eq!(boroughs(&node.core).await, [] as [&str; 0]);
    // One that is no member any more is told so by a mark that its log understands.
    let removed = call(Identity::Scheduler { node: 0 }).await.unwrap_err();
    assert!(removed.metadata().contains_key("supercloud-removed"), "{removed:?}");
    let before = clock::unix_now();
    let outcome = call(Identity::Scheduler { node: 2 }).await.unwrap().into_inner();
    assert_eq!(Outcome::decode(&outcome.outcome).unwrap().result, Ok(Done::Nothing));
    assert_eq!(boroughs(&node.core).await, ["camden"]);
    let created = node.core.view().boroughs().values().next().unwrap().created;
    assert!(created >= before, "stamped by the leader's clock, not by that of who forwarded it");
    assert!(
        Peers::new(PeerTrust::Plain)
            .client(&own)
            .await
            .unwrap()
            .propose(v1::ProposeRequest::default())
            .await
            .is_err()
    );
    node.stop().await;
}

#[tokio::test]
async fn a_node_whose_state_differs_from_most_stops_and_stays_out() {
    let cluster = Cluster::of_three(raft::SnapshotPolicy::default()).await;
    let leader = cluster.leader().await;
    let (wrong, right) = (cluster.follower(leader), cluster.other_follower(leader));
    until(&cluster.core(leader), |state| state.level() >= level::SECOND).await;
    let compare = || cluster.core(leader);
    let first = compare().propose("test", "", Command::CompareStates).await.unwrap().index;
    for core in [&compare(), &wrong, &right] {
        let mut newest = core.hashes().newest();
        tokio::time::timeout(DEADLINE, newest.wait_for(|hash| hash.is_some()))
            .await
            .expect("in time")
            .unwrap();
    }
    for core in [&wrong, &right] {
        assert_eq!(core.hashes().all(), compare().hashes().all(), "equal at {first}");
    }
    wrong.hashes().spoil();
    let second = compare().propose("test", "", Command::CompareStates).await.unwrap().index;
    let found = tokio::time::timeout(DEADLINE, wrong.deviation()).await.expect("in time");
    assert_eq!(
        found,
        format!("its state at log index {second} differs from that of 2 voters, which are equal")
    );
    for core in [cluster.core(leader), right.clone()] {
        let alarm = async {
            while !core.metrics().text(&core, 0, None).unwrap().contains("state_deviations_total 1") {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(DEADLINE, alarm).await.expect("the others raise the alarm");
    }
    let (id, address) = (wrong.node(), "127.0.0.1:1".to_owned());
    let settings = Settings::new("c-1".to_owned(), id, cluster.directory(id), address);
    let error = Core::start(settings, Start::Again, PeerTrust::Plain).await.err().unwrap();
    assert!(matches!(&error, StartError::Deviates { found, .. } if found.contains("2 voters")), "{error}");
    cluster.stop().await;
}
