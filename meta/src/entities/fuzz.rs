//! Any bytes as the values of entities: for fuzzing.

use bytes::Bytes;
use interflow_proto::meta as proto;
use prost::Message;

use super::cluster::decode_cluster;
use super::groups::{CommittedOffset, Coordinator, GroupMetadata};
use super::logs::{ClosedSegment, LogHead};
use super::nodes::Node;
use super::retained::Row;
use super::topics::Topic;
use super::users::User;

/// Reads any bytes as the value of every kind of entity.
pub fn fuzz_values(bytes: &[u8]) {
    let value = Bytes::copy_from_slice(bytes);
    let _ = decode_cluster(value.clone());
    let _ = CommittedOffset::decode(value.clone());
    let _ = Coordinator::decode(value.clone());
    let _ = GroupMetadata::decode(value.clone());
    let _ = ClosedSegment::decode(0, value.clone());
    let _ = LogHead::decode(value.clone());
    let _ = Node::decode(value.clone());
    let _ = Row::decode(value.clone());
    let _ = Topic::decode("topic", value.clone());
    let _ = User::decode(value);
}

/// Valid inputs of [`fuzz_values`].
pub fn value_seeds() -> Vec<Vec<u8>> {
    let runs = vec![proto::LogRun { first: 1, count: 8 }];
    vec![
        proto::Topic { id: Bytes::from_static(&[7; 16]), logs: runs, ..Default::default() }
            .encode_to_vec(),
        proto::Cluster { id: Bytes::from_static(&[7; 16]), ..Default::default() }.encode_to_vec(),
        proto::Node { min_level: 1, max_level: 2, ..Default::default() }.encode_to_vec(),
        proto::User { password_hash: "$argon2id$".into(), changed_ms: 5 }.encode_to_vec(),
        proto::LogHead {
            open: Some(Default::default()),
            policy: Some(Default::default()),
            ..Default::default()
        }
        .encode_to_vec(),
        proto::GroupCoordinator { epoch: 2, node: 1, incarnation: 3 }.encode_to_vec(),
        proto::CommittedOffset { offset: 9, ..Default::default() }.encode_to_vec(),
    ]
}
