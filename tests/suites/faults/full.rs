//! Disks that run full: reads go on, writes are refused in words or taken by the others, and nothing is lost. And disks that refuse a write all the
//! same: the process ends.

use std::process::Command;

use supercloud_tests::{
    Outcome, hold,
    load::USUAL,
    process::complete,
    testbed::{SERVES_WITHIN, Setting, Testbed},
    wait,
};

const ON_DISKS: Setting = Setting { nodes: 3, proxies: false, disks: Some(256) };
const ALONE: Setting = Setting { nodes: 1, proxies: false, disks: None };

/// Every node still lives and answers from its own state.
fn all_answer(bed: &mut Testbed) -> Outcome {
    for place in bed.all() {
        bed.cluster.nodes[place].process()?.must_run()?;
        let server = bed.cluster.nodes[place].place.api.clone();
        bed.cluster.cli.speaking_to(&[server]).ok(&["workload", "list", "--stale"])?;
    }
    Ok(())
}

fn refused_for_space(bed: &Testbed) -> Outcome {
    wait::until("writes are refused for want of space", SERVES_WITHIN, || {
        let answer = bed.cluster.cli.run(&["borough", "create", "brent"])?.with_code(1)?;
        hold(answer.stderr.contains("too little space"), || format!("{answer}"))
    })
}

#[test]
fn full_disks_stop_writes_and_nothing_else() -> Outcome {
    Testbed::with(ON_DISKS, |bed| {
        // A follower's, and then the leader's: the others serve, and another one leads.
        for (name, after) in [("follower-full", 1), ("leader-full", 0)] {
            let load = bed.load(name, USUAL)?;
            bed.await_served(&load)?;
            let node = (bed.leader()? + after) % 3;
            bed.disks[node].fill()?;
            bed.await_served(&load)?;
            wait::until("a node with space leads", SERVES_WITHIN, || {
                hold(bed.leader()? != node, || format!("node {node} leads, and its disk is full"))
            })?;
            all_answer(bed)?;
            bed.await_served(&load)?;
            bed.disks[node].empty()?;
            bed.await_served(&load)?;
            load.finish()?;
            bed.await_agreement()?;
        }

        // So many that no majority could keep a write.
        let load = bed.load("most-full", USUAL)?;
        bed.await_served(&load)?;
        for node in [0, 1] {
            bed.disks[node].fill()?;
        }
        refused_for_space(bed)?;
        all_answer(bed)?;
        // A start on a full disk.
        bed.cluster.nodes[0].kill()?;
        bed.cluster.nodes[0].start()?;
        wait::until("the node that was started answers", SERVES_WITHIN, || all_answer(bed))?;
        refused_for_space(bed)?;
        // And the last one, by which the leadership may have moved once more: whoever leads confirms reads.
        bed.disks[2].fill()?;
        wait::until("a read is confirmed", SERVES_WITHIN, || {
            let leader = bed.cluster.nodes[bed.leader()?].place.api.clone();
            bed.cluster.cli.speaking_to(&[leader]).ok(&["borough", "list"])
        })?;
        for disk in &bed.disks {
            disk.empty()?;
        }
        bed.await_served(&load)?;
        load.finish()?;
        bed.await_agreement()
    })
}

#[test]
fn a_write_that_fails_ends_the_process_and_loses_nothing() -> Outcome {
    Testbed::with(ALONE, |bed| {
        let log = bed.cluster.nodes[0].place.data.join("raft/log/0000000000000001.raftlog");
        // No file may grow beyond what stands in the log now, and a little. (The file itself is longer: zeroes follow.)
        let bytes = std::fs::read(&log)?;
        let limit = bytes.iter().rposition(|byte| *byte != 0).unwrap_or_default() + (64 << 10);
        let pid = bed.cluster.nodes[0].process()?.pid().to_string();
        let mut limited = Command::new("prlimit");
        limited.args(["--pid", &pid, &format!("--fsize={limit}")]);
        complete(&mut limited, b"", wait::SOON)?.with_code(0)?;
        let load = bed.load("refused", USUAL)?;
        wait::until("the process ends by itself", wait::LATER, || {
            let ended = bed.cluster.nodes[0].process()?.ended()?;
            hold(ended.is_some(), || "it runs".to_owned())
        })?;
        let said = bed.cluster.nodes[0].process()?.written()?;
        hold(said.contains("the log cannot go on, the process ends"), || said.clone())?;
        bed.cluster.nodes[0].start()?;
        bed.await_served(&load)?;
        load.finish()?;
        bed.await_agreement()
    })
}
