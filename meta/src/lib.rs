//! Interflow's metadata: who and where, in FoundationDB's transaction model.
//!
//! ```text
//!   members    leases, and who lives                 a process among the others
//!   entities   topics, logs, nodes, groups, …       typed; the only ones that build keys
//!      │
//!   Meta::transact(|tx| …) ── Transaction            own writes, limits, selectors, retries
//!      │
//!   Store ── Snapshot                                 a version to read, an optimistic commit
//!      │
//!   embedded (redb on a Backend)   remote (gRPC to a server of another store)
//!   foundationdb (a cluster; feature `fdb`)
//! ```
//!
//! - A transaction reads *one version* of everything, with its own writes on top.
//! - Its commit is made whole or not at all, durably, and fails with a retryable
//!   [`Conflict`](MetaError::Conflict) if another changed what it read. So what commits is
//!   serializable, and there are no locks.
//! - After [`CommitUnknown`](MetaError::CommitUnknown) nobody knows whether it was made:
//!   transactions are idempotent, by a token or an id that is drawn outside of the retry loop.
//! - Limits are FoundationDB's on every store: keys of 10,000 bytes, values of 100,000, and
//!   10,000,000 bytes and 5 s a transaction. So large answers come in pages, of several transactions.
//! - Who waits for a change *watches* a key; nothing polls.
//!
//! ```
//! # use std::sync::Arc;
//! # use interflow_meta::{EmbeddedStore, Env, Meta, MetaError, groups, producers};
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let env = Env::default();
//! let store = EmbeddedStore::in_memory(env.clone())?; // or EmbeddedStore::open(path, …)
//! let meta = Meta::new(Arc::new(store), env, "interflow");
//!
//! let ids = meta
//!     .transact(|tx| async move { producers::allocate(&tx, 1_000).await })
//!     .await?;
//! assert_eq!(ids, 0..1_000);
//!
//! // Several steps, one commit. What the closure borrows it may use in every attempt.
//! let offset = groups::CommittedOffset { offset: 42, ..Default::default() };
//! let offsets = &[("orders".to_owned(), 0, offset)];
//! meta.transact(|tx| async move {
//!     if groups::metadata(&tx, "", "billing").await?.is_none() {
//!         groups::put_metadata(&tx, "", "billing", &groups::GroupMetadata::default())?;
//!     }
//!     groups::commit_offsets(&tx, "", "billing", offsets)
//! })
//! .await?;
//!
//! // Reads alone need no retry loop.
//! let tx = meta.begin();
//! assert_eq!(groups::all_offsets(&tx, "", "billing").await?, offsets);
//! # Ok(())
//! # }
//! ```
//!
//! An entity's error type implements [`TransactError`], so that the retry loop finds meta's own
//! errors in it.

#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests use real files and clocks"))]

mod dump;
mod embedded;
mod entities;
#[allow(clippy::disallowed_methods, reason = "this is where the real clock and chance are")]
mod env;
mod error;
#[cfg(feature = "fdb")]
mod foundationdb;
pub mod grpc;
mod ids;
pub mod members;
mod meta;
mod remote;
mod store;
#[cfg(test)]
mod testing;
mod transaction;
mod walk;

#[cfg(feature = "fdb")]
pub use self::foundationdb::{FdbOpenError, FdbStore};
pub use dump::{DumpError, Dumped, dump, dump_seeds, fuzz_dump, restore};
pub use embedded::{
    Backend, EmbeddedOptions, EmbeddedStore, FaultBackend, FaultDisk, FileBackend, MemoryBackend,
    OpenError,
};
pub use entities::check::{Findings, Report, check};
pub use entities::fuzz::{fuzz_values, value_seeds};
pub use entities::{
    DEFAULT_TENANT, cluster, groups, levels, logs, materialised, nodes, producers, retained,
    topics, users,
};
pub use env::{Clock, Env, Random, SystemClock, SystemRandom};
pub use error::{MetaError, TransactError};
pub use grpc::{ClientTls, ServeError, ServeOptions, ServerTls, Token, TokenError};
pub use ids::{Durability, Epoch, LogId, NodeId, Offset};
#[cfg(feature = "fdb")]
pub use interflow_fdb_client::{BootError as FdbBootError, Network as FdbNetwork};
pub use meta::Meta;
pub use remote::{RemoteOptions, RemoteStore, fuzz_remote, remote_seeds, serve};
pub use store::{
    AtomicOp, Commit, Committed, KeyRange, Loss, LossyStore, Mutation, Page, PriorityStore,
    RangeSet, STAMP_BYTES, Snapshot, Store, WatchRequest,
};
pub use transaction::{
    KeySelector, MAX_KEY_BYTES, MAX_TRANSACTION_BYTES, MAX_TRANSACTION_TIME, MAX_VALUE_BYTES,
    RangeOptions, Scan, Transaction, Watch,
};
