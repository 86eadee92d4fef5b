//! A stand-in for `libfdb_c.so`, for tests of what is built on FoundationDB's C API. **It is no
//! database and is never shipped**: it keeps its data in the process that loaded it, or hands it to an
//! `interflow meta serve`.
//!
//! ```text
//!   abi       fdb_*: raw pointers in and out          the only module with `unsafe`
//!    │
//!   database, transaction, commit, future, network    the C API's promises, in safe Rust
//!    │
//!   cluster   one store a cluster file                versions, faults
//! ```
//!
//! It has the functions of `fdb_c.h` at API version 730 that a key-value client calls, with
//! FoundationDB's error codes, limits, options and order of events. What it lacks: read-your-writes
//! (a read or watch of a transaction with writes fails with 2108 unless that layer is switched off),
//! tenants, special keys, blob granules.
//!
//! A cluster file must be there and be one. What its description is decides: a cluster called
//! `unreachable` never answers; one called `durable` keeps its data beside its file (`fdb.data` beside
//! `fdb.cluster`), for the next process; one called `shared` is that of all processes whose file names its
//! address, where an `interflow meta serve` keeps it; all others keep theirs in memory. Faults are planned by a
//! write to the key [`cluster::FAULTS_KEY`], for the process that does so.

mod abi;
mod cluster;
mod commit;
mod database;
mod error;
mod future;
mod network;
mod select;
mod transaction;
