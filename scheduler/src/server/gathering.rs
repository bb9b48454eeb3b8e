//! Answers that are ready together leave together: a connection that puts its writes off until the other tasks that are ready have had
//! their turn. Knows bytes only.
//!
//! An entry of the log that many callers waited for wakes as many tasks, and each of them wakes its connection, which the runtime lets run
//! next. So every answer cost a write of its own, and on the way to a client a write is what costs most. Here the first write after a
//! quiet moment is refused once and the connection queues up again behind the tasks that were woken with it; what they hand in
//! meanwhile leaves in the same write. Where nobody else is ready it runs again at once.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tonic::transport::server::{Connected, TcpConnectInfo};

/// So often a write is refused at most before one is let through. One poll of a connection may try to write several times (the
/// frames at hand, then a flush), and one that is being closed does not read any more, which is what shows a new poll otherwise.
const MAX_REFUSALS: u8 = 4;

/// See the head of the module.
pub(super) struct Gathering {
    stream: TcpStream,
    gate: Gate,
}

/// Whether writes are let through.
enum Gate {
    /// The next one is put off.
    Shut,
    /// So many were put off; a new poll opens it.
    Refused(u8),
    /// Until what there is to write is written.
    Open,
}

impl Gathering {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self { stream, gate: Gate::Shut }
    }

    /// Puts a write off, once and a little more.
    fn poll_gate(&mut self, context: &Context<'_>) -> Poll<()> {
        let refused = match self.gate {
            Gate::Open => return Poll::Ready(()),
            Gate::Shut => {
                // A task that wakes itself queues up behind all that are ready.
                context.waker().wake_by_ref();
                1
            }
            Gate::Refused(MAX_REFUSALS) => {
                self.gate = Gate::Open;
                return Poll::Ready(());
            }
            Gate::Refused(refused) => {
                context.waker().wake_by_ref();
                refused + 1
            }
        };
        self.gate = Gate::Refused(refused);
        Poll::Pending
    }
}

impl Connected for Gathering {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        self.stream.connect_info()
    }
}

impl AsyncRead for Gathering {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if matches!(self.gate, Gate::Refused(_)) {
            self.gate = Gate::Open;
        }
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Gathering {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        std::task::ready!(self.poll_gate(context));
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        std::task::ready!(self.poll_gate(context));
        Pin::new(&mut self.stream).poll_write_vectored(context, buffers)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if matches!(self.gate, Gate::Open) {
            self.gate = Gate::Shut;
        }
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    use super::*;

    async fn pair() -> (Gathering, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (Gathering::new(listener.accept().await.unwrap().0), client)
    }

    /// One attempt to write, as a poll of a connection makes it.
    async fn attempt(stream: &mut Gathering) -> bool {
        std::future::poll_fn(|context| {
            Poll::Ready(Pin::new(&mut *stream).poll_write(context, b"x").is_ready())
        })
        .await
    }

    #[tokio::test]
    async fn a_write_is_let_through_by_the_next_poll() {
        let (mut stream, _client) = pair().await;
        assert!(!attempt(&mut stream).await && !attempt(&mut stream).await, "of one poll");
        let mut room = [0];
        // A new poll reads first.
        let read = std::future::poll_fn(|context| {
            Poll::Ready(Pin::new(&mut stream).poll_read(context, &mut ReadBuf::new(&mut room)).is_ready())
        });
        assert!(!read.await);
        assert!(attempt(&mut stream).await && attempt(&mut stream).await, "as long as there is more");
        stream.flush().await.unwrap();
        assert!(!attempt(&mut stream).await, "after what there was");
    }

    #[tokio::test]
    async fn one_that_reads_no_more_still_writes() {
        let (mut stream, mut client) = pair().await;
        stream.write_all(b"the last words").await.unwrap();
        stream.shutdown().await.unwrap();
        let mut heard = String::new();
        client.read_to_string(&mut heard).await.unwrap();
        assert_eq!(heard, "the last words");
    }
}
