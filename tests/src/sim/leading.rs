//! What a node does while it leads.

use supercloud_scheduler::{
    raft::{NodeId, Role, Status},
    state::Command,
};

use super::{
    calls::{Answer, CallId},
    server::CLUSTER,
    specs,
    world::World,
};

/// What a leader remembers.
#[derive(Debug, Default)]
pub(super) struct Leading {
    term: u64,
    founding: Option<CallId>,
}

impl World {
    pub(super) fn lead(&mut self, id: NodeId, status: &Status) {
        if status.role != Role::Leader {
            self.leading.remove(&id);
            return;
        }
        let leading = self.leading.entry(id).or_default();
        if leading.term != status.term {
            *leading = Leading { term: status.term, ..Leading::default() };
        }
        if leading.founding.is_some() {
            return;
        }
        let Some(state) = self.servers.get(&id).and_then(super::server::Server::state) else { return };
        let command = if state.cluster_id().is_none() {
            Command::Initialise { cluster_id: CLUSTER.to_owned() }
        } else if !state.boroughs().contains_key(&specs::borough()) {
            Command::CreateBorough { name: specs::borough(), title: "Camden".to_owned() }
        } else {
            return;
        };
        let call = self.next_call();
        if let Some(leading) = self.leading.get_mut(&id) {
            leading.founding = Some(call);
        }
        self.propose_here(id, call, command);
    }

    pub(super) fn on_own_answer(&mut self, node: NodeId, id: CallId, _answer: Answer) {
        if let Some(leading) = self.leading.get_mut(&node).filter(|leading| leading.founding == Some(id)) {
            leading.founding = None;
        }
    }

    pub(super) fn sessions_broke(&mut self, node: NodeId) {
        self.leading.remove(&node);
    }
}
