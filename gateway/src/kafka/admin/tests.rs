//! What clients and tools ask about the cluster and its topics.

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::create_topics_request::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig,
};
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig,
};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::*;
use uuid::Uuid;

use super::super::KafkaConfig;
use super::super::testing::{Bench, Client, config, text};

fn named(names: &[&str]) -> MetadataRequest {
    let topic =
        |name: &&str| MetadataRequestTopic::default().with_name(Some(TopicName(text(name))));
    MetadataRequest::default()
        .with_topics(Some(names.iter().map(topic).collect()))
        .with_allow_auto_topic_creation(true)
}

fn creatable(name: &str, partitions: i32, configs: &[(&str, &str)]) -> CreatableTopic {
    let config = |(name, value): &(&str, &str)| {
        CreatableTopicConfig::default().with_name(text(name)).with_value(Some(text(value)))
    };
    CreatableTopic::default()
        .with_name(TopicName(text(name)))
        .with_num_partitions(partitions)
        .with_replication_factor(-1)
        .with_configs(configs.iter().map(config).collect())
}

async fn create(client: &mut Client, topic: CreatableTopic) -> (i16, Option<String>) {
    let request = CreateTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(1_000);
    let answer = client.ask(7, &request).await;
    let result = &answer.topics[0];
    (result.error_code, result.error_message.as_ref().map(ToString::to_string))
}

#[tokio::test]
async fn metadata_by_name_by_id_all_and_none_in_every_version() {
    let bench = Bench::new().await;
    let mut client = bench.connect();
    assert_eq!(create(&mut client, creatable("a", 3, &[])).await.0, 0);
    assert_eq!(create(&mut client, creatable("b", 1, &[])).await.0, 0);
    let id = bench.topics.get("a").expect("created").id;
    for version in 0..=13 {
        let answer = client.ask(version, &named(&["a"])).await;
        assert_eq!(answer.brokers.len(), 1);
        let topic = &answer.topics[0];
        assert_eq!((topic.error_code, topic.partitions.len()), (0, 3));
        assert_eq!(topic.partitions[2].partition_index, 2);
        assert_eq!(topic.partitions[2].leader_id, BrokerId(1));
        if version >= 10 {
            assert_eq!(topic.topic_id, id);
        }
        let none = client.ask(version, &MetadataRequest::default().with_topics(Some(vec![]))).await;
        assert_eq!(none.topics.len(), if version == 0 { 2 } else { 0 });
        if version > 0 {
            let all = client.ask(version, &MetadataRequest::default().with_topics(None)).await;
            let names: Vec<_> = all.topics.iter().filter_map(|topic| topic.name.clone()).collect();
            assert_eq!(names, [TopicName(text("a")), TopicName(text("b"))]);
        }
    }
    for version in 12..=13 {
        let by_id = |id| {
            MetadataRequest::default()
                .with_topics(Some(vec![MetadataRequestTopic::default().with_topic_id(id)]))
        };
        let found = client.ask(version, &by_id(id)).await;
        assert_eq!(found.topics[0].name, Some(TopicName(text("a"))));
        let missing = client.ask(version, &by_id(Uuid::from_u128(9))).await;
        assert_eq!(missing.topics[0].error_code, ResponseError::UnknownTopicId.code());
    }
    // A name that comes twice is answered once.
    assert_eq!(client.ask(9, &named(&["a", "a"])).await.topics.len(), 1);
}

#[tokio::test]
async fn k12_topics_are_made_on_demand_if_both_sides_want_it() {
    let bench = Bench::with(KafkaConfig { num_partitions: 4, ..config() }, false).await;
    let mut client = bench.connect();
    let unwilling = named(&["t"]).with_allow_auto_topic_creation(false);
    let answer = client.ask(9, &unwilling).await;
    assert_eq!(answer.topics[0].error_code, ResponseError::UnknownTopicOrPartition.code());
    let answer = client.ask(9, &named(&["t"])).await;
    assert_eq!((answer.topics[0].error_code, answer.topics[0].partitions.len()), (0, 4));
    assert!(bench.topics.get("t").is_some());

    let off = KafkaConfig { auto_create_topics_enable: false, ..config() };
    let bench = Bench::with(off, false).await;
    let answer = bench.connect().ask(9, &named(&["t"])).await;
    assert_eq!(answer.topics[0].error_code, ResponseError::UnknownTopicOrPartition.code());
}

#[tokio::test]
async fn k13_bad_names_are_no_topics() {
    let bench = Bench::new().await;
    let mut client = bench.connect();
    let bad = ResponseError::InvalidTopicException.code();
    for name in ["", ".", "..", "a/b", "ä", &"x".repeat(250)] {
        assert_eq!(client.ask(9, &named(&[name])).await.topics[0].error_code, bad, "{name}");
        assert_eq!(create(&mut client, creatable(name, 1, &[])).await.0, bad, "{name}");
    }
    assert_eq!(create(&mut client, creatable("a.b", 1, &[])).await.0, 0);
    assert_eq!(create(&mut client, creatable("a_b", 1, &[])).await.0, bad);
    assert_eq!(client.ask(9, &named(&["a_b"])).await.topics[0].error_code, bad);
}

#[tokio::test]
async fn k24_each_listener_advertises_its_own_address() {
    let bench = Bench::new().await;
    for (listener, host, port) in
        [("inside", "inside.example", 1), ("outside", "outside.example", 2)]
    {
        let mut client = bench.connect_to(listener);
        let broker = client.ask(9, &named(&[])).await.brokers.remove(0);
        assert_eq!((&*broker.host, broker.port), (host, port));
        for version in 0..=6 {
            let request = FindCoordinatorRequest::default();
            let request = if version >= 4 {
                request.with_coordinator_keys(vec![text("g"), text("h")])
            } else {
                request.with_key(text("g"))
            };
            let answer = client.ask(version, &request).await;
            if version >= 4 {
                assert_eq!(answer.coordinators.len(), 2);
                assert_eq!(&*answer.coordinators[1].host, host);
                assert_eq!(answer.coordinators[1].node_id, BrokerId(1));
            } else {
                assert_eq!((&*answer.host, answer.port), (host, port));
            }
        }
        for version in 0..=2 {
            let request = DescribeClusterRequest::default().with_endpoint_type(1);
            let answer = client.ask(version, &request).await;
            assert_eq!((answer.error_code, &*answer.brokers[0].host), (0, host));
            assert!(!answer.cluster_id.is_empty());
        }
    }
}

#[tokio::test]
async fn topics_are_created_and_deleted_in_every_version() {
    let bench = Bench::new().await;
    let mut client = bench.connect();
    for version in 2..=7 {
        let name = format!("t{version}");
        let request = CreateTopicsRequest::default().with_topics(vec![creatable(
            &name,
            2,
            &[("retention.ms", "5")],
        )]);
        let answer = client.ask(version, &request).await;
        assert_eq!(answer.topics[0].error_code, 0);
        if version >= 5 {
            assert_eq!(answer.topics[0].num_partitions, 2);
            let configs = answer.topics[0].configs.as_ref().expect("configs");
            let retention = configs.iter().find(|config| &*config.name == "retention.ms");
            let retention = retention.expect("retention.ms");
            assert_eq!(retention.value.as_deref(), Some("5"));
            assert_eq!(retention.config_source, 1);
        }
        let again = client.ask(version, &request).await;
        assert_eq!(again.topics[0].error_code, ResponseError::TopicAlreadyExists.code());
    }
    for version in 1..=5 {
        let request = DeleteTopicsRequest::default()
            .with_topic_names(vec![TopicName(text(&format!("t{}", version + 1)))]);
        assert_eq!(client.ask(version, &request).await.responses[0].error_code, 0);
        let again = client.ask(version, &request).await.responses.remove(0);
        assert_eq!(again.error_code, ResponseError::UnknownTopicOrPartition.code());
    }
    let id = bench.topics.get("t7").expect("there").id;
    let by_id = DeleteTopicsRequest::default()
        .with_topics(vec![DeleteTopicState::default().with_name(None).with_topic_id(id)]);
    let answer = client.ask(6, &by_id).await.responses.remove(0);
    assert_eq!((answer.error_code, answer.name), (0, Some(TopicName(text("t7")))));
    let again = client.ask(6, &by_id).await.responses.remove(0);
    assert_eq!(again.error_code, ResponseError::UnknownTopicId.code());
    assert!(bench.topics.all().is_empty());
}

#[tokio::test]
async fn k14a_what_is_not_served_is_refused_with_a_reason() {
    let bench = Bench::new().await;
    let mut client = bench.connect();
    let config = ResponseError::InvalidConfig.code();
    for (name, value) in
        [("cleanup.policy", "compact"), ("flush.ms", "1"), ("retention.ms", "soon")]
    {
        let (code, message) = create(&mut client, creatable("t", 1, &[(name, value)])).await;
        assert_eq!(code, config);
        assert!(message.expect("a reason").contains(name));
    }
    let (code, message) =
        create(&mut client, creatable("t", 1, &[]).with_replication_factor(3)).await;
    assert_eq!(code, ResponseError::InvalidReplicationFactor.code());
    assert!(message.is_some());
    for partitions in [0, -2, i32::MAX] {
        let (code, _) = create(&mut client, creatable("t", partitions, &[])).await;
        assert_eq!(code, ResponseError::InvalidPartitions.code());
    }
    let assigned =
        creatable("t", -1, &[]).with_assignments(vec![CreatableReplicaAssignment::default()]);
    let (code, _) = create(&mut client, assigned).await;
    assert_eq!(code, ResponseError::InvalidReplicaAssignment.code());
    let twice = CreateTopicsRequest::default()
        .with_topics(vec![creatable("t", 1, &[]), creatable("t", 2, &[])]);
    let results = client.ask(7, &twice).await.topics;
    assert_eq!(results.len(), 1, "answered once, as Kafka does");
    assert_eq!(results[0].error_code, ResponseError::InvalidRequest.code());
    let transactional = InitProducerIdRequest::default()
        .with_transactional_id(Some(TransactionalId(text("x"))))
        .with_transaction_timeout_ms(1_000);
    assert_ne!(client.ask(4, &transactional).await.error_code, 0);
    assert!(bench.topics.all().is_empty());
}

#[tokio::test]
async fn k21_validate_only_changes_nothing() {
    let bench = Bench::new().await;
    let mut client = bench.connect();
    let request = CreateTopicsRequest::default()
        .with_topics(vec![creatable("t", 1, &[])])
        .with_validate_only(true);
    assert_eq!(client.ask(7, &request).await.topics[0].error_code, 0);
    assert!(bench.topics.all().is_empty());
    create(&mut client, creatable("t", 1, &[])).await;
    let answer = alter(&mut client, "t", &[("segment.ms", 0, Some("5"))], true).await;
    assert_eq!(answer, 0);
    assert_eq!(bench.topics.get("t").expect("there").config.segment_ms, 604_800_000);
    // What the change itself would be refused for.
    for change in [("segment.ms", 0, Some("x")), ("min.insync.replicas", 0, Some("2"))] {
        for validate_only in [true, false] {
            let answer = alter(&mut client, "t", &[change], validate_only).await;
            assert_eq!(answer, ResponseError::InvalidConfig.code(), "{change:?}");
        }
    }
    let change = ("min.insync.replicas", 0, Some("1"));
    assert_eq!(alter(&mut client, "t", &[change], true).await, 0);
    let unknown = ResponseError::UnknownTopicOrPartition.code();
    assert_eq!(alter(&mut client, "none", &[change], true).await, unknown);
}

async fn alter(
    client: &mut Client,
    topic: &str,
    changes: &[(&str, i8, Option<&str>)],
    validate_only: bool,
) -> i16 {
    let change = |(name, operation, value): &(&str, i8, Option<&str>)| {
        AlterableConfig::default()
            .with_name(text(name))
            .with_config_operation(*operation)
            .with_value(value.map(text))
    };
    let request = IncrementalAlterConfigsRequest::default()
        .with_resources(vec![
            AlterConfigsResource::default()
                .with_resource_type(2)
                .with_resource_name(text(topic))
                .with_configs(changes.iter().map(change).collect()),
        ])
        .with_validate_only(validate_only);
    client.ask(1, &request).await.responses[0].error_code
}

#[tokio::test]
async fn k21_configs_are_altered_and_described_with_their_sources() {
    let bench = Bench::new().await;
    let mut client = bench.connect();
    create(&mut client, creatable("t", 1, &[])).await;
    assert_eq!(alter(&mut client, "t", &[("retention.ms", 0, Some("7"))], false).await, 0);
    for version in 1..=4 {
        let request = DescribeConfigsRequest::default()
            .with_resources(vec![
                DescribeConfigsResource::default()
                    .with_resource_type(2)
                    .with_resource_name(text("t"))
                    .with_configuration_keys(None),
            ])
            .with_include_synonyms(true);
        let answer = client.ask(version, &request).await;
        let configs = &answer.results[0].configs;
        let of = |name: &str| {
            configs.iter().find(|config| &*config.name == name).expect("listed").clone()
        };
        let retention = of("retention.ms");
        assert_eq!((retention.value.as_deref(), retention.config_source), (Some("7"), 1));
        let synonyms: Vec<_> = retention
            .synonyms
            .iter()
            .map(|s| (s.name.to_string(), s.value.as_ref().map(ToString::to_string), s.source))
            .collect();
        assert_eq!(
            synonyms,
            [
                ("retention.ms".to_owned(), Some("7".to_owned()), 1),
                ("log.retention.ms".to_owned(), Some("604800000".to_owned()), 5),
            ]
        );
        assert_eq!(of("cleanup.policy").config_source, 5);
        if version >= 3 {
            assert_eq!((retention.config_type, of("cleanup.policy").config_type), (5, 7));
        }
    }
    assert_eq!(alter(&mut client, "t", &[("retention.ms", 1, None)], false).await, 0);
    assert_eq!(bench.topics.get("t").expect("there").config.retention_ms, Some(604_800_000));
    for (changes, error) in [
        (&[("nothing", 0, Some("1"))][..], ResponseError::InvalidConfig),
        (&[("cleanup.policy", 2, Some("compact"))], ResponseError::InvalidConfig),
        (&[("cleanup.policy", 3, Some("delete"))], ResponseError::InvalidConfig),
        (&[("retention.ms", 2, Some("1"))], ResponseError::InvalidConfig),
        (&[("retention.ms", 0, None)], ResponseError::InvalidRequest),
        (&[("retention.ms", 9, Some("1"))], ResponseError::InvalidRequest),
        (
            &[("retention.ms", 0, Some("1")), ("retention.ms", 0, Some("2"))],
            ResponseError::InvalidRequest,
        ),
    ] {
        assert_eq!(alter(&mut client, "t", changes, false).await, error.code(), "{changes:?}");
    }
    // What is in a list already, or isn't, changes nothing.
    for change in [("cleanup.policy", 2, Some("delete")), ("cleanup.policy", 3, Some("compact"))] {
        assert_eq!(alter(&mut client, "t", &[change], false).await, 0, "{change:?}");
        let config = bench.topics.get("t").expect("there").config.clone();
        assert_eq!(config.overrides().get("cleanup.policy").map(String::as_str), Some("delete"));
    }
    let missing = alter(&mut client, "missing", &[("retention.ms", 0, Some("1"))], false).await;
    assert_eq!(missing, ResponseError::UnknownTopicOrPartition.code());
}

#[tokio::test]
async fn k21_the_brokers_settings_are_described() {
    let bench = Bench::with(KafkaConfig { num_partitions: 4, ..config() }, false).await;
    let mut client = bench.connect();
    let of = |name: &str| {
        DescribeConfigsRequest::default().with_resources(vec![
            DescribeConfigsResource::default()
                .with_resource_type(4)
                .with_resource_name(text(name))
                .with_configuration_keys(Some(vec![text("num.partitions")])),
        ])
    };
    let answer = client.ask(4, &of("1")).await;
    let option = &answer.results[0].configs[0];
    assert_eq!((option.value.as_deref(), option.config_source), (Some("4"), 4));
    assert!(option.read_only);
    let answer = client.ask(4, &of("2")).await;
    assert_eq!(answer.results[0].error_code, ResponseError::InvalidRequest.code());
    // No names ask for all, as for Kafka.
    let mut all = of("1");
    all.resources[0].configuration_keys = Some(Vec::new());
    assert!(client.ask(4, &all).await.results[0].configs.len() > 10);
}
