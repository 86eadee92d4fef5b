//! The directory of topics, shared by all protocols: names, ids, partitions and configurations.
//!
//! ```text
//!   meta ── watch ──► Topics ── ArcSwap ──► Snapshot: get, by_id, all
//!     ▲                 │
//!     └─ create, delete, alter_config ──► LogClient::refresh
//! ```

mod config;
mod directory;
mod error;
pub mod name;
mod snapshot;
#[cfg(test)]
mod tests;

pub use config::{
    ConfigChange, ConfigError, OPTIONS, OptionType, Overrides, TimestampType, TopicConfig,
    TopicOption, option,
};
pub use directory::{NewTopic, Topics, TopicsOptions};
pub use error::TopicError;
pub use snapshot::{Snapshot, Topic};
