//! Who may make which call: one table, and what is not in it may be called by nobody. Knows callers and paths, no request's content: that a
//! borough's people see their own borough only is decided where the content is known (see `caller`).
//!
//! Decisions. *Health is open to everyone*, since load balancers and `systemd` hold no certificates, and it tells nothing but that the node
//! serves. *Reflection takes a certificate*: the API is no secret, but a stranger shall find as little as possible to talk to.
//!
//! To add a call: a line here; a test compares the table with the API's descriptors.

use supercloud_proto::pki::Identity;

use super::caller::Caller;

/// Whom a call admits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// Whoever reaches the port.
    Anyone,
    /// Whoever holds a certificate of the cluster.
    Certified,
    /// Operators, and people of boroughs for what is theirs.
    People,
    /// Operators.
    Operators,
    /// Agents.
    Agents,
    /// Scheduler nodes.
    Schedulers,
}

use Who::{Agents, Anyone, Certified, Operators, People, Schedulers};

/// Every call there is, by its path.
pub const TABLE: &[(&str, Who)] = &[
    ("/supercloud.v1.WorkloadService/Apply", People),
    ("/supercloud.v1.WorkloadService/Plan", People),
    ("/supercloud.v1.WorkloadService/Scale", People),
    ("/supercloud.v1.WorkloadService/Stop", People),
    ("/supercloud.v1.WorkloadService/List", People),
    ("/supercloud.v1.WorkloadService/Get", People),
    ("/supercloud.v1.WorkloadService/History", People),
    ("/supercloud.v1.WorkloadService/Watch", People),
    ("/supercloud.v1.InstanceService/List", People),
    ("/supercloud.v1.InstanceService/Get", People),
    ("/supercloud.v1.InstanceService/Explain", People),
    ("/supercloud.v1.InstanceService/Logs", People),
    ("/supercloud.v1.InstanceService/Exec", People),
    ("/supercloud.v1.HostService/List", People),
    ("/supercloud.v1.HostService/Get", People),
    ("/supercloud.v1.HostService/ListSites", People),
    ("/supercloud.v1.HostService/SetSite", Operators),
    ("/supercloud.v1.HostService/SetSchedulable", Operators),
    ("/supercloud.v1.HostService/Remove", Operators),
    ("/supercloud.v1.VolumeService/List", People),
    ("/supercloud.v1.VolumeService/Forget", People),
    ("/supercloud.v1.BoroughService/Create", Operators),
    ("/supercloud.v1.BoroughService/Set", Operators),
    ("/supercloud.v1.BoroughService/List", People),
    ("/supercloud.v1.BoroughService/Get", People),
    ("/supercloud.v1.EventService/List", People),
    ("/supercloud.v1.EventService/Watch", People),
    ("/supercloud.v1.SchedulerService/List", People),
    ("/supercloud.v1.SchedulerService/CreateToken", Operators),
    ("/supercloud.v1.SchedulerService/Join", Anyone),
    ("/supercloud.v1.SchedulerService/Remove", Operators),
    ("/supercloud.v1.SchedulerService/TransferLeadership", Operators),
    ("/supercloud.v1.SchedulerService/Promote", Operators),
    ("/supercloud.v1.SchedulerService/Health", Operators),
    ("/supercloud.v1.SchedulerService/SaveSnapshot", Operators),
    ("/supercloud.v1.AgentService/Session", Agents),
    ("/supercloud.v1.AgentService/Attach", Agents),
    ("/supercloud.v1.PeerService/Step", Schedulers),
    ("/supercloud.v1.PeerService/InstallSnapshot", Schedulers),
    ("/supercloud.v1.PeerService/SnapshotOffset", Schedulers),
    ("/supercloud.v1.PeerService/Propose", Schedulers),
    ("/supercloud.v1.PeerService/Describe", Schedulers),
    ("/supercloud.v1.PeerService/Heartbeats", Schedulers),
    ("/supercloud.v1.PeerService/Relay", Schedulers),
    ("/supercloud.v1.PeerService/FetchArchive", Schedulers),
    ("/supercloud.v1.PeerService/ChangeMembers", Schedulers),
    ("/supercloud.v1.PeerService/Report", Schedulers),
    ("/grpc.health.v1.Health/Check", Anyone),
    ("/grpc.health.v1.Health/Watch", Anyone),
    ("/grpc.health.v1.Health/List", Anyone),
    ("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", Certified),
    ("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", Certified),
];

/// Whom the call at `path` admits; `None`: there is no such call.
#[must_use]
pub fn who(path: &str) -> Option<Who> {
    TABLE.iter().find(|(known, _)| *known == path).map(|(_, who)| *who)
}

impl Who {
    /// Whether it admits this caller. In development there are no certificates and everybody on this machine may do everything.
    #[must_use]
    pub fn admits(self, caller: &Caller) -> bool {
        let identity = match caller {
            Caller::Dev => return true,
            Caller::Nobody => return self == Anyone,
            Caller::Known(identity) => identity,
        };
        match self {
            Anyone | Certified => true,
            People => matches!(identity, Identity::Operator { .. } | Identity::Borough { .. }),
            Operators => matches!(identity, Identity::Operator { .. }),
            Agents => matches!(identity, Identity::Agent { .. }),
            Schedulers => matches!(identity, Identity::Scheduler { .. }),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use prost::Message as _;
    use supercloud_proto::v1;

    use super::*;

    fn everybody() -> [(&'static str, Caller); 6] {
        let known = Caller::Known;
        [
            ("dev", Caller::Dev),
            ("nobody", Caller::Nobody),
            ("operator", known(Identity::Operator { name: "anna".parse().unwrap() })),
            (
                "borough",
                known(Identity::Borough { borough: "camden".parse().unwrap(), name: "bob".parse().unwrap() }),
            ),
            ("agent", known(Identity::Agent { host: "h1".parse().unwrap() })),
            ("scheduler", known(Identity::Scheduler { node: 1 })),
        ]
    }

    fn admitted(who: Who) -> Vec<&'static str> {
        everybody().iter().filter(|(_, caller)| who.admits(caller)).map(|(name, _)| *name).collect()
    }

    #[test]
    fn each_call_of_the_api_is_in_the_table_once() {
        let set = prost_types::FileDescriptorSet::decode(v1::FILE_DESCRIPTOR_SET).unwrap();
        let mut calls = BTreeSet::new();
        for file in &set.file {
            for service in &file.service {
                for method in &service.method {
                    calls.insert(format!("/{}.{}/{}", file.package(), service.name(), method.name()));
                }
            }
        }
        assert!(calls.len() > 30, "the descriptors are there");
        let table: Vec<&str> = TABLE.iter().map(|(path, _)| *path).collect();
        let unique: BTreeSet<&str> = table.iter().copied().collect();
        assert_eq!(unique.len(), table.len(), "no call twice");
        let ours: BTreeSet<String> =
            table.iter().filter(|path| !path.starts_with("/grpc.")).map(ToString::to_string).collect();
        assert_eq!(ours, calls);
    }

    #[test]
    fn each_word_admits_whom_it_says() {
        assert_eq!(admitted(Anyone), ["dev", "nobody", "operator", "borough", "agent", "scheduler"]);
        assert_eq!(admitted(Certified), ["dev", "operator", "borough", "agent", "scheduler"]);
        assert_eq!(admitted(People), ["dev", "operator", "borough"]);
        assert_eq!(admitted(Operators), ["dev", "operator"]);
        assert_eq!(admitted(Agents), ["dev", "agent"]);
        assert_eq!(admitted(Schedulers), ["dev", "scheduler"]);
    }

    #[test]
    fn who_has_no_certificate_may_join_and_ask_for_health() {
        let open: Vec<&str> = TABLE.iter().filter(|(_, who)| *who == Anyone).map(|(path, _)| *path).collect();
        assert_eq!(
            open,
            [
                "/supercloud.v1.SchedulerService/Join",
                "/grpc.health.v1.Health/Check",
                "/grpc.health.v1.Health/Watch",
                "/grpc.health.v1.Health/List"
            ]
        );
        assert_eq!(who("/supercloud.v1.WorkloadService/Delete"), None);
        assert_eq!(who(""), None);
    }
}
