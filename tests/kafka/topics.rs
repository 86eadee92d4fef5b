//! K12, K13, K14a: topics, their names and configs, and what isn't served.

use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig,
};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{
    ApiVersionsRequest, DeleteTopicsRequest, DescribeConfigsRequest,
    IncrementalAlterConfigsRequest, InitProducerIdRequest, MetadataRequest, ProducerId,
    TransactionalId,
};

use crate::batch::batch;
use crate::broker::{Broker, is_reference, unique};
use crate::client::*;

fn metadata(kafka: &mut Kafka, topic: &str, create: bool) -> (i16, usize) {
    let ask = MetadataRequestTopic::default().with_name(Some(topic_name(topic)));
    let request = MetadataRequest::default()
        .with_topics(Some(vec![ask]))
        .with_allow_auto_topic_creation(create);
    let answer = kafka.call(&request, 12);
    (answer.topics[0].error_code, answer.topics[0].partitions.len())
}

/// Asks again while the answer is one after which clients do so (LEADER_NOT_AVAILABLE).
fn metadata_created(kafka: &mut Kafka, topic: &str) -> (i16, usize) {
    loop {
        let answer = metadata(kafka, topic, true);
        if answer.0 != 5 {
            return answer;
        }
    }
}

#[test]
fn k12_auto_creation() {
    let mut kafka = Kafka::connect();
    let topic = unique("k12");
    assert_eq!(metadata(&mut kafka, &topic, false), (3, 0), "the client's flag");
    let (error, partitions) = metadata_created(&mut kafka, &topic);
    assert_eq!(error, 0);
    assert!(partitions > 0);
    kafka.append(&topic, 0, &batch("k", &["v"]));
    assert_eq!(metadata(&mut kafka, &topic, false), (0, partitions));
}

#[test]
fn k12_auto_creation_can_be_off() {
    if is_reference() {
        return;
    }
    let off = ("INTERFLOW_KAFKA__AUTO_CREATE_TOPICS_ENABLE", "false");
    let broker = Broker::start(&[off], &[]);
    let mut kafka = Kafka::connect_to(&broker);
    for _ in 0..2 {
        assert_eq!(metadata(&mut kafka, "k12", true), (3, 0));
    }
    assert_eq!(kafka.create("k12", 2, &[]), 0);
    assert_eq!(metadata(&mut kafka, "k12", true), (0, 2));
}

#[test]
fn k12_metadata_of_all_and_of_none() {
    let mut kafka = Kafka::connect();
    let topic = new_topic(&mut kafka, 1);
    let all = kafka.call(&MetadataRequest::default().with_topics(None), 12);
    assert!(all.topics.iter().any(|t| t.name == Some(topic_name(&topic))));
    let none = kafka.call(&MetadataRequest::default().with_topics(Some(vec![])), 12);
    assert!(none.topics.is_empty() && !none.brokers.is_empty());
}

#[test]
fn k13_topic_names() {
    let mut kafka = Kafka::connect();
    let good = ["a", "A.b_c-9", &"x".repeat(249)].map(|name| {
        if name.len() > 200 { name.to_owned() } else { format!("{name}-{}", unique("k13")) }
    });
    for name in &good {
        let code = kafka.create(name, 1, &[]);
        assert!(matches!(code, 0 | 36), "{name}: {code}");
    }
    for name in ["", ".", "..", "a/b", "a b", "ä", "a\n", &"x".repeat(250)] {
        assert_eq!(kafka.create(name, 1, &[]), 17, "{name:?}: INVALID_TOPIC_EXCEPTION");
        let (code, _) = metadata(&mut kafka, name, true);
        assert!(matches!(code, 17 | 3), "{name:?} by Metadata: {code}");
    }
    let name = unique("k13").replace('-', "_");
    assert_eq!(kafka.create(&name, 1, &[]), 0);
    assert_eq!(kafka.create(&name.replace('_', "."), 1, &[]), 17, "they collide");
    assert_eq!(kafka.create(&name, 1, &[]), 36, "TOPIC_ALREADY_EXISTS");
}

#[test]
fn k13_deleted_topics_are_gone() {
    let mut kafka = Kafka::connect();
    let topic = new_topic(&mut kafka, 1);
    kafka.append(&topic, 0, &batch("k", &["old"]));
    let delete = DeleteTopicsRequest::default()
        .with_topic_names(vec![topic_name(&topic)])
        .with_timeout_ms(30_000);
    assert_eq!(kafka.call(&delete, 5).responses[0].error_code, 0);
    assert_eq!(kafka.call(&delete, 5).responses[0].error_code, 3);
    assert_eq!(metadata(&mut kafka, &topic, false).0, 3);
    assert_eq!(kafka.produce(&topic, 0, &batch("k", &["x"])).error_code, 3);
    // One of the same name has nothing of it.
    assert_eq!(kafka.create(&topic, 1, &[]), 0);
    assert_eq!(kafka.fetch(&topic, 0, 0).high_watermark, 0);
}

#[test]
fn k14a_configs_that_are_not_served() {
    let mut kafka = Kafka::connect();
    let unknown = [("no.such.config", "1")];
    assert_eq!(kafka.create(&unique("k14a"), 1, &unknown), 40, "INVALID_CONFIG");
    assert_eq!(kafka.create(&unique("k14a"), 1, &[("retention.ms", "soon")]), 40);
    if !is_reference() {
        assert_eq!(kafka.create(&unique("k14a"), 1, &[("cleanup.policy", "compact")]), 40);
    }
    let request = create_request(&unique("k14a"), 1, 3, &[]);
    let answer = kafka.call(&request, 7).topics[0].clone();
    assert_eq!(answer.error_code, 38, "INVALID_REPLICATION_FACTOR");
    assert!(!answer.error_message.unwrap().is_empty());
}

#[test]
fn k14a_validate_only_does_nothing() {
    let mut kafka = Kafka::connect();
    let topic = unique("k14a");
    let request = create_request(&topic, 1, 1, &[]).with_validate_only(true);
    assert_eq!(kafka.call(&request, 7).topics[0].error_code, 0);
    assert_eq!(metadata(&mut kafka, &topic, false).0, 3);
}

#[test]
fn k14a_altered_configs_show() {
    let mut kafka = Kafka::connect();
    let topic = new_topic(&mut kafka, 1);
    let alter = |name: &str, value: &str| {
        let config = AlterableConfig::default().with_name(text(name)).with_value(Some(text(value)));
        let resource = AlterConfigsResource::default()
            .with_resource_type(2)
            .with_resource_name(text(&topic))
            .with_configs(vec![config]);
        IncrementalAlterConfigsRequest::default().with_resources(vec![resource])
    };
    assert_eq!(kafka.call(&alter("retention.ms", "12345678"), 1).responses[0].error_code, 0);
    assert_eq!(kafka.call(&alter("no.such.config", "1"), 1).responses[0].error_code, 40);
    let resource = DescribeConfigsResource::default()
        .with_resource_type(2)
        .with_resource_name(text(&topic))
        .with_configuration_keys(None);
    let ask = DescribeConfigsRequest::default().with_resources(vec![resource]);
    let answer = kafka.call(&ask, 4);
    let found = answer.results[0].configs.iter().find(|c| &*c.name == "retention.ms").unwrap();
    assert_eq!(found.value.as_deref(), Some("12345678"));
    assert_eq!(found.config_source, 1, "of the topic itself");
}

#[test]
fn k14a_transactions_are_refused_at_once() {
    if is_reference() {
        return;
    }
    let mut kafka = Kafka::connect();
    let request = InitProducerIdRequest::default()
        .with_transactional_id(Some(TransactionalId(text("k14a"))))
        .with_transaction_timeout_ms(60_000)
        .with_producer_id(ProducerId(-1))
        .with_producer_epoch(-1);
    let code = kafka.call(&request, 4).error_code;
    // None of those that a client tries again.
    assert!(!matches!(code, 0 | 14 | 15 | 16 | 51), "error {code}");
}

#[test]
fn k14a_only_what_is_served_is_advertised() {
    let mut kafka = Kafka::connect();
    let answer = kafka.call(&ApiVersionsRequest::default(), 2);
    assert_eq!(answer.error_code, 0);
    let find = |key: i16| answer.api_keys.iter().find(|api| api.api_key == key);
    for (key, at_least) in
        [(0, 9), (1, 12), (2, 7), (3, 12), (8, 8), (9, 8), (10, 4), (11, 9), (18, 3), (22, 4)]
    {
        let api = find(key).unwrap_or_else(|| panic!("API {key} is served"));
        assert!(api.max_version >= at_least && api.min_version <= api.max_version, "{api:?}");
    }
    if !is_reference() {
        for (key, name) in
            [(24, "AddPartitionsToTxn"), (26, "EndTxn"), (38, "CreateDelegationToken")]
        {
            assert!(find(key).is_none(), "{name} isn't served");
        }
    }
}
