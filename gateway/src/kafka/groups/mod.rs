//! Classic consumer groups: membership, and committed offsets, of the groups that are this gateway's.
//!
//! ```text
//!   api ─► Groups ─► Slot ─► core::Group ─► effects ─┬─► answers
//!            ▲  timers: one task                     └─► Writer ─► meta ─► core::Group::saved
//!            └── read from meta and claimed when first asked for, forgotten when idle
//! ```
//!
//! Which groups are this gateway's is a matter of its view of all gateways, and views differ for a
//! while. So it claims a group in meta with the read, and every write holds that claim: two gateways
//! that both take themselves for its coordinator take turns, each from where the other has written
//! last, and what was answered as done stands.
//!
//! All writes of a group go through its writer, in the order in which they were accepted, many in
//! one transaction; what is answered as done is durable.

pub(super) mod api;
mod core;
mod expiry;
mod ownership;
#[cfg(test)]
mod races;
mod registry;
mod slot;
mod store;
mod timers;
mod writer;

pub(super) use registry::Groups;
