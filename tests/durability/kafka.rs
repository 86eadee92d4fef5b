//! Kafka requests that tell their error codes.

use bytes::Bytes;
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig,
};
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::offset_fetch_request::OffsetFetchRequestTopic;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{
    BrokerId, CreateTopicsRequest, DeleteTopicsRequest, FetchRequest, GroupId,
    IncrementalAlterConfigsRequest, OffsetCommitRequest, OffsetFetchRequest, ProduceRequest,
};
use kafka_protocol::protocol::StrBytes;
use kafka_protocol::records::RecordBatchDecoder;

use crate::load::{GROUP, batch, name_of};
use crate::wire::Kafka;

pub(crate) const CORRUPT_MESSAGE: i16 = 2;
pub(crate) const REQUEST_TIMED_OUT: i16 = 7;
pub(crate) const COORDINATOR_NOT_AVAILABLE: i16 = 15;
pub(crate) const STORAGE_ERROR: i16 = 56;

/// What one Fetch said of one partition.
#[derive(Debug)]
pub(crate) struct Fetched {
    pub(crate) code: i16,
    /// Offsets and values.
    pub(crate) records: Vec<(i64, String)>,
    pub(crate) high_watermark: i64,
}

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

/// One record for partition 0.
pub(crate) fn produce_request(topic: &str, value: &str) -> ProduceRequest {
    let records: Bytes = batch(&[value.to_owned()], -1, -1, -1);
    let data = PartitionProduceData::default().with_index(0).with_records(Some(records));
    ProduceRequest::default().with_acks(-1).with_timeout_ms(30_000).with_topic_data(vec![
        TopicProduceData::default().with_name(name_of(topic)).with_partition_data(vec![data]),
    ])
}

pub(crate) fn create_request(
    name: &str,
    partitions: i32,
    configs: &[(&str, &str)],
) -> CreateTopicsRequest {
    let config = |(name, value): &(&str, &str)| {
        CreatableTopicConfig::default().with_name(text(name)).with_value(Some(text(value)))
    };
    let topic = CreatableTopic::default()
        .with_name(name_of(name))
        .with_num_partitions(partitions)
        .with_replication_factor(-1)
        .with_configs(configs.iter().map(config).collect());
    CreateTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(30_000)
}

/// Each answers with its error code; a broken connection is a failed test.
impl Kafka {
    /// Also the record's offset.
    pub(crate) fn produce(&mut self, topic: &str, value: &str) -> (i16, i64) {
        let answer = self.call(7, &produce_request(topic, value)).expect("an answer");
        let partition = &answer.responses[0].partition_responses[0];
        (partition.error_code, partition.base_offset)
    }

    pub(crate) fn fetch(&mut self, topic: &str, partition: i32, offset: i64) -> Fetched {
        let wanted = FetchPartition::default()
            .with_partition(partition)
            .with_fetch_offset(offset)
            .with_partition_max_bytes(8 << 20);
        let request = FetchRequest::default()
            .with_replica_id(BrokerId(-1))
            .with_max_bytes(8 << 20)
            .with_topics(vec![
                FetchTopic::default().with_topic(name_of(topic)).with_partitions(vec![wanted]),
            ]);
        let answer = self.call(11, &request).expect("an answer");
        let data = answer.responses[0].partitions[0].clone();
        let mut bytes = data.records.unwrap_or_default();
        let batches = RecordBatchDecoder::decode_all(&mut bytes).expect("batches");
        let records = batches.into_iter().flat_map(|batch| batch.records);
        Fetched {
            code: data.error_code,
            records: records
                .map(|record| {
                    let value = record.value.unwrap_or_default();
                    (record.offset, String::from_utf8_lossy(&value).into_owned())
                })
                .collect(),
            high_watermark: data.high_watermark,
        }
    }

    pub(crate) fn create(&mut self, name: &str, partitions: i32, configs: &[(&str, &str)]) -> i16 {
        let answer = self.call(5, &create_request(name, partitions, configs)).expect("an answer");
        answer.topics[0].error_code
    }

    pub(crate) fn delete(&mut self, name: &str) -> i16 {
        let request = DeleteTopicsRequest::default()
            .with_topic_names(vec![name_of(name)])
            .with_timeout_ms(30_000);
        self.call(5, &request).expect("an answer").responses[0].error_code
    }

    pub(crate) fn alter(&mut self, topic: &str, config: &str, value: &str) -> i16 {
        const TOPIC: i8 = 2;
        let config =
            AlterableConfig::default().with_name(text(config)).with_value(Some(text(value)));
        let resource = AlterConfigsResource::default()
            .with_resource_type(TOPIC)
            .with_resource_name(text(topic))
            .with_configs(vec![config]);
        let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
        self.call(1, &request).expect("an answer").responses[0].error_code
    }

    /// Commits an offset of `mqtt`-0.
    pub(crate) fn commit(&mut self, offset: i64) -> i16 {
        let partition = OffsetCommitRequestPartition::default()
            .with_partition_index(0)
            .with_committed_offset(offset);
        let topic = OffsetCommitRequestTopic::default()
            .with_name(name_of("mqtt"))
            .with_partitions(vec![partition]);
        let request = OffsetCommitRequest::default()
            .with_group_id(GroupId(text(GROUP)))
            .with_generation_id_or_member_epoch(-1)
            .with_topics(vec![topic]);
        self.call(7, &request).expect("an answer").topics[0].partitions[0].error_code
    }

    /// The error code and the committed offset of `mqtt`-0.
    pub(crate) fn committed(&mut self) -> (i16, i64) {
        let topic = OffsetFetchRequestTopic::default()
            .with_name(name_of("mqtt"))
            .with_partition_indexes(vec![0]);
        let request = OffsetFetchRequest::default()
            .with_group_id(GroupId(text(GROUP)))
            .with_topics(Some(vec![topic]));
        let answer = self.call(5, &request).expect("an answer");
        let partition = &answer.topics[0].partitions[0];
        (answer.error_code.max(partition.error_code), partition.committed_offset)
    }
}
