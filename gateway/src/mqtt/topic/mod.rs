//! Topic names and filters: their syntax, matching, and the index of who subscribed to what.

mod syntax;

pub use syntax::{Limits, SharedFilter, is_filter, is_name};
