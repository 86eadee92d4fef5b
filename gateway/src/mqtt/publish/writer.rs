//! The writer of one log: publishes of all connections become batches.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use interflow_logstore::{LogClient, LogId};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::completion::{Completion, complete, reason};
use super::lane::{InFlight, Lane};
use super::record::Inbound;
use super::waiters::Waiters;
use crate::mqtt::codec::{QoS, Reason};
use crate::mqtt::connection::ConnShared;
use crate::mqtt::metrics::MqttMetrics;
use crate::mqtt::retained::{Committed, Retained};

/// The writer holds as many bytes as it may: stop reading, and try again when woken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Full;

/// Bounds of a writer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WriterLimits {
    pub(crate) max_bytes: usize,
    pub(crate) max_batch_bytes: usize,
    pub(crate) max_early_batches: u16,
}

/// What a writer works with.
#[derive(Clone)]
pub(crate) struct WriterParts {
    pub(crate) client: Arc<dyn LogClient>,
    pub(crate) retained: Arc<Retained>,
    pub(crate) metrics: Arc<MqttMetrics>,
    pub(crate) limits: WriterLimits,
    /// Producer ids of the durable and the early lane.
    pub(crate) producers: [i64; 2],
}

/// Batches publishes to one log.
pub(crate) struct Writer {
    log: LogId,
    parts: WriterParts,
    lanes: Mutex<Lanes>,
    settled: Notify,
    committed: Box<dyn Fn(u64) + Send + Sync>,
}

struct Lanes {
    lanes: [Lane; 2],
    bytes: usize,
    waiters: Waiters,
    /// Wakes the task that answers; tickets of appends wake it by themselves.
    settler: Option<Waker>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Which {
    Durable = 0,
    Early = 1,
}

impl Which {
    fn of(qos: QoS) -> Self {
        if qos == QoS::AtMostOnce { Self::Early } else { Self::Durable }
    }
}

impl Lanes {
    fn lane(&mut self, which: Which) -> &mut Lane {
        let [durable, early] = &mut self.lanes;
        match which {
            Which::Durable => durable,
            Which::Early => early,
        }
    }
}

impl Writer {
    /// A writer for `log`. `committed` is told one past
    /// each batch that was committed, before its publishers are answered.
    pub(crate) fn new(
        log: LogId,
        parts: WriterParts,
        committed: impl Fn(u64) + Send + Sync + 'static,
    ) -> Self {
        let [durable, early] = parts.producers;
        let WriterLimits { max_batch_bytes, max_early_batches, .. } = parts.limits;
        let lanes = [
            Lane::new(log, durable, false, 1, max_batch_bytes),
            Lane::new(log, early, true, max_early_batches, max_batch_bytes),
        ];
        Self {
            log,
            parts,
            lanes: Mutex::new(Lanes {
                lanes,
                bytes: 0,
                waiters: Waiters::default(),
                settler: None,
            }),
            settled: Notify::new(),
            committed: Box::new(committed),
        }
    }

    /// Adds a message to the next batch of its lane; [`Writer::flush`] sends it off. `completion`
    /// makes what will be told once the record is committed.
    ///
    /// # Errors
    /// [`Full`]: nothing was taken, and `connection` will be woken when there is room again.
    pub(crate) fn submit(
        &self,
        message: &Inbound<'_>,
        connection: Option<&Arc<ConnShared>>,
        completion: impl FnOnce() -> Completion,
    ) -> Result<(), Full> {
        if let Some(connection) = connection
            && message.retain
            && self.parts.retained.must_wait(connection)
        {
            return Err(Full);
        }
        let mut lanes = self.lanes.lock();
        // Something must be in flight for a waiter to be woken.
        if let Some(connection) = connection
            && lanes.bytes > 0
            && lanes.bytes + message.bytes() > self.parts.limits.max_bytes
        {
            lanes.waiters.add(connection);
            drop(lanes);
            self.flush();
            return Err(Full);
        }
        let pass = message.retain.then(|| self.parts.retained.enter());
        match lanes.lane(Which::of(message.qos)).push(message, completion(), pass) {
            Ok(bytes) => {
                lanes.bytes += bytes;
                self.parts.metrics.append_bytes_waiting.add(bytes as u64);
            }
            // A record that no batch can hold: the packet limit forbids it.
            Err(_) => self.parts.metrics.publishes_refused.inc(),
        }
        Ok(())
    }

    /// Appends what may go out now.
    pub(crate) fn flush(&self) {
        let mut lanes = self.lanes.lock();
        self.append(&mut lanes, Which::Durable);
        self.append(&mut lanes, Which::Early);
    }

    /// Under the lock: it is what orders the appends.
    fn append(&self, lanes: &mut Lanes, which: Which) {
        while let Some((append, pending)) = lanes.lane(which).next_append() {
            self.parts.metrics.batch_sizes.observe(pending.records);
            let mut ticket = self.parts.client.append(append);
            // Whoever answers needs to wake up once, when there is an answer, and not also now.
            let answer = lanes.settler.as_ref().and_then(|settler| {
                match Pin::new(&mut ticket).poll(&mut Context::from_waker(settler)) {
                    Poll::Ready(result) => {
                        settler.wake_by_ref();
                        Some(result)
                    }
                    Poll::Pending => None,
                }
            });
            lanes.lane(which).appended(pending, ticket, answer);
        }
    }

    /// The oldest append of a lane that nobody waits for yet, once there is an answer to any.
    async fn claimed(&self, which: Which) -> InFlight {
        poll_fn(|cx| {
            let mut lanes = self.lanes.lock();
            match lanes.lane(which).claim() {
                Some(in_flight) => Poll::Ready(in_flight),
                None => {
                    lanes.settler = Some(cx.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await
    }

    /// Answers what is committed, until `stop` and nothing is in flight any more.
    pub(crate) async fn run(&self, stop: CancellationToken) {
        tokio::join!(
            self.settle_lane(Which::Durable, &stop),
            self.settle_lane(Which::Early, &stop)
        );
    }

    async fn settle_lane(&self, which: Which, stop: &CancellationToken) {
        loop {
            tokio::select! {
                biased;
                in_flight = self.claimed(which) => self.settle(which, in_flight).await,
                () = stop.cancelled() => return,
            }
        }
    }

    async fn settle(&self, which: Which, mut in_flight: InFlight) {
        let result = match in_flight.answer.take() {
            Some(result) => result,
            None => (&mut in_flight.ticket).await,
        };
        let waiters = {
            let mut lanes = self.lanes.lock();
            lanes.lane(which).settled(in_flight.key(), result.as_ref().err());
            lanes.bytes = lanes.bytes.saturating_sub(in_flight.bytes);
            self.append(&mut lanes, which);
            if lanes.lane(which).is_idle() {
                lanes.bytes = if lanes.lanes.iter().all(Lane::is_idle) { 0 } else { lanes.bytes };
                self.settled.notify_waiters();
            }
            std::mem::take(&mut lanes.waiters)
        };
        self.parts.metrics.append_bytes_waiting.sub(in_flight.bytes as u64);
        let bytes = in_flight.bytes;
        match result {
            Ok(appended) => {
                let count = in_flight.waiting.completions.len() + in_flight.waiting.retained.len();
                (self.committed)(appended.base_offset + count as u64);
                complete(in_flight.waiting.completions, Reason::Success);
                if let Some(batch) = in_flight.batch {
                    self.parts.retained.committed(Committed {
                        log: self.log,
                        base_offset: appended.base_offset,
                        batch,
                        records: in_flight.waiting.retained,
                    });
                }
            }
            Err(error) => {
                self.parts.metrics.appends_failed.inc();
                tracing::warn!(log = %self.log, bytes, %error, "publishes could not be appended");
                let retained = in_flight.waiting.retained.into_iter();
                let all = in_flight.waiting.completions.into_iter();
                complete(all.chain(retained.map(|record| record.completion)), reason(&error));
            }
        }
        waiters.wake();
    }

    /// Waits until everything submitted so far is answered.
    pub(crate) async fn drain(&self) {
        loop {
            let settled = self.settled.notified();
            tokio::pin!(settled);
            settled.as_mut().enable();
            self.flush();
            if self.lanes.lock().lanes.iter().all(Lane::is_idle) {
                return;
            }
            settled.await;
        }
    }
}
