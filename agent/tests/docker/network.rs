//! Containers of one instance share a network namespace.

use std::time::Duration;

use supercloud_agent::driver::{Driver, DriverError, Phase, Seen, TaskRun};
use supercloud_proto::v1::exec_response::Message as Output;
use tokio::time::{Instant, sleep};

use crate::{
    rig::{Done, Rig, SOON, container},
    talk,
};

fn second(run: &TaskRun) -> TaskRun {
    let mut other = run.clone();
    other.task = 1;
    other.mark.task = run.order.tasks[1].name.clone();
    other
}

/// Whether the page of the first container comes to be seen from inside `seen`.
async fn await_page(rig: &Rig, seen: &Seen) -> Done {
    let deadline = Instant::now() + SOON;
    loop {
        let get = ["/bin/wget", "-q", "-O", "-", "http://127.0.0.1:8080/"];
        let (output, code) = talk::run(rig, seen, &get).await?;
        let page = Output::Stdout(Vec::new());
        if code == 0
            && output.iter().any(|part| std::mem::discriminant(part) == std::mem::discriminant(&page))
        {
            return Ok(());
        }
        assert!(Instant::now() < deadline, "{output:?}, exit code {code}");
        sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn the_first_holds_the_network_of_all() -> Done {
    let rig = Rig::new().await?;
    let web = rig.run_of(vec![("web", container(&[])), ("side", container(&["/bin/sleep", "3600"]))]);
    let side = second(&web);
    let seen_side = rig.driver.start(&side).await?;
    await_page(&rig, &seen_side).await?;
    let seen_web = rig.driver.start(&web).await?;
    assert_eq!(rig.driver.list().await?.len(), 2);

    // The holder comes back with a new namespace, and takes the other with it.
    rig.kill(&seen_web).await?;
    rig.await_end(&web.mark.task).await?;
    rig.driver.start(&web).await?;
    let moved = rig.driver.start(&side).await?;
    assert_eq!(moved.runtime_id, seen_side.runtime_id);
    assert!(matches!(moved.phase, Phase::Running { .. }), "{moved:?}");
    await_page(&rig, &moved).await?;

    // Without the holder there is no network to join.
    rig.driver.stop(&moved, 0).await?;
    rig.kill(&seen_web).await?;
    rig.await_end(&web.mark.task).await?;
    match rig.driver.start(&side).await {
        Err(DriverError::Refused(reason)) => {
            assert!(reason.contains("task web holds the network"), "{reason}")
        }
        other => panic!("{other:?}"),
    }
    Ok(())
}
