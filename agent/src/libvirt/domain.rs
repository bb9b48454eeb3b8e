//! A domain as typed values, and the XML that defines it. It knows libvirt's format and what we want of a guest; it touches no file
//! and calls nothing.
//!
//! Decisions: disks and the seed are virtio disks with an explicit format and, for an overlay, an explicit and closed backing chain, so
//! that libvirt guesses nothing from what a guest wrote. The console is a pty whose output virtlogd also writes to a file, rolled over by
//! size: the file is what `logs` reads, the pty stays free for a person. A reboot restarts; power off and a crash end the domain, and
//! the agent decides what comes next. No balloon, no USB, no graphics: nothing here uses them.

use std::path::{Path, PathBuf};

use supercloud_proto::{
    amount::{Bytes, MilliCpu},
    cores::cpu_list,
    device::PciAddress,
    id::InstanceId,
    spec::ImageFormat,
};
use uuid::Uuid;

use super::{
    mark,
    xml::{Element, Unwritable},
};
use crate::driver::{Mark, Pin};

/// Namespace of our version 5 UUIDs. Never changes: an instance's UUID is how it is found again.
const UUIDS: Uuid = Uuid::from_u128(0x5dba_8c1e_2f64_4b6f_9a37_c08e_51d4_7a02);
/// Length of a scheduling period, in microseconds: the kernel's default.
const QUOTA_PERIOD_US: u64 = 100_000;
/// Longest serial number that a virtio disk can carry.
const MAX_SERIAL_LEN: usize = 20;

/// The start of the names of a cluster's domains.
pub(super) fn name_prefix(cluster: &str) -> String {
    let short: String = cluster.chars().take(8).collect();
    format!("sc-{short}-")
}

/// The name of an instance's domain.
pub(super) fn name(cluster: &str, instance: InstanceId) -> String {
    format!("{}{instance}", name_prefix(cluster))
}

/// The UUID of an instance's domain: the same at every try, and another in every cluster.
pub(super) fn uuid(cluster: &str, instance: InstanceId) -> Uuid {
    Uuid::new_v5(&UUIDS, format!("{cluster}/{instance}").as_bytes())
}

/// How a guest's instructions are run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Accelerator {
    /// By the processor.
    Kvm,
    /// By QEMU's translator.
    Tcg,
}

impl Accelerator {
    /// Its word in reports.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
        }
    }

    /// libvirt's word for a domain of it.
    fn domain_type(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Tcg => "qemu",
        }
    }
}

/// A kernel that QEMU loads. All paths absolute.
#[derive(Debug, Clone)]
pub(super) struct Kernel {
    pub(super) kernel: PathBuf,
    pub(super) initrd: Option<PathBuf>,
    pub(super) cmdline: String,
}

/// A disk.
#[derive(Debug, Clone)]
pub(super) struct Disk {
    pub(super) path: PathBuf,
    pub(super) format: ImageFormat,
    /// The image below an overlay.
    pub(super) backing: Option<(PathBuf, ImageFormat)>,
    /// What the guest sees as its serial number, if it fits.
    pub(super) serial: Option<String>,
    pub(super) read_only: bool,
}

/// A domain.
#[derive(Debug, Clone)]
pub(super) struct Domain<'a> {
    pub(super) mark: &'a Mark,
    pub(super) accelerator: Accelerator,
    pub(super) cpu: MilliCpu,
    /// Whether a part of a core is enforced; some hosts have no cgroup for it.
    pub(super) enforce_cpu: bool,
    pub(super) memory: Bytes,
    pub(super) kernel: Option<Kernel>,
    /// In the order in which the guest sees them: vda, vdb and so on.
    pub(super) disks: Vec<Disk>,
    pub(super) network: Option<&'a str>,
    pub(super) console_log: PathBuf,
    /// On which processors it may run; `None`: on any.
    pub(super) pin: Option<&'a Pin>,
    /// Devices of the host that the guest gets, by their addresses on its bus.
    pub(super) hostdevs: Vec<PciAddress>,
    /// The NUMA node that its memory is to be of.
    pub(super) node: Option<u16>,
}

/// A domain that cannot be written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum UnwritableDomain {
    /// It holds a character that XML has no place for.
    #[error(transparent)]
    Text(#[from] Unwritable),
    /// A path is no UTF-8, and XML has no other text.
    #[error("the path {0:?} is no UTF-8")]
    Path(PathBuf),
    /// More disks than letters.
    #[error("a VM can have at most 26 disks")]
    TooManyDisks,
}

impl Domain<'_> {
    /// Virtual processors: cores, rounded up.
    pub(super) fn vcpus(&self) -> u64 {
        self.cpu.0.div_ceil(1000).max(1)
    }

    /// The XML that defines it.
    pub(super) fn xml(&self) -> Result<String, UnwritableDomain> {
        let (cluster, instance) = (&self.mark.owner.cluster, self.mark.instance);
        let domain = Element::new("domain")
            .with("type", self.accelerator.domain_type())
            .child(Element::text("name", name(cluster, instance)))
            .child(Element::text("uuid", uuid(cluster, instance)))
            .child(Element::text("title", format!("{} {instance}", self.mark.workload)))
            .child(Element::new("metadata").child(mark::write(self.mark)))
            .child(Element::text("memory", self.memory.0.div_ceil(1024)).with("unit", "KiB"))
            .child(self.vcpu())
            .children(self.cpu_tune())
            .children(self.numa_tune())
            .child(self.os()?)
            .child(Element::new("features").child(Element::new("acpi")))
            .children(self.cpu_model())
            .child(Element::new("clock").with("offset", "utc"))
            .child(Element::text("on_poweroff", "destroy"))
            .child(Element::text("on_reboot", "restart"))
            .child(Element::text("on_crash", "destroy"))
            .child(self.devices()?);
        Ok(domain.write()?)
    }

    /// Where nothing else is said, virtual processors and all of QEMU's own threads run on its set.
    fn vcpu(&self) -> Element {
        let vcpu = Element::text("vcpu", self.vcpus());
        match self.pin {
            None => vcpu,
            Some(pin) => vcpu.with("placement", "static").with("cpuset", cpu_list(pin.cpus.iter().copied())),
        }
    }

    /// A whole number of cores is bounded by the virtual processors; a part of one is bounded for the domain as a whole, with what
    /// QEMU itself takes: that is what the scheduler has counted.
    fn cpu_tune(&self) -> Option<Element> {
        let partial = !self.cpu.0.is_multiple_of(1000);
        let bounds = (self.enforce_cpu && partial).then(|| {
            [
                Element::text("global_period", QUOTA_PERIOD_US),
                Element::text("global_quota", self.cpu.0 * QUOTA_PERIOD_US / 1000),
            ]
        });
        let pins = self.pin.into_iter().flat_map(|pin| {
            let vcpu = move |vcpu: u64| {
                let cpus = cpu_list(vcpu_cpus(pin, vcpu).iter().copied());
                Element::new("vcpupin").with("vcpu", vcpu).with("cpuset", cpus)
            };
            let emulator = Element::new("emulatorpin").with("cpuset", cpu_list(pin.cpus.iter().copied()));
            (0..self.vcpus()).map(vcpu).chain([emulator])
        });
        let parts: Vec<Element> = bounds.into_iter().flatten().chain(pins).collect();
        (!parts.is_empty()).then(|| Element::new("cputune").children(parts))
    }

    fn numa_tune(&self) -> Option<Element> {
        let memory = |node| Element::new("memory").with("mode", "strict").with("nodeset", node);
        self.node.map(|node| Element::new("numatune").child(memory(node)))
    }

    fn os(&self) -> Result<Element, UnwritableDomain> {
        let arch = std::env::consts::ARCH;
        let kind = Element::text("type", "hvm").with("arch", arch);
        let mut os = Element::new("os").child(match arch {
            "x86_64" => kind.with("machine", "q35"),
            "aarch64" => kind.with("machine", "virt"),
            // Elsewhere libvirt knows better than we do.
            _ => kind,
        });
        if let Some(kernel) = &self.kernel {
            os = os.child(Element::text("kernel", utf8(&kernel.kernel)?));
            if let Some(initrd) = &kernel.initrd {
                os = os.child(Element::text("initrd", utf8(initrd)?));
            }
            os = os.child(Element::text("cmdline", &kernel.cmdline));
        }
        Ok(os)
    }

    /// With KVM the guest sees the host's processor; the translator's default is the one every guest boots with.
    fn cpu_model(&self) -> Option<Element> {
        match self.accelerator {
            Accelerator::Kvm => Some(Element::new("cpu").with("mode", "host-passthrough")),
            Accelerator::Tcg => None,
        }
    }

    fn devices(&self) -> Result<Element, UnwritableDomain> {
        let log = Element::new("log").with("file", utf8(&self.console_log)?).with("append", "on");
        let disks = self
            .disks
            .iter()
            .enumerate()
            .map(|(place, disk)| disk.element(place))
            .collect::<Result<Vec<_>, _>>()?;
        let network = self.network.map(|network| {
            Element::new("interface")
                .with("type", "network")
                .child(Element::new("source").with("network", network))
                .child(Element::new("model").with("type", "virtio"))
        });
        let random = Element::new("rng")
            .with("model", "virtio")
            .child(Element::text("backend", "/dev/urandom").with("model", "random"));
        Ok(Element::new("devices")
            .children(disks)
            .children(network)
            .children(self.hostdevs.iter().map(hostdev))
            .child(Element::new("controller").with("type", "usb").with("model", "none"))
            .child(Element::new("serial").with("type", "pty").child(log))
            .child(random)
            .child(Element::new("memballoon").with("model", "none")))
    }
}

/// A device of the host that libvirt takes from the host's driver before the guest begins, and gives back after it has ended.
fn hostdev(address: &PciAddress) -> Element {
    let PciAddress { domain, bus, slot, function } = address;
    let address = Element::new("address")
        .with("domain", format!("{domain:#06x}"))
        .with("bus", format!("{bus:#04x}"))
        .with("slot", format!("{slot:#04x}"))
        .with("function", format!("{function:#x}"));
    Element::new("hostdev")
        .with("mode", "subsystem")
        .with("type", "pci")
        .with("managed", "yes")
        .child(Element::new("driver").with("name", "vfio"))
        .child(Element::new("source").child(address))
}

/// The processors of one virtual processor: of cores of its own, one for each in turn, so that the guest's are as steady as the machine's.
pub(super) fn vcpu_cpus(pin: &Pin, vcpu: u64) -> &[u16] {
    match usize::try_from(vcpu).ok().and_then(|vcpu| vcpu.checked_rem(pin.cpus.len())) {
        Some(place) if pin.own => &pin.cpus[place..=place],
        _ => &pin.cpus,
    }
}

impl Disk {
    fn element(&self, place: usize) -> Result<Element, UnwritableDomain> {
        let letter = (b'a'..=b'z').nth(place).ok_or(UnwritableDomain::TooManyDisks)?;
        let target = format!("vd{}", char::from(letter));
        let mut disk = Element::new("disk")
            .with("type", "file")
            .with("device", "disk")
            .child(Element::new("driver").with("name", "qemu").with("type", self.format.as_str()))
            .child(Element::new("source").with("file", utf8(&self.path)?));
        if let Some((path, format)) = &self.backing {
            disk = disk.child(
                Element::new("backingStore")
                    .with("type", "file")
                    .child(Element::new("format").with("type", format.as_str()))
                    .child(Element::new("source").with("file", utf8(path)?))
                    .child(Element::new("backingStore")),
            );
        } else {
            // An empty one ends the chain: libvirt does not look into the file for another.
            disk = disk.child(Element::new("backingStore"));
        }
        disk = disk.child(Element::new("target").with("dev", target).with("bus", "virtio"));
        if self.read_only {
            disk = disk.child(Element::new("readonly"));
        }
        // A shortened serial number could be another disk's, so a long one is left out.
        if let Some(serial) = self.serial.as_ref().filter(|serial| serial.len() <= MAX_SERIAL_LEN) {
            disk = disk.child(Element::text("serial", serial));
        }
        Ok(disk)
    }
}

fn utf8(path: &Path) -> Result<&str, UnwritableDomain> {
    path.to_str().ok_or_else(|| UnwritableDomain::Path(path.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::{super::mark::tests::mark, *};

    fn domain(mark: &Mark) -> Domain<'_> {
        Domain {
            mark,
            accelerator: Accelerator::Tcg,
            cpu: MilliCpu(1500),
            enforce_cpu: true,
            memory: Bytes((256 << 20) + 1),
            kernel: Some(Kernel {
                kernel: "/images/vmlinuz".into(),
                initrd: None,
                cmdline: "a=\"b\" </cmdline><devices>&x;".to_owned(),
            }),
            disks: Vec::new(),
            network: None,
            console_log: "/vms/i-1-a/console.log".into(),
            pin: None,
            hostdevs: Vec::new(),
            node: None,
        }
    }

    /// The text of the only element at this path below the root.
    fn text<'a>(document: &'a roxmltree::Document<'_>, path: &[&str]) -> Option<&'a str> {
        let start = document.root_element();
        let found = path.iter().try_fold(start, |node, name| node.children().find(|c| c.has_tag_name(*name)));
        found.map(|node| node.text().unwrap_or(""))
    }

    #[test]
    fn amounts_are_rounded_up_and_partial_cores_bounded() {
        let mark = mark("0123456789abcdef", 1);
        let xml = domain(&mark).xml().unwrap();
        let document = roxmltree::Document::parse(&xml).unwrap();
        assert_eq!(text(&document, &["vcpu"]), Some("2"));
        assert_eq!(text(&document, &["memory"]), Some("262145"));
        assert_eq!(text(&document, &["cputune", "global_quota"]), Some("150000"));
        assert_eq!(text(&document, &["os", "cmdline"]), Some("a=\"b\" </cmdline><devices>&x;"));
        assert_eq!(text(&document, &["name"]), Some("sc-01234567-i-1-a"));

        for whole in
            [Domain { cpu: MilliCpu(2000), ..domain(&mark) }, Domain { enforce_cpu: false, ..domain(&mark) }]
        {
            assert!(!whole.xml().unwrap().contains("cputune"));
        }
        assert_eq!(Domain { cpu: MilliCpu(0), ..domain(&mark) }.vcpus(), 1);
    }

    #[test]
    fn what_has_cores_of_its_own_is_pinned_one_by_one_and_what_has_none_to_the_rest() {
        let mark = mark("0123456789abcdef", 1);
        let own = Pin { cpus: vec![2, 3, 6, 7], own: true };
        let of_node = Domain { cpu: MilliCpu(3000), pin: Some(&own), node: Some(1), ..domain(&mark) };
        let xml = of_node.xml().unwrap();
        for part in [
            "<vcpu placement=\"static\" cpuset=\"2-3,6-7\">3</vcpu>",
            "<vcpupin vcpu=\"0\" cpuset=\"2\"></vcpupin><vcpupin vcpu=\"1\" cpuset=\"3\"></vcpupin>\
             <vcpupin vcpu=\"2\" cpuset=\"6\"></vcpupin><emulatorpin cpuset=\"2-3,6-7\"></emulatorpin></cputune>",
            "<numatune><memory mode=\"strict\" nodeset=\"1\"></memory></numatune>",
        ] {
            assert!(xml.contains(part), "{part}: {xml}");
        }
        let rest = Pin { own: false, ..own };
        let xml = Domain { pin: Some(&rest), ..domain(&mark) }.xml().unwrap();
        assert!(xml.contains("</global_quota><vcpupin vcpu=\"0\" cpuset=\"2-3,6-7\"></vcpupin>"), "{xml}");
        assert!(!xml.contains("numatune"));
    }

    #[test]
    fn devices_of_the_host_are_taken_over_by_their_addresses() {
        let mark = mark("0123456789abcdef", 1);
        let hostdevs = vec!["0000:0a:1f.7".parse().unwrap()];
        let xml = Domain { hostdevs, ..domain(&mark) }.xml().unwrap();
        let expected = "<hostdev mode=\"subsystem\" type=\"pci\" managed=\"yes\"><driver name=\"vfio\"></driver><source>\
                        <address domain=\"0x0000\" bus=\"0x0a\" slot=\"0x1f\" function=\"0x7\"></address></source></hostdev>";
        assert!(xml.contains(expected), "{xml}");
    }

    #[test]
    fn formats_and_chains_are_explicit() {
        let mark = mark("0123456789abcdef", 1);
        let disk = |backing, serial: &str| Disk {
            path: "/vms/root.qcow2".into(),
            format: ImageFormat::Qcow2,
            backing,
            serial: Some(serial.to_owned()),
            read_only: false,
        };
        let disks = vec![
            disk(Some(("/images/a&b.raw".into(), ImageFormat::Raw)), "data"),
            disk(None, "a-name-that-is-longer-than-twenty"),
        ];
        let xml = Domain { disks, ..domain(&mark) }.xml().unwrap();
        let chain = "<backingStore type=\"file\"><format type=\"raw\"></format><source file=\"/images/a&amp;b.raw\"></source>\
                     <backingStore></backingStore></backingStore><target dev=\"vda\"";
        assert!(xml.contains(chain), "{xml}");
        assert!(xml.contains("<backingStore></backingStore><target dev=\"vdb\""), "{xml}");
        assert_eq!(xml.matches("<serial>").count(), 1, "{xml}");
    }

    #[test]
    fn an_instance_has_one_uuid_in_each_cluster() {
        let instance = InstanceId { index: 1, ordinal: 0 };
        assert_eq!(uuid("a", instance), uuid("a", instance));
        assert_ne!(uuid("a", instance), uuid("b", instance));
        assert_eq!(uuid("a", instance).get_version_num(), 5);
    }

    #[test]
    fn what_cannot_be_written_is_refused() {
        let mark = mark("0123456789abcdef", 1);
        let disk = Disk {
            path: "/x".into(),
            format: ImageFormat::Raw,
            backing: None,
            serial: None,
            read_only: true,
        };
        let crowded = Domain { disks: vec![disk; 27], ..domain(&mark) };
        assert_eq!(crowded.xml(), Err(UnwritableDomain::TooManyDisks));
        let kernel = Kernel { kernel: "/k".into(), initrd: None, cmdline: "a\u{1b}b".to_owned() };
        let escape = Domain { kernel: Some(kernel), ..domain(&mark) };
        assert!(matches!(escape.xml(), Err(UnwritableDomain::Text(_))));
    }
}
