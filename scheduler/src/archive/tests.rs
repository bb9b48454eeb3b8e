//! The archive as its users see it: reopened, damaged, with gaps, followed, and kept within bounds.

use std::path::Path;

use super::*;
use crate::archive::record::event_message;
use crate::state::{Command, Entry, State};

const DEADLINE: Duration = Duration::from_secs(20);

fn settings(directory: &Path) -> Settings {
    Settings { directory: directory.to_owned(), cluster: "c".to_owned(), retention: Retention::default() }
}

/// An event of a workload at an index.
fn event(index: LogIndex, ordinal: u32, workload: &str) -> v1::Event {
    v1::Event {
        index,
        ordinal,
        kind: "instance-created".to_owned(),
        borough: "camden".to_owned(),
        workload: workload.to_owned(),
        instance: InstanceId { index, ordinal }.to_string(),
        host: format!("h{}", ordinal % 2),
        message: format!("event {index}.{ordinal}"),
        ..v1::Event::default()
    }
}

/// A batch of one index with so many events.
fn batch(index: LogIndex, events: u32) -> Batch {
    let events = (0..events).map(|ordinal| event(index, ordinal, "portal")).collect();
    Batch { after: index - 1, index, events, finished: Vec::new() }
}

async fn reach(archive: &Archive, what: impl FnMut(&Status) -> bool) -> Status {
    let mut status = archive.status();
    let reached = tokio::time::timeout(DEADLINE, status.wait_for(what)).await;
    reached.expect("in time").unwrap().clone()
}

async fn list(archive: &Archive, filter: EventFilter, limit: usize) -> Vec<(LogIndex, u32)> {
    let list = archive.events(filter, limit).await.unwrap();
    list.events.iter().map(|event| (event.index, event.ordinal)).collect()
}

async fn all(archive: &Archive) -> Vec<(LogIndex, u32)> {
    list(archive, EventFilter::default(), MAX_LISTED).await
}

async fn until_open(archive: &Archive) {
    reach(archive, |status| status.broken.is_none()).await;
}

#[tokio::test]
async fn what_was_archived_is_there_after_a_restart_and_is_not_archived_twice() {
    let folder = tempfile::tempdir().unwrap();
    let (archive, feed) = Archive::open(settings(folder.path()));
    feed.push(batch(1, 2));
    feed.push(batch(2, 0));
    feed.push(batch(3, 1));
    reach(&archive, |status| status.index == 3).await;
    archive.stop().await;
    let (archive, feed) = Archive::open(settings(folder.path()));
    until_open(&archive).await;
    assert_eq!(archive.status().borrow().durable, 3);
    // The log is applied again, in batches that are cut elsewhere.
    let mut again = batch(3, 1);
    again.after = 1;
    again.events.extend(batch(4, 1).events);
    again.index = 4;
    feed.push(batch(1, 2));
    feed.push(again);
    reach(&archive, |status| status.index == 4).await;
    assert_eq!(all(&archive).await, [(1, 0), (1, 1), (3, 0), (4, 0)]);
    let blobs: Vec<_> = std::fs::read_dir(folder.path().join("store/blobs")).unwrap().collect();
    assert_eq!(blobs.len(), 0, "no value is too large");
    archive.stop().await;
}

#[tokio::test]
async fn a_reader_sees_what_was_applied_before_it_asked_and_waits_for_no_gap() {
    let folder = tempfile::tempdir().unwrap();
    let (archive, feed) = Archive::open(settings(folder.path()));
    until_open(&archive).await;
    for index in 1..=20 {
        feed.push(batch(index, 1));
        archive.reach(index).await;
        assert_eq!(all(&archive).await.last(), Some(&(index, 0)));
    }
    feed.push(batch(25, 1));
    reach(&archive, |status| status.gap.is_some()).await;
    archive.reach(25).await;
    assert_eq!(all(&archive).await.len(), 20);
    archive.stop().await;
}

#[tokio::test]
async fn an_index_without_events_is_on_disk_soon_and_after_a_stop() {
    let folder = tempfile::tempdir().unwrap();
    let (archive, feed) = Archive::open(settings(folder.path()));
    feed.push(batch(1, 0));
    assert_eq!(reach(&archive, |status| status.index == 1).await.gap, None);
    reach(&archive, |status| status.durable == 1).await;
    feed.push(batch(2, 0));
    reach(&archive, |status| status.index == 2).await;
    archive.stop().await;
    let (archive, _feed) = Archive::open(settings(folder.path()));
    reach(&archive, |status| status.index == 2).await;
    archive.stop().await;
}

#[tokio::test]
async fn long_texts_are_cut_and_say_so() {
    let folder = tempfile::tempdir().unwrap();
    let (archive, feed) = Archive::open(settings(folder.path()));
    let mut long = batch(1, 30);
    for event in &mut long.events {
        event.message = "ä".repeat(20_000);
    }
    let reason = "because ".repeat(3_000);
    let task = v1::TaskStatus { reason: reason.clone(), ..v1::TaskStatus::default() };
    let id = InstanceId { index: 1, ordinal: 0 };
    let instance = v1::Instance {
        id: id.to_string(),
        state_reason: reason,
        tasks: vec![task; 16],
        ..v1::Instance::default()
    };
    long.finished.push((1, instance));
    feed.push(long);
    reach(&archive, |status| status.index == 1).await;
    let found = archive.events(EventFilter::default(), 100).await.unwrap();
    assert_eq!(found.events.len(), 30);
    assert!(found.events.iter().all(|event| event.message.ends_with("… (cut from 40000 bytes)")));
    let instance = archive.finished(id).await.unwrap().unwrap();
    assert!(
        instance.state_reason.ends_with("bytes)") && instance.tasks.len() == 16,
        "{}",
        instance.state_reason
    );
    assert_eq!(archive.finished(InstanceId { index: 2, ordinal: 0 }).await.unwrap(), None);
    archive.stop().await;
    let blobs: Vec<_> = std::fs::read_dir(folder.path().join("store/blobs")).unwrap().collect();
    assert_eq!(blobs.len(), 0);
}

#[tokio::test]
async fn lists_are_the_latest_that_match_oldest_first() {
    let folder = tempfile::tempdir().unwrap();
    let (archive, feed) = Archive::open(settings(folder.path()));
    for index in 1..=40 {
        let mut next = batch(index, 4);
        if index % 10 == 0 {
            next.events.iter_mut().for_each(|event| event.workload = "records".to_owned());
        }
        feed.push(next);
    }
    reach(&archive, |status| status.index == 40).await;
    assert_eq!(list(&archive, EventFilter::default(), 3).await, [(40, 1), (40, 2), (40, 3)]);
    let of = |workload: &str, borough: Option<&str>| EventFilter {
        workload: Some(workload.to_owned()),
        borough: borough.map(str::to_owned),
        ..EventFilter::default()
    };
    assert_eq!(list(&archive, of("records", Some("camden")), 100).await.len(), 16);
    assert_eq!(list(&archive, of("records", None), 2).await, [(40, 2), (40, 3)]);
    assert_eq!(list(&archive, of("records", Some("hackney")), 100).await, []);
    let filter = EventFilter { host: Some("h1".to_owned()), after: 38, ..EventFilter::default() };
    assert_eq!(list(&archive, filter, 100).await, [(39, 1), (39, 3), (40, 1), (40, 3)]);
    let filter = EventFilter { borough: Some("camden".to_owned()), after: 39, ..EventFilter::default() };
    assert_eq!(list(&archive, filter, 100).await.len(), 4);
    let instance = Some(InstanceId { index: 20, ordinal: 3 });
    assert_eq!(list(&archive, EventFilter { instance, ..EventFilter::default() }, 9).await, [(20, 3)]);
    archive.stop().await;
}

#[tokio::test]
async fn a_subscription_resumes_without_a_gap_or_a_repetition() {
    let folder = tempfile::tempdir().unwrap();
    let (archive, feed) = Archive::open(settings(folder.path()));
    let writer = tokio::task::spawn_blocking(move || {
        for index in 1..=300 {
            // One index has far more events than a batch of a subscription.
            feed.push(batch(index, if index == 100 { 1_700 } else { (index % 3) as u32 }));
            std::thread::yield_now();
        }
        feed
    });
    let expected: Vec<(LogIndex, u32)> = (1..=300u64)
        .flat_map(|index| (0..if index == 100 { 1_700 } else { index % 3 }).map(move |o| (index, o as u32)))
        .collect();
    let mut seen = Vec::new();
    let mut whole = 0;
    let mut subscription = archive.subscribe(Some(0)).unwrap();
    while seen.len() < expected.len() {
        let next = tokio::time::timeout(DEADLINE, subscription.next()).await.expect("in time").unwrap();
        assert!(!next.events.is_empty());
        seen.extend(next.events.iter().map(|event| (event.index, event.ordinal)));
        whole = next.index;
        if seen.len() % 3 == 0 {
            // Begins again from where everything had been seen, as a client would.
            seen.retain(|(index, _)| *index <= whole);
            subscription = archive.subscribe(Some(whole)).unwrap();
            if whole == 99 {
                subscription = drain_big(&archive, &mut seen).await;
            }
        }
    }
    assert_eq!(seen, expected);
    let feed = writer.await.unwrap();
    // From now on: only what follows.
    let mut from_now = archive.subscribe(None).unwrap();
    feed.push(batch(301, 1));
    let next = tokio::time::timeout(DEADLINE, from_now.next()).await.expect("in time").unwrap();
    assert_eq!((next.events[0].index, next.index, whole <= 300), (301, 301, true));
    archive.stop().await;
}

/// Takes the big index in one go; resuming within it would begin it again for ever.
async fn drain_big(archive: &Archive, seen: &mut Vec<(LogIndex, u32)>) -> Subscription {
    let mut subscription = archive.subscribe(Some(99)).unwrap();
    while subscription.seen() < 100 {
        let next = tokio::time::timeout(DEADLINE, subscription.next()).await.expect("in time").unwrap();
        seen.extend(next.events.iter().map(|event| (event.index, event.ordinal)));
    }
    subscription
}

#[tokio::test]
async fn what_does_not_continue_waits_and_the_gap_is_filled_or_given_up() {
    let folder = tempfile::tempdir().unwrap();
    let (archive, feed) = Archive::open(settings(folder.path()));
    feed.push(batch(1, 1));
    feed.push(batch(5, 1));
    feed.push(batch(6, 1));
    assert_eq!(reach(&archive, |status| status.gap.is_some()).await.gap, Some(4));
    assert_eq!(archive.status().borrow().index, 1);
    let mut watcher = archive.subscribe(Some(1)).unwrap();
    let mut fetched = batch(3, 1);
    fetched.after = 1;
    assert!(archive.tell(Message::Fetched(fetched.clone(), 0)).await);
    reach(&archive, |status| status.index == 3).await;
    // What was overtaken changes nothing.
    assert!(archive.tell(Message::Fetched(fetched, 0)).await);
    assert!(archive.tell(Message::GiveUp(4)).await);
    let status = reach(&archive, |status| status.index == 6).await;
    assert_eq!((status.gap, status.floor), (None, 4));
    assert_eq!(all(&archive).await, [(1, 0), (3, 0), (5, 0), (6, 0)]);
    let lost = loop {
        match tokio::time::timeout(DEADLINE, watcher.next()).await.expect("in time") {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert!(matches!(lost, WatchError::Compacted { floor: 4 }), "{lost}");
    assert!(matches!(archive.subscribe(Some(3)), Err(WatchError::Compacted { floor: 4 })));
    assert!(archive.subscribe(Some(4)).is_ok());
    archive.stop().await;
}

#[tokio::test]
async fn a_store_that_does_not_open_is_set_aside_and_filled_again() {
    let folder = tempfile::tempdir().unwrap();
    for (round, file) in ["db", "conf"].iter().enumerate() {
        let (archive, feed) = Archive::open(settings(folder.path()));
        feed.push(batch(1, 200));
        reach(&archive, |status| status.index >= 1).await;
        archive.stop().await;
        let path = folder.path().join("store").join(file);
        let length = std::fs::metadata(&path).unwrap().len().max(64) as usize;
        let garbage: Vec<u8> = (0..length).map(|at| (at * 31 + 7) as u8).collect();
        std::fs::write(&path, garbage).unwrap();
        let (archive, feed) = Archive::open(settings(folder.path()));
        until_open(&archive).await;
        assert_eq!(all(&archive).await, [], "round {round}: {file} was not believed");
        feed.push(batch(2, 1));
        assert_eq!(reach(&archive, |status| status.gap.is_some()).await.gap, Some(1));
        assert!(archive.tell(Message::Fetched(batch(1, 2), 0)).await);
        reach(&archive, |status| status.index == 2).await;
        assert_eq!(all(&archive).await, [(1, 0), (1, 1), (2, 0)]);
        archive.stop().await;
        let aside = std::fs::read_dir(folder.path()).unwrap().filter(|entry| {
            entry.as_ref().unwrap().file_name().to_string_lossy().starts_with("store-set-aside-")
        });
        assert_eq!(aside.count(), 1, "the last one is kept for whoever wants to look");
    }
}

#[tokio::test]
async fn a_value_that_does_not_match_its_checksum_is_not_shown() {
    let folder = tempfile::tempdir().unwrap();
    let (archive, feed) = Archive::open(settings(folder.path()));
    feed.push(batch(1, 1));
    reach(&archive, |status| status.index == 1).await;
    archive.stop().await;
    {
        let db = sled::Config::new().path(folder.path().join("store")).flush_every_ms(None).open().unwrap();
        let key = record::block_key((1, 0));
        let mut value = db.get(&key).unwrap().unwrap().to_vec();
        value[9] ^= 1;
        db.insert(key, value).unwrap();
        db.flush().unwrap();
    }
    let (archive, _feed) = Archive::open(settings(folder.path()));
    until_open(&archive).await;
    let error = archive.events(EventFilter::default(), 9).await.unwrap_err();
    assert!(matches!(error, ArchiveError::Damaged(_)), "{error}");
    reach(&archive, |status| status.index == 0 && status.broken.is_none()).await;
    assert_eq!(all(&archive).await, []);
    archive.stop().await;
}

#[tokio::test]
async fn another_clusters_archive_is_set_aside() {
    let folder = tempfile::tempdir().unwrap();
    let (archive, feed) = Archive::open(settings(folder.path()));
    feed.push(batch(1, 1));
    reach(&archive, |status| status.index == 1).await;
    archive.stop().await;
    let (archive, _feed) = Archive::open(Settings { cluster: "d".to_owned(), ..settings(folder.path()) });
    until_open(&archive).await;
    assert_eq!(archive.status().borrow().index, 0);
    archive.stop().await;
}

#[tokio::test]
async fn only_so_much_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let retention = Retention { events: 100, finished: 10 };
    let (archive, feed) = Archive::open(Settings { retention, ..settings(folder.path()) });
    for index in 1..=60 {
        let mut next = batch(index, 5);
        let id = InstanceId { index, ordinal: 0 }.to_string();
        next.finished.push((index, v1::Instance { id, ..v1::Instance::default() }));
        feed.push(next);
    }
    let status = reach(&archive, |status| status.index == 60).await;
    let kept = all(&archive).await;
    assert!((100..200).contains(&kept.len()), "{} events", kept.len());
    assert_eq!(kept.last(), Some(&(60, 4)));
    assert!(status.floor >= 20 && kept[0].0 > status.floor, "floor {}, first {:?}", status.floor, kept[0]);
    assert!(matches!(archive.subscribe(Some(status.floor - 1)), Err(WatchError::Compacted { .. })));
    let finished = |index| archive.finished(InstanceId { index, ordinal: 0 });
    assert_eq!(finished(50).await.unwrap(), None);
    assert!(finished(51).await.unwrap().is_some());
    // The keys that pointed to what is gone are gone with it.
    let of_workload = EventFilter {
        borough: Some("camden".to_owned()),
        workload: Some("portal".to_owned()),
        ..EventFilter::default()
    };
    assert_eq!(list(&archive, of_workload, MAX_LISTED).await, kept);
    archive.stop().await;
}

#[test]
fn an_event_of_the_state_keeps_what_it_says() {
    let mut state = State::default();
    let command = Command::CreateBorough { name: "camden".parse().unwrap(), title: "Camden".to_owned() };
    let entry = Entry { time: 7, by: "operator:alice".to_owned(), request_id: String::new(), command };
    let applied = state.apply(3, &entry);
    let message = event_message(&applied.events[0]);
    assert_eq!((message.index, message.ordinal, message.time_ms), (3, 0, 7));
    assert_eq!((message.kind.as_str(), message.borough.as_str()), ("borough-created", "camden"));
    assert_eq!((message.by.as_str(), message.workload.as_str()), ("operator:alice", ""));
}

#[tokio::test]
async fn an_event_of_many_is_found_by_each_of_them_and_by_their_hosts() {
    let folder = tempfile::tempdir().unwrap();
    let (archive, feed) = Archive::open(settings(folder.path()));
    let run = |first: u32, host: &str| v1::EventRun {
        first: InstanceId { index: 1, ordinal: first }.to_string(),
        count: 10,
        host: host.to_owned(),
    };
    let crowd = |ordinal, runs| v1::Event {
        instance: String::new(),
        host: String::new(),
        runs,
        ..event(1, ordinal, "portal")
    };
    let events = vec![crowd(0, vec![run(0, ""), run(10, "")]), crowd(1, vec![run(0, "h7"), run(10, "h8")])];
    feed.push(Batch { after: 0, index: 1, events, finished: Vec::new() });
    feed.push(batch(2, 2));
    reach(&archive, |status| status.index == 2).await;

    let find = async |filter: EventFilter| {
        let found = archive.events(filter, MAX_LISTED).await.unwrap().events;
        found
            .iter()
            .map(|event| {
                format!(
                    "{}.{} {} on {:?} {}",
                    event.index,
                    event.ordinal,
                    event.instance,
                    event.host,
                    event.runs.len()
                )
            })
            .collect::<Vec<_>>()
    };
    let of =
        |ordinal| EventFilter { instance: Some(InstanceId { index: 1, ordinal }), ..EventFilter::default() };
    assert_eq!(find(of(12)).await, [r#"1.0 i-1-c on "" 0"#, r#"1.1 i-1-c on "h8" 0"#]);
    assert_eq!(find(of(20)).await, Vec::<String>::new());
    let on = |host: &str| EventFilter { host: Some(host.to_owned()), ..EventFilter::default() };
    assert_eq!(find(on("h7")).await, [r#"1.1  on "h7" 1"#]);
    assert_eq!(find(on("h0")).await, [r#"2.0 i-2-0 on "h0" 0"#]);
    assert_eq!(find(EventFilter::default()).await.len(), 4);
    archive.stop().await;
}
