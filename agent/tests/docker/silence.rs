//! Docker away, hanging, and coming back; and the hints of what happens.

use std::path::Path;

use futures::{StreamExt, stream::BoxStream};
use supercloud_agent::driver::{Driver, DriverError, Hint, Phase};
use tokio::{
    io::copy_bidirectional,
    net::{UnixListener, UnixStream},
    task::JoinSet,
    time::timeout,
};

use crate::rig::{Done, Rig, SOCKET, SOON, container, free_port, published, socket_path, with};

fn is_silent<T: std::fmt::Debug>(answer: Result<T, DriverError>) {
    assert!(matches!(answer, Err(DriverError::Silent { runtime: "docker", .. })), "{answer:?}");
}

#[tokio::test]
async fn docker_away_is_silence_and_docker_back_is_noticed() -> Done {
    let rig = Rig::new().await?;
    let (_folder, path) = socket_path()?;
    let driver = Rig::driver(&path, &rig.owner);
    let run = rig.run(&[]);
    is_silent(driver.list().await);
    is_silent(driver.prepare(&run).await);
    is_silent(driver.start(&run).await);
    let probe = driver.probe().await;
    assert!(!probe.healthy && !probe.reason.is_empty() && probe.version.is_empty(), "{probe:?}");

    // A socket that nobody listens on.
    drop(UnixListener::bind(&path)?);
    is_silent(driver.list().await);

    std::fs::remove_file(&path)?;
    std::os::unix::fs::symlink(SOCKET, &path)?;
    let probe = driver.probe().await;
    assert!(probe.healthy && probe.reason.is_empty() && !probe.version.is_empty(), "{probe:?}");
    driver.start(&run).await?;
    let seen = rig.only().await?;

    // Away again, after it had answered.
    std::fs::remove_file(&path)?;
    is_silent(driver.stop(&seen, 0).await);
    is_silent(driver.remove(&seen).await);
    assert_eq!(rig.only().await?, seen);
    Ok(())
}

#[tokio::test]
async fn docker_hanging_is_silence_after_the_deadline() -> Done {
    let rig = Rig::new().await?;
    let (_folder, path) = socket_path()?;
    let _listener = UnixListener::bind(&path)?;
    is_silent(timeout(SOON, Rig::driver(&path, &rig.owner).list()).await?);
    Ok(())
}

/// Passes connections on to Docker until it is dropped, which cuts them.
struct Cable(#[expect(dead_code, reason = "held for its drop")] JoinSet<()>);

impl Cable {
    fn new(path: &Path) -> std::io::Result<Self> {
        let listener = UnixListener::bind(path)?;
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((mut near, _)) = listener.accept().await {
                connections.spawn(async move {
                    let mut far = UnixStream::connect(SOCKET).await?;
                    copy_bidirectional(&mut near, &mut far).await
                });
            }
        });
        Ok(Self(tasks))
    }
}

async fn await_hint(hints: &mut BoxStream<'static, Hint>, wanted: &Hint) -> Done {
    let found = async {
        while let Some(hint) = hints.next().await {
            if hint == *wanted {
                return Ok(());
            }
        }
        Err("the hints ended".into())
    };
    timeout(SOON, found).await?
}

#[tokio::test]
async fn hints_come_and_a_gap_is_told() -> Done {
    let rig = Rig::new().await?;
    let (_folder, path) = socket_path()?;
    let driver = Rig::driver(&path, &rig.owner);
    let mut hints = driver.hints();
    let cable = Cable::new(&path)?;
    await_hint(&mut hints, &Hint::Anything).await?;

    let run = rig.run(&["/bin/sleep", "3600"]);
    let about_it = Hint::Instance(run.mark.instance);
    let seen = rig.driver.start(&run).await?;
    await_hint(&mut hints, &about_it).await?;
    // Create and start may have been told each; the end is what comes after them.
    rig.kill(&seen).await?;
    rig.await_end(&run.mark.task).await?;
    for _ in 0..2 {
        await_hint(&mut hints, &about_it).await?;
    }

    drop(cable);
    std::fs::remove_file(&path)?;
    let _cable = Cable::new(&path)?;
    await_hint(&mut hints, &Hint::Anything).await?;
    rig.driver.start(&run).await?;
    await_hint(&mut hints, &about_it).await?;
    Ok(())
}

/// Taking down a published port takes Docker a while, and its lists show the end only after that.
#[tokio::test]
async fn once_an_end_is_told_it_can_be_seen() -> Done {
    let rig = Rig::new().await?;
    let port = free_port()?;
    let run =
        with(rig.run_of(vec![("web", container(&[]))]), |order| order.ports = vec![published(8080, port)]);
    let mut hints = rig.driver.hints();
    await_hint(&mut hints, &Hint::Anything).await?;
    let seen = rig.driver.start(&run).await?;
    let about_it = Hint::Instance(run.mark.instance);
    // Its create and its start.
    for _ in 0..2 {
        await_hint(&mut hints, &about_it).await?;
    }
    // What was seen running is not looked at closely any more.
    rig.only().await?;
    let told = async {
        await_hint(&mut hints, &about_it).await?;
        rig.only().await
    };
    // At the same time: a kill is answered only when all is over.
    let (killed, told) = tokio::join!(rig.kill(&seen), told);
    killed?;
    let phase = told?.phase;
    assert!(matches!(phase, Phase::Ended { .. }), "{phase:?}");
    Ok(())
}
