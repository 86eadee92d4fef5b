//! Who is named to clients.

use super::*;

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
