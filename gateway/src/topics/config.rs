//! The configuration of a topic: Kafka's options that are served, typed.

use std::collections::BTreeMap;
use std::sync::Arc;

use interflow_meta::Durability;
use interflow_meta::logs::Policy;

use super::options::{OptionType, TopicOption, option};

/// The values that were set for a topic, by name: what is kept in meta.
pub type Overrides = BTreeMap<String, String>;

/// Who sets a record's timestamp.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TimestampType {
    /// The producer.
    #[default]
    CreateTime,
    /// The broker, when it appends.
    LogAppendTime,
}

/// A value that can't be served.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// No such option.
    #[error("unknown topic config name: {0}")]
    Unknown(String),
    /// The value isn't one of the option, or isn't served.
    #[error("invalid value {value} for configuration {name}: {why}")]
    Value {
        /// The option.
        name: &'static str,
        /// The value that was given.
        value: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Together the values are larger than what can be kept.
    #[error("the configuration of a topic is too large")]
    TooLarge,
}

/// One change of a configuration (IncrementalAlterConfigs).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigChange {
    /// Sets the value.
    Set(String),
    /// Goes back to the default.
    Unset,
    /// Adds to a list.
    Append(String),
    /// Takes from a list.
    Subtract(String),
}

/// The values in force for a topic. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicConfig {
    overrides: Arc<Overrides>,
    /// Segments whose newest record is older are dropped; `None` keeps them for good.
    pub retention_ms: Option<u64>,
    /// A partition's oldest segments are dropped beyond this; `None` sets no bound.
    pub retention_bytes: Option<u64>,
    /// A segment is closed at this size.
    pub segment_bytes: u64,
    /// A segment is closed at this age.
    pub segment_ms: u64,
    /// The largest batch, as it was sent, header included.
    pub max_message_bytes: usize,
    /// Who sets the timestamps.
    pub timestamp_type: TimestampType,
    /// A record's timestamp may lie this far before the broker's clock.
    pub timestamp_before_max_ms: u64,
    /// A record's timestamp may lie this far after the broker's clock.
    pub timestamp_after_max_ms: u64,
    /// When an append is acknowledged.
    pub durability: Durability,
    /// So many replicas at least have an append before it is acknowledged; never fewer than a
    /// majority.
    pub min_insync_replicas: u32,
}

impl TopicConfig {
    /// The configuration of a topic for which `overrides` are set.
    ///
    /// # Errors
    /// The first option that is unknown or whose value isn't served (K14a).
    pub fn new(overrides: Overrides) -> Result<Self, ConfigError> {
        let mut config = Self::default();
        for (name, value) in &overrides {
            config.apply(name, value)?;
        }
        config.overrides = Arc::new(overrides);
        Ok(config)
    }

    /// The configuration that meta holds. What a newer version of this software wrote and this one
    /// doesn't know is kept, without effect.
    pub fn stored(overrides: Overrides) -> Self {
        let mut config = Self::default();
        for (name, value) in &overrides {
            if let Err(error) = config.apply(name, value) {
                tracing::warn!(%error, "a topic's stored configuration has no effect");
            }
        }
        config.overrides = Arc::new(overrides);
        config
    }

    /// The configuration after `changes`, in their order.
    ///
    /// # Errors
    /// The first change that isn't served. When records are acknowledged is decided for good when
    /// a topic is created.
    pub fn altered(&self, changes: &[(String, ConfigChange)]) -> Result<Self, ConfigError> {
        let mut overrides = (*self.overrides).clone();
        for (name, change) in changes {
            let option = option(name).ok_or_else(|| ConfigError::Unknown(name.clone()))?;
            let edit = |edit: &dyn Fn(&mut Vec<String>), value: &str| {
                if option.kind != OptionType::List {
                    let why = "only the values of lists can be appended or subtracted";
                    return Err(ConfigError::Value { name: option.name, value: value.into(), why });
                }
                let present = overrides.get(name).map_or(option.default, String::as_str);
                let split = present.split(',').map(str::trim).filter(|item| !item.is_empty());
                let mut items: Vec<String> = split.map(str::to_owned).collect();
                edit(&mut items);
                Ok(items.join(","))
            };
            let value = match change {
                ConfigChange::Set(value) => Some(value.clone()),
                ConfigChange::Unset => None,
                ConfigChange::Append(value) => Some(edit(
                    &|items| {
                        for item in value.split(',').map(str::trim) {
                            if !items.iter().any(|have| have == item) {
                                items.push(item.to_owned());
                            }
                        }
                    },
                    value,
                )?),
                ConfigChange::Subtract(value) => Some(edit(
                    &|items| items.retain(|have| !value.split(',').any(|v| v.trim() == have)),
                    value,
                )?),
            };
            match value {
                Some(value) => overrides.insert(name.clone(), value),
                None => overrides.remove(name),
            };
        }
        let altered = Self::new(overrides)?;
        if altered.durability != self.durability {
            return Err(ConfigError::Value {
                name: "interflow.durability",
                value: altered.overrides.get("interflow.durability").cloned().unwrap_or_default(),
                why: "it is decided for good when the topic is created",
            });
        }
        Ok(altered)
    }

    /// How the topic's logs are kept.
    pub fn policy(&self) -> Policy {
        Policy {
            retention_ms: self.retention_ms,
            retention_bytes: self.retention_bytes,
            segment_bytes: self.segment_bytes,
            segment_ms: self.segment_ms,
            min_acks: self.min_insync_replicas,
        }
    }

    /// Whether a topic of so many replicas can have this configuration.
    ///
    /// # Errors
    /// It wants more of them to be in sync than there are.
    pub fn check_replicas(&self, replicas: u32) -> Result<(), ConfigError> {
        if self.min_insync_replicas <= replicas {
            return Ok(());
        }
        Err(ConfigError::Value {
            name: MIN_INSYNC_REPLICAS,
            value: self.min_insync_replicas.to_string(),
            why: "the topic has fewer replicas",
        })
    }

    /// What was set, as opposed to defaults.
    pub fn overrides(&self) -> &Overrides {
        &self.overrides
    }

    /// The value in force of an option, as text, and whether it was set for this topic.
    pub fn value(&self, option: &TopicOption) -> (&str, bool) {
        match self.overrides.get(option.name) {
            Some(value) => (value, true),
            None => (option.default, false),
        }
    }

    fn apply(&mut self, name: &str, value: &str) -> Result<(), ConfigError> {
        let option = option(name).ok_or_else(|| ConfigError::Unknown(name.into()))?;
        let refuse = |why| Err(ConfigError::Value { name: option.name, value: value.into(), why });
        let long = |min: i64, max: i64| match value.trim().parse::<i64>() {
            Ok(number) if (min..=max).contains(&number) => Ok(number),
            Ok(_) => Err(ConfigError::Value {
                name: option.name,
                value: value.into(),
                why: "out of range",
            }),
            Err(_) => Err(ConfigError::Value {
                name: option.name,
                value: value.into(),
                why: "not a number",
            }),
        };
        // `None` for the -1 that stands for "no bound".
        let bound = |number: i64| u64::try_from(number).ok();
        match option.name {
            "cleanup.policy" if value != "delete" => {
                return refuse("only delete is served; compaction is not");
            }
            "compression.type" if value != "producer" => {
                return refuse("only producer is served; batches are never compressed again");
            }
            MIN_INSYNC_REPLICAS => {
                let number = long(1, i64::from(i32::MAX))?;
                self.min_insync_replicas = u32::try_from(number).unwrap_or(u32::MAX);
            }
            "interflow.durability" => {
                self.durability = match value {
                    "durable" => Durability::Durable,
                    "replicated" => Durability::Replicated,
                    "volatile" => Durability::Volatile,
                    _ => return refuse("must be durable, replicated or volatile"),
                };
            }
            "max.message.bytes" => {
                let number = long(0, MAX_MESSAGE_BYTES)?;
                self.max_message_bytes = usize::try_from(number).unwrap_or(0);
            }
            "message.timestamp.after.max.ms" => {
                self.timestamp_after_max_ms = bound(long(0, i64::MAX)?).unwrap_or(0);
            }
            "message.timestamp.before.max.ms" => {
                self.timestamp_before_max_ms = bound(long(0, i64::MAX)?).unwrap_or(0);
            }
            "message.timestamp.type" => {
                self.timestamp_type = match value {
                    "CreateTime" => TimestampType::CreateTime,
                    "LogAppendTime" => TimestampType::LogAppendTime,
                    _ => return refuse("must be CreateTime or LogAppendTime"),
                };
            }
            "retention.bytes" => self.retention_bytes = bound(long(-1, i64::MAX)?),
            "retention.ms" => self.retention_ms = bound(long(-1, i64::MAX)?),
            "segment.bytes" => {
                let number = long(MIN_SEGMENT_BYTES, i64::from(i32::MAX))?;
                self.segment_bytes = bound(number).unwrap_or(self.segment_bytes);
            }
            "segment.ms" => {
                self.segment_ms = bound(long(1, i64::MAX)?).unwrap_or(self.segment_ms);
            }
            _ => {}
        }
        Ok(())
    }
}

pub(super) const MIN_INSYNC_REPLICAS: &str = "min.insync.replicas";

/// A batch has to fit into memory several times over, whatever a topic says.
const MAX_MESSAGE_BYTES: i64 = 64 * 1024 * 1024;

/// Smaller segments would cost more in footers and metadata than they hold.
const MIN_SEGMENT_BYTES: i64 = 16 * 1024;

impl Default for TopicConfig {
    fn default() -> Self {
        Self {
            overrides: Arc::default(),
            retention_ms: Some(604_800_000),
            retention_bytes: None,
            segment_bytes: 1024 * 1024 * 1024,
            segment_ms: 604_800_000,
            max_message_bytes: 1_048_588,
            timestamp_type: TimestampType::CreateTime,
            timestamp_before_max_ms: u64::try_from(i64::MAX).unwrap_or(u64::MAX),
            timestamp_after_max_ms: 3_600_000,
            durability: Durability::Durable,
            min_insync_replicas: 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::options::OPTIONS;
    use super::*;

    fn with(name: &str, value: &str) -> Result<TopicConfig, ConfigError> {
        TopicConfig::new([(name.to_owned(), value.to_owned())].into())
    }

    #[test]
    fn the_default_of_every_option_is_what_is_in_force_by_default() {
        for option in OPTIONS {
            let mut set = with(option.name, option.default).expect(option.name);
            assert_eq!(set.value(option), (option.default, true));
            set.overrides = Arc::default();
            assert_eq!(set, TopicConfig::default(), "{}", option.name);
        }
    }

    #[test]
    fn k21_values_are_typed_and_bounded() {
        assert_eq!(with("retention.ms", "-1").expect("no bound").retention_ms, None);
        assert_eq!(with("retention.ms", "5").expect("5 ms").retention_ms, Some(5));
        assert_eq!(with("retention.bytes", "7").expect("7 B").retention_bytes, Some(7));
        assert_eq!(with("segment.bytes", "65536").expect("64 KiB").segment_bytes, 65536);
        assert_eq!(
            with("message.timestamp.type", "LogAppendTime").expect("type").timestamp_type,
            TimestampType::LogAppendTime
        );
        assert_eq!(
            with("interflow.durability", "volatile").expect("class").durability,
            Durability::Volatile
        );
        let two = with("min.insync.replicas", "2").expect("two");
        assert_eq!((two.min_insync_replicas, two.policy().min_acks), (2, 2));
        assert!(two.check_replicas(2).is_ok() && two.check_replicas(1).is_err());
        for (name, value) in [
            ("retention.ms", "-2"),
            ("retention.ms", "x"),
            ("retention.ms", "9223372036854775808"),
            ("segment.bytes", "100"),
            ("segment.bytes", "2147483648"),
            ("segment.ms", "0"),
            ("max.message.bytes", "-1"),
            ("min.insync.replicas", "0"),
            ("max.message.bytes", "2147483647"),
            ("message.timestamp.type", "createtime"),
            ("interflow.durability", "none"),
        ] {
            assert!(matches!(with(name, value), Err(ConfigError::Value { .. })), "{name}={value}");
        }
    }

    #[test]
    fn k14a_what_is_not_served_is_refused() {
        for (name, value) in [
            ("cleanup.policy", "compact"),
            ("cleanup.policy", "compact,delete"),
            ("compression.type", "zstd"),
        ] {
            assert!(matches!(with(name, value), Err(ConfigError::Value { .. })), "{name}={value}");
        }
        assert_eq!(with("flush.ms", "1"), Err(ConfigError::Unknown("flush.ms".into())));
    }

    #[test]
    fn k21_changes_apply_in_order_and_lists_are_edited() {
        let base = with("retention.ms", "5").expect("5 ms");
        let change = |changes: &[(&str, ConfigChange)]| {
            let changes: Vec<_> =
                changes.iter().map(|(name, change)| ((*name).to_owned(), change.clone())).collect();
            base.altered(&changes)
        };
        let set = |value: &str| ConfigChange::Set(value.to_owned());
        let altered = change(&[("retention.ms", set("7")), ("segment.ms", set("9"))]);
        assert_eq!(altered.expect("both").retention_ms, Some(7));
        let altered = change(&[("retention.ms", ConfigChange::Unset)]).expect("back to default");
        assert_eq!(altered, TopicConfig::default());
        assert!(change(&[("retention.ms", ConfigChange::Append("7".into()))]).is_err());
        assert!(change(&[("cleanup.policy", ConfigChange::Append("delete".into()))]).is_ok());
        assert!(change(&[("cleanup.policy", ConfigChange::Append("compact".into()))]).is_err());
        assert!(change(&[("cleanup.policy", ConfigChange::Subtract("delete".into()))]).is_err());
        assert!(change(&[("nothing", ConfigChange::Unset)]).is_err());
        assert!(change(&[("interflow.durability", set("volatile"))]).is_err());
    }

    #[test]
    fn what_a_newer_version_stored_is_kept_without_effect() {
        let stored = TopicConfig::stored(
            [("future".to_owned(), "1".to_owned()), ("retention.ms".to_owned(), "9".to_owned())]
                .into(),
        );
        assert_eq!(stored.retention_ms, Some(9));
        assert_eq!(stored.overrides().get("future").map(String::as_str), Some("1"));
    }
}
