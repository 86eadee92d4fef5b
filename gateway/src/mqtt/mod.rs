//! MQTT: sessions, publishes and deliveries over log tails.

pub mod codec;
pub mod topic;
