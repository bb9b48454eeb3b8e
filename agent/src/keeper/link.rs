//! The loop's end of a session: what comes from it, and what of the reports was already sent over it.

use std::time::Duration;

use supercloud_proto::{id::Millis, v1};
use tokio::{sync::mpsc, time::Instant};

use crate::{desired::OrderSet, reports::Book};

/// Reports that are not confirmed are sent again after this long: a proposal may have been lost with a leader.
const RESEND_AFTER: Duration = Duration::from_secs(5);
/// A report that found the way full is sent again after this long.
const FULL_WAIT: Duration = Duration::from_millis(200);

/// From the session to the loop.
#[derive(Debug)]
pub enum FromSession {
    /// A session stands.
    Opened {
        /// The length of a lease.
        lease: Millis,
        /// What is sent to the node.
        up: mpsc::Sender<v1::AgentMessage>,
    },
    /// Orders came.
    Orders(OrderSet),
    /// A heartbeat that was sent at this boot time was answered.
    Heard {
        /// When it was sent.
        sent: Millis,
    },
    /// The scheduler has taken in reports up to here.
    Confirmed {
        /// Sequence.
        sequence: u64,
    },
    /// The session is over.
    Closed,
}

/// A standing session.
#[derive(Debug)]
pub struct Link {
    up: mpsc::Sender<v1::AgentMessage>,
    /// All orders have come in this session.
    synced: bool,
    /// The last answered heartbeat that came before all orders had.
    heard: Option<Millis>,
    /// Sequence of the last report that was sent in this session.
    sent: u64,
    sent_at: Option<Instant>,
}

impl Link {
    /// A session that was just opened.
    pub fn new(up: mpsc::Sender<v1::AgentMessage>) -> Self {
        Self { up, synced: false, heard: None, sent: 0, sent_at: None }
    }

    /// All orders have come. Returns when the last answered heartbeat was sent.
    pub fn synced(&mut self) -> Option<Millis> {
        self.synced = true;
        self.heard.take()
    }

    /// A heartbeat was answered. Returns whether it counts already.
    pub fn heard(&mut self, sent: Millis) -> bool {
        if !self.synced {
            self.heard = Some(sent);
        }
        self.synced
    }

    /// Sends what was not sent yet, and again what stays unconfirmed for long.
    pub fn report(&mut self, book: &Book, now: Instant) {
        if !self.synced {
            return;
        }
        if self.sent_at.is_some_and(|at| now >= at + RESEND_AFTER) && !book.is_confirmed() {
            self.sent = 0;
        }
        for reports in book.after(self.sent) {
            let last = reports.last().map_or(self.sent, |report| report.sequence);
            let reports = v1::Reports { reports: reports.into_iter().map(Into::into).collect() };
            let message = v1::AgentMessage { message: Some(v1::agent_message::Message::Reports(reports)) };
            if self.up.try_send(message).is_err() {
                // Full, or closed and soon replaced: the rest goes later.
                return;
            }
            self.sent = last;
            self.sent_at = Some(now);
        }
    }

    /// When reports are to be sent, if nothing else happens.
    pub fn next_report(&self, book: &Book, now: Instant) -> Option<Instant> {
        if !self.synced || book.is_confirmed() {
            None
        } else if book.sequence() > self.sent {
            Some(now + FULL_WAIT)
        } else {
            self.sent_at.map(|at| at + RESEND_AFTER)
        }
    }
}
