//! FoundationDB's limits, kept on every store, so that what runs on one runs on all.

use std::time::Duration;

use crate::error::MetaError;
use crate::store::KeyRange;

/// The longest key, in bytes.
pub const MAX_KEY_BYTES: usize = 10_000;
/// The longest value, in bytes.
pub const MAX_VALUE_BYTES: usize = 100_000;
/// Keys, values and conflict ranges of a transaction, in bytes.
pub const MAX_TRANSACTION_BYTES: usize = 10_000_000;
/// From the first read to the commit.
pub const MAX_TRANSACTION_TIME: Duration = Duration::from_secs(5);

/// A key that may be read or written.
pub(crate) fn check_key(key: &[u8]) -> Result<(), MetaError> {
    if key.len() > MAX_KEY_BYTES {
        return Err(MetaError::KeyTooLarge(key.len()));
    }
    if key.first() == Some(&0xff) {
        return Err(MetaError::KeyOutsideLegalRange);
    }
    Ok(())
}

/// A range that may be read or cleared. Its end may be the very end of the key space.
pub(crate) fn check_range(range: &KeyRange) -> Result<(), MetaError> {
    if range.begin > range.end {
        return Err(MetaError::InvertedRange);
    }
    // One byte more: the key behind the longest key.
    let longest = range.begin.len().max(range.end.len());
    if longest > MAX_KEY_BYTES + 1 {
        return Err(MetaError::KeyTooLarge(longest));
    }
    if range.end[..] > [0xff][..] {
        return Err(MetaError::KeyOutsideLegalRange);
    }
    Ok(())
}

pub(crate) fn check_value(value: &[u8]) -> Result<(), MetaError> {
    if value.len() > MAX_VALUE_BYTES {
        return Err(MetaError::ValueTooLarge(value.len()));
    }
    Ok(())
}
