//! Kafka's RecordBatch v2: checked, built, and read.
//!
//! ```text
//!   from a producer ─► validate ─► (set_log_append_time) ─► log      header only: no record is decoded
//!   from MQTT       ─► BatchBuilder ─────────────────────► log
//!   log ─► OpenBatch (decompresses, bounded) ─► Records ─► MQTT delivery, look-ups by time
//! ```
//!
//! Nothing here panics or allocates by a length that was not checked, whatever the bytes are.

mod build;
mod cursor;
mod decompress;
mod header;
mod read;
mod validate;
mod varint;

#[cfg(test)]
mod tests;

pub use build::{BatchBuilder, BatchFull, BuiltBatch};
pub use cursor::{Cursor, Truncated};
pub use decompress::{DecompressError, decompress};
pub use header::{BatchHeader, Compression, HeaderError, TimestampType};
pub use read::{Headers, OpenBatch, Record, RecordError, Records, fuzz_batch};
pub use validate::{BatchError, BatchRules, set_log_append_time, validate};
