//! MQTT's retained messages: `("retained", tenant, level, level, …)`, one row a topic, so that a
//! wildcard filter is a scan that jumps over what it can't match.
//!
//! A later *version* wins, wherever the writes come from and in whatever order. A clear leaves its
//! version behind, until it is swept. Large bodies lie apart: `("retained_part", tenant, topic, n)`;
//! what has a time to go is indexed by it: `("retained_due", tenant, due, topic)`.

mod filter;
mod matching;
mod value;

#[cfg(test)]
mod scale;
#[cfg(test)]
mod tests;

use std::collections::HashSet;

use bytes::{Bytes, BytesMut};
use foundationdb_tuple::Subspace;
use interflow_proto::meta as proto;

use super::codec::{bad_key, corrupt, decode, encode};
use crate::error::MetaError;
use crate::store::KeyRange;
use crate::transaction::{RangeOptions, Transaction};
pub use matching::{MatchPage, MatchQuery, matching};
pub(super) use value::Row;
pub use value::{RetainedMessage, RetainedVersion};

/// Bodies up to this size lie in their row, in bytes.
const MAX_INLINE_BYTES: usize = 16 * 1024;
/// The size of a part, in bytes.
const PART_BYTES: usize = 90_000;

/// What a write of a retained message did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is the latest of its topic now, or was already.
    Latest,
    /// A later one was there.
    Superseded,
}

fn topics_of(tx: &Transaction, tenant: &str) -> Subspace {
    tx.root().subspace(&("retained", tenant))
}

fn key(tx: &Transaction, tenant: &str, topic: &str) -> Vec<u8> {
    let levels: Vec<&str> = topic.split('/').collect();
    topics_of(tx, tenant).pack(&levels)
}

fn due_key(tx: &Transaction, tenant: &str, due_ms: i64, topic: &str) -> Vec<u8> {
    tx.root().pack(&("retained_due", tenant, due_ms, topic))
}

fn parts_of(tx: &Transaction, tenant: &str, topic: &str) -> Subspace {
    tx.root().subspace(&("retained_part", tenant, topic))
}

fn part_range(tx: &Transaction, tenant: &str, topic: &str) -> KeyRange {
    let (begin, end) = parts_of(tx, tenant, topic).range();
    KeyRange::new(begin, end)
}

/// What is to become of a topic's message.
#[derive(Clone, Copy, Debug)]
pub enum Change<'a> {
    /// Retain this one.
    Put(&'a RetainedMessage),
    /// Clear what is retained.
    Clear {
        /// Where the clear was published.
        version: RetainedVersion,
        /// Until then the version is remembered, and no older write takes effect; milliseconds since
        /// 1970.
        forget_ms: i64,
    },
}

impl Change<'_> {
    fn row(&self) -> Row {
        match self {
            Self::Put(message) => Row::live(message),
            Self::Clear { version, forget_ms } => Row::cleared(*version, *forget_ms),
        }
    }
}

/// Retains `message` for `topic`, unless a later version is there.
///
/// # Errors
/// [`MetaError::InvalidOperation`] for a topic with a NUL; [`MetaError::KeyTooLarge`] above about
/// 9,000 bytes of topic, [`MetaError::TransactionTooLarge`] above about 9 MB of message; meta's own.
pub async fn put(
    tx: &Transaction,
    tenant: &str,
    topic: &str,
    message: &RetainedMessage,
) -> Result<Outcome, MetaError> {
    change(tx, tenant, topic, &Change::Put(message)).await
}

/// Clears what is retained for `topic`, unless a later version is there. The version is remembered
/// until `forget_ms` (milliseconds since 1970): no older write takes effect until then.
///
/// # Errors
/// As [`put`].
pub async fn clear(
    tx: &Transaction,
    tenant: &str,
    topic: &str,
    version: RetainedVersion,
    forget_ms: i64,
) -> Result<Outcome, MetaError> {
    change(tx, tenant, topic, &Change::Clear { version, forget_ms }).await
}

async fn change(
    tx: &Transaction,
    tenant: &str,
    topic: &str,
    change: &Change<'_>,
) -> Result<Outcome, MetaError> {
    check_topic(topic)?;
    let key = key(tx, tenant, topic);
    let old = tx.get(&key).await?;
    write(tx, tenant, topic, key, old, change.row())
}

/// Makes all of `changes`, as if one after the other, but reads for many of them at a time.
///
/// # Errors
/// As [`put`].
pub async fn change_all(
    tx: &Transaction,
    tenant: &str,
    changes: &[(&str, Change<'_>)],
) -> Result<Vec<Outcome>, MetaError> {
    changes.iter().try_for_each(|(topic, _)| check_topic(topic))?;
    let keys: Vec<_> = changes.iter().map(|(topic, _)| key(tx, tenant, topic)).collect();
    let found = tx.get_many(&keys).await?;
    let (mut written, mut outcomes) = (HashSet::new(), Vec::with_capacity(changes.len()));
    for (((topic, change), key), mut old) in changes.iter().zip(keys).zip(found) {
        if !written.insert(*topic) {
            // An own write, which was not there yet when all were read.
            old = tx.get(&key).await?;
        }
        outcomes.push(write(tx, tenant, topic, key, old, change.row())?);
    }
    Ok(outcomes)
}

fn check_topic(topic: &str) -> Result<(), MetaError> {
    if topic.contains('\0') {
        return Err(MetaError::InvalidOperation("a topic with a NUL"));
    }
    Ok(())
}

/// Puts `row` over `old`, what the topic's `key` holds, if it is later.
fn write(
    tx: &Transaction,
    tenant: &str,
    topic: &str,
    key: Vec<u8>,
    old: Option<Bytes>,
    mut row: Row,
) -> Result<Outcome, MetaError> {
    if let Some(value) = old {
        let old = Row::decode(value)?;
        if old.version == row.version {
            return Ok(Outcome::Latest);
        }
        if old.version > row.version {
            return Ok(Outcome::Superseded);
        }
        if old.parts > 0 {
            tx.clear_range(part_range(tx, tenant, topic))?;
        }
        if let Some(due_ms) = old.due_ms {
            tx.clear(due_key(tx, tenant, due_ms, topic))?;
        }
    }
    if row.body.payload.len() + row.body.properties.len() > MAX_INLINE_BYTES {
        let body = encode(&std::mem::take(&mut row.body));
        let parts = parts_of(tx, tenant, topic);
        for part in body.chunks(PART_BYTES) {
            tx.set(parts.pack(&row.parts), body.slice_ref(part))?;
            row.parts += 1;
        }
    }
    if let Some(due_ms) = row.due_ms {
        tx.set(due_key(tx, tenant, due_ms, topic), Bytes::new())?;
    }
    tx.set(key, row.encode())?;
    Ok(Outcome::Latest)
}

/// What is retained for `topic` and not expired at `now_ms`.
///
/// # Errors
/// Meta's own.
pub async fn get(
    tx: &Transaction,
    tenant: &str,
    topic: &str,
    now_ms: i64,
) -> Result<Option<RetainedMessage>, MetaError> {
    let Some(value) = tx.get(&key(tx, tenant, topic)).await? else {
        return Ok(None);
    };
    load(tx, tenant, topic, Row::decode(value)?, now_ms).await
}

/// The message of a row, its parts put together.
async fn load(
    tx: &Transaction,
    tenant: &str,
    topic: &str,
    mut row: Row,
    now_ms: i64,
) -> Result<Option<RetainedMessage>, MetaError> {
    if row.cleared || row.due_ms.is_some_and(|due_ms| due_ms <= now_ms) {
        return Ok(None);
    }
    if row.parts > 0 {
        let mut scan = tx.scan(part_range(tx, tenant, topic), RangeOptions::default().snapshot());
        let (mut body, mut count) = (BytesMut::new(), 0);
        while let Some(rows) = scan.next_page().await? {
            for (_, part) in rows {
                body.extend_from_slice(&part);
                count += 1;
            }
        }
        if count != row.parts {
            return Err(corrupt("retained", "a part is missing"));
        }
        row.body = decode::<proto::RetainedBody>(body.freeze(), "retained")?;
    }
    Ok(Some(row.into_message()))
}

/// Goes over up to `limit` messages whose time has come at `now_ms`: expired ones become cleared
/// ones, to be forgotten at `forget_ms`; cleared ones are forgotten. Returns how many there were;
/// fewer than `limit` mean that none is left.
///
/// # Errors
/// Meta's own.
pub async fn sweep(
    tx: &Transaction,
    tenant: &str,
    now_ms: i64,
    forget_ms: i64,
    limit: usize,
) -> Result<usize, MetaError> {
    let (begin, _) = tx.root().subspace(&("retained_due", tenant)).range();
    let end = due_key(tx, tenant, now_ms.saturating_add(1), "");
    let mut scan = tx.scan(KeyRange::new(begin, end), RangeOptions::limit(limit));
    let mut swept = 0;
    while let Some(rows) = scan.next_page().await? {
        let mut topics = Vec::with_capacity(rows.len());
        for (due, _) in &rows {
            let (_, _, _, topic): (String, String, i64, String) =
                tx.root().unpack(due).map_err(bad_key("retained"))?;
            topics.push(topic);
        }
        let keys: Vec<_> = topics.iter().map(|topic| key(tx, tenant, topic)).collect();
        let found = tx.get_many(&keys).await?;
        swept += rows.len();
        for (((due, _), topic), value) in rows.into_iter().zip(topics).zip(found) {
            tx.clear(due)?;
            let Some(value) = value else {
                continue;
            };
            let (key, row) = (key(tx, tenant, &topic), Row::decode(value)?);
            if row.parts > 0 {
                tx.clear_range(part_range(tx, tenant, &topic))?;
            }
            if row.cleared {
                tx.clear(key)?;
            } else {
                tx.set(due_key(tx, tenant, forget_ms, &topic), Bytes::new())?;
                tx.set(key, Row::cleared(row.version, forget_ms).encode())?;
            }
        }
    }
    Ok(swept)
}
