//! Key selectors: a key named by its place beside another one.

use bytes::Bytes;

use super::limits::MAX_KEY_BYTES;
use super::{RangeOptions, Transaction};
use crate::error::MetaError;
use crate::store::{KeyRange, key_after};

/// A key named by its place, as FoundationDB defines it: begin at the last key before `key` (or at
/// `key` itself, if it is there and `or_equal`), then go `offset` keys on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeySelector {
    /// Where to begin.
    pub key: Bytes,
    /// `key` itself counts as "before".
    pub or_equal: bool,
    /// Keys to go on; negative goes back.
    pub offset: i32,
}

impl KeySelector {
    /// The last key before `key`.
    pub fn last_less_than(key: impl Into<Bytes>) -> Self {
        Self::new(key, false, 0)
    }

    /// `key`, or the last before it.
    pub fn last_less_or_equal(key: impl Into<Bytes>) -> Self {
        Self::new(key, true, 0)
    }

    /// The first key behind `key`.
    pub fn first_greater_than(key: impl Into<Bytes>) -> Self {
        Self::new(key, true, 1)
    }

    /// `key`, or the first behind it.
    pub fn first_greater_or_equal(key: impl Into<Bytes>) -> Self {
        Self::new(key, false, 1)
    }

    fn new(key: impl Into<Bytes>, or_equal: bool, offset: i32) -> Self {
        Self { key: key.into(), or_equal, offset }
    }
}

impl std::ops::Add<i32> for KeySelector {
    type Output = Self;

    fn add(mut self, more: i32) -> Self {
        self.offset = self.offset.saturating_add(more);
        self
    }
}

impl Transaction {
    /// The key that `selector` names: empty when it lies before the first key, 0xFF when behind
    /// the last one.
    ///
    /// # Errors
    /// As [`get_range`](Transaction::get_range).
    pub async fn get_key(
        &self,
        selector: &KeySelector,
        snapshot: bool,
    ) -> Result<Bytes, MetaError> {
        if selector.key.len() > MAX_KEY_BYTES + 1 {
            return Err(MetaError::KeyTooLarge(selector.key.len()));
        }
        let middle =
            if selector.or_equal { key_after(&selector.key) } else { selector.key.clone() };
        let last = Bytes::from_static(&[0xff]);
        let middle = middle.min(last.clone());
        let reverse = selector.offset <= 0;
        let (range, steps) = if reverse {
            let steps = i64::from(selector.offset).unsigned_abs() + 1;
            (KeyRange::new(Bytes::new(), middle.clone()), steps)
        } else {
            let steps = i64::from(selector.offset).unsigned_abs();
            (KeyRange::new(middle.clone(), last.clone()), steps)
        };
        let steps = usize::try_from(steps).unwrap_or(usize::MAX);
        // What lies behind the key that is found doesn't matter: the conflict range ends there.
        let options = RangeOptions { rows: steps, reverse, ..RangeOptions::default() }.snapshot();
        let mut scan = self.scan(range, options);
        let mut found = (0, Bytes::new());
        while let Some(rows) = scan.next_page().await? {
            found.0 += rows.len();
            if let Some((key, _)) = rows.last() {
                found.1 = key.clone();
            }
        }
        let key = match found {
            (count, key) if count == steps => key,
            _ if reverse => Bytes::new(),
            _ => last.clone(),
        };
        if !snapshot {
            let read = if reverse {
                KeyRange::new(key.clone(), middle)
            } else {
                KeyRange::new(middle, key_after(&key).min(last))
            };
            self.inner.state.lock().reads.insert(read);
        }
        Ok(key)
    }

    /// The range between two selected keys; empty when they are in the wrong order.
    ///
    /// # Errors
    /// As [`get_key`](Self::get_key).
    pub async fn select(
        &self,
        begin: &KeySelector,
        end: &KeySelector,
        snapshot: bool,
    ) -> Result<KeyRange, MetaError> {
        let begin = self.get_key(begin, snapshot).await?;
        let end = self.get_key(end, snapshot).await?;
        let end = end.max(begin.clone());
        Ok(KeyRange::new(begin, end))
    }
}
