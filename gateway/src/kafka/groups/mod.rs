//! Classic consumer groups: membership, and committed offsets.
//!
//! ```text
//!   api ─► Groups ─► Slot ─► core::Group ─► effects ─┬─► answers
//!            ▲  timers: one task                     └─► Writer ─► meta ─► core::Group::saved
//!            └── read from meta when first asked for, forgotten when idle
//! ```
//!
//! All writes of a group go through its writer, in the order in which they were accepted, many in
//! one transaction; what is answered as done is durable.

pub(super) mod api;
mod core;
mod expiry;
mod registry;
mod slot;
mod store;
mod timers;
mod writer;

pub(super) use registry::Groups;
