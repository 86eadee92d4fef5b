//! IncrementalAlterConfigs: of topics.

use std::collections::BTreeSet;

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig,
};
use kafka_protocol::messages::incremental_alter_configs_response::AlterConfigsResourceResponse;
use kafka_protocol::messages::{IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse};

use super::describe_configs::{BROKER, TOPIC};
use super::errors;
use super::text::text;
use crate::kafka::broker::Broker;
use crate::kafka::route::Request;
use crate::topics::{ConfigChange, TopicError};

type Refusal = (ResponseError, String);

pub(in crate::kafka) async fn answer(
    broker: &Broker,
    _: &Request,
    asked: IncrementalAlterConfigsRequest,
) -> IncrementalAlterConfigsResponse {
    let mut seen = BTreeSet::new();
    let mut responses = Vec::with_capacity(asked.resources.len());
    for resource in &asked.resources {
        let outcome = if seen.insert((resource.resource_type, resource.resource_name.clone())) {
            alter(broker, resource, asked.validate_only).await
        } else {
            Err((ResponseError::InvalidRequest, "the request names it twice".to_owned()))
        };
        let mut response = AlterConfigsResourceResponse::default()
            .with_resource_type(resource.resource_type)
            .with_resource_name(resource.resource_name.clone());
        if let Err((error, message)) = outcome {
            response.error_code = error.code();
            response.error_message = Some(text(message));
        }
        responses.push(response);
    }
    IncrementalAlterConfigsResponse::default().with_responses(responses)
}

async fn alter(
    broker: &Broker,
    resource: &AlterConfigsResource,
    validate_only: bool,
) -> Result<(), Refusal> {
    match resource.resource_type {
        TOPIC => {}
        BROKER => {
            let message = "the broker's settings can't be changed while it runs";
            return Err((ResponseError::InvalidRequest, message.to_owned()));
        }
        other => {
            let message = format!("resources of type {other} have no configuration");
            return Err((ResponseError::InvalidRequest, message));
        }
    }
    let mut changes = Vec::with_capacity(resource.configs.len());
    let mut named = BTreeSet::new();
    for config in &resource.configs {
        if !named.insert(config.name.as_str()) {
            let message = format!("configuration {} is changed twice", config.name);
            return Err((ResponseError::InvalidRequest, message));
        }
        changes.push((config.name.to_string(), change(config)?));
    }
    let name = resource.resource_name.as_str();
    let refuse = |error: TopicError| (errors::of_topic(&error), error.to_string());
    if validate_only {
        broker.topics.check_alter(name, &changes).await.map_err(refuse)?;
    } else {
        broker.topics.alter_config(name, &changes).await.map_err(refuse)?;
        tracing::info!(topic = name, "altered a topic's configuration");
    }
    Ok(())
}

fn change(config: &AlterableConfig) -> Result<ConfigChange, Refusal> {
    let value = || {
        config.value.as_ref().map(ToString::to_string).ok_or_else(|| {
            let message = format!("configuration {} has no value", config.name);
            (ResponseError::InvalidRequest, message)
        })
    };
    match config.config_operation {
        0 => Ok(ConfigChange::Set(value()?)),
        1 => Ok(ConfigChange::Unset),
        2 => Ok(ConfigChange::Append(value()?)),
        3 => Ok(ConfigChange::Subtract(value()?)),
        other => Err((
            ResponseError::InvalidRequest,
            format!("{other} is no operation on configuration {}", config.name),
        )),
    }
}
