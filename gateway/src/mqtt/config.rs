//! The limits and settings of MQTT.

use serde::{Deserialize, Serialize};

/// Every limit of MQTT. Sizes are bytes; names say what else a number counts.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MqttConfig {
    /// The Kafka topic whose records MQTT's messages are.
    pub topic: String,
    /// The largest packet that is taken, its fixed header included.
    pub max_packet_bytes: u32,
    /// The longest topic name or filter.
    pub max_topic_bytes: usize,
    /// The most levels of a topic name or filter.
    pub max_topic_levels: usize,
    /// The longest client identifier.
    pub max_client_id_bytes: usize,
    /// How long a connection may take until its CONNECT is there.
    pub connect_timeout_ms: u64,
    /// The longest keep-alive; a client that asks for more (or none) is told this one. 0: no bound.
    pub max_keep_alive_s: u16,
    /// The longest that a session outlives its connection. `u32::MAX` bounds nothing.
    pub max_session_expiry_s: u32,
    /// Sessions, connected or not: clients without one are refused past this.
    pub max_sessions: usize,
    /// QoS 1 and 2 PUBLISHes of a client that may be unacknowledged.
    pub receive_maximum: u16,
    /// QoS 1 and 2 PUBLISHes to a client that may be unacknowledged, of each QoS.
    pub max_in_flight: u16,
    /// Topic aliases that a client may set.
    pub topic_alias_maximum: u16,
    /// Topic aliases that are set towards a client, if it takes so many.
    pub outbound_topic_aliases: u16,
    /// Bytes that wait for a connection to take them: past this QoS 0 is dropped, and QoS 1 and 2
    /// wait in the log.
    pub max_outbound_bytes: usize,
    /// Bytes of QoS 1 and 2 messages that wait in memory for a client's acknowledgements; those
    /// past it wait in the log.
    pub max_pending_bytes: usize,
    /// Subscriptions of one session.
    pub max_subscriptions: usize,
    /// Memory that the subscriptions of one session may take, about: each takes 512 bytes, twice
    /// its filter, 256 bytes a level of one with wildcards, and 4 KiB more for a shared one.
    pub max_subscription_bytes: usize,
    /// Bytes of publishes that wait for one log.
    pub max_shard_bytes: usize,
    /// A batch is closed at this size.
    pub max_batch_bytes: usize,
    /// Batches of QoS 0 in flight to one log.
    pub max_early_batches: u16,
    /// What one read of a log may return.
    pub read_bytes: usize,
    /// What the records of one compressed batch may come to.
    pub max_decompressed_bytes: usize,
    /// Bytes of one log's records that stay decoded while sessions catch up, so that those which
    /// are near one another read them once.
    pub max_scan_bytes: usize,
    /// How often `$SYS` topics are published while somebody subscribes to them. 0: never.
    pub sys_interval_s: u64,
}

impl Default for MqttConfig {
    fn default() -> Self {
        Self {
            topic: "mqtt".into(),
            max_packet_bytes: 1 << 20,
            max_topic_bytes: 4096,
            max_topic_levels: 128,
            max_client_id_bytes: 1024,
            connect_timeout_ms: 10_000,
            max_keep_alive_s: 0,
            max_session_expiry_s: 7 * 24 * 3600,
            max_sessions: 2_000_000,
            receive_maximum: 1024,
            max_in_flight: 1024,
            topic_alias_maximum: 64,
            outbound_topic_aliases: 64,
            max_outbound_bytes: 1 << 20,
            max_pending_bytes: 128 << 10,
            max_subscriptions: 100_000,
            max_subscription_bytes: 64 << 20,
            max_shard_bytes: 16 << 20,
            max_batch_bytes: 512 << 10,
            max_early_batches: 32,
            read_bytes: 512 << 10,
            max_decompressed_bytes: 16 << 20,
            max_scan_bytes: 4 << 20,
            sys_interval_s: 10,
        }
    }
}
