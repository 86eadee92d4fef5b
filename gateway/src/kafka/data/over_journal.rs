//! Produce and Fetch over the real log service: its journal on a disk in memory, its meta.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use interflow_logstore::clock::SystemClock;
use interflow_logstore::disk::FaultDisk;
use interflow_logstore::store::{JournalStore, Options};
use interflow_logstore::{Identity, LogClient, LogConfig, LogStore, NodeId, Progress};
use interflow_meta::{EmbeddedStore, Env, Meta};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{FetchRequest, FetchResponse, ProduceRequest, ProduceResponse};
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::fake::{Ids, NOW, batch, flat};
use super::{DataLimits, DataPlane, Produce, ProduceAnswer};
use crate::records::{BatchHeader, OpenBatch};
use crate::topics::{NewTopic, Placement, Topics, TopicsOptions};

/// A version of Produce, and one of Fetch.
const VERSION: i16 = 12;

struct Node {
    disk: FaultDisk,
    meta: Meta,
    logs: LogStore,
    topics: Arc<Topics>,
    plane: DataPlane,
    incarnation: u64,
    shutdown: CancellationToken,
    follower: JoinHandle<()>,
}

impl Node {
    /// A node with topic `t` of one partition, segments of 16 KiB.
    async fn new() -> Self {
        let store = EmbeddedStore::in_memory(Env::default()).unwrap();
        let meta = Meta::new(Arc::new(store), Env::default(), "test");
        let node = Self::start(FaultDisk::new(), meta, 1).await;
        let topic = NewTopic {
            name: "t".to_owned(),
            partitions: 1,
            replication_factor: -1,
            config: [("segment.bytes".to_owned(), "16384".to_owned())].into(),
        };
        node.topics.create(topic).await.unwrap();
        node
    }

    async fn start(disk: FaultDisk, meta: Meta, incarnation: u64) -> Self {
        let progress = Progress::new();
        let options = Options {
            extent_bytes: 1 << 20,
            chunk_bytes: 64 << 10,
            min_free_bytes: 0,
            min_free_percent: 0,
            ..Options::default()
        };
        let folder = Arc::new(disk.folder("journal"));
        let journal = JournalStore::open(folder, options, progress.clone()).unwrap();
        let node = NodeId(1);
        let logs = LogStore::open(
            meta.clone(),
            Arc::new(journal),
            progress,
            Identity { node, incarnation },
            LogConfig::default(),
            Arc::new(SystemClock::new()),
        );
        let client: Arc<dyn LogClient> = Arc::new(logs.clone());
        let shutdown = CancellationToken::new();
        let options = TopicsOptions {
            placement: Placement::Fixed { node, incarnation },
            ..TopicsOptions::default()
        };
        let (topics, follower) =
            Topics::start(meta.clone(), client.clone(), options, shutdown.clone()).await.unwrap();
        let plane =
            DataPlane::new(client, topics.clone(), Arc::new(Ids::default()), DataLimits::default())
                .with_clock(|| NOW);
        Self { disk, meta, logs, topics, plane, incarnation, shutdown, follower }
    }

    async fn stop(self) -> (FaultDisk, Meta, u64) {
        self.shutdown.cancel();
        self.follower.await.unwrap();
        self.logs.shutdown().await;
        (self.disk, self.meta, self.incarnation)
    }

    async fn restart(self) -> Self {
        let (disk, meta, incarnation) = self.stop().await;
        // What isn't synced by now is lost; and the folder is free whatever still holds it.
        disk.crash(incarnation);
        Self::start(disk, meta, incarnation + 1).await
    }

    fn start_produce(&self, records: Bytes) -> Produce {
        let partition = PartitionProduceData::default().with_index(0).with_records(Some(records));
        let topic = TopicProduceData::default()
            .with_name(StrBytes::from_static_str("t").into())
            .with_partition_data(vec![partition]);
        let request = ProduceRequest::default()
            .with_acks(-1)
            .with_timeout_ms(60_000)
            .with_topic_data(vec![topic]);
        let mut body = BytesMut::new();
        request.encode(&mut body, VERSION).unwrap();
        self.plane.start_produce(VERSION, &body.freeze()).unwrap()
    }

    async fn produce(&self, records: Bytes) -> Result<i64, ResponseError> {
        finish(self.start_produce(records)).await
    }

    /// The batches from `offset` on, waiting for them.
    async fn fetch(&self, offset: i64, max_bytes: i32) -> Vec<Bytes> {
        let partition = FetchPartition::default()
            .with_partition(0)
            .with_fetch_offset(offset)
            .with_partition_max_bytes(max_bytes);
        let topic = FetchTopic::default()
            .with_topic(StrBytes::from_static_str("t").into())
            .with_partitions(vec![partition]);
        let request = FetchRequest::default()
            .with_max_wait_ms(i32::MAX) // a wake-up that is lost hangs the test
            .with_min_bytes(1)
            .with_max_bytes(1 << 20)
            .with_topics(vec![topic]);
        let mut body = BytesMut::new();
        request.encode(&mut body, VERSION).unwrap();
        let answer = self.plane.fetch(VERSION, &body).await.unwrap();
        let response = FetchResponse::decode(&mut flat(&answer), VERSION).unwrap();
        let partition = &response.responses[0].partitions[0];
        assert_eq!(partition.error_code, 0);
        let mut rest = partition.records.clone().unwrap();
        let mut batches = Vec::new();
        while !rest.is_empty() {
            let len = BatchHeader::parse(&rest).unwrap().batch_len().unwrap();
            batches.push(rest.split_to(len));
        }
        batches
    }
}

async fn finish(produce: Produce) -> Result<i64, ResponseError> {
    let ProduceAnswer::Body(body) = produce.finish().await else { panic!("no answer") };
    let response = ProduceResponse::decode(&mut flat(&body), VERSION).unwrap();
    let partition = &response.responses[0].partition_responses[0];
    match ResponseError::try_from_code(partition.error_code) {
        None => Ok(partition.base_offset),
        Some(error) => Err(error),
    }
}

/// A batch of one record of producer 7.
fn keyed(epoch: i16, sequence: i32) -> Bytes {
    let mut bytes = BytesMut::from(&batch(&[&format!("{epoch}/{sequence}")]).bytes[..]);
    bytes[43..51].copy_from_slice(&7_i64.to_be_bytes());
    bytes[51..53].copy_from_slice(&epoch.to_be_bytes());
    bytes[53..57].copy_from_slice(&sequence.to_be_bytes());
    let crc = crc32c::crc32c(&bytes[21..]);
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    bytes.freeze()
}

#[tokio::test]
async fn k6_repeats_gaps_and_old_epochs_over_a_restart_too() {
    let mut node = Node::new().await;
    let started: Vec<_> = (0..8).map(|n| node.start_produce(keyed(1, n))).collect();
    for (n, produce) in started.into_iter().enumerate() {
        assert_eq!(finish(produce).await, Ok(n as i64));
    }
    for life in 0..2 {
        for n in 3..8 {
            assert_eq!(node.produce(keyed(1, n)).await, Ok(i64::from(n)), "life {life}");
        }
        let gap = node.produce(keyed(1, 9)).await;
        assert_eq!(gap, Err(ResponseError::OutOfOrderSequenceNumber), "life {life}");
        let old = node.produce(keyed(0, 8)).await;
        assert_eq!(old, Err(ResponseError::InvalidProducerEpoch), "life {life}");
        node = node.restart().await;
    }
    assert_eq!(node.produce(keyed(1, 8)).await, Ok(8));
    // A newer epoch begins at 0.
    assert_eq!(node.produce(keyed(2, 0)).await, Ok(9));
    node.stop().await;
}

#[tokio::test]
async fn k8_a_hundred_rolls_are_invisible_and_k5_bytes_survive_a_restart() {
    let node = Node::new().await;
    // Each batch is more than half of a segment.
    let value = |n: u32| format!("{n:010000}");
    let sent: Vec<Bytes> = (0..210).map(|n| batch(&[&value(n)]).bytes).collect();
    let produce = async {
        for (n, records) in sent.iter().enumerate() {
            assert_eq!(node.produce(records.clone()).await, Ok(n as i64));
        }
    };
    let consume = async {
        let mut got = Vec::new();
        while got.len() < sent.len() {
            got.extend(node.fetch(got.len() as i64, 30_000).await);
        }
        got
    };
    let ((), got) = tokio::join!(produce, consume);
    let log = node.topics.get("t").unwrap().partitions[0];
    let segments = node.logs.describe(log).await.unwrap().segments.len();
    assert!(segments > 100, "{segments} segments");
    let same = |got: &[Bytes]| {
        for (n, (got, sent)) in got.iter().zip(&sent).enumerate() {
            assert_eq!(got[16..], sent[16..], "batch {n}");
            assert_eq!(BatchHeader::parse(got).unwrap().base_offset, n as i64);
        }
        assert_eq!(got.len(), sent.len());
    };
    same(&got);
    let node = node.restart().await;
    let mut again = Vec::new();
    while again.len() < sent.len() {
        again.extend(node.fetch(again.len() as i64, 1 << 20).await);
    }
    same(&again);
    let last = OpenBatch::open(&again[209], 1 << 20).unwrap();
    assert_eq!(last.records().next().unwrap().unwrap().value, Some(value(209).as_bytes()));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn k7_no_reader_misses_a_wake_up() {
    const BATCHES: i64 = 400;
    let node = Arc::new(Node::new().await);
    let readers: Vec<_> = (0..3)
        .map(|_| {
            let node = node.clone();
            tokio::spawn(async move {
                let mut values = Vec::new();
                let mut next = 0;
                while next < BATCHES {
                    for bytes in node.fetch(next, 1 << 20).await {
                        let open = OpenBatch::open(&bytes, 1 << 20).unwrap();
                        let record = open.records().next().unwrap().unwrap();
                        values.push(String::from_utf8_lossy(record.value.unwrap()).into_owned());
                        next = open.header().base_offset + 1;
                    }
                }
                values
            })
        })
        .collect();
    for n in (0..BATCHES).step_by(4) {
        let started: Vec<_> =
            (n..n + 4).map(|n| node.start_produce(batch(&[&n.to_string()]).bytes)).collect();
        for produce in started {
            finish(produce).await.unwrap();
        }
    }
    let expected: Vec<_> = (0..BATCHES).map(|n| n.to_string()).collect();
    for reader in readers {
        assert_eq!(reader.await.unwrap(), expected);
    }
    Arc::into_inner(node).unwrap().stop().await;
}
