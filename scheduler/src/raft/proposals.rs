//! Proposals that were appended and wait for their entry to be applied. Knows indexes and terms only.

use std::collections::VecDeque;

use tokio::sync::oneshot;

use super::{Committed, ProposeError};

/// Where a proposer is answered.
pub(super) type ProposeReply<O> = oneshot::Sender<Result<Committed<O>, ProposeError>>;

/// One proposal on its way to the log.
pub(super) struct Proposal<O> {
    pub(super) entry: Vec<u8>,
    pub(super) reply: ProposeReply<O>,
}

impl<O> Proposal<O> {
    pub(super) fn refuse(self, error: ProposeError) {
        // A proposer that has gone away needs no answer.
        let _ = self.reply.send(Err(error));
    }
}

/// Appended proposals in the order of their indexes, all of one term: they end with the leadership.
pub(super) struct Appended<O> {
    waiting: VecDeque<(u64, u64, ProposeReply<O>)>,
    /// Most that waited at a time, in this tick and in the one before.
    most: [usize; 2],
}

impl<O> Default for Appended<O> {
    fn default() -> Self {
        Self { waiting: VecDeque::new(), most: [0; 2] }
    }
}

impl<O> Appended<O> {
    pub(super) fn push(&mut self, index: u64, term: u64, reply: ProposeReply<O>) {
        self.waiting.push_back((index, term, reply));
        self.most[0] = self.most[0].max(self.waiting.len());
    }

    /// A tick has passed.
    pub(super) fn tick(&mut self) {
        self.most = [self.waiting.len(), self.most[0]];
    }

    /// The most that have waited at a time of late.
    pub(super) fn most(&self) -> usize {
        self.most[0].max(self.most[1])
    }

    /// Whoever proposed the entry of `index` in `term`. Anybody before it has been overtaken.
    pub(super) fn take(&mut self, index: u64, term: u64) -> Option<ProposeReply<O>> {
        while let Some((at, of, reply)) = self.waiting.pop_front() {
            if at > index {
                self.waiting.push_front((at, of, reply));
                return None;
            }
            if at == index && of == term {
                return Some(reply);
            }
            let _ = reply.send(Err(ProposeError::OutcomeUnknown));
        }
        None
    }

    /// Leadership is lost, or the node stops: nobody here will learn what became of these.
    pub(super) fn fail(&mut self, error: &ProposeError) {
        for (_, _, reply) in self.waiting.drain(..) {
            let _ = reply.send(Err(error.clone()));
        }
    }
}
