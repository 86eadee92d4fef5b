//! How the replicas of this node's logs keep up.

use interflow_meta::NodeId;

use super::service::LogStore;
use super::state::{Active, Ready};
use crate::ReplicaDescription;
use crate::core::replication::Lag;

/// Replicas of the logs that this node gives out offsets of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReplicaLags {
    /// Logs that this node gives out offsets of.
    pub logs: u64,
    /// Those with fewer replicas than they are to have, of any segment, or one that isn't in sync.
    pub under_replicated: u64,
    /// The most records that one of their replicas isn't known to have durable.
    pub max: u64,
}

impl LogStore {
    /// How replicas keep up now; looks at each log in memory.
    #[must_use]
    pub fn replica_lags(&self) -> ReplicaLags {
        let mut all = ReplicaLags::default();
        for log in self.inner.all_logs() {
            let state = log.state.lock();
            let Some(ready) = state.ready() else { continue };
            let Some(active) = ready.active() else { continue };
            all.logs += 1;
            all.under_replicated += u64::from(ready.is_under_replicated(active));
            let most = active.replication.lags().map(|lag| lag.records).max();
            all.max = all.max.max(most.unwrap_or(0));
        }
        all
    }
}

impl Ready {
    fn is_under_replicated(&self, active: &Active) -> bool {
        self.replicas.len() < self.factor.replicas
            || active.replication.lags().any(|lag| !lag.is_in_sync)
            || self
                .chain
                .closed()
                .any(|closed| closed.is_short || closed.replicas.len() < self.factor.replicas)
    }
}

impl Active {
    /// The replicas, as operators see them.
    pub(super) fn describe_replicas(&self) -> Vec<ReplicaDescription> {
        let of = |(node, lag): (&NodeId, Lag)| ReplicaDescription {
            node: *node,
            lag: lag.records,
            is_in_sync: lag.is_in_sync,
        };
        self.head.replicas.iter().zip(self.replication.lags()).map(of).collect()
    }
}
