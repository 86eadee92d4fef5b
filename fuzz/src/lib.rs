//! Fuzz targets: a function of bytes for every decoder of what comes from a socket or a disk.
//!
//! ```text
//!   TARGETS ─► run: mutate(seeds) for some seconds     stable Rust, in CI: `interflow-fuzz`
//!           └► cargo-fuzz/: libFuzzer, coverage        nightly, for hours: `fuzz/run`
//! ```
//!
//! | bytes from outside | target |
//! | --- | --- |
//! | MQTT packets, CONNECT (the version is in it) | `mqtt_v31`, `mqtt_v311`, `mqtt_v5`; `mqtt_client` for our own client |
//! | topic names, filters, shared ones | `topics` |
//! | records of Kafka producers as MQTT messages | `mqtt_record` |
//! | WebSocket handshakes and frames | `websocket` |
//! | Kafka request headers and bodies, the readers of Produce and Fetch | `kafka_frame` |
//! | SASL/PLAIN tokens | `sasl_plain` |
//! | record batches, their four compressions | `record_batch` |
//! | extents, groups, entries, footers, indexes, producer snapshots | `journal` |
//! | values in the metadata | `meta_values` |
//! | messages of the remote metadata store | `meta_remote` |
//! | messages between gateways and logstores | `log_messages` |
//! | messages between logstores | `peer_messages` |
//! | dumps of the metadata | `meta_dump` |
//!
//! Without a target: consumer protocol metadata and assignments (kept as they are, never read);
//! the size before a Kafka request and the superblock of the metadata (a number of fixed width,
//! checked where it is read); redb's pages (checksums from the root, tested with flipped bits);
//! HTTP and JSON of the admin port (axum, serde_json; loopback only); TLS and QUIC (rustls, quinn);
//! the configuration (TOML by figment, from the operator).
//!
//! To add one: a function that must not panic, its seeds, and a line in [`TARGETS`].

mod kafka;
mod mqtt;
mod mutate;
mod run;
mod topics;

pub use run::{Failure, Run, Runner};

/// A decoder under test.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// What it is called on the command line.
    pub name: &'static str,
    /// Reads any bytes. Must not panic, whatever they are; may assert what always holds.
    pub run: fn(&[u8]),
    /// Inputs to begin with, most of them valid.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// How much one run may allocate.
    pub memory: Memory,
}

/// What a run may allocate in all: `fixed` bytes and `per_byte` for each byte of input.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    /// Bytes for any input.
    pub fixed: usize,
    /// Bytes for each byte of input.
    pub per_byte: usize,
}

impl Memory {
    /// For an input of `len` bytes.
    pub fn limit(&self, len: usize) -> usize {
        self.fixed.saturating_add(self.per_byte.saturating_mul(len))
    }
}

/// A decoder that borrows: what little it allocates, the target's own checks do.
const BORROWS: Memory = Memory { fixed: 4 << 10, per_byte: 16 };

/// The journal's indexes take little more memory than their bytes; its scan reads a window.
const JOURNAL: Memory = Memory { fixed: 64 << 10, per_byte: 64 };

/// Every kind of value is decoded; a topic's partitions are listed, up to the most it may have.
const VALUES: Memory = Memory { fixed: 2 << 20, per_byte: 2 << 10 };

/// Every kind of message is decoded, and a commit is built again; an empty row takes two bytes.
const MESSAGES: Memory = Memory { fixed: 64 << 10, per_byte: 1 << 10 };

/// A row is read into a buffer of its length, which is bounded.
const DUMP: Memory = Memory { fixed: 256 << 10, per_byte: 16 };

/// A batch is built from the fields and read again.
const RECORD: Memory = Memory { fixed: 16 << 10, per_byte: 128 };

/// Messages are bounded by 4 KiB; a handshake's headers and the copies of a frame take the rest.
const WEBSOCKET: Memory = Memory { fixed: 128 << 10, per_byte: 64 };

/// All targets.
pub const TARGETS: &[Target] = &[
    Target { name: "mqtt_v31", run: mqtt::v31, seeds: mqtt::v31_seeds, memory: BORROWS },
    Target { name: "mqtt_v311", run: mqtt::v311, seeds: mqtt::v311_seeds, memory: BORROWS },
    Target { name: "mqtt_v5", run: mqtt::v5, seeds: mqtt::v5_seeds, memory: BORROWS },
    Target { name: "mqtt_client", run: mqtt::client, seeds: mqtt::client_seeds, memory: BORROWS },
    Target {
        name: "mqtt_record",
        run: interflow_gateway::mqtt::fuzz_record,
        seeds: interflow_gateway::mqtt::record_seeds,
        memory: RECORD,
    },
    Target { name: "topics", run: topics::run, seeds: topics::seeds, memory: topics::MEMORY },
    Target {
        name: "websocket",
        run: interflow_gateway::net::fuzz_websocket,
        seeds: interflow_gateway::net::websocket_seeds,
        memory: WEBSOCKET,
    },
    Target { name: "kafka_frame", run: kafka::frame, seeds: kafka::frames, memory: kafka::FRAME },
    Target { name: "sasl_plain", run: kafka::plain, seeds: kafka::tokens, memory: BORROWS },
    Target { name: "record_batch", run: kafka::batch, seeds: kafka::batches, memory: kafka::BATCH },
    Target {
        name: "journal",
        run: interflow_logstore::fuzz_journal,
        seeds: interflow_logstore::journal_seeds,
        memory: JOURNAL,
    },
    Target {
        name: "meta_values",
        run: interflow_meta::fuzz_values,
        seeds: interflow_meta::value_seeds,
        memory: VALUES,
    },
    Target {
        name: "meta_remote",
        run: interflow_meta::fuzz_remote,
        seeds: interflow_meta::remote_seeds,
        memory: MESSAGES,
    },
    Target {
        name: "log_messages",
        run: interflow_logstore::fuzz_log_messages,
        seeds: interflow_logstore::log_message_seeds,
        memory: MESSAGES,
    },
    Target {
        name: "peer_messages",
        run: interflow_logstore::fuzz_peer_messages,
        seeds: interflow_logstore::peer_message_seeds,
        memory: MESSAGES,
    },
    Target {
        name: "meta_dump",
        run: interflow_meta::fuzz_dump,
        seeds: interflow_meta::dump_seeds,
        memory: DUMP,
    },
];
