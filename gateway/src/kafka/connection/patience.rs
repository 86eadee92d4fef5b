//! How long a client is waited for.

use std::future::Future;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Instant;

use super::driver::{Connection, End};

/// A request that holds a share of the budget arrives at least this fast, once the time is over
/// that any request may stall: a client that trickles must not keep memory that others wait for.
const SLOWEST_BYTES_A_SECOND: u64 = 64 * 1024;

impl Connection {
    /// Ready once the client has done nothing, or too little, for too long.
    pub(super) fn poll_timer(&mut self, cx: &mut Context<'_>) -> Result<Poll<End>, End> {
        loop {
            let is_busy = self.running.is_some() || !self.pendings.is_empty();
            let is_stalled = !is_busy && !self.is_closing && self.frames.is_partial();
            let allowed = if is_stalled {
                self.idle.min(Duration::from_millis(self.broker.config.request_stall_ms))
            } else {
                self.idle
            };
            let quiet_at = self.moved_at + allowed;
            let slow_at = self.too_slow_at()?;
            let deadline = slow_at.map_or(quiet_at, |slow_at| slow_at.min(quiet_at));
            // Moved on lazily when it fires; at once only where it would fire too late.
            if deadline < self.timer.deadline() {
                self.timer.as_mut().reset(deadline);
            }
            if self.timer.as_mut().poll(cx).is_pending() {
                return Ok(Poll::Pending);
            }
            let now = Instant::now();
            if slow_at.is_some_and(|slow_at| now >= slow_at) {
                return Err(End::Slow);
            }
            if now >= quiet_at {
                let waits_for_us = is_busy && self.outbox.is_empty() && !self.is_shut_down;
                if !waits_for_us {
                    return Ok(Poll::Ready(End::Idle));
                }
                self.moved_at = now;
            }
            self.timer.as_mut().reset(self.moved_at + allowed);
        }
    }

    /// When the request that has its share of the budget must be there.
    fn too_slow_at(&mut self) -> Result<Option<Instant>, End> {
        if self.share.is_none() || self.is_closing {
            return Ok(None);
        }
        if !self.takes_more() {
            // It isn't read now: that is no fault of the client's.
            self.share_since = Instant::now();
        }
        let Some(size) = self.frames.size()? else { return Ok(None) };
        let seconds = u64::try_from(size).unwrap_or(u64::MAX) / SLOWEST_BYTES_A_SECOND;
        let stall = Duration::from_millis(self.broker.config.request_stall_ms);
        Ok(Some(self.share_since + stall + Duration::from_secs(seconds)))
    }
}
