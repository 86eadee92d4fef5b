//! Key selectors and ranges of keys, read from one version.

use bytes::Bytes;
use interflow_meta::{KeyRange, MetaError, Snapshot};

use crate::error::{
    CLIENT_INVALID_OPERATION, Code, EXACT_MODE_WITHOUT_LIMITS, INTERNAL_ERROR, PROCESS_BEHIND,
    TRANSACTION_TOO_OLD,
};

/// One past all keys.
const END: &[u8] = &[0xff];
/// What FoundationDB counts for a row besides key and value, in bytes.
const ROW_BYTES: usize = 8;
/// Bytes of one answer in the streaming modes from 0 (exact) to 4 (serial); 0 is no bound.
const MODE_BYTES: [usize; 5] = [0, 256, 1_000, 4_096, 80_000];
/// Bytes of the answers of mode -1 (iterator), one after the other.
const ITERATOR_BYTES: [usize; 10] =
    [4_096, 6_144, 9_216, 13_824, 20_736, 31_104, 46_656, 69_984, 80_000, 120_000];

/// A key selector as the C API has it.
#[derive(Clone, Debug)]
pub(crate) struct Selector {
    pub(crate) key: Bytes,
    pub(crate) or_equal: bool,
    pub(crate) offset: i32,
}

/// A range read as the C API has it.
#[derive(Clone, Debug)]
pub(crate) struct RangeRead {
    pub(crate) begin: Selector,
    pub(crate) end: Selector,
    /// 0 is no limit.
    pub(crate) rows: usize,
    /// 0 is no limit.
    pub(crate) bytes: usize,
    pub(crate) mode: i32,
    pub(crate) iteration: i32,
    pub(crate) reverse: bool,
}

/// A store's error of a read.
pub(crate) fn code(error: &MetaError) -> Code {
    match error {
        MetaError::TooOld => TRANSACTION_TOO_OLD,
        // Of a shared cluster: nothing was done, and it may be tried again.
        MetaError::Unavailable(_) => PROCESS_BEHIND,
        other => other.code().unwrap_or(INTERNAL_ERROR),
    }
}

impl Selector {
    /// The key that it names: empty before the first key, 0xFF behind the last.
    pub(crate) async fn resolve(&self, view: &dyn Snapshot) -> Result<Bytes, Code> {
        let mut middle = self.key.to_vec();
        if self.or_equal {
            middle.push(0);
        }
        let middle = Bytes::from(middle).min(Bytes::from_static(END));
        let reverse = self.offset <= 0;
        let (range, steps) = if reverse {
            (KeyRange::new(Bytes::new(), middle), i64::from(self.offset).unsigned_abs() + 1)
        } else {
            (KeyRange::new(middle, END), i64::from(self.offset).unsigned_abs())
        };
        let steps = usize::try_from(steps).unwrap_or(usize::MAX);
        let page = view.get_range(&range, steps, usize::MAX, reverse).await;
        let page = page.map_err(|error| code(&error))?;
        Ok(match page.rows.get(steps - 1) {
            Some((key, _)) => key.clone(),
            None if reverse => Bytes::new(),
            None => Bytes::from_static(END),
        })
    }

    /// Where a range that begins or ends with it does so; "first greater or equal" needs no look.
    async fn bound(&self, view: &dyn Snapshot) -> Result<Bytes, Code> {
        if !self.or_equal && self.offset == 1 {
            return Ok(self.key.clone().min(Bytes::from_static(END)));
        }
        self.resolve(view).await
    }
}

impl RangeRead {
    /// Bytes of one answer; `usize::MAX` is no bound.
    fn answer_bytes(&self) -> Result<usize, Code> {
        let mode = match self.mode {
            // Want all is serial.
            -2 => MODE_BYTES.last(),
            -1 => match usize::try_from(self.iteration) {
                Ok(n @ 1..) => ITERATOR_BYTES.get(n - 1).or(ITERATOR_BYTES.last()),
                _ => None,
            },
            0 if self.rows == 0 && self.bytes == 0 => return Err(EXACT_MODE_WITHOUT_LIMITS),
            mode => usize::try_from(mode).ok().and_then(|mode| MODE_BYTES.get(mode)),
        };
        let mode = mode.ok_or(CLIENT_INVALID_OPERATION)?;
        let bounds = [*mode, self.bytes];
        Ok(bounds.into_iter().filter(|bytes| *bytes > 0).min().unwrap_or(usize::MAX))
    }

    /// The keys that are meant, the rows of them that fit, and whether there may be more.
    pub(crate) async fn read(
        &self,
        view: &dyn Snapshot,
    ) -> Result<(KeyRange, Vec<(Bytes, Bytes)>, bool), Code> {
        let bytes = self.answer_bytes()?;
        let range = KeyRange::new(self.begin.bound(view).await?, self.end.bound(view).await?);
        let limit = if self.rows == 0 { usize::MAX } else { self.rows };
        if range.is_empty() {
            return Ok((range, Vec::new(), false));
        }
        let page = view.get_range(&range, limit, bytes, self.reverse).await;
        let page = page.map_err(|error| code(&error))?;
        let (mut left, found) = (bytes, page.rows.len());
        let mut rows = page.rows;
        let mut kept = 0;
        for (key, value) in &rows {
            if left == 0 && kept > 0 {
                break;
            }
            left = left.saturating_sub(key.len() + value.len() + ROW_BYTES);
            kept += 1;
        }
        rows.truncate(kept);
        // Whoever reaches a limit isn't told that nothing lies behind it.
        let more = kept < found || page.more || kept == limit;
        Ok((range, rows, more))
    }
}
