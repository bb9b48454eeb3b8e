//! A restore takes a whole file into an empty directory or does nothing, and what it makes begins beyond everything that was.

use std::{fs, io::Write as _};

use supercloud_proto::{
    id::HostId,
    instance::Desired,
    saved::{FORMAT, SavedHead, SavedWriter},
};

use super::*;
use crate::{
    raft::identity,
    state::{
        Command, Grant,
        tests::world::{World, service},
    },
};

/// A state with an instance that runs, one that waits, and a token, as a file.
fn saved(directory: &Path) -> (World, PathBuf) {
    let mut world = World::with_hosts(&["h1"]);
    world.must(Command::Initialise { cluster_id: "c".to_owned() });
    world.apply_spec(&service("web", 1));
    world.place_all(&[HostId(1)]);
    world.apply_spec(&service("api", 1));
    let grant = Grant::Scheduler;
    world.must(Command::CreateToken { id: "t".to_owned(), secret_hash: vec![1], grant, expires: u64::MAX });
    let path = directory.join("state.saved");
    write(&path, &world.state, "c", world.state.applied());
    (world, path)
}

fn write(path: &Path, state: &State, cluster: &str, index: u64) {
    let head = SavedHead {
        format: FORMAT,
        cluster_id: cluster.to_owned(),
        index,
        term: 7,
        next_node_id: 4,
        ..SavedHead::default()
    };
    let mut writer = SavedWriter::begin(File::create(path).unwrap(), &head).unwrap();
    state.write(&mut writer).unwrap();
    writer.finish().unwrap().sync_all().unwrap();
}

fn wish<'a>(from: &'a Path, data_dir: &'a Path) -> Wish<'a> {
    let addresses = Addresses::check("127.0.0.1:7400", "127.0.0.1:7401", Vec::new()).unwrap();
    Wish { from, data_dir, addresses, authority: Authority::Development, operator: None }
}

#[test]
fn orders_are_decided_anew_and_tokens_are_forgotten() {
    let directory = tempfile::tempdir().unwrap();
    let (world, path) = saved(directory.path());
    let (summary, state) = read(&path).unwrap();
    assert_eq!((summary.instances, summary.hosts), (2, 1));
    let again = state.refounded(1 << 40);
    assert_eq!((again.applied(), again.cluster_id()), (1 << 40, Some("c")));
    assert!(again.token("t").is_none() && world.state.token("t").is_some());
    let orders: Vec<_> = again.orders_of(HostId(1), world.state.applied()).collect();
    assert_eq!(orders.len(), 1);
    assert_eq!((orders[0].index, orders[0].desired), (1 << 40, Desired::Run));
    assert_eq!(again.pending_count(), 1);
    assert_eq!(again.orders_indexes()[&HostId(1)], 1 << 40);
    // All else is as it was.
    let mut bytes = Vec::new();
    again.write(&mut bytes).unwrap();
    assert_eq!(State::read(&mut bytes.as_slice()).unwrap().hash(), again.hash());
}

#[test]
fn a_directory_becomes_a_nodes_once_and_begins_far_beyond() {
    let directory = tempfile::tempdir().unwrap();
    let (world, path) = saved(directory.path());
    let data = directory.path().join("n");
    let made = restore(wish(&path, &data)).unwrap();
    assert_eq!((made.node, made.index), (1001, world.state.applied() + INDEX_LEAP));
    let home = Home::open(&data).unwrap();
    let record = home.known_record().unwrap();
    assert_eq!((record.cluster.as_str(), record.origin, record.started), ("c", Origin::Restored, true));
    let history = record.history.clone().unwrap();
    let marker = identity::read(&data.join("raft")).unwrap().unwrap();
    assert_eq!((marker.cluster, marker.node), (format!("c/{history}"), 1001));
    assert!(matches!(home.start(&record).unwrap(), raft::Start::Again));
    assert!(!home.restoring().exists());
    drop(home);
    let again = restore(wish(&path, &data)).unwrap_err();
    assert!(matches!(again, RestoreError::Home(HomeError::Taken { .. })), "{again}");
}

#[test]
fn numbers_of_nodes_go_on_in_another_thousand() {
    for (next, first) in [(2, 1001), (499, 1001), (501, 2001), (1004, 2001), (1600, 3001)] {
        assert_eq!(first_number(next), first, "{next}");
    }
}

#[test]
fn what_is_no_whole_state_is_refused_and_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let (world, path) = saved(directory.path());
    let whole = fs::read(&path).unwrap();
    let data = directory.path().join("n");
    let refused = |what: &str| {
        let error = restore(wish(&path, &data)).unwrap_err().to_string();
        assert!(error.contains(what) && error.contains("state.saved"), "{error}");
        assert!(!data.exists());
    };
    fs::write(&path, &whole[..whole.len() - 1]).unwrap();
    refused("damaged at byte");
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 1;
    fs::write(&path, flipped).unwrap();
    refused("checksum");
    write(&path, &world.state, "other", world.state.applied());
    refused("not that of cluster other");
    write(&path, &world.state, "c", 1);
    refused("at log index 1");
}

#[test]
fn an_interrupted_restore_is_cleared_away_and_a_stranger_is_not() {
    let directory = tempfile::tempdir().unwrap();
    let (_, path) = saved(directory.path());
    let data = directory.path().join("n");
    fs::create_dir_all(data.join("restoring/raft")).unwrap();
    fs::create_dir_all(data.join("raft/log")).unwrap();
    fs::write(data.join("ca.pem"), "half").unwrap();
    restore(wish(&path, &data)).unwrap();
    let other = directory.path().join("other");
    fs::create_dir_all(other.join("raft")).unwrap();
    let mut note = File::create(other.join("note")).unwrap();
    note.write_all(b"mine").unwrap();
    let refused = restore(wish(&path, &other)).unwrap_err();
    assert!(matches!(refused, RestoreError::Home(HomeError::NotEmpty { .. })), "{refused}");
    assert!(other.join("note").exists() && other.join("raft").exists());
}
