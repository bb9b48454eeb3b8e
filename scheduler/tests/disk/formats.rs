//! Data directories that earlier versions wrote, opened by this one: everything is there, and the node serves, writes, takes snapshots and starts
//! again. How they are made stands in `tests/formats/README.md`.

use std::{
    path::{Path, PathBuf},
    process::Command as Program,
};

use supercloud_proto::{
    amount::{Bytes, Mbits, MilliCpu},
    cores::{Cpu, NumaNode},
    device::Device,
    host::Inventory,
    id::{HostId, InstanceId},
    instance::{Desired, InstanceReport, InstanceState},
    name::WorkloadKey,
    pki::Trust,
    spec::{Class, WorkloadSpec, parse},
    v1::{self, borough_service_client::BoroughServiceClient},
};
use supercloud_scheduler::{
    archive::EventFilter,
    commands::{self, Addresses},
    core::{Core, Settings},
    home::Home,
    peers::PeerTrust,
    raft::{NodeId, SnapshotPolicy},
    state::{
        Allowance, Borough, BoroughChange, Command, Done, Grant, Packing, SiteChange, SitePolicy, State,
        level::KNOWN,
    },
};

use crate::support::{Outcome, connect, dev_node, hello, until};

/// Snapshots often, and little log kept, so that a small directory holds all that a large one does.
const OFTEN: SnapshotPolicy = SnapshotPolicy { entries: 25, bytes: 1 << 20, tail: 4 };
/// When tokens of a fixture lapse: the year 2100.
const FAR: u64 = 4_102_444_800_000;

const FIRST: &str = "
workload: portal
borough: camden
kind: service
count: 3
container:
  image: registry.example/portal:1
  command: [ /bin/serve ]
  env: { MODE: live }
  ports: { http: 8080, admin: { port: 9000, host: 80 } }
  mounts: [ { volume: data, path: /data } ]
resources: { cpu: 250m, memory: 64MiB, disk: 1GiB }
place:
  sites: [ hounslow ]
  require: [ 'arch == amd64' ]
  distinct_hosts: true
restart: { attempts: 3, within: 10m, delay: 1s, max_delay: 1m }
---
workload: records
borough: hackney
kind: service
count: 1
vm:
  image: { path: /var/lib/supercloud/images/debian-12.qcow2 }
  cloud_init: { user_data: \"#cloud-config\\n\" }
  disks: [ { name: data, size: 20GiB } ]
resources: { cpu: 1, memory: 1GiB, disk: 20GiB }
---
workload: gone
borough: hackney
kind: service
count: 1
container: { image: 'registry.example/gone:1' }
resources: { cpu: 100m, memory: 16MiB }
---
workload: too-large
borough: hackney
kind: service
count: 2
container: { image: 'registry.example/large:1' }
resources: { cpu: 900, memory: 16MiB }
---
workload: rendering
borough: hackney
kind: service
count: 2
container: { image: 'registry.example/rendering:1' }
resources:
  cpu: 100m
  memory: 16MiB
  devices: [ { kind: gpu, share: 0.5, models: [ T4 ], require: [ 'label.memory >= 8' ] } ]
place: { tolerate: [ gpu ], require: [ 'arch not in [riscv64]' ] }
---
workload: squad
borough: camden
kind: service
count: 2
priority: 70
class: guaranteed
container: { image: 'registry.example/squad:1' }
resources: { cpu: 500m, memory: 16MiB, network: 200Mbps }
place:
  apart: [ portal-batch ]
  all_or_none: true
  spread: [ site, { over: label.tier, shares: { gold: 2, silver: 1 } } ]
---
workload: beside
borough: camden
kind: service
count: 1
class: spare
container: { image: 'registry.example/beside:1' }
resources: { cpu: 50m, memory: 16MiB }
place: { together: [ squad ], private: true }
---
workload: precise
borough: hackney
kind: service
count: 1
container: { image: 'registry.example/precise:1' }
resources: { cpu: 2, memory: 16MiB, dedicated: true, numa: one }
place: { tolerate: [ cores ] }
---
workload: urgent
borough: camden
kind: service
count: 1
priority: 80
container: { image: 'registry.example/urgent:1' }
resources: { cpu: 100m, memory: 16MiB, devices: [ { kind: gpu, share: 0.5 } ] }
place: { tolerate: [ gpu ] }
";

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/formats")
}

/// How a line about where volumes live begins. What is older than these has none, and gets them once its level is raised.
const HOME: &str = "  home of";

/// The state in words, a line a record, of what no time that passes changes.
fn told(state: &State) -> String {
    let mut lines = vec![format!("cluster {}", state.cluster_id().unwrap_or("none"))];
    lines.extend(state.boroughs().values().map(|borough| told_of_borough(borough)));
    lines.extend(state.sites().iter().map(|(name, policy)| {
        let SitePolicy { standard_cpu_percent, spare_cpu_percent, packing, cost } = policy;
        let packing = packing.as_str();
        format!("site {name}: {standard_cpu_percent} %, spare {spare_cpu_percent} %, {packing}, cost {cost}")
    }));
    for workload in state.workloads().values() {
        let (key, now) = (&workload.key, workload.current());
        lines.push(format!("workload {key} wanted {} stopped {}", workload.wanted(), workload.stopped));
        lines.extend(workload.revisions.iter().map(|kept| {
            let spec = &kept.spec;
            format!(
                "  revision {} by {}: {} of {}",
                kept.revision, kept.applied_by, spec.count, spec.resources.cpu.0
            )
        }));
        lines.push(format!("  priority {} grace {}", now.spec.priority, now.spec.stop_grace));
        lines.extend(told_of_fourth(&now.spec));
        let homes = state.homes_of(key).into_iter().flat_map(|homes| homes.iter());
        lines.extend(homes.map(|home| format!("{HOME} {} on {}", home.slot, home.host)));
    }
    lines.extend(state.hosts().values().map(|host| {
        let capacity = host.inventory.capacity;
        let network = Some(host.inventory.network.0).filter(|mbits| *mbits > 0);
        let network: String = network.map(|mbits| format!(" network {mbits}")).into_iter().collect();
        format!("host {} {} {} open {}{network}", host.id, host.name, capacity.cpu.0, host.schedulable)
    }));
    lines.extend(state.instances().values().map(|instance| {
        let placed = instance.placed.as_ref();
        let host =
            placed.map_or("nowhere".to_owned(), |placed| format!("on {} {:?}", placed.host, placed.ports));
        let (state, desired) = (instance.state.as_str(), instance.desired);
        let devices: String = instance.devices().map(|(device, _)| format!(" with {device}")).collect();
        let cores: String = instance.cores().map(|cores| format!(" on {cores:?}")).into_iter().collect();
        format!(
            "instance {} of {} {host}: {state}, {desired:?}, order {}{devices}{cores}",
            instance.id,
            instance.workload(),
            instance.order_index
        )
    }));
    lines.join("\n") + "\n"
}

fn told_of_borough(borough: &Borough) -> String {
    let mut line = format!("borough {} {:?}", borough.name, borough.title);
    let Allowance { quota, guarantee, weight, max_priority, private_hosts } = &borough.allowance;
    if borough.allowance != Allowance::default() {
        let most = quota.cpu.map_or("all".to_owned(), |most| most.0.to_string());
        line += &format!(" quota {most} guarantee {} weight {weight}", guarantee.cpu.0);
        line += &format!(" priority {max_priority} private {private_hosts}");
    }
    line
}

/// What level 4 brought to specs, where a spec has something of it.
fn told_of_fourth(spec: &WorkloadSpec) -> Option<String> {
    let (place, network) = (&spec.place, spec.resources.network.0);
    let plain = spec.class == Class::default() && network == 0 && !place.private && !place.all_or_none;
    (!plain).then(|| {
        let spread: Vec<String> = place.spread.iter().map(|over| format!("{over:?}")).collect();
        let others: Vec<&str> = place.apart.iter().chain(&place.together).map(|name| name.as_str()).collect();
        format!(
            "  {} network {network} private {} gang {} spread {} others {}",
            spec.class.as_str(),
            place.private,
            place.all_or_none,
            spread.join(" "),
            others.join(" ")
        )
    })
}

/// A core on a directory that `init` made, without peers.
async fn open(data: &Path, snapshots: SnapshotPolicy) -> Outcome<Core> {
    let home = Home::open(data)?;
    let record = home.known_record()?;
    let (cluster, node) = (record.cluster.clone(), NodeId(record.node));
    let settings =
        Settings { snapshots, ..Settings::new(cluster, node, data.to_owned(), record.peer_address.clone()) };
    let core = Core::start(settings, home.start(&record)?, PeerTrust::Plain).await?;
    home.note_started(record)?;
    serves(&core).await?;
    Ok(core)
}

async fn serves(core: &Core) -> Outcome {
    until("the node serves", || async {
        Ok(core.read().await.ok().filter(|state| state.cluster_id().is_some()).map(drop))
    })
    .await
}

async fn must(core: &Core, command: Command) -> Outcome<Done> {
    Ok(core.propose("operator:anna", "", command).await?.result?)
}

async fn borough(core: &Core, name: &str) -> Outcome {
    must(core, Command::CreateBorough { name: name.parse()?, title: format!("The borough of {name}") })
        .await?;
    Ok(())
}

async fn register(core: &Core, name: &str) -> Outcome<HostId> {
    let mut inventory: Inventory = hello(name, name).inventory.ok_or("no inventory")?.try_into()?;
    inventory.network = Mbits(1_000);
    let command = Command::RegisterHost {
        name: name.parse()?,
        inventory: Box::new(inventory),
        incarnation: name.to_owned(),
    };
    match must(core, command).await? {
        Done::Registered(host) => Ok(host),
        other => Err(format!("not registered: {other:?}").into()),
    }
}

/// A host with a device, kept for those who need it.
async fn register_with_device(core: &Core) -> Outcome {
    let mut inventory: Inventory = hello("h4", "h4").inventory.ok_or("no inventory")?.try_into()?;
    let (kind, model, labels) = ("gpu".parse()?, "T4".to_owned(), [("memory".to_owned(), "16".to_owned())]);
    let device = Device { kind, model, labels: labels.into(), shared: true, fault: String::new(), pci: None };
    inventory.devices.insert("gpu0".parse()?, device);
    inventory.taints.insert("gpu".to_owned(), String::new());
    let (name, inventory, incarnation) = ("h4".parse()?, Box::new(inventory), "h4".to_owned());
    must(core, Command::RegisterHost { name, inventory, incarnation }).await?;
    Ok(())
}

/// A host with two NUMA nodes of two cores each, kept for those who need cores.
async fn register_with_nodes(core: &Core) -> Outcome {
    let mut inventory: Inventory = hello("h5", "h5").inventory.ok_or("no inventory")?.try_into()?;
    let cpu = |number: u16| Cpu { core: number, number, kept: false };
    let node = |number: u16| {
        let cpus = vec![cpu(2 * number), cpu(2 * number + 1)];
        NumaNode { number, memory: Bytes(2 << 30), cpus }
    };
    inventory.nodes = vec![node(0), node(1)];
    inventory.taints.insert("cores".to_owned(), String::new());
    let (name, inventory, incarnation) = ("h5".parse()?, Box::new(inventory), "h5".to_owned());
    must(core, Command::RegisterHost { name, inventory, incarnation }).await?;
    Ok(())
}

async fn report(core: &Core, instance: InstanceId, state: InstanceState, sequence: u64) -> Outcome {
    let view = core.view();
    let found = view.instance(instance).ok_or("no such instance")?;
    let report = InstanceReport {
        instance,
        sequence,
        order_index: found.order_index,
        state,
        reason: "exit code 1".to_owned(),
        tasks: Vec::new(),
        time: 1,
        unordered: false,
    };
    let host = found.host().ok_or("it has no host")?;
    must(core, Command::Report { host, reports: vec![report] }).await?;
    Ok(())
}

/// What a borough gets that may have much.
fn generous() -> BoroughChange {
    BoroughChange {
        quota_cpu: Some(Some(MilliCpu(50_000))),
        guarantee_cpu: Some(MilliCpu(2_000)),
        weight: Some(300),
        max_priority: Some(90),
        private_hosts: Some(2),
        ..BoroughChange::default()
    }
}

fn key(text: &str) -> Outcome<WorkloadKey> {
    let (borough, workload) = text.split_once('/').ok_or("a borough and a workload")?;
    Ok(WorkloadKey { borough: borough.parse()?, workload: workload.parse()? })
}

/// Instances of a workload that are wanted and have a host.
fn placed(state: &State, workload: &str) -> Outcome<Vec<InstanceId>> {
    let key = key(workload)?;
    let wanted = state.instances_of(&key).filter(|i| i.desired == Desired::Run && i.placed.is_some());
    Ok(wanted.map(|instance| instance.id).collect())
}

async fn all_placed(core: &Core, workload: &str, count: usize) -> Outcome<Vec<InstanceId>> {
    until(workload, || async {
        Ok(Some(placed(&core.view(), workload)?).filter(|found| found.len() == count))
    })
    .await
}

/// Fills a node with one of everything: before its newest snapshot, and in the log after it.
async fn fill(core: &Core) -> Outcome {
    until("the level is raised", || async { Ok((core.view().level() == KNOWN).then_some(())) }).await?;
    borough(core, "camden").await?;
    borough(core, "hackney").await?;
    must(core, Command::SetBorough { name: "camden".parse()?, change: generous() }).await?;
    let packing = Some(Packing::Spread);
    let change =
        SiteChange { standard_cpu_percent: Some(150), packing, cost: Some(3), ..SiteChange::default() };
    must(core, Command::SetSite { name: "hounslow".parse()?, change }).await?;
    let mut specs = parse(FIRST)?;
    let (urgent, others) = specs.split_last().ok_or("no specs")?;
    for spec in others {
        must(core, Command::ApplyWorkload { spec: Box::new(spec.clone()), expect_revision: None }).await?;
    }
    for name in ["h1", "h2", "h3"] {
        register(core, name).await?;
    }
    register_with_device(core).await?;
    register_with_nodes(core).await?;
    all_placed(core, "hackney/precise", 1).await?;
    all_placed(core, "hackney/rendering", 2).await?;
    all_placed(core, "camden/squad", 2).await?;
    must(core, Command::ApplyWorkload { spec: Box::new(urgent.clone()), expect_revision: None }).await?;
    all_placed(core, "hackney/rendering", 1).await?;
    let portal = all_placed(core, "camden/portal", 3).await?;
    for (instance, sequence) in portal.iter().zip(1..) {
        report(core, *instance, InstanceState::Running, sequence).await?;
    }
    let gone = all_placed(core, "hackney/gone", 1).await?;
    report(core, gone[0], InstanceState::Failed, 5).await?;
    all_placed(core, "hackney/gone", 1).await?;
    must(core, Command::StopWorkload { key: key("hackney/gone")?, purge: false }).await?;
    specs[0].count = 2;
    must(core, Command::ApplyWorkload { spec: Box::new(specs[0].clone()), expect_revision: Some(1) }).await?;
    specs[3].priority = 60;
    must(core, Command::ApplyWorkload { spec: Box::new(specs[3].clone()), expect_revision: None }).await?;
    for (number, grant) in [Grant::Scheduler, Grant::Agent("h4".parse()?), Grant::Operator("bob".to_owned())]
        .into_iter()
        .chain([Grant::Borough("camden".parse()?, "carol".to_owned())])
        .enumerate()
    {
        let id = format!("token-{number}");
        must(core, Command::CreateToken { id, secret_hash: vec![number as u8; 32], grant, expires: FAR })
            .await?;
    }
    core.propose(
        "operator:anna",
        "remembered",
        Command::CreateBorough { name: "brent".parse()?, title: String::new() },
    )
    .await?
    .result?;
    let mut newest = core.nodes();
    newest.wait_for(|status| status.snapshot > 1).await?;
    // What stands in the log alone.
    borough(core, "ealing").await?;
    specs[3].resources.cpu.0 += 1;
    must(core, Command::ApplyWorkload { spec: Box::new(specs[3].clone()), expect_revision: None }).await?;
    must(core, Command::SetSchedulable { name: "h3".parse()?, schedulable: false }).await?;
    must(core, Command::UseToken { id: "token-1".to_owned(), secret_hash: vec![1; 32] }).await?;
    Ok(())
}

/// The state, once the rollout of what fits nowhere is over.
async fn rolled_out(core: &Core) -> Outcome<Option<String>> {
    let state = core.view();
    let large = key("hackney/too-large")?;
    let present = state.workload(&large).ok_or("it is not there")?.current().revision;
    let over = state.instances_of(&large).all(|instance| instance.revision() == present);
    Ok(over.then(|| told(&state)))
}

/// Writes the fixture of this version's format.
#[tokio::test]
#[ignore = "writes a fixture: see tests/formats/README.md"]
async fn write_the_fixture_of_this_format() -> Outcome {
    let out = PathBuf::from(
        std::env::var("SUPERCLOUD_FIXTURE").map_err(|_| "SUPERCLOUD_FIXTURE names a new folder")?,
    );
    let folder = tempfile::tempdir()?;
    let data = folder.path().join("node");
    let addresses = Addresses::check("127.0.0.1:7400", "127.0.0.1:7401", Vec::new())?;
    let name = "fixture".parse()?;
    commands::init(&data, &name, addresses, Some((&"anna".parse()?, &folder.path().join("anna.pem"))))?;
    let core = open(&data, OFTEN).await?;
    fill(&core).await?;
    // Until the leader's loops have come to rest.
    let told = until("the rollout is over", || rolled_out(&core)).await?;
    core.shutdown().await;
    std::fs::create_dir_all(&out)?;
    std::fs::write(out.join("state.txt"), told)?;
    // The engine makes its files larger than what they hold.
    let pack = Program::new("tar")
        .args(["--sparse", "-cJf"])
        .arg(out.join("node.tar.xz"))
        .arg("-C")
        .arg(&data)
        .arg(".")
        .status()?;
    assert!(pack.success());
    Ok(())
}

fn unpacked(fixture: &Path) -> Outcome<tempfile::TempDir> {
    let folder = tempfile::tempdir()?;
    let tar = Program::new("tar")
        .arg("-xJf")
        .arg(fixture.join("node.tar.xz"))
        .arg("-C")
        .arg(folder.path())
        .status()?;
    assert!(tar.success());
    Ok(folder)
}

async fn check(fixture: &Path) -> Outcome {
    let folder = unpacked(fixture)?;
    let data = folder.path();
    let expected = std::fs::read_to_string(fixture.join("state.txt"))?;
    {
        let home = Home::open(data)?;
        home.keys(&home.known_record()?)?;
    }
    // Its certificates are for a year, the fixture is for longer; so it is served without.
    for name in ["node.pem", "ca.pem"] {
        std::fs::remove_file(data.join(name))?;
    }
    let (node, channel) = dev_node(data).await?;
    let mut found = told(&node.core().view());
    if !expected.contains(HOME) {
        found = found.split_inclusive('\n').filter(|line| !line.starts_with(HOME)).collect();
    }
    assert_eq!(found, expected);
    let kinds: Vec<String> = node
        .core()
        .archive()
        .events(EventFilter::default(), 1_000)
        .await?
        .events
        .into_iter()
        .map(|e| e.kind)
        .collect();
    for kind in ["borough-created", "workload-applied", "host-schedulable", "token-used", "instance-placed"] {
        assert!(kinds.iter().any(|found| found == kind), "no {kind} in {kinds:?}");
    }
    let title = String::new();
    let again = Command::CreateBorough { name: "brent".parse()?, title };
    assert_eq!(node.core().propose("operator:anna", "remembered", again).await?.result, Ok(Done::Nothing));
    let request = v1::CreateBoroughRequest { name: "barnet".to_owned(), ..Default::default() };
    BoroughServiceClient::new(channel).create(request).await?;
    node.shutdown().await;

    // A new snapshot takes the place of the old ones, and the log behind it is forgotten.
    let core = open(data, OFTEN).await?;
    let before = core.status().snapshot;
    for number in 0..3 * OFTEN.entries {
        borough(&core, &format!("b{number}")).await?;
    }
    core.nodes().wait_for(|status| status.snapshot > before && status.first_index > before).await?;
    core.shutdown().await;

    let (node, _) = dev_node(data).await?;
    let state = node.core().view();
    for name in ["camden", "ealing", "barnet", "b0", "b74"] {
        assert!(state.boroughs().contains_key(name), "{name} is lost");
    }
    assert_eq!(placed(&state, "camden/portal")?.len(), 2);
    connect(&node, Trust::Plain).await?;
    node.shutdown().await;
    Ok(())
}

#[tokio::test]
async fn a_directory_of_an_earlier_version_goes_on() -> Outcome {
    let mut fixtures: Vec<PathBuf> = std::fs::read_dir(fixtures())?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()?;
    fixtures.retain(|path| path.join("node.tar.xz").exists());
    fixtures.sort();
    assert!(!fixtures.is_empty());
    for fixture in fixtures {
        check(&fixture).await.map_err(|error| format!("{}: {error}", fixture.display()))?;
    }
    Ok(())
}
