//! DeleteTopics, by name or by id.

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::delete_topics_response::DeletableTopicResult;
use kafka_protocol::messages::{DeleteTopicsRequest, DeleteTopicsResponse};

use super::errors;
use super::text::{text, topic_name};
use crate::kafka::broker::Broker;
use crate::kafka::route::Request;
use crate::topics::TopicError;

pub(in crate::kafka) async fn answer(
    broker: &Broker,
    _: &Request,
    asked: DeleteTopicsRequest,
) -> DeleteTopicsResponse {
    let named =
        asked.topic_names.into_iter().map(|name| DeleteTopicState::default().with_name(Some(name)));
    let mut results = Vec::new();
    for topic in asked.topics.into_iter().chain(named) {
        results.push(delete(broker, topic).await);
    }
    DeleteTopicsResponse::default().with_responses(results)
}

async fn delete(broker: &Broker, asked: DeleteTopicState) -> DeletableTopicResult {
    let result =
        DeletableTopicResult::default().with_topic_id(asked.topic_id).with_name(asked.name.clone());
    let refuse = |result: DeletableTopicResult, error: ResponseError, message: &str| {
        result.with_error_code(error.code()).with_error_message(Some(text(message)))
    };
    let (name, id) = match &asked.name {
        Some(_) if !asked.topic_id.is_nil() => {
            let message = "a topic is named by its name or by its id, not by both";
            return refuse(result, ResponseError::InvalidRequest, message);
        }
        Some(name) => (name.to_string(), None),
        None => match broker.topics.by_id(asked.topic_id) {
            Some(topic) => (topic.name.to_string(), Some(topic.id)),
            None => {
                let message = "there is no topic of that id";
                return refuse(result, ResponseError::UnknownTopicId, message);
            }
        },
    };
    match broker.topics.delete(&name, id).await {
        Ok(topic) => {
            tracing::info!(topic = name, "deleted a topic");
            broker.groups.forget_topic(&topic).await;
            result.with_name(Some(topic_name(&topic.name))).with_topic_id(topic.id)
        }
        Err(TopicError::NotFound) if id.is_some() => {
            refuse(result, ResponseError::UnknownTopicId, "there is no topic of that id")
        }
        Err(error) => refuse(result, errors::of_topic(&error), &error.to_string()),
    }
}
