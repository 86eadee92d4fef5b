//! What a log decides, as plain structs: no I/O, no clock, no randomness.
//!
//! ```text
//!   append ─► sequencer (offset, append key, commit) ─► what to journal, whom to answer
//!                └ producers (who appended what)
//!   chain (which segment holds an offset) · roll (when to open the next) · retention (what may go)
//! ```

pub(crate) mod chain;
pub(crate) mod producers;
pub(crate) mod retention;
pub(crate) mod roll;
pub(crate) mod sequencer;
