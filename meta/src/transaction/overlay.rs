//! A transaction's own writes, as its reads must see them.

use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;

use crate::error::MetaError;
use crate::store::{AtomicOp, KeyRange, Mutation, RangeSet};

/// What own writes say about a key.
#[derive(Clone, Debug)]
pub(super) enum Own {
    /// Exactly this.
    Known(Option<Bytes>),
    /// These operations on what the store has.
    OnBase(Vec<(AtomicOp, Bytes)>),
    /// Only the commit will know.
    Unreadable,
}

impl Own {
    /// The value on top of the store's.
    pub(super) fn over(&self, base: Option<Bytes>) -> Result<Option<Bytes>, MetaError> {
        match self {
            Self::Known(value) => Ok(value.clone()),
            Self::OnBase(ops) => {
                Ok(ops.iter().fold(base, |value, (op, operand)| op.apply(value.as_ref(), operand)))
            }
            Self::Unreadable => Err(MetaError::AccessedUnreadable),
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Overlay {
    keys: BTreeMap<Bytes, Own>,
    /// Keys without an entry of their own that were cleared.
    cleared: RangeSet,
    /// Where versionstamped keys may come to lie.
    unreadable: RangeSet,
}

impl Overlay {
    /// Takes in one write.
    pub(super) fn apply(&mut self, mutation: &Mutation) {
        match mutation {
            Mutation::Set(key, value) => {
                self.keys.insert(key.clone(), Own::Known(Some(value.clone())));
            }
            Mutation::Clear(key) => {
                self.keys.insert(key.clone(), Own::Known(None));
            }
            Mutation::ClearRange(range) => {
                let inside: Vec<Bytes> = self.entries(range).map(|(key, _)| key.clone()).collect();
                for key in inside {
                    self.keys.remove(&key);
                }
                self.cleared.insert(range.clone());
            }
            Mutation::Atomic(op, key, operand) => {
                let is_cleared = self.cleared.contains(key);
                let own = self.keys.entry(key.clone()).or_insert_with(|| {
                    if is_cleared { Own::Known(None) } else { Own::OnBase(Vec::new()) }
                });
                match own {
                    Own::Known(value) => *value = op.apply(value.as_ref(), operand),
                    Own::OnBase(ops) => ops.push((*op, operand.clone())),
                    Own::Unreadable => {}
                }
            }
            Mutation::SetStampedKey { key, offset, .. } => {
                let low = crate::store::put_stamp(key, *offset, [0; 10]);
                let high = crate::store::put_stamp(key, *offset, [0xff; 10]);
                if let (Ok(low), Ok(high)) = (low, high) {
                    self.unreadable.insert(KeyRange::new(low, crate::store::key_after(&high)));
                }
            }
            Mutation::SetStampedValue { key, .. } => {
                self.keys.insert(key.clone(), Own::Unreadable);
            }
        }
    }

    /// What own writes say about `key`; `None` when nothing.
    pub(super) fn find(&self, key: &[u8]) -> Option<Own> {
        if let Some(own) = self.keys.get(key) {
            return Some(own.clone());
        }
        if self.unreadable.contains(key) {
            return Some(Own::Unreadable);
        }
        self.cleared.contains(key).then_some(Own::Known(None))
    }

    /// Puts own writes on top of `base`, which holds the store's rows of `range`, up to `rows` and
    /// until `bytes` are passed. Says whether it stopped before the end of `range`.
    pub(super) fn merge(
        &self,
        range: &KeyRange,
        base: Vec<(Bytes, Bytes)>,
        reverse: bool,
        room: &mut Room,
        out: &mut Vec<(Bytes, Bytes)>,
    ) -> Result<bool, MetaError> {
        if self.unreadable.intersects(range) {
            return Err(MetaError::AccessedUnreadable);
        }
        let mut base = base.into_iter().peekable();
        let entries: Box<dyn Iterator<Item = (&Bytes, &Own)>> = if reverse {
            Box::new(self.entries(range).rev())
        } else {
            Box::new(self.entries(range))
        };
        let mut entries = entries.peekable();
        loop {
            let own_first = match (base.peek(), entries.peek()) {
                (None, None) => return Ok(false),
                (None, Some(_)) => true,
                (Some(_), None) => false,
                (Some((theirs, _)), Some((own, _))) if reverse => *own >= theirs,
                (Some((theirs, _)), Some((own, _))) => *own <= theirs,
            };
            if room.is_full() {
                return Ok(true);
            }
            let row = if own_first {
                let Some((key, own)) = entries.next() else {
                    continue;
                };
                let theirs = base.next_if(|(theirs, _)| theirs == key);
                let value = own.over(theirs.map(|(_, value)| value))?;
                value.map(|value| (key.clone(), value))
            } else {
                base.next().filter(|(key, _)| !self.cleared.contains(key))
            };
            if let Some((key, value)) = row {
                room.take(key.len() + value.len());
                out.push((key, value));
            }
        }
    }

    fn entries(
        &self,
        range: &KeyRange,
    ) -> impl DoubleEndedIterator<Item = (&Bytes, &Own)> + use<'_> {
        // An inverted range would panic in the map; an empty one is read as nothing.
        let end = (&range.end).max(&range.begin);
        self.keys.range::<[u8], _>((Bound::Included(&range.begin[..]), Bound::Excluded(&end[..])))
    }
}

/// What may still be put on a page.
#[derive(Debug)]
pub(super) struct Room {
    pub(super) rows: usize,
    pub(super) bytes: usize,
}

impl Room {
    pub(super) fn is_full(&self) -> bool {
        self.rows == 0 || self.bytes == 0
    }

    fn take(&mut self, bytes: usize) {
        self.rows = self.rows.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(bytes.max(1));
    }
}
