//! The rules of the group protocol by table, and its promises under random interleavings.

mod model;
mod rules;
