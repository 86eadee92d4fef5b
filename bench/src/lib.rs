//! Side-by-side benchmarks: the same generators drive Interflow and a peer, turn by turn.
//!
//! ```text
//!   bin/{kafka,mqtt,idle} ──► load/{kafka,mqtt} ──► a server ──► Usage (CPU, memory)
//!                                        └─► Report: medians, minimum, maximum, verdicts; JSON
//! ```

pub mod fsync;
pub mod kafka_load;
pub mod kafka_server;
pub mod latency;
pub mod mqtt_load;
pub mod mqtt_wire;
pub mod process;
pub mod report;
pub mod verdict;
pub mod versions;
