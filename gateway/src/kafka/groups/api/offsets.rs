//! OffsetCommit and OffsetFetch (K16).

use std::sync::Arc;

use interflow_meta::groups::{self as stored, CommittedOffset, GroupError, PartitionOffset};
use interflow_meta::{DEFAULT_TENANT, MetaError};
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::offset_commit_request::OffsetCommitRequestPartition;
use kafka_protocol::messages::offset_commit_response::{
    OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};
use kafka_protocol::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions,
    OffsetFetchResponseTopic, OffsetFetchResponseTopics,
};
use kafka_protocol::messages::{
    OffsetCommitRequest, OffsetCommitResponse, OffsetFetchRequest, OffsetFetchResponse, TopicName,
};
use tokio::sync::oneshot;

use super::{check_name, identity, text};
use crate::kafka::broker::Broker;
use crate::kafka::groups::Groups;
use crate::kafka::groups::core::Identity;
use crate::kafka::groups::registry::{not_written, unavailable};
use crate::kafka::groups::writer::Write;
use crate::kafka::route::Request;
use crate::topics::Topic;

/// A committed text is part of a value of meta, whatever the settings say.
const MAX_METADATA_BYTES: usize = 64 * 1024;

pub(in crate::kafka) async fn commit(
    broker: &Broker,
    request: &Request,
    asked: OffsetCommitRequest,
) -> OffsetCommitResponse {
    let now_ms = broker.groups.wall_ms();
    let mut rows = Vec::new();
    // The error of each partition so far: those without one are committed together.
    let mut errors = Vec::new();
    for topic in &asked.topics {
        let found = broker.topics.get(&topic.name);
        for partition in &topic.partitions {
            match row(broker, found.as_deref(), partition) {
                Ok((index, mut offset)) => {
                    offset.committed_ms = now_ms;
                    let keep_ms = asked.retention_time_ms;
                    let has_own = (2..=4).contains(&request.version) && keep_ms >= 0;
                    offset.expires_ms = has_own.then(|| now_ms.saturating_add(keep_ms));
                    rows.push((topic.name.to_string(), index, offset));
                    errors.push(None);
                }
                Err(error) => errors.push(Some(error)),
            }
        }
    }
    let count = rows.len();
    let outcome = try_commit(broker, &asked, rows).await;
    if outcome.is_ok() {
        broker.metrics.offset_commits.add(u64::try_from(count).unwrap_or(0));
    }
    let mut errors = errors.into_iter();
    let topics = asked.topics.iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|partition| {
            let error = outcome.err().or(errors.next().flatten());
            OffsetCommitResponsePartition::default()
                .with_partition_index(partition.partition_index)
                .with_error_code(error.map_or(0, |error| error.code()))
        });
        OffsetCommitResponseTopic::default()
            .with_name(topic.name.clone())
            .with_partitions(partitions.collect())
    });
    OffsetCommitResponse::default().with_topics(topics.collect())
}

fn row(
    broker: &Broker,
    topic: Option<&Topic>,
    asked: &OffsetCommitRequestPartition,
) -> Result<(u32, CommittedOffset), ResponseError> {
    topic
        .and_then(|topic| topic.log(asked.partition_index))
        .ok_or(ResponseError::UnknownTopicOrPartition)?;
    let metadata = asked.committed_metadata.as_deref().unwrap_or_default();
    if metadata.len() > broker.config.offset_metadata_max_bytes.min(MAX_METADATA_BYTES) {
        return Err(ResponseError::OffsetMetadataTooLarge);
    }
    let index =
        u32::try_from(asked.partition_index).map_err(|_| ResponseError::UnknownTopicOrPartition)?;
    let offset =
        u64::try_from(asked.committed_offset).map_err(|_| ResponseError::OffsetOutOfRange)?;
    Ok((
        index,
        CommittedOffset {
            offset,
            leader_epoch: asked.committed_leader_epoch,
            metadata: metadata.to_owned(),
            committed_ms: 0,
            expires_ms: None,
        },
    ))
}

async fn try_commit(
    broker: &Broker,
    asked: &OffsetCommitRequest,
    rows: Vec<PartitionOffset>,
) -> Result<(), ResponseError> {
    let group = asked.group_id.as_str();
    check_name(group)?;
    let who = identity(&asked.member_id, asked.group_instance_id.as_ref());
    let generation = asked.generation_id_or_member_epoch;
    broker.groups.commit(group, &who, generation, rows).await
}

impl Groups {
    /// Commits offsets for `who` in `generation` (below 0: outside of the group protocol).
    ///
    /// # Errors
    /// What the client is told. NOT_COORDINATOR: another gateway's group; whether they were committed
    /// isn't known, but they can't be any more.
    pub(in crate::kafka::groups) async fn commit(
        self: &Arc<Self>,
        group: &str,
        who: &Identity,
        generation: i32,
        rows: Vec<PartitionOffset>,
    ) -> Result<(), ResponseError> {
        let (done, durable) = oneshot::channel();
        // Whoever isn't in a generation may commit to a group that isn't there yet.
        let checked = self
            .with(group, generation < 0, |slot, state, _| {
                state.check_commit(self.now(), who, generation)?;
                let is_queued = !rows.is_empty();
                if is_queued {
                    self.write(slot, Write::Offsets(rows, done));
                }
                Ok(is_queued)
            })
            .await?;
        if checked.unwrap_or(Err(ResponseError::IllegalGeneration))? {
            wait(group, durable).await?;
        }
        Ok(())
    }
}

/// Waits for a write to be durable.
pub(super) async fn wait(
    group: &str,
    durable: oneshot::Receiver<Result<(), GroupError>>,
) -> Result<(), ResponseError> {
    match durable.await {
        Ok(Ok(())) => Ok(()),
        // To try again wouldn't help: it has to be committed in smaller pieces.
        Ok(Err(GroupError::Meta(MetaError::TransactionTooLarge(_)))) => {
            Err(ResponseError::InvalidCommitOffsetSize)
        }
        Ok(Err(error)) => Err(not_written(group, &error)),
        // Only the end of the process drops it.
        Err(_) => Err(ResponseError::CoordinatorNotAvailable),
    }
}

pub(in crate::kafka) async fn fetch(
    broker: &Broker,
    request: &Request,
    asked: OffsetFetchRequest,
) -> OffsetFetchResponse {
    let mut answer = OffsetFetchResponse::default();
    if request.version >= 8 {
        for group in &asked.groups {
            let wanted = group
                .topics
                .as_ref()
                .map(|topics| topics.iter().map(|t| (&t.name, &t.partition_indexes[..])).collect());
            let mut result =
                OffsetFetchResponseGroup::default().with_group_id(group.group_id.clone());
            match offsets(broker, &group.group_id, wanted).await {
                Ok(topics) => result.topics = topics.into_iter().map(new_form).collect(),
                Err(error) => result.error_code = error.code(),
            }
            answer.groups.push(result);
        }
        return answer;
    }
    let wanted = asked
        .topics
        .as_ref()
        // The first version can't say "all".
        .map(|topics| topics.iter().map(|t| (&t.name, &t.partition_indexes[..])).collect());
    match offsets(broker, &asked.group_id, wanted).await {
        Ok(topics) => answer.topics = topics,
        Err(error) if request.version >= 2 => answer.error_code = error.code(),
        Err(error) => {
            // Without a place of its own the error stands with each partition.
            let topics = asked.topics.iter().flatten().map(|topic| {
                let partitions = topic
                    .partition_indexes
                    .iter()
                    .map(|index| none(*index).with_error_code(error.code()));
                OffsetFetchResponseTopic::default()
                    .with_name(topic.name.clone())
                    .with_partitions(partitions.collect())
            });
            answer.topics = topics.collect();
        }
    }
    answer
}

/// Topics with the partitions asked for; `None` asks for all that is committed.
type Wanted<'a> = Option<Vec<(&'a TopicName, &'a [i32])>>;

async fn offsets(
    broker: &Broker,
    group: &str,
    wanted: Wanted<'_>,
) -> Result<Vec<OffsetFetchResponseTopic>, ResponseError> {
    check_name(group)?;
    broker.groups.check(group)?;
    let failed = |error: MetaError| unavailable(group, &error);
    // What was answered as committed is durable, so it is read from meta. There are no
    // transactions, so all of it is stable.
    let tx = broker.groups.meta().begin();
    let Some(wanted) = wanted else {
        let rows = stored::all_offsets(&tx, DEFAULT_TENANT, group).await.map_err(failed)?;
        return Ok(by_topic(rows));
    };
    let mut topics = Vec::with_capacity(wanted.len());
    for (name, indexes) in wanted {
        let mut partitions = Vec::with_capacity(indexes.len());
        for index in indexes {
            let found = match u32::try_from(*index) {
                Ok(number) => stored::fetch_offset(&tx, DEFAULT_TENANT, group, name, number)
                    .await
                    .map_err(failed)?,
                Err(_) => None,
            };
            partitions.push(found.map_or_else(|| none(*index), |offset| some(*index, offset)));
        }
        topics.push(
            OffsetFetchResponseTopic::default().with_name(name.clone()).with_partitions(partitions),
        );
    }
    Ok(topics)
}

fn by_topic(rows: Vec<PartitionOffset>) -> Vec<OffsetFetchResponseTopic> {
    let mut topics: Vec<OffsetFetchResponseTopic> = Vec::new();
    for (topic, index, offset) in rows {
        let partition = some(i32::try_from(index).unwrap_or(i32::MAX), offset);
        match topics.last_mut().filter(|last| last.name.as_str() == topic) {
            Some(last) => last.partitions.push(partition),
            None => topics.push(
                OffsetFetchResponseTopic::default()
                    .with_name(TopicName(text(&topic)))
                    .with_partitions(vec![partition]),
            ),
        }
    }
    topics
}

fn some(index: i32, offset: CommittedOffset) -> OffsetFetchResponsePartition {
    OffsetFetchResponsePartition::default()
        .with_partition_index(index)
        .with_committed_offset(i64::try_from(offset.offset).unwrap_or(i64::MAX))
        .with_committed_leader_epoch(offset.leader_epoch)
        .with_metadata(Some(text(&offset.metadata)))
}

fn none(index: i32) -> OffsetFetchResponsePartition {
    OffsetFetchResponsePartition::default()
        .with_partition_index(index)
        .with_committed_offset(-1)
        .with_committed_leader_epoch(-1)
        .with_metadata(Some(text("")))
}

fn new_form(topic: OffsetFetchResponseTopic) -> OffsetFetchResponseTopics {
    let partitions = topic.partitions.into_iter().map(|partition| {
        OffsetFetchResponsePartitions::default()
            .with_partition_index(partition.partition_index)
            .with_committed_offset(partition.committed_offset)
            .with_committed_leader_epoch(partition.committed_leader_epoch)
            .with_metadata(partition.metadata)
            .with_error_code(partition.error_code)
    });
    OffsetFetchResponseTopics::default().with_name(topic.name).with_partitions(partitions.collect())
}
