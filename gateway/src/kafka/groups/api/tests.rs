//! Groups as clients see them, over a pipe and the embedded store.

mod doubt;
mod large;
mod several;

use bytes::Bytes;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::offset_delete_request::{
    OffsetDeleteRequestPartition, OffsetDeleteRequestTopic,
};
use kafka_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::*;

use crate::kafka::KafkaConfig;
use crate::kafka::testing::{Bench, Client, config, new_meta, text};

/// A consumer's subscription to the topic `t`.
const SUBSCRIPTION: &[u8] = &[0, 0, 0, 0, 0, 1, 0, 1, b't', 0xff, 0xff, 0xff, 0xff];

fn group() -> GroupId {
    GroupId(text("g"))
}

fn join(member: &str) -> JoinGroupRequest {
    JoinGroupRequest::default()
        .with_group_id(group())
        .with_session_timeout_ms(10_000)
        .with_rebalance_timeout_ms(60_000)
        .with_member_id(text(member))
        .with_protocol_type(text("consumer"))
        .with_protocols(vec![
            JoinGroupRequestProtocol::default()
                .with_name(text("range"))
                .with_metadata(Bytes::from_static(SUBSCRIPTION)),
        ])
}

fn sync(member: &str, generation: i32, shares: &[(&str, &'static str)]) -> SyncGroupRequest {
    let share = |(member, share): &(&str, &'static str)| {
        SyncGroupRequestAssignment::default()
            .with_member_id(text(member))
            .with_assignment(Bytes::from_static(share.as_bytes()))
    };
    SyncGroupRequest::default()
        .with_group_id(group())
        .with_generation_id(generation)
        .with_member_id(text(member))
        .with_assignments(shares.iter().map(share).collect())
}

fn heartbeat(member: &str, generation: i32) -> HeartbeatRequest {
    HeartbeatRequest::default()
        .with_group_id(group())
        .with_generation_id(generation)
        .with_member_id(text(member))
}

fn commit(member: &str, generation: i32, rows: &[(&str, i32, i64)]) -> OffsetCommitRequest {
    let topic = |(topic, partition, offset): &(&str, i32, i64)| {
        OffsetCommitRequestTopic::default().with_name(TopicName(text(topic))).with_partitions(vec![
            OffsetCommitRequestPartition::default()
                .with_partition_index(*partition)
                .with_committed_offset(*offset)
                .with_committed_metadata(Some(text("note"))),
        ])
    };
    OffsetCommitRequest::default()
        .with_group_id(group())
        .with_generation_id_or_member_epoch(generation)
        .with_member_id(text(member))
        .with_topics(rows.iter().map(topic).collect())
}

/// What is committed for a partition: -1 for nothing.
async fn committed(client: &mut Client, topic: &str, partition: i32) -> i64 {
    let request = OffsetFetchRequest::default().with_group_id(group()).with_topics(Some(vec![
        OffsetFetchRequestTopic::default()
            .with_name(TopicName(text(topic)))
            .with_partition_indexes(vec![partition]),
    ]));
    let answer = client.ask(7, &request).await;
    assert_eq!(answer.error_code, 0);
    answer.topics[0].partitions[0].committed_offset
}

async fn with_topic(bench: &Bench, name: &str) {
    let request = MetadataRequest::default()
        .with_topics(Some(vec![
            MetadataRequestTopic::default().with_name(Some(TopicName(text(name)))),
        ]))
        .with_allow_auto_topic_creation(true);
    assert_eq!(bench.connect().ask(9, &request).await.topics[0].error_code, 0);
}

/// Joins as the only member; its id.
async fn alone(client: &mut Client, version: i16) -> (String, i32) {
    let mut joined = client.ask(version, &join("")).await;
    if version >= 4 {
        assert_eq!(joined.error_code, ResponseError::MemberIdRequired.code());
        let id = joined.member_id.clone();
        joined = client.ask(version, &join(&id)).await;
    }
    assert_eq!(joined.error_code, 0);
    assert_eq!(joined.leader, joined.member_id);
    assert_eq!(joined.members.len(), 1);
    assert_eq!(joined.members[0].metadata, SUBSCRIPTION);
    (joined.member_id.to_string(), joined.generation_id)
}

#[tokio::test]
async fn k14_a_life_in_a_group_in_every_version() {
    for version in 0..=9 {
        let bench = Bench::new().await;
        let mut client = bench.connect();
        let (member, generation) = alone(&mut client, version).await;
        let synced =
            client.ask(version.min(5), &sync(&member, generation, &[(&member, "all")])).await;
        assert_eq!((synced.error_code, &synced.assignment[..]), (0, &b"all"[..]));
        let beat = client.ask(version.min(4), &heartbeat(&member, generation)).await;
        assert_eq!(beat.error_code, 0);
        let leave = LeaveGroupRequest::default().with_group_id(group());
        let version = version.min(5);
        let leave = if version >= 3 {
            leave.with_members(vec![
                MemberIdentity::default().with_member_id(text(&member)),
                MemberIdentity::default().with_member_id(text("stranger")),
            ])
        } else {
            leave.with_member_id(text(&member))
        };
        let left = client.ask(version, &leave).await;
        assert_eq!(left.error_code, 0);
        if version >= 3 {
            assert_eq!(left.members[0].error_code, 0);
            assert_eq!(left.members[1].error_code, ResponseError::UnknownMemberId.code());
        }
        let beat = client.ask(0, &heartbeat(&member, generation)).await;
        assert_eq!(beat.error_code, ResponseError::UnknownMemberId.code());
    }
}

#[tokio::test]
async fn k14_two_members_share() {
    let bench = Bench::new().await;
    let (mut a, mut b) = (bench.connect(), bench.connect());
    let (first, generation) = alone(&mut a, 2).await;
    a.ask(0, &sync(&first, generation, &[(&first, "all")])).await;
    b.send(2, &join("")).await;
    // The first hears of it by its heartbeat.
    let rebalance = ResponseError::RebalanceInProgress.code();
    while a.ask(0, &heartbeat(&first, generation)).await.error_code != rebalance {
        tokio::task::yield_now().await;
    }
    let lead = a.ask(2, &join(&first)).await;
    let (_, follow) = b.receive::<JoinGroupRequest>(2).await;
    assert_eq!((lead.generation_id, follow.generation_id), (2, 2));
    assert_eq!(lead.members.len(), 2);
    let second = follow.member_id.to_string();
    b.send(0, &sync(&second, 2, &[])).await;
    let synced = a.ask(0, &sync(&first, 2, &[(&first, "x"), (&second, "y")])).await;
    assert_eq!(&synced.assignment[..], b"x");
    assert_eq!(&b.receive::<SyncGroupRequest>(0).await.1.assignment[..], b"y");
}

#[tokio::test(start_paused = true)]
async fn k14_a_silent_member_is_out_after_its_session() {
    let bench = Bench::new().await;
    let mut client = bench.connect();
    let (member, generation) = alone(&mut client, 9).await;
    client.ask(5, &sync(&member, generation, &[(&member, "all")])).await;
    for _ in 0..4 {
        tokio::time::sleep(std::time::Duration::from_secs(9)).await;
        assert_eq!(client.ask(4, &heartbeat(&member, generation)).await.error_code, 0);
    }
    tokio::time::sleep(std::time::Duration::from_secs(11)).await;
    let beat = client.ask(4, &heartbeat(&member, generation)).await;
    assert_eq!(beat.error_code, ResponseError::UnknownMemberId.code());
}

#[tokio::test]
async fn k14_session_timeouts_and_names_are_checked() {
    let bench = Bench::new().await;
    let mut client = bench.connect();
    for timeout in [-1, 0, 5_999, 1_800_001] {
        let answer = client.ask(2, &join("").with_session_timeout_ms(timeout)).await;
        assert_eq!(answer.error_code, ResponseError::InvalidSessionTimeout.code());
    }
    for name in [String::new(), "x".repeat(3_000)] {
        let answer = client.ask(2, &join("").with_group_id(GroupId(text(&name)))).await;
        assert_eq!(answer.error_code, ResponseError::InvalidGroupId.code());
    }
    let answer = client.ask(2, &join("stranger")).await;
    assert_eq!(answer.error_code, ResponseError::UnknownMemberId.code());
    assert_eq!(bench.server.metrics().groups.get(), 0);
}

#[tokio::test]
async fn k16_offsets_are_committed_and_fetched_in_every_version() {
    let bench = Bench::new().await;
    with_topic(&bench, "t").await;
    let mut client = bench.connect();
    let (member, generation) = alone(&mut client, 9).await;
    client.ask(5, &sync(&member, generation, &[(&member, "all")])).await;
    for version in 2..=9 {
        let offset = i64::from(version) * 10;
        let answer = client.ask(version, &commit(&member, generation, &[("t", 0, offset)])).await;
        assert_eq!(answer.topics[0].partitions[0].error_code, 0);
        assert_eq!(committed(&mut client, "t", 0).await, offset);
    }
    for version in 1..=7 {
        let request = OffsetFetchRequest::default().with_group_id(group()).with_topics(Some(vec![
            OffsetFetchRequestTopic::default()
                .with_name(TopicName(text("t")))
                .with_partition_indexes(vec![0, 7]),
        ]));
        let answer = client.ask(version, &request).await;
        let partitions = &answer.topics[0].partitions;
        assert_eq!((partitions[0].committed_offset, partitions[1].committed_offset), (90, -1));
        assert_eq!(partitions[0].metadata.as_deref(), Some("note"));
        if version >= 2 {
            let all = OffsetFetchRequest::default().with_group_id(group()).with_topics(None);
            let answer = client.ask(version, &all).await;
            assert_eq!(answer.topics[0].partitions[0].committed_offset, 90);
        }
    }
    for version in 8..=9 {
        let of = |name: &str, topics| {
            OffsetFetchRequestGroup::default()
                .with_group_id(GroupId(text(name)))
                .with_topics(topics)
                .with_member_epoch(-1)
        };
        let topic = OffsetFetchRequestTopics::default()
            .with_name(TopicName(text("t")))
            .with_partition_indexes(vec![0]);
        let request = OffsetFetchRequest::default()
            .with_groups(vec![of("g", None), of("other", Some(vec![topic]))])
            .with_require_stable(true);
        let answer = client.ask(version, &request).await;
        assert_eq!(answer.groups[0].topics[0].partitions[0].committed_offset, 90);
        assert_eq!(answer.groups[1].topics[0].partitions[0].committed_offset, -1);
    }
}

#[tokio::test]
async fn k16_commits_are_checked() {
    let small = KafkaConfig { offset_metadata_max_bytes: 3, ..config() };
    let bench = Bench::with(small, false).await;
    with_topic(&bench, "t").await;
    let mut client = bench.connect();
    let mut code = async |request: OffsetCommitRequest| {
        client.ask(7, &request).await.topics[0].partitions[0].error_code
    };
    let mut fine = commit("", -1, &[("t", 0, 5)]);
    assert_eq!(code(fine.clone()).await, ResponseError::OffsetMetadataTooLarge.code());
    fine.topics[0].partitions[0].committed_metadata = None;
    assert_eq!(code(fine.clone()).await, 0);
    let missing = commit("", -1, &[("missing", 0, 5)]);
    assert_eq!(code(missing).await, ResponseError::UnknownTopicOrPartition.code());
    let missing = commit("", -1, &[("t", 9, 5)]);
    assert_eq!(code(missing).await, ResponseError::UnknownTopicOrPartition.code());
    fine.generation_id_or_member_epoch = 4;
    fine.member_id = text("m");
    assert_eq!(code(fine.clone()).await, ResponseError::IllegalGeneration.code());
    fine.group_id = GroupId(text(""));
    assert_eq!(code(fine).await, ResponseError::InvalidGroupId.code());
}

#[tokio::test]
async fn k14_commits_are_fenced_by_member_and_generation() {
    let bench = Bench::new().await;
    with_topic(&bench, "t").await;
    let mut client = bench.connect();
    let (member, generation) = alone(&mut client, 9).await;
    let mut code = async |member: &str, generation: i32| {
        let request = commit(member, generation, &[("t", 0, 5)]);
        client.ask(7, &request).await.topics[0].partitions[0].error_code
    };
    let code_of = |error: ResponseError| error.code();
    assert_eq!(code(&member, generation).await, code_of(ResponseError::RebalanceInProgress));
    assert_eq!(code(&member, generation + 1).await, code_of(ResponseError::IllegalGeneration));
    assert_eq!(code("stranger", generation).await, code_of(ResponseError::UnknownMemberId));
    assert_eq!(code("", -1).await, code_of(ResponseError::UnknownMemberId));
}

#[tokio::test]
async fn k17_after_a_restart_members_go_on_and_no_offset_is_lost() {
    let meta = new_meta();
    let (member, generation) = {
        let bench = Bench::over(meta.clone(), config(), false).await;
        with_topic(&bench, "t").await;
        let mut client = bench.connect();
        let (member, generation) = alone(&mut client, 9).await;
        client.ask(5, &sync(&member, generation, &[(&member, "all")])).await;
        client.ask(9, &commit(&member, generation, &[("t", 0, 42)])).await;
        bench.shutdown.cancel();
        bench.server.stopped().await;
        (member, generation)
    };
    let bench = Bench::over(meta, config(), false).await;
    let mut client = bench.connect();
    assert_eq!(client.ask(4, &heartbeat(&member, generation)).await.error_code, 0);
    let synced = client.ask(5, &sync(&member, generation, &[])).await;
    assert_eq!(&synced.assignment[..], b"all");
    assert_eq!(committed(&mut client, "t", 0).await, 42);
}

#[tokio::test(start_paused = true)]
async fn members_that_do_not_come_back_after_a_restart_are_out() {
    let meta = new_meta();
    {
        let bench = Bench::over(meta.clone(), config(), false).await;
        let mut client = bench.connect();
        let (member, generation) = alone(&mut client, 9).await;
        client.ask(5, &sync(&member, generation, &[(&member, "all")])).await;
        bench.shutdown.cancel();
        bench.server.stopped().await;
    }
    let bench = Bench::over(meta, config(), false).await;
    becomes_empty(&bench).await;
}

/// Nobody asks for the group, and its sessions end all the same.
async fn becomes_empty(bench: &Bench) {
    while bench.server.groups().in_memory().is_empty() {
        tokio::task::yield_now().await;
    }
    // In memory, it is called by nobody but its timers.
    tokio::time::sleep(std::time::Duration::from_secs(20)).await;
    while !bench.server.groups().in_memory().is_empty() {
        tokio::task::yield_now().await;
    }
    assert_eq!(states(&mut bench.connect()).await, [("g".to_owned(), "Empty".to_owned())]);
}

async fn states(client: &mut Client) -> Vec<(String, String)> {
    let answer = client.ask(5, &ListGroupsRequest::default()).await;
    assert_eq!(answer.error_code, 0);
    answer
        .groups
        .iter()
        .map(|group| (group.group_id.to_string(), group.group_state.to_string()))
        .collect()
}

#[tokio::test]
async fn groups_are_listed_described_and_deleted_in_every_version() {
    let bench = Bench::new().await;
    with_topic(&bench, "t").await;
    let mut client = bench.connect();
    let (member, generation) = alone(&mut client, 9).await;
    client.ask(5, &sync(&member, generation, &[(&member, "all")])).await;
    client.ask(9, &commit(&member, generation, &[("t", 0, 1)])).await;
    for version in 0..=5 {
        let listed = client.ask(version, &ListGroupsRequest::default()).await;
        assert_eq!(&*listed.groups[0].protocol_type, "consumer");
    }
    let filtered = |states: &[&str], types: &[&str]| {
        ListGroupsRequest::default()
            .with_states_filter(states.iter().map(|state| text(state)).collect())
            .with_types_filter(types.iter().map(|kind| text(kind)).collect())
    };
    for (states, types, count) in [
        (&["Stable"][..], &[][..], 1),
        (&["Empty"], &[], 0),
        (&[], &["Classic"], 1),
        (&[], &["consumer"], 0),
    ] {
        let listed = client.ask(5, &filtered(states, types)).await;
        assert_eq!(listed.groups.len(), count, "{states:?} {types:?}");
    }
    for version in 0..=6 {
        let request =
            DescribeGroupsRequest::default().with_groups(vec![group(), GroupId(text("missing"))]);
        let described = client.ask(version, &request).await;
        let found = &described.groups[0];
        assert_eq!((&*found.group_state, &*found.protocol_data), ("Stable", "range"));
        assert_eq!(found.members[0].member_assignment, "all");
        assert_eq!(&*found.members[0].client_id, "test");
        assert_eq!(&*found.members[0].client_host, "/127.0.0.1");
        assert_eq!(&*described.groups[1].group_state, "Dead");
    }
    let delete =
        DeleteGroupsRequest::default().with_groups_names(vec![group(), GroupId(text("missing"))]);
    let kept = client.ask(2, &delete).await;
    assert_eq!(kept.results[0].error_code, ResponseError::NonEmptyGroup.code());
    assert_eq!(kept.results[1].error_code, ResponseError::GroupIdNotFound.code());
    let leave = LeaveGroupRequest::default().with_group_id(group()).with_member_id(text(&member));
    client.ask(0, &leave).await;
    assert_eq!(client.ask(0, &delete).await.results[0].error_code, 0);
    assert_eq!(committed(&mut client, "t", 0).await, -1);
    assert!(states(&mut client).await.is_empty());
}

fn delete_offset(topic: &str) -> OffsetDeleteRequest {
    OffsetDeleteRequest::default().with_group_id(group()).with_topics(vec![
        OffsetDeleteRequestTopic::default()
            .with_name(TopicName(text(topic)))
            .with_partitions(vec![OffsetDeleteRequestPartition::default()]),
    ])
}

#[tokio::test]
async fn k16_offsets_of_topics_that_are_read_are_kept_others_deleted() {
    let bench = Bench::new().await;
    with_topic(&bench, "t").await;
    with_topic(&bench, "other").await;
    let mut client = bench.connect();
    let missing = client.ask(0, &delete_offset("t")).await;
    assert_eq!(missing.error_code, ResponseError::GroupIdNotFound.code());
    let (member, generation) = alone(&mut client, 9).await;
    client.ask(5, &sync(&member, generation, &[(&member, "all")])).await;
    client.ask(9, &commit(&member, generation, &[("t", 0, 1), ("other", 0, 2)])).await;
    let kept = client.ask(0, &delete_offset("t")).await;
    assert_eq!(
        kept.topics[0].partitions[0].error_code,
        ResponseError::GroupSubscribedToTopic.code()
    );
    let gone = client.ask(0, &delete_offset("other")).await;
    assert_eq!(gone.topics[0].partitions[0].error_code, 0);
    assert_eq!(committed(&mut client, "t", 0).await, 1);
    assert_eq!(committed(&mut client, "other", 0).await, -1);
}

#[tokio::test]
async fn the_end_of_a_topic_ends_its_offsets() {
    let bench = Bench::new().await;
    with_topic(&bench, "t").await;
    with_topic(&bench, "other").await;
    let mut client = bench.connect();
    client.ask(7, &commit("", -1, &[("t", 0, 1), ("other", 0, 2)])).await;
    let delete = DeleteTopicsRequest::default().with_topic_names(vec![TopicName(text("t"))]);
    assert_eq!(client.ask(5, &delete).await.responses[0].error_code, 0);
    with_topic(&bench, "t").await;
    assert_eq!(committed(&mut client, "t", 0).await, -1);
    assert_eq!(committed(&mut client, "other", 0).await, 2);
}

#[tokio::test]
async fn k16_offsets_of_a_group_without_members_lapse() {
    let short = KafkaConfig { offsets_retention_minutes: 0, ..config() };
    let bench = Bench::with(short, false).await;
    with_topic(&bench, "t").await;
    let mut client = bench.connect();
    client.ask(7, &commit("", -1, &[("t", 0, 1)])).await;
    let (member, generation) = {
        let mut request = join("").with_group_id(GroupId(text("alive")));
        request.session_timeout_ms = 1_800_000;
        let joined = client.ask(2, &request).await;
        (joined.member_id.to_string(), joined.generation_id)
    };
    let share =
        sync(&member, generation, &[(&member, "all")]).with_group_id(GroupId(text("alive")));
    client.ask(0, &share).await;
    let mut kept = commit(&member, generation, &[("t", 0, 7)]);
    kept.group_id = GroupId(text("alive"));
    client.ask(7, &kept).await;

    // They lapse in the millisecond after they were committed.
    while committed(&mut client, "t", 0).await != -1 {
        bench.server.groups().expire_once().await.unwrap();
    }
    assert_eq!(states(&mut client).await, [("alive".to_owned(), "Stable".to_owned())]);
}

#[tokio::test]
async fn memory_of_groups_is_bounded_and_given_back() {
    let small = KafkaConfig { groups_max: 2, groups_max_bytes: 4_096, ..config() };
    let bench = Bench::with(small, false).await;
    let mut client = bench.connect();
    let (member, generation) = alone(&mut client, 2).await;
    client.ask(0, &sync(&member, generation, &[(&member, "all")])).await;
    let refused = ResponseError::CoordinatorNotAvailable.code();
    let large = join("").with_protocols(vec![
        JoinGroupRequestProtocol::default()
            .with_name(text("range"))
            .with_metadata(Bytes::from(vec![0; 4_096])),
    ]);
    assert_eq!(client.ask(2, &large).await.error_code, refused);
    let of = |name: &str| join("").with_group_id(GroupId(text(name)));
    assert_eq!(client.ask(2, &of("second")).await.error_code, 0);
    assert_eq!(client.ask(2, &of("third")).await.error_code, refused);
    let leave = LeaveGroupRequest::default().with_group_id(group()).with_member_id(text(&member));
    client.ask(0, &leave).await;
    while bench.server.metrics().groups.get() > 1 {
        tokio::task::yield_now().await;
    }
    assert_eq!(client.ask(2, &of("third")).await.error_code, 0);
}

#[tokio::test]
async fn commits_of_many_connections_share_transactions_and_keep_their_order() {
    let bench = Bench::new().await;
    with_topic(&bench, "t").await;
    let mut clients: Vec<_> = (0..20).map(|_| bench.connect()).collect();
    for (at, client) in (0i64..).zip(&mut clients) {
        for more in 0..5 {
            client.send(7, &commit("", -1, &[("t", 0, at * 10 + more)])).await;
        }
    }
    for client in &mut clients {
        for _ in 0..5 {
            let (_, answer) = client.receive::<OffsetCommitRequest>(7).await;
            assert_eq!(answer.topics[0].partitions[0].error_code, 0);
        }
    }
    let last = committed(&mut clients[0], "t", 0).await;
    assert_eq!(last % 10, 4, "the last commit of a connection is what remains of it");
    assert_eq!(bench.server.metrics().offset_commits.get(), 100);
}
