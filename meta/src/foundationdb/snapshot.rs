//! One version of the cluster's data.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use foundationdb::options::StreamingMode;
use foundationdb::{KeySelector, RangeOption, Transaction};

use super::{Db, Priority, commit, error};
use crate::error::MetaError;
use crate::store::{Commit, Committed, KeyRange, Page, Snapshot};

/// A transaction of FoundationDB's that only reads: nothing that a commit does touches it.
#[derive(Debug)]
pub(super) struct FdbSnapshot {
    db: Arc<Db>,
    priority: Priority,
    reads: Transaction,
    version: i64,
}

impl FdbSnapshot {
    /// Takes a read version: all commits that were acknowledged before are in it.
    pub(super) async fn begin(db: &Arc<Db>, priority: Priority) -> Result<Self, MetaError> {
        let failed = |error| error::of_read(db, error);
        let reads = db.begin(priority).map_err(failed)?;
        let version = reads.get_read_version().await.map_err(failed)?;
        Ok(Self { db: Arc::clone(db), priority, reads, version })
    }
}

#[async_trait]
impl Snapshot for FdbSnapshot {
    fn version(&self) -> u64 {
        u64::try_from(self.version).unwrap_or(0)
    }

    async fn get(&self, key: &[u8]) -> Result<Option<Bytes>, MetaError> {
        let value = self.reads.get(key, true).await;
        let value = value.map_err(|error| error::of_read(&self.db, error))?;
        Ok(value.map(|value| Bytes::copy_from_slice(&value)))
    }

    async fn get_range(
        &self,
        range: &KeyRange,
        rows: usize,
        bytes: usize,
        reverse: bool,
    ) -> Result<Page, MetaError> {
        if range.is_empty() || rows == 0 {
            return Ok(Page::default());
        }
        let option = RangeOption {
            begin: KeySelector::first_greater_or_equal(&range.begin[..]),
            end: KeySelector::first_greater_or_equal(&range.end[..]),
            limit: Some(rows),
            // FoundationDB counts some bytes more a row, so it may stop earlier than asked for:
            // `more` says so. Zero would be no limit.
            target_bytes: bytes.max(1),
            // Up to the limits, in as few answers as that takes.
            mode: StreamingMode::Exact,
            reverse,
            ..RangeOption::default()
        };
        let found = self.reads.get_range(&option, 1, true).await;
        let found = found.map_err(|error| error::of_read(&self.db, error))?;
        let copy = Bytes::copy_from_slice;
        Ok(Page {
            rows: found.iter().map(|row| (copy(row.key()), copy(row.value()))).collect(),
            more: found.more(),
        })
    }

    async fn commit(&self, commit: Commit) -> Result<Committed, MetaError> {
        commit::commit(&self.db, self.priority, self.version, commit).await
    }
}
