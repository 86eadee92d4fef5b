//! What clients and tools ask about the cluster and its topics, and change of them.

pub(super) mod alter_configs;
pub(super) mod cluster;
mod configs;
pub(super) mod create;
pub(super) mod data;
pub(super) mod delete;
pub(super) mod describe_configs;
mod errors;
pub(super) mod metadata;
#[cfg(test)]
mod tests;
mod text;
pub(super) mod told;
pub(super) mod versions;

/// Kafka's bit sets of the operations that exist on a resource: what is answered to who asks which
/// are allowed, since everybody is allowed everything.
mod operations {
    pub(super) const TOPIC: i32 = 3_576;
    pub(super) const CLUSTER: i32 = 8_096;
}
