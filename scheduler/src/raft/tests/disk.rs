//! What a start makes of a directory: whole, foreign, blank, damaged, or left in the middle of something.

use std::fs;
use std::path::{Path, PathBuf};

use super::harness::{Cluster, eventually, often};
use crate::raft::engine_store::EngineStore;
use crate::raft::log_store::{LogStore as _, LogWrite};
use crate::raft::{IdentityError, NodeId, OpenError, SnapshotError, Start, limits};

const NODE: NodeId = NodeId(1);

/// A cluster of one that has written ten entries and was killed.
async fn used(snapshots: bool) -> Cluster {
    let policy = if snapshots { often() } else { limits::SnapshotPolicy::default() };
    let mut cluster = Cluster::found_with(1, policy, limits::TICK / 5).await;
    for number in 0..40 {
        cluster.write(&format!("{number}")).await;
    }
    cluster.kill(NODE).await;
    cluster
}

fn refused(cluster: &mut Cluster, how: &Start) -> OpenError {
    cluster.start(NODE, how).err().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_lost_its_log_is_refused() {
    let mut cluster = used(false).await;
    let directory = cluster.directory(NODE);
    let members = vec![];
    assert!(matches!(
        refused(&mut cluster, &Start::Found { members }),
        OpenError::Identity(IdentityError::InUse { .. })
    ));
    fs::rename(directory.join("log"), directory.join("kept")).unwrap();
    let error = refused(&mut cluster, &Start::Again);
    assert!(matches!(error, OpenError::Identity(IdentityError::LogLost { found: "blank", .. })), "{error}");
    fs::remove_dir_all(directory.join("log")).unwrap();
    // The log of another life of this node.
    let other = used(false).await;
    fs::rename(other.directory(NODE).join("log"), directory.join("log")).unwrap();
    let error = refused(&mut cluster, &Start::Again);
    assert!(
        matches!(error, OpenError::Identity(IdentityError::LogLost { found: "of another incarnation", .. })),
        "{error}"
    );
    // Put right, it starts.
    fs::remove_dir_all(directory.join("log")).unwrap();
    fs::rename(directory.join("kept"), directory.join("log")).unwrap();
    cluster.start(NODE, &Start::Again).unwrap();
    let written = cluster.write("after").await;
    assert_eq!(cluster.agree(written.index).await.entries.len(), 41);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blank_directory_a_missing_marker_and_a_newer_format_are_refused() {
    let mut cluster = used(false).await;
    let marker = cluster.directory(NODE).join("identity.json");
    let text = fs::read_to_string(&marker).unwrap();
    fs::write(&marker, text.replace("\"format\": 1", "\"format\": 2")).unwrap();
    let error = refused(&mut cluster, &Start::Again);
    assert!(matches!(error, OpenError::Identity(IdentityError::NewerFormat { found: 2, .. })), "{error}");
    fs::write(&marker, text.replace("\"node\": 1", "\"node\": 7")).unwrap();
    let error = refused(&mut cluster, &Start::Again);
    assert!(matches!(error, OpenError::Identity(IdentityError::Foreign { found_node: 7, .. })), "{error}");
    fs::remove_file(&marker).unwrap();
    let error = refused(&mut cluster, &Start::Again);
    assert!(matches!(error, OpenError::Identity(IdentityError::NoMarker { .. })), "{error}");
    fs::remove_dir_all(cluster.directory(NODE)).unwrap();
    let error = refused(&mut cluster, &Start::Again);
    assert!(matches!(error, OpenError::Identity(IdentityError::Blank { .. })), "{error}");
}

fn snapshots(directory: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> =
        fs::read_dir(directory.join("snapshots")).unwrap().map(|entry| entry.unwrap().path()).collect();
    found.sort();
    found
}

fn flip(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(path, bytes).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_snapshot_is_set_aside_and_the_older_one_used() {
    let mut cluster = used(true).await;
    let directory = cluster.directory(NODE);
    let found = snapshots(&directory);
    assert_eq!(found.len(), 2);
    flip(&found[1]);
    cluster.start(NODE, &Start::Again).unwrap();
    let written = cluster.write("after").await;
    assert_eq!(cluster.agree(written.index).await.entries.len(), 41);
    cluster.kill(NODE).await;
    for path in snapshots(&directory) {
        flip(&path);
    }
    let error = refused(&mut cluster, &Start::Again);
    assert!(matches!(error, OpenError::Snapshot(SnapshotError::Damaged { .. })), "{error}");
}

/// The newest file of the engine's log, with the place where its content ends.
fn log_end(directory: &Path) -> (PathBuf, Vec<u8>, usize) {
    let files = fs::read_dir(directory.join("log")).unwrap().map(|entry| entry.unwrap().path());
    let path = files.filter(|path| path.extension().is_some_and(|kind| kind == "raftlog")).max().unwrap();
    let bytes = fs::read(&path).unwrap();
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    (path, bytes, end)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_a_crash_tore_is_cut_and_the_node_starts() {
    let mut cluster = Cluster::found(3).await;
    for number in 0..10 {
        cluster.write(&format!("{number}")).await;
    }
    let follower = cluster.followers().await[0];
    cluster.agree(cluster.status(follower).commit).await;
    cluster.kill(follower).await;
    // A write that was under way: nobody was told of it.
    let directory = cluster.directory(follower);
    let mut store = EngineStore::open(&directory.join("log"), Box::new(|_| {})).unwrap();
    let next = store.last_index() + 1;
    store.write(LogWrite { entries: vec![(next, vec![1; 300])], ..LogWrite::default() }, true).unwrap();
    drop(store);
    let (path, bytes, end) = log_end(&directory);
    fs::write(&path, &bytes[..end - 7]).unwrap();
    cluster.start(follower, &Start::Again).unwrap();
    let written = cluster.write("after").await;
    assert_eq!(cluster.agree(written.index).await.entries.len(), 11);
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_that_looks_like_a_torn_tail_is_noticed() {
    let mut cluster = used(false).await;
    let (path, mut bytes, end) = log_end(&cluster.directory(NODE));
    bytes[end / 2] ^= 0xff;
    fs::write(&path, bytes).unwrap();
    let error = refused(&mut cluster, &Start::Again);
    let OpenError::LogShorter { last, known, .. } = error else { panic!("{error}") };
    assert!(last < 41 && known >= 41, "{last} {known}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_installation_that_a_crash_interrupted_is_finished() {
    let mut cluster = Cluster::found_with(3, often(), limits::TICK / 2).await;
    let away = cluster.followers().await[0];
    cluster.kill(away).await;
    for number in 0..60 {
        cluster.write(&format!("{number}")).await;
    }
    // The follower as it is after the snapshot got its name and before the log was reset.
    let donor = cluster.running()[0];
    eventually("a snapshot of its own", || (cluster.status(donor).first_index > 10).then_some(())).await;
    let newest = snapshots(&cluster.directory(donor)).pop().unwrap();
    let name = newest.file_name().unwrap().to_str().unwrap().to_owned();
    let index: u64 = name.split('-').nth(1).unwrap().parse().unwrap();
    let target = cluster.directory(away).join("snapshots").join(&name);
    fs::copy(&newest, &target).unwrap();
    // Without the intent in the log it is a log that lost its end, and refused.
    let error = cluster.start(away, &Start::Again).err().unwrap();
    assert!(matches!(error, OpenError::LogShorter { .. }), "{error}");
    let mut store = EngineStore::open(&cluster.directory(away).join("log"), Box::new(|_| {})).unwrap();
    store.write(LogWrite { installing: Some(index), ..LogWrite::default() }, true).unwrap();
    drop(store);
    cluster.start(away, &Start::Again).unwrap();
    let written = cluster.write("after").await;
    assert_eq!(cluster.agree(written.index).await.entries.len(), 61);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_intent_without_its_snapshot_is_withdrawn() {
    let mut cluster = used(true).await;
    let log = cluster.directory(NODE).join("log");
    let mut store = EngineStore::open(&log, Box::new(|_| {})).unwrap();
    store.write(LogWrite { installing: Some(999), ..LogWrite::default() }, true).unwrap();
    drop(store);
    cluster.start(NODE, &Start::Again).unwrap();
    let written = cluster.write("after").await;
    assert_eq!(cluster.agree(written.index).await.entries.len(), 41);
    cluster.kill(NODE).await;
    assert_eq!(EngineStore::open(&log, Box::new(|_| {})).unwrap().installing(), 0);
}

fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_tree(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn files_below(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for path in fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()) {
        if path.is_dir() { found.extend(files_below(&path)) } else { found.push(path) }
    }
    found
}

/// Bytes that are flipped in each file, spread over it.
const FLIPS: usize = 14;

#[tokio::test(flavor = "multi_thread")]
async fn damage_at_any_byte_loses_nothing_or_is_refused_with_its_place() {
    let mut cluster = used(true).await;
    let directory = cluster.directory(NODE);
    let whole = tempfile::tempdir().unwrap();
    copy_tree(&directory, whole.path());
    let (mut mended, mut refusals) = (0, 0);
    for file in files_below(whole.path()) {
        let bytes = fs::read(&file).unwrap();
        let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        let name = file.strip_prefix(whole.path()).unwrap();
        for at in (0..FLIPS).map(|flip| flip * end / FLIPS).filter(|at| *at < end) {
            fs::remove_dir_all(&directory).unwrap();
            copy_tree(whole.path(), &directory);
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x10;
            fs::write(directory.join(name), damaged).unwrap();
            let place = format!("{} at byte {at}", name.display());
            match cluster.start(NODE, &Start::Again) {
                Ok(()) => {
                    let written = cluster.write("after").await;
                    assert_eq!(cluster.agree(written.index).await.entries.len(), 41, "{place}");
                    cluster.kill(NODE).await;
                    mended += 1;
                }
                Err(error) => {
                    let text = error.to_string();
                    assert!(text.contains(directory.to_str().unwrap()), "{place}: {text}");
                    let in_log = name.extension().is_some_and(|kind| kind == "raftlog" || kind == "rewrite");
                    assert!(!in_log || (error.is_loss() && text.contains("from byte")), "{place}: {text}");
                    refusals += 1;
                }
            }
        }
    }
    assert!(mended > FLIPS && refusals > FLIPS, "{mended} mended, {refusals} refused");
}
