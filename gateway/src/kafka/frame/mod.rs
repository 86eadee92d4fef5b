//! What stands before any decoder: request frames are checked against the schema of their API.
//!
//! ```text
//!   frame (its size checked by the reader) ─► parse_header ─► check ─► a decoder
//! ```
//!
//! kafka-protocol reserves memory by counts from the wire, and so can be made to abort the process
//! by a few bytes. [`check`] walks a request without allocating, holds every length and count
//! against the bytes that remain, and bounds what decoding can cost; what passes is safe to decode.

mod header;
mod schema;
mod versions;
mod walk;

#[cfg(test)]
pub(crate) mod random;
#[cfg(test)]
mod tests;

pub use header::{RequestHeader, parse_header};
pub use versions::served_versions;
pub use walk::{FrameError, check, fuzz_frame};
