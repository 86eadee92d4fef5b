//! The remote store: an `interflow meta serve` gives its store to other processes by gRPC.
//!
//! ```text
//!   RemoteStore ┬ Gather ── Read (what is asked meanwhile goes together) ──►  server ── Views ──►  any Store
//!      │        └ Commit ─────────────────────────────────────────────────►
//!      └ Hub ───── Watch (one stream for all watches) ──►  Watching ──────►
//!             one HTTP/2 connection; token and protocol number on every call
//! ```
//!
//! For development: the server is one process and not highly available. It keeps the versions that
//! it handed out for as long as a transaction may take, and commits optimistically on its store, so
//! semantics are those of the store behind it. A connection that dies during a commit makes it
//! [`CommitUnknown`](crate::MetaError::CommitUnknown); a server that can't be reached,
//! [`Unavailable`](crate::MetaError::Unavailable); one that refuses the client,
//! [`Refused`](crate::MetaError::Refused). Watches are taken up again on a new connection, where
//! their values are compared anew.

mod client;
mod fuzz;
mod hub;
mod server;
mod views;
mod watching;
mod wire;

pub use client::{RemoteOptions, RemoteStore};
pub use fuzz::{fuzz_remote, remote_seeds};
pub use server::serve;

use crate::grpc::Protocol;

/// What is spoken; another number is refused.
const PROTOCOL: Protocol = Protocol { header: "interflow-meta-protocol", number: 2 };
/// The greatest message: a transaction of the greatest size, and what its encoding adds.
const MAX_MESSAGE_BYTES: usize = 16 << 20;
/// Questions of one call.
const MAX_QUESTIONS: usize = 1_000;
