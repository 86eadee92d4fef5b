//! Who takes part in the cluster now, as this process sees it.
//!
//! ```text
//!   Members ── every third of a lease ──► one transaction: the own lease is bumped, all nodes are read
//!      │                                                         │
//!      ├─ OwnLease: sent when? over?   ◄── bumped ───────────────┤
//!      └─ Roster: who rose, and when?  ◄── rows ─────────────────┘ ──► View, changes()
//! ```
//!
//! Leases need no common clock. A member bumps a counter; every other one sees, by its own clock,
//! how long the counter stands still, and takes the member for dead after the time of its lease.
//! That is a guess, good for choosing where to go. What must be right is a transaction that names
//! the counter ([`nodes::get`](crate::nodes::get) and [`Node::lease`](crate::nodes::Node::lease)):
//! a late bump wins or loses against it cleanly.

mod operate;
mod own;
mod registration;
mod roster;
mod run;
#[cfg(test)]
mod tests;
mod view;

pub use operate::{OperateError, drain, remove};
pub use own::LifeOver;
pub use registration::{RegisterError, Registration};
pub use run::{Me, Members, MembersOptions};
pub use view::{Member, View};
