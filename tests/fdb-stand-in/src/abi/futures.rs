//! Futures: waiting for one, and what it became.

use std::ffi::{c_int, c_void};
use std::sync::Arc;

use crate::error::{Code, FUTURE_NOT_SET};
use crate::future::{Future, RawRow, Value, length};

#[unsafe(no_mangle)]
unsafe extern "C" fn fdb_future_destroy(future: *const Future) {
    let future = unsafe { Arc::from_raw(future) };
    future.cancel();
}

#[unsafe(no_mangle)]
unsafe extern "C" fn fdb_future_cancel(future: *const Future) {
    unsafe { &*future }.cancel();
}

#[unsafe(no_mangle)]
extern "C" fn fdb_future_release_memory(_future: *const Future) {}

#[unsafe(no_mangle)]
unsafe extern "C" fn fdb_future_is_ready(future: *const Future) -> c_int {
    c_int::from(unsafe { &*future }.is_ready())
}

#[unsafe(no_mangle)]
unsafe extern "C" fn fdb_future_block_until_ready(future: *const Future) -> Code {
    let (done, wait) = std::sync::mpsc::channel();
    unsafe { &*future }.on_ready(Box::new(move || {
        let _ = done.send(());
    }));
    // It is called when the future is, or never will be, ready.
    let _ = wait.recv();
    0
}

/// What a callback is called with. Safety of `Send`: it is handed on, not looked at.
struct Parameter(*const Future, *mut c_void);
unsafe impl Send for Parameter {}

#[unsafe(no_mangle)]
unsafe extern "C" fn fdb_future_set_callback(
    future: *const Future,
    callback: unsafe extern "C" fn(*const Future, *mut c_void),
    parameter: *mut c_void,
) -> Code {
    let parameter = Parameter(future, parameter);
    unsafe { &*future }.on_ready(Box::new(move || {
        let Parameter(future, parameter) = { parameter };
        unsafe { callback(future, parameter) }
    }));
    0
}

#[unsafe(no_mangle)]
unsafe extern "C" fn fdb_future_get_error(future: *const Future) -> Code {
    unsafe { &*future }.value().err().unwrap_or(0)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn fdb_future_get_int64(future: *const Future, out: *mut i64) -> Code {
    match unsafe { &*future }.value() {
        Ok(Value::Int64(number)) => {
            unsafe { out.write(*number) };
            0
        }
        other => other.err().unwrap_or(FUTURE_NOT_SET),
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn fdb_future_get_key(
    future: *const Future,
    out: *mut *const u8,
    out_length: *mut c_int,
) -> Code {
    match unsafe { &*future }.value() {
        Ok(Value::Key(key)) => {
            unsafe {
                out.write(key.as_ptr());
                out_length.write(length(key.len()));
            }
            0
        }
        other => other.err().unwrap_or(FUTURE_NOT_SET),
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn fdb_future_get_value(
    future: *const Future,
    out_present: *mut c_int,
    out: *mut *const u8,
    out_length: *mut c_int,
) -> Code {
    match unsafe { &*future }.value() {
        Ok(Value::Found(value)) => {
            unsafe {
                out_present.write(c_int::from(value.is_some()));
                if let Some(value) = value {
                    out.write(value.as_ptr());
                    out_length.write(length(value.len()));
                }
            }
            0
        }
        other => other.err().unwrap_or(FUTURE_NOT_SET),
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn fdb_future_get_keyvalue_array(
    future: *const Future,
    out: *mut *const RawRow,
    out_count: *mut c_int,
    out_more: *mut c_int,
) -> Code {
    let future = unsafe { &*future };
    match future.value() {
        Ok(Value::Rows(rows, more)) => {
            let raw = future.raw(rows);
            unsafe {
                out.write(raw.as_ptr());
                out_count.write(length(raw.len()));
                out_more.write(c_int::from(*more));
            }
            0
        }
        other => other.err().unwrap_or(FUTURE_NOT_SET),
    }
}
