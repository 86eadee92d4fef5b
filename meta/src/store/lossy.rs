//! A store that loses commits or their answers, for tests of what must survive that.

use std::collections::VecDeque;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;

use super::{Commit, Committed, KeyRange, Page, Snapshot, Store};
use crate::error::MetaError;

/// What happens to one commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// Nothing.
    None,
    /// It is made, and its answer lost: [`MetaError::CommitUnknown`].
    Answer,
    /// It never arrives: [`MetaError::CommitUnknown`].
    Request,
}

/// Another store, of whose commits some are lost as told.
#[derive(Clone, Debug)]
pub struct LossyStore {
    inner: Arc<dyn Store>,
    losses: Arc<Mutex<VecDeque<Loss>>>,
}

impl LossyStore {
    /// Loses nothing before it is told to.
    #[must_use]
    pub fn new(inner: Arc<dyn Store>) -> Self {
        Self { inner, losses: Arc::default() }
    }

    /// What happens to the commits behind those already planned, one after the other; then nothing.
    pub fn plan(&self, losses: impl IntoIterator<Item = Loss>) {
        self.losses.lock().extend(losses);
    }
}

#[derive(Debug)]
struct LossySnapshot {
    inner: Arc<dyn Snapshot>,
    losses: Arc<Mutex<VecDeque<Loss>>>,
}

#[async_trait]
impl Store for LossyStore {
    async fn snapshot(&self) -> Result<Arc<dyn Snapshot>, MetaError> {
        Ok(Arc::new(LossySnapshot {
            inner: self.inner.snapshot().await?,
            losses: Arc::clone(&self.losses),
        }))
    }

    async fn close(&self) {
        self.inner.close().await;
    }
}

#[async_trait]
impl Snapshot for LossySnapshot {
    fn version(&self) -> u64 {
        self.inner.version()
    }

    async fn get(&self, key: &[u8]) -> Result<Option<Bytes>, MetaError> {
        self.inner.get(key).await
    }

    async fn get_range(
        &self,
        range: &KeyRange,
        rows: usize,
        bytes: usize,
        reverse: bool,
    ) -> Result<Page, MetaError> {
        self.inner.get_range(range, rows, bytes, reverse).await
    }

    async fn commit(&self, commit: Commit) -> Result<Committed, MetaError> {
        let loss = self.losses.lock().pop_front().unwrap_or(Loss::None);
        match loss {
            Loss::None => self.inner.commit(commit).await,
            Loss::Request => Err(MetaError::CommitUnknown),
            Loss::Answer => {
                self.inner.commit(commit).await?;
                Err(MetaError::CommitUnknown)
            }
        }
    }
}
