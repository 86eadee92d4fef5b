//! A view that is told what it is.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;
use interflow_meta::NodeId;
use tokio::sync::watch;

use super::{Gateway, Gateways};

/// A view that changes when it is told to: of one process that is everything, and in tests.
#[derive(Debug)]
pub struct FixedGateways {
    me: NodeId,
    incarnation: u64,
    live: ArcSwap<Arc<[Gateway]>>,
    lease_holds: AtomicBool,
    changes: watch::Sender<u64>,
}

impl FixedGateways {
    /// The view of life `incarnation` of node `me`, which is alone and holds its lease.
    #[must_use]
    pub fn alone(me: NodeId, incarnation: u64) -> Arc<Self> {
        let own = Gateway { id: me, incarnation, rack: String::new(), kafka: Vec::new() };
        Arc::new(Self {
            me,
            incarnation,
            live: ArcSwap::from_pointee([own].into()),
            lease_holds: AtomicBool::new(true),
            changes: watch::Sender::new(0),
        })
    }

    /// These are live from now on.
    pub fn set_live(&self, live: impl IntoIterator<Item = Gateway>) {
        let mut live: Vec<Gateway> = live.into_iter().collect();
        live.sort_by_key(|gateway| gateway.id);
        live.dedup_by_key(|gateway| gateway.id);
        self.live.store(Arc::new(live.into()));
        self.changes.send_modify(|number| *number += 1);
    }

    /// The lease holds from now on, or doesn't.
    pub fn set_lease(&self, holds: bool) {
        self.lease_holds.store(holds, Ordering::SeqCst);
        self.changes.send_modify(|number| *number += 1);
    }
}

impl Gateways for FixedGateways {
    fn me(&self) -> NodeId {
        self.me
    }

    fn incarnation(&self) -> u64 {
        self.incarnation
    }

    fn live(&self) -> Arc<[Gateway]> {
        Arc::clone(&self.live.load())
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    fn lease_holds(&self) -> bool {
        self.lease_holds.load(Ordering::SeqCst)
    }
}
