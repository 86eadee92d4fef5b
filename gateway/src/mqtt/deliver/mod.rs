//! From the log to subscribers.
//!
//! ```text
//!   log ─► Tail (notified, early batches queued) ─► dispatch: decode, match, offer to sessions
//!    └───► Scan (read once for those behind) ─► Page ─► feed: Matcher, offer to one session
//! ```

mod dispatch;
mod feed;
mod fuzz;
mod matcher;
mod message;
mod outgoing;
mod page;
mod scan;
mod tail;

pub(crate) use dispatch::{DispatchParts, dispatch};
pub(crate) use feed::{FeedParts, feed};
pub use fuzz::{fuzz_record, record_seeds};
pub(crate) use message::Message;
pub(crate) use outgoing::{Outgoing, Variants};
pub(crate) use page::Found;
pub(crate) use scan::Scans;
pub(crate) use tail::{Early, Position, Tail, is_at_or_before};
