//! What others know of a connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::task::Waker;

use futures_util::task::AtomicWaker;
use tokio::sync::Notify;

use crate::mqtt::codec::Reason;

/// The handle by which others wake a connection or end it.
#[derive(Debug, Default)]
pub(crate) struct ConnShared {
    waker: AtomicWaker,
    /// The code to close with, plus [`CLOSING`].
    closing: AtomicU16,
    is_drained: AtomicBool,
    drained: Notify,
}

const CLOSING: u16 = 0x100;

impl ConnShared {
    pub(crate) fn new() -> Arc<Self> {
        Arc::default()
    }

    pub(super) fn register(&self, waker: &Waker) {
        self.waker.register(waker);
    }

    /// There is something to do for it.
    pub(crate) fn wake(&self) {
        self.waker.wake();
    }

    /// Ends it for `reason`; the first one counts.
    pub(crate) fn close(&self, reason: Reason) {
        let code = CLOSING | u16::from(reason.code());
        let _ = self.closing.compare_exchange(0, code, Ordering::AcqRel, Ordering::Acquire);
        self.wake();
    }

    /// It looks at no further packet.
    pub(super) fn set_drained(&self) {
        self.is_drained.store(true, Ordering::Release);
        self.drained.notify_waiters();
    }

    /// Waits until it looks at no further packet.
    pub(crate) async fn drained(&self) {
        loop {
            let drained = self.drained.notified();
            tokio::pin!(drained);
            drained.as_mut().enable();
            if self.is_drained.load(Ordering::Acquire) {
                return;
            }
            drained.await;
        }
    }

    /// Why it is to end.
    pub(super) fn closing(&self) -> Option<Reason> {
        let [high, code] = self.closing.load(Ordering::Acquire).to_be_bytes();
        (high != 0).then(|| Reason::from_code(code)).flatten()
    }
}
