//! The libvirt driver against a real libvirt: guests boot, end, come back and go. Nothing is skipped: where libvirt, the guest's kernel
//! or its image are missing these fail (`scripts/setup` and `scripts/images` provide them). Guests are translated, because KVM need not
//! work where tests run.

use std::{
    collections::BTreeMap,
    error::Error,
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::Arc,
    time::Duration,
};

use futures::{Stream, StreamExt};
use supercloud_agent::{
    devices::DeviceSettings,
    driver::{Driver, DriverError, Hint, LogOptions, Mark, Owner, Phase, Seen, TaskRun},
    libvirt::{Acceleration, LibvirtDriver, LibvirtSettings},
};
use supercloud_proto::{
    amount::{Bytes, MilliCpu},
    device::{GivenDevice, Share},
    id::InstanceId,
    instance::Desired,
    name::{BoroughName, HostName, TaskName, VolumeName, WorkloadKey, WorkloadName},
    order::Order,
    spec::{
        self, Class, CloudInit, DriverKind, ImageFormat, ImageSource, Resources, Restart, Task, Vm, VmBoot,
        VmDisk, VmImage, WorkloadKind,
    },
};
use virt::{connect::Connect, domain::Domain};

type Fallible<T = ()> = Result<T, Box<dyn Error>>;

const URI: &str = "qemu:///system";
/// Time for a guest to boot or end: seconds by itself, longer beside a build.
const PATIENCE: Duration = Duration::from_secs(60);
/// Enough for a guest of this kind to end by itself.
const GRACE: u64 = 40_000;
/// The one instance of each test.
const INSTANCE: InstanceId = InstanceId { index: 0x2f, ordinal: 1 };

/// A host of its own: a cluster that nobody else has, a folder, and libvirt. Whatever a test leaves is removed.
struct Bench {
    owner: Owner,
    folder: tempfile::TempDir,
    libvirt: Connect,
}

impl Bench {
    fn new() -> Fallible<Self> {
        virt::error::clear_error_callback();
        let folder = tempfile::tempdir()?;
        // QEMU's user must be able to pass.
        fs::set_permissions(folder.path(), Permissions::from_mode(0o711))?;
        let cluster = format!("{:032x}", rand::random::<u128>());
        let owner = Owner { cluster, host: HostName::new("host-1")? };
        Ok(Self { owner, folder, libvirt: Connect::open(Some(URI))? })
    }

    fn driver(&self) -> LibvirtDriver {
        self.driver_of(self.owner.clone())
    }

    fn driver_of(&self, owner: Owner) -> LibvirtDriver {
        LibvirtDriver::start(self.settings(), owner)
    }

    fn settings(&self) -> LibvirtSettings {
        LibvirtSettings {
            acceleration: Acceleration::Tcg,
            data_dir: self.folder.path().to_owned(),
            ..LibvirtSettings::default()
        }
    }

    fn run(&self, vm: Vm, cpu: MilliCpu) -> Fallible<TaskRun> {
        let workload =
            WorkloadKey { borough: BoroughName::new("hackney")?, workload: WorkloadName::new("records")? };
        let task = TaskName::new("vm")?;
        let order = Order {
            instance: INSTANCE,
            index: 0x30,
            workload: workload.clone(),
            revision: 2,
            slot: 0,
            desired: Desired::Run,
            reason: "test".to_owned(),
            kind: WorkloadKind::Service,
            tasks: vec![Task { name: task.clone(), driver: spec::Driver::Vm(vm) }],
            resources: Resources { cpu, memory: Bytes(256 << 20), ..Resources::default() },
            ports: Vec::new(),
            restart: Restart::default(),
            stop_grace: GRACE,
            exclusive: false,
            devices: Vec::new(),
            class: Class::default(),
            cores: None,
        };
        let owner = self.owner.clone();
        let mark = Mark { owner, instance: INSTANCE, workload, revision: 2, task, order_index: 0x30 };
        Ok(TaskRun { mark, order: Arc::new(order), task: 0, pin: None })
    }

    fn name(&self) -> String {
        format!("sc-{}-{INSTANCE}", &self.owner.cluster[..8])
    }

    fn domain(&self) -> Fallible<Domain> {
        Ok(self.libvirt.lookup_domain_by_name(&self.name())?)
    }

    fn files(&self) -> std::path::PathBuf {
        self.folder.path().join("vms").join(INSTANCE.to_string())
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        if let Ok(domain) = self.libvirt.lookup_domain_by_name(&self.name()) {
            // One that does not run cannot be destroyed.
            let _ = domain.destroy();
            let _ = domain.undefine();
        }
    }
}

fn kernel(cmdline: &str) -> Vm {
    let boot = VmBoot {
        kernel: "/var/lib/supercloud/images/vmlinuz".to_owned(),
        initrd: Some("/var/lib/supercloud/images/initrd.gz".to_owned()),
        cmdline: cmdline.to_owned(),
    };
    Vm { boot: Some(boot), ..Vm::default() }
}

/// Reads the console until all of these were said.
async fn hear(driver: &LibvirtDriver, seen: &Seen, words: &[&str]) -> Fallible {
    hear_until(driver, seen, |heard| words.iter().all(|words| heard.contains(words))).await
}

/// Reads the console from its beginning until that was said.
async fn hear_until(driver: &LibvirtDriver, seen: &Seen, said: impl Fn(&str) -> bool) -> Fallible {
    let mut console = driver.logs(seen, LogOptions { follow: true, tail: None }).await?;
    let mut heard = String::new();
    let listen = async {
        while !said(&heard) {
            let message = console.next().await.ok_or("the console ended")??;
            heard.push_str(&String::from_utf8_lossy(&message.data));
        }
        Fallible::Ok(())
    };
    let done = tokio::time::timeout(PATIENCE, listen).await;
    done.map_err(|_| format!("not what was expected: {heard}"))?
}

async fn until_hint(hints: &mut (impl Stream<Item = Hint> + Unpin), wanted: &Hint) -> Fallible {
    let wait = async { while hints.next().await.as_ref() != Some(wanted) {} };
    Ok(tokio::time::timeout(PATIENCE, wait).await?)
}

/// How the one instance ended.
async fn end(driver: &LibvirtDriver) -> Fallible<String> {
    match driver.list().await?.as_slice() {
        [Seen { phase: Phase::Ended { exit_code: None, reason, .. }, .. }] => Ok(reason.clone()),
        other => Err(format!("expected one that ended, found {other:?}").into()),
    }
}

fn refusal<T: std::fmt::Debug>(result: Result<T, DriverError>) -> Fallible<String> {
    match result {
        Err(DriverError::Refused(words)) => Ok(words),
        other => Err(format!("expected a refusal, found {other:?}").into()),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_boots_is_adopted_comes_back_and_goes() -> Fallible {
    let bench = Bench::new()?;
    let driver = bench.driver();
    let mut hints = driver.hints();
    let run = bench.run(kernel("console=ttyS0 hostname=hackney-1 quoted=\"<&>\""), MilliCpu(1000))?;
    assert!(driver.list().await?.is_empty());
    driver.prepare(&run).await?;
    let seen = driver.start(&run).await?;
    assert_eq!(seen.mark, run.mark);
    assert_eq!(seen.phase, Phase::Running { since: None });
    // Where its start was over before anybody listened, it is the next change that is heard.
    while tokio::time::timeout(Duration::from_secs(1), until_hint(&mut hints, &Hint::Instance(INSTANCE)))
        .await
        .is_err()
    {
        bench.domain()?.suspend()?;
        bench.domain()?.resume()?;
    }
    hear(&driver, &seen, &["hello from hackney-1"]).await?;

    // An agent that lost its memory finds it and starts nothing anew; another host's agent does not see it.
    let again = bench.driver();
    assert_eq!(again.list().await?, std::slice::from_ref(&seen));
    let process = bench.domain()?.id();
    assert_eq!(again.start(&run).await?, seen);
    assert_eq!(bench.domain()?.id(), process);
    let neighbour = bench.driver_of(Owner { host: HostName::new("host-2")?, ..bench.owner.clone() });
    assert!(neighbour.list().await?.is_empty());
    assert!(refusal(neighbour.stop(&seen, 0).await)?.contains("another agent"));

    // Destroyed behind our back, and started anew.
    bench.domain()?.destroy()?;
    until_hint(&mut hints, &Hint::Instance(INSTANCE)).await?;
    assert_eq!(end(&driver).await?, "destroyed from outside");
    assert_eq!(driver.start(&run).await?.runtime_id, seen.runtime_id);
    hear_until(&driver, &seen, |heard| heard.matches("hello from hackney-1").count() == 2).await?;

    // It feels the power button, and stays until it is removed.
    driver.stop(&seen, GRACE).await?;
    assert_eq!(end(&driver).await?, "guest shut down");
    driver.stop(&seen, GRACE).await?;
    let tail = LogOptions { follow: false, tail: Some(3) };
    let last: Vec<_> = driver.logs(&seen, tail).await?.collect().await;
    let last = last.into_iter().map(|message| Ok(message?.data)).collect::<Result<Vec<_>, DriverError>>()?;
    assert_eq!(String::from_utf8_lossy(&last.concat()).trim_end().lines().count(), 3);

    let mut console = driver.logs(&seen, LogOptions { follow: true, tail: Some(0) }).await?;
    driver.remove(&seen).await?;
    assert!(tokio::time::timeout(PATIENCE, console.next()).await?.is_none());
    assert!(bench.domain().is_err());
    assert!(!bench.files().exists());
    driver.remove(&seen).await?;
    assert!(matches!(driver.stop(&seen, 0).await, Err(DriverError::Missing)));
    assert!(matches!(driver.logs(&seen, tail).await, Err(DriverError::Missing)));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_image_boots_from_an_overlay_that_lasts() -> Fallible {
    let bench = Bench::new()?;
    let driver = bench.driver();
    let image = VmImage {
        source: ImageSource::Path("/var/lib/supercloud/images/guest.qcow2".to_owned()),
        sha256: None,
        format: ImageFormat::Qcow2,
    };
    let vm = Vm {
        image: Some(image),
        cloud_init: Some(CloudInit { user_data: "#cloud-config\n".to_owned(), ..CloudInit::default() }),
        disks: vec![VmDisk { name: VolumeName::new("data")?, size: Bytes(64 << 20) }],
        ..Vm::default()
    };
    // Part of a core more than one: two processors under a bound.
    let run = bench.run(vm, MilliCpu(1500))?;
    let before = fs::metadata("/var/lib/supercloud/images/guest.qcow2")?.modified()?;
    let seen = driver.start(&run).await?;
    let name = format!("hello from records-{INSTANCE}");
    let disk = format!("disk vdb {} bytes", 64 << 20);
    hear(&driver, &seen, &[&name, "cpus 2", &disk, "seed /dev/vdc", "boot 1 of this disk"]).await?;

    let xml = bench.domain()?.xml_desc(0)?;
    assert!(xml.contains("<global_quota>150000</global_quota>"), "{xml}");
    assert!(xml.contains("<format type='qcow2'/>"), "{xml}");
    for file in ["root.qcow2", "disk-data.qcow2", "seed.iso", "console.log"] {
        let mode = fs::metadata(bench.files().join(file))?.permissions().mode();
        assert_eq!(mode & 0o077, 0, "{file} has mode {mode:o}");
    }

    driver.stop(&seen, GRACE).await?;
    driver.start(&run).await?;
    hear(&driver, &seen, &["boot 2 of this disk"]).await?;
    driver.remove(&seen).await?;
    assert!(!bench.files().exists());
    assert_eq!(fs::metadata("/var/lib/supercloud/images/guest.qcow2")?.modified()?, before);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_is_finished_later_and_a_guest_that_does_not_listen_is_killed() -> Fallible {
    let bench = Bench::new()?;
    let driver = bench.driver();
    // Without an initramfs the kernel panics, and stands still.
    let mut vm = kernel("console=ttyS0 panic=0");
    if let Some(boot) = &mut vm.boot {
        boot.initrd = None;
    }
    let run = bench.run(vm, MilliCpu(1000))?;

    // A start that did not get to its end is seen, and the next one goes on from there.
    let network = Some("no-such-network".to_owned());
    let misled = LibvirtDriver::start(LibvirtSettings { network, ..bench.settings() }, bench.owner.clone());
    assert!(refusal(misled.start(&run).await)?.contains("no-such-network"));
    assert_eq!(driver.list().await?.iter().map(|seen| &seen.mark).collect::<Vec<_>>(), [&run.mark]);

    let seen = driver.start(&run).await?;
    hear(&driver, &seen, &["Kernel panic"]).await?;
    let begin = std::time::Instant::now();
    driver.stop(&seen, 1500).await?;
    assert!(begin.elapsed() >= Duration::from_millis(1500));
    assert_eq!(end(&driver).await?, "killed after its grace period");
    driver.remove(&seen).await?;
    assert!(bench.domain().is_err());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_ours_is_left_alone() -> Fallible {
    let bench = Bench::new()?;
    let driver = bench.driver();
    let run = bench.run(kernel("console=ttyS0"), MilliCpu(1000))?;
    // A domain with our name and no mark of ours.
    let xml = format!(
        "<domain type='qemu'><name>{}</name><memory unit='MiB'>64</memory><os><type>hvm</type></os></domain>",
        bench.name()
    );
    let foreign = bench.libvirt.define_domain_xml(&xml)?;
    assert!(driver.list().await?.is_empty());
    assert!(refusal(driver.start(&run).await)?.contains("already exists"));
    assert!(!foreign.is_active()?);
    let seen = Seen {
        mark: run.mark.clone(),
        runtime_id: foreign.uuid_string()?,
        phase: Phase::Running { since: None },
        cpus: None,
    };
    driver.remove(&seen).await?;
    assert_eq!(bench.domain()?.uuid_string()?, foreign.uuid_string()?);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_vm_leaves_nothing_behind() -> Fallible {
    let bench = Bench::new()?;
    let driver = bench.driver();
    let mut vm = kernel("console=ttyS0");
    if let Some(boot) = &mut vm.boot {
        boot.initrd = Some("/etc/shadow".to_owned());
    }
    let run = bench.run(vm, MilliCpu(1000))?;
    for result in [driver.prepare(&run).await, driver.start(&run).await.map(drop)] {
        assert!(refusal(result)?.starts_with("vm.boot.initrd: /etc/shadow is not below a folder"));
    }
    let escape = bench.run(kernel("console=ttyS0 \u{1b}[2J"), MilliCpu(1000))?;
    assert!(refusal(driver.start(&escape).await)?.contains("U+001B"));
    assert!(driver.list().await?.is_empty());
    assert!(!bench.files().exists());
    Ok(())
}

#[tokio::test]
async fn the_runtime_is_described_and_its_absence_is_silence() -> Fallible {
    let bench = Bench::new()?;
    let info = bench.driver().probe().await;
    assert!(info.healthy && info.reason.is_empty(), "{info:?}");
    assert!(info.version.split('.').count() == 3 && info.acceleration == "tcg", "{info:?}");

    let settings = LibvirtSettings {
        uri: "qemu:///system?socket=/nonexistent/socket".to_owned(),
        acceleration: Acceleration::Tcg,
        data_dir: Path::new("/nonexistent").to_owned(),
        ..LibvirtSettings::default()
    };
    let away = LibvirtDriver::start(settings, bench.owner.clone());
    assert_eq!(away.kind(), DriverKind::Libvirt);
    let info = away.probe().await;
    assert!(!info.healthy && info.reason.contains("/nonexistent/socket"), "{info:?}");
    assert!(matches!(away.list().await, Err(DriverError::Silent { runtime: "libvirt", .. })));
    let run = bench.run(kernel("console=ttyS0"), MilliCpu(1000))?;
    assert!(matches!(away.start(&run).await, Err(DriverError::Silent { .. })));
    Ok(())
}

/// This machine has no IOMMU, so that no guest with such a device can be seen to run: libvirt takes the definition, and refuses the start for want of that, or of the device.
#[tokio::test(flavor = "multi_thread")]
async fn a_device_of_the_host_is_taken_over_by_its_address() -> Fallible {
    let bench = Bench::new()?;
    let device = DeviceSettings {
        kind: "gpu".parse()?,
        model: "T4".to_owned(),
        labels: BTreeMap::new(),
        shared: false,
        nodes: Vec::new(),
        env: BTreeMap::new(),
        pci: Some("00fe:fe:1f.7".parse().map_err(|_| "an address")?),
    };
    let devices = [("gpu0".parse()?, device)].into();
    let settings = LibvirtSettings { devices, ..bench.settings() };
    let driver = LibvirtDriver::start(settings, bench.owner.clone());
    let with = |name: &str| -> Fallible<TaskRun> {
        let mut run = bench.run(kernel("console=ttyS0"), MilliCpu(1000))?;
        let device = GivenDevice { name: name.parse()?, kind: "gpu".parse()?, share: Share::WHOLE };
        Arc::make_mut(&mut run.order).devices = vec![device];
        Ok(run)
    };
    let run = with("gpu0")?;
    driver.prepare(&run).await?;
    let reason = refusal(driver.start(&run).await)?;
    let xml = bench.domain()?.xml_desc(0)?;
    assert!(xml.contains("<hostdev mode='subsystem' type='pci' managed='yes'>"), "{xml}");
    assert!(xml.contains("<address domain='0x00fe' bus='0xfe' slot='0x1f' function='0x7'/>"), "{xml}");
    assert!(reason.contains("VFIO") || reason.contains("00fe:fe:1f.7"), "{reason}");
    let unknown = refusal(driver.start(&with("gpu1")?).await)?;
    assert_eq!(unknown, "device gpu1 has no PCI address in this agent's configuration");
    Ok(())
}
