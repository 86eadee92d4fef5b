//! The options of a topic that are served: names, types, defaults.

/// The type of an option, as DescribeConfigs numbers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OptionType {
    /// Text.
    String,
    /// A 32-bit number.
    Int,
    /// A 64-bit number.
    Long,
    /// A list, separated by commas.
    List,
}

/// One option of a topic.
#[derive(Debug)]
pub struct TopicOption {
    /// Its name.
    pub name: &'static str,
    /// Its type.
    pub kind: OptionType,
    /// Its value where nothing is set.
    pub default: &'static str,
    /// The broker's option that holds the default, if Kafka has one.
    pub synonym: Option<&'static str>,
    /// What it does, in a sentence.
    pub documentation: &'static str,
}

/// Every option of a topic, by name.
pub const OPTIONS: &[TopicOption] = &[
    TopicOption {
        name: "cleanup.policy",
        kind: OptionType::List,
        default: "delete",
        synonym: Some("log.cleanup.policy"),
        documentation: "How old records go. Only delete is served.",
    },
    TopicOption {
        name: "compression.type",
        kind: OptionType::String,
        default: "producer",
        synonym: Some("compression.type"),
        documentation: "Batches are stored as their producer compressed them.",
    },
    TopicOption {
        name: "interflow.durability",
        kind: OptionType::String,
        default: "durable",
        synonym: None,
        documentation: "When an append is acknowledged: durable (synced to disk), replicated or volatile (in memory).",
    },
    TopicOption {
        name: "max.message.bytes",
        kind: OptionType::Int,
        default: "1048588",
        synonym: Some("message.max.bytes"),
        documentation: "The largest record batch that is taken, in bytes.",
    },
    TopicOption {
        name: "message.timestamp.after.max.ms",
        kind: OptionType::Long,
        default: "3600000",
        synonym: Some("log.message.timestamp.after.max.ms"),
        documentation: "How far a record's timestamp may lie after the broker's clock.",
    },
    TopicOption {
        name: "message.timestamp.before.max.ms",
        kind: OptionType::Long,
        default: "9223372036854775807",
        synonym: Some("log.message.timestamp.before.max.ms"),
        documentation: "How far a record's timestamp may lie before the broker's clock.",
    },
    TopicOption {
        name: "message.timestamp.type",
        kind: OptionType::String,
        default: "CreateTime",
        synonym: Some("log.message.timestamp.type"),
        documentation: "Whose clock stamps a record: CreateTime (the producer) or LogAppendTime (the broker).",
    },
    TopicOption {
        name: "min.insync.replicas",
        kind: OptionType::Int,
        default: "1",
        synonym: Some("min.insync.replicas"),
        documentation: "How many replicas must have a record before it is acknowledged; never fewer than a majority.",
    },
    TopicOption {
        name: "retention.bytes",
        kind: OptionType::Long,
        default: "-1",
        synonym: Some("log.retention.bytes"),
        documentation: "The size of a partition beyond which its oldest segments are dropped; -1 sets no bound.",
    },
    TopicOption {
        name: "retention.ms",
        kind: OptionType::Long,
        default: "604800000",
        synonym: Some("log.retention.ms"),
        documentation: "The age beyond which segments are dropped; -1 keeps them for good.",
    },
    TopicOption {
        name: "segment.bytes",
        kind: OptionType::Int,
        default: "1073741824",
        synonym: Some("log.segment.bytes"),
        documentation: "The size at which a segment is closed and the next one opened.",
    },
    TopicOption {
        name: "segment.ms",
        kind: OptionType::Long,
        default: "604800000",
        synonym: Some("log.roll.ms"),
        documentation: "The age at which a segment is closed and the next one opened.",
    },
];

/// The option of that name.
pub fn option(name: &str) -> Option<&'static TopicOption> {
    OPTIONS.iter().find(|option| option.name == name)
}
