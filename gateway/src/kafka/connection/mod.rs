//! One connection: requests are read ahead, run in order, and answered in order (K2).
//!
//! ```text
//!   stream ─► Frames ─► cut ─► queue ─────────► running ─► Outbox ─► stream
//!              │         │       Produce begun     one at a time
//!            bounded   budget    when cut
//! ```
//!
//! One task does it all. It reads on while a request runs, as far as its bounds on requests and
//! bytes allow, so appends of many Produce requests are in flight at once.

mod driver;
mod frames;
mod intake;
mod outbox;
mod patience;
mod pending;
#[cfg(test)]
mod tests;

pub(super) use driver::run;
