//! One classic consumer group as a plain state machine: no I/O, no clock, no randomness.
//!
//! ```text
//!            join                     all joined, or time is up         leader synced and saved
//!   Empty ────────► PreparingRebalance ───────────────► CompletingRebalance ───────────► Stable
//!     ▲                ▲    ▲   (generation + 1)              │                             │
//!     └── no members ──┘    └────── join, leave, timeout ─────┴─────────────────────────────┘
//! ```
//!
//! Calls take the time and push [`Effect`]s: answers to requests that wait, and states to save.

mod group;
mod join;
mod member;
mod rebalance;
mod saved;
mod sync;
#[cfg(test)]
mod tests;
mod timers;
mod types;

pub(crate) use group::{Description, Group, State};
pub(crate) use saved::Saved;
pub(crate) use types::{Answer, Effect, Identity, Join, Joined, Ms, Name, SaveId, Settings, Sync};
