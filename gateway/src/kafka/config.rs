//! The settings of the Kafka side, under Kafka's names where Kafka has them: `num_partitions`, or
//! `num.partitions` as Kafka writes it.

use serde::{Deserialize, Serialize};

/// The settings of the Kafka side.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KafkaConfig {
    /// Topics that a client asks for come into being.
    #[serde(alias = "auto.create.topics.enable")]
    pub auto_create_topics_enable: bool,
    /// Partitions of a topic for which nobody says a number.
    #[serde(alias = "num.partitions")]
    pub num_partitions: u32,
    /// The largest request, in bytes.
    #[serde(alias = "socket.request.max.bytes")]
    pub socket_request_max_bytes: usize,
    /// Memory for requests of all connections together, in bytes.
    #[serde(alias = "queued.max.request.bytes")]
    pub queued_max_request_bytes: usize,
    /// Requests of one connection that are read ahead of their answers.
    #[serde(alias = "interflow.max.inflight.requests")]
    pub max_inflight_requests: usize,
    /// Bytes of requests of one connection that are read ahead of their answers.
    #[serde(alias = "interflow.max.inflight.bytes")]
    pub max_inflight_bytes: usize,
    /// Bytes of batches in one Fetch response, whatever its request says.
    #[serde(alias = "fetch.max.bytes")]
    pub fetch_max_bytes: usize,
    /// Fetch sessions (KIP-227).
    #[serde(alias = "max.incremental.fetch.session.cache.slots")]
    pub max_incremental_fetch_session_cache_slots: usize,
    /// A connection on which nothing moves for so long is closed, in milliseconds.
    #[serde(alias = "connections.max.idle.ms")]
    pub connections_max_idle_ms: u64,
    /// A request that has begun to arrive must go on arriving, in milliseconds.
    #[serde(alias = "interflow.request.stall.ms")]
    pub request_stall_ms: u64,
    /// How long an empty group waits for more members after its first, in milliseconds.
    #[serde(alias = "group.initial.rebalance.delay.ms")]
    pub group_initial_rebalance_delay_ms: u64,
    /// The shortest session timeout that a member may ask for, in milliseconds.
    #[serde(alias = "group.min.session.timeout.ms")]
    pub group_min_session_timeout_ms: u64,
    /// The longest session timeout that a member may ask for, in milliseconds.
    #[serde(alias = "group.max.session.timeout.ms")]
    pub group_max_session_timeout_ms: u64,
    /// Members of one group.
    #[serde(alias = "group.max.size")]
    pub group_max_size: usize,
    /// Groups in memory.
    #[serde(alias = "interflow.groups.max")]
    pub groups_max: usize,
    /// Memory for the members of all groups together, in bytes.
    #[serde(alias = "interflow.groups.max.bytes")]
    pub groups_max_bytes: usize,
    /// Offsets of a group without members are kept for so long, in minutes.
    #[serde(alias = "offsets.retention.minutes")]
    pub offsets_retention_minutes: u64,
    /// How often offsets are looked through for those that lapsed, in milliseconds.
    #[serde(alias = "offsets.retention.check.interval.ms")]
    pub offsets_retention_check_interval_ms: u64,
    /// The longest text that may be committed with an offset, in bytes.
    #[serde(alias = "offset.metadata.max.bytes")]
    pub offset_metadata_max_bytes: usize,
}

impl Default for KafkaConfig {
    fn default() -> Self {
        Self {
            auto_create_topics_enable: true,
            num_partitions: 1,
            socket_request_max_bytes: 100 * 1024 * 1024,
            queued_max_request_bytes: 256 * 1024 * 1024,
            max_inflight_requests: 64,
            max_inflight_bytes: 16 * 1024 * 1024,
            fetch_max_bytes: 55 * 1024 * 1024,
            max_incremental_fetch_session_cache_slots: 1_000,
            connections_max_idle_ms: 600_000,
            request_stall_ms: 30_000,
            group_initial_rebalance_delay_ms: 3_000,
            group_min_session_timeout_ms: 6_000,
            group_max_session_timeout_ms: 1_800_000,
            group_max_size: 1_000,
            groups_max: 100_000,
            groups_max_bytes: 256 * 1024 * 1024,
            offsets_retention_minutes: 7 * 24 * 60,
            offsets_retention_check_interval_ms: 600_000,
            offset_metadata_max_bytes: 4_096,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde::de::value::MapDeserializer;

    use super::*;

    #[test]
    fn names_are_kafkas_and_unknown_ones_are_refused() {
        let read = |pairs: &[(&str, u32)]| {
            KafkaConfig::deserialize(MapDeserializer::<_, serde::de::value::Error>::new(
                pairs.iter().copied(),
            ))
        };
        let config = read(&[("num.partitions", 3), ("group_max_size", 5)]).expect("reads");
        assert_eq!((config.num_partitions, config.group_max_size), (3, 5));
        assert!(read(&[("num.partition", 3)]).is_err());
    }
}
