//! Linearizable reads: which wait to be confirmed, which were asked for, which wait to be applied. Pure; time is ticks.
//!
//! A confirmation belongs to one attempt: every attempt has a fresh context (node, life of the process, number), so
//! that a late answer to an earlier attempt confirms nothing. The term is compared after the wait, not before it: a
//! confirmation that crossed a change of leader is asked for anew.

use std::collections::BTreeMap;

use tokio::sync::oneshot;

use super::limits::{MAX_ASKED_READS, MAX_WAITING_READS, READ_ATTEMPT_TICKS, READ_DEADLINE_TICKS};

/// Why a read got no index.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// No leader confirmed it in time: there is none, or it is not reached.
    #[error("no leader confirmed the read in time")]
    TimedOut,
    /// Too many reads wait.
    #[error("too many reads are waiting")]
    Overloaded,
    /// The node has stopped.
    #[error("the node has stopped")]
    Stopped,
}

/// Where a reader is answered, with the index up to which the state is at least applied.
pub(super) type ReadReply = oneshot::Sender<Result<u64, ReadError>>;

struct Read {
    reply: ReadReply,
    deadline: u64,
}

struct Asked {
    term: u64,
    again_at: u64,
    reads: Vec<Read>,
}

struct Confirmed {
    term: u64,
    index: u64,
    reads: Vec<Read>,
}

/// See the head of the module.
pub(super) struct Reads {
    node: u64,
    life: u64,
    next: u64,
    waiting: Vec<Read>,
    asked: BTreeMap<u64, Asked>,
    confirmed: Vec<Confirmed>,
}

impl Reads {
    /// `life` is random and differs between two lives of the process.
    pub(super) fn new(node: u64, life: u64) -> Self {
        Self { node, life, next: 0, waiting: Vec::new(), asked: BTreeMap::new(), confirmed: Vec::new() }
    }

    pub(super) fn add(&mut self, reply: ReadReply, now: u64) {
        if self.waiting.len() >= MAX_WAITING_READS {
            let _ = reply.send(Err(ReadError::Overloaded));
            return;
        }
        self.waiting.push(Read { reply, deadline: now + READ_DEADLINE_TICKS });
    }

    /// The context to ask raft with now, if there is anybody to ask for.
    pub(super) fn ask(&mut self, term: u64, now: u64) -> Option<Vec<u8>> {
        if self.waiting.is_empty() || self.asked.len() >= MAX_ASKED_READS {
            return None;
        }
        #[cfg(feature = "planted")]
        if crate::planted::is(crate::planted::Fault::ReuseReadContext) {
            let fresh = || Asked { term, again_at: now + READ_ATTEMPT_TICKS, reads: Vec::new() };
            self.asked.entry(0).or_insert_with(fresh).reads.append(&mut self.waiting);
            return Some(self.context(0));
        }
        self.next += 1;
        let reads = std::mem::take(&mut self.waiting);
        self.asked.insert(self.next, Asked { term, again_at: now + READ_ATTEMPT_TICKS, reads });
        Some(self.context(self.next))
    }

    /// Raft confirmed a context. Unknown and old ones are ignored.
    pub(super) fn confirmed(&mut self, context: &[u8], index: u64, term: u64) {
        let Some(number) = self.number(context) else { return };
        let Some(asked) = self.asked.remove(&number) else { return };
        if asked.term == term {
            self.confirmed.push(Confirmed { term, index, reads: asked.reads });
        } else {
            self.waiting.extend(asked.reads);
        }
    }

    /// Answers whose index is applied. A term that has changed since sends them back to the start.
    pub(super) fn applied(&mut self, applied: u64, term: u64) {
        for confirmed in std::mem::take(&mut self.confirmed) {
            if confirmed.term != term {
                self.waiting.extend(confirmed.reads);
            } else if confirmed.index <= applied {
                for read in confirmed.reads {
                    let _ = read.reply.send(Ok(confirmed.index));
                }
            } else {
                self.confirmed.push(confirmed);
            }
        }
    }

    /// Time passes: attempts without an answer are made again, reads past their deadline fail.
    pub(super) fn tick(&mut self, now: u64) {
        let late: Vec<u64> =
            self.asked.iter().filter(|(_, asked)| asked.again_at <= now).map(|(number, _)| *number).collect();
        for number in late {
            if let Some(asked) = self.asked.remove(&number) {
                self.waiting.extend(asked.reads);
            }
        }
        let expired = |read: &Read| read.deadline <= now;
        let mut failed: Vec<Read> = self.waiting.extract_if(.., |read| expired(read)).collect();
        for confirmed in &mut self.confirmed {
            failed.extend(confirmed.reads.extract_if(.., |read| expired(read)));
        }
        fail(failed, &ReadError::TimedOut);
    }

    /// The node stops.
    pub(super) fn stop(&mut self) {
        let asked = std::mem::take(&mut self.asked).into_values().flat_map(|asked| asked.reads);
        let confirmed = self.confirmed.drain(..).flat_map(|confirmed| confirmed.reads);
        let all: Vec<Read> = self.waiting.drain(..).chain(asked).chain(confirmed).collect();
        fail(all, &ReadError::Stopped);
    }

    fn context(&self, number: u64) -> Vec<u8> {
        [self.node, self.life, number].iter().flat_map(|part| part.to_le_bytes()).collect()
    }

    fn number(&self, context: &[u8]) -> Option<u64> {
        let number = u64::from_le_bytes(context.get(16..24)?.try_into().ok()?);
        (self.context(number) == context).then_some(number)
    }
}

fn fail(reads: Vec<Read>, error: &ReadError) {
    for read in reads {
        let _ = read.reply.send(Err(error.clone()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_attempt_has_a_fresh_context_and_late_answers_confirm_nothing() {
        let mut reads = Reads::new(1, 99);
        let (reply, mut answer) = oneshot::channel();
        reads.add(reply, 0);
        let first = reads.ask(1, 0).unwrap();
        assert!(reads.ask(1, 0).is_none());
        reads.tick(READ_ATTEMPT_TICKS);
        let second = reads.ask(1, READ_ATTEMPT_TICKS).unwrap();
        assert_ne!(first, second);
        reads.confirmed(&first, 5, 1);
        reads.applied(9, 1);
        assert!(answer.try_recv().is_err());
        reads.confirmed(&second, 6, 1);
        reads.applied(5, 1);
        assert!(answer.try_recv().is_err());
        reads.applied(6, 1);
        assert_eq!(answer.try_recv().unwrap(), Ok(6));
    }

    #[test]
    fn a_change_of_term_during_the_wait_asks_again() {
        let mut reads = Reads::new(1, 99);
        let (reply, mut answer) = oneshot::channel();
        reads.add(reply, 0);
        let first = reads.ask(1, 0).unwrap();
        reads.confirmed(&first, 5, 1);
        reads.applied(9, 2);
        assert!(answer.try_recv().is_err());
        assert!(reads.ask(2, 0).is_some());
        reads.tick(READ_DEADLINE_TICKS);
        assert_eq!(answer.try_recv().unwrap(), Err(ReadError::TimedOut));
    }

    #[test]
    fn another_life_of_the_process_does_not_confirm() {
        let mut before = Reads::new(1, 98);
        let (reply, _gone) = oneshot::channel();
        before.add(reply, 0);
        let old = before.ask(1, 0).unwrap();
        let mut reads = Reads::new(1, 99);
        let (reply, mut answer) = oneshot::channel();
        reads.add(reply, 0);
        reads.ask(1, 0).unwrap();
        reads.confirmed(&old, 5, 1);
        reads.applied(9, 1);
        assert!(answer.try_recv().is_err());
    }
}
