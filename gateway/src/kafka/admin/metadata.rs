//! Metadata: which brokers and topics there are, and who leads their partitions.
//!
//! A partition's leader is a gateway, its replicas are log stores: nodes of one cluster, whose ids are of
//! one space, so that a gateway is never taken for a replica. In a standalone both are the same node.
//! Clients connect to leaders, which are among the brokers; log stores are not, for they speak no Kafka.
//! Of a replica that isn't among the brokers clients know the number: kafka-topics counts replicas and
//! in-sync replicas, and that is what they are for.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures_util::{StreamExt, stream};
use interflow_logstore::{LogError, LogReplicas, ReplicaDescription};
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

/// Logs of a topic that are asked for at a time, and topics.
const AT_ONCE: usize = 2_048;
const TOPICS_AT_ONCE: usize = 64;
/// Of a topic with so many partitions what was said is shared and kept.
const MANY: usize = 100;
/// The most places of a partition without a node that are told.
const MAX_REPLICAS: usize = 16;
/// Kafka's id of no node.
const NO_NODE: BrokerId = BrokerId(-1);

pub(in crate::kafka) async fn answer(
    broker: &Broker,
    request: &Request,
    asked: MetadataRequest,
) -> MetadataResponse {
    let listed = broker.brokers.list(&request.peer.listener);
    let of = |which| of(broker, &listed, which, request.version);
    let mut topics: Vec<_> = match asked_topics(request.version, &asked) {
        None => {
            let all = broker.topics.snapshot();
            let all: Vec<_> = all.all().iter().cloned().map(Which::Topic).map(of).collect();
            stream::iter(all).buffered(TOPICS_AT_ONCE).collect().await
        }
        Some((names, ids)) => {
            let creates =
                asked.allow_auto_topic_creation && broker.config.auto_create_topics_enable;
            let names = names.into_iter().map(|name| Which::Name(name, creates));
            let some: Vec<_> = names.chain(ids.into_iter().map(Which::Id)).map(of).collect();
            stream::iter(some).buffered(TOPICS_AT_ONCE).collect().await
        }
    };
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

/// A topic that is asked for.
enum Which {
    Topic(Arc<Topic>),
    /// It may be created.
    Name(String, bool),
    Id(Uuid),
}

async fn of(broker: &Broker, listed: &Listed, which: Which, version: i16) -> MetadataResponseTopic {
    match which {
        Which::Topic(topic) => found(broker, listed, &topic).await,
        Which::Name(name, creates) => by_name(broker, listed, &name, creates).await,
        Which::Id(id) => by_id(broker, listed, id, version).await,
    }
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

/// The replicas, and those in sync. Where the log service says none the leader stands for them.
fn replicas(told: &LogReplicas, leader: BrokerId) -> (Vec<BrokerId>, Vec<BrokerId>) {
    if told.replicas.is_empty() {
        return (vec![leader], vec![leader]);
    }
    let id =
        |replica: &ReplicaDescription| BrokerId(i32::try_from(replica.node.0).unwrap_or(i32::MAX));
    let mut all: Vec<_> = told.replicas.iter().map(id).collect();
    // A place that no node has, for want of nodes: the partition is under-replicated.
    let wanted = usize::try_from(told.replication_factor).unwrap_or(0).min(MAX_REPLICAS);
    all.resize(wanted.max(all.len()), NO_NODE);
    let in_sync = told.replicas.iter().filter(|replica| replica.is_in_sync).map(id).collect();
    (all, in_sync)
}

/// What log stores say of a topic's partitions.
async fn ask(broker: &Broker, topic: &Topic) -> Vec<Result<LogReplicas, LogError>> {
    let asked: Vec<_> = topic.partitions.iter().map(|log| broker.logs.replicas(*log)).collect();
    stream::iter(asked).buffered(AT_ONCE).collect().await
}

async fn found(broker: &Broker, listed: &Listed, topic: &Topic) -> MetadataResponseTopic {
    let count = topic.partitions.len();
    let mut partitions = Vec::with_capacity(count);
    let lives = |id| broker.topics.by_id(id).is_some();
    let mut told = match count {
        0..MANY => Arc::new(ask(broker, topic).await),
        _ => {
            let ask = || async {
                let told = ask(broker, topic).await;
                let is_all = told.iter().all(Result::is_ok);
                (told, is_all)
            };
            broker.told.of(topic.id, lives, ask).await
        }
    };
    if told.len() != count {
        // It has got more of them since.
        told = Arc::new(ask(broker, topic).await);
    }
    for (index, told) in told.iter().enumerate() {
        let index = i32::try_from(index).unwrap_or(i32::MAX);
        let leader = listed.leader(topic.id, index);
        let mut partition = MetadataResponsePartition::default().with_partition_index(index);
        match told {
            Ok(told) => {
                partition.leader_id = leader;
                partition.leader_epoch = i32::try_from(told.leader_epoch).unwrap_or(i32::MAX);
                (partition.replica_nodes, partition.isr_nodes) = replicas(told, leader);
            }
            Err(error) => {
                tracing::debug!(topic = %topic.name, index, %error, "a partition has no leader");
                partition.error_code = ResponseError::LeaderNotAvailable.code();
                partition.leader_id = NO_NODE;
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

#[cfg(test)]
mod tests {
    use interflow_logstore::NodeId;

    use super::*;

    #[test]
    fn replicas_are_log_stores_and_places_for_those_that_lack() {
        let told = |nodes: &[(u32, bool)], replication_factor| LogReplicas {
            leader_epoch: 0,
            replicas: nodes
                .iter()
                .map(|(node, is_in_sync)| ReplicaDescription {
                    node: NodeId(*node),
                    lag: 0,
                    is_in_sync: *is_in_sync,
                })
                .collect(),
            replication_factor,
        };
        for (nodes, factor, all, in_sync) in [
            (&[(3, true), (1, true), (2, true)][..], 3, &[3, 1, 2][..], &[3, 1, 2][..]),
            (&[(3, true), (1, false), (2, true)], 3, &[3, 1, 2], &[3, 2]),
            (&[(3, true), (1, true)], 3, &[3, 1, -1], &[3, 1]),
            // More than it is to have, as after its factor was changed.
            (&[(3, true), (1, true)], 1, &[3, 1], &[3, 1]),
            // A log store that says nothing.
            (&[], 0, &[1_000_000], &[1_000_000]),
        ] {
            let (said, said_in_sync) = replicas(&told(nodes, factor), BrokerId(1_000_000));
            let ids = |nodes: &[BrokerId]| nodes.iter().map(|node| node.0).collect::<Vec<_>>();
            assert_eq!((ids(&said), ids(&said_in_sync)), (all.to_vec(), in_sync.to_vec()));
        }
        let (many, _) = replicas(&told(&[(1, true)], u32::MAX), BrokerId(1));
        assert_eq!(many.len(), MAX_REPLICAS);
    }
}
