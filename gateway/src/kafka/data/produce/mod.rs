//! Produce: batches checked and appended as they came, answered when they are committed.

mod request;
mod response;
mod start;

#[cfg(test)]
mod tests;

pub(super) use request::{Named, Preamble, Visitor, walk};
pub use start::{Produce, ProduceAnswer};
