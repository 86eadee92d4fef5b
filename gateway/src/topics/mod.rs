//! The directory of topics, shared by all protocols: names, ids, partitions and configurations.
//!
//! ```text
//!   meta ── watch ──► Topics ── ArcSwap ──► Snapshot: get, by_id, all
//!     ▲                 │
//!     └─ create, delete, alter_config ──► LogClient::refresh
//! ```

mod config;
mod directory;
pub mod name;
mod snapshot;

pub use config::{
    ConfigError, OPTIONS, OptionType, Overrides, TimestampType, TopicConfig, TopicOption, option,
};
pub use directory::Topics;
pub use snapshot::{Snapshot, Topic};
