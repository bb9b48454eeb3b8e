//! Rules for hosts: registered, judged, closed, forgotten.

use std::sync::Arc;

use supercloud_proto::{
    host::{HostState, Inventory},
    id::{HostId, InstanceId},
    instance::{Desired, InstanceState},
    name::HostName,
};

use super::Step;
use crate::state::{
    command::{Done, HostVerdict, Rejection},
    level::FOURTH,
    model::{EventKind, Host, Instance, Subject},
};

/// Why what is on a lost host is lost.
const HOST_LOST: &str = "its host is lost";

impl Step<'_> {
    /// A host says what it is. Whoever registers has a living session, so the verdict follows from its drivers alone.
    pub(super) fn register_host(
        &mut self,
        name: &HostName,
        inventory: &Inventory,
        incarnation: &str,
    ) -> Result<Done, Rejection> {
        let known = self.state.host_named(name.as_str()).cloned();
        let fresh = known.is_none();
        let mut host = match known {
            Some(host) => Host::clone(&host),
            None => self.new_host(name, inventory, incarnation),
        };
        if fresh || host.incarnation != incarnation {
            let again = if fresh { "" } else { " with a new installation of its agent" };
            self.host_event(
                EventKind::HostRegistered,
                name,
                format!("registered in site {}{again}", inventory.site),
            );
            self.forget_sequences(host.id);
        }
        host.inventory = Arc::new(inventory.clone());
        host.incarnation = incarnation.to_owned();
        let id = host.id;
        self.state.derived.add_host(&host);
        self.state.hosts.insert(id, Arc::new(host));
        self.state.follow_policy(id);
        let (state, reason) = verdict_of(inventory);
        self.judge(&HostVerdict { host: id, state, reason });
        Ok(Done::Registered(id))
    }

    /// A new installation counts its reports from its own clock, which may stand behind the one that the last installation had: what it
    /// says must not be passed over as old.
    fn forget_sequences(&mut self, host: HostId) {
        let heard: Vec<InstanceId> = self
            .state
            .instances_on(host)
            .filter(|instance| instance.report_sequence > 0)
            .map(|instance| instance.id)
            .collect();
        for id in heard {
            self.change(id, |instance| instance.report_sequence = 0);
        }
    }

    fn new_host(&mut self, name: &HostName, inventory: &Inventory, incarnation: &str) -> Host {
        self.state.next_host += 1;
        let id = HostId(self.state.next_host);
        self.state.orders.insert(id, self.index);
        Host {
            id,
            name: name.clone(),
            inventory: Arc::new(inventory.clone()),
            incarnation: incarnation.to_owned(),
            state: HostState::Ready,
            state_reason: String::new(),
            state_since: self.time,
            schedulable: true,
            registered: self.time,
        }
    }

    pub(super) fn judge_hosts(&mut self, verdicts: &[HostVerdict]) -> Done {
        for verdict in verdicts {
            self.judge(verdict);
        }
        Done::Nothing
    }

    fn judge(&mut self, verdict: &HostVerdict) {
        let Some(host) = self.state.hosts.get(&verdict.host) else { return };
        let (name, before) = (host.name.clone(), host.state);
        if before == verdict.state && host.state_reason == verdict.reason {
            return;
        }
        let mut judged = Host::clone(host);
        judged.state = verdict.state;
        judged.state_reason = verdict.reason.clone();
        if before != verdict.state {
            judged.state_since = self.time;
        }
        self.state.hosts.insert(judged.id, Arc::new(judged));
        if before == verdict.state {
            return;
        }
        let because = if verdict.reason.is_empty() { String::new() } else { format!(": {}", verdict.reason) };
        let message = format!("{} (was {}){because}", verdict.state.as_str(), before.as_str());
        self.host_event(EventKind::HostState, &name, message);
        if verdict.state == HostState::Lost {
            self.replace_lost(verdict.host);
        }
    }

    /// Replaces what ran on a lost host. The records stay, told to stop, until the host is back and says that they are gone.
    fn replace_lost(&mut self, host: HostId) {
        if self.state.level() >= FOURTH {
            self.lose_stopping(host);
        }
        let lost: Vec<InstanceId> = self
            .state
            .instances_on(host)
            .filter(|i| i.desired == Desired::Run && !i.state.is_over())
            .map(|i| i.id)
            .collect();
        for id in lost {
            self.lose(id);
            let Some(seen) = self.state.instances.get(&id).cloned() else { continue };
            self.succeed(&seen, HOST_LOST);
        }
    }

    fn lose(&mut self, id: InstanceId) {
        let time = self.time;
        self.change(id, |instance| {
            instance.state = InstanceState::Lost;
            instance.set_state_reason(HOST_LOST);
            instance.changed = time;
        });
    }

    /// What was to stop on a lost host runs no more either, and counts for nobody; it has its successor already.
    fn lose_stopping(&mut self, host: HostId) {
        let is_stopping = |i: &&Arc<Instance>| {
            i.desired == Desired::Stop && !i.state.is_over() && i.state != InstanceState::Lost
        };
        let stopping: Vec<InstanceId> =
            self.state.instances_on(host).filter(is_stopping).map(|i| i.id).collect();
        stopping.into_iter().for_each(|id| self.lose(id));
    }

    pub(super) fn set_schedulable(&mut self, name: &HostName, schedulable: bool) -> Result<Done, Rejection> {
        let mut host = Host::clone(self.known_host(name)?);
        if host.schedulable != schedulable {
            host.schedulable = schedulable;
            self.state.hosts.insert(host.id, Arc::new(host));
            let message = if schedulable { "opened to new work" } else { "closed to new work" };
            self.host_event(EventKind::HostSchedulable, name, message);
        }
        Ok(Done::Nothing)
    }

    /// Forgets a lost host and all that was on it.
    pub(super) fn remove_host(&mut self, name: &HostName) -> Result<Done, Rejection> {
        let host = self.known_host(name)?.clone();
        if host.state != HostState::Lost {
            let state = host.state.as_str();
            return Err(Rejection::Precondition(format!(
                "host {name} is {state}; only a lost host can be removed"
            )));
        }
        let gone: Vec<InstanceId> = self.state.instances_on(host.id).map(|instance| instance.id).collect();
        for id in &gone {
            let Some(instance) = self.state.instances.get(id).cloned() else { continue };
            if instance.desired == Desired::Run {
                self.succeed(&instance, "its host was removed");
            }
            self.take(*id, "its host was removed");
        }
        let awaiting: Vec<InstanceId> =
            self.state.used(host.id).awaited.iter().map(|(_, instance)| *instance).collect();
        for id in awaiting {
            self.change(id, |instance| instance.set_awaited(None));
        }
        self.leave_homes_on(host.id);
        self.state.derived.remove_host(&host);
        self.state.hosts.remove(&host.id);
        self.state.orders.remove(&host.id);
        self.host_event(EventKind::HostRemoved, name, format!("removed with {} instances", gone.len()));
        Ok(Done::Instances(gone.len() as u32))
    }

    fn known_host(&self, name: &HostName) -> Result<&Arc<Host>, Rejection> {
        self.state.host_named(name.as_str()).ok_or_else(|| Rejection::NotFound(format!("host {name}")))
    }

    fn host_event(&mut self, kind: EventKind, name: &HostName, message: impl Into<String>) {
        self.event(kind, Subject { host: Some(name.clone()), ..Subject::default() }, message);
    }
}

/// The verdict about a host that answers: ready when all its drivers do.
pub fn verdict_of(inventory: &Inventory) -> (HostState, String) {
    let silent = inventory.drivers.iter().find(|(_, driver)| !driver.healthy);
    match silent {
        None => (HostState::Ready, String::new()),
        Some((kind, driver)) => (HostState::Degraded, format!("{}: {}", kind.as_str(), driver.reason)),
    }
}
