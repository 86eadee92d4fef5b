//! The store at one version: redb's MVCC does the work.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::RwLock;
use redb::ReadOnlyTable;

use super::engine::Engine;
use super::guard::Guard;
use super::queue::CommitQueue;
use super::{failed, layout};
use crate::error::MetaError;
use crate::store::{Commit, Committed, KeyRange, Page, Snapshot};

/// Reads of up to this many rows are made where they are asked for. They touch some pages of the
/// tree, whose upper levels are in redb's cache and the rest in the system's; handing them to
/// another thread costs more than that. Longer ones go to the blocking pool.
const INLINE_ROWS: usize = 64;

/// One committed version.
pub(super) struct View {
    pub(super) version: u64,
    pub(super) data: ReadOnlyTable<&'static [u8], &'static [u8]>,
    guard: Arc<Guard>,
}

impl std::fmt::Debug for View {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("View").field("version", &self.version).finish_non_exhaustive()
    }
}

impl View {
    /// The last committed version of `engine`.
    pub(super) fn open(engine: &Engine) -> Result<Self, MetaError> {
        let read = redb::ReadableDatabase::begin_read(&engine.database).map_err(failed)?;
        let system = read.open_table(layout::SYSTEM).map_err(failed)?;
        let version = layout::read_number(&system, layout::VERSION)?.unwrap_or(0);
        let data = read.open_table(layout::DATA).map_err(failed)?;
        Ok(Self { version, data, guard: Arc::clone(&engine.guard) })
    }

    /// What a failed read means: a view whose engine was replaced is too old.
    fn failed(&self, error: impl Into<redb::Error>) -> MetaError {
        if self.guard.is_retired() { MetaError::TooOld } else { failed(error) }
    }

    pub(super) fn get(&self, key: &[u8]) -> Result<Option<Bytes>, MetaError> {
        let value = self.data.get(key).map_err(|error| self.failed(error))?;
        Ok(value.map(|value| Bytes::copy_from_slice(value.value())))
    }

    fn get_range(
        &self,
        range: &KeyRange,
        limit: usize,
        mut bytes: usize,
        reverse: bool,
    ) -> Result<Page, MetaError> {
        let mut page = Page::default();
        if range.is_empty() {
            return Ok(page);
        }
        let mut rows = self
            .data
            .range::<&[u8]>(&range.begin[..]..&range.end[..])
            .map_err(|error| self.failed(error))?;
        while let Some(row) = if reverse { rows.next_back() } else { rows.next() } {
            if page.rows.len() >= limit || (bytes == 0 && !page.rows.is_empty()) {
                page.more = true;
                break;
            }
            let (key, value) = row.map_err(|error| self.failed(error))?;
            let (key, value) = (key.value(), value.value());
            bytes = bytes.saturating_sub(key.len() + value.len());
            page.rows.push((Bytes::copy_from_slice(key), Bytes::copy_from_slice(value)));
        }
        Ok(page)
    }
}

/// The newest committed version, handed out to readers.
#[derive(Debug)]
pub(super) struct Published(RwLock<Arc<View>>);

impl Published {
    pub(super) fn new(view: View) -> Self {
        Self(RwLock::new(Arc::new(view)))
    }

    pub(super) fn latest(&self) -> Arc<View> {
        Arc::clone(&self.0.read())
    }

    pub(super) fn replace(&self, view: View) {
        *self.0.write() = Arc::new(view);
    }
}

/// A view with the way to commit on top of it.
#[derive(Debug)]
pub(super) struct EmbeddedSnapshot {
    pub(super) view: Arc<View>,
    pub(super) queue: Arc<CommitQueue>,
}

#[async_trait]
impl Snapshot for EmbeddedSnapshot {
    fn version(&self) -> u64 {
        self.view.version
    }

    async fn get(&self, key: &[u8]) -> Result<Option<Bytes>, MetaError> {
        self.view.get(key)
    }

    async fn get_range(
        &self,
        range: &KeyRange,
        rows: usize,
        bytes: usize,
        reverse: bool,
    ) -> Result<Page, MetaError> {
        if rows <= INLINE_ROWS {
            return self.view.get_range(range, rows, bytes, reverse);
        }
        let (view, range) = (Arc::clone(&self.view), range.clone());
        tokio::task::spawn_blocking(move || view.get_range(&range, rows, bytes, reverse))
            .await
            .map_err(|_| MetaError::Unavailable("the runtime is shutting down".to_owned()))?
    }

    async fn commit(&self, commit: Commit) -> Result<Committed, MetaError> {
        self.queue.submit(self.view.version, commit).await
    }
}
