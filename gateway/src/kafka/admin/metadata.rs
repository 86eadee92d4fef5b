//! Metadata: which brokers and topics there are, and who leads their partitions.
//!
//! A partition has one replica as far as clients can know: its leader. Where its records are kept is
//! the logstores' business, and which broker is asked makes no difference.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures_util::{StreamExt, stream};
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::{BrokerId, MetadataRequest, MetadataResponse};
use uuid::Uuid;

use super::text::{text, topic_name};
use super::{errors, operations};
use crate::kafka::broker::Broker;
use crate::kafka::brokers::Listed;
use crate::kafka::route::Request;
use crate::topics::{NewTopic, Overrides, Topic, TopicError, name};

/// Logs that are asked for at a time: their nodes may be far, or have to recover them.
const AT_ONCE: usize = 256;

pub(in crate::kafka) async fn answer(
    broker: &Broker,
    request: &Request,
    asked: MetadataRequest,
) -> MetadataResponse {
    let listed = broker.brokers.list(&request.peer.listener);
    let mut topics = Vec::new();
    match asked_topics(request.version, &asked) {
        None => {
            for topic in broker.topics.snapshot().all() {
                topics.push(found(broker, &listed, topic).await);
            }
        }
        Some((names, ids)) => {
            let creates =
                asked.allow_auto_topic_creation && broker.config.auto_create_topics_enable;
            for name in names {
                topics.push(by_name(broker, &listed, &name, creates).await);
            }
            for id in ids {
                topics.push(by_id(broker, &listed, id, request.version).await);
            }
        }
    }
    if asked.include_topic_authorized_operations {
        for topic in topics.iter_mut().filter(|topic| topic.error_code == 0) {
            topic.topic_authorized_operations = operations::TOPIC;
        }
    }
    let brokers = listed.brokers().iter().map(|seen| {
        MetadataResponseBroker::default()
            .with_node_id(seen.id)
            .with_host(text(&*seen.endpoint.host))
            .with_port(seen.endpoint.port.into())
            .with_rack(seen.rack.as_deref().filter(|_| request.version >= 1).map(text))
    });
    let mut answer = MetadataResponse::default()
        .with_brokers(brokers.collect())
        .with_cluster_id(Some(text(broker.cluster_id.clone())))
        .with_controller_id(listed.controller())
        .with_topics(topics);
    if asked.include_cluster_authorized_operations {
        answer.cluster_authorized_operations = operations::CLUSTER;
    }
    answer
}

/// Names and ids that are asked for, each once; `None` asks for all topics.
fn asked_topics(
    version: i16,
    asked: &MetadataRequest,
) -> Option<(BTreeSet<String>, BTreeSet<Uuid>)> {
    let topics = asked.topics.as_ref()?;
    // The first version can't say "none".
    if version == 0 && topics.is_empty() {
        return None;
    }
    let (mut names, mut ids) = (BTreeSet::new(), BTreeSet::new());
    for topic in topics {
        match &topic.name {
            _ if !topic.topic_id.is_nil() => {
                ids.insert(topic.topic_id);
            }
            Some(name) => {
                names.insert(name.to_string());
            }
            None => {
                ids.insert(topic.topic_id);
            }
        }
    }
    Some((names, ids))
}

async fn by_name(
    broker: &Broker,
    listed: &Listed,
    name: &str,
    creates: bool,
) -> MetadataResponseTopic {
    if let Some(topic) = broker.topics.get(name) {
        return found(broker, listed, &topic).await;
    }
    let error = if name::check(name).is_err() {
        ResponseError::InvalidTopicException
    } else if !creates {
        ResponseError::UnknownTopicOrPartition
    } else {
        match create(broker, name).await {
            Ok(topic) => return found(broker, listed, &topic).await,
            Err(TopicError::Exists(_)) => ResponseError::LeaderNotAvailable,
            Err(TopicError::Unavailable(error)) => {
                tracing::warn!(topic = name, %error, "a topic could not be created");
                ResponseError::LeaderNotAvailable
            }
            Err(error) => errors::of_topic(&error),
        }
    };
    missing(error).with_name(Some(topic_name(name)))
}

async fn create(broker: &Broker, name: &str) -> Result<Arc<Topic>, TopicError> {
    let topic = broker
        .topics
        .create(NewTopic {
            name: name.to_owned(),
            partitions: broker.config.num_partitions,
            replication_factor: -1,
            config: Overrides::new(),
        })
        .await?;
    tracing::info!(topic = name, partitions = topic.partitions.len(), "created a topic on demand");
    Ok(topic)
}

async fn by_id(broker: &Broker, listed: &Listed, id: Uuid, version: i16) -> MetadataResponseTopic {
    match broker.topics.by_id(id) {
        Some(topic) => found(broker, listed, &topic).await,
        None => {
            // Older versions can't leave the name out.
            let name = (version < 12).then(|| topic_name(""));
            missing(ResponseError::UnknownTopicId).with_topic_id(id).with_name(name)
        }
    }
}

fn missing(error: ResponseError) -> MetadataResponseTopic {
    MetadataResponseTopic::default().with_error_code(error.code())
}

async fn found(broker: &Broker, listed: &Listed, topic: &Topic) -> MetadataResponseTopic {
    let mut partitions = Vec::with_capacity(topic.partitions.len());
    let asked: Vec<_> = topic.partitions.iter().map(|log| broker.logs.bounds(*log)).collect();
    let mut told = stream::iter(asked).buffered(AT_ONCE).enumerate();
    while let Some((index, told)) = told.next().await {
        let index = i32::try_from(index).unwrap_or(i32::MAX);
        let node = listed.leader(topic.id, index);
        let mut partition = MetadataResponsePartition::default()
            .with_partition_index(index)
            .with_replica_nodes(vec![node])
            .with_isr_nodes(vec![node]);
        match told {
            Ok(bounds) => {
                partition.leader_id = node;
                partition.leader_epoch = i32::try_from(bounds.leader_epoch).unwrap_or(i32::MAX);
            }
            Err(error) => {
                tracing::debug!(topic = %topic.name, index, %error, "a partition has no leader");
                partition.error_code = ResponseError::LeaderNotAvailable.code();
                partition.leader_id = BrokerId(-1);
                partition.leader_epoch = -1;
            }
        }
        partitions.push(partition);
    }
    MetadataResponseTopic::default()
        .with_name(Some(topic_name(&topic.name)))
        .with_topic_id(topic.id)
        .with_partitions(partitions)
}
