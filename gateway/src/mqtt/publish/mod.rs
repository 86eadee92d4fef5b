//! Publishes on their way into the log.
//!
//! ```text
//!   connections ─► Writer (one a log): two lanes ─► LogClient::append ─► completions
//!                    durable: QoS 1 and 2, one batch in flight; what arrives meanwhile shares the next
//!                    early:   QoS 0, several in flight; shown to subscribers before they are durable
//! ```
//!
//! A payload is copied once: from the buffer it was read into, into the batch.

mod completion;
mod digest;
mod lane;
mod record;
mod waiters;
mod writer;

pub(crate) use completion::{Completion, complete};
pub(crate) use digest::filter_hashes;
pub(crate) use lane::RetainedRecord;
pub(crate) use record::{Inbound, header};
pub(crate) use waiters::Waiters;
pub(crate) use writer::{Full, Writer, WriterLimits, WriterParts};
