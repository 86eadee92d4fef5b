//! What a log decides, as plain structs: no I/O, no clock, no randomness.
//!
//! ```text
//!   append ─► sequencer (offset, append key, commit) ─► what to journal, whom to answer
//!                └ producers (who appended what)
//!   chain (which segment holds an offset) · roll (when to open the next) · retention (what may go)
//!
//!   replication (sequencer and peers) ◄─ stored, gap, sealed ─► replica (one a node and segment)
//!   planned (live close) ─┐                                        ▲ seal, repair
//!                         ├─► closing (one transaction)         recovery (crash close)
//!   recovery ─────────────┘     └ place (the next one's nodes)
//! ```
//!
//! The invariants that assertions and tests cite:
//!
//! | | |
//! |---|---|
//! | I1 | an acknowledged record is below the closed tail, and is what every read returns |
//! | I2 | nothing is acknowledged at or past the closed tail of its segment |
//! | I3 | a segment closes once; the next begins at its end, or past it after a crash close of a log that isn't durable |
//! | I4 | a closed segment is on at least Q replicas, unless it is marked short |
//! | I5 | an acknowledged record is durable on at least Q replicas |
//! | I6 | a reported durable end never goes back over a restart; no holes |
//! | I7 | committed is at most the Q-th largest durable end, and never goes back for any observer |
//! | I8 | an append key is at most once in the log |
//! | I9 | a seal is never unset |
//! | I10 | an epoch has one life of one node as its sequencer |
//! | I11 | trim is at most committed |
//! | I12 | an unknown commit resolves to exactly one chain |
//!
//! I1, I2, I4 and I5 hold for durable logs.

pub(crate) mod chain;
#[cfg_attr(not(test), expect(dead_code, reason = "wired with the replicated log's processes"))]
pub(crate) mod closing;
#[cfg_attr(not(test), expect(dead_code, reason = "wired with the replicated log's processes"))]
pub(crate) mod early;
#[cfg(test)]
mod model;
pub(crate) mod place;
#[cfg_attr(not(test), expect(dead_code, reason = "wired with the replicated log's processes"))]
pub(crate) mod planned;
pub(crate) mod producers;
#[cfg_attr(not(test), expect(dead_code, reason = "wired with the replicated log's processes"))]
pub(crate) mod recovery;
#[cfg_attr(not(test), expect(dead_code, reason = "wired with the replicated log's processes"))]
pub(crate) mod replica;
#[cfg_attr(not(test), expect(dead_code, reason = "wired with the replicated log's processes"))]
pub(crate) mod replication;
pub(crate) mod retention;
pub(crate) mod roll;
pub(crate) mod rules;
pub(crate) mod segment;
pub(crate) mod sequencer;
