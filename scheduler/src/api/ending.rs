//! Streams that end with the node: whoever follows something is told to go on elsewhere, and does not take the end for that of what they
//! follow.

use std::future::Future;

use futures::{Stream, StreamExt as _, stream};
use tonic::Status;

use super::refusals;

/// The stream, cut off with `UNAVAILABLE` when the node ends.
pub fn cut_off<T: Send + 'static>(
    items: impl Stream<Item = Result<T, Status>> + Send + 'static,
    ended: impl Future<Output = ()> + Send + 'static,
) -> impl Stream<Item = Result<T, Status>> + Send + 'static {
    stream::unfold(Some((Box::pin(items), Box::pin(ended))), |place| async move {
        let (mut items, mut ended) = place?;
        tokio::select! {
            () = &mut ended => Some((Err(refusals::shutting_down()), None)),
            item = items.next() => item.map(|item| (item, Some((items, ended)))),
        }
    })
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;

    #[tokio::test]
    async fn the_end_of_the_node_is_told_from_the_end_of_the_stream() {
        let some = || stream::iter([Ok::<_, Status>(1)]);
        let whole: Vec<_> = cut_off(some(), pending()).collect().await;
        assert!(matches!(whole.as_slice(), [Ok(1)]));
        let endless = stream::pending::<Result<u32, Status>>();
        let cut: Vec<_> = cut_off(endless, ready(())).collect().await;
        assert!(matches!(cut.as_slice(), [Err(status)] if status.code() == tonic::Code::Unavailable));
    }
}
