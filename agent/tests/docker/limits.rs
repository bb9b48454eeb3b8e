//! What a container may use, and what it does use.

use supercloud_agent::driver::{Driver, DriverError};
use supercloud_proto::amount::Bytes;
use tokio::time::{Instant, sleep};

use crate::rig::{Done, Rig, SOON, free_port, published, with};

#[tokio::test]
async fn docker_knows_the_limits() -> Done {
    let rig = Rig::new().await?;
    let seen = rig.driver.start(&rig.run(&[])).await?;
    let found = rig.docker.inspect_container(&seen.runtime_id, None).await?;
    let host = found.host_config.ok_or("no host settings")?;
    assert_eq!((host.nano_cpus, host.cpu_shares), (Some(500_000_000), Some(512)));
    assert_eq!((host.memory, host.memory_swap), (Some(64 << 20), Some(64 << 20)));
    assert_eq!((host.pids_limit, host.init), (Some(64), Some(true)));
    assert_eq!(host.security_opt, Some(vec!["no-new-privileges".to_owned()]));
    assert_eq!(
        host.log_config.and_then(|log| log.config).map(|log| log["max-file"].clone()),
        Some("3".into())
    );
    let config = found.config.ok_or("no settings")?;
    assert_eq!(config.hostname.as_deref(), Some("i-2f-0"));
    assert!(config.env.is_some_and(|env| env.contains(&"MODE=test".to_owned())));

    let usage = rig.driver.usage(&seen).await?;
    assert!((1..=64).contains(&usage.pids), "{usage:?}");
    assert!(usage.cpu_nanos > 0 && usage.memory > Bytes(0) && usage.memory < Bytes(64 << 20), "{usage:?}");
    Ok(())
}

#[tokio::test]
async fn too_much_memory_is_told() -> Done {
    let rig = Rig::new().await?;
    // Docker's own watch for it begins after the start, and its word may come after that of the end.
    let glutton = ["/bin/sh", "-c", "sleep 1; exec tail /dev/zero"];
    let run = with(rig.run(&glutton), |order| order.resources.memory = Bytes(16 << 20));
    rig.driver.start(&run).await?;
    let deadline = Instant::now() + SOON;
    loop {
        let reason = rig.await_end(&run.mark.task).await?.1;
        if reason == "out of memory" {
            return Ok(());
        }
        assert!(Instant::now() < deadline, "{reason}");
        sleep(std::time::Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_published_port_answers_and_cannot_be_given_twice() -> Done {
    let rig = Rig::new().await?;
    let port = free_port()?;
    let run = with(rig.run(&[]), |order| order.ports = vec![published(8080, port)]);
    rig.driver.start(&run).await?;
    let deadline = Instant::now() + SOON;
    loop {
        match crate::talk::http_get(port).await {
            Ok(page) if page.contains("Hello from Supercloud.") => break,
            other => assert!(Instant::now() < deadline, "{other:?}"),
        }
        sleep(std::time::Duration::from_millis(50)).await;
    }

    let mut second = run;
    second.mark.instance.ordinal = 1;
    match rig.driver.start(&second).await {
        Err(DriverError::Refused(reason)) => assert!(reason.contains("allocated"), "{reason}"),
        other => panic!("{other:?}"),
    }
    Ok(())
}
