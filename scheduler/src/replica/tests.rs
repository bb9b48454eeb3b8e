//! The replica as the log drives it: batches, snapshots, and entries that nobody can read.

use super::*;
use crate::archive::{Archive, Retention, Settings};
use crate::state::Command;

fn entry(borough: &str) -> Vec<u8> {
    let command = Command::CreateBorough { name: borough.parse().unwrap(), title: borough.to_owned() };
    Entry { time: 1, by: "test".to_owned(), request_id: String::new(), command }.encode()
}

fn archive(directory: &std::path::Path) -> (Archive, Feed) {
    let cluster = "c".to_owned();
    Archive::open(Settings { directory: directory.to_owned(), cluster, retention: Retention::default() })
}

#[tokio::test]
async fn a_state_is_published_once_a_batch_and_a_snapshot_restores_it() {
    let folder = tempfile::tempdir().unwrap();
    let (archive, feed) = archive(folder.path());
    let (mut replica, mut states) = Replica::new(feed.clone());
    replica.apply(2, &entry("camden"));
    replica.apply(3, &entry("hackney"));
    assert!(!states.has_changed().unwrap());
    replica.applied_batch(4, &Members::default());
    assert_eq!(states.borrow_and_update().applied(), 4, "with the log's own entry at the end");

    let mut bytes = Vec::new();
    let copy = replica.copy();
    tokio::task::spawn_blocking(move || {
        Replica::write_snapshot(copy, &mut bytes).unwrap();
        let (mut other, states) = Replica::new(feed);
        other.restore(5, &mut bytes.as_slice()).unwrap();
        other.applied_batch(5, &Members::default());
        assert_eq!(states.borrow().boroughs().len(), 2);
        assert_eq!(states.borrow().applied(), 5);
        assert!(matches!(other.restore(3, &mut bytes.as_slice()), Err(RestoreError::Invalid(_))));
        assert!(matches!(
            other.restore(5, &mut &bytes[..9]),
            Err(RestoreError::Io(_) | RestoreError::Invalid(_))
        ));
    })
    .await
    .unwrap();
    assert!(archive.status().borrow().durable >= 4, "a snapshot waits for the archive");
    archive.stop().await;
}

#[test]
fn an_entry_that_cannot_be_read_is_never_passed_over() {
    let folder = tempfile::tempdir().unwrap();
    let (_archive, feed) = archive(folder.path());
    let (mut replica, states) = Replica::new(feed);
    for bytes in [b"garbage".as_slice(), b"", &[8, 9]] {
        let died = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| replica.apply(2, bytes)));
        let message = died.unwrap_err();
        let message = message.downcast_ref::<String>().unwrap();
        assert!(message.starts_with("entry 2 of the log cannot be read"), "{message}");
    }
    assert_eq!(states.borrow().applied(), 0);
}
