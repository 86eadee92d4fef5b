//! The requests that move records: Produce, Fetch, ListOffsets, OffsetForLeaderEpoch, and
//! InitProducerId.
//!
//! ```text
//!   Produce  frame ─► walked once ─► each batch checked, its append started, in request order
//!                                    └─► tickets awaited later ─► answer
//!   Fetch    frame ─► session ─► read what is there ─► too little? wait for a log's news ─► answer
//! ```
//!
//! A connection calls [`DataPlane::start_produce`] for its requests in the order in which they
//! came, so their appends have that order, and awaits the returned [`Produce::finish`] when it is
//! the request's turn to be answered. The other requests are plain `async fn`s; dropping their
//! future is safe at any time.
//!
//! Batches pass through as they are: a request's records are slices of its frame, a response's
//! are slices of what the log lends.

mod body;
mod errors;
mod fetch;
mod fuzz;
mod leader_epoch;
mod list_offsets;
mod plane;
mod produce;
mod producer_id;
mod topic;
mod wire;

#[cfg(test)]
pub(crate) mod fake;
#[cfg(test)]
mod over_journal;
#[cfg(test)]
mod tests;

pub use body::Body;
pub use fuzz::fuzz_bodies;
pub use plane::{DataLimits, DataPlane};
pub use produce::{Produce, ProduceAnswer};
pub use producer_id::{ProducerIdError, ProducerIdSource};
