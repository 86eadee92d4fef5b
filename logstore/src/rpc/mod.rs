//! The log service between processes: a server over any [`LogClient`], and a client of one node.
//!
//! ```text
//!   RemoteLogs ┬ Lane ─────── Append, one stream for all logs ────► Answers ─► LogClient
//!              ├ Watching ─── Observe, one stream for all logs ───► Outlet ◄── LogObserver
//!              ├ Reading ──── Read, one stream for all logs ──────► Finished ◄── LogClient
//!              └ control: calls ──────────────────────────────────► Service
//!         two connections: appends have their own
//! ```
//!
//! - *Order*: appends to a log are taken in the order of the calls. On a new connection those whose
//!   fate isn't known are sent again in their order if they have an append key (the sequencer knows
//!   a duplicate); those without one are [`Unknown`](crate::AppendError::Unknown). A stream of a
//!   client ends its earlier ones, so that nothing of those comes late.
//! - *Doubts*: a client whose router hears of them tells when its node refuses a log, can't be reached
//!   or is silent. What was refused waits then, and the router takes a log's appends back when the
//!   log is at another node.
//! - *Bounds*: the server states how many bytes may be unanswered; a log takes at most as much of
//!   them as it leaves free, so that one that stands still leaves room for the others. What waits in
//!   the client is bounded as well, and refused as [`Busy`](crate::AppendError::Busy) beyond.
//! - *Reads* are answered as they are done. Each carries the credit for its answer, in bytes, and its
//!   time. What is granted and not taken by its caller is bounded at the client, what is granted and
//!   not sent at the server: a reader that doesn't take its answers holds those, and a log leaves as
//!   much as it takes. Who no longer waits says so, and what nobody waits for isn't done.
//! - *Observers* hear the newest offsets, however slow the connection is. Early batches that a
//!   connection can't take are [withheld](crate::Withheld).
//!
//! [`LogClient`]: crate::LogClient

pub(crate) mod client;
mod fuzz;
mod peer;
mod server;
mod wire;

pub use client::{
    Doubt, Doubts, NodeClient, RemoteLogs, RemoteLogsError, RemoteLogsOptions, Unanswered,
};
pub use fuzz::{fuzz_log_messages, log_message_seeds};
use interflow_meta::grpc::Protocol;
pub use peer::fuzz::{fuzz_peer_messages, peer_message_seeds};
pub use peer::{ClusterView, GrpcPeers};
pub use server::{LogServer, LogServerOptions, serve_logs};

/// What is spoken; another number is refused.
const PROTOCOL: Protocol = Protocol { header: "interflow-log-protocol", number: 2 };
/// The greatest message.
const MAX_MESSAGE_BYTES: usize = 16 << 20;
/// The largest batch that fits in a message with what goes with it.
const MAX_BATCH_BYTES: usize = MAX_MESSAGE_BYTES - (256 << 10);
/// What an append or a read weighs in the window besides its batches.
const OVERHEAD: usize = 128;
/// A read brings no more, unless its first batch is larger.
const MAX_READ_BYTES: usize = 8 << 20;
/// Logs that an append stream has numbers for at a time.
const MAX_NUMBERS: u32 = 65_536;

/// Logs that a call asks for.
const MAX_LOGS: usize = 1_000;

/// What an append with a batch, or a read with a credit, of `bytes` weighs in the window.
fn charge(bytes: usize) -> usize {
    bytes.saturating_add(OVERHEAD)
}
