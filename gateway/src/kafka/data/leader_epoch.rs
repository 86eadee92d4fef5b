//! OffsetForLeaderEpoch (KIP-320): where the records of an epoch end.

use interflow_logstore::LogId;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::offset_for_leader_epoch_request::OffsetForLeaderPartition;
use kafka_protocol::messages::offset_for_leader_epoch_response::{
    EpochEndOffset, OffsetForLeaderTopicResult,
};
use kafka_protocol::messages::{OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse};

use super::topic::TopicKey;
use super::{DataPlane, errors};

impl DataPlane {
    /// Answers OffsetForLeaderEpoch from the log's chain.
    pub async fn offset_for_leader_epoch(
        &self,
        request: OffsetForLeaderEpochRequest,
    ) -> OffsetForLeaderEpochResponse {
        let mut topics = Vec::with_capacity(request.topics.len());
        for topic in request.topics {
            let (key, found) = TopicKey::of_name(self.topics(), &topic.topic);
            let mut partitions = Vec::with_capacity(topic.partitions.len());
            for wanted in &topic.partitions {
                let result = match key.log(found.as_deref(), wanted.partition) {
                    Ok(log) => self.end_of_epoch(log, wanted).await,
                    Err(error) => Err(error),
                };
                let answer = EpochEndOffset::default().with_partition(wanted.partition);
                partitions.push(match result {
                    Ok(Some((epoch, end))) => answer.with_leader_epoch(epoch).with_end_offset(end),
                    Ok(None) => answer,
                    Err(error) => answer.with_error_code(error.code()),
                });
            }
            topics.push(
                OffsetForLeaderTopicResult::default()
                    .with_topic(topic.topic)
                    .with_partitions(partitions),
            );
        }
        OffsetForLeaderEpochResponse::default().with_topics(topics)
    }

    /// The epoch and its end; `None` (epoch and end −1) for one that has never been or is
    /// forgotten.
    async fn end_of_epoch(
        &self,
        log: LogId,
        wanted: &OffsetForLeaderPartition,
    ) -> Result<Option<(i32, i64)>, ResponseError> {
        let bounds = self.log().bounds(log).await.map_err(|error| errors::of_log(&error))?;
        let current = i32::try_from(bounds.leader_epoch).unwrap_or(i32::MAX);
        if wanted.current_leader_epoch > current {
            return Err(ResponseError::UnknownLeaderEpoch);
        }
        let Ok(asked) = u32::try_from(wanted.leader_epoch) else { return Ok(None) };
        if asked > bounds.leader_epoch {
            return Ok(None);
        }
        let end = self.log().end_of_leader_epoch(log, asked).await;
        let end = end.map_err(|error| errors::of_log(&error))?;
        Ok(end
            .and_then(|(epoch, end)| Some((i32::try_from(epoch).ok()?, i64::try_from(end).ok()?))))
    }
}
