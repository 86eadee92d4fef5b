//! A Kafka connection that sends what a test tells it.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::fetch_response::PartitionData;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::produce_response::PartitionProduceResponse;
use kafka_protocol::messages::{
    BrokerId, CreateTopicsRequest, FetchRequest, FetchResponse, ProduceRequest, RequestHeader,
    ResponseHeader, TopicName,
};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes};

use crate::batch::{Batch, Record, records};
use crate::broker;

/// Versions that the tests speak where it doesn't matter: by topic name, flexible.
pub(crate) const PRODUCE: i16 = 9;
pub(crate) const FETCH: i16 = 12;

const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) fn text(text: impl Into<String>) -> StrBytes {
    StrBytes::from_string(text.into())
}

pub(crate) fn topic_name(name: &str) -> TopicName {
    TopicName(text(name))
}

/// One connection.
pub(crate) struct Kafka {
    pub(crate) stream: TcpStream,
    next: i32,
}

impl Kafka {
    /// To the shared broker.
    pub(crate) fn connect() -> Kafka {
        Kafka::connect_to(broker::shared())
    }

    pub(crate) fn connect_to(broker: &broker::Broker) -> Kafka {
        let stream = TcpStream::connect(broker.address("kafka")).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Kafka { stream, next: 1 }
    }

    /// The bytes of a request, with their size before them.
    pub(crate) fn encode<R: Request>(&mut self, request: &R, version: i16) -> (i32, Vec<u8>) {
        let correlation = self.next;
        self.next += 1;
        let header = RequestHeader::default()
            .with_request_api_key(R::KEY)
            .with_request_api_version(version)
            .with_correlation_id(correlation)
            .with_client_id(Some(text("statements")));
        let mut body = BytesMut::new();
        header.encode(&mut body, R::header_version(version)).unwrap();
        request.encode(&mut body, version).unwrap();
        let mut frame = (body.len() as i32).to_be_bytes().to_vec();
        frame.extend(&body);
        (correlation, frame)
    }

    pub(crate) fn send<R: Request>(&mut self, request: &R, version: i16) -> i32 {
        let (correlation, frame) = self.encode(request, version);
        self.stream.write_all(&frame).unwrap();
        correlation
    }

    /// The next answer's frame; `None` when the connection was closed.
    pub(crate) fn frame(&mut self) -> Option<Bytes> {
        let mut size = [0; 4];
        match self.stream.read_exact(&mut size) {
            Err(e) if matches!(e.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset) => {
                return None;
            }
            other => other.expect("an answer or the close"),
        }
        let mut body = vec![0; u32::from_be_bytes(size) as usize];
        self.stream.read_exact(&mut body).unwrap();
        Some(body.into())
    }

    pub(crate) fn receive<R: Request>(&mut self, correlation: i32, version: i16) -> R::Response {
        let mut body = self.frame().expect("the broker closed the connection");
        let header =
            ResponseHeader::decode(&mut body, R::Response::header_version(version)).unwrap();
        assert_eq!(header.correlation_id, correlation, "answers come in order");
        let response = R::Response::decode(&mut body, version).unwrap();
        assert!(body.is_empty(), "bytes behind the answer: {body:?}");
        response
    }

    pub(crate) fn call<R: Request>(&mut self, request: &R, version: i16) -> R::Response {
        let correlation = self.send(request, version);
        self.receive::<R>(correlation, version)
    }

    pub(crate) fn expect_closed(&mut self) {
        assert_eq!(self.frame(), None, "the connection is closed without an answer");
    }

    // Often needed.

    pub(crate) fn create(&mut self, name: &str, partitions: i32, configs: &[(&str, &str)]) -> i16 {
        let response = self.call(&create_request(name, partitions, 1, configs), 7);
        response.topics[0].error_code
    }

    /// Appends to a partition; acks −1.
    pub(crate) fn produce(
        &mut self,
        topic: &str,
        partition: i32,
        batch: &Batch,
    ) -> PartitionProduceResponse {
        self.produce_bytes(topic, partition, batch.bytes())
    }

    pub(crate) fn produce_bytes(
        &mut self,
        topic: &str,
        partition: i32,
        batch: Vec<u8>,
    ) -> PartitionProduceResponse {
        let request = produce_request(&[(topic, partition, batch)], -1);
        self.call(&request, PRODUCE).responses[0].partition_responses[0].clone()
    }

    /// Appends what must be taken; returns its first offset.
    pub(crate) fn append(&mut self, topic: &str, partition: i32, batch: &Batch) -> i64 {
        let response = self.produce(topic, partition, batch);
        assert_eq!(response.error_code, 0, "{response:?}");
        response.base_offset
    }

    pub(crate) fn fetch(&mut self, topic: &str, partition: i32, offset: i64) -> PartitionData {
        let response = self.call(&fetch_request(&[(topic, partition, offset)]), FETCH);
        assert_eq!(response.error_code, 0);
        only_partition(&response).clone()
    }

    /// All records of a partition from an offset to its end, as it is now.
    pub(crate) fn read(&mut self, topic: &str, partition: i32, offset: i64) -> Vec<Record> {
        let mut out: Vec<Record> = Vec::new();
        loop {
            let from = out.last().map_or(offset, |last| last.offset + 1);
            let data = self.fetch(topic, partition, from);
            assert_eq!(data.error_code, 0, "{data:?}");
            if from >= data.high_watermark {
                return out;
            }
            let found = records(data.records.as_deref().unwrap_or_default());
            out.extend(found.into_iter().filter(|record| record.offset >= from));
        }
    }
}

pub(crate) fn create_request(
    name: &str,
    partitions: i32,
    replicas: i16,
    configs: &[(&str, &str)],
) -> CreateTopicsRequest {
    let config = |(name, value): &(&str, &str)| {
        CreatableTopicConfig::default().with_name(text(*name)).with_value(Some(text(*value)))
    };
    let topic = CreatableTopic::default()
        .with_name(topic_name(name))
        .with_num_partitions(partitions)
        .with_replication_factor(replicas)
        .with_configs(configs.iter().map(config).collect());
    CreateTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(30_000)
}

pub(crate) fn produce_request(parts: &[(&str, i32, Vec<u8>)], acks: i16) -> ProduceRequest {
    let mut request = ProduceRequest::default().with_acks(acks).with_timeout_ms(30_000);
    for (topic, partition, batch) in parts {
        let data = PartitionProduceData::default()
            .with_index(*partition)
            .with_records(Some(batch.clone().into()));
        match request.topic_data.last_mut().filter(|last| last.name == topic_name(topic)) {
            Some(last) => last.partition_data.push(data),
            None => request.topic_data.push(
                TopicProduceData::default()
                    .with_name(topic_name(topic))
                    .with_partition_data(vec![data]),
            ),
        }
    }
    request
}

/// Answers at once with what is there.
pub(crate) fn fetch_request(parts: &[(&str, i32, i64)]) -> FetchRequest {
    let mut request = FetchRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_max_wait_ms(0)
        .with_min_bytes(0)
        .with_max_bytes(50 << 20)
        .with_session_epoch(-1);
    for (topic, partition, offset) in parts {
        let part = FetchPartition::default()
            .with_partition(*partition)
            .with_fetch_offset(*offset)
            .with_current_leader_epoch(-1)
            .with_last_fetched_epoch(-1)
            .with_partition_max_bytes(10 << 20);
        match request.topics.last_mut().filter(|last| last.topic == topic_name(topic)) {
            Some(last) => last.partitions.push(part),
            None => request.topics.push(
                FetchTopic::default().with_topic(topic_name(topic)).with_partitions(vec![part]),
            ),
        }
    }
    request
}

pub(crate) fn only_partition(response: &FetchResponse) -> &PartitionData {
    &response.responses[0].partitions[0]
}

/// A topic of this test's own.
pub(crate) fn new_topic(kafka: &mut Kafka, partitions: i32) -> String {
    let name = broker::unique("t");
    assert_eq!(kafka.create(&name, partitions, &[]), 0);
    name
}
