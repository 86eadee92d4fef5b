//! The roles: what each is put together from, in the order in which it starts.
//!
//! ```text
//!   standalone   disks ─► meta ─► log part ──────────────► gateway part ─► listeners, admin
//!   logstore     disks ─► meta ─► log part ─► gRPC, admin
//!   gateway               meta ─► seat ─► router ────────► gateway part ─► listeners, admin
//! ```
//!
//! A log part is a disk, a seat among the nodes, and a log store; a gateway part is users, topics,
//! MQTT and Kafka over any [`LogClient`](interflow_logstore::LogClient).
//!
//! A process stops in the reverse order: listeners first, then the protocols (clients are told), then
//! the logs (appends in flight are finished), then its seat, then meta.

mod access;
mod disks;
mod gateway;
mod gateway_part;
mod health;
mod listen;
mod log_part;
mod logstore;
mod metadata;
mod metrics;
mod seat;
mod serving;
mod standalone;
mod stream;
mod views;
mod welcome;

pub use disks::Disks;
pub use gateway::Gateway;
pub use logstore::Logstore;
pub use standalone::Standalone;
