//! Offsets that nobody has needed for long are forgotten, and empty groups with them (K16).

use std::sync::Arc;
use std::time::Duration;

use interflow_meta::groups;
use interflow_meta::{DEFAULT_TENANT, Meta, MetaError};

use super::registry::Groups;
use super::store;

impl Groups {
    pub(super) async fn run_expiry(self: Arc<Self>) {
        let every =
            Duration::from_millis(self.config().offsets_retention_check_interval_ms.max(1_000));
        loop {
            tokio::time::sleep(every).await;
            if let Err(error) = self.expire_once().await {
                tracing::warn!(%error, "old offsets can't be looked for");
            }
        }
    }

    /// Looks once through all groups, giving way to requests; returns how many offsets went.
    pub(super) async fn expire_once(self: &Arc<Self>) -> Result<usize, MetaError> {
        let meta = &self.meta().background();
        let minutes = i64::try_from(self.config().offsets_retention_minutes).unwrap_or(i64::MAX);
        let retention_ms = minutes.saturating_mul(60_000);
        let (mut expired, mut after) = (0, None::<String>);
        loop {
            let page = store::names(meta, after.as_deref()).await?;
            for name in &page {
                // One in memory is in use, or has members, and so keeps its offsets.
                if self.check(name).is_err() || self.peek(name, |_| ()).is_some() {
                    continue;
                }
                match self.expire_group(meta, name, retention_ms).await? {
                    Found::Expired(offsets) => expired += offsets,
                    // Its coordinator let it go, and nobody has come since.
                    Found::Members => drop(self.with(name, false, |_, _, _| ()).await),
                }
            }
            if page.len() < store::PAGE {
                return Ok(expired);
            }
            after = page.last().cloned();
        }
    }

    async fn expire_group(
        &self,
        meta: &Meta,
        name: &str,
        retention_ms: i64,
    ) -> Result<Found, MetaError> {
        let now_ms = self.wall_ms();
        meta.transact(|tx| async move {
            if self.is_others(groups::coordinator(&tx, DEFAULT_TENANT, name).await?) {
                return Ok::<_, MetaError>(Found::Expired(0));
            }
            if let Some(metadata) = groups::metadata(&tx, DEFAULT_TENANT, name).await? {
                if !store::from_metadata(name, &metadata).members.is_empty() {
                    return Ok(Found::Members);
                }
                // The time counts from when the last member went.
                if metadata.changed_ms.saturating_add(retention_ms) > now_ms {
                    return Ok(Found::Expired(0));
                }
            }
            let expired =
                groups::expire_offsets(&tx, DEFAULT_TENANT, name, now_ms, retention_ms).await?;
            if groups::all_offsets(&tx, DEFAULT_TENANT, name).await?.is_empty() {
                groups::delete(&tx, DEFAULT_TENANT, name)?;
            }
            Ok(Found::Expired(expired))
        })
        .await
    }
}

/// What the look at a group led to.
enum Found {
    /// So many offsets went.
    Expired(usize),
    /// It has members.
    Members,
}

#[cfg(test)]
mod tests {
    use interflow_meta::groups::CommittedOffset;
    use interflow_meta::{EmbeddedStore, Env, NodeId, PriorityStore};
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::cluster::FixedGateways;
    use crate::kafka::brokers::Brokers;
    use crate::kafka::config::KafkaConfig;

    #[tokio::test]
    async fn k16_old_offsets_lapse_and_the_look_for_them_gives_way() {
        let env = Env::default();
        let store = PriorityStore::new(Arc::new(EmbeddedStore::in_memory(env.clone()).unwrap()));
        let meta = Meta::new(Arc::new(store.clone()), env, "test");
        let now_ms = i64::MAX / 2;
        for (group, committed_ms) in [("old", 1), ("new", now_ms)] {
            let offset = CommittedOffset { committed_ms, ..CommittedOffset::default() };
            let rows = &[("topic".to_owned(), 0, offset)];
            let commit = |tx| async move { groups::commit_offsets(&tx, "", group, rows) };
            meta.transact(commit).await.unwrap();
        }
        let (config, stop) = (KafkaConfig::default(), CancellationToken::new());
        stop.cancel();
        let brokers = Brokers::new(FixedGateways::alone(NodeId(1), 1));
        let groups = Groups::start(meta.clone(), Arc::new(brokers), config, Arc::default(), stop);
        groups.stopped().await;
        store.take_counts();
        assert_eq!(groups.expire_once().await.unwrap(), 1);
        // The names, and each of the two groups.
        assert_eq!(store.take_counts(), (0, 3));
        assert_eq!(store::names(&meta, None).await.unwrap(), ["new"]);
    }
}
