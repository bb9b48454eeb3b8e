//! The libvirt driver and a daemon that hangs, goes away and comes back: a real libvirt behind a socket of our own that can hold back
//! what passes it, or cut it. The daemon itself is left alone, for others use it too.

use std::{
    error::Error,
    path::Path,
    time::{Duration, Instant},
};

use futures::StreamExt;
use supercloud_agent::{
    driver::{ASK_DEADLINE, Driver, DriverError, Hint, Owner},
    libvirt::{Acceleration, LibvirtDriver, LibvirtSettings},
};
use supercloud_proto::name::HostName;
use tokio::{
    io::copy_bidirectional,
    net::{UnixListener, UnixStream},
    sync::watch,
};

type Fallible<T = ()> = Result<T, Box<dyn Error>>;

/// Where libvirt really answers.
const SOCKET: &str = "/run/libvirt/libvirt-sock";
/// Time within which the driver must have noticed that all is well again: it looks every second.
const PATIENCE: Duration = Duration::from_secs(40);

/// What the socket does with what passes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Open,
    Frozen,
    Cut,
}

/// Serves a socket that leads to libvirt.
fn serve(path: &Path, way: &watch::Receiver<Way>) -> Fallible {
    let listener = UnixListener::bind(path)?;
    let way = way.clone();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            tokio::spawn(pass_on(client, way.clone()));
        }
    });
    Ok(())
}

async fn pass_on(mut client: UnixStream, mut way: watch::Receiver<Way>) -> std::io::Result<()> {
    let mut daemon = UnixStream::connect(SOCKET).await?;
    let mut copying = std::pin::pin!(copy_bidirectional(&mut client, &mut daemon));
    loop {
        let now = *way.borrow_and_update();
        let changed = match now {
            Way::Cut => return Ok(()),
            Way::Frozen => way.changed().await,
            Way::Open => tokio::select! {
                ended = &mut copying => return ended.map(drop),
                changed = way.changed() => changed,
            },
        };
        // The test is over.
        if changed.is_err() {
            return Ok(());
        }
    }
}

/// Waits until the number of connections that pass the socket is as it should be. A hint would tell of them too, but only to whoever
/// listened before.
async fn until_passing(way: &watch::Sender<Way>, right: impl Fn(usize) -> bool) -> Fallible {
    let look = async {
        // The test and the listener have a receiver each, and so has every connection.
        while !right(way.receiver_count() - 2) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    Ok(tokio::time::timeout(PATIENCE, look).await?)
}

fn is_silent<T>(result: &Result<T, DriverError>) -> bool {
    matches!(result, Err(DriverError::Silent { runtime: "libvirt", .. }))
}

/// Waits until the driver lists again and calls its runtime healthy. Each worker has a connection of its own, and the first call on one
/// that broke may be the one that notices.
async fn is_well_again(driver: &LibvirtDriver) -> Fallible {
    let ask = async {
        while driver.list().await.is_err() || !driver.probe().await.healthy {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    Ok(tokio::time::timeout(PATIENCE, ask).await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_hangs_or_goes_away_is_silent_and_then_found_again() -> Fallible {
    let folder = tempfile::tempdir()?;
    let socket = folder.path().join("sock");
    let (set, way) = watch::channel(Way::Open);
    serve(&socket, &way)?;
    let settings = LibvirtSettings {
        uri: format!("qemu:///system?socket={}", socket.display()),
        acceleration: Acceleration::Tcg,
        data_dir: folder.path().to_owned(),
        ..LibvirtSettings::default()
    };
    let owner = Owner { cluster: format!("{:032x}", rand::random::<u128>()), host: HostName::new("host-1")? };
    let driver = LibvirtDriver::start(settings, owner);
    // Nothing was asked: this is the one that waits for events.
    until_passing(&set, |passing| passing == 1).await?;
    assert!(driver.list().await?.is_empty());

    // It hangs: every call comes back at its deadline, and none waits for another.
    set.send(Way::Frozen)?;
    let begin = Instant::now();
    let (one, two, three) = tokio::join!(driver.list(), driver.list(), driver.probe());
    assert!(is_silent(&one) && is_silent(&two), "{one:?} {two:?}");
    assert!(!three.healthy && three.reason.contains("no answer within"), "{three:?}");
    assert!(begin.elapsed() >= ASK_DEADLINE && begin.elapsed() < 2 * ASK_DEADLINE, "{:?}", begin.elapsed());
    set.send(Way::Open)?;
    is_well_again(&driver).await?;

    // It goes away, and comes back: the next call finds it, and everything may have changed.
    set.send(Way::Cut)?;
    until_passing(&set, |passing| passing == 0).await?;
    assert!(is_silent(&driver.list().await));
    assert!(!driver.probe().await.healthy);
    // Whoever begins to listen is told once to look. The next hint can only come of a connection that is made after this.
    let mut hints = driver.hints();
    assert_eq!(hints.next().await, Some(Hint::Anything));
    set.send(Way::Open)?;
    is_well_again(&driver).await?;
    assert_eq!(tokio::time::timeout(PATIENCE, hints.next()).await?, Some(Hint::Anything));
    Ok(())
}
