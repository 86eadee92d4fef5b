//! Kafka: requests in, log appends and reads out.

pub mod data;
pub mod frame;
