//! Interflow's segment log.

#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests use real files and clocks"))]

mod client;
#[allow(clippy::disallowed_methods, reason = "this is where the real clocks are")]
pub mod clock;
mod core;
pub mod disk;
mod error;
mod journal;
mod log;
mod marker;
mod peers;
mod routing;
mod rpc;
pub mod store;
mod ticket;

pub use client::{
    Append, AppendKey, AppendKind, AppendResult, Appended, Bounds, EarlyBatch, KeyDigest,
    LogClient, LogDescription, LogObserver, LogReplicas, Observation, Read, ReadOutcome,
    ReplicaDescription, SegmentDescription, StoredBatch, Withheld,
};
pub use core::place::{Candidate, place};
pub use error::{AppendError, LogError, ReadError};
pub use interflow_meta::{Durability, Epoch, LogId, NodeId, Offset};
pub use journal::fuzz::{fuzz_journal, journal_seeds};
pub use log::{Health, Identity, LogConfig, LogMetrics, LogStore, Progress, ReplicaLags};
pub use marker::{Claim, Marker, MarkerError};
pub use peers::LogNode;
pub use routing::{
    Directory, MetaDirectory, NodeAccess, NodeTimes, RouteError, Router, RouterOptions,
};
pub use rpc::{
    ClusterView, Doubt, Doubts, GrpcPeers, LogServer, LogServerOptions, NodeClient, RemoteLogs,
    RemoteLogsError, RemoteLogsOptions, Unanswered, fuzz_log_messages, fuzz_peer_messages,
    log_message_seeds, peer_message_seeds, serve_logs,
};
pub use ticket::{AppendReply, AppendTicket};
