//! The ledger across ends, damage and loss.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use supercloud_proto::{
    instance::{InstanceReport, InstanceState},
    order::Order,
    spec::Driver,
};

use super::{Alarm, Batch, Contents, LeaseRecord, Ledger, OpenError, Opened};
use crate::reconcile::{
    history::{End, Outcome, Run, TaskHistory},
    world::{instance, service},
};

const NOW: u64 = 1_700_000_000_000;

fn report(number: u64, sequence: u64) -> InstanceReport {
    InstanceReport {
        instance: instance(number),
        sequence,
        order_index: 10,
        state: InstanceState::Running,
        reason: String::new(),
        tasks: Vec::new(),
        time: NOW,
        unordered: false,
    }
}

fn history() -> TaskHistory {
    let end = End { seen_at: 5, at: Some(4), exit_code: Some(0), reason: "exit code 0".to_owned() };
    TaskHistory {
        run: Run::Ended,
        started: Some(3),
        restarts: 2,
        restarted_at: vec![1, 2],
        last_end: Some(end),
        stopped_by_lease: true,
        outcome: Some(Outcome::Completed),
    }
}

/// A batch with one of everything.
fn everything() -> Batch {
    let mut batch = Batch::default();
    batch
        .accept(&service(1))
        .accept(&service(2))
        .history(instance(1), &service(1).tasks[0].name, &history())
        .report(&report(1, NOW * 1000 + 1))
        .lease(&LeaseRecord { boot_id: "b".to_owned(), until: 7, length: 3 })
        .synced(99);
    batch
}

async fn written(dir: &Path, batch: Batch) -> Contents {
    let Opened { ledger, contents, alarms } = Ledger::open(dir, NOW).expect("opens");
    assert_eq!(alarms, []);
    ledger.write(batch).await.expect("writes");
    ledger.close();
    contents
}

#[tokio::test]
async fn what_was_written_is_there_after_a_reopening() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("ledger");
    let first = written(&path, everything()).await;
    assert_eq!(first.incarnation.len(), 32);
    assert_eq!(first.sequence, NOW * 1000);

    let mut less = Batch::default();
    less.drop_order(instance(2));
    let second = written(&path, less).await;
    assert_eq!(second.incarnation, first.incarnation);
    assert_eq!(second.orders.len(), 2);
    assert_eq!(second.orders[&instance(1)], service(1));
    assert_eq!(second.histories[&instance(1)].values().next(), Some(&history()));
    assert_eq!(second.reports[&instance(1)], report(1, NOW * 1000 + 1));
    assert_eq!((second.sequence, second.synced), (NOW * 1000 + 1, 99));
    assert_eq!(second.lease, Some(LeaseRecord { boot_id: "b".to_owned(), until: 7, length: 3 }));

    let third = written(&path, Batch::default()).await;
    assert_eq!(third.orders.keys().collect::<Vec<_>>(), [&instance(1)]);
    assert_eq!(third.fences[&instance(2)], 10, "the fence of a dropped order stays");
}

/// Writes the fixture of this version's ledger into `$SUPERCLOUD_FIXTURE`, as `scheduler/tests/formats/README.md` tells.
#[tokio::test]
#[ignore = "writes a fixture: see scheduler/tests/formats/README.md"]
async fn write_the_fixture_of_this_format() {
    let out = PathBuf::from(std::env::var("SUPERCLOUD_FIXTURE").expect("SUPERCLOUD_FIXTURE names a folder"));
    fs::create_dir_all(&out).expect("a folder");
    let dir = tempfile::tempdir().expect("a directory");
    written(&dir.path().join("ledger"), everything()).await;
    let mut pack = Command::new("tar");
    pack.args(["--sparse", "-cJf"]).arg(out.join("ledger.tar.xz")).arg("-C").arg(dir.path()).arg("ledger");
    assert!(pack.status().expect("tar runs").success());
}

#[tokio::test]
async fn a_ledger_of_an_earlier_version_goes_on() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scheduler/tests/formats");
    let packed = fs::read_dir(fixtures)
        .expect("lists")
        .map(|entry| entry.expect("an entry").path().join("ledger.tar.xz"));
    let packed: Vec<PathBuf> = packed.filter(|path| path.exists()).collect();
    assert!(!packed.is_empty());
    for fixture in packed {
        let dir = tempfile::tempdir().expect("a directory");
        let unpacked = Command::new("tar").arg("-xJf").arg(&fixture).arg("-C").arg(dir.path()).status();
        assert!(unpacked.expect("tar runs").success(), "{}", fixture.display());
        let path = dir.path().join("ledger");
        let mut less = Batch::default();
        less.drop_order(instance(2));
        let found = written(&path, less).await;
        assert_eq!(found.orders[&instance(1)], service(1));
        assert_eq!(found.histories[&instance(1)].values().next(), Some(&history()));
        assert_eq!(found.reports[&instance(1)], report(1, NOW * 1000 + 1));
        assert_eq!((found.incarnation.len(), found.synced), (32, 99));
        assert_eq!(found.lease, Some(LeaseRecord { boot_id: "b".to_owned(), until: 7, length: 3 }));
        let again = written(&path, Batch::default()).await;
        assert_eq!((again.incarnation, again.orders.len()), (found.incarnation, 1));
    }
}

#[tokio::test]
async fn large_orders_are_chunked_grow_shrink_and_never_become_blobs() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("ledger");
    let sized = |bytes: usize| {
        let mut order = service(1);
        if let Driver::Container(container) = &mut order.tasks[0].driver {
            container.env.insert("BIG".to_owned(), "x".repeat(bytes));
        }
        order
    };
    for bytes in [60_000, 400_000, 10, 4 * 1024, 8 * 1024] {
        let mut batch = Batch::default();
        for other in 100..120 {
            batch.accept(&Order { instance: instance(other), ..sized(bytes / 3) });
        }
        batch.accept(&sized(bytes));
        written(&path, batch).await;
        let contents = written(&path, Batch::default()).await;
        assert_eq!(contents.orders[&instance(1)], sized(bytes), "{bytes}");
        let blobs = fs::read_dir(path.join("blobs")).map(Iterator::count).unwrap_or(0);
        assert_eq!(blobs, 0, "{bytes}");
    }
}

#[tokio::test]
async fn an_acknowledged_write_is_on_disk_without_a_close() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("ledger");
    let Opened { ledger, .. } = Ledger::open(&path, NOW).expect("opens");
    ledger.write(everything()).await.expect("writes");
    // What a machine would find after the process was killed: the files as they are while the store is still open.
    let copy = dir.path().join("copy");
    fs::create_dir(&copy).expect("a directory");
    for entry in fs::read_dir(&path).expect("lists") {
        let entry = entry.expect("an entry");
        if entry.file_type().expect("a type").is_file() {
            fs::copy(entry.path(), copy.join(entry.file_name())).expect("copies");
        }
    }
    let found = Ledger::open(&copy, NOW).expect("opens");
    assert_eq!(found.alarms, []);
    assert_eq!(found.contents.orders.len(), 2);
    found.ledger.close();
    ledger.close();
}

#[tokio::test]
async fn two_agents_do_not_share_one() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("ledger");
    let opened = Ledger::open(&path, NOW).expect("opens");
    assert!(matches!(Ledger::open(&path, NOW), Err(OpenError::InUse { .. })));
    opened.ledger.close();
    assert!(path.exists(), "it was not set aside");
}

/// Damages a ledger that holds two orders, and opens it: it must open, with a new incarnation and a sequence that grew.
async fn damaged(damage: impl Fn(&Path)) -> (Contents, Vec<Alarm>) {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("ledger");
    let before = written(&path, everything()).await;
    damage(&path);
    let later = NOW + 60_000;
    let Opened { ledger, contents, alarms } = Ledger::open(&path, later).expect("a new one is begun");
    ledger.write(everything()).await.expect("it can be written");
    ledger.close();
    if contents.incarnation != before.incarnation {
        assert!(contents.sequence > before.sequence + 1, "sequences grow over a lost ledger");
        assert!(contents.orders.is_empty());
    }
    let again = Ledger::open(&path, later).expect("opens");
    assert_eq!(again.alarms, []);
    assert_eq!(again.contents.orders.len(), 2);
    again.ledger.close();
    (contents, alarms)
}

#[tokio::test]
async fn nobody_else_reads_what_orders_hold() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path().join("ledger");
    let mode = || fs::metadata(&dir).expect("is there").permissions().mode() & 0o777;
    written(&dir, everything()).await;
    assert_eq!(mode(), 0o700);
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).expect("ours");
    written(&dir, Batch::default()).await;
    assert_eq!(mode(), 0o700, "one that an older agent made is closed too");
}

#[tokio::test]
async fn a_ledger_of_garbage_is_set_aside() {
    for file in ["db", "conf"] {
        let garbage = |path: &Path| fs::write(path.join(file), [0xa5; 100_000]).expect("writes");
        let (contents, alarms) = damaged(garbage).await;
        assert!(contents.orders.is_empty(), "{file}");
        assert!(matches!(alarms[..], [Alarm::SetAside { .. }]), "{file}: {alarms:?}");
    }
}

#[tokio::test]
async fn a_ledger_cut_to_nothing_or_with_a_missing_file_is_set_aside() {
    let empty = |path: &Path| fs::write(path.join("db"), []).expect("writes");
    let (_, alarms) = damaged(empty).await;
    assert!(matches!(alarms[..], [Alarm::SetAside { .. }]), "{alarms:?}");
    let missing = |path: &Path| fs::remove_file(path.join("db")).expect("removes");
    let (_, alarms) = damaged(missing).await;
    assert!(matches!(alarms[..], [Alarm::SetAside { .. }]), "{alarms:?}");
}

#[tokio::test]
async fn a_ledger_that_is_no_directory_is_set_aside() {
    let file = |path: &Path| {
        fs::remove_dir_all(path).expect("removes");
        fs::write(path, "garbage").expect("writes");
    };
    let (_, alarms) = damaged(file).await;
    assert!(matches!(alarms[..], [Alarm::SetAside { .. }]), "{alarms:?}");
}

#[tokio::test]
async fn a_deleted_ledger_is_begun_anew_without_alarm() {
    let (contents, alarms) = damaged(|path| fs::remove_dir_all(path).expect("removes")).await;
    assert_eq!(alarms, []);
    assert_eq!(contents.synced, 0);
}

#[tokio::test]
async fn whatever_is_cut_off_or_overwritten_it_opens() {
    let length = {
        let dir = tempfile::tempdir().expect("a directory");
        written(&dir.path().join("ledger"), everything()).await;
        fs::metadata(dir.path().join("ledger/db")).expect("is there").len()
    };
    for part in 1..8 {
        let at = usize::try_from(length * part / 8).expect("small");
        damaged(|path| {
            let bytes = fs::read(path.join("db")).expect("reads");
            fs::write(path.join("db"), &bytes[..at.min(bytes.len())]).expect("writes");
        })
        .await;
        damaged(|path| {
            let mut bytes = fs::read(path.join("db")).expect("reads");
            let end = bytes.len().min(at + 512);
            bytes[at.min(end)..end].fill(0x5a);
            fs::write(path.join("db"), &bytes).expect("writes");
        })
        .await;
    }
}
