//! OffsetDelete: what a group has committed for topics that it doesn't read any more.

use bytes::Buf;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::offset_delete_response::{
    OffsetDeleteResponsePartition, OffsetDeleteResponseTopic,
};
use kafka_protocol::messages::{OffsetDeleteRequest, OffsetDeleteResponse};
use tokio::sync::oneshot;

use super::check_name;
use super::offsets::wait;
use crate::kafka::broker::Broker;
use crate::kafka::groups::core::State;
use crate::kafka::groups::writer::Write;
use crate::kafka::route::Request;

pub(in crate::kafka) async fn delete(
    broker: &Broker,
    _: &Request,
    asked: OffsetDeleteRequest,
) -> OffsetDeleteResponse {
    match try_delete(broker, &asked).await {
        Err(error) => OffsetDeleteResponse::default().with_error_code(error.code()),
        Ok(kept) => {
            let topics = asked.topics.iter().map(|topic| {
                let is_kept = kept.iter().any(|name| name == topic.name.as_str());
                let found = broker.topics.get(&topic.name);
                let partitions = topic.partitions.iter().map(|partition| {
                    let index = partition.partition_index;
                    let error = if is_kept {
                        ResponseError::GroupSubscribedToTopic.code()
                    } else if found.as_ref().and_then(|topic| topic.log(index)).is_none() {
                        ResponseError::UnknownTopicOrPartition.code()
                    } else {
                        0
                    };
                    OffsetDeleteResponsePartition::default()
                        .with_partition_index(index)
                        .with_error_code(error)
                });
                OffsetDeleteResponseTopic::default()
                    .with_name(topic.name.clone())
                    .with_partitions(partitions.collect())
            });
            OffsetDeleteResponse::default().with_topics(topics.collect())
        }
    }
}

/// Deletes what may go; returns the topics that the group subscribes to and so keeps.
async fn try_delete(
    broker: &Broker,
    asked: &OffsetDeleteRequest,
) -> Result<Vec<String>, ResponseError> {
    let group = asked.group_id.as_str();
    check_name(group)?;
    let groups = &broker.groups;
    let (done, durable) = oneshot::channel();
    let (kept, is_queued) = groups
        .with(group, false, |slot, state, _| {
            let mut kept = Vec::new();
            if state.state() != State::Empty {
                let is_consumer = state.protocol_type().is_some_and(|kind| &**kind == "consumer");
                if !is_consumer {
                    return Err(ResponseError::NonEmptyGroup);
                }
                for metadata in state.subscriptions() {
                    // Of who can't be understood, nothing is taken away.
                    kept.extend(subscribed(metadata).ok_or(ResponseError::NonEmptyGroup)?);
                }
            }
            let rows: Vec<_> = asked
                .topics
                .iter()
                .filter(|topic| !kept.iter().any(|name| name == topic.name.as_str()))
                .flat_map(|topic| {
                    topic.partitions.iter().filter_map(|partition| {
                        let index = u32::try_from(partition.partition_index).ok()?;
                        Some((topic.name.to_string(), index))
                    })
                })
                .collect();
            let is_queued = !rows.is_empty();
            if is_queued {
                groups.write(slot, Write::Forget(rows, done));
            }
            Ok((kept, is_queued))
        })
        .await?
        .ok_or(ResponseError::GroupIdNotFound)??;
    if is_queued {
        wait(group, durable).await?;
    }
    Ok(kept)
}

/// The topics in a consumer's subscription (ConsumerProtocolSubscription: version, topics, …).
fn subscribed(metadata: &[u8]) -> Option<Vec<String>> {
    let mut at = metadata;
    at.try_get_i16().ok()?;
    let mut topics = Vec::new();
    for _ in 0..at.try_get_i32().ok()? {
        let len = usize::try_from(at.try_get_i16().ok()?).ok()?;
        let (name, rest) = at.split_at_checked(len)?;
        topics.push(std::str::from_utf8(name).ok()?.to_owned());
        at = rest;
    }
    Some(topics)
}
