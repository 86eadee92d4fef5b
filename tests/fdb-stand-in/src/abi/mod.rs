//! The functions of `fdb_c.h`, API version 730.
//!
//! The only module here with `unsafe`: it turns what a C caller hands over into safe values and back.
//! It relies on what `fdb_c.h` asks of callers, and on nothing else:
//!
//! - handles come from this library, are not null, and aren't used after their `destroy`. Each is
//!   one reference of an `Arc`, so what goes on inside outlives them;
//! - a pointer to bytes is good for its length during the call, and everything kept is copied; out
//!   pointers can be written;
//! - what a future hands out stays until the future is destroyed.
#![allow(unsafe_code, reason = "see the module's documentation")]
#![allow(clippy::missing_safety_doc, reason = "their contract is that of fdb_c.h")]

mod futures;
mod transactions;

use std::ffi::{CStr, OsStr, c_char, c_int};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;

use crate::cluster::Cluster;
use crate::database::{Database, Options};
use crate::error::{self, Code, INVALID_OPTION, INVALID_OPTION_VALUE};
use crate::network::{self, API_VERSION};
use crate::transaction::Transaction;

fn status(result: Result<(), Code>) -> Code {
    result.err().unwrap_or(0)
}

/// Safety: `length` bytes at `bytes`, or no bytes.
unsafe fn slice<'a>(bytes: *const u8, length: c_int) -> &'a [u8] {
    match usize::try_from(length) {
        Ok(length @ 1..) => unsafe { std::slice::from_raw_parts(bytes, length) },
        _ => &[],
    }
}

/// Safety: as [`slice`].
unsafe fn copy(bytes: *const u8, length: c_int) -> Bytes {
    Bytes::copy_from_slice(unsafe { slice(bytes, length) })
}

/// The number of an option: eight bytes, little-endian on the machines that this is for.
fn number(value: &[u8]) -> Result<u64, Code> {
    let bytes = value.try_into().map_err(|_| INVALID_OPTION_VALUE)?;
    u64::try_from(i64::from_ne_bytes(bytes)).map_err(|_| INVALID_OPTION_VALUE)
}

#[unsafe(no_mangle)]
extern "C" fn fdb_get_error(code: Code) -> *const c_char {
    error::text(code).as_ptr()
}

#[unsafe(no_mangle)]
extern "C" fn fdb_error_predicate(predicate: c_int, code: Code) -> c_int {
    c_int::from(match predicate {
        50_000 => error::is_maybe_committed(code) || error::is_retryable_not_committed(code),
        50_001 => error::is_maybe_committed(code),
        50_002 => error::is_retryable_not_committed(code),
        _ => false,
    })
}

#[unsafe(no_mangle)]
extern "C" fn fdb_get_max_api_version() -> c_int {
    API_VERSION
}

#[unsafe(no_mangle)]
extern "C" fn fdb_get_client_version() -> *const c_char {
    c"7.3.0,stand-in,no-protocol".as_ptr()
}

#[unsafe(no_mangle)]
extern "C" fn fdb_select_api_version_impl(runtime: c_int, header: c_int) -> Code {
    status(network::select(runtime, header))
}

#[unsafe(no_mangle)]
extern "C" fn fdb_network_set_option(_option: c_int, _value: *const u8, _length: c_int) -> Code {
    0
}

#[unsafe(no_mangle)]
extern "C" fn fdb_setup_network() -> Code {
    status(network::setup())
}

#[unsafe(no_mangle)]
extern "C" fn fdb_run_network() -> Code {
    status(network::run())
}

#[unsafe(no_mangle)]
extern "C" fn fdb_stop_network() -> Code {
    status(network::stop())
}

#[unsafe(no_mangle)]
unsafe extern "C" fn fdb_create_database(path: *const c_char, out: *mut *const Database) -> Code {
    let file = if path.is_null() {
        let named = std::env::var_os("FDB_CLUSTER_FILE");
        named.map_or("/etc/foundationdb/fdb.cluster".into(), PathBuf::from)
    } else {
        OsStr::from_bytes(unsafe { CStr::from_ptr(path) }.to_bytes()).into()
    };
    // What is wrong with the file is told by the first transaction, as by the client since 7.0.
    unsafe { out.write(Arc::into_raw(Arc::new(Database::new(Cluster::open(&file))))) };
    0
}

#[unsafe(no_mangle)]
unsafe extern "C" fn fdb_database_destroy(database: *const Database) {
    drop(unsafe { Arc::from_raw(database) });
}

#[unsafe(no_mangle)]
unsafe extern "C" fn fdb_database_set_option(
    database: *const Database,
    option: c_int,
    value: *const u8,
    value_length: c_int,
) -> Code {
    let (database, value) = unsafe { (&*database, slice(value, value_length)) };
    if option == 20 {
        return status(number(value).and_then(|watches| {
            let watches = usize::try_from(watches).map_err(|_| INVALID_OPTION_VALUE)?;
            database.max_watches.store(watches, Ordering::Relaxed);
            Ok(())
        }));
    }
    status(set_common(&mut database.defaults.lock(), option, value))
}

/// Options that a transaction has, and a database for all of its.
fn set_common(options: &mut Options, option: c_int, value: &[u8]) -> Result<(), Code> {
    match option {
        500 => {
            options.timeout = Some(number(value)?).filter(|ms| *ms > 0).map(Duration::from_millis)
        }
        // -1 is no limit.
        501 => options.retry_limit = number(value).ok().and_then(|limit| limit.try_into().ok()),
        502 => options.max_retry_delay = Duration::from_millis(number(value)?),
        503 => {
            options.size_limit =
                usize::try_from(number(value)?).map_err(|_| INVALID_OPTION_VALUE)?;
        }
        _ => return Err(INVALID_OPTION),
    }
    Ok(())
}

#[unsafe(no_mangle)]
unsafe extern "C" fn fdb_database_create_transaction(
    database: *const Database,
    out: *mut *const Transaction,
) -> Code {
    // The caller keeps its reference; the transaction has one of its own.
    let database = unsafe {
        Arc::increment_strong_count(database);
        Arc::from_raw(database)
    };
    unsafe { out.write(Arc::into_raw(Arc::new(Transaction::new(database)))) };
    0
}
