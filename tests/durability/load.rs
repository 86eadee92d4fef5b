//! Clients that remember what was acknowledged.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::sync::mpsc::{self, Sender};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::{Bytes, BytesMut};
use kafka_protocol::indexmap::IndexMap;
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{
    CreateTopicsRequest, GroupId, InitProducerIdRequest, OffsetCommitRequest, ProduceRequest,
    TopicName,
};
use kafka_protocol::protocol::StrBytes;
use kafka_protocol::records::{
    Compression, Record, RecordBatchEncoder, RecordEncodeOptions, TimestampType,
};

use crate::wire::{Kafka, Mqtt};

/// The Kafka topic of the load and its partitions.
pub(crate) const TOPIC: &str = "t";
pub(crate) const PARTITIONS: i32 = 3;
pub(crate) const GROUP: &str = "g";
/// The topic of the retained messages; its payload is a number that rises.
pub(crate) const RETAINED: &str = "retained/r";
/// Requests in flight on one connection.
const WINDOW: usize = 8;
/// Numbers of one life begin here, so that they rise over lives.
const LIFE: u64 = 100_000;
/// A standalone that acknowledges nothing for so long has hung.
const STUCK: Duration = Duration::from_secs(30);

/// What must be there, whatever happens to the power.
#[derive(Default)]
pub(crate) struct Acknowledged {
    /// MQTT topic → payloads in the order of their acknowledgement.
    pub(crate) published: BTreeMap<String, Vec<String>>,
    /// (partition, offset) → value.
    pub(crate) produced: BTreeMap<(i32, i64), String>,
    /// The committed offset of the group, and the largest that was ever sent.
    pub(crate) committed: Option<i64>,
    pub(crate) commit_sent: i64,
    /// The number of the retained message, and the largest that was ever sent.
    pub(crate) retained: Option<u64>,
    pub(crate) retained_sent: u64,
    /// Topics created.
    pub(crate) topics: BTreeSet<String>,
}

impl Acknowledged {
    pub(crate) fn count(&self) -> u64 {
        let published: usize = self.published.values().map(Vec::len).sum();
        (published + self.produced.len() + self.topics.len()) as u64
    }

    fn merge(&mut self, life: Acknowledged) {
        for (topic, payloads) in life.published {
            self.published.entry(topic).or_default().extend(payloads);
        }
        self.produced.extend(life.produced);
        self.topics.extend(life.topics);
        self.committed = life.committed.or(self.committed);
        self.commit_sent = self.commit_sent.max(life.commit_sent);
        self.retained = life.retained.or(self.retained);
        self.retained_sent = self.retained_sent.max(life.retained_sent);
    }
}

/// One client: works until an error, and remembers what was acknowledged.
type Client = fn(&Load, &Sender<()>, &mut Acknowledged) -> io::Result<()>;

/// The clients of one life.
pub(crate) struct Load {
    pub(crate) mqtt: SocketAddr,
    pub(crate) kafka: SocketAddr,
    pub(crate) life: u64,
    /// Create the Kafka topic so that it acknowledges before the sync.
    pub(crate) is_early: bool,
}

impl Load {
    /// Runs all clients; after `cut_after` acknowledgements calls `cut`. What was acknowledged,
    /// before and behind the cut, goes into `all`.
    pub(crate) fn run(&self, cut_after: usize, all: &mut Acknowledged, cut: impl FnOnce()) {
        let (tell, told) = mpsc::channel();
        let mut lives: Vec<Acknowledged> = Vec::new();
        std::thread::scope(|scope| {
            let clients: [Client; 4] = [publish, produce, commit, retain];
            let mut running = Vec::new();
            for client in clients {
                let tell = tell.clone();
                running.push(scope.spawn(move || {
                    let mut seen = Acknowledged::default();
                    // The power cut ends every client by an error; that is how it should end.
                    let _ = client(self, &tell, &mut seen);
                    seen
                }));
            }
            drop(tell);
            for _ in 0..cut_after {
                match told.recv_timeout(STUCK) {
                    Ok(()) => {}
                    Err(mpsc::RecvTimeoutError::Disconnected) => break,
                    Err(mpsc::RecvTimeoutError::Timeout) => panic!("nothing is acknowledged"),
                }
            }
            cut();
            // From here on nobody waits for a message: clients see it at their next one.
            drop(told);
            lives.extend(running.into_iter().map(|client| client.join().expect("a client")));
        });
        for life in lives {
            all.merge(life);
        }
    }
}

/// Counts an acknowledgement; an error once the power is off.
fn acknowledged(tell: &Sender<()>) -> io::Result<()> {
    tell.send(()).map_err(io::Error::other)
}

/// QoS 1 publishes on four topics, some in flight.
fn publish(load: &Load, tell: &Sender<()>, seen: &mut Acknowledged) -> io::Result<()> {
    let mut client = Mqtt::connect(load.mqtt, &format!("p{}", load.life))?;
    let name = |n: usize| (format!("d/{}", n % 4), format!("{}-{n}", load.life));
    let mut acked = 0;
    for sent in 0.. {
        let (topic, payload) = name(sent);
        client.send(&topic, &payload, sent as u16 + 1, false)?;
        if sent + 1 - acked == WINDOW {
            assert_eq!(usize::from(client.acknowledged()?), acked + 1, "acks in order");
            let (topic, payload) = name(acked);
            seen.published.entry(topic).or_default().push(payload);
            acked += 1;
            acknowledged(tell)?;
        }
    }
    Ok(())
}

/// Idempotent batches of one to three records on three partitions, some in flight.
fn produce(load: &Load, tell: &Sender<()>, seen: &mut Acknowledged) -> io::Result<()> {
    let mut client = Kafka::connect(load.kafka)?;
    let durability = if load.is_early { "volatile" } else { "durable" };
    create_topic(&mut client, TOPIC, PARTITIONS, durability)?;
    seen.topics.insert(TOPIC.to_owned());
    let request = InitProducerIdRequest::default()
        .with_transactional_id(None)
        .with_transaction_timeout_ms(60_000);
    let producer = client.call(4, &request)?;
    if producer.error_code != 0 {
        return Err(io::Error::other(format!("InitProducerId: {}", producer.error_code)));
    }
    let mut sequences = [0i32; PARTITIONS as usize];
    let mut in_flight = std::collections::VecDeque::new();
    for n in 0u64.. {
        let partition = (n % PARTITIONS as u64) as i32;
        let count = (n % 3 + 1) as i32;
        let sequence = sequences[partition as usize];
        sequences[partition as usize] += count;
        let values: Vec<String> =
            (0..count).map(|i| format!("{}-{partition}-{}", load.life, sequence + i)).collect();
        let records = batch(&values, producer.producer_id.0, producer.producer_epoch, sequence);
        client.send(7, &request_of(partition, records))?;
        in_flight.push_back((partition, values));
        if in_flight.len() < WINDOW {
            continue;
        }
        let answer = client.answer::<ProduceRequest>(7)?;
        let (partition, values) = in_flight.pop_front().expect("a full window");
        for found in answer.responses.iter().flat_map(|topic| &topic.partition_responses) {
            if found.error_code != 0 {
                return Err(io::Error::other(format!("produce: {}", found.error_code)));
            }
            for (offset, value) in (found.base_offset..).zip(&values) {
                seen.produced.insert((partition, offset), value.clone());
            }
        }
        acknowledged(tell)?;
    }
    Ok(())
}

pub(crate) fn batch(
    values: &[String],
    producer_id: i64,
    producer_epoch: i16,
    sequence: i32,
) -> Bytes {
    let records: Vec<Record> = (0..)
        .zip(values)
        .map(|(n, value)| Record {
            transactional: false,
            control: false,
            delete_horizon: false,
            partition_leader_epoch: -1,
            producer_id,
            producer_epoch,
            timestamp_type: TimestampType::Creation,
            offset: i64::from(n),
            sequence: sequence + n,
            timestamp: now_ms(),
            key: None,
            value: Some(value.clone().into()),
            headers: IndexMap::new(),
        })
        .collect();
    let mut out = BytesMut::new();
    let options = RecordEncodeOptions { version: 2, compression: Compression::None };
    RecordBatchEncoder::encode(&mut out, &records, &options).expect("a batch");
    out.freeze()
}

/// Retention goes by the records' own time.
fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_millis() as i64
}

fn request_of(partition: i32, records: Bytes) -> ProduceRequest {
    let data = PartitionProduceData::default().with_index(partition).with_records(Some(records));
    ProduceRequest::default().with_acks(-1).with_timeout_ms(30_000).with_topic_data(vec![
        TopicProduceData::default().with_name(name_of(TOPIC)).with_partition_data(vec![data]),
    ])
}

/// Committed offsets that rise, and a topic now and then.
fn commit(load: &Load, tell: &Sender<()>, seen: &mut Acknowledged) -> io::Result<()> {
    let mut client = Kafka::connect(load.kafka)?;
    for n in 1.. {
        let offset = (load.life * LIFE + n) as i64;
        seen.commit_sent = offset;
        let partition = OffsetCommitRequestPartition::default()
            .with_partition_index(0)
            .with_committed_offset(offset);
        let topic = OffsetCommitRequestTopic::default()
            .with_name(name_of("mqtt"))
            .with_partitions(vec![partition]);
        let request = OffsetCommitRequest::default()
            .with_group_id(GroupId(StrBytes::from_static_str(GROUP)))
            .with_generation_id_or_member_epoch(-1)
            .with_topics(vec![topic]);
        let answer = client.call(7, &request)?;
        let code = answer.topics.first().and_then(|t| t.partitions.first()).map(|p| p.error_code);
        if code != Some(0) {
            return Err(io::Error::other(format!("commit: {code:?}")));
        }
        seen.committed = Some(offset);
        acknowledged(tell)?;
        if n % 5 == 0 {
            let name = format!("made-{}-{n}", load.life);
            create_topic(&mut client, &name, 1, "durable")?;
            seen.topics.insert(name);
            acknowledged(tell)?;
        }
    }
    Ok(())
}

fn create_topic(
    client: &mut Kafka,
    name: &str,
    partitions: i32,
    durability: &str,
) -> io::Result<()> {
    const ALREADY_EXISTS: i16 = 36;
    let config = CreatableTopicConfig::default()
        .with_name(StrBytes::from_static_str("interflow.durability"))
        .with_value(Some(StrBytes::from_string(durability.to_owned())));
    let topic = CreatableTopic::default()
        .with_name(name_of(name))
        .with_num_partitions(partitions)
        .with_replication_factor(-1)
        .with_configs(vec![config]);
    let request = CreateTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(30_000);
    let answer = client.call(5, &request)?;
    match answer.topics.first().map(|topic| topic.error_code) {
        Some(0 | ALREADY_EXISTS) => Ok(()),
        other => Err(io::Error::other(format!("create {name}: {other:?}"))),
    }
}

/// A retained message that is replaced again and again.
fn retain(load: &Load, tell: &Sender<()>, seen: &mut Acknowledged) -> io::Result<()> {
    let mut client = Mqtt::connect(load.mqtt, &format!("r{}", load.life))?;
    for n in 1.. {
        let number = load.life * LIFE + n;
        seen.retained_sent = number;
        client.send(RETAINED, &number.to_string(), n as u16, true)?;
        client.acknowledged()?;
        seen.retained = Some(number);
        acknowledged(tell)?;
    }
    Ok(())
}

pub(crate) fn name_of(topic: &str) -> TopicName {
    TopicName(StrBytes::from_string(topic.to_owned()))
}
