//! The statements of Kafka's protocol that the broker keeps, and those of the bridge to MQTT, each
//! named by its number in `tests/STATEMENTS.md`: the real binary, real sockets.
//!
//! ```text
//!   client ── requests and answers      connection   produce   fetch   offsets
//!   batch ── record batches by hand     topics       groups    bridge
//! ```
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

#[path = "../support/broker.rs"]
mod broker;
#[path = "../mqtt/client.rs"]
#[allow(dead_code, reason = "written for the tests of MQTT's statements")]
mod mqtt;
#[path = "../mqtt/wire.rs"]
#[allow(dead_code, reason = "written for the tests of MQTT's statements")]
mod wire;

mod batch;
mod client;

mod bridge;
mod connection;
mod fetch;
mod groups;
mod offsets;
mod produce;
mod topics;
