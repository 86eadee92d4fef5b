//! The statements of the MQTT specifications that the broker keeps, one test or more for each, named
//! by its number in `tests/STATEMENTS.md`: the real binary, real sockets, bytes written by hand.
//!
//! ```text
//!   wire ── packets as bytes          connect  will   publish  alias   subscribe  shared
//!   client ── a connection            retained order  errors   utf8    websocket
//! ```
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

#[path = "../support/broker.rs"]
mod broker;
mod client;
mod wire;

mod alias;
mod connect;
mod errors;
mod order;
mod publish;
mod retained;
mod session;
mod shared;
mod subscribe;
mod utf8;
mod websocket;
mod will;
