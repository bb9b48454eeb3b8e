//! What holds when nodes die or are cut off.

use std::collections::BTreeSet;

use rand::{Rng as _, SeedableRng as _};

use super::harness::{Cluster, DEADLINE, eventually};
use crate::raft::{Log, NodeId, ProposeError, ReadError, Role, Start, limits};
use tokio::time::{Instant, timeout};

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_leader_is_replaced_and_catches_up_from_its_disk() {
    let mut cluster = Cluster::found(3).await;
    for round in 0..3 {
        cluster.write(&format!("before-{round}")).await;
        let leader = cluster.leader().await;
        cluster.kill(leader).await;
        cluster.write(&format!("without-{round}")).await;
        cluster.start(leader, &Start::Again).unwrap();
    }
    let last = cluster.write("end").await;
    let view = cluster.agree(last.index).await;
    assert_eq!(view.entries.len(), 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn all_killed_and_started_again_know_everything_acknowledged() {
    let mut cluster = Cluster::found(3).await;
    let mut last = 0;
    for number in 0..50 {
        last = cluster.write(&format!("{number}")).await.index;
    }
    for id in cluster.running() {
        cluster.kill(id).await;
    }
    for id in 1..=3 {
        cluster.start(NodeId(id), &Start::Again).unwrap();
    }
    assert_eq!(cluster.agree(last).await.entries.len(), 50);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_write_after_a_killed_leader_is_acknowledged_soon() {
    let mut cluster = Cluster::found_with(3, limits::SnapshotPolicy::default(), limits::TICK).await;
    let mut took = Vec::new();
    for round in 0..5 {
        cluster.write(&format!("before-{round}")).await;
        let leader = cluster.leader().await;
        // Cut off, it is gone at once; stopping its thread would be counted otherwise.
        let killed = Instant::now();
        cluster.network.cut(leader);
        let others: Vec<NodeId> = cluster.running().into_iter().filter(|id| *id != leader).collect();
        let acknowledged = async {
            loop {
                for id in &others {
                    if cluster.log(*id).propose(b"after".to_vec()).await.is_ok() {
                        return;
                    }
                }
                tokio::time::sleep(limits::TICK / 10).await;
            }
        };
        timeout(DEADLINE, acknowledged).await.unwrap();
        took.push(killed.elapsed());
        cluster.kill(leader).await;
        cluster.network.heal();
        cluster.start(leader, &Start::Again).unwrap();
    }
    took.sort();
    println!("failover: {took:?}");
    // The budget is 0.5 s, on a disk that is not slow just now.
    assert!(took[2] < std::time::Duration::from_secs(3), "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_cut_off_acknowledges_nothing_and_confirms_no_read() {
    let cluster = Cluster::found(3).await;
    cluster.write("before").await;
    let old = cluster.leader().await;
    let log = cluster.log(old);
    cluster.network.cut(old);
    // In flight when the leadership is lost: appended, and nobody knows.
    let in_flight = tokio::spawn({
        let log = log.clone();
        async move { log.propose(b"lost".to_vec()).await }
    });
    let read = log.read_index().await;
    assert_eq!(in_flight.await.unwrap(), Err(ProposeError::OutcomeUnknown));
    assert_eq!(read, Err(ReadError::TimedOut));
    let mut status = log.status();
    let stepped_down = status.wait_for(|status| status.role != Role::Leader);
    timeout(DEADLINE, stepped_down).await.unwrap().unwrap();
    assert_eq!(log.propose(b"late".to_vec()).await, Err(ProposeError::NotLeader { leader: None }));
    let new = cluster.leader().await;
    assert_ne!(new, old);
    let after = cluster.log(new).propose(b"after".to_vec()).await.unwrap();
    cluster.network.heal();
    let view = cluster.agree(after.index).await;
    let entries: Vec<&[u8]> = view.entries.iter().map(|(_, entry)| entry.as_slice()).collect();
    assert_eq!(entries, [b"before".as_slice(), b"after"]);
    assert!(log.read_index().await.unwrap() >= after.index);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_returns_from_a_cut_does_not_unseat_the_leader() {
    let cluster = Cluster::found(3).await;
    let leader = cluster.leader().await;
    let away = cluster.followers().await[0];
    let term = cluster.status(leader).term;
    cluster.network.cut(away);
    eventually("the cut node to stand", || (cluster.status(away).role == Role::Candidate).then_some(()))
        .await;
    cluster.network.heal();
    let written = cluster.write("after").await;
    cluster.agree(written.index).await;
    assert_eq!((cluster.status(leader).role, cluster.status(leader).term), (Role::Leader, term));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_node_answers_everybody() {
    let cluster = Cluster::found(3).await;
    let leader = cluster.leader().await;
    let log = cluster.log(leader);
    for id in cluster.followers().await {
        cluster.network.cut(id);
    }
    let waiting = tokio::spawn({
        let log = log.clone();
        async move { log.propose(b"never".to_vec()).await }
    });
    eventually("the proposal to be appended", || {
        let status = cluster.status(leader);
        (status.last_index > status.commit || status.role != Role::Leader).then_some(())
    })
    .await;
    log.clone().shutdown().await;
    let answer = waiting.await.unwrap();
    assert!(
        matches!(
            answer,
            Err(ProposeError::Stopped | ProposeError::OutcomeUnknown | ProposeError::NotLeader { .. })
        ),
        "{answer:?}"
    );
    assert_eq!(log.propose(b"later".to_vec()).await, Err(ProposeError::Stopped));
    assert_eq!(log.read_index().await, Err(ReadError::Stopped));
}

/// Proposes until the outcome is known or unknown; a refusal is tried again on the next node, for a while.
async fn persist(logs: Vec<Log<usize>>, entry: Vec<u8>) -> Option<(u64, Vec<u8>)> {
    let until = Instant::now() + limits::TICK * 8;
    // A refusal may come sooner than the end of a wait that is over.
    for log in logs.iter().cycle().take_while(|_| Instant::now() < until) {
        match timeout(until.saturating_duration_since(Instant::now()), log.propose(entry.clone())).await {
            Ok(Ok(committed)) => return Some((committed.index, entry)),
            Ok(Err(ProposeError::NotLeader { .. } | ProposeError::Overloaded { .. })) => {
                tokio::time::sleep(limits::TICK / 10).await;
            }
            Ok(Err(_)) | Err(_) => return None,
        }
    }
    None
}

/// Whatever happens meanwhile: what was acknowledged is found, at its index, and nothing is found twice.
async fn survives_disorder(seed: u64) {
    let mut random = rand::rngs::StdRng::seed_from_u64(seed);
    let mut cluster = Cluster::found_with(3, super::harness::often(), limits::TICK / 5).await;
    let mut acknowledged = Vec::new();
    for round in 0..20 {
        let logs: Vec<Log<usize>> = cluster.running().into_iter().map(|id| cluster.log(id)).collect();
        let write = |number: u64| {
            let entry = format!("{round}-{number}").into_bytes();
            tokio::spawn(persist(logs.clone(), entry))
        };
        let writes: Vec<_> = (0..15).map(write).collect();
        let victim = NodeId(random.random_range(1..=3));
        match random.random_range(0..4) {
            0 => {
                cluster.kill(victim).await;
                cluster.start(victim, &Start::Again).unwrap();
            }
            1 => cluster.network.cut(victim),
            _ => cluster.network.heal(),
        }
        for write in writes {
            acknowledged.extend(write.await.unwrap());
        }
    }
    cluster.network.heal();
    let last = cluster.write("end").await;
    let view = cluster.agree(last.index).await;
    let distinct: BTreeSet<&Vec<u8>> = view.entries.iter().map(|(_, entry)| entry).collect();
    assert_eq!(distinct.len(), view.entries.len(), "seed {seed}: something was applied twice");
    assert!(acknowledged.len() > 30, "seed {seed}: only {} were acknowledged", acknowledged.len());
    for found in &acknowledged {
        assert!(view.entries.contains(found), "seed {seed}: {} was acknowledged and is lost", found.0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_acknowledged_write_is_lost_in_disorder() {
    for seed in 1..=3 {
        survives_disorder(seed).await;
    }
}
