//! Classic consumer groups.

mod core;
