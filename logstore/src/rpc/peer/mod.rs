//! Replication, seals and copies between the nodes that store logs.
//!
//! ```text
//!   GrpcPeers ┬ PeerLink ─ Replicate, one stream a node for all logs ─► PeerServer ─► Replicas
//!             └ calls ──── Seal, Fetch, Pull ─────────────────────────►
//!         two connections a node: entries have their own
//! ```

mod client;
pub(super) mod fuzz;
mod link;
mod server;
mod wire;

pub use client::{ClusterView, GrpcPeers};
pub(super) use server::PeerServer;

use interflow_meta::grpc::Protocol;

/// What is spoken; another number is refused.
const PROTOCOL: Protocol = Protocol { header: "interflow-peer-protocol", number: 1 };
