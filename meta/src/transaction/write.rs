//! Writes, conflict ranges and watches of a transaction. Nothing happens in the store before the
//! commit.

use bytes::Bytes;
use tokio::sync::oneshot;

use super::limits::{check_key, check_range, check_value};
use super::{MAX_TRANSACTION_BYTES, Transaction, Watch};
use crate::error::MetaError;
use crate::store::{AtomicOp, KeyRange, Mutation, WatchRequest, put_stamp};

impl Transaction {
    /// Sets `key` to `value`.
    ///
    /// # Errors
    /// [`MetaError::KeyTooLarge`], [`MetaError::ValueTooLarge`],
    /// [`MetaError::KeyOutsideLegalRange`], [`MetaError::TransactionTooLarge`].
    pub fn set(&self, key: impl Into<Bytes>, value: impl Into<Bytes>) -> Result<(), MetaError> {
        let (key, value) = (key.into(), value.into());
        check_key(&key)?;
        check_value(&value)?;
        self.push(Mutation::Set(key, value))
    }

    /// Clears `key`.
    ///
    /// # Errors
    /// As [`set`](Self::set).
    pub fn clear(&self, key: impl Into<Bytes>) -> Result<(), MetaError> {
        let key = key.into();
        check_key(&key)?;
        self.push(Mutation::Clear(key))
    }

    /// Clears all keys of `range`. Reads nothing.
    ///
    /// # Errors
    /// As [`set`](Self::set); [`MetaError::InvertedRange`].
    pub fn clear_range(&self, range: KeyRange) -> Result<(), MetaError> {
        check_range(&range)?;
        if range.is_empty() {
            return Ok(());
        }
        self.push(Mutation::ClearRange(range))
    }

    /// Changes the value of `key` without reading it, so that two of them never conflict.
    ///
    /// # Errors
    /// As [`set`](Self::set).
    pub fn atomic(
        &self,
        op: AtomicOp,
        key: impl Into<Bytes>,
        operand: impl Into<Bytes>,
    ) -> Result<(), MetaError> {
        let (key, operand) = (key.into(), operand.into());
        check_key(&key)?;
        check_value(&operand)?;
        self.push(Mutation::Atomic(op, key, operand))
    }

    /// Adds `n` to the 8-byte little-endian number at `key`, wrapping.
    ///
    /// # Errors
    /// As [`set`](Self::set).
    pub fn add(&self, key: impl Into<Bytes>, n: u64) -> Result<(), MetaError> {
        self.atomic(AtomicOp::Add, key, Bytes::copy_from_slice(&n.to_le_bytes()))
    }

    /// Raises the 8-byte little-endian number at `key` to at least `n`.
    ///
    /// # Errors
    /// As [`set`](Self::set).
    pub fn max(&self, key: impl Into<Bytes>, n: u64) -> Result<(), MetaError> {
        self.atomic(AtomicOp::Max, key, Bytes::copy_from_slice(&n.to_le_bytes()))
    }

    /// Lowers the 8-byte little-endian number at `key` to at most `n`.
    ///
    /// # Errors
    /// As [`set`](Self::set).
    pub fn min(&self, key: impl Into<Bytes>, n: u64) -> Result<(), MetaError> {
        self.atomic(AtomicOp::Min, key, Bytes::copy_from_slice(&n.to_le_bytes()))
    }

    /// Keeps at `key` what sorts later, the value or `operand`.
    ///
    /// # Errors
    /// As [`set`](Self::set).
    pub fn byte_max(
        &self,
        key: impl Into<Bytes>,
        operand: impl Into<Bytes>,
    ) -> Result<(), MetaError> {
        self.atomic(AtomicOp::ByteMax, key, operand)
    }

    /// Keeps at `key` what sorts earlier, the value or `operand`.
    ///
    /// # Errors
    /// As [`set`](Self::set).
    pub fn byte_min(
        &self,
        key: impl Into<Bytes>,
        operand: impl Into<Bytes>,
    ) -> Result<(), MetaError> {
        self.atomic(AtomicOp::ByteMin, key, operand)
    }

    /// Clears `key` if its value equals `operand`.
    ///
    /// # Errors
    /// As [`set`](Self::set).
    pub fn compare_and_clear(
        &self,
        key: impl Into<Bytes>,
        operand: impl Into<Bytes>,
    ) -> Result<(), MetaError> {
        self.atomic(AtomicOp::CompareAndClear, key, operand)
    }

    /// Sets the key that has the commit's stamp (10 bytes, rising from commit to commit) in the
    /// place of the ten bytes of `key` at `offset`.
    ///
    /// # Errors
    /// As [`set`](Self::set); [`MetaError::InvalidOperation`] when the stamp lies outside of `key`.
    pub fn set_versionstamped_key(
        &self,
        key: impl Into<Bytes>,
        offset: usize,
        value: impl Into<Bytes>,
    ) -> Result<(), MetaError> {
        let (key, value) = (key.into(), value.into());
        check_key(&put_stamp(&key, offset, [0; 10])?)?;
        check_value(&value)?;
        self.push(Mutation::SetStampedKey { key, offset, value })
    }

    /// Sets `key` to `value` with the commit's stamp in the place of its ten bytes at `offset`.
    ///
    /// # Errors
    /// As [`set_versionstamped_key`](Self::set_versionstamped_key).
    pub fn set_versionstamped_value(
        &self,
        key: impl Into<Bytes>,
        value: impl Into<Bytes>,
        offset: usize,
    ) -> Result<(), MetaError> {
        let (key, value) = (key.into(), value.into());
        check_key(&key)?;
        check_value(&value)?;
        put_stamp(&value, offset, [0; 10])?;
        self.push(Mutation::SetStampedValue { key, value, offset })
    }

    /// Makes writes of others in `range` a conflict, as if it had been read.
    ///
    /// # Errors
    /// As [`clear_range`](Self::clear_range).
    pub fn add_read_conflict(&self, range: KeyRange) -> Result<(), MetaError> {
        check_range(&range)?;
        let mut state = self.inner.state.lock();
        state.check_open()?;
        state.reads.insert(range);
        Ok(())
    }

    /// Makes others that read in `range` conflict with this transaction, as if it had been written.
    ///
    /// # Errors
    /// As [`clear_range`](Self::clear_range).
    pub fn add_write_conflict(&self, range: KeyRange) -> Result<(), MetaError> {
        check_range(&range)?;
        let mut state = self.inner.state.lock();
        state.check_open()?;
        state.writes.insert(range);
        Ok(())
    }

    /// Watches `key` from the commit on for a value that differs from what this transaction sees
    /// now (later own writes to it aside). The read of it is no conflict.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn watch(&self, key: impl Into<Bytes>) -> Result<Watch, MetaError> {
        let key = key.into();
        let seen = self.get_snapshot(&key).await?;
        let (fire, fired) = oneshot::channel();
        let mut state = self.inner.state.lock();
        state.check_open()?;
        state.watches.push(WatchRequest { key, seen, fire });
        Ok(Watch { fired })
    }

    fn push(&self, mutation: Mutation) -> Result<(), MetaError> {
        let mut state = self.inner.state.lock();
        state.check_open()?;
        let bytes = state.mutation_bytes + mutation.byte_size();
        // Refused at once rather than at the commit: what a transaction holds is bounded.
        if bytes > MAX_TRANSACTION_BYTES {
            return Err(MetaError::TransactionTooLarge(bytes));
        }
        state.mutation_bytes = bytes;
        state.overlay.apply(&mutation);
        state.mutations.push(mutation);
        Ok(())
    }
}
