//! A commit: a transaction of FoundationDB's own, at the version of the snapshot.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use foundationdb::options::{ConflictRangeType, MutationType};
use foundationdb::{FdbResult, Transaction};

use super::error::Size;
use super::{Db, Priority, error, watch};
use crate::error::MetaError;
use crate::store::{AtomicOp, Commit, Committed, Mutation, STAMP_BYTES};

/// Makes `commit`, whose transaction read at `version`.
pub(super) async fn commit(
    db: &Arc<Db>,
    priority: Priority,
    version: i64,
    mut commit: Commit,
) -> Result<Committed, MetaError> {
    // Counted before it is looked whether the store is open, so that `close` waits for this one.
    let under_way = db.tasks.token();
    db.check_open()?;
    let watches = watch::admit(db, std::mem::take(&mut commit.watches))?;
    if commit.mutations.is_empty() && commit.writes.is_empty() {
        watches.keep(priority, version);
        let version = u64::try_from(version).unwrap_or(0);
        return Ok(Committed { version, stamp: [0xff; STAMP_BYTES] });
    }
    let db = Arc::clone(db);
    // A task of its own: it goes on when nobody waits for it.
    let made = tokio::spawn(async move {
        let _under_way = under_way;
        let (committed, version) = write(&db, priority, version, &commit).await?;
        watches.keep(priority, version);
        Ok(committed)
    });
    // It ended without an answer: the runtime is shutting down.
    made.await.unwrap_or(Err(MetaError::CommitUnknown))
}

/// Also gives FoundationDB's number of the version.
async fn write(
    db: &Db,
    priority: Priority,
    version: i64,
    commit: &Commit,
) -> Result<(Committed, i64), MetaError> {
    let size = Size::of(commit);
    let failed = |error| error::of_read(db, error);
    let transaction = db.begin(priority).map_err(failed)?;
    transaction.set_read_version(version);
    for (ranges, kind) in
        [(&commit.reads, ConflictRangeType::Read), (&commit.writes, ConflictRangeType::Write)]
    {
        for range in ranges {
            transaction.add_conflict_range(&range.begin, &range.end, kind).map_err(failed)?;
        }
    }
    for mutation in &commit.mutations {
        apply(&transaction, mutation)?;
    }
    // Must be asked for before the commit; is answered by it.
    let stamp = transaction.get_versionstamp();
    let committed = match transaction.commit().await {
        Ok(committed) => committed,
        Err(error) => return Err(error::of_commit(db, *error, &size)),
    };
    // It is made; without its stamp the caller can only be told to find out.
    let known = async {
        let version = committed.committed_version()?;
        let stamp = stamp.await?;
        FdbResult::Ok((version, <[u8; STAMP_BYTES]>::try_from(&stamp[..]).ok()))
    };
    match known.await {
        Ok((version, Some(stamp))) => {
            let committed = Committed { version: u64::try_from(version).unwrap_or(0), stamp };
            Ok((committed, version))
        }
        _ => Err(MetaError::CommitUnknown),
    }
}

/// Puts one write into `transaction`. FoundationDB adds its write conflict itself; that of a stamped
/// key, when the stamp is known.
fn apply(transaction: &Transaction, mutation: &Mutation) -> Result<(), MetaError> {
    match mutation {
        Mutation::Set(key, value) => transaction.set(key, value),
        Mutation::Clear(key) => transaction.clear(key),
        Mutation::ClearRange(range) => transaction.clear_range(&range.begin, &range.end),
        Mutation::Atomic(op, key, operand) => transaction.atomic_op(key, operand, kind(*op)),
        Mutation::SetStampedKey { key, offset, value } => {
            let key = with_offset(key, *offset)?;
            transaction.atomic_op(&key, value, MutationType::SetVersionstampedKey);
        }
        Mutation::SetStampedValue { key, value, offset } => {
            let value = with_offset(value, *offset)?;
            transaction.atomic_op(key, &value, MutationType::SetVersionstampedValue);
        }
    }
    Ok(())
}

fn kind(op: AtomicOp) -> MutationType {
    match op {
        AtomicOp::Add => MutationType::Add,
        AtomicOp::Max => MutationType::Max,
        AtomicOp::Min => MutationType::Min,
        AtomicOp::And => MutationType::BitAnd,
        AtomicOp::Or => MutationType::BitOr,
        AtomicOp::Xor => MutationType::BitXor,
        AtomicOp::ByteMax => MutationType::ByteMax,
        AtomicOp::ByteMin => MutationType::ByteMin,
        AtomicOp::CompareAndClear => MutationType::CompareAndClear,
        AtomicOp::AppendIfFits => MutationType::AppendIfFits,
    }
}

/// `bytes` with the place of their stamp behind them, as of API version 520: four bytes,
/// little-endian.
fn with_offset(bytes: &Bytes, offset: usize) -> Result<BytesMut, MetaError> {
    let offset = u32::try_from(offset)
        .map_err(|_| MetaError::InvalidOperation("a versionstamp lies outside of its bytes"))?;
    let mut out = BytesMut::with_capacity(bytes.len() + 4);
    out.put_slice(bytes);
    out.put_u32_le(offset);
    Ok(out)
}
