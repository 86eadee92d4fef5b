//! `interflow standalone`: what it is put together from, in the order in which it starts.
//!
//! ```text
//!   disks ─► meta ─► log store ─► topics, users ─► mqtt broker, kafka server ─► listeners, admin
//! ```
//!
//! It stops in the reverse order: listeners first, then the protocols (clients are told), then
//! the logs (appends in flight are finished), then meta.

mod disks;
mod listen;
mod metadata;
mod metrics;
mod standalone;
mod stores;
mod stream;
mod welcome;

pub use disks::Disks;
pub use standalone::Standalone;
