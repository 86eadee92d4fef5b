//! Listeners that are served, and the tasks behind them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use interflow_gateway::net::{Bound, Handler};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// See the module. Dropped, it ends everything, without waiting.
pub(super) struct Serving {
    grace: Duration,
    addresses: BTreeMap<String, Vec<SocketAddr>>,
    /// Ends listeners and connections.
    pub(super) closing: CancellationToken,
    /// Ends what follows meta, after the connections.
    pub(super) ending: CancellationToken,
    connections: TaskTracker,
    /// What `ending` ends.
    pub(super) background: TaskTracker,
}

impl Serving {
    /// Nothing is served yet. Connections get `grace_ms` at the end.
    pub(super) fn new(grace_ms: u64) -> Self {
        Self {
            grace: Duration::from_millis(grace_ms),
            addresses: BTreeMap::new(),
            closing: CancellationToken::new(),
            ending: CancellationToken::new(),
            connections: TaskTracker::new(),
            background: TaskTracker::new(),
        }
    }

    pub(super) fn serve(&mut self, bound: Bound, handler: Arc<dyn Handler>) {
        self.note(bound.name(), bound.addresses());
        self.connections.spawn(bound.serve(handler, self.closing.clone(), self.grace));
    }

    /// A listener that is served by something else.
    pub(super) fn note(&mut self, listener: &str, addresses: Vec<SocketAddr>) {
        self.addresses.insert(listener.to_owned(), addresses);
    }

    pub(super) fn addresses(&self, listener: &str) -> &[SocketAddr] {
        self.addresses.get(listener).map_or(&[], Vec::as_slice)
    }

    /// The listeners of `order` that there are.
    pub(super) fn listeners(&self, order: &[&str]) -> Vec<(String, Vec<SocketAddr>)> {
        order
            .iter()
            .filter_map(|name| Some(((*name).to_owned(), self.addresses.get(*name)?.clone())))
            .collect()
    }

    /// Waits until all connections have ended, which were told.
    pub(super) async fn connections_ended(&self) {
        self.connections.close();
        self.connections.wait().await;
    }

    /// Ends what follows meta.
    pub(super) async fn end(&self) {
        self.ending.cancel();
        self.background.close();
        self.background.wait().await;
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.closing.cancel();
        self.ending.cancel();
    }
}
