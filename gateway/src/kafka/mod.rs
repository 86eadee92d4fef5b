//! Kafka: requests in, log appends and reads out.
//!
//! ```text
//!   net::Stream ─► connection ─► frame (validated) ─► route ─┬─► data: Produce, Fetch, …
//!                   in order                                 ├─► admin: Metadata, topics, configs
//!                                                            └─► groups: classic consumer groups
//! ```

mod admin;
mod broker;
mod brokers;
mod budget;
mod config;
mod connection;
pub mod data;
pub mod frame;
mod groups;
mod metrics;
mod producers;
mod route;
mod sasl;
mod server;
#[cfg(test)]
mod testing;

pub use crate::cluster::Endpoint;
pub use broker::Deps;
pub use config::KafkaConfig;
pub use metrics::{Counter, LATENCY_BOUNDS_US, Latency, Metrics};
pub use sasl::fuzz_plain;
pub use server::Server;
