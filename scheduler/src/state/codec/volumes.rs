//! Where volumes live, as a snapshot holds it.

use supercloud_proto::{id::HostId, log::v1 as stored, name::WorkloadKey, problem::Problems};

use super::entry::{key, wrong};
use crate::state::volumes::{Home, Homes};

pub(super) fn homes_record(key: &WorkloadKey, homes: &Homes) -> stored::HomesRecord {
    let home =
        |home: &Home| stored::HomeRecord { slot: home.slot, host_id: home.host.0, since_ms: home.since };
    stored::HomesRecord {
        borough: (&key.borough).into(),
        workload: (&key.workload).into(),
        homes: homes.iter().map(home).collect(),
    }
}

pub(super) fn parse_homes(record: stored::HomesRecord) -> Result<(WorkloadKey, Homes), Problems> {
    let mut homes = Homes::default();
    for home in record.homes {
        if homes.of(home.slot).is_some() {
            return Err(wrong("homes", "one of each slot", home.slot));
        }
        homes.put(Home { slot: home.slot, host: HostId(home.host_id), since: home.since_ms });
    }
    Ok((key(&record.borough, &record.workload)?, homes))
}
