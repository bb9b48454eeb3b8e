//! Started, adopted, ended, stopped, removed; and what is not ours is left alone.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use bollard::{
    models::{ContainerCreateBody, VolumeCreateRequest},
    query_parameters::{CreateContainerOptions, RemoveVolumeOptions},
};
use supercloud_agent::{
    devices::DeviceSettings,
    docker::{DockerDriver, DockerSettings},
    driver::{Driver, DriverError, Mark, Phase, TaskRun},
};
use supercloud_proto::{
    device::{GivenDevice, Share},
    spec::{Driver as Spec, Mount},
};
use tokio::time::{Instant, timeout};

use crate::rig::{Done, FOREIGN, IMAGE, Rig, container, named, shell, with};

#[tokio::test]
async fn a_life_from_start_to_removal() -> Done {
    let rig = Rig::new().await?;
    let run = rig.run(&["/bin/sh", "-c", "echo ready; exec sleep 3600"]);
    rig.driver.prepare(&run).await?;
    let first = rig.driver.start(&run).await?;
    assert!(matches!(first.phase, Phase::Running { since: Some(_) }), "{first:?}");
    assert_eq!(first.mark, run.mark);
    assert_eq!(rig.driver.start(&run).await?, first, "a second start adopts");
    assert_eq!(rig.only().await?, first);

    rig.kill(&first).await?;
    let end = rig.await_end(&run.mark.task).await?;
    assert_eq!(end, (Some(137), "killed by signal 9 (SIGKILL)".to_owned()));

    let again = rig.driver.start(&run).await?;
    assert_eq!(again.runtime_id, first.runtime_id);
    assert!(matches!(again.phase, Phase::Running { .. }), "{again:?}");
    assert_ne!(again.phase, first.phase, "it runs since a later time");
    assert_eq!(rig.only().await?, again);

    // In its first moments a container's first process hears no signals.
    crate::talk::lines(&rig, &again, 2).await?;
    rig.driver.stop(&again, 5_000).await?;
    assert_eq!(rig.await_end(&run.mark.task).await?.0, Some(143));
    rig.driver.stop(&again, 5_000).await?;
    rig.driver.remove(&again).await?;
    assert_eq!(rig.driver.list().await?, []);
    rig.driver.remove(&again).await?;
    assert!(matches!(rig.driver.stop(&again, 0).await, Err(DriverError::Missing)));
    Ok(())
}

#[tokio::test]
async fn an_agent_that_lost_its_memory_adopts_by_a_later_order() -> Done {
    let rig = Rig::new().await?;
    let run = rig.run(&[]);
    let first = rig.driver.start(&run).await?;
    let later = TaskRun { mark: Mark { order_index: 99, ..run.mark.clone() }, ..run };
    let adopted = Rig::driver(crate::rig::SOCKET.as_ref(), &rig.owner).start(&later).await?;
    assert_eq!(adopted.runtime_id, first.runtime_id);
    assert_eq!(adopted.mark.order_index, 50, "the mark says what made it");
    Ok(())
}

/// A driver of the same owner on a host whose one device has this node.
fn with_device(rig: &Rig, node: &str) -> DockerDriver {
    let device = DeviceSettings {
        kind: named("gpu"),
        model: "T4".to_owned(),
        labels: BTreeMap::new(),
        shared: false,
        nodes: vec![node.into()],
        env: BTreeMap::new(),
        pci: None,
    };
    let settings = DockerSettings { devices: [(named("gpu0"), device)].into(), ..DockerSettings::default() };
    DockerDriver::connect(crate::rig::SOCKET.as_ref(), rig.owner.clone(), settings)
}

#[tokio::test]
async fn who_does_not_run_is_made_anew_when_its_device_is_another() -> Done {
    let rig = Rig::new().await?;
    let run = with(rig.run(&[]), |order| {
        order.devices = vec![GivenDevice { name: named("gpu0"), kind: named("gpu"), share: Share::WHOLE }];
    });
    let before = with_device(&rig, "/dev/null");
    let first = before.start(&run).await?;
    rig.kill(&first).await?;
    rig.await_end(&run.mark.task).await?;
    assert_eq!(before.start(&run).await?.runtime_id, first.runtime_id, "the same device: the same container");

    let after = with_device(&rig, "/dev/zero");
    assert_eq!(after.start(&run).await?.runtime_id, first.runtime_id, "what runs is left alone");
    rig.kill(&first).await?;
    rig.await_end(&run.mark.task).await?;
    let second = after.start(&run).await?;
    assert_ne!(second.runtime_id, first.runtime_id);
    assert_eq!(rig.only().await?, second);
    let host = rig.docker.inspect_container(&second.runtime_id, None).await?.host_config.unwrap_or_default();
    let nodes: Vec<_> =
        host.devices.unwrap_or_default().into_iter().filter_map(|node| node.path_on_host).collect();
    assert_eq!(nodes, ["/dev/zero"]);

    rig.kill(&second).await?;
    rig.await_end(&run.mark.task).await?;
    let Err(DriverError::Refused(reason)) = rig.driver.start(&run).await else { panic!("it has no device") };
    assert!(reason.contains("gpu0"), "{reason}");
    Ok(())
}

#[tokio::test]
async fn starts_side_by_side_make_one() -> Done {
    let rig = Rig::new().await?;
    let run = rig.run(&["/bin/sleep", "3600"]);
    let other = Rig::driver(crate::rig::SOCKET.as_ref(), &rig.owner);
    let (a, b) = tokio::join!(rig.driver.start(&run), other.start(&run));
    assert_eq!(a?.runtime_id, b?.runtime_id);
    rig.only().await?;
    Ok(())
}

#[tokio::test]
async fn who_does_not_stop_is_killed_after_the_grace() -> Done {
    let rig = Rig::new().await?;
    let command = shell("trap '' TERM; echo ready");
    let run = rig.run(&command.each_ref().map(String::as_str));
    let seen = rig.driver.start(&run).await?;
    crate::talk::first_line(&rig, &seen).await?;
    let asked = Instant::now();
    rig.driver.stop(&seen, 1_500).await?;
    assert!(asked.elapsed() >= Duration::from_millis(1_500), "{:?}", asked.elapsed());
    assert_eq!(rig.await_end(&run.mark.task).await?.1, "killed by signal 9 (SIGKILL)");
    Ok(())
}

#[tokio::test]
async fn what_is_not_ours_is_neither_seen_nor_touched() -> Done {
    let rig = Rig::new().await?;
    let run = rig.run(&[]);
    let make = async |name: String, labels: &[(&str, &str)]| {
        let mut labels: HashMap<String, String> =
            labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        labels.insert(FOREIGN.to_owned(), rig.owner.cluster.clone());
        let options = CreateContainerOptions { name: Some(name), platform: String::new() };
        let body = ContainerCreateBody {
            image: Some(IMAGE.to_owned()),
            labels: Some(labels),
            ..ContainerCreateBody::default()
        };
        rig.docker.create_container(Some(options), body).await
    };
    let short = &rig.owner.cluster[..8];
    let (cluster, host) = (("supercloud.cluster", rig.owner.cluster.as_str()), ("supercloud.host", "host-1"));
    let squatter = make(format!("sc-{short}-i-2f-0-web"), &[]).await?;
    let damaged =
        make(format!("damaged-{short}"), &[cluster, host, ("supercloud.instance", "i-2F-0")]).await?;
    let neighbour = make(format!("neighbour-{short}"), &[cluster, ("supercloud.host", "host-2")]).await?;
    // As a container looks whose image bears our labels.
    let labels: [(&str, &str); 8] = [
        cluster,
        host,
        ("supercloud.borough", "camden"),
        ("supercloud.workload", "portal"),
        ("supercloud.instance", "i-2f-0"),
        ("supercloud.revision", "1"),
        ("supercloud.task", "web"),
        ("supercloud.order-index", "50"),
    ];
    let pretender = make(format!("pretender-{short}"), &labels).await?;

    assert_eq!(rig.driver.list().await?, []);
    match rig.driver.start(&run).await {
        Err(DriverError::Refused(reason)) => assert!(reason.contains("not ours"), "{reason}"),
        other => panic!("{other:?}"),
    }
    for id in [squatter.id, damaged.id, neighbour.id, pretender.id] {
        rig.docker.inspect_container(&id, None).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_missing_image_is_refused_by_name() -> Done {
    let rig = Rig::new().await?;
    // Nobody listens on port 1, so the pull fails at once.
    let image = "localhost:1/supercloud/none:1";
    let run = with(rig.run(&[]), |order| {
        if let Spec::Container(container) = &mut order.tasks[0].driver {
            container.image = image.to_owned();
        }
    });
    for refused in [rig.driver.prepare(&run).await, rig.driver.start(&run).await.map(|_| ())] {
        match refused {
            Err(DriverError::Refused(reason)) => assert!(reason.contains(image), "{reason}"),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(rig.driver.list().await?, []);
    Ok(())
}

#[tokio::test]
async fn a_command_that_is_not_there_ends_with_a_reason() -> Done {
    let rig = Rig::new().await?;
    let run = rig.run(&["/bin/there-is-none"]);
    match rig.driver.start(&run).await {
        // Docker's init was started, and found nothing to run.
        Ok(_) => {
            let end = rig.await_end(&run.mark.task).await?;
            assert_eq!(end, (Some(127), "exit code 127 (there is no such command)".to_owned()));
        }
        // Without an init Docker itself refuses.
        Err(DriverError::Refused(reason)) => assert!(reason.contains("there-is-none"), "{reason}"),
        other => panic!("{other:?}"),
    }
    Ok(())
}

#[tokio::test]
async fn a_volume_outlives_its_containers_and_is_the_workloads_alone() -> Done {
    let rig = Rig::new().await?;
    let writing = |script: &str| {
        let mut task = container(&["/bin/sh", "-c", script]);
        task.mounts = vec![Mount { volume: named("data"), path: "/data".to_owned(), read_only: false }];
        rig.run_of(vec![("web", task)])
    };
    let write = writing("echo kept > /data/file");
    let seen = rig.driver.start(&write).await?;
    assert_eq!(rig.await_end(&write.mark.task).await?.0, Some(0));
    rig.driver.remove(&seen).await?;
    let read = writing("test $(cat /data/file) = kept");
    let seen = rig.driver.start(&read).await?;
    assert_eq!(rig.await_end(&read.mark.task).await?.0, Some(0));
    rig.driver.remove(&seen).await?;

    // A volume of that name that somebody else made is not ours to mount.
    let name = format!("sc-{}-camden.portal.data", &rig.owner.cluster[..8]);
    rig.docker.remove_volume(&name, None::<RemoveVolumeOptions>).await?;
    let labels = HashMap::from([("supercloud.cluster".to_owned(), rig.owner.cluster.clone())]);
    let foreign = VolumeCreateRequest { name: Some(name), labels: Some(labels), ..Default::default() };
    rig.docker.create_volume(foreign).await?;
    assert!(matches!(rig.driver.start(&read).await, Err(DriverError::Refused(_))));
    Ok(())
}

#[tokio::test]
async fn calls_that_are_dropped_leave_a_driver_that_works() -> Done {
    let rig = Rig::new().await?;
    let run = rig.run(&["/bin/sleep", "3600"]);
    let mut cut_off = 0;
    for millis in [0, 1, 2, 5, 10, 20, 50, 100] {
        cut_off += u32::from(timeout(Duration::from_millis(millis), rig.driver.start(&run)).await.is_err());
    }
    assert!(cut_off > 0, "no call was dropped");
    let seen = rig.driver.start(&run).await?;
    assert!(matches!(seen.phase, Phase::Running { .. }), "{seen:?}");
    assert_eq!(rig.only().await?.runtime_id, seen.runtime_id);
    Ok(())
}
