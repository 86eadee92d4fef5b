//! The watches of one client, at the server.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::{AbortHandle, Abortable, BoxFuture};
use futures_util::stream::{FuturesUnordered, Stream, StreamExt};
use interflow_proto::meta_remote as proto;
use proto::watch_request::Kind;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

use crate::error::MetaError;
use crate::store::{Commit, Store, WatchRequest};
use crate::transaction::{check_key, check_value};

/// Watches of one client at most: FoundationDB's default of a connection (1032,
/// `too_many_watches`).
pub(super) const MAX_WATCHES: usize = 10_000;
/// Keys and seen values of one client's watches at most, in bytes.
pub(super) const MAX_WATCHED_BYTES: usize = 32 << 20;

/// A watch that waits: its number, and how it ended.
type Waiting = BoxFuture<'static, (u64, Result<(), Ended>)>;

/// Why a watch ended without a change.
enum Ended {
    /// Nobody waits for it any more.
    Cancelled,
    /// The store has no more to tell.
    ByStore,
}

struct Watching {
    store: Arc<dyn Store>,
    closing: CancellationToken,
    requests: Streaming<proto::WatchRequest>,
    waiting: FuturesUnordered<Waiting>,
    /// How to cancel a watch, and its bytes.
    known: HashMap<u64, (AbortHandle, usize)>,
    bytes: usize,
}

/// Answers `requests` until the client or the server has enough.
pub(super) fn events(
    store: Arc<dyn Store>,
    closing: CancellationToken,
    requests: Streaming<proto::WatchRequest>,
) -> impl Stream<Item = Result<proto::WatchEvent, Status>> + Send + 'static {
    let watching = Watching {
        store,
        closing,
        requests,
        waiting: FuturesUnordered::new(),
        known: HashMap::new(),
        bytes: 0,
    };
    futures_util::stream::unfold(Some(watching), |watching| async move {
        let mut watching = watching?;
        match watching.next().await {
            Ok(Some(id)) => Some((Ok(proto::WatchEvent { id }), Some(watching))),
            Ok(None) => None,
            Err(status) => Some((Err(status), None)),
        }
    })
}

impl Watching {
    /// The next watch that fires; `None` at the end.
    async fn next(&mut self) -> Result<Option<u64>, Status> {
        loop {
            tokio::select! {
                () = self.closing.cancelled() => return Ok(None),
                Some((id, ended)) = self.waiting.next(), if !self.waiting.is_empty() => {
                    if let Some((_, bytes)) = self.known.remove(&id) {
                        self.bytes -= bytes;
                    }
                    match ended {
                        Ok(()) => return Ok(Some(id)),
                        Err(Ended::Cancelled) => {}
                        Err(Ended::ByStore) => {
                            return Err(Status::unavailable("the store ended a watch"));
                        }
                    }
                }
                request = self.requests.message() => match request? {
                    Some(request) => self.take(request)?,
                    None => return Ok(None),
                },
            }
        }
    }

    fn take(&mut self, request: proto::WatchRequest) -> Result<(), Status> {
        match request.kind {
            Some(Kind::Watch(watched)) => self.add(request.id, watched),
            Some(Kind::Cancel(_)) => {
                if let Some((watch, _)) = self.known.get(&request.id) {
                    watch.abort();
                }
                Ok(())
            }
            None => Err(Status::invalid_argument("a request of no kind")),
        }
    }

    fn add(&mut self, id: u64, watched: proto::Watched) -> Result<(), Status> {
        let invalid = |error: MetaError| Status::invalid_argument(error.to_string());
        let seen = watched.seen.and_then(|seen| seen.value);
        check_key(&watched.key).map_err(invalid)?;
        check_value(seen.as_deref().unwrap_or_default()).map_err(invalid)?;
        let bytes = watched.key.len() + seen.as_ref().map_or(0, Bytes::len);
        if self.known.len() >= MAX_WATCHES || self.bytes + bytes > MAX_WATCHED_BYTES {
            return Err(Status::resource_exhausted("too many watches"));
        }
        if self.known.contains_key(&id) {
            return Err(Status::invalid_argument("two watches have one number"));
        }
        let (handle, registration) = AbortHandle::new_pair();
        let watch = watch(Arc::clone(&self.store), watched.key, seen);
        let watch = Abortable::new(watch, registration);
        self.waiting.push(Box::pin(async move {
            let ended = match watch.await {
                Ok(Ok(())) => Ok(()),
                Ok(Err(())) => Err(Ended::ByStore),
                Err(_) => Err(Ended::Cancelled),
            };
            (id, ended)
        }));
        self.known.insert(id, (handle, bytes));
        self.bytes += bytes;
        Ok(())
    }
}

/// Waits until the value of `key` differs from `seen`, which it may already do.
async fn watch(store: Arc<dyn Store>, key: Bytes, seen: Option<Bytes>) -> Result<(), ()> {
    let (fire, fired) = oneshot::channel();
    let watches = vec![WatchRequest { key, seen, fire }];
    let snapshot = store.snapshot().await.map_err(|_| ())?;
    snapshot.commit(Commit { watches, ..Commit::default() }).await.map_err(|_| ())?;
    fired.await.map_err(|_| ())
}
