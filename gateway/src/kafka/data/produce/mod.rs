//! Produce: batches checked and appended as they came, answered when they are committed.

mod request;
mod response;
mod start;

#[cfg(test)]
mod tests;

pub use start::{Produce, ProduceAnswer};
