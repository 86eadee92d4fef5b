//! The log service by both transports: what it promises, and what becomes of that when connections
//! break, servers start again and readers are slow.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and takes real clocks"
)]

mod access;
mod bed;
mod cluster;
mod cuts;
mod failover;
mod fake;
mod flow;
#[path = "../../../meta/tests/remote_faults/proxy.rs"]
#[allow(dead_code, reason = "not all of it is used here")]
mod proxy;
mod raw;
mod reads;
mod routing;
mod suite;
