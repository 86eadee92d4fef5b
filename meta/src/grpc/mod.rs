//! What every gRPC service between processes shares: who may call, TLS, connections, pauses.
//!
//! ```text
//!   Endpoint ── Credentials ──► connections ── Gate ──► a service
//!      └ Backoff: when one that can't be reached is tried again
//! ```
//!
//! Every call carries the number of its protocol and, where the server has a token, that. Without a
//! token or certificates of clients a server listens on loopback only.

mod access;
mod backoff;
mod client;
mod dial;
mod gather;
mod incoming;
mod server;

pub use access::{Credentials, Gate, Protocol, Token, TokenError};
pub use backoff::Backoff;
pub use client::{ClientTls, Remote, is_refusal, told, was_not_sent};
pub use dial::{Dial, Wire};
pub use gather::{Asked, Gather};
pub use incoming::Listen;
pub use server::{ServeError, ServeOptions, ServerTls, run, server};
