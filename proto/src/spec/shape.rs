//! The shape of a spec as people write it: which fields there are, and what each takes. The one table behind the reader, which
//! refuses every other field, and behind the published schema. Knows no values and no rules between fields.
//!
//! To add a field: add it here, read it in `parse`, write it in `value`, judge it in `check`, then write the schema anew.

use super::{DEFAULT_PIDS, MAX_COUNT, MAX_PRIORITY, duration::DURATION_EXPECTED};
use crate::{
    amount::{BYTES_EXPECTED, CPU_EXPECTED, MBITS_EXPECTED},
    device::{self, SHARE_EXPECTED},
    name::NAME_EXPECTED,
    taint::TOLERATION_EXPECTED,
};

/// A mapping with known fields.
pub(super) struct Shape {
    /// Its name in the schema.
    pub(super) name: &'static str,
    /// What it is.
    pub(super) about: &'static str,
    /// Its fields, in the order in which people write them.
    pub(super) fields: &'static [Field],
    /// Fields of which exactly one must be there; empty: no such rule.
    pub(super) one_of: &'static [&'static str],
}

/// A field of a mapping.
pub(super) struct Field {
    /// Its name.
    pub(super) name: &'static str,
    /// Whether it must be there.
    pub(super) required: bool,
    /// What it takes.
    pub(super) form: Form,
    /// What it means.
    pub(super) about: &'static str,
}

/// What a field takes.
pub(super) enum Form {
    /// A DNS label.
    Name,
    /// Any text.
    Text,
    /// True or false.
    Flag,
    /// A whole number between these, both included.
    Whole(i64, i64),
    /// Processor time.
    Cpu,
    /// A part of a device.
    Share,
    /// A size.
    Size,
    /// A network bandwidth.
    Bandwidth,
    /// A length of time.
    Duration,
    /// A condition on a host.
    Condition,
    /// A taint that is put up with.
    Toleration,
    /// One of these words.
    Word(&'static [&'static str]),
    /// Something to spread over: a word, or a mapping.
    Spread(&'static Shape),
    /// Values to the shares that they are to have.
    Shares,
    /// A list.
    List(&'static Form),
    /// Names to texts.
    TextMap,
    /// Names to ports, each a number or a mapping.
    Ports(&'static Shape),
    /// A mapping.
    Object(&'static Shape),
}

impl Form {
    /// What was expected where something else was found.
    pub(super) fn expected(&self) -> String {
        match self {
            Self::Name => NAME_EXPECTED.to_owned(),
            Self::Text => "text".to_owned(),
            Self::Flag => "true or false".to_owned(),
            Self::Whole(least, most) => format!("a whole number from {least} to {most}"),
            Self::Cpu => CPU_EXPECTED.to_owned(),
            Self::Share => SHARE_EXPECTED.to_owned(),
            Self::Size => BYTES_EXPECTED.to_owned(),
            Self::Bandwidth => MBITS_EXPECTED.to_owned(),
            Self::Duration => DURATION_EXPECTED.to_owned(),
            Self::Condition => "a condition as \"arch == amd64\"".to_owned(),
            Self::Toleration => TOLERATION_EXPECTED.to_owned(),
            Self::Word(words) => alternatives(words),
            Self::Spread(_) => alternatives(SPREAD),
            Self::Shares => "a mapping of values to shares, as { north: 70, south: 30 }".to_owned(),
            Self::List(_) => "a list".to_owned(),
            Self::TextMap => "a mapping of names to texts".to_owned(),
            Self::Ports(_) => "a mapping of names to ports, as { http: 8080 }".to_owned(),
            Self::Object(shape) => shape.expected(),
        }
    }
}

impl Shape {
    /// What was expected where something else was found.
    pub(super) fn expected(&self) -> String {
        let names: Vec<&str> = self.fields.iter().map(|field| field.name).collect();
        format!("a mapping with {}", names.join(", "))
    }
}

/// `a`, `a or b`, `a, b or c`.
pub(super) fn alternatives(words: &[&str]) -> String {
    match words {
        [] => String::new(),
        [one] => (*one).to_owned(),
        [first @ .., last] => format!("{} or {last}", first.join(", ")),
    }
}

const fn must(name: &'static str, form: Form, about: &'static str) -> Field {
    Field { name, required: true, form, about }
}

const fn may(name: &'static str, form: Form, about: &'static str) -> Field {
    Field { name, required: false, form, about }
}

const fn shape(name: &'static str, about: &'static str, fields: &'static [Field]) -> Shape {
    Shape { name, about, fields, one_of: &[] }
}

/// Largest number of things where no narrower bound is known to the shape.
pub(super) const MANY: i64 = u32::MAX as i64;
/// Kinds of workloads.
pub(super) const KINDS: &[&str] = &["service", "batch", "daemon", "cron"];
/// Classes of workloads.
pub(super) const CLASSES: &[&str] = &["guaranteed", "standard", "spare"];
/// Where cores of one's own are.
pub(super) const NUMA: &[&str] = &["any", "one"];
/// Transport protocols.
pub(super) const PROTOCOLS: &[&str] = &["tcp", "udp"];
/// Codings of images.
pub(super) const FORMATS: &[&str] = &["qcow2", "raw"];
/// What instances are spread over. The last one stands for all labels.
pub(super) const SPREAD: &[&str] = &["site", "rack", "host", "label.NAME"];

/// The whole.
pub(super) static WORKLOAD: Shape = Shape {
    name: "workload",
    about: "One workload of a borough.",
    fields: &[
        must("workload", Form::Name, "Name, unique within the borough."),
        must("borough", Form::Name, "The borough that owns it."),
        must("kind", Form::Word(KINDS), "How its instances live."),
        may("count", Form::Whole(0, MAX_COUNT as i64), "Instances wanted; 1 unless given."),
        may(
            "priority",
            Form::Whole(0, MAX_PRIORITY as i64),
            "0 (least) to 100 (most urgent); 50 unless given.",
        ),
        may(
            "class",
            Form::Word(CLASSES),
            "How firmly it holds the processor time that it asks for; standard unless given.",
        ),
        may(
            "container",
            Form::Object(&CONTAINER),
            "The container of an instance; short for one task named main.",
        ),
        may("vm", Form::Object(&VM), "The virtual machine of an instance; short for one task named main."),
        may("tasks", Form::List(&Form::Object(&TASK)), "Containers of an instance, or its virtual machine."),
        must("resources", Form::Object(&RESOURCES), "What one instance needs, all its tasks together."),
        may("place", Form::Object(&PLACE), "Where it may and should run."),
        may("health", Form::Object(&HEALTH), "How health is checked."),
        may("restart", Form::Object(&RESTART), "What happens on the host when a task ends by itself."),
        may("update", Form::Object(&UPDATE), "How one revision replaces the one before."),
        may("stop_grace", Form::Duration, "Time between the request to stop and the kill; 10s unless given."),
        may(
            "exclusive",
            Form::Flag,
            "Whether an instance must never run twice; unless given, true for a VM with disks.",
        ),
        may("schedule", Form::Text, "For the kind cron: when to run, five fields, UTC."),
    ],
    one_of: &["container", "vm", "tasks"],
};

/// One of several tasks.
pub(super) static TASK: Shape = Shape {
    name: "task",
    about: "One container or virtual machine of an instance.",
    fields: &[
        must("name", Form::Name, "Name, unique within the workload."),
        may("container", Form::Object(&CONTAINER), "A container."),
        may("vm", Form::Object(&VM), "A virtual machine; it stands alone."),
    ],
    one_of: &["container", "vm"],
};

/// A container.
pub(super) static CONTAINER: Shape = shape(
    "container",
    "A container, run by Docker.",
    &[
        must(
            "image",
            Form::Text,
            "Image reference; \":latest\" is meant where neither tag nor digest is given.",
        ),
        may("command", Form::List(&Form::Text), "Replaces the image's entry point and arguments."),
        may("env", Form::TextMap, "Environment variables."),
        may("ports", Form::Ports(&PORT), "Ports published on the host, by name."),
        may("mounts", Form::List(&Form::Object(&MOUNT)), "Named volumes."),
        may("user", Form::Text, "User, and group behind a colon, to run as."),
    ],
);

/// A port in its long form.
pub(super) static PORT: Shape = shape(
    "port",
    "A published port.",
    &[
        must("port", Form::Whole(1, 65_535), "Port inside the container."),
        may("host", Form::Whole(1, 65_535), "Port on the host; chosen by the scheduler unless given."),
        may("protocol", Form::Word(PROTOCOLS), "Transport protocol; tcp unless given."),
    ],
);

/// A volume in a container.
pub(super) static MOUNT: Shape = shape(
    "mount",
    "A named volume in a container.",
    &[
        must("volume", Form::Name, "Name of the volume."),
        must("path", Form::Text, "Absolute path inside the container."),
        may("read_only", Form::Flag, "Whether it may only be read."),
    ],
);

/// A virtual machine.
pub(super) static VM: Shape = shape(
    "vm",
    "A virtual machine, run by libvirt.",
    &[
        may(
            "image",
            Form::Object(&IMAGE),
            "Disk image that it boots from, with an overlay for each instance.",
        ),
        may("boot", Form::Object(&BOOT), "Kernel that it boots, instead of or beside an image."),
        may("cloud_init", Form::Object(&CLOUD_INIT), "First-boot settings, as a NoCloud volume."),
        may("disks", Form::List(&Form::Object(&DISK)), "Further disks, created empty."),
    ],
);

/// A disk image.
pub(super) static IMAGE: Shape = Shape {
    name: "image",
    about: "A disk image.",
    fields: &[
        may("path", Form::Text, "Absolute path on the host."),
        may("url", Form::Text, "https address to fetch it from."),
        may("sha256", Form::Text, "SHA-256 of the image, 64 hex digits; required with a url."),
        may("format", Form::Word(FORMATS), "How it is coded; qcow2 unless given, never guessed."),
    ],
    one_of: &["path", "url"],
};

/// A kernel.
pub(super) static BOOT: Shape = shape(
    "boot",
    "A kernel to boot.",
    &[
        must("kernel", Form::Text, "Absolute path on the host."),
        may("initrd", Form::Text, "Absolute path of the initial RAM disk on the host."),
        may("cmdline", Form::Text, "Kernel command line."),
    ],
);

/// First-boot settings.
pub(super) static CLOUD_INIT: Shape = shape(
    "cloud_init",
    "First-boot settings.",
    &[
        must("user_data", Form::Text, "The user-data document."),
        may("meta_data", Form::Text, "The meta-data document; instance id and host name unless given."),
        may("network_config", Form::Text, "The network-config document."),
    ],
);

/// An empty disk.
pub(super) static DISK: Shape = shape(
    "disk",
    "An empty disk that belongs to the instance.",
    &[must("name", Form::Name, "Name, unique within the VM."), must("size", Form::Size, "Size.")],
);

/// What one instance needs.
pub(super) static RESOURCES: Shape = shape(
    "resources",
    "What one instance needs.",
    &[
        must("cpu", Form::Cpu, "Processor time."),
        must("memory", Form::Size, "Memory; of a VM what its guest sees."),
        may("disk", Form::Size, "Disk space; none unless given."),
        may("pids", Form::Whole(1, MANY), "Most processes and threads of a container; 4096 unless given."),
        may("devices", Form::List(&Form::Object(&DEVICE)), "Devices, as GPUs; each kind once."),
        may("network", Form::Bandwidth, "Network bandwidth; none is set aside unless given."),
        may(
            "dedicated",
            Form::Flag,
            "Whether it has whole physical cores of its own, on which nothing else runs; false unless given.",
        ),
        may(
            "numa",
            Form::Word(NUMA),
            "Whether its own cores and its memory are all of one NUMA node; any unless given.",
        ),
    ],
);
const _: () = assert!(DEFAULT_PIDS == 4096, "the text above says so");

/// Devices of one kind.
pub(super) static DEVICE: Shape = shape(
    "device",
    "Devices of one kind that each instance gets.",
    &[
        must("kind", Form::Name, "The kind, as its hosts name it: gpu."),
        may("count", Form::Whole(1, device::MAX_COUNT as i64), "How many of them; 1 unless given."),
        may("share", Form::Share, "How much of each, as 0.5; all of it unless given."),
        may("models", Form::List(&Form::Text), "Any of these models; any model unless given."),
        may(
            "require",
            Form::List(&Form::Condition),
            "Conditions on the labels of each device, all of which must hold.",
        ),
    ],
);

/// Where instances run.
pub(super) static PLACE: Shape = shape(
    "place",
    "Where instances may and should run.",
    &[
        may("sites", Form::List(&Form::Name), "Only in these sites."),
        may("require", Form::List(&Form::Condition), "Conditions on a host, all of which must hold."),
        may("prefer", Form::List(&Form::Object(&PREFER)), "Conditions that make a host more or less wanted."),
        may(
            "spread",
            Form::List(&Form::Spread(&SPREAD_OVER)),
            "What to spread over, from the widest to the narrowest.",
        ),
        may("tolerate", Form::List(&Form::Toleration), "Taints of hosts that it puts up with."),
        may("distinct_hosts", Form::Flag, "Whether no two instances may share a host."),
        may("apart", Form::List(&Form::Name), "Workloads of the borough that must not share a host with it."),
        may(
            "together",
            Form::List(&Form::Name),
            "Workloads of the borough of each of which an instance must be on the host already.",
        ),
        may(
            "all_or_none",
            Form::Flag,
            "Whether instances that wait at the same time are given hosts all at once or not at all.",
        ),
        may("private", Form::Flag, "Whether no instance of another borough may be on the same host."),
    ],
);

/// Something to spread over in its long form.
pub(super) static SPREAD_OVER: Shape = shape(
    "spread",
    "Something to spread over, and in which shares.",
    &[
        must("over", Form::Text, "What: site, rack, host or label.NAME."),
        may(
            "shares",
            Form::Shares,
            "What each value is to have, in proportion to each other; all the same unless given. Values that are not named come after all that are.",
        ),
    ],
);

/// A wish.
pub(super) static PREFER: Shape = shape(
    "prefer",
    "A wish about hosts.",
    &[
        must("when", Form::Condition, "Which hosts."),
        must("weight", Form::Whole(-100, 100), "-100 (avoid) to 100 (seek)."),
    ],
);

/// How health is checked.
pub(super) static HEALTH: Shape = Shape {
    name: "health",
    about: "How health is checked.",
    fields: &[
        may("http", Form::Object(&HTTP), "A GET that must answer 200 to 399."),
        may("tcp", Form::Object(&TCP), "A connection that must open."),
        may("every", Form::Duration, "Time between checks; 10s unless given."),
        may("timeout", Form::Duration, "Time one check may take; 2s unless given."),
        may("unhealthy_after", Form::Whole(1, MANY), "Failures in a row that count; 3 unless given."),
    ],
    one_of: &["http", "tcp"],
};

/// An HTTP check.
pub(super) static HTTP: Shape = shape(
    "http",
    "An HTTP check.",
    &[must("port", Form::Name, "Name of the port."), must("path", Form::Text, "Path and query to ask for.")],
);

/// A TCP check.
pub(super) static TCP: Shape = shape("tcp", "A TCP check.", &[must("port", Form::Name, "Name of the port.")]);

/// When a task ends by itself.
pub(super) static RESTART: Shape = shape(
    "restart",
    "What happens on the host when a task ends by itself.",
    &[
        may("attempts", Form::Whole(0, MANY), "Restarts allowed within the window; 3 unless given."),
        may("within", Form::Duration, "The window; 10m unless given."),
        may("delay", Form::Duration, "Wait before the first restart, doubling; 1s unless given."),
        may("max_delay", Form::Duration, "Longest wait; 1m unless given."),
    ],
);

/// From one revision to the next.
pub(super) static UPDATE: Shape = shape(
    "update",
    "How one revision replaces the one before.",
    &[
        may(
            "max_unavailable",
            Form::Whole(1, MAX_COUNT as i64),
            "Instances that may be missing; 1 unless given.",
        ),
        may("canary", Form::Whole(0, MAX_COUNT as i64), "Instances of the new revision to try first."),
        may("healthy_for", Form::Duration, "Time an instance must be well before it counts."),
        may("deadline", Form::Duration, "Time a rollout may take; 0s: no limit."),
        may("auto_revert", Form::Flag, "Whether a failed rollout goes back by itself."),
    ],
);
