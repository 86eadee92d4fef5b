//! From the log to subscribers.
//!
//! ```text
//!   log ─► Tail (notified, early batches queued) ─► dispatch: decode, match, offer to sessions
//!    └───────────────────────────────────────────► feed: a session behind reads for itself
//! ```

mod dispatch;
mod feed;
mod message;
mod outgoing;
mod tail;

pub(crate) use dispatch::{DispatchParts, dispatch};
pub(crate) use feed::{FeedParts, feed};
pub(crate) use message::Message;
pub(crate) use outgoing::{Outgoing, Variants};
pub(crate) use tail::{Early, Position, Tail, is_at_or_before};
