//! Connections that wait for room.

use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::HashMap;

use crate::mqtt::connection::ConnShared;

/// Each connection once, however often it asked.
#[derive(Debug, Default)]
pub(crate) struct Waiters(HashMap<usize, Arc<ConnShared>, RandomState>);

impl Waiters {
    /// The connection waits, if it doesn't already.
    pub(crate) fn add(&mut self, connection: &Arc<ConnShared>) {
        let address = Arc::as_ptr(connection).addr();
        self.0.entry(address).or_insert_with(|| connection.clone());
    }

    /// There is room: they try again.
    pub(crate) fn wake(self) {
        self.0.into_values().for_each(|connection| connection.wake());
    }

    /// How many wait.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_that_asks_again_and_again_waits_once() {
        let mut waiters = Waiters::default();
        let connections = [ConnShared::new(), ConnShared::new()];
        for _ in 0..100 {
            connections.iter().for_each(|connection| waiters.add(connection));
        }
        assert_eq!(waiters.len(), 2);
    }
}
