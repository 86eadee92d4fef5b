//! Producer ids, taken from meta in blocks.

use std::ops::Range;

use async_trait::async_trait;
use interflow_meta::{Meta, producers};
use tokio::sync::Mutex;

use super::data::{ProducerIdError, ProducerIdSource};

/// Ids in one block. What is left of it at a restart is never used.
const BLOCK: u32 = 1_000;

/// Producer ids that nobody else gets: a block is durable in meta before the first of it is used.
#[derive(Debug)]
pub(super) struct ProducerIds {
    meta: Meta,
    /// Held over the allocation, so that all who wait share one block.
    block: Mutex<Range<i64>>,
}

impl ProducerIds {
    pub(super) fn new(meta: Meta) -> Self {
        Self { meta, block: Mutex::new(0..0) }
    }
}

#[async_trait]
impl ProducerIdSource for ProducerIds {
    async fn next_producer_id(&self) -> Result<i64, ProducerIdError> {
        let mut block = self.block.lock().await;
        if let Some(id) = block.next() {
            return Ok(id);
        }
        *block = self
            .meta
            .transact(|tx| async move { producers::allocate(&tx, BLOCK).await })
            .await
            .map_err(|error| ProducerIdError(error.to_string()))?;
        block.next().ok_or_else(|| ProducerIdError("an empty block".to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;

    use interflow_meta::{EmbeddedStore, Env, Loss, LossyStore};

    use super::*;

    #[tokio::test]
    async fn k6_no_producer_id_is_given_twice() {
        let env = Env::default();
        let store = EmbeddedStore::in_memory(env.clone()).expect("opens");
        let meta = Meta::new(Arc::new(store), env, "test");
        let mut seen = BTreeSet::new();
        for _ in 0..3 {
            // Each is a new life of the process.
            let ids = ProducerIds::new(meta.clone());
            for _ in 0..1_500 {
                assert!(seen.insert(ids.next_producer_id().await.expect("an id")));
            }
        }
    }

    #[tokio::test]
    async fn k6_no_producer_id_is_given_by_two_gateways() {
        let env = Env::default();
        let store =
            LossyStore::new(Arc::new(EmbeddedStore::in_memory(env.clone()).expect("opens")));
        // Also where it isn't known whether a block was taken.
        store.plan([Loss::Answer, Loss::None, Loss::Request, Loss::Answer, Loss::Answer]);
        let meta = Meta::new(Arc::new(store), env, "test");
        let gateways = [(); 3].map(|()| Arc::new(ProducerIds::new(meta.clone())));
        let tasks: Vec<_> = (0..12)
            .map(|n| {
                let ids = gateways[n % gateways.len()].clone();
                tokio::spawn(async move {
                    let mut given = Vec::new();
                    for _ in 0..800 {
                        given.push(ids.next_producer_id().await.expect("an id"));
                        tokio::task::yield_now().await;
                    }
                    given
                })
            })
            .collect();
        let mut seen = BTreeSet::new();
        for task in tasks {
            for id in task.await.expect("ends") {
                assert!(seen.insert(id), "{id} was given twice");
            }
        }
        assert_eq!(seen.len(), 12 * 800);
    }
}
