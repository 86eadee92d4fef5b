//! The log service of one node, over a store of entries and meta.
//!
//! ```text
//!   append ─► log (lock) ─► sequencer ─► EntryStore ─┐
//!                ▲                                    │ durable
//!   load, open, roll (tasks) ◄── meta                 ▼
//!   read ◄── chain ◄── log          Progress ─► answers, observers
//! ```

mod append;
mod client;
mod config;
mod load;
mod metrics;
mod open;
mod outbox;
mod progress;
mod query;
mod read;
mod recover;
mod registry;
mod retain;
mod service;
mod standalone;
mod state;
mod take;
#[cfg(test)]
mod tests;
mod waiting;

pub use config::LogConfig;
pub use metrics::LogMetrics;
pub use progress::Progress;
pub use service::{Health, Identity, LogStore};
