//! How far a log's records are reflected in the retained messages: `("materialised", log)`.

use bytes::Bytes;

use super::codec::counter;
use crate::error::MetaError;
use crate::ids::{LogId, Offset};
use crate::transaction::Transaction;

fn key(tx: &Transaction, log: LogId) -> Vec<u8> {
    tx.root().pack(&("materialised", log.0))
}

/// Everything below is reflected; `None` if that was never said of this log.
///
/// # Errors
/// Meta's own.
pub async fn get(tx: &Transaction, log: LogId) -> Result<Option<Offset>, MetaError> {
    let value = tx.get(&key(tx, log)).await?;
    value.map(|value| counter(Some(value), "materialised")).transpose()
}

/// Everything below `offset` is reflected. It never goes back.
///
/// # Errors
/// Meta's own.
pub async fn advance(tx: &Transaction, log: LogId, offset: Offset) -> Result<(), MetaError> {
    if get(tx, log).await?.is_none_or(|known| known < offset) {
        tx.set(key(tx, log), Bytes::copy_from_slice(&offset.to_le_bytes()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TestBed;

    #[tokio::test]
    async fn a_position_never_goes_back() {
        let bed = TestBed::new();
        let log = LogId(7);
        let tx = bed.meta.begin();
        assert_eq!(get(&tx, log).await.unwrap(), None);
        for (offset, expected) in [(5, 5), (3, 5), (9, 9)] {
            let position = bed.meta.transact(|tx| async move {
                advance(&tx, log, offset).await?;
                get(&tx, log).await
            });
            assert_eq!(position.await.unwrap(), Some(expected));
        }
        assert_eq!(get(&bed.meta.begin(), LogId(8)).await.unwrap(), None);
    }
}
