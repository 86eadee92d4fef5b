//! What all streams of a client share: how they are begun, and how requests go out.

use std::sync::Arc;
use std::time::Duration;

use futures_util::Stream;
use tokio::sync::Notify;
use tonic::{Response, Status, Streaming};

/// What is sent next on a stream.
pub(super) enum Next<T> {
    Request(T),
    /// Nothing until there is a change.
    Wait,
    /// Nothing any more: another stream is the one of now.
    Over,
}

/// Who has requests for a stream, as they come up.
pub(super) trait Outgoing: Send + Sync + 'static {
    type Request: Send + 'static;

    /// All who wait are told when there may be something to send, or the end.
    fn changed(&self) -> &Notify;

    /// What is sent next on the stream of that number.
    fn next(&self, stream: u64) -> Next<Self::Request>;
}

/// What is to be sent on the stream of that number: `first`, and then what `outgoing` has.
pub(super) fn requests<O: Outgoing>(
    outgoing: Arc<O>,
    stream: u64,
    first: O::Request,
) -> impl Stream<Item = O::Request> + Send + 'static {
    futures_util::stream::unfold((outgoing, Some(first)), move |(outgoing, first)| async move {
        if let Some(first) = first {
            return Some((first, (outgoing, None)));
        }
        loop {
            let changed = outgoing.changed().notified();
            match outgoing.next(stream) {
                Next::Request(request) => {
                    drop(changed);
                    return Some((request, (outgoing, None)));
                }
                Next::Over => return None,
                Next::Wait => changed.await,
            }
        }
    })
}

/// The messages of the stream that `call` begins, and the first of them; a stream that has none
/// after `timeout` is none.
pub(super) async fn connect<T>(
    timeout: Duration,
    call: impl Future<Output = Result<Response<Streaming<T>>, Status>>,
) -> Result<(Streaming<T>, Option<T>), Status> {
    let connecting = async {
        let mut messages = call.await?.into_inner();
        let first = messages.message().await?;
        Ok((messages, first))
    };
    let connected = tokio::time::timeout(timeout, connecting).await;
    connected.unwrap_or_else(|_| Err(Status::unavailable("the node doesn't answer")))
}
