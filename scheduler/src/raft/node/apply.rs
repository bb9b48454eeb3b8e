//! Applies committed entries: ours to the machine, raft's own to the membership.

use ::raft::eraftpb::{ConfChange, ConfChangeSingle, ConfChangeV2, Entry, EntryType};

use super::super::log_store::Position;
use super::super::membership::{ChangeContext, decode_context};
use super::super::{Committed, limits};
use super::{Fatal, LogStore, Machine, Node, Transport};

impl<M: Machine, L: LogStore> Node<M, L> {
    /// Applies entries in order, lets readers see the result, then answers the proposers.
    pub(super) fn apply(&mut self, entries: Vec<Entry>, network: &mut dyn Transport) -> Result<(), Fatal> {
        if entries.is_empty() {
            return Ok(());
        }
        let mut answers = Vec::new();
        let bytes = entries.iter().map(|entry| entry.data.len() as u64).sum();
        self.grown.entries += entries.len() as u64;
        self.grown.bytes += bytes;
        for entry in entries {
            self.applied = Position { index: entry.index, term: entry.term };
            match entry.get_entry_type() {
                // Only an empty normal entry says nothing: it opens a term. An empty change leaves joint consensus.
                EntryType::EntryNormal if entry.data.is_empty() => self.change_overtaken(&entry),
                EntryType::EntryNormal => {
                    let outcome = self.machine.apply(entry.index, &entry.data);
                    if let Some(reply) = self.appended.take(entry.index, entry.term) {
                        answers.push((reply, Committed { index: entry.index, outcome }));
                    }
                }
                EntryType::EntryConfChange | EntryType::EntryConfChangeV2 => {
                    self.apply_change(&entry, network)?;
                }
            }
        }
        self.backlog.applied(bytes, self.applied.index == self.raw.raft.raft_log.last_index());
        self.raw.mut_store().witness(self.applied.index)?;
        self.machine.applied_batch(self.applied.index, &self.members);
        for (reply, committed) in answers {
            // A proposer that has gone away needs no answer.
            let _ = reply.send(Ok(committed));
        }
        Ok(())
    }

    fn apply_change(&mut self, entry: &Entry, network: &mut dyn Transport) -> Result<(), Fatal> {
        // A node that forgot this change in a crash could elect itself by the majority of before it.
        self.raw.mut_store().sync_commit(entry.index)?;
        let change = decode_change(entry)?;
        let context = decode_context(&entry.context).map_err(|error| Fatal::Raft(error.to_string()))?;
        let before: Vec<u64> = self.members.members.keys().map(|id| id.0).collect();
        let was_member = self.membership.contains(self.id);
        let done = self.change_membership(&change, context);
        for gone in before.into_iter().filter(|id| !self.membership.contains(*id)) {
            self.heard.remove(&gone);
            network.forget(super::NodeId(gone));
        }
        if was_member && !self.membership.contains(self.id) {
            tracing::warn!(id = self.id, "this node was removed from the cluster");
            self.removed = true;
        }
        self.change_applied(entry, done);
        Ok(())
    }

    /// Whether the change took place. A refusal is the same on every node.
    fn change_membership(&mut self, change: &ConfChangeV2, context: ChangeContext) -> bool {
        if !self.membership.admits(&context) {
            tracing::warn!(?context, "a node with a number that was used before is not added");
            return false;
        }
        match self.raw.apply_conf_change(change) {
            Ok(conf) => {
                self.membership.changed(conf, context);
                self.publish_members();
                true
            }
            Err(error) => {
                tracing::warn!(%error, "a change of the membership is refused");
                false
            }
        }
    }

    pub(super) fn publish_members(&mut self) {
        self.members = std::sync::Arc::new(self.membership.view());
        debug_assert!(self.members.members.len() <= limits::MAX_VOTERS + limits::MAX_LEARNERS);
        // Strangers that are still there will be heard again.
        self.addresses.clear();
    }
}

fn decode_change(entry: &Entry) -> Result<ConfChangeV2, Fatal> {
    let bytes = entry.data.as_slice();
    let decoded = if entry.get_entry_type() == EntryType::EntryConfChange {
        <ConfChange as prost11::Message>::decode(bytes).map(|change| {
            let single = ConfChangeSingle { change_type: change.change_type, node_id: change.node_id };
            ConfChangeV2 { changes: vec![single], ..ConfChangeV2::default() }
        })
    } else {
        <ConfChangeV2 as prost11::Message>::decode(bytes)
    };
    decoded.map_err(|error| Fatal::Raft(format!("the change at index {} is not one: {error}", entry.index)))
}
