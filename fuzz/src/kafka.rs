//! Kafka's request frames and record batches.

use bytes::{Bytes, BytesMut};
use interflow_gateway::kafka::data::fuzz_bodies;
use interflow_gateway::kafka::frame::fuzz_frame;
use interflow_gateway::kafka::fuzz_plain;
use interflow_gateway::records::{BatchBuilder, fuzz_batch};
use kafka_protocol::messages::{
    ApiKey, ApiVersionsRequest, CreateTopicsRequest, FetchRequest, FindCoordinatorRequest,
    JoinGroupRequest, ListOffsetsRequest, MetadataRequest, OffsetCommitRequest, ProduceRequest,
    RequestHeader, TopicName, create_topics_request, fetch_request, list_offsets_request,
    metadata_request, offset_commit_request, produce_request,
};
use kafka_protocol::protocol::{Encodable, StrBytes};

use crate::Memory;

/// A decoded element takes more memory than its bytes: names, options, lists of lists.
pub(crate) const FRAME: Memory = Memory { fixed: 64 << 10, per_byte: 2 << 10 };

/// Records are decompressed up to 1 MiB, into a buffer that grows, by decoders with state.
pub(crate) const BATCH: Memory = Memory { fixed: 16 << 20, per_byte: 256 };

/// A request frame without its length.
pub(crate) fn frame(bytes: &[u8]) {
    fuzz_frame(bytes);
    fuzz_bodies(bytes);
}

/// A SASL/PLAIN token.
pub(crate) fn plain(bytes: &[u8]) {
    fuzz_plain(bytes);
}

pub(crate) fn tokens() -> Vec<Vec<u8>> {
    [&b"\0ann\0secret"[..], b"ann\0ann\0sec\0ret", b"bob\0ann\0secret", b"\0\0", b"\0\xff\0p"]
        .map(<[u8]>::to_vec)
        .to_vec()
}

/// A record batch.
pub(crate) fn batch(bytes: &[u8]) {
    fuzz_batch(bytes);
}

/// A request with its header; `None` if the version doesn't have one of the fields.
fn request(api: ApiKey, version: i16, body: &impl Encodable) -> Option<Vec<u8>> {
    let mut out = BytesMut::new();
    RequestHeader::default()
        .with_request_api_key(api as i16)
        .with_request_api_version(version)
        .with_correlation_id(7)
        .with_client_id(Some(StrBytes::from_static_str("fuzz")))
        .encode(&mut out, api.request_header_version(version))
        .ok()?;
    body.encode(&mut out, version).ok()?;
    Some(out.to_vec())
}

pub(crate) fn frames() -> Vec<Vec<u8>> {
    let text = StrBytes::from_static_str;
    let topic = || TopicName(text("mqtt"));
    let records = batches().into_iter().next().map(Bytes::from);
    let produce = ProduceRequest::default().with_acks(-1).with_topic_data(vec![
        produce_request::TopicProduceData::default().with_name(topic()).with_partition_data(vec![
            produce_request::PartitionProduceData::default().with_index(0).with_records(records),
        ]),
    ]);
    let fetch = FetchRequest::default().with_max_bytes(1 << 20).with_topics(vec![
        fetch_request::FetchTopic::default()
            .with_topic(topic())
            .with_partitions(vec![fetch_request::FetchPartition::default()]),
    ]);
    let offsets = ListOffsetsRequest::default().with_topics(vec![
        list_offsets_request::ListOffsetsTopic::default()
            .with_name(topic())
            .with_partitions(vec![list_offsets_request::ListOffsetsPartition::default()]),
    ]);
    let commit =
        OffsetCommitRequest::default().with_group_id(text("group").into()).with_topics(vec![
            offset_commit_request::OffsetCommitRequestTopic::default()
                .with_name(topic())
                .with_partitions(vec![
                    offset_commit_request::OffsetCommitRequestPartition::default(),
                ]),
        ]);
    let create = CreateTopicsRequest::default().with_topics(vec![
        create_topics_request::CreatableTopic::default()
            .with_name(topic())
            .with_num_partitions(3)
            .with_replication_factor(1),
    ]);
    let metadata = MetadataRequest::default().with_topics(Some(vec![
        metadata_request::MetadataRequestTopic::default().with_name(Some(topic())),
    ]));
    let join = JoinGroupRequest::default()
        .with_group_id(text("group").into())
        .with_protocol_type(text("consumer"));
    [
        request(ApiKey::ApiVersions, 0, &ApiVersionsRequest::default()),
        request(ApiKey::ApiVersions, 3, &ApiVersionsRequest::default()),
        request(ApiKey::Produce, 3, &produce),
        request(ApiKey::Produce, 9, &produce),
        request(ApiKey::Fetch, 4, &fetch),
        request(ApiKey::Fetch, 12, &fetch),
        request(ApiKey::ListOffsets, 1, &offsets),
        request(ApiKey::ListOffsets, 6, &offsets),
        request(ApiKey::Metadata, 1, &metadata),
        request(ApiKey::Metadata, 9, &metadata),
        request(ApiKey::OffsetCommit, 2, &commit),
        request(ApiKey::OffsetCommit, 8, &commit),
        request(ApiKey::CreateTopics, 5, &create),
        request(ApiKey::JoinGroup, 2, &join),
        request(ApiKey::JoinGroup, 6, &join),
        request(ApiKey::FindCoordinator, 1, &FindCoordinatorRequest::default()),
    ]
    .into_iter()
    .flatten()
    .collect()
}

pub(crate) fn batches() -> Vec<Vec<u8>> {
    let mut builder = BatchBuilder::new();
    let mut batches = Vec::new();
    for records in [1, 3] {
        for record in 0..records {
            let headers = [(&b"name"[..], Some(&b"value"[..])), (b"", None)];
            // A few short records always fit.
            let _ = builder.append(Some(b"key"), Some(b"value"), headers.iter().copied(), record);
        }
        batches.extend(builder.finish().map(|batch| batch.bytes.to_vec()));
    }
    // The same as if it were compressed: decompressors see it.
    if let Some(plain) = batches.first().cloned() {
        for codec in 1..=4 {
            let mut batch = plain.clone();
            if let Some(attributes) = batch.get_mut(22) {
                *attributes = codec;
            }
            batches.push(batch);
        }
    }
    batches
}
