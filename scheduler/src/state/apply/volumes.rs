//! Rules for volumes: where they come to live, and when they do no longer. The head of `state::volumes` says why.

use std::{collections::BTreeMap, sync::Arc};

use supercloud_proto::{
    id::{HostId, InstanceId},
    name::{HostName, WorkloadKey},
};

use super::Step;
use crate::state::{
    command::{Done, Rejection},
    model::{EventKind, Subject},
    volumes::{Home, Homes},
};

impl Step<'_> {
    /// Makes the host of an instance that mounts volumes and was just placed the home of its slot.
    pub(super) fn move_in(&mut self, id: InstanceId) {
        if !self.state.has_homes() {
            return;
        }
        let Some(instance) = self.state.instances.get(&id) else { return };
        let Some(host) = instance.host() else { return };
        let home = Home { slot: instance.slot, host, since: self.time };
        let homes = self.state.homes.entry(instance.workload().clone()).or_default();
        Arc::make_mut(homes).put(home);
    }

    /// Makes homes for all that is placed: of each slot where it was placed last.
    pub(super) fn find_homes(&mut self) {
        let mut found: BTreeMap<&WorkloadKey, Homes> = BTreeMap::new();
        // By age: who came later stands for the slot.
        for instance in self.state.instances.values().filter(|instance| instance.spec().has_volumes()) {
            if let Some(host) = instance.host() {
                let home = Home { slot: instance.slot, host, since: self.time };
                found.entry(instance.workload()).or_default().put(home);
            }
        }
        self.state.homes = found.into_iter().map(|(key, homes)| (key.clone(), Arc::new(homes))).collect();
    }

    /// The volumes of a workload no longer keep it on a host. What is on the host's disk is left alone.
    pub(super) fn forget_volumes(&mut self, key: &WorkloadKey, name: &HostName) -> Result<Done, Rejection> {
        let homes = self.state.homes.get(key).filter(|_| self.state.workloads.contains_key(key));
        let host = self.state.host_named(name.as_str());
        let there = homes.zip(host).filter(|(homes, host)| homes.are_on(host.id));
        let Some((homes, host)) = there else {
            return Err(Rejection::NotFound(format!("home of {key} on {name}")));
        };
        if let Some(user) = self.state.users_of_volumes(key, host).next() {
            return Err(Rejection::Precondition(format!(
                "{} uses the volumes of {key} on {name}; stop it first",
                user.id
            )));
        }
        let at_home = homes.iter().filter(|home| home.host == host.id);
        let slots: Vec<String> = at_home.map(|home| home.slot.to_string()).collect();
        let id = host.id;
        self.leave_homes(key, id);
        let subject = Subject {
            borough: Some(key.borough.clone()),
            workload: Some(key.clone()),
            host: Some(name.clone()),
            ..Subject::default()
        };
        let message = format!(
            "its volumes on {name}, of slot {}, no longer keep it there; they stay on the disk until they are removed there",
            slots.join(", ")
        );
        self.event(EventKind::VolumesForgotten, subject, message);
        Ok(Done::Nothing)
    }

    /// Makes a host that is removed nobody's home.
    pub(super) fn leave_homes_on(&mut self, host: HostId) {
        let there = self.state.homes.iter().filter(|(_, homes)| homes.are_on(host));
        let keys: Vec<WorkloadKey> = there.map(|(key, _)| key.clone()).collect();
        keys.iter().for_each(|key| self.leave_homes(key, host));
    }

    fn leave_homes(&mut self, key: &WorkloadKey, host: HostId) {
        let Some(homes) = self.state.homes.get_mut(key) else { return };
        Arc::make_mut(homes).leave(host);
        if homes.is_empty() {
            self.state.homes.remove(key);
        }
    }
}
