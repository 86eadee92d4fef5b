//! FoundationDB's client library, loaded at run time instead of linked.
//!
//! ```text
//!   the crate foundationdb ── fdb_get(…) ──► symbols: a jump through a slot ──► libfdb_c.so
//!                                                           ▲ filled by
//!   Network::boot(library) ── dlopen, dlsym ────────────────┘
//! ```
//!
//! A binary with this crate in it starts and runs without the library; only who wants FoundationDB
//! needs it. [`Network`] is the way in: it loads the library, selects the API version and runs the
//! client's network thread until it is dropped.

#[cfg(not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))))]
compile_error!("FoundationDB's client is loaded on Linux on x86-64 and AArch64 only");

mod client;
mod symbols;

pub use client::{BootError, DEFAULT_LIBRARY, Network};
