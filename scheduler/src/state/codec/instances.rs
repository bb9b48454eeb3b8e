//! Instances in a snapshot, straight to bytes and back. What stands there is `v1::Instance` byte for byte, as [`State::instance_message`] makes it and
//! older versions wrote it; but there are a million of them, and making each one's message of some twenty allocations first was most of the time of
//! a snapshot and of a restart. A test compares both ways.

use std::{fmt::Write as _, sync::Arc};

use prost::Message as _;
use supercloud_proto::{
    amount::{Amounts, Bytes, MilliCpu},
    cores::Cores,
    id::{HostId, InstanceId, LogIndex, Revision, UnixMillis},
    instance::{Desired, InstanceState},
    name::{DeviceName, HostName},
    problem::Problems,
    spec::Protocol,
    v1,
};

use super::{
    entry::{key, parsed, port, wrong},
    wire::{Fields, Reading, Value, prefix_length},
};
use crate::state::{
    State,
    model::{Awaited, Background, Instance, Placed, Ports, RevisionRecord, TaskSeen, TaskText},
};

/// Field of a `SnapshotRecord` that holds an instance.
pub(super) const RECORD_FIELD: u64 = 4;

/// Writes one instance as a record of a snapshot, behind its length.
pub(super) fn write(state: &State, instance: &Instance, out: &mut Vec<u8>) {
    let start = out.len();
    out.record(RECORD_FIELD as u32, |out| body(state, instance, out));
    prefix_length(out, start);
}

fn body(state: &State, instance: &Instance, out: &mut Vec<u8>) {
    let host = instance.host().and_then(|id| state.host(id));
    let word = |word: i32| word as u64;
    let mut text = String::new();
    id_text(instance.id, &mut text);
    out.text(1, &text);
    out.text(2, instance.workload().borough.as_str());
    out.text(3, instance.workload().workload.as_str());
    out.number(4, instance.revision());
    out.number(5, instance.slot);
    out.text(6, host.map_or("", |host| host.name.as_str()));
    out.number(7, instance.host().map_or(0, |id| id.0));
    out.number(8, word(instance.desired.into()));
    out.text(9, instance.desired_reason());
    out.number(10, word(instance.state.into()));
    out.text(11, instance.state_reason());
    out.number(12, instance.order_index);
    out.number(13, instance.created);
    out.number(14, instance.changed);
    out.number(15, instance.not_before());
    for task in &instance.tasks {
        out.record(16, |out| write_task(task, out));
    }
    let address = host.map_or("", |host| host.inventory.address.as_str());
    for ((task, port), host_port) in
        instance.spec().ports().zip(instance.placed.iter().flat_map(|placed| &placed.ports))
    {
        out.record(17, |out| {
            out.text(1, port.name.as_str());
            out.text(2, task.as_str());
            out.number(3, port.port);
            out.number(4, *host_port);
            out.text(5, address);
            out.number(6, u64::from(port.protocol == Protocol::Udp));
        });
    }
    if let Some(before) = instance.replaces() {
        text.clear();
        id_text(before, &mut text);
        out.text(18, &text);
    }
    out.number(19, instance.failures());
    out.number(20, instance.report_sequence);
    if let Some(placed) = &instance.placed {
        out.record(21, |out| {
            out.number(1, placed.taken.cpu.0);
            out.number(2, placed.taken.memory.0);
            out.number(3, placed.taken.disk.0);
            out.number(4, instance.spec().resources.network.0);
        });
    }
    for (name, of) in instance.devices() {
        out.record(22, |out| {
            out.text(1, name.as_str());
            out.text(2, of.kind.as_str());
            out.number(3, of.share.0);
        });
    }
    if let Some(awaited) = instance.awaited() {
        out.number(23, awaited.host.0);
        out.text(24, state.host_name(awaited.host).map_or("", HostName::as_str));
        out.number(25, awaited.rank);
    }
    if let Some(cores) = instance.cores() {
        out.record(26, |out| write_cores(cores, out));
    }
}

fn write_cores(cores: &Cores, out: &mut Vec<u8>) {
    // Numbers in a list are packed.
    out.record(1, |out| cores.cpus.iter().for_each(|cpu| out.varint(u64::from(*cpu))));
    if let Some(node) = cores.node {
        // Optional: also when it is 0.
        out.varint(2 << 3);
        out.varint(u64::from(node));
    }
}

fn id_text(id: InstanceId, out: &mut String) {
    // Writing to a string cannot fail.
    let _ = write!(out, "{id}");
}

fn write_task(task: &TaskSeen, out: &mut Vec<u8>) {
    task.as_text(|task| {
        out.text(1, task.name);
        out.number(2, i32::from(task.state) as u64);
        out.text(3, task.runtime_id);
        out.number(4, task.started);
        out.number(5, task.finished);
        if let Some(code) = task.exit_code {
            // Optional: also when it is 0.
            out.varint(6 << 3);
            out.varint(i64::from(code) as u64);
        }
        out.number(7, task.restarts);
        out.text(8, task.reason);
    });
}

/// Reads instances one after the other.
#[derive(Default)]
pub(super) struct Reader {
    /// Of the instance before: those of a workload mostly follow each other.
    record: Option<Arc<RevisionRecord>>,
}

/// The fields of one instance as they stand in the bytes.
#[derive(Default)]
struct Found<'a> {
    id: &'a str,
    borough: &'a str,
    workload: &'a str,
    revision: Revision,
    slot: u32,
    host: u32,
    desired: i32,
    desired_reason: &'a str,
    state: i32,
    state_reason: &'a str,
    order_index: LogIndex,
    created: UnixMillis,
    changed: UnixMillis,
    not_before: UnixMillis,
    tasks: Vec<&'a [u8]>,
    ports: Vec<u32>,
    replaces: &'a str,
    failures: u32,
    report_sequence: u64,
    taken: Amounts,
    devices: Vec<&'a [u8]>,
    awaited_host: u32,
    awaited_rank: u32,
    cores: Option<&'a [u8]>,
}

impl Reader {
    /// Reads an instance. Its workload must be in the state already.
    pub(super) fn read(&mut self, state: &State, bytes: &[u8]) -> Result<Instance, Problems> {
        let found = Found::read(bytes)?;
        let record = self.record_of(state, &found)?;
        let tasks = found.tasks.iter().map(|task| read_task(task, &record));
        let background = Background {
            desired_reason: shared(found.desired_reason),
            state_reason: shared(found.state_reason),
            not_before: found.not_before,
            replaces: match found.replaces {
                "" => None,
                id => Some(parsed("replaces", id)?),
            },
            failures: found.failures,
            devices: found.devices.iter().map(|device| device_name(device)).collect::<Result<_, _>>()?,
            awaited: (found.awaited_host != 0)
                .then_some(Awaited { host: HostId(found.awaited_host), rank: found.awaited_rank }),
            cores: found.cores.map(cores).transpose()?,
        };
        Ok(Instance {
            id: parsed("id", found.id)?,
            slot: found.slot,
            desired: Desired::try_from(found.desired)?,
            placed: found.placed()?,
            state: InstanceState::try_from(found.state)?,
            order_index: found.order_index,
            created: found.created,
            changed: found.changed,
            tasks: tasks.collect::<Result<_, _>>()?,
            report_sequence: found.report_sequence,
            background: background.boxed(),
            record,
        })
    }

    fn record_of(&mut self, state: &State, found: &Found<'_>) -> Result<Arc<RevisionRecord>, Problems> {
        if let Some(record) = &self.record
            && record.revision == found.revision
            && record.key.workload.as_str() == found.workload
            && record.key.borough.as_str() == found.borough
        {
            return Ok(record.clone());
        }
        let workload = key(found.borough, found.workload)?;
        let known = state.workload(&workload).and_then(|workload| workload.revision(found.revision));
        let record =
            known.ok_or_else(|| wrong("revision", "a kept revision of the workload", found.revision))?;
        Ok(self.record.insert(record.clone()).clone())
    }
}

impl<'a> Found<'a> {
    fn read(bytes: &'a [u8]) -> Result<Self, Problems> {
        let mut found = Self::default();
        let mut fields = Reading(bytes);
        while let Some((field, value)) = fields.next()? {
            match field {
                1 => found.id = value.text()?,
                2 => found.borough = value.text()?,
                3 => found.workload = value.text()?,
                4 => found.revision = value.number(),
                5 => found.slot = value.number() as u32,
                7 => found.host = value.number() as u32,
                8 => found.desired = value.number() as i32,
                9 => found.desired_reason = value.text()?,
                10 => found.state = value.number() as i32,
                11 => found.state_reason = value.text()?,
                12 => found.order_index = value.number(),
                13 => found.created = value.number(),
                14 => found.changed = value.number(),
                15 => found.not_before = value.number(),
                16 => found.tasks.push(value.bytes()),
                17 => found.ports.push(host_port(value.bytes())?),
                18 => found.replaces = value.text()?,
                19 => found.failures = value.number() as u32,
                20 => found.report_sequence = value.number(),
                21 => found.taken = amounts(value.bytes())?,
                22 => found.devices.push(value.bytes()),
                23 => found.awaited_host = value.number() as u32,
                25 => found.awaited_rank = value.number() as u32,
                26 => found.cores = Some(value.bytes()),
                // The hosts' names (6, 24) are in the hosts' records; what else there may be a later version wrote.
                _ => {}
            }
        }
        Ok(found)
    }

    fn placed(&self) -> Result<Option<Placed>, Problems> {
        if self.host == 0 {
            return Ok(None);
        }
        let ports = self.ports.iter().map(|number| port(*number)).collect::<Result<Ports, _>>()?;
        Ok(Some(Placed { host: HostId(self.host), ports, taken: self.taken }))
    }
}

/// The one field of a device that is not in the spec.
fn device_name(bytes: &[u8]) -> Result<DeviceName, Problems> {
    let mut name = "";
    each(bytes, |field, value| {
        if field == 1 {
            name = value.text()?;
        }
        Ok(())
    })?;
    parsed("devices", name)
}

fn cores(bytes: &[u8]) -> Result<Box<Cores>, Problems> {
    let message = v1::GivenCores::decode(bytes).map_err(|error| wrong("cores", "cores", error))?;
    Cores::try_from(message).map(Box::new).map_err(|problems| problems.within("cores"))
}

/// The one field of a port's binding that is not in the spec.
fn host_port(bytes: &[u8]) -> Result<u32, Problems> {
    let mut number = 0;
    each(bytes, |field, value| {
        if field == 4 {
            number = value.number() as u32;
        }
        Ok(())
    })?;
    Ok(number)
}

fn amounts(bytes: &[u8]) -> Result<Amounts, Problems> {
    let mut amounts = Amounts::default();
    each(bytes, |field, value| {
        match field {
            1 => amounts.cpu = MilliCpu(value.number()),
            2 => amounts.memory = Bytes(value.number()),
            3 => amounts.disk = Bytes(value.number()),
            _ => {}
        }
        Ok(())
    })?;
    Ok(amounts)
}

fn read_task(bytes: &[u8], record: &RevisionRecord) -> Result<TaskSeen, Problems> {
    let mut task = TaskText::unknown();
    let mut state = 0;
    each(bytes, |field, value| {
        match field {
            1 => task.name = value.text()?,
            2 => state = value.number() as i32,
            3 => task.runtime_id = value.text()?,
            4 => task.started = value.number(),
            5 => task.finished = value.number(),
            6 => task.exit_code = Some(value.number() as i32),
            7 => task.restarts = value.number() as u32,
            8 => task.reason = value.text()?,
            _ => {}
        }
        Ok(())
    })?;
    task.state = InstanceState::try_from(state)?;
    TaskSeen::new(&task, &record.spec).map_err(|error| wrong("name", &error.to_string(), task.name))
}

fn each<'a>(
    bytes: &'a [u8],
    mut read: impl FnMut(u64, Value<'a>) -> Result<(), Problems>,
) -> Result<(), Problems> {
    let mut fields = Reading(bytes);
    while let Some((field, value)) = fields.next()? {
        read(field, value)?;
    }
    Ok(())
}

/// A text to keep; an empty one takes no memory.
fn shared(text: &str) -> Arc<str> {
    if text.is_empty() { Arc::default() } else { text.into() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message as _;
    use supercloud_proto::{
        instance::TaskStatus,
        log::v1::{SnapshotRecord, snapshot_record::Record},
    };

    use super::*;
    use crate::state::tests::world::{World, web};

    /// A placed instance that was changed in all ways, in a state that knows its workload and host.
    fn sample(world: &World, tasks: &[TaskStatus], numbers: [u64; 4], reasons: [String; 2]) -> Instance {
        let placed = world.live("web")[0];
        let mut instance = Instance::clone(world.state.instance(placed).unwrap());
        let [sequence, not_before, failures, created] = numbers;
        instance.tasks =
            tasks.iter().map(|task| TaskSeen::of(task, instance.spec())).collect::<Vec<_>>().into();
        instance.report_sequence = sequence;
        instance.created = created;
        let [desired_reason, state_reason] = reasons;
        instance.background = Background {
            desired_reason: desired_reason.as_str().into(),
            state_reason: state_reason.as_str().into(),
            not_before,
            replaces: (failures % 2 == 1).then_some(placed),
            failures: failures as u32,
            devices: Box::default(),
            awaited: instance.is_pending().then_some(Awaited { host: HostId(1), rank: failures as u32 % 3 }),
            cores: (failures % 3 == 0).then(|| {
                let node = (created % 2 == 0).then_some(created as u16);
                Box::new(Cores { cpus: [0, 3, not_before as u16 % 5_000 + 4].into(), node })
            }),
        }
        .boxed();
        instance
    }

    fn task() -> impl Strategy<Value = TaskStatus> {
        let runtime = prop_oneof![
            "",
            "[0-9a-f]{64}",
            "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",
            ".{1,90}"
        ];
        let times = any::<[Option<std::num::NonZeroU64>; 2]>();
        let rest = ("main|other", 0..InstanceState::ALL.len(), any::<Option<i32>>(), 0..3u32, ".{0,9}");
        (runtime, times, rest).prop_map(
            |(runtime_id, [started, finished], (name, state, exit_code, restarts, reason))| TaskStatus {
                name: name.parse().unwrap(),
                state: InstanceState::ALL[state],
                runtime_id,
                started: started.map(Into::into),
                finished: finished.map(Into::into),
                exit_code,
                restarts,
                reason,
            },
        )
    }

    proptest! {
        #[test]
        fn what_is_written_is_the_message_and_reads_back(
            tasks in proptest::collection::vec(task(), 0..3),
            numbers in any::<[u64; 4]>(),
            reasons in [".{0,200}", ".{0,20}"],
            pending in any::<bool>(),
        ) {
            let mut world = World::with_hosts(&["h0"]);
            world.apply_spec(&web("web", 1, None));
            if !pending {
                world.place_all(&[HostId(1)]);
            }
            let instance = sample(&world, &tasks, numbers, reasons);
            let message = world.state.instance_message(&instance);
            let whole = SnapshotRecord { record: Some(Record::Instance(message.clone())) };
            let mut out = Vec::new();
            write(&world.state, &instance, &mut out);
            prop_assert_eq!(&out, &whole.encode_length_delimited_to_vec());

            let read = Reader::default().read(&world.state, &message.encode_to_vec()).unwrap();
            prop_assert_eq!(read, instance);
        }
    }
}
