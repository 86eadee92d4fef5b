//! Commits: what they write, and the watches that begin with them.

use std::sync::Arc;

use bytes::Bytes;
use interflow_meta::{Commit, MetaError, Mutation, STAMP_BYTES, Snapshot, WatchRequest};
use tokio::sync::oneshot;

use crate::cluster::{Cluster, FAULTS_KEY, Place};
use crate::error::{
    CLIENT_INVALID_OPERATION, COMMIT_UNKNOWN_RESULT, Code, INTERNAL_ERROR, NO_COMMIT_VERSION,
    NOT_COMMITTED, OPERATION_CANCELLED, TRANSACTION_TOO_LARGE, TRANSACTION_TOO_OLD,
};
use crate::future::{Future, Value};
use crate::network::post;
use crate::select::code;
use crate::transaction::{PendingWatch, Promise, Transaction};

impl Transaction {
    pub(crate) fn commit(&self) -> Arc<Future> {
        let view = self.view();
        let shared = Arc::clone(&self.state);
        let cluster = self.database.cluster.clone();
        let (commit, watches, stamps, deferred, size) = {
            let mut state = self.state.lock();
            if let Err(code) = state.check_use() {
                return Self::failed(code);
            }
            state.is_committing = true;
            let size = (state.size(), state.options.size_limit);
            let commit = Commit {
                reads: std::mem::take(&mut state.reads),
                writes: std::mem::take(&mut state.writes),
                mutations: std::mem::take(&mut state.mutations),
                watches: Vec::new(),
            };
            let watches = std::mem::take(&mut state.watches);
            (commit, watches, std::mem::take(&mut state.stamps), state.deferred, size)
        };
        let watching: Vec<_> = watches.iter().map(|watch| Arc::clone(&watch.promise.0)).collect();
        self.start(async move {
            let made = async {
                if let Some(code) = deferred {
                    return Err(code);
                }
                if size.0 > size.1 {
                    return Err(TRANSACTION_TOO_LARGE);
                }
                let cluster = cluster?;
                if commit.mutations.is_empty() && commit.writes.is_empty() {
                    if !watches.is_empty() {
                        begin_watches(&cluster, &*view.await?, watches).await?;
                    }
                    return Ok((-1, Err(NO_COMMIT_VERSION)));
                }
                write(&cluster, view, commit).await
            };
            let made = made.await;
            if let Err(code) = made {
                watching.iter().for_each(|future| future.fulfil(Err(code)));
            }
            for Promise(future) in &stamps {
                let stamp = made.and_then(|(_, stamp)| stamp);
                future.fulfil(stamp.map(|stamp| Value::Key(Bytes::copy_from_slice(&stamp))));
            }
            shared.lock().committed = Some(made?.0);
            Ok(Value::Unit)
        })
    }
}

/// Makes a commit with writes: its version and stamp.
async fn write(
    cluster: &Cluster,
    view: impl std::future::Future<Output = Result<Arc<dyn Snapshot>, Code>>,
    commit: Commit,
) -> Result<(i64, Result<[u8; STAMP_BYTES], Code>), Code> {
    if let [Mutation::Set(key, plan)] = &commit.mutations[..]
        && key == FAULTS_KEY
    {
        let planned = if cluster.plan(plan) { Ok(()) } else { Err(CLIENT_INVALID_OPERATION) };
        return planned.map(|()| (0, Ok([0; STAMP_BYTES])));
    }
    let fault = cluster.fault(Place::Commit);
    if let Some(fault) = fault.filter(|fault| !fault.is_made) {
        return Err(fault.fail().await);
    }
    // Without reads any version is as good as the newest.
    let view = if commit.reads.is_empty() { cluster.latest(false).await? } else { view.await? };
    let committed = view.commit(commit).await.map_err(|error| match error {
        MetaError::Conflict => NOT_COMMITTED,
        MetaError::TooOld => TRANSACTION_TOO_OLD,
        MetaError::CommitUnknown => COMMIT_UNKNOWN_RESULT,
        other => code(&other),
    })?;
    cluster.made(committed.version).await;
    match fault {
        Some(fault) => Err(fault.fail().await),
        None => {
            let version = i64::try_from(committed.version).map_err(|_| INTERNAL_ERROR)?;
            Ok((version, Ok(committed.stamp)))
        }
    }
}

/// Begins the watches of a committed transaction that read `view`.
async fn begin_watches(
    cluster: &Cluster,
    view: &dyn Snapshot,
    watches: Vec<PendingWatch>,
) -> Result<(), Code> {
    let mut requests = Vec::with_capacity(watches.len());
    for PendingWatch { key, promise, place } in watches {
        let seen = view.get(&key).await.map_err(|error| code(&error))?;
        let (fire, fired) = oneshot::channel();
        requests.push(WatchRequest { key, seen, fire });
        let fault = cluster.fault(Place::Watch);
        post(async move {
            let (_place, Promise(future)) = (place, &promise);
            if let Some(fault) = fault {
                return future.fulfil(Err(fault.fail().await));
            }
            tokio::select! {
                fired = fired => {
                    future.fulfil(fired.map(|()| Value::Unit).map_err(|_| OPERATION_CANCELLED));
                }
                () = future.cancelled.cancelled() => {}
            }
        });
    }
    let commit = Commit { watches: requests, ..Commit::default() };
    view.commit(commit).await.map(drop).map_err(|error| code(&error))
}
