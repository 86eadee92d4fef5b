//! Interflow's metadata: who and where, in FoundationDB's transaction model.
//!
//! ```text
//!   entities   topics, logs, nodes, groups, …       typed; the only ones that build keys
//!      │
//!   Meta::transact(|tx| …) ── Transaction            own writes, limits, selectors, retries
//!      │
//!   Store ── Snapshot                                 a version to read, an optimistic commit
//!      │
//!   embedded (redb on a Backend)                      later: foundationdb, remote
//! ```
//!
//! Reads see one version of everything; a commit is made whole or not at all, and fails with a
//! retryable conflict if another changed what was read. After
//! [`CommitUnknown`](MetaError::CommitUnknown) nobody knows yet: transactions are idempotent.

mod embedded;
mod entities;
mod env;
mod error;
mod ids;
mod meta;
mod store;
#[cfg(test)]
mod testing;
mod transaction;

pub use embedded::{
    Backend, EmbeddedOptions, EmbeddedStore, FaultBackend, FaultDisk, FileBackend, MemoryBackend,
    OpenError,
};
pub use entities::{
    DEFAULT_TENANT, cluster, groups, logs, nodes, producers, retained, topics, users,
};
pub use env::{Clock, Env, Random, SystemClock, SystemRandom};
pub use error::{MetaError, TransactError};
pub use ids::{Durability, Epoch, LogId, NodeId, Offset};
pub use meta::Meta;
pub use store::{
    AtomicOp, Commit, Committed, KeyRange, Mutation, Page, RangeSet, STAMP_BYTES, Snapshot, Store,
    WatchRequest,
};
pub use transaction::{
    KeySelector, MAX_KEY_BYTES, MAX_TRANSACTION_BYTES, MAX_TRANSACTION_TIME, MAX_VALUE_BYTES,
    RangeOptions, Scan, Transaction, Watch,
};
