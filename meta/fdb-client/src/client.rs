//! Loads the library, fills the slots, and runs the client's network thread.
//!
//! This is the one file of the program that is allowed `unsafe`, for three things that Rust can't
//! check:
//!
//! - *The jumps.* Each `fdb_*` symbol is one jump through its slot. It touches neither stack nor
//!   argument registers, so the function behind it sees exactly the caller's call, and caller and
//!   library agree on its signature because both follow `fdb_c.h` at API version 730. A slot holds
//!   an address of the library, which is never unloaded, or that of [`absent`], which ends the
//!   process. Slots are written under the lock of [`STATE`], before [`Network::boot`] returns the
//!   handle without which nobody calls the API.
//! - *`dlopen` and `dlsym`* run the library's initialisers: the operator named it, as for any
//!   library that the dynamic linker loads.
//! - *Booting.* FoundationDB asks that its network thread has ended when the process exits. The last
//!   [`Network`] stops and joins it; should one be leaked, a handler of `atexit` does. It was
//!   registered after the library's own and so runs before them.
#![allow(unsafe_code, reason = "see the module's documentation")]

use std::ffi::{CStr, CString, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicPtr, Ordering};

use foundationdb::FdbError;
use foundationdb::api::{FdbApiBuilder, NetworkAutoStop};
use parking_lot::Mutex;

use crate::symbols::with_symbols;

/// What is loaded when no library is named: the dynamic linker looks for it.
pub const DEFAULT_LIBRARY: &str = "libfdb_c.so";

macro_rules! define {
    (needed: [$($needed:ident)*] others: [$($other:ident)*]) => {
        define!(@jumps $($needed)* $($other)*);

        /// Name, slot, and whether it is needed, of every function.
        static SLOTS: &[(&str, &AtomicPtr<c_void>, bool)] = &[
            $((stringify!($needed), &slots::$needed, true),)*
            $((stringify!($other), &slots::$other, false),)*
        ];
    };
    (@jumps $($name:ident)*) => {
        mod slots {
            use std::ffi::c_void;
            use std::sync::atomic::AtomicPtr;

            $(
                #[allow(non_upper_case_globals, reason = "it has the function's name")]
                pub(super) static $name: AtomicPtr<c_void> =
                    AtomicPtr::new(super::absent as *mut c_void);
            )*
        }

        $(
            #[unsafe(naked)]
            #[unsafe(no_mangle)]
            extern "C" fn $name() {
                #[cfg(target_arch = "x86_64")]
                std::arch::naked_asm!(
                    "jmp qword ptr [rip + {slot}]",
                    slot = sym slots::$name,
                );
                // x16 is the register that calls may spend on their way.
                #[cfg(target_arch = "aarch64")]
                std::arch::naked_asm!(
                    "adrp x16, {slot}",
                    "ldr x16, [x16, :lo12:{slot}]",
                    "br x16",
                    slot = sym slots::$name,
                );
            }
        )*
    };
}

with_symbols!(define);

/// Stands in the slot of a function that was not loaded.
extern "C" fn absent() -> ! {
    eprintln!("FoundationDB's client library was called before it was loaded, or lacks a function");
    std::process::abort()
}

/// Why there is no FoundationDB client.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// The library isn't there or can't be loaded: install the FoundationDB clients package, or say
    /// where the library is.
    #[error("cannot load FoundationDB's client library {}: {reason}", .library.display())]
    Load {
        /// What was loaded.
        library: PathBuf,
        /// The dynamic linker's words.
        reason: String,
    },
    /// The library is no FoundationDB client, or an old one.
    #[error("FoundationDB's client library {} lacks {symbol}", .library.display())]
    Symbol {
        /// What was loaded.
        library: PathBuf,
        /// A function.
        symbol: &'static str,
    },
    /// The library doesn't speak API version 730: take one of 7.3 or newer.
    #[error("FoundationDB's client library refuses API version 730: {0}")]
    Api(#[source] FdbError),
    /// The network can be started once in the life of a process.
    #[error("FoundationDB's client was started before in this process")]
    Twice,
}

/// How far this process is with the client.
enum State {
    Fresh,
    Running(NetworkAutoStop),
    /// Stopped, or failed to start: there is no second time.
    Over,
}

static STATE: Mutex<State> = Mutex::new(State::Fresh);

/// The running client. Clones are the same; the last one that is dropped stops the network thread
/// and waits for it, some milliseconds, so drop it where that may block.
#[derive(Clone, Debug)]
pub struct Network {
    _running: Arc<Guard>,
}

#[derive(Debug)]
struct Guard;

impl Drop for Guard {
    fn drop(&mut self) {
        stop();
    }
}

impl Network {
    /// Loads `library` ([`DEFAULT_LIBRARY`] if none is named) and starts the client's network
    /// thread. Blocks for as long as that takes.
    ///
    /// # Errors
    /// See [`BootError`]; after [`BootError::Load`] and [`BootError::Symbol`] it may be tried again.
    pub fn boot(library: Option<&Path>) -> Result<Self, BootError> {
        let mut state = STATE.lock();
        if !matches!(*state, State::Fresh) {
            return Err(BootError::Twice);
        }
        load(library.unwrap_or(Path::new(DEFAULT_LIBRARY)))?;
        *state = State::Over;
        let network = FdbApiBuilder::default().build().map_err(BootError::Api)?;
        // Safety: `stop` runs in time whatever becomes of the guard, see the module.
        unsafe {
            *state = State::Running(network.boot().map_err(BootError::Api)?);
            libc::atexit(stop_at_exit);
        }
        Ok(Self { _running: Arc::new(Guard) })
    }
}

fn stop() {
    let last = std::mem::replace(&mut *STATE.lock(), State::Over);
    if let State::Running(network) = last {
        // Stops the network and joins its thread; not under the lock.
        drop(network);
    }
}

extern "C" fn stop_at_exit() {
    stop();
}

/// Puts the functions of `library` into their slots.
fn load(library: &Path) -> Result<(), BootError> {
    let refused = |reason: String| BootError::Load { library: library.to_owned(), reason };
    let path = CString::new(library.as_os_str().as_bytes())
        .map_err(|_| refused("its name has a zero byte".to_owned()))?;
    // Safety: `path` ends with a zero and lives through the call.
    let handle = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
    if handle.is_null() {
        return Err(refused(dl_error()));
    }
    let mut found = Vec::with_capacity(SLOTS.len());
    for (name, slot, needed) in SLOTS {
        let symbol = CString::new(*name).map_err(|_| refused(format!("no name: {name}")))?;
        // Safety: an open handle and a name that ends with a zero.
        let address = unsafe { libc::dlsym(handle, symbol.as_ptr()) };
        match (address.is_null(), needed) {
            (false, _) => found.push((slot, address)),
            (true, false) => {}
            (true, true) => {
                return Err(BootError::Symbol { library: library.to_owned(), symbol: name });
            }
        }
    }
    // All or none: a library that was refused leaves nothing behind in the slots.
    for (slot, address) in found {
        slot.store(address, Ordering::Release);
    }
    Ok(())
}

/// The dynamic linker's last error.
fn dl_error() -> String {
    // Safety: the text belongs to this thread until its next call of the dynamic linker.
    unsafe {
        let text = libc::dlerror();
        if text.is_null() {
            return "unknown error".to_owned();
        }
        CStr::from_ptr(text).to_string_lossy().into_owned()
    }
}
