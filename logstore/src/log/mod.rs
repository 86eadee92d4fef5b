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
mod closing;
mod config;
mod current;
mod deleted;
mod gather;
mod healing;
mod lags;
mod links;
mod load;
mod mend;
mod metrics;
mod open;
mod outbox;
mod peering;
mod progress;
mod pulling;
mod query;
mod read;
mod recover;
mod recovering;
mod registry;
mod replicas;
mod resign;
mod retain;
mod scrub;
mod seals;
mod service;
mod sources;
mod standalone;
mod state;
mod take;
#[cfg(test)]
mod tests;
mod timers;
mod waiting;
mod walking;

pub use config::LogConfig;
pub use lags::ReplicaLags;
pub use metrics::LogMetrics;
pub use progress::Progress;
pub use service::{Health, Identity, LogStore};
