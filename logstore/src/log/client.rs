//! [`LogStore`] as the [`LogClient`] of its own process.

use std::sync::Arc;

use async_trait::async_trait;
use interflow_meta::{Epoch, LogId, NodeId, Offset};

use super::metrics::add;
use super::registry::LogRecord;
use super::service::LogStore;
use super::state::Active;
use super::{pulling, query, read, recovering, replicas, retain, scrub};
use crate::core::segment::Life;
use crate::peers::{
    Checked, Checking, Fetch, Fetched, PeerError, Pull, Replies, Seal, Sealed, ToReplica,
};
use crate::store::StoreError;
use crate::{
    Append, AppendError, AppendTicket, Bounds, LogClient, LogDescription, LogError, LogObserver,
    LogReplicas, Observation, Read, ReadError, ReadOutcome, ReplicaDescription,
};

/// What other nodes ask for.
impl LogStore {
    pub(crate) async fn peer_receive(
        &self,
        from: Life,
        message: &ToReplica,
        replies: &Arc<dyn Replies>,
    ) -> Result<(), StoreError> {
        replicas::receive(&self.inner, from, message, replies).await
    }

    pub(crate) async fn peer_seal(&self, seal: Seal, by: NodeId) -> Result<Sealed, StoreError> {
        replicas::seal(&self.inner, seal.id, seal.base, by).await
    }

    pub(crate) async fn peer_fetch(&self, fetch: Fetch) -> Result<Fetched, StoreError> {
        pulling::fetch(&self.inner, fetch).await
    }

    pub(crate) async fn peer_check(&self, ask: Checking) -> Result<Checked, PeerError> {
        scrub::check(&self.inner, ask).await
    }

    pub(crate) async fn peer_pull(&self, pull: Pull) -> Result<Offset, PeerError> {
        pulling::pull(&self.inner, pull).await
    }
}

#[async_trait]
impl LogClient for LogStore {
    fn append(&self, append: Append) -> AppendTicket {
        let (reply, ticket) = AppendTicket::pair();
        let log = self.inner.log(append.log);
        log.offer(&self.inner, append, reply);
        ticket
    }

    async fn bounds(&self, log: LogId) -> Result<Bounds, LogError> {
        let log = self.inner.current(log).await?;
        let state = log.state.lock();
        state.ready().map(|ready| ready.bounds()).ok_or(LogError::NoSuchLog)
    }

    async fn replicas(&self, log: LogId) -> Result<LogReplicas, LogError> {
        if let Some(known) = self.inner.known(log)
            && let Some(ready) = known.state.lock().ready()
        {
            return Ok(LogReplicas {
                leader_epoch: ready.bounds().leader_epoch,
                replicas: ready.active().map_or_else(Vec::new, Active::describe_replicas),
                replication_factor: u32::try_from(ready.factor.replicas).unwrap_or(u32::MAX),
            });
        }
        let record = self.inner.record(log).await.map_err(|error| LogError::Meta(error.0))?;
        Ok(self.inner.rests(&record.ok_or(LogError::NoSuchLog)?))
    }

    async fn read(&self, read: Read) -> Result<ReadOutcome, ReadError> {
        let log = self.inner.current(read.log).await.map_err(|error| match error {
            LogError::NoSuchLog => ReadError::NoSuchLog,
            LogError::NotSequencer => ReadError::NotSequencer,
            other => ReadError::Io(other.to_string()),
        })?;
        read::read(&self.inner, &log, read).await
    }

    async fn observe(
        &self,
        log: LogId,
        observer: Arc<dyn LogObserver>,
    ) -> Result<Observation, LogError> {
        let log = self.inner.current(log).await?;
        let id = {
            let mut state = log.state.lock();
            let ready = state.ready().ok_or(LogError::NoSuchLog)?;
            let (bounds, next) = (ready.bounds(), ready.next());
            state.outbox.get_or_insert_default().observe(observer, bounds, next)
        };
        log.call_observers();
        let weak = Arc::downgrade(&log);
        Ok(Observation::new(move || {
            if let Some(log) = weak.upgrade()
                && let Some(outbox) = log.state.lock().outbox.as_mut()
            {
                outbox.forget(id);
            }
        }))
    }

    async fn batch_at_time(
        &self,
        log: LogId,
        timestamp: i64,
    ) -> Result<Option<(Offset, i64)>, LogError> {
        let log = self.inner.current(log).await?;
        query::batch_at_time(&self.inner, &log, timestamp).await
    }

    async fn batch_of_max_time(&self, log: LogId) -> Result<Option<(Offset, i64)>, LogError> {
        let log = self.inner.current(log).await?;
        query::batch_of_max_time(&self.inner, &log).await
    }

    async fn end_of_leader_epoch(
        &self,
        log: LogId,
        leader_epoch: u32,
    ) -> Result<Option<(u32, Offset)>, LogError> {
        let log = self.inner.current(log).await?;
        let state = log.state.lock();
        let ready = state.ready().ok_or(LogError::NoSuchLog)?;
        Ok(ready.chain.end_of_leader_epoch(leader_epoch, ready.committed()))
    }

    async fn trim(&self, log: LogId, before: Offset) -> Result<Offset, LogError> {
        let log = self.inner.current(log).await?;
        let bounds = {
            let state = log.state.lock();
            state.ready().map(|ready| ready.bounds()).ok_or(LogError::NoSuchLog)?
        };
        // I11: never past what is committed.
        let target = before.min(bounds.committed);
        if target <= bounds.start {
            return Ok(bounds.start);
        }
        retain::trim(&*self.inner.registry, &log, target).await?;
        retain::drop_superseded(&self.inner, &log);
        let state = log.state.lock();
        state.ready().map(|ready| ready.start()).ok_or(LogError::NoSuchLog)
    }

    async fn refresh(&self, log: LogId) -> Result<(), LogError> {
        let log = self.inner.ready(log).await?;
        let record =
            self.inner.registry.load(log.id).await.map_err(|error| LogError::Meta(error.0))?;
        let Some(LogRecord { head, trim, policy, factor, .. }) = record else {
            self.inner.remove(&log);
            return Ok(());
        };
        let durability = head.durability;
        let is_to_roll = {
            let mut state = log.state.lock();
            match state.ready_mut() {
                Some(ready) => {
                    (ready.policy, ready.factor) = (policy, factor);
                    let is_other_quorum = ready.active().is_some_and(|active| {
                        active.head.acks != factor.acks(active.head.replicas.len())
                    });
                    let is_other_class = ready.active().is_some()
                        && std::mem::replace(&mut ready.durability, durability) != durability;
                    is_other_class || is_other_quorum
                }
                None => false,
            }
        };
        log.raise_trim(trim);
        // A segment keeps its class and its quorum; the next one has the new ones.
        if is_to_roll {
            log.begin_roll(&self.inner);
        }
        Ok(())
    }

    async fn recover(&self, log: LogId, epoch: Epoch) -> Result<(), LogError> {
        recovering::take_over(&self.inner, log, epoch).await
    }

    async fn describe(&self, log: LogId) -> Result<LogDescription, LogError> {
        let log = self.inner.ready(log).await?;
        query::describe(&self.inner, &log)
    }
}

impl super::service::Inner {
    /// Where a log is kept of which no sequencer is known.
    fn rests(&self, LogRecord { head, factor, .. }: &LogRecord) -> LogReplicas {
        let candidates = self.peers.candidates();
        let is_live = |node: &NodeId| candidates.iter().any(|candidate| candidate.node == *node);
        let replica =
            |node: &NodeId| ReplicaDescription { node: *node, lag: 0, is_in_sync: is_live(node) };
        LogReplicas {
            leader_epoch: head.leader_epoch,
            replicas: head.replicas.iter().map(replica).collect(),
            replication_factor: u32::try_from(factor.replicas).unwrap_or(u32::MAX),
        }
    }
}

impl super::state::Log {
    /// Refuses the appends that wait for the log; nothing of them was kept.
    pub(super) fn refuse_waiting(&self, inner: &super::service::Inner, refusal: &AppendError) {
        let refused = self.state.lock().waiting.refuse_all(&inner.waiting);
        add(&inner.metrics.refused, refused.len() as u64);
        for reply in refused {
            reply.send(Err(refusal.clone()));
        }
    }
}
