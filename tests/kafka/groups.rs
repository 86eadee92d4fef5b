//! K14, K16: classic groups and their offsets.

use bytes::Bytes;
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopics,
};
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::{
    DeleteGroupsRequest, GroupId, HeartbeatRequest, JoinGroupRequest, JoinGroupResponse,
    LeaveGroupRequest, OffsetCommitRequest, OffsetFetchRequest, SyncGroupRequest,
};
use kafka_protocol::protocol::StrBytes;

use crate::broker::{Broker, is_reference, unique};
use crate::client::*;

/// A member and its connection.
struct Member {
    kafka: Kafka,
    group: GroupId,
    id: StrBytes,
    instance: Option<StrBytes>,
    session_ms: i32,
    generation: i32,
}

impl Member {
    fn new(group: &str) -> Member {
        Member {
            kafka: Kafka::connect(),
            group: GroupId(text(group)),
            id: StrBytes::default(),
            instance: None,
            session_ms: 60_000,
            generation: -1,
        }
    }

    fn join_request(&self) -> JoinGroupRequest {
        let protocol = JoinGroupRequestProtocol::default()
            .with_name(text("range"))
            .with_metadata(Bytes::from_static(b"what I want"));
        JoinGroupRequest::default()
            .with_group_id(self.group.clone())
            .with_session_timeout_ms(self.session_ms)
            .with_rebalance_timeout_ms(60_000)
            .with_member_id(self.id.clone())
            .with_group_instance_id(self.instance.clone())
            .with_protocol_type(text("consumer"))
            .with_protocols(vec![protocol])
    }

    /// Sends JoinGroup, with the id that a first one gets.
    fn start_join(&mut self) -> i32 {
        if self.id.is_empty() && self.instance.is_none() {
            let request = self.join_request();
            let answer = self.kafka.call(&request, 9);
            assert_eq!(answer.error_code, 79, "MEMBER_ID_REQUIRED");
            self.id = answer.member_id;
        }
        let request = self.join_request();
        self.kafka.send(&request, 9)
    }

    fn end_join(&mut self, correlation: i32) -> JoinGroupResponse {
        let answer = self.kafka.receive::<JoinGroupRequest>(correlation, 9);
        if answer.error_code == 0 {
            self.id = answer.member_id.clone();
            self.generation = answer.generation_id;
        }
        answer
    }

    fn join(&mut self) -> JoinGroupResponse {
        let correlation = self.start_join();
        self.end_join(correlation)
    }

    fn sync_request(&self, assignments: &[(&StrBytes, &'static [u8])]) -> SyncGroupRequest {
        let assignment = |(member, bytes): &(&StrBytes, &'static [u8])| {
            SyncGroupRequestAssignment::default()
                .with_member_id((*member).clone())
                .with_assignment(Bytes::from_static(bytes))
        };
        SyncGroupRequest::default()
            .with_group_id(self.group.clone())
            .with_generation_id(self.generation)
            .with_member_id(self.id.clone())
            .with_group_instance_id(self.instance.clone())
            .with_protocol_type(Some(text("consumer")))
            .with_protocol_name(Some(text("range")))
            .with_assignments(assignments.iter().map(assignment).collect())
    }

    fn sync(&mut self, assignments: &[(&StrBytes, &'static [u8])]) -> (i16, Bytes) {
        let request = self.sync_request(assignments);
        let answer = self.kafka.call(&request, 5);
        (answer.error_code, answer.assignment)
    }

    fn heartbeat(&mut self) -> i16 {
        let request = HeartbeatRequest::default()
            .with_group_id(self.group.clone())
            .with_generation_id(self.generation)
            .with_member_id(self.id.clone())
            .with_group_instance_id(self.instance.clone());
        self.kafka.call(&request, 4).error_code
    }

    /// Heartbeats until the group rebalances.
    fn until_rebalance(&mut self) {
        let started = std::time::Instant::now();
        loop {
            match self.heartbeat() {
                0 => std::thread::sleep(std::time::Duration::from_millis(20)),
                27 => return,
                other => panic!("heartbeat: {other}"),
            }
            assert!(started.elapsed().as_secs() < 30, "no rebalance");
        }
    }

    fn leave(&mut self) -> i16 {
        let member = MemberIdentity::default()
            .with_member_id(self.id.clone())
            .with_group_instance_id(self.instance.clone());
        let request = LeaveGroupRequest::default()
            .with_group_id(self.group.clone())
            .with_members(vec![member]);
        let answer = self.kafka.call(&request, 5);
        assert_eq!(answer.error_code, 0);
        answer.members[0].error_code
    }

    fn commit(&mut self, topic: &str, offset: i64, metadata: Option<&str>) -> i16 {
        let partition = OffsetCommitRequestPartition::default()
            .with_partition_index(0)
            .with_committed_offset(offset)
            .with_committed_leader_epoch(0)
            .with_committed_metadata(metadata.map(text));
        let topic = OffsetCommitRequestTopic::default()
            .with_name(topic_name(topic))
            .with_partitions(vec![partition]);
        let request = OffsetCommitRequest::default()
            .with_group_id(self.group.clone())
            .with_generation_id_or_member_epoch(self.generation)
            .with_member_id(self.id.clone())
            .with_group_instance_id(self.instance.clone())
            .with_topics(vec![topic]);
        self.kafka.call(&request, 8).topics[0].partitions[0].error_code
    }

    /// Offset and metadata; −1 when there is none.
    fn committed(&mut self, topic: &str, stable: bool) -> (i64, Option<String>) {
        let topic = OffsetFetchRequestTopics::default()
            .with_name(topic_name(topic))
            .with_partition_indexes(vec![0]);
        let group = OffsetFetchRequestGroup::default()
            .with_group_id(self.group.clone())
            .with_topics(Some(vec![topic]));
        let request =
            OffsetFetchRequest::default().with_groups(vec![group]).with_require_stable(stable);
        let answer = self.kafka.call(&request, 8);
        let partition = &answer.groups[0].topics[0].partitions[0];
        assert_eq!(partition.error_code, 0);
        (partition.committed_offset, partition.metadata.as_ref().map(|m| m.to_string()))
    }
}

/// A group of one that is stable.
fn stable(group: &str) -> Member {
    let mut member = Member::new(group);
    let joined = member.join();
    assert_eq!((joined.error_code, &joined.leader), (0, &joined.member_id));
    let id = member.id.clone();
    assert_eq!(member.sync(&[(&id, b"all")]), (0, Bytes::from_static(b"all")));
    assert_eq!(member.heartbeat(), 0);
    member
}

#[test]
fn k14_join_and_leave_rebalance() {
    let group = unique("k14");
    let mut first = stable(&group);
    let generation = first.generation;
    let mut second = Member::new(&group);
    let joining = second.start_join();
    first.until_rebalance();
    let led = first.join();
    let followed = second.end_join(joining);
    assert_eq!((led.error_code, followed.error_code), (0, 0));
    assert_eq!(first.generation, second.generation);
    assert!(first.generation > generation);
    // Only the leader is told the members, with their metadata.
    assert_eq!((led.members.len(), followed.members.len()), (2, 0));
    assert!(led.members.iter().all(|m| m.metadata[..] == *b"what I want"));
    // The follower's answer waits for the leader's assignment.
    let request = second.sync_request(&[]);
    let waiting = second.kafka.send(&request, 5);
    let (one, two) = (first.id.clone(), second.id.clone());
    assert_eq!(first.sync(&[(&one, b"one"), (&two, b"two")]), (0, Bytes::from_static(b"one")));
    let answer = second.kafka.receive::<SyncGroupRequest>(waiting, 5);
    assert_eq!((answer.error_code, &answer.assignment[..]), (0, &b"two"[..]));
    assert_eq!(second.leave(), 0);
    first.until_rebalance();
    assert_eq!(first.join().members.len(), 1);
}

#[test]
fn k14_session_timeout_rebalances() {
    let group = unique("k14");
    let mut first = stable(&group);
    let mut silent = Member::new(&group);
    silent.session_ms = 6_000;
    let joining = silent.start_join();
    first.until_rebalance();
    first.join();
    silent.end_join(joining);
    let (one, two) = (first.id.clone(), silent.id.clone());
    assert_eq!(first.sync(&[(&one, b"one"), (&two, b"two")]).0, 0);
    // It never syncs, never beats; its connection stays open.
    first.until_rebalance();
    assert_eq!(first.join().members.len(), 1);
    assert_eq!(silent.heartbeat(), 25, "UNKNOWN_MEMBER_ID");
}

#[test]
fn k14_generation_and_member_are_checked() {
    let (group, topic) = (unique("k14"), new_topic(&mut Kafka::connect(), 1));
    let mut member = stable(&group);
    assert_eq!(member.commit(&topic, 5, None), 0);
    member.generation += 1;
    assert_eq!(member.commit(&topic, 6, None), 22, "ILLEGAL_GENERATION");
    assert_eq!(member.heartbeat(), 22);
    member.generation -= 1;
    let id = std::mem::replace(&mut member.id, text("somebody else"));
    assert_eq!(member.commit(&topic, 6, None), 25, "UNKNOWN_MEMBER_ID");
    assert_eq!(member.heartbeat(), 25);
    member.id = id;
    assert_eq!(member.committed(&topic, false).0, 5);
    // From outside of a group that has members nobody commits.
    let mut outsider = Member::new(&group);
    assert_ne!(outsider.commit(&topic, 7, None), 0);
}

#[test]
fn k14_static_members_keep_their_assignment() {
    let group = unique("k14");
    let mut member = Member::new(&group);
    member.instance = Some(text("machine-1"));
    assert_eq!(member.join().error_code, 0);
    let id = member.id.clone();
    assert_eq!(member.sync(&[(&id, b"mine")]).0, 0);
    let generation = member.generation;
    // A new process with the same instance id and no member id.
    let mut again = Member::new(&group);
    again.instance = Some(text("machine-1"));
    let joined = again.join();
    assert_eq!((joined.error_code, joined.generation_id), (0, generation), "no rebalance");
    assert_ne!(again.id, id);
    assert_eq!(again.sync(&[]), (0, Bytes::from_static(b"mine")));
    assert_eq!(member.heartbeat(), 82, "FENCED_INSTANCE_ID");
    assert_eq!(again.heartbeat(), 0);
}

#[test]
fn k14_protocols_must_have_one_in_common() {
    let group = unique("k14");
    let _first = stable(&group);
    let mut other = Member::new(&group);
    let mut request = other.join_request();
    request.protocols[0].name = text("something else");
    let mut answer = other.kafka.call(&request, 9);
    if answer.error_code == 79 {
        request.member_id = answer.member_id;
        answer = other.kafka.call(&request, 9);
    }
    assert_eq!(answer.error_code, 23, "INCONSISTENT_GROUP_PROTOCOL");
}

#[test]
fn k14_session_timeouts_have_bounds() {
    let mut member = Member::new(&unique("k14"));
    for session_ms in [1, i32::MAX] {
        member.session_ms = session_ms;
        let request = member.join_request();
        assert_eq!(member.kafka.call(&request, 9).error_code, 26, "INVALID_SESSION_TIMEOUT");
    }
}

#[test]
fn k14_group_size_limit() {
    if is_reference() {
        return;
    }
    let limit = ("INTERFLOW_KAFKA__GROUP_MAX_SIZE", "1");
    let broker = Broker::start(&[limit], &[]);
    let at = |kafka: &Kafka| kafka.stream.peer_addr().unwrap();
    let mut first = Member { kafka: Kafka::connect_to(&broker), ..Member::new("k14") };
    assert_eq!(at(&first.kafka), broker.address("kafka"));
    assert_eq!(first.join().error_code, 0);
    let mut second = Member { kafka: Kafka::connect_to(&broker), ..Member::new("k14") };
    let request = second.join_request();
    let mut answer = second.kafka.call(&request, 9);
    if answer.error_code == 79 {
        second.id = answer.member_id;
        let request = second.join_request();
        answer = second.kafka.call(&request, 9);
    }
    assert_eq!(answer.error_code, 81, "GROUP_MAX_SIZE_REACHED");
}

#[test]
fn k14_initial_rebalance_delay_gathers_members() {
    if is_reference() {
        return;
    }
    let delay = ("INTERFLOW_KAFKA__GROUP_INITIAL_REBALANCE_DELAY_MS", "2000");
    let broker = Broker::start(&[delay], &[]);
    let mut members: Vec<_> = (0..3)
        .map(|_| Member { kafka: Kafka::connect_to(&broker), ..Member::new("k14") })
        .collect();
    let joining: Vec<_> = members.iter_mut().map(Member::start_join).collect();
    let answers: Vec<_> =
        members.iter_mut().zip(joining).map(|(member, join)| member.end_join(join)).collect();
    assert!(answers.iter().all(|a| a.error_code == 0 && a.generation_id == 1), "{answers:?}");
    assert_eq!(answers.iter().map(|a| a.members.len()).max(), Some(3));
}

#[test]
fn k14_members_that_leave_together_have_an_outcome_each() {
    let group = unique("k14");
    let mut fixed = Member::new(&group);
    fixed.instance = Some(text("machine-1"));
    assert_eq!(fixed.join().error_code, 0);
    let id = fixed.id.clone();
    assert_eq!(fixed.sync(&[(&id, b"all")]).0, 0);
    // It is told an id and hasn't come back with it.
    let mut pending = Member::new(&group);
    let request = pending.join_request();
    pending.id = pending.kafka.call(&request, 9).member_id;
    let who = |id: &str, instance: Option<&str>| {
        MemberIdentity::default()
            .with_member_id(text(id))
            .with_group_instance_id(instance.map(text))
    };
    let leave =
        LeaveGroupRequest::default().with_group_id(GroupId(text(&group))).with_members(vec![
            who("nobody", None),
            who("", Some("machine-2")),
            who("somebody else", Some("machine-1")),
            who(&pending.id, None),
            // As an administrator names it.
            who("", Some("machine-1")),
            who(&id, Some("machine-1")),
        ]);
    let answer = pending.kafka.call(&leave, 5);
    assert_eq!(answer.error_code, 0);
    let codes: Vec<_> = answer.members.iter().map(|member| member.error_code).collect();
    assert_eq!(codes, [25, 25, 82, 0, 0, 25], "UNKNOWN_MEMBER_ID, FENCED_INSTANCE_ID");
    assert_eq!(&answer.members[3].member_id, &pending.id);
    assert_eq!(fixed.heartbeat(), 25);
    let delete = DeleteGroupsRequest::default().with_groups_names(vec![GroupId(text(&group))]);
    assert_eq!(fixed.kafka.call(&delete, 2).results[0].error_code, 0, "nobody is left");
}

#[test]
fn k14_empty_groups_can_be_deleted() {
    let group = unique("k14");
    let mut member = stable(&group);
    let delete = DeleteGroupsRequest::default().with_groups_names(vec![GroupId(text(&group))]);
    assert_eq!(member.kafka.call(&delete, 2).results[0].error_code, 68, "NON_EMPTY_GROUP");
    member.leave();
    assert_eq!(member.kafka.call(&delete, 2).results[0].error_code, 0);
    assert_eq!(member.kafka.call(&delete, 2).results[0].error_code, 69, "GROUP_ID_NOT_FOUND");
}

#[test]
fn k16_offsets_with_metadata() {
    let (group, topic) = (unique("k16"), new_topic(&mut Kafka::connect(), 1));
    // Without members, as tools and simple consumers commit.
    let mut tool = Member::new(&group);
    assert_eq!(tool.committed(&topic, true), (-1, Some(String::new())));
    assert_eq!(tool.commit(&topic, 42, Some("my note")), 0);
    assert_eq!(tool.committed(&topic, false), (42, Some("my note".to_owned())));
    assert_eq!(tool.committed(&topic, true).0, 42, "without transactions all are stable");
    assert_eq!(tool.commit(&topic, 41, None), 0, "back is allowed");
    assert_eq!(tool.committed(&topic, false).0, 41);
    let unknown = unique("k16");
    assert_eq!(tool.commit(&unknown, 1, None), 3);
    let long = "x".repeat(5000);
    assert_eq!(tool.commit(&topic, 43, Some(&long)), 12, "OFFSET_METADATA_TOO_LARGE");
}

#[test]
fn k16_offsets_of_several_groups_come_back_with_their_leader_epochs() {
    let (one, two, none) = (unique("k16"), unique("k16"), unique("k16"));
    let mut kafka = Kafka::connect();
    let topics = [new_topic(&mut kafka, 3), new_topic(&mut kafka, 1)];
    let commit = |group: &str, topic: &str, rows: &[(i32, i64, i32)]| {
        let partitions = rows.iter().map(|(index, offset, epoch)| {
            OffsetCommitRequestPartition::default()
                .with_partition_index(*index)
                .with_committed_offset(*offset)
                .with_committed_leader_epoch(*epoch)
        });
        let topic = OffsetCommitRequestTopic::default()
            .with_name(topic_name(topic))
            .with_partitions(partitions.collect());
        OffsetCommitRequest::default()
            .with_group_id(GroupId(text(group)))
            .with_generation_id_or_member_epoch(-1)
            .with_topics(vec![topic])
    };
    // A partition that isn't there takes none of the others with it.
    let answer = kafka.call(&commit(&one, &topics[0], &[(0, 5, 0), (9, 1, 0), (2, 7, -1)]), 8);
    let codes: Vec<_> = answer.topics[0].partitions.iter().map(|p| p.error_code).collect();
    assert_eq!(codes, [0, 3, 0]);
    kafka.call(&commit(&two, &topics[1], &[(0, 9, 0)]), 8);
    let all = |group: &str| {
        OffsetFetchRequestGroup::default().with_group_id(GroupId(text(group))).with_topics(None)
    };
    let some = OffsetFetchRequestTopics::default()
        .with_name(topic_name(&topics[0]))
        .with_partition_indexes(vec![1, 2]);
    let request = OffsetFetchRequest::default().with_require_stable(true).with_groups(vec![
        all(&one),
        all(&none),
        all(&two).with_topics(Some(vec![some])),
        all(""),
        all(&two),
    ]);
    let answer = kafka.call(&request, 8);
    let groups: Vec<_> = answer.groups.iter().map(|group| group.group_id.to_string()).collect();
    assert_eq!(groups, [&*one, &*none, &*two, "", &*two]);
    let found = |at: usize| -> Vec<(i32, i64, i32)> {
        let partitions = answer.groups[at].topics.iter().flat_map(|topic| &topic.partitions);
        let found =
            partitions.map(|p| (p.partition_index, p.committed_offset, p.committed_leader_epoch));
        found.collect()
    };
    assert_eq!(found(0), [(0, 5, 0), (2, 7, -1)]);
    assert_eq!(found(1), []);
    assert_eq!(found(2), [(1, -1, -1), (2, -1, -1)], "of another group's topic");
    if !is_reference() {
        assert_eq!(answer.groups[3].error_code, 24, "INVALID_GROUP_ID");
    }
    assert_eq!(found(4), [(0, 9, 0)]);
}

#[test]
fn k16_offsets_and_groups_outlive_the_broker() {
    if is_reference() {
        return;
    }
    for signal in ["TERM", "KILL"] {
        let broker = Broker::start(&[], &[]);
        let at =
            |broker: &Broker| Member { kafka: Kafka::connect_to(broker), ..Member::new("k16") };
        let mut tool = at(&broker);
        let topic = new_topic(&mut tool.kafka, 1);
        assert_eq!(tool.commit(&topic, 7, Some("kept")), 0);
        broker.signal(signal);
        let broker = broker.restart(&[]);
        assert_eq!(at(&broker).committed(&topic, false), (7, Some("kept".to_owned())));
    }
}
