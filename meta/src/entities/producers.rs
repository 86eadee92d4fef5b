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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TestBed;

    #[tokio::test]
    async fn blocks_never_overlap() {
        let bed = TestBed::new();
        let (a, b) = tokio::join!(
            bed.meta.transact(|tx| async move { allocate(&tx, 10).await }),
            bed.meta.transact(|tx| async move { allocate(&tx, 5).await }),
        );
        let mut blocks = [a.unwrap(), b.unwrap()];
        blocks.sort_by_key(|block| block.start);
        assert_eq!((blocks[0].start, blocks[0].end), (0, blocks[1].start));
        assert_eq!(blocks[1].end, 15);
    }

    #[tokio::test]
    async fn ids_are_positive_to_the_end() {
        let bed = TestBed::new();
        let tx = bed.meta.begin();
        let last = u64::try_from(i64::MAX).unwrap();
        tx.set(key(&tx), last.to_le_bytes().to_vec()).unwrap();
        assert!(allocate(&tx, 1).await.is_err());
    }
}
