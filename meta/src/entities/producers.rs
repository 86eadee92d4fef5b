//! Producer ids: `("counter", "producer")` is the next one.

use std::ops::Range;

use bytes::Bytes;

use super::codec::{corrupt, counter};
use crate::error::MetaError;
use crate::transaction::Transaction;

fn key(tx: &Transaction) -> Vec<u8> {
    tx.root().pack(&("counter", "producer"))
}

/// Takes a block of `count` producer ids that nobody else ever gets. An attempt that runs twice
/// leaves a gap.
///
/// # Errors
/// Meta's own; [`MetaError::Corrupt`] when the 63 bits are used up.
pub async fn allocate(tx: &Transaction, count: u32) -> Result<Range<i64>, MetaError> {
    let first = counter(tx.get(&key(tx)).await?, "producer ids")?;
    let next = first.checked_add(u64::from(count));
    let ids = next.and_then(|next| Some(i64::try_from(first).ok()?..i64::try_from(next).ok()?));
    let ids = ids.ok_or_else(|| corrupt("producer ids", "used up"))?;
    tx.set(key(tx), Bytes::copy_from_slice(&ids.end.to_le_bytes()))?;
    Ok(ids)
}
