//! Names and labels: how a container, a volume or a network says whose it is. Pure; knows nothing of Docker's API.
//!
//! Decision: the parts of a volume's and of a network's name are joined by dots. Borough and workload may hold hyphens, so with hyphens the volume `v` of
//! `a/b-c` and that of `a-b/c` would be one, and one borough would read what belongs to another. No name holds a dot.

use std::collections::{BTreeMap, HashMap};

use supercloud_proto::name::{BoroughName, VolumeName, WorkloadKey};

use crate::driver::{Mark, Owner};

pub(super) const CLUSTER: &str = "supercloud.cluster";
pub(super) const HOST: &str = "supercloud.host";
pub(super) const BOROUGH: &str = "supercloud.borough";
pub(super) const WORKLOAD: &str = "supercloud.workload";
pub(super) const INSTANCE: &str = "supercloud.instance";
pub(super) const REVISION: &str = "supercloud.revision";
pub(super) const TASK: &str = "supercloud.task";
pub(super) const ORDER_INDEX: &str = "supercloud.order-index";
pub(super) const VOLUME: &str = "supercloud.volume";
/// What a container was made with of devices; empty, or in those of older versions not there, where that is nothing.
pub(super) const DEVICES: &str = "supercloud.devices";

/// Digits of the cluster's id that a name bears: enough for people; the label holds them all.
const CLUSTER_DIGITS: usize = 8;

/// A container that bears our cluster and host and yet does not say what it is.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("label {label} is damaged: {found:?}")]
pub(super) struct DamagedMark {
    /// The first label that cannot be read.
    pub(super) label: &'static str,
    /// What it says, if it is there.
    pub(super) found: Option<String>,
}

fn short(cluster: &str) -> &str {
    cluster.get(..CLUSTER_DIGITS).unwrap_or(cluster)
}

/// The one name of a task's container. The instance's id has a fixed shape, so no two tasks share one.
pub(super) fn container_name(mark: &Mark) -> String {
    format!("sc-{}-{}-{}", short(&mark.owner.cluster), mark.instance, mark.task)
}

/// The one name of a workload's volume on this host.
pub(super) fn volume_name(cluster: &str, key: &WorkloadKey, volume: &VolumeName) -> String {
    format!("sc-{}-{}.{}.{volume}", short(cluster), key.borough, key.workload)
}

/// What a workload's volume bears.
pub(super) fn volume_labels(
    cluster: &str,
    key: &WorkloadKey,
    volume: &VolumeName,
) -> HashMap<String, String> {
    [
        (CLUSTER, cluster.to_owned()),
        (BOROUGH, key.borough.to_string()),
        (WORKLOAD, key.workload.to_string()),
        (VOLUME, volume.to_string()),
    ]
    .map(|(label, value)| (label.to_owned(), value))
    .into()
}

/// The one name of a borough's network on a host.
pub(super) fn network_name(owner: &Owner, borough: &BoroughName) -> String {
    format!("sc-{}-{}.{borough}", short(&owner.cluster), owner.host)
}

/// What a borough's network bears.
pub(super) fn network_labels(owner: &Owner, borough: &BoroughName) -> HashMap<String, String> {
    [(CLUSTER, owner.cluster.clone()), (HOST, owner.host.to_string()), (BOROUGH, borough.to_string())]
        .map(|(label, value)| (label.to_owned(), value))
        .into()
}

/// The label conditions that choose what an owner has of one borough, in Docker's words.
pub(super) fn borough_filters(owner: &Owner, borough: &BoroughName) -> Vec<String> {
    let mut all = filters(owner);
    all.push(format!("{BOROUGH}={borough}"));
    all
}

/// The label conditions that choose an owner's containers, in Docker's words.
pub(super) fn filters(owner: &Owner) -> Vec<String> {
    vec![format!("{CLUSTER}={}", owner.cluster), format!("{HOST}={}", owner.host)]
}

/// The mark as labels.
pub(super) fn to_labels(mark: &Mark) -> BTreeMap<&'static str, String> {
    BTreeMap::from([
        (CLUSTER, mark.owner.cluster.clone()),
        (HOST, mark.owner.host.to_string()),
        (BOROUGH, mark.workload.borough.to_string()),
        (WORKLOAD, mark.workload.workload.to_string()),
        (INSTANCE, mark.instance.to_string()),
        (REVISION, mark.revision.to_string()),
        (TASK, mark.task.to_string()),
        (ORDER_INDEX, mark.order_index.to_string()),
    ])
}

/// The mark that labels say.
pub(super) fn from_labels(labels: &HashMap<String, String>) -> Result<Mark, DamagedMark> {
    fn read<T: std::str::FromStr>(
        labels: &HashMap<String, String>,
        label: &'static str,
    ) -> Result<T, DamagedMark> {
        let found = labels.get(label);
        found.and_then(|text| text.parse().ok()).ok_or_else(|| DamagedMark { label, found: found.cloned() })
    }
    Ok(Mark {
        owner: Owner { cluster: read(labels, CLUSTER)?, host: read(labels, HOST)? },
        instance: read(labels, INSTANCE)?,
        workload: WorkloadKey { borough: read(labels, BOROUGH)?, workload: read(labels, WORKLOAD)? },
        revision: read(labels, REVISION)?,
        task: read(labels, TASK)?,
        order_index: read(labels, ORDER_INDEX)?,
    })
}

#[cfg(test)]
mod tests {
    use supercloud_proto::{
        id::InstanceId,
        name::{BoroughName, HostName, TaskName, WorkloadName},
    };

    use super::*;

    fn key(borough: &str, workload: &str) -> WorkloadKey {
        WorkloadKey {
            borough: BoroughName::new(borough).unwrap(),
            workload: WorkloadName::new(workload).unwrap(),
        }
    }

    fn mark() -> Mark {
        Mark {
            owner: Owner {
                cluster: "0123456789abcdef0123456789abcdef".into(),
                host: HostName::new("host-1").unwrap(),
            },
            instance: InstanceId { index: 0x2f, ordinal: 1 },
            workload: key("camden", "planning-portal"),
            revision: 3,
            task: TaskName::new("web").unwrap(),
            order_index: 77,
        }
    }

    fn labels() -> HashMap<String, String> {
        to_labels(&mark()).into_iter().map(|(label, value)| (label.to_owned(), value)).collect()
    }

    #[test]
    fn a_mark_comes_back_from_its_labels() {
        assert_eq!(from_labels(&labels()), Ok(mark()));
    }

    #[test]
    fn a_network_is_one_boroughs_on_one_host() {
        let owner = |host: &str| Owner { host: HostName::new(host).unwrap(), ..mark().owner };
        let name =
            |host: &str, borough: &str| network_name(&owner(host), &BoroughName::new(borough).unwrap());
        assert_eq!(name("host-1", "camden"), "sc-01234567-host-1.camden");
        assert_ne!(name("a", "b-c"), name("a-b", "c"));
        let labels = network_labels(&owner("host-1"), &BoroughName::new("camden").unwrap());
        let chosen = borough_filters(&owner("host-1"), &BoroughName::new("camden").unwrap());
        assert!(chosen.iter().all(|filter| {
            filter.split_once('=').is_some_and(|(key, value)| labels.get(key).is_some_and(|has| has == value))
        }));
        assert_eq!(chosen.len(), labels.len());
    }

    #[test]
    fn damage_is_named() {
        for label in [CLUSTER, HOST, BOROUGH, WORKLOAD, INSTANCE, REVISION, TASK, ORDER_INDEX] {
            let mut without = labels();
            without.remove(label);
            assert_eq!(from_labels(&without), Err(DamagedMark { label, found: None }));
        }
        let mut odd = labels();
        odd.insert(INSTANCE.to_owned(), "i-02f-1".to_owned());
        assert_eq!(from_labels(&odd), Err(DamagedMark { label: INSTANCE, found: Some("i-02f-1".into()) }));
    }

    #[test]
    fn names_are_deterministic_and_never_shared() {
        assert_eq!(container_name(&mark()), "sc-01234567-i-2f-1-web");
        let data = VolumeName::new("data").unwrap();
        assert_eq!(volume_name("0123456789", &key("a", "b-c"), &data), "sc-01234567-a.b-c.data");
        assert_ne!(
            volume_name("0123456789", &key("a", "b-c"), &data),
            volume_name("0123456789", &key("a-b", "c"), &data)
        );
    }
}
