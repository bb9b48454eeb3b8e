//! What keeps boroughs apart on one host: a network each, and no capability beyond what a server needs.

use std::{collections::HashMap, path::Path, process::Command, time::Duration};

use bollard::{
    models::{Ipam, IpamConfig, NetworkCreateRequest},
    query_parameters::ListNetworksOptions,
};
use supercloud_agent::{
    docker::{DockerDriver, DockerSettings},
    driver::{Driver, DriverError, Phase, Seen, TaskRun},
};
use supercloud_proto::v1::exec_response::Message as Output;
use tokio::time::{Instant, sleep};

use crate::{
    rig::{Done, FOREIGN, Rig, SOCKET, SOON, free_port, named, published, with},
    talk,
};

type Tried<T> = Result<T, Box<dyn std::error::Error>>;

/// CHOWN, DAC_OVERRIDE, FOWNER, KILL, SETGID, SETUID, NET_BIND_SERVICE: bits 0, 1, 3, 5, 6, 7, 10.
const CAPABILITIES: &str = "00000000000004eb";

/// The same container for another borough, as another instance.
fn of(run: TaskRun, borough: &str, ordinal: u16) -> TaskRun {
    let mut run = with(run, |order| {
        order.workload.borough = named(borough);
        order.instance.ordinal = ordinal.into();
    });
    run.mark.workload = run.order.workload.clone();
    run.mark.instance = run.order.instance;
    run
}

/// Names of the cluster's networks.
async fn networks(rig: &Rig) -> Tried<Vec<String>> {
    let label = format!("supercloud.cluster={}", rig.owner.cluster);
    let filters = HashMap::from([("label".to_owned(), vec![label])]);
    let found = rig.docker.list_networks(Some(ListNetworksOptions { filters: Some(filters) })).await?;
    let mut names: Vec<String> = found.into_iter().filter_map(|network| network.name).collect();
    names.sort();
    Ok(names)
}

fn network_of(rig: &Rig, borough: &str) -> String {
    format!("sc-{}-host-1.{borough}", &rig.owner.cluster[..8])
}

/// A container's address in the one network that it is on.
async fn address(rig: &Rig, seen: &Seen, borough: &str) -> Tried<String> {
    let found = rig.docker.inspect_container(&seen.runtime_id, None).await?;
    let mut on = found.network_settings.and_then(|settings| settings.networks).unwrap_or_default();
    let only = on.remove(&network_of(rig, borough)).ok_or("not on its borough's network")?;
    assert!(on.is_empty(), "on others as well: {on:?}");
    Ok(only.ip_address.filter(|address| !address.is_empty()).ok_or("no address")?)
}

/// Whether a container's own page is seen from another container, tried once.
async fn sees_page(rig: &Rig, from: &Seen, address: &str) -> Tried<bool> {
    let url = format!("http://{address}:8080/");
    let (_, code) = talk::run(rig, from, &["/bin/timeout", "2", "/bin/wget", "-q", "-O", "-", &url]).await?;
    Ok(code == 0)
}

async fn await_page(rig: &Rig, from: &Seen, address: &str) -> Done {
    let deadline = Instant::now() + SOON;
    while !sees_page(rig, from, address).await? {
        assert!(Instant::now() < deadline, "no page at {address}");
        sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

#[tokio::test]
async fn a_borough_reaches_its_own_containers_and_no_others() -> Done {
    let rig = Rig::new().await?;
    let port = free_port()?;
    let open = with(rig.run(&[]), |order| order.ports = vec![published(8080, port)]);
    let camden = rig.driver.start(&of(open, "camden", 0)).await?;
    let neighbour = rig.driver.start(&of(rig.run(&[]), "camden", 1)).await?;
    let hackney = rig.driver.start(&of(rig.run(&[]), "hackney", 2)).await?;
    assert_eq!(networks(&rig).await?, [network_of(&rig, "camden"), network_of(&rig, "hackney")]);

    let theirs = address(&rig, &camden, "camden").await?;
    let own = address(&rig, &hackney, "hackney").await?;
    assert!(theirs.starts_with("10.213.") && own.starts_with("10.213."), "{theirs} {own}");
    // First that the pages are there, so that not to see one means to be kept from it.
    await_page(&rig, &neighbour, &theirs).await?;
    await_page(&rig, &hackney, &own).await?;
    assert!(!sees_page(&rig, &hackney, &theirs).await?, "hackney reaches camden");
    assert!(!sees_page(&rig, &neighbour, &own).await?, "camden reaches hackney");
    assert!(talk::http_get(port).await?.contains("Hello from Supercloud."), "what is published is for all");
    Ok(())
}

/// Lets everything pass between two addresses, as far as Docker's rules go, until it is dropped.
struct Opened([String; 2]);

impl Opened {
    fn between(one: &str, other: &str) -> Tried<Self> {
        let opened = Self([one.to_owned(), other.to_owned()]);
        opened.each_way("-I")?;
        Ok(opened)
    }

    fn each_way(&self, act: &str) -> Done {
        let Self([one, other]) = self;
        for (from, to) in [(one, other), (other, one)] {
            let rule = ["--wait", act, "FORWARD", "-s", from, "-d", to, "-j", "ACCEPT"];
            if !Command::new("iptables").args(rule).status()?.success() {
                return Err(format!("iptables {rule:?} failed").into());
            }
        }
        Ok(())
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        if let Err(error) = self.each_way("-D") {
            eprintln!("a rule stays: {error}");
        }
    }
}

/// Docker itself opens such a hole for some milliseconds whenever a network is made.
#[tokio::test]
async fn boroughs_stay_apart_while_docker_lets_everything_pass() -> Done {
    let rig = Rig::new().await?;
    let camden = rig.driver.start(&of(rig.run(&[]), "camden", 0)).await?;
    let neighbour = rig.driver.start(&of(rig.run(&[]), "camden", 1)).await?;
    let hackney = rig.driver.start(&of(rig.run(&[]), "hackney", 2)).await?;
    let theirs = address(&rig, &camden, "camden").await?;
    await_page(&rig, &neighbour, &theirs).await?;
    let _open = Opened::between(&theirs, &address(&rig, &hackney, "hackney").await?)?;
    assert!(!sees_page(&rig, &hackney, &theirs).await?, "hackney reaches camden");
    Ok(())
}

#[tokio::test]
async fn a_network_goes_with_the_last_container() -> Done {
    let rig = Rig::new().await?;
    let first = rig.driver.start(&of(rig.run(&[]), "camden", 0)).await?;
    let second = rig.driver.start(&of(rig.run(&[]), "camden", 1)).await?;
    rig.driver.stop(&second, 0).await?;
    rig.driver.remove(&first).await?;
    assert_eq!(networks(&rig).await?, [network_of(&rig, "camden")], "one that has ended may run again");
    rig.driver.remove(&second).await?;
    assert_eq!(networks(&rig).await?, [""; 0]);
    Ok(())
}

#[tokio::test]
async fn a_start_beside_the_removal_of_the_last_has_its_network() -> Done {
    let rig = Rig::new().await?;
    let mut before = rig.driver.start(&of(rig.run(&[]), "camden", 0)).await?;
    for round in 1..=6 {
        let next = of(rig.run(&[]), "camden", round);
        // Another driver, so that nothing within one of them keeps the two apart.
        let other = Rig::driver(Path::new(SOCKET), &rig.owner);
        let (removed, started) = tokio::join!(rig.driver.remove(&before), other.start(&next));
        removed?;
        before = started?;
        assert!(matches!(before.phase, Phase::Running { .. }), "{before:?}");
        address(&rig, &before, "camden").await?;
        assert_eq!(networks(&rig).await?, [network_of(&rig, "camden")]);
    }
    Ok(())
}

#[tokio::test]
async fn a_network_that_was_taken_away_comes_back_with_the_next_start() -> Done {
    let rig = Rig::new().await?;
    let port = free_port()?;
    let open = with(rig.run(&[]), |order| order.ports = vec![published(8080, port)]);
    let run = of(open, "camden", 0);
    let seen = rig.driver.start(&run).await?;
    rig.driver.stop(&seen, 0).await?;
    let lose = async || rig.docker.remove_network(&network_of(&rig, "camden")).await;
    lose().await?;
    let again = rig.driver.start(&run).await?;
    assert_eq!(again.runtime_id, seen.runtime_id);
    await_page(&rig, &again, &address(&rig, &again, "camden").await?).await?;
    assert!(talk::http_get(port).await?.contains("Hello from Supercloud."), "its port is published again");

    // The same when another container of the borough had the network made already.
    rig.driver.stop(&again, 0).await?;
    lose().await?;
    let neighbour = rig.driver.start(&of(rig.run(&[]), "camden", 1)).await?;
    let again = rig.driver.start(&run).await?;
    await_page(&rig, &neighbour, &address(&rig, &again, "camden").await?).await
}

#[tokio::test]
async fn a_network_that_is_not_ours_is_neither_used_nor_removed() -> Done {
    let rig = Rig::new().await?;
    let name = network_of(&rig, "camden");
    let labels = HashMap::from([(FOREIGN.to_owned(), rig.owner.cluster.clone())]);
    let range = IpamConfig { subnet: Some(some_range()), ..IpamConfig::default() };
    let foreign = NetworkCreateRequest {
        name: name.clone(),
        labels: Some(labels),
        ipam: Some(Ipam { config: Some(vec![range]), ..Ipam::default() }),
        ..NetworkCreateRequest::default()
    };
    rig.docker.create_network(foreign).await?;
    match rig.driver.start(&of(rig.run(&[]), "camden", 0)).await {
        Err(DriverError::Refused(reason)) => {
            assert!(reason.contains(&name) && reason.contains("not this borough's"), "{reason}");
        }
        other => panic!("{other:?}"),
    }
    let other = rig.driver.start(&of(rig.run(&[]), "hackney", 1)).await?;
    rig.driver.remove(&other).await?;
    rig.docker.inspect_network(&name, None).await?;
    Ok(())
}

#[tokio::test]
async fn no_network_left_is_said_in_words() -> Done {
    let rig = Rig::new().await?;
    let pool = some_range();
    let settings = DockerSettings { networks: pool.parse()?, ..DockerSettings::default() };
    let driver = DockerDriver::connect(Path::new(SOCKET), rig.owner.clone(), settings);
    let seen = driver.start(&of(rig.run(&[]), "camden", 0)).await?;
    match driver.start(&of(rig.run(&[]), "hackney", 1)).await {
        Err(DriverError::Refused(reason)) => {
            assert!(reason.contains("borough hackney") && reason.contains(&pool), "{reason}");
        }
        other => panic!("{other:?}"),
    }
    driver.remove(&seen).await?;
    driver.start(&of(rig.run(&[]), "hackney", 1)).await?;
    Ok(())
}

/// A range that no other test is likely to take, outside the default pool.
fn some_range() -> String {
    let n: u16 = rand::random();
    format!("10.{}.{}.0/24", 224 + n / 256 % 16, n % 256)
}

#[tokio::test]
async fn root_in_a_container_may_do_little() -> Done {
    let rig = Rig::new().await?;
    let seen = rig.driver.start(&rig.run(&[])).await?;
    for process in ["1", "self"] {
        let status = format!("/proc/{process}/status");
        let (output, code) = talk::run(&rig, &seen, &["/bin/grep", "^Cap", &status]).await?;
        assert_eq!(code, 0, "{output:?}");
        let bytes = output.into_iter().flat_map(|part| match part {
            Output::Stdout(bytes) => bytes,
            _ => Vec::new(),
        });
        let text = String::from_utf8(bytes.collect())?;
        let of = |set: &str| text.lines().find_map(|line| Some(line.strip_prefix(set)?.trim().to_owned()));
        assert_eq!(of("CapBnd:").as_deref(), Some(CAPABILITIES), "{text}");
        assert_eq!(of("CapEff:").as_deref(), Some(CAPABILITIES), "{text}");
    }
    Ok(())
}
