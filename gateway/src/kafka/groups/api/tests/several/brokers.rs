//! Who is named to clients.

use std::collections::BTreeSet;

use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::protocol::Request;

use super::*;
use crate::records::BatchBuilder;

async fn ask<Q: Request>(two: &Two, at: usize, version: i16, request: &Q) -> Q::Response {
    two.client(at).ask(version, request).await
}

#[tokio::test]
async fn k17_every_gateway_names_the_same_coordinator_by_each_listener() {
    let two = Two::new().await;
    let mut counts = [0; 2];
    for n in 0..40 {
        let key = format!("group {n}");
        let number = coordinator(&mut two.client(0), &key).await;
        counts[number - 1] += 1;
        for (at, listener) in [(0, "inside"), (1, "inside"), (0, "outside"), (1, "outside")] {
            let mut client = two.benches[at].connect_to(listener);
            let host = format!("{number}.{listener}");
            for version in 0..=3 {
                let asked = FindCoordinatorRequest::default().with_key(text(&key));
                let found = client.ask(version, &asked).await;
                assert_eq!((found.error_code, &*found.host, found.port), (0, &*host, 9_000));
                assert_eq!(found.node_id.0, i32::try_from(number).unwrap());
            }
            for version in 4..=6 {
                let asked = FindCoordinatorRequest::default()
                    .with_coordinator_keys(vec![text("another"), text(&key)]);
                let found = client.ask(version, &asked).await.coordinators.remove(1);
                assert_eq!((found.error_code, &*found.host, found.port), (0, &*host, 9_000));
            }
        }
    }
    assert!(counts.iter().all(|count| *count > 8), "{counts:?}");
}

#[tokio::test]
async fn k17_a_coordinator_that_a_listener_does_not_reach_is_not_named() {
    let two = Two::new().await;
    let mut other = gateway(u32::try_from(two.first + 1).unwrap());
    other.kafka.retain(|(name, _)| &**name == "inside");
    let me = gateway(u32::try_from(two.second + 1).unwrap());
    two.views[two.second].set_live([me, other]);
    let asked = FindCoordinatorRequest::default().with_key(text("g"));
    let mut inside = two.benches[two.second].connect_to("inside");
    assert_eq!(inside.ask(2, &asked).await.error_code, 0);
    let mut outside = two.benches[two.second].connect_to("outside");
    let answer = outside.ask(2, &asked).await;
    assert_eq!(answer.error_code, ResponseError::CoordinatorNotAvailable.code());
    // Nor is it a broker there.
    let brokers = outside.ask(9, &MetadataRequest::default()).await.brokers;
    assert_eq!(brokers.len(), 1);
    assert_eq!(&*brokers[0].host, format!("{}.outside", two.second + 1));
    assert_eq!(inside.ask(9, &MetadataRequest::default()).await.brokers.len(), 2);
}

#[tokio::test]
async fn k17_each_group_is_listed_by_its_coordinator_alone() {
    let two = Two::new().await;
    let names: BTreeSet<String> = (0..20).map(|n| format!("group {n}")).collect();
    for name in &names {
        let at = coordinator(&mut two.client(0), name).await - 1;
        let request = commit("", -1, &[("t", 0, 1)]).with_group_id(GroupId(text(name)));
        let answer = two.client(at).ask(7, &request).await;
        assert_eq!(answer.topics[0].partitions[0].error_code, 0);
        let answer = two.client(1 - at).ask(7, &request).await;
        assert_eq!(answer.topics[0].partitions[0].error_code, NOT_COORDINATOR.code());
    }
    let mut all = Vec::new();
    for at in 0..2 {
        let listed = states(&mut two.client(at)).await;
        assert!(!listed.is_empty());
        all.extend(listed.into_iter().map(|(name, _)| name));
    }
    assert_eq!(all.len(), names.len());
    assert_eq!(all.into_iter().collect::<BTreeSet<_>>(), names);
}

#[tokio::test]
async fn leaders_are_spread_over_live_gateways_and_each_serves_all() {
    let two = Two::new().await;
    let request = CreateTopicsRequest::default().with_topics(vec![
        create_topics_request::CreatableTopic::default()
            .with_name(TopicName(text("wide")))
            .with_num_partitions(40)
            .with_replication_factor(-1),
    ]);
    assert_eq!(ask(&two, 0, 7, &request).await.topics[0].error_code, 0);
    while two.benches[1].topics.get("wide").is_none() {
        tokio::task::yield_now().await;
    }
    let asked = MetadataRequest::default().with_topics(Some(vec![
        MetadataRequestTopic::default().with_name(Some(TopicName(text("wide")))),
    ]));
    let leaders = |answer: &MetadataResponse| -> Vec<i32> {
        let partitions = &answer.topics[0].partitions;
        assert!(partitions.iter().all(|p| p.replica_nodes == [p.leader_id]));
        assert!(partitions.iter().all(|p| p.isr_nodes == [p.leader_id]));
        partitions.iter().map(|p| p.leader_id.0).collect()
    };
    let answers = [ask(&two, 0, 9, &asked).await, ask(&two, 1, 9, &asked).await];
    for answer in &answers {
        let brokers: Vec<_> = answer.brokers.iter().map(|b| (b.node_id.0, &*b.host)).collect();
        assert_eq!(brokers, [(1, "1.inside"), (2, "2.inside")]);
        assert_eq!(answer.brokers[1].rack.as_deref(), Some("rack 2"));
        assert_eq!(answer.controller_id, BrokerId(1));
    }
    let spread = leaders(&answers[0]);
    assert_eq!(spread, leaders(&answers[1]));
    assert!([1, 2].iter().all(|id| spread.iter().filter(|leader| *leader == id).count() > 10));

    // Whoever is asked serves it.
    let at_leader = |at: usize, partition: i32| {
        spread[usize::try_from(partition).unwrap()] == i32::try_from(at + 1).unwrap()
    };
    let mut seen = BTreeSet::new();
    for (at, partition) in (0..4).flat_map(|partition| [(0, partition), (1, partition)]) {
        seen.insert(at_leader(at, partition));
        let base = produce(&mut two.client(at), partition).await;
        assert_eq!(base, i64::try_from(at).unwrap());
        assert!(fetch(&mut two.client(1 - at), partition, base).await > 0);
    }
    assert_eq!(seen.len(), 2);

    // One goes: the next Metadata shows it, and what the other led stays.
    two.see(1, &[1]).await;
    let answer = ask(&two, 1, 9, &asked).await;
    assert_eq!((answer.brokers.len(), answer.controller_id), (1, BrokerId(2)));
    assert!(leaders(&answer).iter().all(|leader| *leader == 2));
    let described = ask(&two, 1, 1, &DescribeClusterRequest::default().with_endpoint_type(1)).await;
    assert_eq!((described.brokers.len(), described.controller_id), (1, BrokerId(2)));
    // One that is taken for dead still tells its own clients of somebody.
    two.views[1].set_live([]);
    let answer = ask(&two, 1, 9, &asked).await;
    assert_eq!(answer.brokers.iter().map(|b| b.node_id.0).collect::<Vec<_>>(), [2]);
}

/// Produces a record; its offset.
async fn produce(client: &mut Client, partition: i32) -> i64 {
    let mut batch = BatchBuilder::new();
    batch.append(Some(b"k"), Some(b"v"), std::iter::empty(), 0).unwrap();
    let records = Some(batch.finish().unwrap().bytes);
    let data = PartitionProduceData::default().with_index(partition).with_records(records);
    let topic = TopicProduceData::default()
        .with_name(TopicName(text("wide")))
        .with_partition_data(vec![data]);
    let request =
        ProduceRequest::default().with_acks(-1).with_timeout_ms(1_000).with_topic_data(vec![topic]);
    let answer = client.ask(9, &request).await;
    let partition = &answer.responses[0].partition_responses[0];
    assert_eq!(partition.error_code, 0);
    partition.base_offset
}

/// Fetches from `offset` on; how many bytes come.
async fn fetch(client: &mut Client, partition: i32, offset: i64) -> usize {
    let wanted = FetchPartition::default()
        .with_partition(partition)
        .with_fetch_offset(offset)
        .with_partition_max_bytes(1 << 20);
    let topic =
        FetchTopic::default().with_topic(TopicName(text("wide"))).with_partitions(vec![wanted]);
    let request = FetchRequest::default()
        .with_max_bytes(1 << 20)
        .with_session_epoch(-1)
        .with_topics(vec![topic]);
    let answer = client.ask(11, &request).await;
    let partition = &answer.responses[0].partitions[0];
    assert_eq!(partition.error_code, 0);
    partition.records.as_ref().map_or(0, Bytes::len)
}
