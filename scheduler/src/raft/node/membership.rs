//! Changes of the membership and of the leadership, as the leader proposes them.

use std::collections::{BTreeMap, BTreeSet};

use ::raft::StateRole;
use ::raft::eraftpb::{ConfChangeSingle, ConfChangeType, ConfChangeV2, Entry};

use super::super::changes::{Change, ChangeError, ChangeReply, Judge, Permitted};
use super::super::limits::TRANSFER_TICKS;
use super::super::members::NodeId;
use super::super::membership::{ChangeContext, encode_context};
use super::{LogStore, Machine, Node};

/// A change that was appended.
pub(super) struct PendingChange {
    index: u64,
    term: u64,
    id: NodeId,
    /// Nobody waits for a promotion that the leader made by itself.
    reply: Option<ChangeReply>,
}

/// A transfer that was begun.
pub(super) struct PendingTransfer {
    to: NodeId,
    deadline: u64,
    reply: ChangeReply,
}

impl<M: Machine, L: LogStore> Node<M, L> {
    pub(super) fn propose_change(&mut self, change: &Change, reply: ChangeReply) {
        if let Err(error) = self.try_change(change) {
            let _ = reply.send(Err(error));
        } else if let Some(pending) = &mut self.change {
            pending.reply = Some(reply);
        }
    }

    fn try_change(&mut self, change: &Change) -> Result<(), ChangeError> {
        if self.raw.raft.state != StateRole::Leader || self.removed {
            return Err(ChangeError::NotLeader { leader: self.leader() });
        }
        let permitted = self.judge(|judge| judge.permit(change))?;
        self.append_change(permitted)
    }

    /// Promotes a learner that has caught up.
    pub(super) fn promote_ripe(&mut self) {
        let leads = self.raw.raft.state == StateRole::Leader && !self.removed;
        if !leads || self.membership.conf().learners.is_empty() || self.raw.raft.has_pending_conf() {
            return;
        }
        if let Some(permitted) = self.judge(|judge| judge.ripe()) {
            // A promotion that does not go through now is tried again at the next tick.
            if let Err(error) = self.append_change(permitted) {
                tracing::debug!(%error, "promotion put off");
            }
        }
    }

    /// Members that were heard of lately, itself among them; of use while leading.
    pub(super) fn reachable(&self) -> BTreeSet<NodeId> {
        self.judge(|judge| {
            let heard = |id: &NodeId| judge.reachable(id.0);
            self.members.members.keys().copied().filter(heard).collect()
        })
    }

    fn judge<T>(&self, judgement: impl FnOnce(&Judge<'_>) -> T) -> T {
        let matched: BTreeMap<NodeId, u64> = self.matched();
        judgement(&Judge {
            membership: &self.membership,
            leader: self.id,
            commit: self.raw.raft.raft_log.committed,
            matched: &matched,
            heard: &self.heard,
            now: self.now,
        })
    }

    /// Highest index known to be on each member's disk; of use while leading.
    pub(super) fn matched(&self) -> BTreeMap<NodeId, u64> {
        self.raw.raft.prs().iter().map(|(id, progress)| (NodeId(*id), progress.matched)).collect()
    }

    fn append_change(&mut self, permitted: Permitted) -> Result<(), ChangeError> {
        if self.raw.raft.has_pending_conf() {
            return Err(ChangeError::Busy);
        }
        let (kind, id, added) = match permitted {
            Permitted::Add(member) => (ConfChangeType::AddLearnerNode, member.id, Some(member)),
            Permitted::Promote(id) => (ConfChangeType::AddNode, id, None),
            Permitted::Remove(id) => (ConfChangeType::RemoveNode, id, None),
        };
        let mut single = ConfChangeSingle { node_id: id, ..ConfChangeSingle::default() };
        single.set_change_type(kind);
        let change = ConfChangeV2 { changes: vec![single], ..ConfChangeV2::default() };
        let context = encode_context(&ChangeContext { added });
        self.raw.propose_conf_change(context, change).map_err(|_| ChangeError::Overloaded)?;
        let (index, term) = (self.raw.raft.raft_log.last_index(), self.raw.raft.term);
        self.change = Some(PendingChange { index, term, id: NodeId(id), reply: None });
        Ok(())
    }

    /// The change at `entry` was applied, or refused on all nodes alike.
    pub(super) fn change_applied(&mut self, entry: &Entry, done: bool) {
        let Some(pending) = self.change.take_if(|pending| pending.index <= entry.index) else { return };
        let ours = pending.index == entry.index && pending.term == entry.term;
        let answer = match (ours, done) {
            (true, true) => Ok(pending.id),
            (true, false) => Err(ChangeError::Busy),
            (false, _) => Err(ChangeError::OutcomeUnknown),
        };
        if let Some(reply) = pending.reply {
            let _ = reply.send(answer);
        }
    }

    /// An empty entry stands where raft did not let a change through.
    pub(super) fn change_overtaken(&mut self, entry: &Entry) {
        if self.change.as_ref().is_some_and(|pending| pending.index == entry.index) {
            self.change_applied(entry, false);
        }
    }

    pub(super) fn begin_transfer(&mut self, to: NodeId, reply: ChangeReply) {
        let refusal = if self.raw.raft.state != StateRole::Leader || self.removed {
            Some(ChangeError::NotLeader { leader: self.leader() })
        } else if let Err(error) = self.judge(|judge| judge.may_lead(to)) {
            Some(error)
        } else if self.transfer.is_some() || self.raw.raft.has_pending_conf() {
            // The change under way may be the removal of the very node that is to lead.
            Some(ChangeError::Busy)
        } else {
            None
        };
        if let Some(error) = refusal {
            let _ = reply.send(Err(error));
            return;
        }
        if to.0 != self.id {
            self.raw.transfer_leader(to.0);
        }
        self.transfer = Some(PendingTransfer { to, deadline: self.now + TRANSFER_TICKS, reply });
    }

    pub(super) fn settle_transfer(&mut self) {
        let Some(transfer) = &self.transfer else { return };
        let answer = if self.raw.raft.leader_id == transfer.to.0 {
            Ok(transfer.to)
        } else if self.now >= transfer.deadline {
            Err(ChangeError::NotTransferred { id: transfer.to })
        } else {
            return;
        };
        if let Some(transfer) = self.transfer.take() {
            let _ = transfer.reply.send(answer);
        }
    }

    /// Leadership is lost, or the node stops. A transfer goes on: losing the leadership is its way.
    pub(super) fn fail_changes(&mut self, error: &ChangeError) {
        if let Some(reply) = self.change.take().and_then(|pending| pending.reply) {
            let _ = reply.send(Err(error.clone()));
        }
        if *error == ChangeError::Stopped
            && let Some(transfer) = self.transfer.take()
        {
            let _ = transfer.reply.send(Err(error.clone()));
        }
    }
}
