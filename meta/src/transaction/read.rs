//! Reads of a transaction: keys, and ranges page by page.

use bytes::Bytes;
use futures_util::future::try_join_all;

use super::Transaction;
use super::limits::{check_key, check_range};
use super::overlay::{Own, Room};
use crate::error::MetaError;
use crate::store::{KeyRange, Page, key_after};

/// Keys that [`Transaction::get_many`] reads at a time.
pub(crate) const GETS_AT_A_TIME: usize = 64;

/// How a range is read.
#[derive(Clone, Copy, Debug)]
pub struct RangeOptions {
    /// At most this many rows.
    pub rows: usize,
    /// Stop when keys and values of one page pass this many bytes.
    pub bytes: usize,
    /// From the end backwards.
    pub reverse: bool,
    /// A snapshot read: no conflict with later writes of others.
    pub snapshot: bool,
}

impl Default for RangeOptions {
    fn default() -> Self {
        Self { rows: usize::MAX, bytes: 64 * 1024, reverse: false, snapshot: false }
    }
}

impl RangeOptions {
    /// At most `rows` rows.
    #[must_use]
    pub fn limit(rows: usize) -> Self {
        Self { rows, ..Self::default() }
    }

    /// From the end backwards.
    #[must_use]
    pub fn reversed(self) -> Self {
        Self { reverse: true, ..self }
    }

    /// A snapshot read.
    #[must_use]
    pub fn snapshot(self) -> Self {
        Self { snapshot: true, ..self }
    }
}

impl Transaction {
    /// The value of `key`.
    ///
    /// # Errors
    /// [`MetaError::TooOld`] after 5 s, [`MetaError::AccessedUnreadable`] for an own versionstamp,
    /// [`MetaError::KeyTooLarge`], [`MetaError::KeyOutsideLegalRange`]; the store's own.
    pub async fn get(&self, key: &[u8]) -> Result<Option<Bytes>, MetaError> {
        self.read_key(key, false).await
    }

    /// The values of `keys`, in their order. Some are read at the same time, so that on a store that
    /// is far away many keys don't take many times as long as one.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn get_many(&self, keys: &[Vec<u8>]) -> Result<Vec<Option<Bytes>>, MetaError> {
        let mut values = Vec::with_capacity(keys.len());
        for some in keys.chunks(GETS_AT_A_TIME) {
            values.extend(try_join_all(some.iter().map(|key| self.get(key))).await?);
        }
        Ok(values)
    }

    /// The value of `key`, without a conflict should another change it before the commit.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn get_snapshot(&self, key: &[u8]) -> Result<Option<Bytes>, MetaError> {
        self.read_key(key, true).await
    }

    async fn read_key(&self, key: &[u8], snapshot: bool) -> Result<Option<Bytes>, MetaError> {
        check_key(key)?;
        let view = self.snapshot().await?;
        let own = {
            let mut state = self.inner.state.lock();
            state.check_open()?;
            let own = state.overlay.find(key);
            // What the transaction itself has set depends on nobody else.
            if !snapshot && !matches!(own, Some(Own::Known(_))) {
                state.reads.insert(KeyRange::key(key));
            }
            own
        };
        match own {
            Some(own @ (Own::Known(_) | Own::Unreadable)) => own.over(None),
            Some(own) => own.over(view.get(key).await?),
            None => view.get(key).await,
        }
    }

    /// One page of `range`, own writes included. [`Page::more`] says that there may be more behind
    /// its last row.
    ///
    /// # Errors
    /// As [`get`](Self::get); [`MetaError::InvertedRange`].
    pub async fn get_range(
        &self,
        range: &KeyRange,
        options: RangeOptions,
    ) -> Result<Page, MetaError> {
        check_range(range)?;
        self.inner.state.lock().check_open()?;
        if range.is_empty() || options.rows == 0 {
            return Ok(Page::default());
        }
        let view = self.snapshot().await?;
        let mut room = Room { rows: options.rows, bytes: options.bytes.max(1) };
        let mut rows = Vec::new();
        let mut left = range.clone();
        let more = loop {
            let base = view.get_range(&left, room.rows, room.bytes, options.reverse).await?;
            let (seen, rest) = match base.rows.last() {
                Some((last, _)) if base.more => split(&left, last, options.reverse),
                _ => (left.clone(), None),
            };
            let state = self.inner.state.lock();
            let stopped =
                state.overlay.merge(&seen, base.rows, options.reverse, &mut room, &mut rows)?;
            match rest {
                _ if stopped => break true,
                Some(rest) if !room.is_full() => left = rest,
                rest => break rest.is_some_and(|rest| !rest.is_empty()),
            }
        };
        if !options.snapshot {
            let read = match rows.last() {
                Some((last, _)) if more => split(range, last, options.reverse).0,
                _ => range.clone(),
            };
            self.inner.state.lock().reads.insert(read);
        }
        Ok(Page { rows, more })
    }

    /// All of `range`, page by page.
    #[must_use]
    pub fn scan(&self, range: KeyRange, options: RangeOptions) -> Scan {
        Scan { transaction: self.clone(), options, left: Some(range) }
    }

    /// All rows of a range that is known to be small.
    ///
    /// # Errors
    /// As [`get_range`](Self::get_range).
    pub async fn get_all(&self, range: &KeyRange) -> Result<Vec<(Bytes, Bytes)>, MetaError> {
        let mut scan = self.scan(range.clone(), RangeOptions::default());
        let mut all = Vec::new();
        while let Some(rows) = scan.next_page().await? {
            all.extend(rows);
        }
        Ok(all)
    }
}

/// Parts `range` behind `last` (in reading direction): what was read, and the rest.
fn split(range: &KeyRange, last: &Bytes, reverse: bool) -> (KeyRange, Option<KeyRange>) {
    if reverse {
        (
            KeyRange::new(last.clone(), range.end.clone()),
            Some(KeyRange::new(range.begin.clone(), last.clone())),
        )
    } else {
        let next = key_after(last);
        (
            KeyRange::new(range.begin.clone(), next.clone()),
            Some(KeyRange::new(next, range.end.clone())),
        )
    }
}

/// A range being read page by page: only one page is in memory.
#[derive(Debug)]
pub struct Scan {
    transaction: Transaction,
    options: RangeOptions,
    left: Option<KeyRange>,
}

impl Scan {
    /// The next rows; `None` at the end.
    ///
    /// # Errors
    /// As [`Transaction::get_range`].
    pub async fn next_page(&mut self) -> Result<Option<Vec<(Bytes, Bytes)>>, MetaError> {
        let Some(range) = self.left.take() else {
            return Ok(None);
        };
        let page = self.transaction.get_range(&range, self.options).await?;
        self.options.rows = self.options.rows.saturating_sub(page.rows.len());
        if page.more
            && let Some((last, _)) = page.rows.last()
        {
            self.left = split(&range, last, self.options.reverse).1;
        }
        Ok((!page.rows.is_empty()).then_some(page.rows))
    }
}
