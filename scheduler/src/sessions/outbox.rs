//! Messages to an agent: into a bounded queue, or the agent is too slow; orders in messages of a bounded size.

use prost::Message as _;
use supercloud_proto::{id::LogIndex, order::Order, v1};
use tokio::sync::mpsc;
use tonic::Status;

use super::SLOW;

/// Messages on their way to one agent; each is mostly some hundred bytes, and seldom more than [`MAX_ORDER_BYTES`].
pub(super) const DEPTH: usize = 32;
/// Most orders of one message.
const MAX_ORDERS: usize = 1_000;
/// Aim for the encoded orders of one message; one large order still fits. A connection keeps the room of its largest message, and there are
/// ten thousand of them.
const MAX_ORDER_BYTES: usize = 16 << 10;

/// The queue to one agent.
pub(super) struct Outbox(mpsc::Sender<Result<v1::SchedulerMessage, Status>>);

/// The agent is gone, or takes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum SendError {
    /// It has ended the session.
    #[error("the agent has ended the session")]
    Gone,
    /// It leaves messages untaken.
    #[error("the agent does not take what it is sent")]
    Slow,
}

impl Outbox {
    pub(super) fn new(queue: mpsc::Sender<Result<v1::SchedulerMessage, Status>>) -> Self {
        Self(queue)
    }

    /// Sends one message, and waits for room for as long as an agent may be slow.
    pub(super) async fn send(&self, message: v1::scheduler_message::Message) -> Result<(), SendError> {
        let message = v1::SchedulerMessage { message: Some(message) };
        self.0.send_timeout(Ok(message), SLOW).await.map_err(|error| match error {
            mpsc::error::SendTimeoutError::Timeout(_) => SendError::Slow,
            mpsc::error::SendTimeoutError::Closed(_) => SendError::Gone,
        })
    }

    /// Sends orders as they stood at `index`: all of the host, or those that changed.
    pub(super) async fn send_orders(
        &self,
        orders: impl Iterator<Item = Order> + Send,
        index: LogIndex,
        full: bool,
    ) -> Result<(), SendError> {
        let mut chunks = Chunks { orders: orders.map(v1::Order::from).peekable() };
        loop {
            let chunk = chunks.take();
            let more = chunks.orders.peek().is_some();
            if chunk.is_empty() && !full {
                return Ok(());
            }
            let orders = v1::Orders { orders: chunk, index, full, more: full && more };
            self.send(v1::scheduler_message::Message::Orders(orders)).await?;
            if !more {
                return Ok(());
            }
        }
    }
}

struct Chunks<I: Iterator<Item = v1::Order>> {
    orders: std::iter::Peekable<I>,
}

impl<I: Iterator<Item = v1::Order>> Chunks<I> {
    /// The orders of the next message; at least one where there is one.
    fn take(&mut self) -> Vec<v1::Order> {
        let mut chunk: Vec<v1::Order> = Vec::new();
        let mut bytes = 0;
        while let Some(order) = self.orders.peek() {
            bytes += order.encoded_len();
            if !chunk.is_empty() && (bytes > MAX_ORDER_BYTES || chunk.len() >= MAX_ORDERS) {
                break;
            }
            chunk.extend(self.orders.next());
        }
        chunk
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(bytes: usize) -> v1::Order {
        v1::Order { reason: "x".repeat(bytes), ..Default::default() }
    }

    fn lengths(orders: Vec<v1::Order>) -> Vec<usize> {
        let mut chunks = Chunks { orders: orders.into_iter().peekable() };
        std::iter::from_fn(|| Some(chunks.take().len()).filter(|length| *length > 0)).collect()
    }

    #[test]
    fn orders_are_cut_by_number_and_by_bytes_and_none_is_lost() {
        assert_eq!(lengths(Vec::new()), Vec::<usize>::new());
        assert_eq!(lengths(vec![order(1); 2_500]), [1_000, 1_000, 500]);
        assert_eq!(lengths(vec![order(MAX_ORDER_BYTES * 2 / 3); 3]), [1, 1, 1]);
        assert_eq!(lengths(vec![order(MAX_ORDER_BYTES * 2)]), [1]);
    }
}
