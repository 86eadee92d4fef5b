//! The Kafka generator, over librdkafka: producing, consuming, end-to-end latency.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use parking_lot::Mutex;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::{ClientContext, DefaultClientContext};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer};
use rdkafka::{Message, Offset, TopicPartitionList};

use crate::latency::Latencies;

/// How long a phase may take before it is given up.
const PATIENCE: Duration = Duration::from_secs(300);

/// What to produce.
#[derive(Clone, Debug)]
pub struct Load {
    /// The servers that are asked for the others, `host:port`, separated by commas.
    pub bootstrap: String,
    /// The topic.
    pub topic: String,
    /// Its partitions.
    pub partitions: i32,
    /// On how many servers each is kept.
    pub replicas: i32,
    /// Records in all.
    pub records: u64,
    /// Bytes of a record's value.
    pub record_bytes: usize,
    /// The largest batch of a partition, bytes.
    pub batch_bytes: usize,
}

/// What all clients have in common.
pub fn config(bootstrap: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap);
    config.set("broker.address.family", "v4");
    config
}

/// Creates the topic of `load` and waits until it has its partitions.
pub async fn create_topic(load: &Load) -> anyhow::Result<()> {
    let admin: AdminClient<DefaultClientContext> = config(&load.bootstrap).create()?;
    let options = AdminOptions::new().request_timeout(Some(PATIENCE));
    let topic = NewTopic::new(&load.topic, load.partitions, TopicReplication::Fixed(load.replicas));
    for result in admin.create_topics(&[topic], &options).await? {
        if let Err((name, code)) = result
            && code != RDKafkaErrorCode::TopicAlreadyExists
        {
            bail!("cannot create {name}: {code}");
        }
    }
    let begun = Instant::now();
    loop {
        let found = admin.inner().fetch_metadata(Some(&load.topic), Duration::from_secs(10))?;
        let ready = found.topics().iter().any(|topic| {
            topic.error().is_none()
                && topic.partitions().len() as i32 == load.partitions
                && topic.partitions().iter().all(|p| p.leader() >= 0)
        });
        if ready {
            return Ok(());
        }
        if begun.elapsed() > PATIENCE {
            bail!("{} never had its partitions", load.topic);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

struct Deliveries {
    begun: Instant,
    done: AtomicU64,
    failed: AtomicU64,
    latencies: Mutex<Latencies>,
}

impl Deliveries {
    fn new() -> anyhow::Result<Self> {
        Ok(Self {
            begun: Instant::now(),
            done: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            latencies: Mutex::new(Latencies::new()?),
        })
    }

    fn now_us(&self) -> usize {
        self.begun.elapsed().as_micros() as usize
    }

    /// All of `records` were acknowledged; how long that took each of them.
    fn check(&self, records: u64) -> anyhow::Result<Latencies> {
        let (done, failed) =
            (self.done.load(Ordering::Relaxed), self.failed.load(Ordering::Relaxed));
        if done != records || failed > 0 {
            bail!("{done} of {records} records answered, {failed} failed");
        }
        Ok(self.latencies.lock().clone())
    }
}

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    /// When it was to be sent, in microseconds since `begun`.
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, sent_us: usize) {
        if result.is_err() {
            self.failed.fetch_add(1, Ordering::Relaxed);
        }
        self.latencies.lock().record_us(self.now_us().saturating_sub(sent_us) as u64);
        self.done.fetch_add(1, Ordering::Relaxed);
    }
}

/// Produces the whole load with `acks=all`; returns the seconds until the last acknowledgement.
pub fn produce(load: &Load) -> anyhow::Result<f64> {
    let producer: ThreadedProducer<Deliveries> = config(&load.bootstrap)
        .set("acks", "all")
        .set("batch.size", load.batch_bytes.to_string())
        .set("batch.num.messages", "100000")
        .set("linger.ms", "5")
        .set("queue.buffering.max.messages", "500000")
        .set("queue.buffering.max.kbytes", "262144")
        .create_with_context(Deliveries::new()?)?;
    let value: Vec<u8> = (0..load.record_bytes).map(|n| (n % 251) as u8).collect();
    let begun = Instant::now();
    for n in 0..load.records {
        let partition = (n % load.partitions as u64) as i32;
        let sent_us = producer.context().now_us();
        let mut record = BaseRecord::<(), [u8], usize>::with_opaque_to(&load.topic, sent_us)
            .payload(&value)
            .partition(partition);
        loop {
            match producer.send(record) {
                Ok(()) => break,
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                    record = back;
                    std::thread::sleep(Duration::from_micros(500));
                }
                Err((error, _)) => return Err(error.into()),
            }
        }
    }
    producer.flush(PATIENCE)?;
    let seconds = begun.elapsed().as_secs_f64();
    producer.context().check(load.records)?;
    Ok(seconds)
}

/// Sends `per_second` records a second for `seconds`; returns how long the acknowledgement of each
/// took, from its intended sending. A second of the same goes before, uncounted.
pub fn acknowledge(load: &Load, per_second: u64, seconds: u64) -> anyhow::Result<Latencies> {
    let producer: ThreadedProducer<Deliveries> = config(&load.bootstrap)
        .set("acks", "all")
        .set("linger.ms", "0")
        .create_with_context(Deliveries::new()?)?;
    let context = producer.context().clone();
    let value = vec![7u8; load.record_bytes];
    let send = |records: u64| -> anyhow::Result<Latencies> {
        *context.latencies.lock() = Latencies::new()?;
        context.done.store(0, Ordering::Relaxed);
        let origin_us = context.now_us();
        for n in 0..records {
            let due_us = origin_us + (n * 1_000_000 / per_second) as usize;
            if let Some(early) = due_us.checked_sub(context.now_us()) {
                std::thread::sleep(Duration::from_micros(early as u64));
            }
            let partition = (n % load.partitions as u64) as i32;
            let record = BaseRecord::<(), [u8], usize>::with_opaque_to(&load.topic, due_us);
            let sent = producer.send(record.payload(&value).partition(partition));
            sent.map_err(|(error, _)| error)?;
        }
        producer.flush(PATIENCE)?;
        context.check(records)
    };
    // Connections are made, and caches get warm.
    send(per_second)?;
    send(per_second * seconds)
}

/// How many records the topic of `load` holds, by the ends of its partitions.
pub fn count(load: &Load) -> anyhow::Result<u64> {
    let consumer: BaseConsumer = config(&load.bootstrap).create()?;
    let mut records = 0;
    for partition in 0..load.partitions {
        let (low, high) = consumer.fetch_watermarks(&load.topic, partition, PATIENCE)?;
        records += u64::try_from(high - low).unwrap_or(0);
    }
    Ok(records)
}

/// Reads the whole load from its beginning; returns the seconds from the first record on.
pub fn consume(load: &Load) -> anyhow::Result<f64> {
    let consumer: BaseConsumer = config(&load.bootstrap)
        .set("group.id", "bench")
        .set("enable.auto.commit", "false")
        .set("fetch.message.max.bytes", "1048576")
        .set("queued.max.messages.kbytes", "65536")
        .set("check.crcs", "false")
        .create()?;
    let mut list = TopicPartitionList::new();
    for partition in 0..load.partitions {
        list.add_partition_offset(&load.topic, partition, Offset::Beginning)?;
    }
    consumer.assign(&list)?;
    let begun = Instant::now();
    let mut first = None;
    let mut seen = 0;
    while seen < load.records {
        match consumer.poll(Duration::from_millis(100)) {
            Some(message) => {
                message?;
                first.get_or_insert_with(Instant::now);
                seen += 1;
            }
            None if begun.elapsed() > PATIENCE => bail!("{seen} of {} consumed", load.records),
            None => {}
        }
    }
    Ok(first.context("nothing consumed")?.elapsed().as_secs_f64())
}

fn now_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_micros() as u64)
}

/// Sends `per_second` records a second for `seconds`, each with its intended send time, to a
/// consumer in this process; returns the latencies from intended sending to receiving.
pub fn end_to_end(load: &Load, per_second: u64, seconds: u64) -> anyhow::Result<Latencies> {
    let total = per_second * seconds;
    let consumer: BaseConsumer = config(&load.bootstrap)
        .set("group.id", "bench")
        .set("enable.auto.commit", "false")
        .set("fetch.wait.max.ms", "500")
        .set("fetch.min.bytes", "1")
        .create()?;
    let mut list = TopicPartitionList::new();
    for partition in 0..load.partitions {
        list.add_partition_offset(&load.topic, partition, Offset::Beginning)?;
    }
    consumer.assign(&list)?;
    let receiver = std::thread::spawn(move || -> anyhow::Result<Latencies> {
        let mut latencies = Latencies::new()?;
        let begun = Instant::now();
        let mut seen = 0;
        while seen < total {
            match consumer.poll(Duration::from_millis(100)) {
                Some(message) => {
                    let message = message?;
                    let sent = message
                        .payload()
                        .and_then(|payload| payload.get(..8))
                        .and_then(|bytes| bytes.try_into().ok())
                        .map(u64::from_be_bytes)
                        .context("a record without its send time")?;
                    // The first second warms connections and caches.
                    if seen >= per_second {
                        latencies.record_us(now_us().saturating_sub(sent));
                    }
                    seen += 1;
                }
                None if begun.elapsed() > PATIENCE => bail!("{seen} of {total} received"),
                None => {}
            }
        }
        Ok(latencies)
    });
    let producer: ThreadedProducer<Deliveries> = config(&load.bootstrap)
        .set("acks", "all")
        .set("linger.ms", "0")
        .create_with_context(Deliveries::new()?)?;
    let mut value = vec![7u8; load.record_bytes.max(8)];
    let begun = Instant::now();
    let origin = now_us();
    for n in 0..total {
        let due = Duration::from_micros(n * 1_000_000 / per_second);
        if let Some(early) = due.checked_sub(begun.elapsed()) {
            std::thread::sleep(early);
        }
        let intended = origin + due.as_micros() as u64;
        if let Some(head) = value.get_mut(..8) {
            head.copy_from_slice(&intended.to_be_bytes());
        }
        let partition = (n % load.partitions as u64) as i32;
        producer
            .send(
                BaseRecord::<(), [u8], usize>::with_opaque_to(&load.topic, 0)
                    .payload(&value)
                    .partition(partition),
            )
            .map_err(|(error, _)| error)?;
    }
    producer.flush(PATIENCE)?;
    receiver.join().map_err(|_| anyhow::anyhow!("the receiver failed"))?
}
