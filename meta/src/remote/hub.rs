//! All watches of a client, on one stream; on the next one when that ends.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::Stream;
use interflow_proto::meta_remote as proto;
use parking_lot::Mutex;
use proto::watch_request::Kind;
use tokio::sync::{Notify, oneshot};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::client::Grpc;
use super::watching::{MAX_WATCHED_BYTES, MAX_WATCHES};
use crate::error::MetaError;
use crate::grpc::Backoff;
use crate::store::WatchRequest;

#[derive(Debug)]
struct Waiting {
    key: Bytes,
    seen: Option<Bytes>,
    fire: oneshot::Sender<()>,
}

impl Waiting {
    fn bytes(&self) -> usize {
        self.key.len() + self.seen.as_ref().map_or(0, Bytes::len)
    }
}

#[derive(Debug, Default)]
struct State {
    watches: HashMap<u64, Waiting>,
    bytes: usize,
    next_id: u64,
    /// What the server must still be told on this stream: watches, and those given up.
    unsent: VecDeque<u64>,
    /// Which stream is the one of now: an older one sends nothing more.
    stream: u64,
    /// That stream takes requests. Without one nothing is noted: the next begins with everything.
    live: bool,
    closed: bool,
}

/// Keeps watches alive over connections.
#[derive(Debug, Default)]
pub(super) struct Hub {
    state: Mutex<State>,
    /// There is something unsent, or the end.
    changed: Notify,
}

impl Hub {
    /// There is room for `new` watches.
    ///
    /// # Errors
    /// [`MetaError::TooManyWatches`] above 10,000 watches or 32 MiB.
    pub(super) fn check_room(&self, new: &[WatchRequest]) -> Result<(), MetaError> {
        let mut state = self.state.lock();
        let bytes: usize = new
            .iter()
            .map(|watch| watch.key.len() + watch.seen.as_ref().map_or(0, Bytes::len))
            .sum();
        let fits = |state: &State| {
            state.watches.len() + new.len() <= MAX_WATCHES
                && state.bytes + bytes <= MAX_WATCHED_BYTES
        };
        if !fits(&state) {
            state.forget_dropped();
        }
        if fits(&state) { Ok(()) } else { Err(MetaError::TooManyWatches) }
    }

    /// Begins `new` watches. When the hub is closed they end at once.
    pub(super) fn add(&self, new: Vec<WatchRequest>) {
        if new.is_empty() {
            return;
        }
        let mut state = self.state.lock();
        if state.closed {
            return;
        }
        for WatchRequest { key, seen, fire } in new {
            let waiting = Waiting { key, seen, fire };
            let id = state.next_id;
            state.next_id += 1;
            state.bytes += waiting.bytes();
            state.watches.insert(id, waiting);
            state.note(id);
        }
        // Now and then, so that it costs nothing: those that nobody waits for any more.
        if state.next_id.is_multiple_of(64) {
            state.forget_dropped();
        }
        drop(state);
        self.changed.notify_waiters();
    }

    /// Keeps the watches on a stream of `grpc` until `closing`.
    pub(super) async fn run(
        self: Arc<Self>,
        grpc: Grpc,
        backoff: Arc<Backoff>,
        closing: CancellationToken,
    ) {
        closing.run_until_cancelled(self.keep(grpc, backoff)).await;
        let mut state = self.state.lock();
        state.closed = true;
        state.watches.clear();
        state.unsent.clear();
        drop(state);
        self.changed.notify_waiters();
    }

    async fn keep(self: &Arc<Self>, mut grpc: Grpc, backoff: Arc<Backoff>) {
        loop {
            self.wait_for_watches().await;
            backoff.ready().await;
            match self.one_stream(&mut grpc, &backoff).await {
                Ok(()) => {}
                Err(status) => {
                    tracing::debug!(%status, "the watches of the metadata store are taken up anew");
                }
            }
            backoff.failed();
        }
    }

    async fn wait_for_watches(&self) {
        loop {
            let changed = self.changed.notified();
            if !self.state.lock().watches.is_empty() {
                return;
            }
            changed.await;
        }
    }

    /// Runs until the stream ends. All watches are sent on it: the server compares their values, so
    /// that a change while there was no stream is told.
    async fn one_stream(
        self: &Arc<Self>,
        grpc: &mut Grpc,
        backoff: &Backoff,
    ) -> Result<(), Status> {
        let stream = {
            let mut state = self.state.lock();
            state.forget_dropped();
            let mut all: Vec<u64> = state.watches.keys().copied().collect();
            all.sort_unstable();
            state.unsent = all.into();
            state.stream += 1;
            state.live = true;
            state.stream
        };
        let ended = self.events(grpc, stream, backoff).await;
        let mut state = self.state.lock();
        state.live = false;
        state.unsent.clear();
        ended
    }

    async fn events(
        self: &Arc<Self>,
        grpc: &mut Grpc,
        stream: u64,
        backoff: &Backoff,
    ) -> Result<(), Status> {
        let requests = requests(Arc::clone(self), stream);
        let mut events = grpc.watch(requests).await?.into_inner();
        while let Some(event) = events.message().await? {
            backoff.worked();
            let fired = {
                let mut state = self.state.lock();
                let fired = state.watches.remove(&event.id);
                state.bytes -= fired.as_ref().map_or(0, Waiting::bytes);
                fired
            };
            if let Some(fired) = fired {
                // A watch that was dropped has nobody to tell.
                let _ = fired.fire.send(());
            }
        }
        Ok(())
    }
}

impl State {
    /// Gives up watches that nobody waits for.
    fn forget_dropped(&mut self) {
        let (bytes, mut dropped) = (&mut self.bytes, Vec::new());
        self.watches.retain(|id, watch| {
            let keep = !watch.fire.is_closed();
            if !keep {
                *bytes -= watch.bytes();
                dropped.push(*id);
            }
            keep
        });
        dropped.into_iter().for_each(|id| self.note(id));
    }

    /// The server must be told of watch `id`. A stream that has fallen far behind ends instead.
    fn note(&mut self, id: u64) {
        self.live &= self.unsent.len() < 2 * MAX_WATCHES;
        if self.live {
            self.unsent.push_back(id);
        }
    }

    fn next_request(&mut self) -> Option<proto::WatchRequest> {
        let id = self.unsent.pop_front()?;
        let kind = match self.watches.get(&id) {
            Some(watch) => Kind::Watch(proto::Watched {
                key: watch.key.clone(),
                seen: Some(proto::Value { value: watch.seen.clone() }),
            }),
            None => Kind::Cancel(proto::Cancelled {}),
        };
        Some(proto::WatchRequest { id, kind: Some(kind) })
    }
}

/// What is to be sent on `stream`, as it comes up.
fn requests(
    hub: Arc<Hub>,
    stream: u64,
) -> impl Stream<Item = proto::WatchRequest> + Send + 'static {
    futures_util::stream::unfold(hub, move |hub| async move {
        loop {
            let changed = hub.changed.notified();
            {
                let mut state = hub.state.lock();
                if state.closed || !state.live || state.stream != stream {
                    return None;
                }
                if let Some(request) = state.next_request() {
                    drop(state);
                    drop(changed);
                    return Some((request, hub));
                }
            }
            changed.await;
        }
    })
}
