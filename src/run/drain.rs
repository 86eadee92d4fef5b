//! What a log store does when it is drained.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use interflow_logstore::LogStore;
use interflow_meta::members::Members;
use interflow_meta::nodes::NodeState;
use tokio_util::sync::CancellationToken;

/// The pause after some segments could not be rolled.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Whose open segments are to go elsewhere.
#[async_trait]
pub trait RollAway: Send + Sync + 'static {
    /// Closes the open segments that this node is the sequencer of, and opens the next ones on
    /// nodes that take segments. Called again after an error, and done again without harm.
    ///
    /// # Errors
    /// Some are still here.
    async fn roll_away(&self) -> anyhow::Result<()>;
}

/// A segment with one replica has nobody to go on with it: it stays until it is full or old.
#[async_trait]
impl RollAway for LogStore {
    async fn roll_away(&self) -> anyhow::Result<()> {
        tracing::info!("this node is drained: no new logs come to it, and those it has stay");
        Ok(())
    }
}

/// Rolls segments away as long as this node is read-only, at each change of the members, until
/// `ending`.
pub(super) async fn follow(
    members: Arc<Members>,
    logs: Arc<dyn RollAway>,
    ending: CancellationToken,
) {
    let mut changes = members.changes();
    let is_drained = || {
        let view = members.view();
        view.get(members.me().id).is_some_and(|me| me.node.state == NodeState::ReadOnly)
    };
    let following = async {
        loop {
            changes.mark_unchanged();
            if is_drained()
                && let Err(error) = logs.roll_away().await
            {
                tracing::warn!(error = format!("{error:#}"), "not all logs have moved yet");
                tokio::time::sleep(RETRY_AFTER).await;
                continue;
            }
            // Also a change of others: between two reads the drain may have been undone and done
            // again, and something come in.
            if changes.changed().await.is_err() {
                return;
            }
        }
    };
    ending.run_until_cancelled(following).await;
}

#[cfg(test)]
mod tests {
    use anyhow::bail;
    use interflow_meta::levels::Levels;
    use interflow_meta::members::{MembersOptions, Registration, drain};
    use interflow_meta::nodes::NodeKind;
    use interflow_meta::{EmbeddedStore, Env, Meta, NodeId, cluster};
    use tokio::sync::watch;

    use super::*;

    /// Fails at first, and tells how often it was called.
    struct Counted(watch::Sender<u32>);

    #[async_trait]
    impl RollAway for Counted {
        async fn roll_away(&self) -> anyhow::Result<()> {
            self.0.send_modify(|calls| *calls += 1);
            if *self.0.borrow() == 1 {
                bail!("not yet");
            }
            Ok(())
        }
    }

    #[tokio::test]
    async fn each_drain_rolls_away_until_it_is_done() {
        let env = Env::default();
        let meta = Meta::new(Arc::new(EmbeddedStore::in_memory(env.clone()).unwrap()), env, "test");
        meta.transact(|tx| async move {
            cluster::join_or_create(&tx, uuid::Uuid::nil(), 0, Levels::SUPPORTED).await
        })
        .await
        .unwrap();
        let registration = Registration {
            id: Some(NodeId(1)),
            kind: NodeKind::LogStore,
            address: "localhost:1".to_owned(),
            endpoints: Vec::new(),
            rack: String::new(),
            disk: None,
            disk_bytes: 0,
            started_ms: 0,
        };
        let ending = CancellationToken::new();
        let options = MembersOptions::default();
        let members = Members::start(meta.clone(), registration, options, &ending).await.unwrap();
        members.ready().await.unwrap();
        let logs = Arc::new(Counted(watch::Sender::new(0)));
        let mut calls = logs.0.subscribe();
        let following = tokio::spawn(follow(members.clone(), logs, ending.clone()));
        // The first call fails.
        let mut least = 2;
        for _ in 0..3 {
            drain(&meta, NodeId(1), false).await.unwrap();
            members.refresh();
            calls.wait_for(|calls| *calls >= least).await.unwrap();
            let mut changes = members.changes();
            drain(&meta, NodeId(1), true).await.unwrap();
            members.refresh();
            changes.wait_for(|_| members.view().candidates().count() == 1).await.unwrap();
            least = *calls.borrow() + 1;
        }
        ending.cancel();
        following.await.unwrap();
        members.leave().await;
    }
}
