//! Commands: everything that can change the state, as it stands in the log, and what becomes of it. Ids and times are stamped before
//! a command is proposed; applying one asks no clock.
//!
//! To add a command: a message in `log.proto`, a variant here with the level that it needs (see `level`), its coding in `codec`, its rule in
//! `apply`, and a case in the tests of both. A new field that older versions must not overlook needs a level too.

use std::{collections::BTreeMap, sync::Arc};

use supercloud_proto::{
    condition::{Attribute, Condition, Test},
    cores::{Cores, Numa},
    host::{HostState, Inventory},
    id::{HostId, InstanceId, LogIndex, Revision, UnixMillis},
    instance::{InstanceReport, InstanceState},
    name::{BoroughName, DeviceName, HostName, SiteName, WorkloadKey},
    problem::Problem,
    spec::{Class, Place, Resources, WorkloadSpec},
};

use super::{
    level::{self, Level},
    model::{Grant, Instance, Ports},
    quota::BoroughChange,
    site::SiteChange,
};

/// One entry of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// When it was proposed, by the proposer's clock.
    pub time: UnixMillis,
    /// Who asked: `operator:alice`, `agent:h1`, `scheduler`.
    pub by: String,
    /// Request id, scoped by `by`; empty: not remembered.
    pub request_id: String,
    /// What to do.
    pub command: Command,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Gives the cluster its id; only the first one counts.
    Initialise {
        /// Random, 32 hex digits.
        cluster_id: String,
    },
    /// A new borough.
    CreateBorough {
        /// Name.
        name: BoroughName,
        /// As people write it.
        title: String,
    },
    /// A change of a borough.
    SetBorough {
        /// Which.
        name: BoroughName,
        /// What changes.
        change: BoroughChange,
    },
    /// A new workload or revision; the spec was checked before.
    ApplyWorkload {
        /// What is wanted.
        spec: Box<WorkloadSpec>,
        /// Refused unless this is the present revision; `Some(0)`: it must not exist.
        expect_revision: Option<Revision>,
    },
    /// A new count.
    ScaleWorkload {
        /// Which.
        key: WorkloadKey,
        /// Instances wanted.
        count: u32,
    },
    /// No more instances.
    StopWorkload {
        /// Which.
        key: WorkloadKey,
        /// Forget it once its instances are gone.
        purge: bool,
    },
    /// A host says what it is.
    RegisterHost {
        /// Name.
        name: HostName,
        /// What it is.
        inventory: Box<Inventory>,
        /// Id of its agent's installation.
        incarnation: String,
    },
    /// Verdicts that changed.
    JudgeHosts(Vec<HostVerdict>),
    /// Opens or closes a host.
    SetSchedulable {
        /// Which.
        name: HostName,
        /// Whether it takes new work.
        schedulable: bool,
    },
    /// Forgets a lost host.
    RemoveHost {
        /// Which.
        name: HostName,
    },
    /// The volumes of a workload no longer keep it on a host.
    ForgetVolumes {
        /// Whose.
        key: WorkloadKey,
        /// Where they live.
        host: HostName,
    },
    /// Placements of a pass, each checked again when applied.
    Place(Vec<Placement>),
    /// One step of a rollout: these stop, each with a successor of the present revision.
    Replace {
        /// Which.
        instances: Vec<InstanceId>,
        /// Why.
        reason: String,
    },
    /// What an agent saw, oldest first.
    Report {
        /// The agent's host.
        host: HostId,
        /// What it saw.
        reports: Vec<InstanceReport>,
    },
    /// A new join token.
    CreateToken {
        /// Id.
        id: String,
        /// SHA-256 of the secret.
        secret_hash: Vec<u8>,
        /// What the bearer becomes.
        grant: Grant,
        /// When it lapses.
        expires: UnixMillis,
    },
    /// A token is used up.
    UseToken {
        /// Id.
        id: String,
        /// SHA-256 of the secret that was shown.
        secret_hash: Vec<u8>,
    },
    /// The same as `Place`, in a third of the bytes.
    PlaceMany(Vec<Placement>),
    /// What several agents saw, gathered by the node that they talk to. Hosts that are not known are passed over.
    ReportMany(Vec<HostReports>),
    /// Every member knows this level: from now on it may be used. A lower one than the present changes nothing.
    RaiseLevel {
        /// The level.
        level: Level,
    },
    /// Less urgent instances make way for more urgent ones, each case checked again when applied.
    Preempt(Vec<Preemption>),
    /// A change of a site's policy.
    SetSite {
        /// Which.
        name: SiteName,
        /// What changes.
        change: SiteChange,
    },
    /// Changes nothing: every node takes the hash of its state at this index, for the others to compare.
    CompareStates,
}

impl Command {
    /// The feature level at which every member can read and apply it.
    #[must_use]
    pub fn needs(&self) -> Level {
        match self {
            Self::Initialise { .. }
            | Self::CreateBorough { .. }
            | Self::ScaleWorkload { .. }
            | Self::StopWorkload { .. }
            | Self::JudgeHosts(_)
            | Self::SetSchedulable { .. }
            | Self::RemoveHost { .. }
            | Self::Replace { .. }
            | Self::Report { .. }
            | Self::CreateToken { .. }
            | Self::UseToken { .. } => level::FIRST,
            Self::ApplyWorkload { spec, .. } => {
                needs_of(&spec.place).max(needs_of_resources(&spec.resources)).max(needs_of_class(spec.class))
            }
            Self::RegisterHost { inventory, .. } => level::of_inventory(inventory),
            Self::Place(placements) => needs_of_placements(placements),
            Self::PlaceMany(placements) => needs_of_placements(placements).max(level::SECOND),
            Self::CompareStates | Self::ReportMany(_) => level::SECOND,
            Self::Preempt(_) | Self::SetBorough { .. } | Self::SetSite { .. } => level::FOURTH,
            Self::ForgetVolumes { .. } => level::FIFTH,
            // It is what says so: whoever proposes it has asked every member.
            Self::RaiseLevel { level } => *level,
        }
    }
}

/// The level at which every member knows the class.
fn needs_of_class(class: Class) -> Level {
    if class == Class::default() { level::FIRST } else { level::FOURTH }
}

/// The level at which every member knows all that is asked for.
fn needs_of_resources(resources: &Resources) -> Level {
    let has_vm_devices = resources.devices.iter().any(|request| request.to_vm);
    if resources.dedicated || resources.numa != Numa::Any || has_vm_devices {
        level::FIFTH
    } else if resources.network.0 > 0 {
        level::FOURTH
    } else {
        needs_of_devices(resources.devices.len())
    }
}

/// The level at which every member knows devices, where there are any.
fn needs_of_devices(devices: usize) -> Level {
    if devices == 0 { level::FIRST } else { level::THIRD }
}

fn needs_of_placements(placements: &[Placement]) -> Level {
    if placements.iter().any(|placement| placement.cores.is_some()) {
        return level::FIFTH;
    }
    needs_of_devices(placements.iter().map(|placement| placement.devices.len()).sum())
}

/// The level at which every member knows all rules of a place.
fn needs_of(place: &Place) -> Level {
    let is_fourth = !place.apart.is_empty()
        || !place.together.is_empty()
        || place.all_or_none
        || place.private
        || place.spread.iter().any(|spread| !spread.is_plain());
    if is_fourth {
        return level::FOURTH;
    }
    if !place.tolerate.is_empty() {
        return level::THIRD;
    }
    let conditions = place.require.iter().chain(place.prefer.iter().map(|wish| &wish.when));
    conditions.map(needs_of_condition).max().unwrap_or(level::FIRST)
}

fn needs_of_condition(condition: &Condition) -> Level {
    let attribute = match condition.attribute {
        Attribute::Docker | Attribute::Libvirt => level::THIRD,
        Attribute::Arch
        | Attribute::Os
        | Attribute::Kernel
        | Attribute::Host
        | Attribute::Site
        | Attribute::Rack
        | Attribute::Label(_) => level::FIRST,
    };
    let test = match condition.test {
        Test::NotIn(_) | Test::Version(..) => level::THIRD,
        Test::Is(_) | Test::IsNot(_) | Test::In(_) | Test::Exists | Test::Missing => level::FIRST,
    };
    attribute.max(test)
}

/// What the agent of one host saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostReports {
    /// The agent's host.
    pub host: HostId,
    /// What it saw, oldest first.
    pub reports: Vec<InstanceReport>,
}

impl HostReports {
    /// What the hosts of these instances say when they are stopped and gone.
    pub fn of_stopped<'a>(instances: impl Iterator<Item = &'a Arc<Instance>>, time: UnixMillis) -> Vec<Self> {
        let mut reports: BTreeMap<HostId, Vec<InstanceReport>> = BTreeMap::new();
        for instance in instances {
            let Some(host) = instance.host() else { continue };
            reports.entry(host).or_default().push(InstanceReport {
                instance: instance.id,
                sequence: instance.report_sequence + 1,
                order_index: instance.order_index,
                state: InstanceState::Stopped,
                reason: String::new(),
                tasks: Vec::new(),
                time,
                unordered: false,
            });
        }
        reports.into_iter().map(|(host, reports)| Self { host, reports }).collect()
    }
}

/// A verdict about a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostVerdict {
    /// Which.
    pub host: HostId,
    /// The verdict.
    pub state: HostState,
    /// Why.
    pub reason: String,
}

/// A placement decided by a pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    /// Which instance.
    pub instance: InstanceId,
    /// Its host.
    pub host: HostId,
    /// Host ports, in the order of [`WorkloadSpec::ports`].
    pub ports: Ports,
    /// Names of devices, in the order of [`Resources::each_device`](supercloud_proto::spec::Resources::each_device).
    pub devices: Vec<DeviceName>,
    /// Cores of its own.
    pub cores: Option<Box<Cores>>,
}

/// Instances that make way for one that waits, decided by a pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preemption {
    /// The one that waits.
    pub instance: InstanceId,
    /// The host on which room was kept for it when this was decided: where that is another one by now, so may be the decision.
    pub before: Option<HostId>,
    /// The host on which it will get their room; `None`: nowhere, room that was kept for it is not any more.
    pub host: Option<HostId>,
    /// Those that stop.
    pub victims: Vec<InstanceId>,
}

impl Preemption {
    /// All that stop for these.
    pub fn victims_of(preemptions: &[Self]) -> impl Iterator<Item = InstanceId> {
        preemptions.iter().flat_map(|preemption| preemption.victims.iter().copied())
    }
}

/// What became of an entry. Applying cannot fail, it can only reject.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Log index at which it was applied; for a repeated request, at which it first was.
    pub index: LogIndex,
    /// It took effect, or nothing changed.
    pub result: Result<Done, Rejection>,
}

/// It took effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Done {
    /// There is no more to say.
    Nothing,
    /// A workload was applied, or a borough or a site changed.
    Applied(Change),
    /// A workload was scaled from this count.
    Scaled {
        /// Count before.
        before: u32,
    },
    /// So many instances were told to stop, counted as gone, placed or replaced, or have room made for them.
    Instances(u32),
    /// A host registered under this number.
    Registered(HostId),
    /// A token was used up; this is what its bearer becomes.
    Granted(Grant),
}

/// What an apply changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It is new.
    Created,
    /// It has a new revision, or runs again.
    Updated,
    /// Only the count differs.
    Scaled,
    /// Nothing differs.
    Unchanged,
}

/// Why a command was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// What it speaks of is not there.
    #[error("{0} does not exist")]
    NotFound(String),
    /// What it would make is there.
    #[error("{0} exists already")]
    Exists(String),
    /// The state of things does not allow it now.
    #[error("{0}")]
    Precondition(String),
    /// A limit is reached.
    #[error("{0}")]
    Limit(String),
    /// Who asks may not.
    #[error("{0}")]
    Denied(String),
    /// Fields are wrong.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Invalid(Vec<Problem>),
}

#[cfg(test)]
mod tests {
    use supercloud_proto::{
        amount::Bytes,
        cores::NumaNode,
        device::{Device, DeviceRequest, Share},
        spec::{Prefer, Spread, SpreadOver},
    };

    use super::*;
    use crate::state::tests::world::{inventory, web};

    #[test]
    fn what_older_members_do_not_know_needs_their_update() {
        let register = |change: &dyn Fn(&mut Inventory)| {
            let mut inventory = Inventory { nodes: Vec::new(), ..inventory("slough") };
            change(&mut inventory);
            let (name, incarnation) = ("h1".parse().unwrap(), "i".to_owned());
            Command::RegisterHost { name, inventory: Box::new(inventory), incarnation }.needs()
        };
        let apply = |change: &dyn Fn(&mut WorkloadSpec)| {
            let mut spec = web("web", 1, None);
            change(&mut spec);
            Command::ApplyWorkload { spec: Box::new(spec), expect_revision: None }.needs()
        };
        assert_eq!((register(&|_| {}), apply(&|_| {})), (level::FIRST, level::FIRST));
        let taint = register(&|of| drop(of.taints.insert("gpu".to_owned(), String::new())));
        let gpu = Device {
            kind: "gpu".parse().unwrap(),
            model: "T4".to_owned(),
            labels: BTreeMap::new(),
            shared: false,
            fault: String::new(),
            pci: None,
        };
        let device = register(&|of| drop(of.devices.insert("gpu0".parse().unwrap(), gpu.clone())));
        let tolerate = apply(&|spec| spec.place.tolerate.push("gpu".parse().unwrap()));
        let asked = DeviceRequest {
            kind: "gpu".parse().unwrap(),
            count: 1,
            share: Share::WHOLE,
            models: Vec::new(),
            require: Vec::new(),
            to_vm: false,
        };
        let request = apply(&|spec| spec.resources.devices.push(asked.clone()));
        assert_eq!([taint, device, tolerate, request], [level::THIRD; 4]);
        let apart = apply(&|spec| spec.place.apart.push("db".parse().unwrap()));
        let together = apply(&|spec| spec.place.together.push("db".parse().unwrap()));
        let [private, gang] =
            [apply(&|spec| spec.place.private = true), apply(&|spec| spec.place.all_or_none = true)];
        let preempt = Command::Preempt(Vec::new()).needs();
        assert_eq!([apart, together, private, gang, preempt], [level::FOURTH; 5]);
        let class = |class| apply(&|spec| spec.class = class);
        assert_eq!(Class::ALL.map(class), [level::FOURTH, level::FIRST, level::FOURTH]);
        let network = [register(&|of| of.network.0 = 1), apply(&|spec| spec.resources.network.0 = 1)];
        assert_eq!(network, [level::FOURTH; 2]);
        let node = NumaNode { number: 0, memory: Bytes(1), cpus: Vec::new() };
        let cores = Cores { cpus: [1].into(), node: None };
        let (instance, ports) = (InstanceId { index: 1, ordinal: 0 }, Ports::default());
        let placement =
            Placement { instance, host: HostId(1), ports, devices: Vec::new(), cores: Some(cores.into()) };
        let cores = [
            register(&|of| of.nodes.push(node.clone())),
            apply(&|spec| spec.resources.dedicated = true),
            apply(&|spec| spec.resources.numa = Numa::One),
            Command::Place(vec![placement.clone()]).needs(),
            Command::PlaceMany(vec![placement]).needs(),
        ];
        assert_eq!(cores, [level::FIFTH; 5]);
        let passed = Device { pci: "0000:01:00.0".parse().ok(), ..gpu.clone() };
        let to_vm = DeviceRequest { to_vm: true, ..asked.clone() };
        let vm_devices = [
            register(&|of| drop(of.devices.insert("gpu0".parse().unwrap(), passed.clone()))),
            apply(&|spec| spec.resources.devices.push(to_vm.clone())),
        ];
        assert_eq!(vm_devices, [level::FIFTH; 2]);
        let spread = |spread: Spread| apply(&|spec| spec.place.spread = vec![spread.clone()]);
        let shares = Spread { over: SpreadOver::Site, shares: BTreeMap::from([("slough".to_owned(), 1)]) };
        let new = [SpreadOver::Label("zone".to_owned()).into(), shares].map(spread);
        assert_eq!((spread(SpreadOver::Rack.into()), new), (level::FIRST, [level::FOURTH; 2]));
    }

    #[test]
    fn what_a_borough_may_have_and_a_sites_policy_need_the_update_of_older_members() {
        let name: BoroughName = "camden".parse().unwrap();
        let set = Command::SetBorough { name, change: BoroughChange::default() };
        assert_eq!(set.needs(), level::FOURTH);
        let set = Command::SetSite { name: "slough".parse().unwrap(), change: SiteChange::default() };
        assert_eq!(set.needs(), level::FOURTH);
    }

    #[test]
    fn a_condition_that_older_members_cannot_read_needs_their_update() {
        let needs = |require: &str, prefer: &str| {
            let mut spec = web("web", 1, None);
            spec.place.require = vec![require.parse().unwrap()];
            spec.place.prefer = vec![Prefer { when: prefer.parse().unwrap(), weight: 1 }];
            Command::ApplyWorkload { spec: Box::new(spec), expect_revision: None }.needs()
        };
        assert_eq!(needs("arch == amd64", "rack in [r1]"), level::FIRST);
        for new in ["kernel >= 6.1", "rack not in [r1]", "docker exists", "libvirt == 9"] {
            assert_eq!(
                (needs(new, "os exists"), needs("os exists", new)),
                (level::THIRD, level::THIRD),
                "{new}"
            );
        }
    }
}
