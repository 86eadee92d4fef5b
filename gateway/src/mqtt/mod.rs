//! MQTT: sessions, publishes and deliveries over log tails.
//!
//! ```text
//!   connection ── publish ──► LogClient::append           answered when it is committed
//!       ▲                          │ observed
//!       │                          ▼
//!    session ◄── routes ◄── deliver: one tail a log       pushed while the client keeps up
//!       └───────── deliver::feed ──┘                      else read from the session's cursors
//!
//!   retained, shared, will, timers, sys: what the rest of the protocol needs
//! ```

mod broker;
mod clock;
pub mod codec;
mod config;
mod connection;
mod deliver;
mod gate;
mod lifecycle;
mod metrics;
mod publish;
mod retained;
mod routes;
mod session;
mod shared;
mod subscriptions;
mod sys;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod timers;
pub mod topic;
mod will;

pub use broker::{Broker, BrokerDeps, StartError};
pub use clock::{SystemWallClock, WallClock};
pub use config::MqttConfig;
pub use deliver::{fuzz_record, record_seeds};
pub use metrics::{BatchSizes, ByQoS, Counter, MqttMetrics};
