//! All rows of a store below the root, for tools that look at everything.

use std::sync::Arc;

use bytes::Bytes;

use crate::error::MetaError;
use crate::meta::Meta;
use crate::store::{KeyRange, Snapshot, key_after};

/// Rows and bytes of one page at most.
const PAGE_ROWS: usize = 5_000;
const PAGE_BYTES: usize = 1 << 20;

/// A walk over all rows in key order, one page in memory. It reads at one version for as long as
/// the store keeps it, then at a newer one.
#[derive(Debug)]
pub(crate) struct Walk {
    meta: Meta,
    snapshot: Option<Arc<dyn Snapshot>>,
    version: Option<u64>,
    left: KeyRange,
    moved: bool,
}

impl Walk {
    pub(crate) fn new(meta: &Meta) -> Self {
        let left = meta.all_keys();
        Self { meta: meta.clone(), snapshot: None, version: None, left, moved: false }
    }

    /// The next rows; `None` at the end.
    ///
    /// # Errors
    /// The store's own.
    pub(crate) async fn next_page(&mut self) -> Result<Option<Vec<(Bytes, Bytes)>>, MetaError> {
        loop {
            if self.left.is_empty() {
                return Ok(None);
            }
            let snapshot = match &self.snapshot {
                Some(snapshot) => Arc::clone(snapshot),
                None => self.newer().await?,
            };
            let page = match snapshot.get_range(&self.left, PAGE_ROWS, PAGE_BYTES, false).await {
                Err(MetaError::TooOld) => {
                    self.snapshot = None;
                    continue;
                }
                page => page?,
            };
            let end = self.left.end.clone();
            let begin = match page.rows.last() {
                Some((last, _)) if page.more => key_after(last),
                _ => end.clone(),
            };
            self.left = KeyRange::new(begin, end);
            return Ok((!page.rows.is_empty()).then_some(page.rows));
        }
    }

    async fn newer(&mut self) -> Result<Arc<dyn Snapshot>, MetaError> {
        let snapshot = self.meta.store().snapshot().await?;
        let version = snapshot.version();
        self.moved |= self.version.is_some_and(|before| before != version);
        self.version = Some(version);
        self.snapshot = Some(Arc::clone(&snapshot));
        Ok(snapshot)
    }

    /// Something may have been written between two pages.
    pub(crate) fn has_moved(&self) -> bool {
        self.moved
    }
}
