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
}

/// The side that answers. Dropped without an answer, the ticket resolves to
/// [`AppendError::Unknown`], so no append is ever left waiting.
#[derive(Debug)]
pub struct AppendReply(oneshot::Sender<AppendResult>);

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
        match &mut self.0 {
            State::Ready(result) => Poll::Ready(result.clone()),
            State::Waiting(rx) => {
                let answer = ready!(Pin::new(rx).poll(cx));
                Poll::Ready(answer.unwrap_or(Err(AppendError::Unknown)))
            }
        }
    }
}
