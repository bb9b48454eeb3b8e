//! The agent as a whole: its real loop, ledger and session between a node played by hand and a fake driver.

use supercloud_proto::{
    id::InstanceId,
    instance::{Desired, InstanceReport, InstanceState},
    order::Order,
};

use crate::{
    driver::Phase,
    ledger::Ledger,
    reconcile::{
        UNKNOWN_AFTER,
        world::{instance, service},
    },
    rig::{LEASE, Rig, wait_for},
};

fn is(number: u64, state: InstanceState) -> impl Fn(&InstanceReport) -> bool {
    move |report| report.instance == instance(number) && report.state == state
}

fn stopping(order: &Order) -> Order {
    Order { desired: Desired::Stop, index: order.index + 1, ..order.clone() }
}

fn running() -> Phase {
    Phase::Running { since: None }
}

fn runs(rig: &Rig, id: InstanceId) -> bool {
    let running = |seen: &crate::driver::Seen| matches!(seen.phase, Phase::Running { .. });
    rig.docker.objects().iter().any(|seen| seen.mark.instance == id && running(seen))
}

#[tokio::test]
async fn ordered_runs_and_is_reported_stopped_is_gone_and_is_forgotten() {
    let mut rig = Rig::started().await;
    let order = service(1);
    let mut node = rig.synced(std::slice::from_ref(&order)).await;
    assert_eq!(
        (node.hello.host.as_str(), node.hello.protocol, node.hello.cluster_id.as_str()),
        ("h1", 1, "")
    );
    assert_eq!(node.hello.incarnation.len(), 32);
    let report = node.until(true, is(1, InstanceState::Running)).await;
    assert_eq!((report.order_index, report.tasks[0].runtime_id.as_str()), (10, "fake-i-1-0-main"));
    assert_eq!(rig.docker.take_calls(), ["prepare i-1-0/main", "start i-1-0/main"]);

    node.orders(&[stopping(&order)], 11, false, false).await;
    let report = node.until(true, is(1, InstanceState::Stopped)).await;
    assert_eq!(report.order_index, 11);
    assert_eq!(rig.docker.take_calls(), ["stop i-1-0/main", "remove i-1-0/main"]);
    // The acknowledgement is taken in with the next message at the latest; an ended agent has written it down.
    let before = node.heartbeats;
    node.serve_until("heartbeats", |node| node.heartbeats > before + 2).await;
    rig.end().await;
    let opened = Ledger::open(&rig.data_dir().join("ledger"), 0).expect("opens");
    assert!(opened.contents.orders.is_empty() && opened.contents.histories.is_empty());
    assert!(opened.contents.reports.is_empty());
    assert_eq!(opened.contents.fences[&instance(1)], 11, "an older order would still be refused");
}

#[tokio::test]
async fn nothing_is_reported_before_the_last_part_of_the_full_set() {
    let mut rig = Rig::new().await;
    rig.put(&service(9), running());
    rig.start();
    let mut node = rig.welcomed().await;
    node.orders(&[service(1)], 10, true, true).await;
    while node.heartbeats < 5 {
        assert_eq!(node.next().await, None, "no report yet");
    }
    node.orders(&[service(2)], 10, true, false).await;
    let found = node.until(true, |report| report.unordered).await;
    assert_eq!((found.instance, found.state), (instance(9), InstanceState::Running));
    assert!(!rig.docker.take_calls().iter().any(|call| call.contains("i-9-0")), "left alone");
}

#[tokio::test]
async fn a_report_is_sent_until_it_is_acknowledged() {
    let mut rig = Rig::started().await;
    let order = service(1);
    let mut node = rig.synced(std::slice::from_ref(&order)).await;
    let first = node.until(false, is(1, InstanceState::Running)).await;
    drop(node);
    let mut node = rig.synced(std::slice::from_ref(&order)).await;
    let again = node.until(true, is(1, InstanceState::Running)).await;
    assert!(again.sequence >= first.sequence);
    // Unacknowledged within a session it comes again too, with the same sequence.
    rig.docker.end(instance(1), Some(1), "exit code 1");
    let restarting = node.until(false, is(1, InstanceState::Restarting)).await;
    let repeated = node.until(true, is(1, InstanceState::Restarting)).await;
    assert_eq!(restarting.sequence, repeated.sequence);
}

#[tokio::test]
async fn an_agent_that_crashed_adopts_and_keeps_running_what_its_ledger_orders() {
    let mut rig = Rig::started().await;
    let order = service(1);
    let mut node = rig.synced(std::slice::from_ref(&order)).await;
    node.until(true, is(1, InstanceState::Running)).await;
    rig.docker.take_calls();
    rig.crash().await;
    drop(node);
    rig.start();
    // Connected and not welcomed: the ledger alone keeps it running.
    let waiting = rig.session().await;
    assert_eq!(rig.docker.take_calls(), [""; 0], "adopted, not started again");
    rig.docker.end(instance(1), Some(137), "killed by signal 9 (SIGKILL)");
    // The policy waits a second by the world's clock.
    wait_for("its restart", || {
        rig.clock.advance(100);
        runs(&rig, instance(1))
    })
    .await;
    drop(waiting);
    let mut node = rig.synced(std::slice::from_ref(&order)).await;
    let report = node.until(true, is(1, InstanceState::Running)).await;
    assert_eq!((report.tasks[0].restarts, report.tasks[0].exit_code), (1, Some(137)));
    assert_eq!(report.tasks[0].reason, "killed by signal 9 (SIGKILL)");
}

#[tokio::test]
async fn a_lost_ledger_destroys_nothing_and_the_scheduler_brings_it_back() {
    let mut rig = Rig::started().await;
    let order = service(1);
    let mut node = rig.synced(std::slice::from_ref(&order)).await;
    let before = node.until(true, is(1, InstanceState::Running)).await;
    let incarnation = node.hello.incarnation.clone();
    rig.end().await;
    drop(node);
    rig.docker.take_calls();
    std::fs::remove_dir_all(rig.data_dir().join("ledger")).expect("removes");
    rig.clock.advance(60_000);
    rig.start();
    let mut node = rig.welcomed().await;
    assert_ne!(node.hello.incarnation, incarnation);
    let heard = node.heartbeats;
    node.serve_until("heartbeats", |node| node.heartbeats > heard + 3).await;
    assert_eq!(rig.docker.take_calls(), [""; 0], "hands off without orders");
    node.orders(std::slice::from_ref(&order), 10, true, false).await;
    let report = node.until(true, is(1, InstanceState::Running)).await;
    assert!(!report.unordered && report.sequence > before.sequence);
    assert_eq!(rig.docker.take_calls(), [""; 0], "adopted");
}

#[tokio::test]
async fn a_ledger_of_garbage_is_no_obstacle() {
    let mut rig = Rig::started().await;
    let order = service(1);
    let mut node = rig.synced(std::slice::from_ref(&order)).await;
    node.until(true, is(1, InstanceState::Running)).await;
    rig.end().await;
    drop(node);
    rig.docker.take_calls();
    std::fs::write(rig.data_dir().join("ledger/db"), vec![0x77; 300_000]).expect("writes");
    rig.start();
    let mut node = rig.synced(std::slice::from_ref(&order)).await;
    node.until(true, is(1, InstanceState::Running)).await;
    assert_eq!(rig.docker.take_calls(), [""; 0]);
}

#[tokio::test]
async fn what_a_full_set_does_not_name_is_left_alone_and_told() {
    let mut rig = Rig::started().await;
    let order = service(1);
    let mut node = rig.synced(std::slice::from_ref(&order)).await;
    node.until(true, is(1, InstanceState::Running)).await;
    drop(node);
    let mut node = rig.welcomed().await;
    node.orders(&[], 20, true, false).await;
    let report = node.until(true, |report| report.unordered).await;
    assert_eq!((report.instance, report.state), (instance(1), InstanceState::Running));
    assert!(runs(&rig, instance(1)));
    // An order for that very instance brings it back, and then ends it.
    node.orders(&[Order { index: 21, ..stopping(&order) }], 21, false, false).await;
    node.until(true, is(1, InstanceState::Stopped)).await;
    assert!(rig.docker.objects().is_empty());
}

#[tokio::test]
async fn an_older_order_is_refused() {
    let mut rig = Rig::started().await;
    let order = Order { index: 50, ..service(1) };
    let mut node = rig.synced(std::slice::from_ref(&order)).await;
    node.until(true, is(1, InstanceState::Running)).await;
    node.orders(&[Order { index: 49, ..stopping(&order) }], 51, false, false).await;
    node.orders(&[Order { index: 52, ..service(2) }], 52, false, false).await;
    node.until(true, is(2, InstanceState::Running)).await;
    assert!(runs(&rig, instance(1)), "the older stop order was not obeyed");
}

#[tokio::test]
async fn a_stop_order_breaks_off_a_preparation() {
    let mut rig = Rig::started().await;
    rig.docker.hold_preparations(true);
    let order = service(1);
    let mut node = rig.synced(std::slice::from_ref(&order)).await;
    node.until(true, is(1, InstanceState::Preparing)).await;
    node.orders(&[stopping(&order)], 11, false, false).await;
    node.until(true, is(1, InstanceState::Stopped)).await;
    assert_eq!(rig.docker.take_calls(), ["prepare i-1-0/main"]);
}

#[tokio::test]
async fn an_exclusive_instance_stops_when_no_heartbeat_is_answered_and_comes_back() {
    let mut rig = Rig::started().await;
    let order = Order { exclusive: true, ..service(1) };
    let mut node = rig.synced(std::slice::from_ref(&order)).await;
    node.until(true, is(1, InstanceState::Running)).await;
    // As long as they are answered, time passes without harm.
    for _ in 0..4 {
        rig.clock.advance(LEASE / 2);
        let before = node.heartbeats;
        node.serve_until("answers", |node| node.heartbeats > before + 2).await;
    }
    assert!(runs(&rig, instance(1)));
    node.answers = false;
    rig.clock.advance(LEASE);
    node.serve_until("its stop", |_| !runs(&rig, instance(1))).await;
    assert_eq!(rig.docker.objects().len(), 1, "stopped, not removed");
    node.answers = true;
    node.serve_until("its start", |_| runs(&rig, instance(1))).await;
    let report = node.until(true, is(1, InstanceState::Running)).await;
    assert_eq!(report.tasks[0].restarts, 0, "the lease's end is no failure of the task");
}

#[tokio::test]
async fn a_lease_outlives_the_agent_and_runs_out_without_it() {
    let mut rig = Rig::started().await;
    let order = Order { exclusive: true, ..service(1) };
    let mut node = rig.synced(std::slice::from_ref(&order)).await;
    node.until(true, is(1, InstanceState::Running)).await;
    let before = node.heartbeats;
    node.serve_until("answers", |node| node.heartbeats > before + 2).await;
    rig.crash().await;
    drop(node);
    rig.docker.take_calls();
    rig.start();
    let node = rig.session().await;
    assert!(runs(&rig, instance(1)), "the lease still holds");
    rig.clock.advance(LEASE + 1);
    wait_for("its stop", || !runs(&rig, instance(1))).await;
    drop(node);
}

#[tokio::test]
async fn a_silent_runtime_makes_the_host_degraded_and_instances_unknown_not_dead() {
    let mut rig = Rig::started().await;
    let mut node = rig.synced(&[service(1)]).await;
    node.until(true, is(1, InstanceState::Running)).await;
    rig.docker.take_calls();
    rig.docker.set_silent(true);
    let healthy = |node: &crate::rig::NodeSession| {
        node.heartbeat.as_ref().is_some_and(|heartbeat| heartbeat.drivers.iter().all(|driver| driver.healthy))
    };
    node.serve_until("a degraded heartbeat", |node| !healthy(node)).await;
    // The probe may have met the silence before a listing did, from which on it is counted: a second listing is after one.
    for _ in 0..2 {
        let before = rig.docker.listings();
        rig.docker.hint();
        wait_for("a listing", || rig.docker.listings() > before).await;
        rig.clock.advance(UNKNOWN_AFTER);
    }
    rig.docker.hint();
    node.until(true, is(1, InstanceState::Unknown)).await;
    rig.docker.set_silent(false);
    node.until(true, is(1, InstanceState::Running)).await;
    node.serve_until("a healthy heartbeat", |node| healthy(node)).await;
    assert_eq!(rig.docker.take_calls(), [""; 0], "nothing was started or stopped");
}

#[tokio::test]
async fn a_refused_start_ends_in_failed_with_its_reason() {
    let mut rig = Rig::started().await;
    rig.docker.set_refusal(Some("no such image"));
    let mut order = service(1);
    order.restart.attempts = 1;
    order.restart.delay = 1;
    let mut node = rig.synced(&[order]).await;
    let clock = std::sync::Arc::clone(&rig.clock);
    let mover = tokio::spawn(async move {
        loop {
            clock.advance(50);
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    });
    let report = node.until(true, is(1, InstanceState::Failed)).await;
    mover.abort();
    assert_eq!(report.reason, "main: no such image");
    assert_eq!(report.tasks[0].restarts, 1);
}

#[tokio::test]
async fn two_hundred_instances_start_stop_and_leave_nothing() {
    let mut rig = Rig::started().await;
    let orders: Vec<_> = (1..=200).map(service).collect();
    let mut node = rig.synced(&orders).await;
    let mut running = std::collections::BTreeSet::new();
    while running.len() < orders.len() {
        for report in node.reports().await {
            node.acknowledge(report.sequence).await;
            if report.state == InstanceState::Running {
                running.insert(report.instance);
            }
        }
    }
    let stops: Vec<_> = orders.iter().map(stopping).collect();
    node.orders(&stops, 11, false, false).await;
    while !running.is_empty() {
        for report in node.reports().await {
            node.acknowledge(report.sequence).await;
            if report.state == InstanceState::Stopped {
                running.remove(&report.instance);
            }
        }
    }
    assert!(rig.docker.objects().is_empty());
    let starts = rig.docker.take_calls().iter().filter(|call| call.starts_with("start")).count();
    assert_eq!(starts, 200, "none twice");
}
