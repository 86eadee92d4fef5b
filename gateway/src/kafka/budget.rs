//! Memory for requests of all connections together.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};

/// What one permit of the semaphore stands for.
const UNIT_BYTES: usize = 1024;

/// A bounded amount of memory that connections take from, first come, first served.
#[derive(Clone, Debug)]
pub(super) struct Budget {
    units: Arc<Semaphore>,
    total: u32,
}

/// A part of the budget; given back when dropped.
#[derive(Debug)]
#[must_use = "dropping it gives the memory back"]
pub(super) struct Share(#[expect(dead_code, reason = "held for its drop")] OwnedSemaphorePermit);

/// Waits for a share.
type Waiting = Pin<Box<dyn Future<Output = Result<OwnedSemaphorePermit, AcquireError>> + Send>>;

/// A connection's place in the queue for the budget.
#[derive(Default)]
pub(super) struct Queue(Option<Waiting>);

impl Budget {
    pub(super) fn new(bytes: usize) -> Self {
        let units = (bytes / UNIT_BYTES).clamp(1, Semaphore::MAX_PERMITS.min(1 << 31));
        let total = u32::try_from(units).unwrap_or(u32::MAX);
        Self { units: Arc::new(Semaphore::new(units)), total }
    }

    /// A share for `bytes`; one larger than the whole budget gets all of it. `None` if the budget
    /// is closed for good.
    pub(super) fn poll_take(
        &self,
        bytes: usize,
        queue: &mut Queue,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Share>> {
        if queue.0.is_none() {
            let units = u32::try_from(bytes / UNIT_BYTES + 1).unwrap_or(u32::MAX).min(self.total);
            if let Ok(permit) = self.units.clone().try_acquire_many_owned(units) {
                return Poll::Ready(Some(Share(permit)));
            }
            queue.0 = Some(Box::pin(self.units.clone().acquire_many_owned(units)));
        }
        let Some(waiting) = queue.0.as_mut() else { return Poll::Pending };
        match waiting.as_mut().poll(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(permit) => {
                queue.0 = None;
                Poll::Ready(permit.ok().map(Share))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    #[test]
    fn a_share_waits_for_another_to_be_given_back() {
        let budget = Budget::new(10 * UNIT_BYTES);
        let mut cx = Context::from_waker(Waker::noop());
        let (mut first, mut second) = (Queue::default(), Queue::default());
        let Poll::Ready(Some(share)) = budget.poll_take(usize::MAX, &mut first, &mut cx) else {
            panic!("more than everything gets everything");
        };
        assert!(budget.poll_take(1, &mut second, &mut cx).is_pending());
        drop(share);
        assert!(matches!(budget.poll_take(1, &mut second, &mut cx), Poll::Ready(Some(_))));
    }
}
