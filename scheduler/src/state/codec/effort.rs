//! What an entry may cost to apply, judged before it is its turn.

use prost::Message;
use supercloud_proto::{
    log::v1 as stored,
    name::{BoroughName, WorkloadKey, WorkloadName},
};

use super::{super::State, wire::Reading};

/// Placements, reports and successors take a few microseconds for each, and some 20 bytes.
const MANY_BYTES: usize = 16 << 10;
/// So are instances that come and go with a count.
const MANY_INSTANCES: u32 = 1_000;

/// Numbers in `log.proto` of the commands that change all that is on some host, or look at all that there is.
const ABOUT_HOSTS: [u64; 5] = [15, 16, 18, 24, 30];
/// And of those that change a count.
const ABOUT_COUNTS: [u64; 3] = [12, 13, 14];
/// Lowest number of a command.
const FIRST_COMMAND: u64 = 10;

/// Whether applying an entry may take long. What cannot be read is not: it ends the process anyway.
pub fn is_long(state: &State, entry: &[u8]) -> bool {
    let number = command(entry).unwrap_or_default();
    entry.len() > MANY_BYTES
        || ABOUT_HOSTS.contains(&number)
        || (ABOUT_COUNTS.contains(&number) && changes_many(state, entry).unwrap_or_default())
}

/// Number of the command, which stands behind the few fields that all entries have.
fn command(entry: &[u8]) -> Option<u64> {
    let mut fields = Reading(entry);
    while let Some((number, _)) = fields.next().ok()? {
        if number >= FIRST_COMMAND {
            return Some(number);
        }
    }
    None
}

/// Whether a workload has many instances, or is to have many.
fn changes_many(state: &State, entry: &[u8]) -> Option<bool> {
    let (borough, workload, count) = match stored::Entry::decode(entry).ok()?.command? {
        stored::entry::Command::ApplyWorkload(apply) => {
            let spec = apply.spec?;
            (spec.borough, spec.workload, spec.count)
        }
        stored::entry::Command::ScaleWorkload(scale) => (scale.borough, scale.workload, scale.count),
        stored::entry::Command::StopWorkload(stop) => (stop.borough, stop.workload, 0),
        _ => return None,
    };
    let key =
        WorkloadKey { borough: BoroughName::new(borough).ok()?, workload: WorkloadName::new(workload).ok()? };
    let present = state.workload(&key).map_or(0, |workload| workload.wanted());
    Some(present.max(count) > MANY_INSTANCES)
}

#[cfg(test)]
mod tests {
    use supercloud_proto::{name::HostName, spec::WorkloadSpec};

    use super::*;
    use crate::state::{BoroughChange, Command, Entry, SiteChange, tests::world::service};

    fn entry(command: Command) -> Vec<u8> {
        let entry = Entry {
            time: 1_700_000_000_000,
            by: "operator:anna".to_owned(),
            request_id: String::new(),
            command,
        };
        entry.encode()
    }

    fn apply(spec: &WorkloadSpec) -> Vec<u8> {
        entry(Command::ApplyWorkload { spec: Box::new(spec.clone()), expect_revision: None })
    }

    #[test]
    fn what_changes_many_instances_is_long_however_small() {
        let mut state = State::default();
        let mut spec = service("web", 1);
        let key = spec.key();
        let scale = |count| entry(Command::ScaleWorkload { key: key.clone(), count });
        let stop = entry(Command::StopWorkload { key: key.clone(), purge: false });
        assert!(!is_long(&state, &apply(&spec)) && !is_long(&state, &scale(0)) && !is_long(&state, &stop));
        assert!(is_long(&state, &scale(MANY_INSTANCES + 1)));
        spec.count = MANY_INSTANCES + 1;
        let many = apply(&spec);
        assert!(is_long(&state, &many));
        let borough = Command::CreateBorough { name: key.borough.clone(), title: String::new() };
        for (index, bytes) in [entry(borough), many].iter().enumerate() {
            state.apply(index as u64 + 1, &Entry::decode(bytes).unwrap());
        }
        assert!(is_long(&state, &scale(0)) && is_long(&state, &stop), "it has many to lose");
    }

    #[test]
    fn what_is_about_hosts_is_long_and_the_rest_as_long_as_it_is_large() {
        let state = State::default();
        assert!(is_long(&state, &entry(Command::JudgeHosts(Vec::new()))));
        assert!(is_long(&state, &entry(Command::RaiseLevel { level: 5 })));
        let change = SiteChange::default();
        assert!(is_long(&state, &entry(Command::SetSite { name: "slough".parse().unwrap(), change })));
        assert!(is_long(&state, &entry(Command::RemoveHost { name: HostName::new("h1").unwrap() })));
        let borough =
            |title: String| Command::CreateBorough { name: BoroughName::new("camden").unwrap(), title };
        assert!(!is_long(&state, &entry(borough("Camden".to_owned()))));
        assert!(is_long(&state, &entry(borough("C".repeat(MANY_BYTES)))));
        assert!(!is_long(&state, &entry(Command::Place(Vec::new()))));
        let name = BoroughName::new("camden").unwrap();
        assert!(!is_long(&state, &entry(Command::SetBorough { name, change: BoroughChange::default() })));
        assert!(!is_long(&state, b"") && !is_long(&state, &[0xff; 9]), "what is no entry");
    }
}
