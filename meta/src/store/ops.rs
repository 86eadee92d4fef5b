//! Mutations, and atomic operations byte for byte as FoundationDB defines them.

use std::cmp::Ordering;

use bytes::{Bytes, BytesMut};

use super::range::{KeyRange, key_after};
use crate::error::MetaError;
use crate::transaction::MAX_VALUE_BYTES;

/// Bytes of a transaction's version: 8 of the version and 2 of the place within it, big-endian.
pub const STAMP_BYTES: usize = 10;

/// An operation on a value that reads nothing, so that two of them never conflict.
///
/// Numbers are little-endian and as wide as the operand: the old value is cut or padded with zeros
/// to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtomicOp {
    /// Unsigned sum, wrapping.
    Add,
    /// The greater unsigned number.
    Max,
    /// The smaller unsigned number; the operand where there was none.
    Min,
    /// Bitwise and; the operand where there was none.
    And,
    /// Bitwise or.
    Or,
    /// Bitwise exclusive or.
    Xor,
    /// The value that sorts later, byte by byte.
    ByteMax,
    /// The value that sorts earlier, byte by byte; the operand where there was none.
    ByteMin,
    /// Clears the key if its value equals the operand.
    CompareAndClear,
    /// The operand behind the value; nothing when together they exceed the limit of values.
    AppendIfFits,
}

impl AtomicOp {
    /// The value after this operation on `old`.
    #[must_use]
    pub fn apply(self, old: Option<&Bytes>, operand: &Bytes) -> Option<Bytes> {
        let value = match (self, old) {
            (Self::CompareAndClear, old) => {
                return old.filter(|old| *old != operand).cloned();
            }
            (Self::Min | Self::And | Self::ByteMin | Self::ByteMax | Self::AppendIfFits, None) => {
                operand.clone()
            }
            (Self::AppendIfFits, Some(old)) if old.len() + operand.len() > MAX_VALUE_BYTES => {
                old.clone()
            }
            (Self::AppendIfFits, Some(old)) => [&old[..], operand].concat().into(),
            (Self::ByteMin, Some(old)) => old.min(operand).clone(),
            (Self::ByteMax, Some(old)) => old.max(operand).clone(),
            (Self::Add, old) => {
                let mut carry = 0_u16;
                zip(old, operand, |a, b| {
                    let sum = u16::from(a) + u16::from(b) + carry;
                    let [high, low] = sum.to_be_bytes();
                    carry = u16::from(high);
                    low
                })
            }
            (Self::And, Some(_)) => zip(old, operand, |a, b| a & b),
            (Self::Or, _) => zip(old, operand, |a, b| a | b),
            (Self::Xor, _) => zip(old, operand, |a, b| a ^ b),
            (Self::Max, _) => {
                let padded = zip(old, operand, |a, _| a);
                match compare_numbers(&padded, operand) {
                    Ordering::Greater => padded,
                    _ => operand.clone(),
                }
            }
            (Self::Min, Some(_)) => {
                let padded = zip(old, operand, |a, _| a);
                match compare_numbers(&padded, operand) {
                    Ordering::Less => padded,
                    _ => operand.clone(),
                }
            }
        };
        Some(value)
    }
}

/// Byte by byte from the lowest, `old` cut or padded to the operand's width.
fn zip(old: Option<&Bytes>, operand: &Bytes, mut join: impl FnMut(u8, u8) -> u8) -> Bytes {
    let old = old.map(|old| &old[..]).unwrap_or_default();
    let padded = old.iter().copied().chain(std::iter::repeat(0));
    padded.zip(operand.iter().copied()).map(|(a, b)| join(a, b)).collect()
}

/// Two little-endian numbers of one width.
fn compare_numbers(a: &[u8], b: &[u8]) -> Ordering {
    a.iter().rev().cmp(b.iter().rev())
}

/// One write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mutation {
    /// Sets a key.
    Set(Bytes, Bytes),
    /// Clears a key.
    Clear(Bytes),
    /// Clears all keys of a range.
    ClearRange(KeyRange),
    /// An atomic operation with its operand.
    Atomic(AtomicOp, Bytes, Bytes),
    /// Sets the key that has the commit's stamp at this offset.
    SetStampedKey {
        /// With ten bytes to be replaced.
        key: Bytes,
        /// Where they are.
        offset: usize,
        /// The value.
        value: Bytes,
    },
    /// Sets the value that has the commit's stamp at this offset.
    SetStampedValue {
        /// The key.
        key: Bytes,
        /// With ten bytes to be replaced.
        value: Bytes,
        /// Where they are.
        offset: usize,
    },
}

impl Mutation {
    /// Bytes that count for the limit of a transaction.
    #[must_use]
    pub fn byte_size(&self) -> usize {
        match self {
            Self::Set(key, value) | Self::Atomic(_, key, value) => key.len() + value.len(),
            Self::Clear(key) => key.len(),
            Self::ClearRange(range) => range.begin.len() + range.end.len(),
            Self::SetStampedKey { key, value, .. } | Self::SetStampedValue { key, value, .. } => {
                key.len() + value.len()
            }
        }
    }

    /// The same write with its stamp put in: never one of the stamped kinds.
    ///
    /// # Errors
    /// [`MetaError::InvalidOperation`] when the stamp doesn't fit at its offset.
    pub fn stamped(self, stamp: [u8; STAMP_BYTES]) -> Result<Self, MetaError> {
        match self {
            Self::SetStampedKey { key, offset, value } => {
                Ok(Self::Set(put_stamp(&key, offset, stamp)?, value))
            }
            Self::SetStampedValue { key, value, offset } => {
                Ok(Self::Set(key, put_stamp(&value, offset, stamp)?))
            }
            other => Ok(other),
        }
    }

    /// The keys that it may change, once stamped.
    #[must_use]
    pub fn touches(&self) -> KeyRange {
        match self {
            Self::Set(key, _)
            | Self::Clear(key)
            | Self::Atomic(_, key, _)
            | Self::SetStampedKey { key, .. }
            | Self::SetStampedValue { key, .. } => KeyRange::new(key.clone(), key_after(key)),
            Self::ClearRange(range) => range.clone(),
        }
    }
}

/// `bytes` with `stamp` at `offset`.
pub(crate) fn put_stamp(
    bytes: &[u8],
    offset: usize,
    stamp: [u8; STAMP_BYTES],
) -> Result<Bytes, MetaError> {
    let mut stamped = BytesMut::from(bytes);
    let end = offset.checked_add(STAMP_BYTES);
    end.and_then(|end| stamped.get_mut(offset..end))
        .ok_or(MetaError::InvalidOperation("a versionstamp lies outside of its bytes"))?
        .copy_from_slice(&stamp);
    Ok(stamped.freeze())
}
