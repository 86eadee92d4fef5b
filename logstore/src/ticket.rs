//! The future of an append's answer.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::sync::oneshot;

use crate::client::AppendResult;
use crate::error::AppendError;

/// Resolves when the append is committed or refused.
#[must_use = "an append's answer is its ticket"]
#[derive(Debug)]
pub struct AppendTicket(State);

#[derive(Debug)]
enum State {
    Ready(AppendResult),
    Waiting(oneshot::Receiver<AppendResult>),
    Deferred(oneshot::Receiver<AppendTicket>),
}

/// The side that answers. Dropped without an answer, the ticket resolves to
/// [`AppendError::Unknown`], so no append is ever left waiting.
#[derive(Debug)]
pub struct AppendReply(oneshot::Sender<AppendResult>);

/// The side that makes an append later. Dropped, the append was never made: the ticket resolves to
/// [`AppendError::Unavailable`].
#[derive(Debug)]
pub(crate) struct DeferredReply(oneshot::Sender<AppendTicket>);

impl AppendTicket {
    /// A ticket whose answer is known already.
    pub fn ready(result: AppendResult) -> Self {
        Self(State::Ready(result))
    }

    /// A ticket and the side that answers it.
    pub fn pair() -> (AppendReply, Self) {
        let (tx, rx) = oneshot::channel();
        (AppendReply(tx), Self(State::Waiting(rx)))
    }

    /// A ticket for an append that is made later, and the side that makes it.
    pub(crate) fn deferred() -> (DeferredReply, Self) {
        let (tx, rx) = oneshot::channel();
        (DeferredReply(tx), Self(State::Deferred(rx)))
    }
}

impl DeferredReply {
    /// The append was made.
    pub(crate) fn send(self, ticket: AppendTicket) {
        // The appender may have gone away; the append stands all the same.
        let _ = self.0.send(ticket);
    }
}

impl AppendReply {
    /// Answers the ticket.
    pub fn send(self, result: AppendResult) {
        // The appender may have gone away; the append stands all the same.
        let _ = self.0.send(result);
    }
}

impl Future for AppendTicket {
    type Output = AppendResult;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<AppendResult> {
        loop {
            match &mut self.0 {
                State::Ready(result) => return Poll::Ready(result.clone()),
                State::Waiting(rx) => {
                    let answer = ready!(Pin::new(rx).poll(cx));
                    return Poll::Ready(answer.unwrap_or(Err(AppendError::Unknown)));
                }
                State::Deferred(rx) => {
                    let made = ready!(Pin::new(rx).poll(cx));
                    *self = made.unwrap_or_else(|_| {
                        let why = "the client of the logs is closed".to_owned();
                        Self::ready(Err(AppendError::Unavailable(why)))
                    });
                }
            }
        }
    }
}
