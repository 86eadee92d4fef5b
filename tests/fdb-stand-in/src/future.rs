//! Futures of the C API: a value or an error, set once, and one callback.

use std::sync::OnceLock;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::error::{Code, FUTURE_NOT_SET, OPERATION_CANCELLED};

/// What a future became.
#[derive(Debug)]
pub(crate) enum Value {
    /// It is done.
    Unit,
    /// A number.
    Int64(i64),
    /// A key.
    Key(Bytes),
    /// The value of a key.
    Found(Option<Bytes>),
    /// Rows, and whether there may be more.
    Rows(Vec<(Bytes, Bytes)>, bool),
}

/// `FDBKeyValue` of `fdb_c.h`, packed to four bytes there; addresses are those of the rows.
#[derive(Clone, Copy, Debug)]
#[repr(C, packed(4))]
pub(crate) struct RawRow {
    key: usize,
    key_length: i32,
    value: usize,
    value_length: i32,
}

type Callback = Box<dyn FnOnce() + Send>;

/// A future. Its owner holds one reference, who fulfils it another.
#[derive(Default)]
pub(crate) struct Future {
    result: OnceLock<Result<Value, Code>>,
    /// Rows as the C API hands them out; they live as long as the future.
    raw: OnceLock<Box<[RawRow]>>,
    /// Also the lock under which the result is set: a callback comes before or behind it.
    callback: Mutex<Option<Callback>>,
    /// Its owner has given it up.
    pub(crate) cancelled: CancellationToken,
}

impl Future {
    /// Sets the result, if there is none yet, and calls back.
    pub(crate) fn fulfil(&self, result: Result<Value, Code>) {
        let callback = {
            let mut callback = self.callback.lock();
            if self.result.set(result).is_err() {
                return;
            }
            callback.take()
        };
        if let Some(callback) = callback {
            callback();
        }
    }

    /// Ends it without a value, if it has none yet.
    pub(crate) fn cancel(&self) {
        self.cancelled.cancel();
        self.fulfil(Err(OPERATION_CANCELLED));
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.result.get().is_some()
    }

    /// Calls `callback` once it is ready: at once if it is.
    pub(crate) fn on_ready(&self, callback: Callback) {
        let mut waiting = self.callback.lock();
        if self.result.get().is_none() {
            *waiting = Some(callback);
            return;
        }
        drop(waiting);
        callback();
    }

    /// The result.
    pub(crate) fn value(&self) -> Result<&Value, Code> {
        match self.result.get() {
            Some(Ok(value)) => Ok(value),
            Some(Err(code)) => Err(*code),
            None => Err(FUTURE_NOT_SET),
        }
    }

    /// `rows` as the C API hands them out; the same at each call.
    pub(crate) fn raw(&self, rows: &[(Bytes, Bytes)]) -> &[RawRow] {
        self.raw.get_or_init(|| {
            let raw = |(key, value): &(Bytes, Bytes)| RawRow {
                key: key.as_ptr().expose_provenance(),
                key_length: length(key.len()),
                value: value.as_ptr().expose_provenance(),
                value_length: length(value.len()),
            };
            rows.iter().map(raw).collect()
        })
    }
}

/// A length as C has it.
pub(crate) fn length(bytes: usize) -> i32 {
    i32::try_from(bytes).unwrap_or(i32::MAX)
}
