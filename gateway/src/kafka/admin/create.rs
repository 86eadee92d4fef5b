//! CreateTopics.

use std::collections::BTreeMap;

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::create_topics_response::{
    CreatableTopicConfigs, CreatableTopicResult,
};
use kafka_protocol::messages::{CreateTopicsRequest, CreateTopicsResponse};
use uuid::Uuid;

use super::configs;
use super::errors;
use super::text::text;
use crate::kafka::broker::Broker;
use crate::kafka::route::Request;
use crate::topics::{NewTopic, OPTIONS, Overrides, TopicConfig};

type Refusal = (ResponseError, String);

pub(in crate::kafka) async fn answer(
    broker: &Broker,
    _: &Request,
    asked: CreateTopicsRequest,
) -> CreateTopicsResponse {
    let mut named: BTreeMap<String, usize> = BTreeMap::new();
    for topic in &asked.topics {
        *named.entry(topic.name.to_string()).or_default() += 1;
    }
    let mut results = Vec::with_capacity(asked.topics.len());
    for topic in &asked.topics {
        let outcome = match named.get(topic.name.as_str()) {
            Some(1) => create(broker, topic, asked.validate_only).await,
            Some(_) => {
                named.remove(topic.name.as_str());
                let message = "the request names the topic twice".to_owned();
                Err((ResponseError::InvalidRequest, message))
            }
            // It was answered with the first of that name.
            None => continue,
        };
        let result = CreatableTopicResult::default().with_name(topic.name.clone());
        results.push(match outcome {
            Ok(created) => result
                .with_topic_id(created.id)
                .with_num_partitions(i32::try_from(created.partitions).unwrap_or(i32::MAX))
                .with_replication_factor(created.replicas)
                .with_configs(Some(shown(&created.config))),
            Err((error, message)) => {
                result.with_error_code(error.code()).with_error_message(Some(text(message)))
            }
        });
    }
    CreateTopicsResponse::default().with_topics(results)
}

struct Created {
    id: Uuid,
    partitions: u32,
    replicas: i16,
    config: TopicConfig,
}

async fn create(
    broker: &Broker,
    asked: &CreatableTopic,
    validate_only: bool,
) -> Result<Created, Refusal> {
    let new = new_topic(broker, asked)?;
    let partitions = new.partitions;
    let refuse = |error| (errors::of_topic(&error), error.to_string());
    let replicas = broker.topics.replicas(new.replication_factor).map_err(refuse)?;
    let replicas = i16::try_from(replicas).unwrap_or(i16::MAX);
    if validate_only {
        let config = broker.topics.check_new(&new).await.map_err(refuse)?;
        return Ok(Created { id: Uuid::nil(), partitions, replicas, config });
    }
    let topic = broker.topics.create(new).await.map_err(refuse)?;
    tracing::info!(topic = %topic.name, partitions, "created a topic");
    Ok(Created { id: topic.id, partitions, replicas, config: topic.config.clone() })
}

fn new_topic(broker: &Broker, asked: &CreatableTopic) -> Result<NewTopic, Refusal> {
    if !asked.assignments.is_empty() {
        return Err((
            ResponseError::InvalidReplicaAssignment,
            "replicas can't be assigned by hand: leave the assignment to the system".to_owned(),
        ));
    }
    let partitions = match asked.num_partitions {
        -1 => broker.config.num_partitions,
        // What isn't a number of partitions is refused as zero is.
        number => u32::try_from(number).unwrap_or(0),
    };
    let mut config = Overrides::new();
    for entry in &asked.configs {
        let Some(value) = &entry.value else {
            let message = format!("configuration {} has no value", entry.name);
            return Err((ResponseError::InvalidConfig, message));
        };
        config.insert(entry.name.to_string(), value.to_string());
    }
    Ok(NewTopic {
        name: asked.name.to_string(),
        partitions,
        replication_factor: asked.replication_factor,
        config,
    })
}

fn shown(config: &TopicConfig) -> Vec<CreatableTopicConfigs> {
    let show = |option| {
        let (value, is_set) = config.value(option);
        CreatableTopicConfigs::default()
            .with_name(text(option.name))
            .with_value(Some(text(value)))
            .with_config_source(configs::source(is_set))
    };
    OPTIONS.iter().map(show).collect()
}
