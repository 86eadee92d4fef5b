//! Side-by-side benchmarks: the same generators drive Interflow and a peer, turn by turn.
//!
//! ```text
//!   bin/{kafka,mqtt,idle} ──► load/{kafka,mqtt} ──► a server ──► Usage (CPU, memory)
//!   bin/cluster ──► cluster, kafka_cluster; bin/scale ──► many, scale_{faults,scans} over a cluster
//!   bin/meta ──► meta_{load,mixes,setup} ──► a store ──┘
//!                                        └─► Report: medians, minimum, maximum, verdicts; JSON
//! ```

pub mod chains;
pub mod cluster;
pub mod cold_scan;
pub mod fsync;
pub mod kafka_cluster;
pub mod kafka_load;
pub mod kafka_server;
pub mod latency;
pub mod many;
pub mod meta_load;
pub mod meta_mixes;
pub mod meta_setup;
pub mod meta_stores;
pub mod mqtt_load;
pub mod mqtt_wire;
pub mod process;
pub mod report;
pub mod scale_faults;
pub mod scale_scans;
pub mod verdict;
pub mod versions;
