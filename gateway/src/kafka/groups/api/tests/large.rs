//! Groups whose members, assignments or offsets are large.

use bytes::Bytes;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::*;

use crate::kafka::KafkaConfig;
use crate::kafka::testing::{Bench, Client, config, new_meta, text};

fn group() -> GroupId {
    GroupId(text("g"))
}

fn join(member: &str, metadata: Bytes) -> JoinGroupRequest {
    JoinGroupRequest::default()
        .with_group_id(group())
        .with_session_timeout_ms(10_000)
        .with_rebalance_timeout_ms(60_000)
        .with_member_id(text(member))
        .with_protocol_type(text("consumer"))
        .with_protocols(vec![
            JoinGroupRequestProtocol::default().with_name(text("range")).with_metadata(metadata),
        ])
}

async fn sync(client: &mut Client, member: &str, share: Option<Bytes>) -> SyncGroupResponse {
    let share = share.map(|share| {
        SyncGroupRequestAssignment::default().with_member_id(text(member)).with_assignment(share)
    });
    let request = SyncGroupRequest::default()
        .with_group_id(group())
        .with_generation_id(1)
        .with_member_id(text(member))
        .with_assignments(share.into_iter().collect());
    client.ask(5, &request).await
}

#[tokio::test]
async fn k17_large_groups_outlive_a_restart_too() {
    let meta = new_meta();
    let share = Bytes::from(vec![5; 3_000_000]);
    let member = {
        let bench = Bench::over(meta.clone(), config(), false).await;
        let mut client = bench.connect();
        let joined = client.ask(2, &join("", vec![7; 2_000_000].into())).await;
        assert_eq!((joined.error_code, joined.generation_id), (0, 1));
        let synced = sync(&mut client, &joined.member_id, Some(share.clone())).await;
        assert_eq!(synced.error_code, 0);
        bench.shutdown.cancel();
        bench.server.stopped().await;
        joined.member_id.to_string()
    };
    let bench = Bench::over(meta, config(), false).await;
    let mut client = bench.connect();
    let beat = HeartbeatRequest::default()
        .with_group_id(group())
        .with_generation_id(1)
        .with_member_id(text(&member));
    assert_eq!(client.ask(4, &beat).await.error_code, 0);
    assert_eq!(sync(&mut client, &member, None).await.assignment, share);
}

#[tokio::test]
async fn what_one_transaction_can_not_hold_is_refused_for_good() {
    let bench = Bench::with(KafkaConfig { offset_metadata_max_bytes: 64_000, ..config() }, false);
    let bench = bench.await;
    let mut client = bench.connect();
    let create = CreateTopicsRequest::default().with_topics(vec![
        create_topics_request::CreatableTopic::default()
            .with_name(TopicName(text("t")))
            .with_num_partitions(170)
            .with_replication_factor(1),
    ]);
    assert_eq!(client.ask(7, &create).await.topics[0].error_code, 0);
    let commit = |partitions: std::ops::Range<i32>| {
        let note = text(&"x".repeat(64_000));
        let rows = partitions.map(|index| {
            OffsetCommitRequestPartition::default()
                .with_partition_index(index)
                .with_committed_offset(1)
                .with_committed_metadata(Some(note.clone()))
        });
        OffsetCommitRequest::default().with_group_id(group()).with_topics(vec![
            OffsetCommitRequestTopic::default()
                .with_name(TopicName(text("t")))
                .with_partitions(rows.collect()),
        ])
    };
    let request = commit(0..170).with_generation_id_or_member_epoch(-1);
    let answer = client.ask(8, &request).await;
    let too_large = ResponseError::InvalidCommitOffsetSize.code();
    assert!(answer.topics[0].partitions.iter().all(|row| row.error_code == too_large));
    let request = commit(0..85).with_generation_id_or_member_epoch(-1);
    let answer = client.ask(8, &request).await;
    assert!(answer.topics[0].partitions.iter().all(|row| row.error_code == 0));
    // Members: the answer comes at once, and isn't one after which clients try again.
    let large = join("", vec![7; 9_000_000].into()).with_group_id(GroupId(text("h")));
    let joined = client.ask(2, &large).await;
    assert_eq!(joined.error_code, ResponseError::GroupMaxSizeReached.code());
    let joined = client.ask(2, &join("", Bytes::new()).with_group_id(GroupId(text("g2")))).await;
    assert_eq!(joined.error_code, 0);
    let share = SyncGroupRequestAssignment::default()
        .with_member_id(joined.member_id.clone())
        .with_assignment(vec![5; 9_000_000].into());
    let request = SyncGroupRequest::default()
        .with_group_id(GroupId(text("g2")))
        .with_generation_id(1)
        .with_member_id(joined.member_id)
        .with_assignments(vec![share]);
    let synced = client.ask(5, &request).await;
    assert_eq!(synced.error_code, ResponseError::UnknownServerError.code());
}
