//! Watches, each in a transaction of its own behind the commit that asked for it.
//!
//! FoundationDB's watch compares with what *its* transaction reads and makes that read a conflict;
//! ours compares with what the caller's transaction saw, and conflicts with nothing. So the key is
//! read again behind the commit: if its value is another already, the watch fires; if not, it is
//! FoundationDB's turn to watch from that version on, and nothing lies between.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use foundationdb::FdbResult;
use tokio::sync::OwnedSemaphorePermit;

use super::{Db, Priority, error};
use crate::error::MetaError;
use crate::store::WatchRequest;

/// The first pause after a failure, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// Watches that have their place below the bound, and are not kept yet.
#[must_use]
pub(super) struct Admitted {
    db: Arc<Db>,
    requests: Vec<WatchRequest>,
    places: Option<OwnedSemaphorePermit>,
}

/// Gives `requests` their places.
///
/// # Errors
/// [`MetaError::TooManyWatches`].
pub(super) fn admit(db: &Arc<Db>, requests: Vec<WatchRequest>) -> Result<Admitted, MetaError> {
    let count = u32::try_from(requests.len()).map_err(|_| MetaError::TooManyWatches)?;
    let places = match count {
        0 => None,
        count => {
            let places = Arc::clone(&db.watches).try_acquire_many_owned(count);
            Some(places.map_err(|_| MetaError::TooManyWatches)?)
        }
    };
    Ok(Admitted { db: Arc::clone(db), requests, places })
}

impl Admitted {
    /// Keeps them from `version` on, which shows the commit that asked for them. Each ends when it
    /// has fired, nobody waits for it, or the store is closed.
    pub(super) fn keep(mut self, priority: Priority, version: i64) {
        for request in std::mem::take(&mut self.requests) {
            let place = self.places.as_mut().and_then(|places| places.split(1));
            let db = Arc::clone(&self.db);
            self.db.tasks.spawn(async move {
                let _place = place;
                keep(&db, priority, request, version).await;
            });
        }
    }
}

async fn keep(db: &Db, priority: Priority, request: WatchRequest, version: i64) {
    let WatchRequest { key, seen, mut fire } = request;
    let has_changed = tokio::select! {
        has_changed = until_changed(db, priority, &key, seen.as_ref(), version) => has_changed,
        () = fire.closed() => false,
        () = db.closing.cancelled() => false,
    };
    if has_changed {
        // Nobody to tell is no failure.
        let _ = fire.send(());
    }
}

/// Waits for a value of `key` other than `seen`; false when it can't be watched.
async fn until_changed(
    db: &Db,
    priority: Priority,
    key: &Bytes,
    seen: Option<&Bytes>,
    version: i64,
) -> bool {
    let mut pause = PAUSES.0;
    let mut version = Some(version);
    loop {
        match once(db, priority, key, seen, version.take()).await {
            Ok(()) => return true,
            Err(error) => {
                let error = error::of_read(db, error);
                if !error.is_retryable() {
                    tracing::warn!(%error, "a watch of metadata has ended");
                    return false;
                }
                tracing::debug!(%error, "a watch of metadata begins anew");
            }
        }
        // What it compares with stays, so that nothing is missed in between.
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSES.1);
    }
}

/// One transaction that watches: at `version`, or at the newest.
async fn once(
    db: &Db,
    priority: Priority,
    key: &Bytes,
    seen: Option<&Bytes>,
    version: Option<i64>,
) -> FdbResult<()> {
    let transaction = db.begin_watch(priority)?;
    if let Some(version) = version {
        transaction.set_read_version(version);
    }
    let value = transaction.get(key, true).await?;
    if value.as_deref() != seen.map(|seen| &seen[..]) {
        return Ok(());
    }
    let changed = transaction.watch(key);
    // Without writes this needs no cluster; it makes the watch outlive its transaction.
    let committed = transaction.commit().await?;
    drop(committed);
    changed.await
}
