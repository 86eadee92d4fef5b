//! Interflow's protocol gateway: MQTT and Kafka over the log service.
//!
//! ```text
//!   net ──► mqtt ──┐              records: Kafka's RecordBatch v2, read and written
//!    │             ├─► topics ──► logstore::LogClient
//!    └────► kafka ─┘              auth: users; admin: HTTP; cluster: the other gateways
//! ```
//!
//! `mqtt` and `kafka` never import each other; what they share has a room of its own.

pub mod admin;
pub mod auth;
pub mod cluster;
pub mod kafka;
pub mod mqtt;
pub mod net;
pub mod records;
pub mod topics;
