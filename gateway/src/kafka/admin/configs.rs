//! How configurations are shown: numbers of types and sources, and the options of the broker.

use crate::kafka::config::KafkaConfig;
use crate::topics::OptionType;

/// A topic's own value.
pub(super) const SOURCE_TOPIC: i8 = 1;
/// From the file, the environment or the command line, or the default.
pub(super) const SOURCE_STATIC: i8 = 4;
/// The default.
pub(super) const SOURCE_DEFAULT: i8 = 5;

/// Where a topic's value comes from.
pub(super) fn source(is_set: bool) -> i8 {
    if is_set { SOURCE_TOPIC } else { SOURCE_DEFAULT }
}

/// The number of a type.
pub(super) fn type_code(kind: OptionType) -> i8 {
    match kind {
        OptionType::String => 2,
        OptionType::Int => 3,
        OptionType::Long => 5,
        OptionType::List => 7,
    }
}

const BOOLEAN: i8 = 1;
const INT: i8 = 3;
const LONG: i8 = 5;

/// An option of the broker as it is shown.
pub(super) struct BrokerOption {
    pub(super) name: &'static str,
    pub(super) kind: i8,
    pub(super) value: String,
    pub(super) default: String,
}

/// The options of the broker that Kafka has, too.
pub(super) fn broker_options(config: &KafkaConfig, node: i32) -> Vec<BrokerOption> {
    let default = KafkaConfig::default();
    macro_rules! options {
        ($($name:literal $kind:ident $field:ident),* $(,)?) => {
            vec![$(BrokerOption {
                name: $name,
                kind: $kind,
                value: config.$field.to_string(),
                default: default.$field.to_string(),
            }),*]
        };
    }
    let mut all = options![
        "auto.create.topics.enable" BOOLEAN auto_create_topics_enable,
        "connections.max.idle.ms" LONG connections_max_idle_ms,
        "fetch.max.bytes" INT fetch_max_bytes,
        "group.initial.rebalance.delay.ms" INT group_initial_rebalance_delay_ms,
        "group.max.session.timeout.ms" INT group_max_session_timeout_ms,
        "group.max.size" INT group_max_size,
        "group.min.session.timeout.ms" INT group_min_session_timeout_ms,
        "max.incremental.fetch.session.cache.slots" INT max_incremental_fetch_session_cache_slots,
        "num.partitions" INT num_partitions,
        "offset.metadata.max.bytes" INT offset_metadata_max_bytes,
        "offsets.retention.check.interval.ms" LONG offsets_retention_check_interval_ms,
        "offsets.retention.minutes" INT offsets_retention_minutes,
        "queued.max.request.bytes" LONG queued_max_request_bytes,
        "socket.request.max.bytes" INT socket_request_max_bytes,
    ];
    let fixed =
        |name, kind, value: String| BrokerOption { name, kind, default: value.clone(), value };
    all.push(fixed("broker.id", INT, node.to_string()));
    all.push(fixed("node.id", INT, node.to_string()));
    all.push(fixed("default.replication.factor", INT, "1".to_owned()));
    all
}
