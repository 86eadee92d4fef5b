//! Fetch: committed batches, as they are, when there are enough of them.
//!
//! ```text
//!   request ─► Sessions (KIP-227) ─► partitions wanted ─► read what is there ──► response
//!                                         ▲                      │ too little
//!                                         └── Feeds: news of a log, no polling ◄┘
//! ```

mod ahead;
mod feed;
mod gather;
mod handle;
mod request;
mod response;
mod session;

pub(super) use feed::Feeds;
pub(super) use request::wanted_of as read_request;
pub(super) use session::Sessions;

#[cfg(test)]
mod tests;
