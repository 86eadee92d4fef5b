//! Kafka: requests in, log appends and reads out.
