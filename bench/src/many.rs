//! Loads over many partitions: a record to each, a steady rate over all, as much as goes.
//!
//! Batches are full at a number of records that is sent in one go to one partition, so that they are
//! the same however many partitions there are.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{anyhow, ensure};
use parking_lot::Mutex;
use rdkafka::client::ClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer};

use crate::kafka_load::config;
use crate::latency::Latencies;

/// How long acknowledgements are waited for.
const PATIENCE: Duration = Duration::from_secs(240);
/// In the topic of a first append: which partition it was.
const TOUCH_BYTES: usize = 100;

/// A topic to write to.
#[derive(Clone, Debug)]
pub struct Target {
    /// Where clients begin.
    pub bootstrap: String,
    /// Its name.
    pub topic: String,
    /// Its partitions.
    pub partitions: usize,
    /// Producers, each with connections of its own.
    pub clients: usize,
}

/// What is told of records in flight: partition and time of sending fit into their opaque.
struct Acks {
    begun: Instant,
    acknowledged: AtomicU64,
    failed: AtomicU64,
    why: Mutex<Option<KafkaError>>,
    latencies: Mutex<Latencies>,
    /// Of each partition: when the last record was acknowledged.
    last_us: Vec<AtomicU64>,
    /// Waits are told from here on.
    watched_us: AtomicU64,
    /// Of each partition: the longest that a record waited since then.
    waits_us: Vec<AtomicU64>,
}

#[derive(Clone)]
struct Context(Arc<Acks>);

impl ClientContext for Context {}

impl ProducerContext for Context {
    /// When it was to be sent, in microseconds since `begun`.
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, sent_us: usize) {
        let acks = &self.0;
        let message = match result {
            Ok(message) => message,
            Err((error, _)) => {
                acks.failed.fetch_add(1, Ordering::Relaxed);
                acks.why.lock().get_or_insert_with(|| error.clone());
                return;
            }
        };
        let now_us = acks.now_us();
        acks.latencies.lock().record_us(now_us.saturating_sub(sent_us) as u64);
        let partition = usize::try_from(rdkafka::Message::partition(message)).unwrap_or(usize::MAX);
        if let Some(last) = acks.last_us.get(partition) {
            last.store(now_us as u64, Ordering::Relaxed);
        }
        if let Some(longest) = acks.waits_us.get(partition) {
            let from_us = acks.watched_us.load(Ordering::Relaxed).max(sent_us as u64);
            longest.fetch_max((now_us as u64).saturating_sub(from_us), Ordering::Relaxed);
        }
        acks.acknowledged.fetch_add(1, Ordering::Relaxed);
    }
}

impl Acks {
    fn now_us(&self) -> usize {
        self.begun.elapsed().as_micros() as usize
    }

    /// All that was sent was acknowledged.
    fn check(&self, sent: u64) -> anyhow::Result<()> {
        let acknowledged = self.acknowledged.load(Ordering::Relaxed);
        let (failed, why) = (self.failed.load(Ordering::Relaxed), self.why.lock().clone());
        ensure!(
            acknowledged == sent,
            "{acknowledged} of {sent} acknowledged, {failed} failed: {why:?}"
        );
        Ok(())
    }
}

/// Producers for all partitions of a topic, connected.
pub struct Producers {
    target: Target,
    acks: Arc<Acks>,
    producers: Vec<ThreadedProducer<Context>>,
}

impl Producers {
    /// Producers whose batches are full at so many records.
    pub fn new(target: &Target, batch_records: usize) -> anyhow::Result<Self> {
        let acks = Arc::new(Acks {
            begun: Instant::now(),
            acknowledged: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            why: Mutex::new(None),
            latencies: Mutex::new(Latencies::new()?),
            last_us: (0..target.partitions).map(|_| AtomicU64::new(0)).collect(),
            watched_us: AtomicU64::new(0),
            waits_us: (0..target.partitions).map(|_| AtomicU64::new(0)).collect(),
        });
        let mut producers = Vec::new();
        for _ in 0..target.clients.clamp(1, target.partitions.max(1)) {
            let producer: ThreadedProducer<Context> = config(&target.bootstrap)
                .set("acks", "all")
                .set("linger.ms", "5")
                .set("batch.num.messages", batch_records.to_string())
                .set("queue.buffering.max.messages", "100000")
                .set("queue.buffering.max.kbytes", "65536")
                // It asks for all partitions each time.
                .set("topic.metadata.refresh.interval.ms", "60000")
                .create_with_context(Context(acks.clone()))?;
            producer.client().fetch_metadata(Some(&target.topic), PATIENCE)?;
            producers.push(producer);
        }
        Ok(Self { target: target.clone(), acks, producers })
    }

    fn send(
        &self,
        client: usize,
        partition: usize,
        sent_us: usize,
        value: &[u8],
    ) -> anyhow::Result<()> {
        let producer = self.producers.get(client).ok_or_else(|| anyhow!("no client {client}"))?;
        let mut record = BaseRecord::<(), [u8], usize>::with_opaque_to(&self.target.topic, sent_us)
            .payload(value)
            .partition(i32::try_from(partition)?);
        loop {
            match producer.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                    record = back;
                    std::thread::sleep(Duration::from_micros(500));
                }
                Err((error, _)) => return Err(error.into()),
            }
        }
    }

    fn flush(&self) -> anyhow::Result<()> {
        Ok(self.producers.iter().try_for_each(|producer| producer.flush(PATIENCE))?)
    }

    /// One record to each partition, all at once: the seconds until each was acknowledged.
    pub fn touch(&self) -> anyhow::Result<Vec<f64>> {
        let sent = self.acks.acknowledged.load(Ordering::Relaxed);
        let begun_us = self.acks.now_us();
        for partition in 0..self.target.partitions {
            self.send(partition % self.producers.len(), partition, begun_us, &[7; TOUCH_BYTES])?;
        }
        self.flush()?;
        self.acks.check(sent + self.target.partitions as u64)?;
        let seconds = |last: &AtomicU64| {
            last.load(Ordering::Relaxed).saturating_sub(begun_us as u64) as f64 / 1e6
        };
        Ok(self.acks.last_us.iter().map(seconds).collect())
    }

    /// So many batches to each partition in turn, as fast as it goes; returns the seconds.
    pub fn fill(&self, rounds: usize, batch_records: usize, value: &[u8]) -> anyhow::Result<f64> {
        let sent = self.acks.acknowledged.load(Ordering::Relaxed);
        let begun = Instant::now();
        for _ in 0..rounds {
            for partition in 0..self.target.partitions {
                for _ in 0..batch_records {
                    self.send(partition % self.producers.len(), partition, 0, value)?;
                }
            }
        }
        self.flush()?;
        let records = rounds * self.target.partitions * batch_records;
        self.acks.check(sent + records as u64)?;
        Ok(begun.elapsed().as_secs_f64())
    }
}

/// A rate.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Records a second over all partitions.
    pub per_second: usize,
    /// Of which so many are a batch.
    pub batch_records: usize,
    /// Of so many bytes each.
    pub record_bytes: usize,
}

/// A load at a fixed rate, one partition after the other, until it is finished.
pub struct Steady {
    producers: Arc<Producers>,
    is_over: Arc<AtomicBool>,
    sender: JoinHandle<anyhow::Result<u64>>,
}

impl Steady {
    /// Begins one.
    pub fn begin(target: &Target, pace: Pace) -> anyhow::Result<Self> {
        let producers = Arc::new(Producers::new(target, pace.batch_records)?);
        let is_over = Arc::new(AtomicBool::new(false));
        let sender = std::thread::spawn({
            let (producers, is_over) = (producers.clone(), is_over.clone());
            move || producers.keep_sending(pace, &is_over)
        });
        Ok(Self { producers, is_over, sender })
    }

    /// Records acknowledged so far.
    pub fn acknowledged(&self) -> u64 {
        self.producers.acks.acknowledged.load(Ordering::Relaxed)
    }

    /// Latencies, from intended sending to acknowledgement, since this was last asked.
    pub fn take_latencies(&self) -> anyhow::Result<Latencies> {
        Ok(std::mem::replace(&mut *self.producers.acks.latencies.lock(), Latencies::new()?))
    }

    /// From now on, how long records wait is kept for each partition.
    pub fn watch(&self) {
        let acks = &self.producers.acks;
        acks.watched_us.store(acks.now_us() as u64, Ordering::Relaxed);
        acks.waits_us.iter().for_each(|longest| longest.store(0, Ordering::Relaxed));
    }

    /// Of each partition: the longest that a record of it waited for its acknowledgement since
    /// [`watch`](Self::watch), in seconds; 0 if none was acknowledged.
    pub fn waits(&self) -> Vec<f64> {
        let seconds = |longest: &AtomicU64| longest.load(Ordering::Relaxed) as f64 / 1e6;
        self.producers.acks.waits_us.iter().map(seconds).collect()
    }

    /// How long the load takes to write to every partition once.
    pub fn round(&self, pace: Pace) -> Duration {
        let records = self.producers.target.partitions * pace.batch_records;
        Duration::from_secs_f64(records as f64 / pace.per_second.max(1) as f64)
    }

    /// Ends it. Fails unless all that was sent was acknowledged.
    pub fn finish(self) -> anyhow::Result<u64> {
        self.is_over.store(true, Ordering::Relaxed);
        let sent = self.sender.join().map_err(|_| anyhow!("the sender failed"))??;
        self.producers.flush()?;
        self.producers.acks.check(sent)?;
        Ok(sent)
    }
}

impl Producers {
    fn keep_sending(&self, pace: Pace, is_over: &AtomicBool) -> anyhow::Result<u64> {
        let value = vec![7; pace.record_bytes];
        let origin_us = self.acks.now_us();
        let mut batches = 0;
        while !is_over.load(Ordering::Relaxed) {
            let due_us = origin_us + batches * pace.batch_records * 1_000_000 / pace.per_second;
            if let Some(early) = due_us.checked_sub(self.acks.now_us()) {
                std::thread::sleep(Duration::from_micros(early as u64));
            }
            let partition = batches % self.target.partitions;
            // Of one partition, they take turns as well.
            let client = batches % self.producers.len();
            for _ in 0..pace.batch_records {
                self.send(client, partition, due_us, &value)?;
            }
            batches += 1;
        }
        Ok((batches * pace.batch_records) as u64)
    }
}
