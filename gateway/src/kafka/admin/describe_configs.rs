//! DescribeConfigs: of topics, with their sources and synonyms, and of the broker (K21).

use std::collections::BTreeSet;

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResult, DescribeConfigsSynonym,
};
use kafka_protocol::messages::{DescribeConfigsRequest, DescribeConfigsResponse};

use super::configs::{self, BrokerOption};
use super::text::text;
use crate::kafka::broker::Broker;
use crate::kafka::route::Request;
use crate::topics::{OPTIONS, Topic, TopicOption, name};

pub(super) const TOPIC: i8 = 2;
pub(super) const BROKER: i8 = 4;

pub(in crate::kafka) async fn answer(
    broker: &Broker,
    _: &Request,
    asked: DescribeConfigsRequest,
) -> DescribeConfigsResponse {
    let mut seen = BTreeSet::new();
    let mut results = Vec::new();
    for resource in &asked.resources {
        // A resource that is named twice is described once.
        if !seen.insert((resource.resource_type, resource.resource_name.clone())) {
            continue;
        }
        let mut result = DescribeConfigsResult::default()
            .with_resource_type(resource.resource_type)
            .with_resource_name(resource.resource_name.clone());
        match describe(broker, resource, &asked) {
            Ok(configs) => result.configs = configs,
            Err((error, message)) => {
                result.error_code = error.code();
                result.error_message = Some(text(message));
            }
        }
        results.push(result);
    }
    DescribeConfigsResponse::default().with_results(results)
}

fn describe(
    broker: &Broker,
    resource: &DescribeConfigsResource,
    asked: &DescribeConfigsRequest,
) -> Result<Vec<DescribeConfigsResourceResult>, (ResponseError, String)> {
    let wanted = |name: &str| match &resource.configuration_keys {
        Some(keys) if !keys.is_empty() => keys.iter().any(|key| key.as_str() == name),
        // No names are all names, as for Kafka.
        _ => true,
    };
    match resource.resource_type {
        TOPIC => {
            name::check(&resource.resource_name)
                .map_err(|why| (ResponseError::InvalidTopicException, why.to_string()))?;
            let Some(topic) = broker.topics.get(&resource.resource_name) else {
                let message = "there is no such topic".to_owned();
                return Err((ResponseError::UnknownTopicOrPartition, message));
            };
            let options = OPTIONS.iter().filter(|option| wanted(option.name));
            Ok(options.map(|option| of_topic(&topic, option, asked)).collect())
        }
        BROKER => {
            let own = broker.brokers.me().to_string();
            let name = resource.resource_name.as_str();
            if name.is_empty() {
                // The defaults of the whole cluster, set at run time: there are none.
                return Ok(Vec::new());
            }
            if name != own {
                let message = format!("unexpected broker id, expected {own}, but received {name}");
                return Err((ResponseError::InvalidRequest, message));
            }
            let options = configs::broker_options(&broker.config, *broker.brokers.me());
            let options = options.iter().filter(|option| wanted(option.name));
            Ok(options.map(|option| of_broker(option, asked)).collect())
        }
        other => Err((
            ResponseError::InvalidRequest,
            format!("resources of type {other} have no configuration"),
        )),
    }
}

fn synonym(name: &str, value: &str, source: i8) -> DescribeConfigsSynonym {
    DescribeConfigsSynonym::default()
        .with_name(text(name))
        .with_value(Some(text(value)))
        .with_source(source)
}

fn of_topic(
    topic: &Topic,
    option: &TopicOption,
    asked: &DescribeConfigsRequest,
) -> DescribeConfigsResourceResult {
    let (value, is_set) = topic.config.value(option);
    let mut result = DescribeConfigsResourceResult::default()
        .with_name(text(option.name))
        .with_value(Some(text(value)))
        .with_config_source(configs::source(is_set))
        .with_config_type(configs::type_code(option.kind));
    if asked.include_synonyms {
        if is_set {
            result.synonyms.push(synonym(option.name, value, configs::SOURCE_TOPIC));
        }
        if let Some(name) = option.synonym {
            result.synonyms.push(synonym(name, option.default, configs::SOURCE_DEFAULT));
        }
    }
    result.documentation = asked.include_documentation.then(|| text(option.documentation));
    result
}

fn of_broker(
    option: &BrokerOption,
    asked: &DescribeConfigsRequest,
) -> DescribeConfigsResourceResult {
    let is_default = option.value == option.default;
    let source = if is_default { configs::SOURCE_DEFAULT } else { configs::SOURCE_STATIC };
    let mut result = DescribeConfigsResourceResult::default()
        .with_name(text(option.name))
        .with_value(Some(text(option.value.clone())))
        .with_read_only(true)
        .with_config_source(source)
        .with_config_type(option.kind);
    if asked.include_synonyms {
        if !is_default {
            result.synonyms.push(synonym(option.name, &option.value, configs::SOURCE_STATIC));
        }
        result.synonyms.push(synonym(option.name, &option.default, configs::SOURCE_DEFAULT));
    }
    result
}
