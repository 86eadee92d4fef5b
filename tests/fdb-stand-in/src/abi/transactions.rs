//! Transactions.

use std::ffi::c_int;
use std::sync::Arc;

use interflow_meta::AtomicOp;

use super::{copy, set_common, slice, status};
use crate::error::{Code, INVALID_MUTATION_TYPE};
use crate::future::Future;
use crate::select::{RangeRead, Selector};
use crate::transaction::Transaction;

#[unsafe(no_mangle)]
unsafe extern "C" fn fdb_transaction_destroy(transaction: *const Transaction) {
    drop(unsafe { Arc::from_raw(transaction) });
}

#[unsafe(no_mangle)]
unsafe extern "C" fn fdb_transaction_cancel(transaction: *const Transaction) {
    unsafe { &*transaction }.cancel();
}

#[unsafe(no_mangle)]
unsafe extern "C" fn fdb_transaction_reset(transaction: *const Transaction) {
    unsafe { &*transaction }.reset();
}

#[unsafe(no_mangle)]
unsafe extern "C" fn fdb_transaction_set_option(
    transaction: *const Transaction,
    option: c_int,
    value: *const u8,
    value_length: c_int,
) -> Code {
    let (transaction, value) = unsafe { (&*transaction, slice(value, value_length)) };
    let mut result = Ok(());
    transaction.set_options(|options| match option {
        51 => options.is_ryw_disabled = true,
        201 => options.is_batch = true,
        _ => result = set_common(options, option, value),
    });
    status(result)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn fdb_transaction_set_read_version(
    transaction: *const Transaction,
    version: i64,
) {
    unsafe { &*transaction }.set_read_version(version);
}

#[unsafe(no_mangle)]
unsafe extern "C" fn fdb_transaction_get_read_version(
    transaction: *const Transaction,
) -> *const Future {
    Arc::into_raw(unsafe { &*transaction }.read_version())
}

#[unsafe(no_mangle)]
unsafe extern "C" fn fdb_transaction_get(
    transaction: *const Transaction,
    key: *const u8,
    key_length: c_int,
    snapshot: c_int,
) -> *const Future {
    let (transaction, key) = unsafe { (&*transaction, copy(key, key_length)) };
    Arc::into_raw(transaction.get(key, snapshot != 0))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn fdb_transaction_get_key(
    transaction: *const Transaction,
    key: *const u8,
    key_length: c_int,
    or_equal: c_int,
    offset: c_int,
    snapshot: c_int,
) -> *const Future {
    let (transaction, key) = unsafe { (&*transaction, copy(key, key_length)) };
    let selector = Selector { key, or_equal: or_equal != 0, offset };
    Arc::into_raw(transaction.get_key(selector, snapshot != 0))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn fdb_transaction_get_range(
    transaction: *const Transaction,
    begin: *const u8,
    begin_length: c_int,
    begin_or_equal: c_int,
    begin_offset: c_int,
    end: *const u8,
    end_length: c_int,
    end_or_equal: c_int,
    end_offset: c_int,
    limit: c_int,
    target_bytes: c_int,
    mode: c_int,
    iteration: c_int,
    snapshot: c_int,
    reverse: c_int,
) -> *const Future {
    let (transaction, begin, end) =
        unsafe { (&*transaction, copy(begin, begin_length), copy(end, end_length)) };
    let selector = |key, or_equal: c_int, offset| Selector { key, or_equal: or_equal != 0, offset };
    let read = RangeRead {
        begin: selector(begin, begin_or_equal, begin_offset),
        end: selector(end, end_or_equal, end_offset),
        rows: usize::try_from(limit).unwrap_or(0),
        bytes: usize::try_from(target_bytes).unwrap_or(0),
        mode,
        iteration,
        reverse: reverse != 0,
    };
    Arc::into_raw(transaction.get_range(read, snapshot != 0))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn fdb_transaction_set(
    transaction: *const Transaction,
    key: *const u8,
    key_length: c_int,
    value: *const u8,
    value_length: c_int,
) {
    let (key, value) = unsafe { (copy(key, key_length), copy(value, value_length)) };
    unsafe { &*transaction }.set(key, value);
}

#[unsafe(no_mangle)]
unsafe extern "C" fn fdb_transaction_clear(
    transaction: *const Transaction,
    key: *const u8,
    key_length: c_int,
) {
    unsafe { (*transaction).clear(copy(key, key_length)) };
}

#[unsafe(no_mangle)]
unsafe extern "C" fn fdb_transaction_clear_range(
    transaction: *const Transaction,
    begin: *const u8,
    begin_length: c_int,
    end: *const u8,
    end_length: c_int,
) {
    unsafe { (*transaction).clear_range(slice(begin, begin_length), slice(end, end_length)) };
}

#[unsafe(no_mangle)]
unsafe extern "C" fn fdb_transaction_atomic_op(
    transaction: *const Transaction,
    key: *const u8,
    key_length: c_int,
    operand: *const u8,
    operand_length: c_int,
    kind: c_int,
) {
    let transaction = unsafe { &*transaction };
    let (key, operand) = unsafe { (copy(key, key_length), copy(operand, operand_length)) };
    let op = match kind {
        2 => Ok(AtomicOp::Add),
        6 => Ok(AtomicOp::And),
        7 => Ok(AtomicOp::Or),
        8 => Ok(AtomicOp::Xor),
        9 => Ok(AtomicOp::AppendIfFits),
        12 => Ok(AtomicOp::Max),
        13 => Ok(AtomicOp::Min),
        14 => return transaction.stamped_key(&key, operand),
        15 => return transaction.stamped_value(key, &operand),
        16 => Ok(AtomicOp::ByteMin),
        17 => Ok(AtomicOp::ByteMax),
        20 => Ok(AtomicOp::CompareAndClear),
        _ => Err(INVALID_MUTATION_TYPE),
    };
    transaction.atomic(op, key, operand);
}

#[unsafe(no_mangle)]
unsafe extern "C" fn fdb_transaction_add_conflict_range(
    transaction: *const Transaction,
    begin: *const u8,
    begin_length: c_int,
    end: *const u8,
    end_length: c_int,
    kind: c_int,
) -> Code {
    let (begin, end) = unsafe { (slice(begin, begin_length), slice(end, end_length)) };
    status(unsafe { &*transaction }.add_conflict(begin, end, kind == 1))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn fdb_transaction_commit(transaction: *const Transaction) -> *const Future {
    Arc::into_raw(unsafe { &*transaction }.commit())
}

#[unsafe(no_mangle)]
unsafe extern "C" fn fdb_transaction_get_committed_version(
    transaction: *const Transaction,
    out: *mut i64,
) -> Code {
    match unsafe { &*transaction }.committed_version() {
        Ok(version) => {
            unsafe { out.write(version) };
            0
        }
        Err(code) => code,
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn fdb_transaction_get_versionstamp(
    transaction: *const Transaction,
) -> *const Future {
    Arc::into_raw(unsafe { &*transaction }.versionstamp())
}

#[unsafe(no_mangle)]
unsafe extern "C" fn fdb_transaction_get_approximate_size(
    transaction: *const Transaction,
) -> *const Future {
    Arc::into_raw(unsafe { &*transaction }.approximate_size())
}

#[unsafe(no_mangle)]
unsafe extern "C" fn fdb_transaction_watch(
    transaction: *const Transaction,
    key: *const u8,
    key_length: c_int,
) -> *const Future {
    let (transaction, key) = unsafe { (&*transaction, copy(key, key_length)) };
    Arc::into_raw(transaction.watch(key))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn fdb_transaction_on_error(
    transaction: *const Transaction,
    code: Code,
) -> *const Future {
    Arc::into_raw(unsafe { &*transaction }.on_error(code))
}
