//! Closes a connection that has been silent for one and a half times its keep-alive
//! [MQTT-3.1.2-22].

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

/// The timer of one connection. It isn't touched as packets come: it looks when it fires.
#[derive(Debug)]
pub(super) struct KeepAlive {
    limit: Duration,
    last_packet: Instant,
    timer: Pin<Box<Sleep>>,
}

impl KeepAlive {
    /// `None` without keep-alive.
    pub(super) fn new(seconds: u16) -> Option<Self> {
        let limit = Duration::from_millis(u64::from(seconds) * 1500);
        let now = Instant::now();
        (seconds > 0).then(|| Self {
            limit,
            last_packet: now,
            timer: Box::pin(sleep_until(now + limit)),
        })
    }

    /// A whole packet came from the client.
    pub(super) fn packet(&mut self) {
        self.last_packet = Instant::now();
    }

    /// Ready once the client has been silent for too long.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            ready!(self.timer.as_mut().poll(cx));
            let due = self.last_packet + self.limit;
            if Instant::now() >= due {
                return Poll::Ready(());
            }
            self.timer.as_mut().reset(due);
        }
    }
}
