//! What an operator is told, for clusters in all sorts of states.

use std::{collections::BTreeSet, sync::Arc};

use super::*;
use crate::raft::Members;

/// Nodes that vote, and learners after them; node 1 answers, and leads where somebody does.
fn status(voters: u64, learners: u64, leads: bool) -> raft::Status {
    let member = |id| Member {
        id: NodeId(id),
        peer_address: format!("p{id}"),
        api_address: format!("a{id}"),
        kind: if id <= voters { MemberKind::Voter } else { MemberKind::Learner },
    };
    let members = (1..=voters + learners).map(|id| (NodeId(id), member(id))).collect();
    raft::Status {
        id: NodeId(1),
        role: if leads { Role::Leader } else { Role::Candidate },
        term: 3,
        leader: leads.then_some(NodeId(1)),
        commit: 50_000,
        applied: 50_000,
        last_index: 50_000,
        first_index: 1,
        snapshot: 1,
        members: Arc::new(Members { next_id: 9, members }),
        matched: BTreeMap::new(),
        reachable: BTreeSet::new(),
        short: BTreeSet::new(),
    }
}

fn report(applied: u64) -> v1::NodeReport {
    v1::NodeReport {
        term: 3,
        leader: 1,
        commit_index: 50_000,
        applied_index: applied,
        version: "1.0.0".to_owned(),
        disk_free_bytes: 50 << 30,
        disk_total_bytes: 100 << 30,
        ..Default::default()
    }
}

/// All nodes answer but these.
fn answers(status: &raft::Status, silent: &[u64]) -> Vec<(NodeId, Answer)> {
    let sight = |id: &NodeId| {
        let reachable = !silent.contains(&id.0);
        let silent_ms = if reachable { 0 } else { 42_500 };
        v1::MemberSight { id: id.0, matched_index: 50_000, reachable, silent_ms, ..Default::default() }
    };
    let sights: Vec<_> = status.members.members.keys().map(sight).collect();
    let answer = |id: &NodeId| {
        let members = if status.leader == Some(*id) { sights.clone() } else { Vec::new() };
        let answer = v1::ReportResponse { report: Some(report(50_000)), members };
        (*id, if silent.contains(&id.0) { Err("no answer within 1 s".to_owned()) } else { Ok(answer) })
    };
    status.members.members.keys().map(answer).collect()
}

fn check(status: &raft::Status, answers: Vec<(NodeId, Answer)>, expected: &[&str]) {
    let found = assess(status, answers).warnings;
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.contains(expected), "{found:?} lacks {expected:?}");
    }
}

#[test]
fn a_healthy_cluster_has_no_warnings_and_others_say_what_is_wrong() {
    let three = status(3, 0, true);
    check(&three, answers(&three, &[]), &[]);
    check(
        &three,
        answers(&three, &[3]),
        &[
            "2 of 3 voters are within reach and 2 are needed",
            "node 3 has not been heard of for 42 s",
            "node 3 does not say",
        ],
    );
    let five = status(5, 0, true);
    check(&five, answers(&five, &[5]), &["node 5 has not been heard of", "node 5 does not say"]);
    let alone = status(1, 0, true);
    check(&alone, answers(&alone, &[]), &["one voter"]);
    let four = status(4, 0, true);
    check(&four, answers(&four, &[]), &["4 voters bear the loss of no more nodes than 3 do"]);
}

#[test]
fn without_a_leader_that_is_what_is_told() {
    let lost = status(3, 0, false);
    let mut said = answers(&lost, &[2, 3]);
    if let Ok(answer) = &mut said[0].1 {
        answer.report = Some(v1::NodeReport { leader: 0, ..report(50_000) });
    }
    check(&lost, said.clone(), &["node 1 knows no leader", "node 2 does not say", "node 3 does not say"]);
    let seen = assess(&lost, said);
    assert!(seen.nodes.iter().all(|node| node.removal.is_none() && node.silent_ms.is_none()));
}

#[test]
fn a_node_says_what_it_lacks() {
    let four = status(3, 1, true);
    let with = |id: usize, report: v1::NodeReport| {
        let mut said = answers(&four, &[]);
        if let Ok(answer) = &mut said[id - 1].1 {
            answer.report = Some(report);
        }
        said
    };
    check(&four, with(4, report(49_000)), &["node 4 is a learner and 1000 entries behind"]);
    check(&four, with(4, report(49_950)), &[]);
    check(&four, with(2, report(30_000)), &["node 2 has yet to apply 20000 committed entries"]);
    check(
        &four,
        with(2, v1::NodeReport { leader: 3, ..report(50_000) }),
        &["node 2 takes node 3 for the leader"],
    );
    check(
        &four,
        with(3, v1::NodeReport { disk_free_bytes: 1 << 30, ..report(50_000) }),
        &["1024 MiB free of"],
    );
    check(
        &four,
        with(3, v1::NodeReport { version: "0.9.0".to_owned(), ..report(50_000) }),
        &["0.9.0, 1.0.0"],
    );
}

#[test]
fn what_a_removal_would_leave_is_told_for_each_voter() {
    let mixed = status(3, 1, true);
    let seen = assess(&mixed, answers(&mixed, &[3]));
    let left: Vec<_> =
        seen.nodes.iter().map(|node| node.removal.map(|left| (left.reachable, left.needed))).collect();
    // Node 3 is dead: without it the two others go on; without one of them nobody does.
    assert_eq!(left, [Some((1, 2)), Some((1, 2)), Some((2, 2)), None]);
}
