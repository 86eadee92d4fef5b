//! The store on a FoundationDB cluster: replicated, strictly serializable.
//!
//! ```text
//!   snapshot ─► a read version ─► FdbSnapshot: snapshot reads of one fdb transaction
//!   commit   ─► a second fdb transaction at that version ─► conflict ranges, mutations ─► commit
//!                                                              └► a third for each watch
//! ```
//!
//! Own writes, limits and retries are [`Transaction`](crate::Transaction)'s, so FoundationDB's own
//! read-your-writes layer is switched off, and its retry loop (`on_error`) isn't used. Whatever the
//! cluster does, each of these transactions is answered or given up within [`ANSWER_WITHIN`].
//!
//! The client library is loaded when [`FdbNetwork`](crate::FdbNetwork) boots; a process can do that
//! once.

mod commit;
mod error;
mod snapshot;
mod watch;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use foundationdb::options::{DatabaseOption, TransactionOption};
use foundationdb::{Database, FdbError, FdbResult, Transaction};
use interflow_fdb_client::Network;
use tokio::sync::Semaphore;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::error::MetaError;
use crate::store::{Snapshot, Store};
pub use error::FdbOpenError;
use snapshot::FdbSnapshot;

/// How long a transaction of FoundationDB's may take before it is cancelled. Twice what one may
/// take anyway, so that it is the cluster that doesn't answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// Watches of one store at a time. FoundationDB's own bound is 10,000 unless it is raised, and a
/// million at most.
const MAX_WATCHES: usize = 100_000;
/// Where the client looks when nobody names a cluster file.
const DEFAULT_CLUSTER_FILE: &str = "/etc/foundationdb/fdb.cluster";
/// The variable that names one, to this and all other clients.
const CLUSTER_FILE_VARIABLE: &str = "FDB_CLUSTER_FILE";

/// A store on a FoundationDB cluster.
#[derive(Clone, Debug)]
pub struct FdbStore {
    db: Arc<Db>,
    priority: Priority,
    /// Closes the store with its last handle.
    _last: Arc<DropGuard>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Priority {
    Default,
    Batch,
}

/// What handles, snapshots, commits and watches share.
struct Db {
    // Before the network: fields are dropped in this order.
    database: Database,
    cluster_file: PathBuf,
    closing: CancellationToken,
    /// Commits and watches that are under way.
    tasks: TaskTracker,
    watches: Arc<Semaphore>,
    _network: Network,
}

impl std::fmt::Debug for Db {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Db").field("cluster_file", &self.cluster_file).finish_non_exhaustive()
    }
}

impl FdbStore {
    /// The store of the cluster that `cluster_file` describes; `None` takes what the variable
    /// `FDB_CLUSTER_FILE` names, else the client's default. Waits until the cluster has answered,
    /// for 10 s.
    ///
    /// # Errors
    /// See [`FdbOpenError`].
    pub async fn open(
        network: &Network,
        cluster_file: Option<&Path>,
    ) -> Result<Self, FdbOpenError> {
        let (path, is_named) = match cluster_file {
            Some(path) => (path.to_owned(), true),
            None => match std::env::var_os(CLUSTER_FILE_VARIABLE) {
                Some(path) => (path.into(), true),
                None => (DEFAULT_CLUSTER_FILE.into(), false),
            },
        };
        if is_named && !path.exists() {
            return Err(FdbOpenError::NoClusterFile(path));
        }
        // Unnamed, the client looks in more places than one.
        let name = match (is_named, path.to_str()) {
            (false, _) => None,
            (true, Some(name)) if !name.contains('\0') => Some(name),
            (true, _) => return Err(FdbOpenError::NoClusterFile(path)),
        };
        let refused = |error: FdbError| FdbOpenError::Refused {
            cluster_file: path.clone(),
            reason: error.message(),
        };
        let database = Database::new(name).map_err(refused)?;
        set_options(&database).map_err(refused)?;
        let closing = CancellationToken::new();
        let store = Self {
            _last: Arc::new(closing.clone().drop_guard()),
            db: Arc::new(Db {
                database,
                cluster_file: path.clone(),
                closing,
                tasks: TaskTracker::new(),
                watches: Arc::new(Semaphore::new(MAX_WATCHES)),
                _network: network.clone(),
            }),
            priority: Priority::Default,
        };
        let first = store.db.begin(store.priority).map_err(refused)?;
        match first.get_read_version().await {
            Ok(_) => Ok(store),
            Err(error) if error::is_timeout(error) => {
                Err(FdbOpenError::NoAnswer { cluster_file: path, seconds: ANSWER_WITHIN.as_secs() })
            }
            Err(error) => Err(refused(error)),
        }
    }
}

fn set_options(database: &Database) -> FdbResult<()> {
    let timeout = i32::try_from(ANSWER_WITHIN.as_millis()).unwrap_or(i32::MAX);
    database.set_option(DatabaseOption::TransactionTimeout(timeout))?;
    database.set_option(DatabaseOption::MaxWatches(i32::try_from(MAX_WATCHES).unwrap_or(i32::MAX)))
}

impl Db {
    /// A transaction of FoundationDB's.
    fn begin(&self, priority: Priority) -> FdbResult<Transaction> {
        let transaction = self.database.create_trx()?;
        transaction.set_option(TransactionOption::ReadYourWritesDisable)?;
        self.prioritise(&transaction, priority)?;
        Ok(transaction)
    }

    /// A transaction that may watch: FoundationDB refuses that with read-your-writes off.
    fn begin_watch(&self, priority: Priority) -> FdbResult<Transaction> {
        let transaction = self.database.create_trx()?;
        self.prioritise(&transaction, priority)?;
        Ok(transaction)
    }

    fn prioritise(&self, transaction: &Transaction, priority: Priority) -> FdbResult<()> {
        match priority {
            Priority::Default => Ok(()),
            Priority::Batch => transaction.set_option(TransactionOption::PriorityBatch),
        }
    }

    /// The store takes no more commits.
    fn check_open(&self) -> Result<(), MetaError> {
        if self.closing.is_cancelled() {
            return Err(MetaError::Unavailable("the metadata store is closed".to_owned()));
        }
        Ok(())
    }
}

#[async_trait]
impl Store for FdbStore {
    async fn snapshot(&self) -> Result<Arc<dyn Snapshot>, MetaError> {
        Ok(Arc::new(FdbSnapshot::begin(&self.db, self.priority).await?))
    }

    async fn close(&self) {
        self.db.closing.cancel();
        self.db.tasks.close();
        self.db.tasks.wait().await;
    }

    fn background(&self) -> Option<Arc<dyn Store>> {
        Some(Arc::new(Self { priority: Priority::Batch, ..self.clone() }))
    }
}
