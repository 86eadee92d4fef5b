//! Topic names and filters: their syntax, matching, and the index of who subscribed to what.
//!
//! ```text
//!   syntax: what is legal      matching: one filter, one topic
//!   index: many filters, one topic      shard: which log a topic's messages go to
//! ```

mod index;
mod matching;
mod shard;
mod syntax;

pub use index::FilterIndex;
pub use matching::filter_matches;
pub use shard::{murmur2, shard_of};
pub use syntax::{Limits, SharedFilter, is_filter, is_name, is_wildcard};
