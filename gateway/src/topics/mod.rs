//! The directory of topics, shared by all protocols: names, ids, partitions and configurations.
//!
//! ```text
//!   meta ── watch ──► Topics ── ArcSwap ──► Snapshot: get, by_id, all
//!     ▲                 │
//!     └─ create, delete, alter_config ──► LogClient::refresh
//!          └ Placement: on which log stores
//! ```

mod config;
mod directory;
mod error;
pub mod name;
mod options;
mod placement;
mod snapshot;
#[cfg(test)]
mod tests;

pub use config::{ConfigChange, ConfigError, Overrides, TimestampType, TopicConfig};
pub use directory::{NewTopic, Topics, TopicsOptions};
pub use error::{TopicError, Unplaceable};
pub use options::{OPTIONS, OptionType, TopicOption, option};
pub use placement::Placement;
pub use snapshot::{Snapshot, Topic};
