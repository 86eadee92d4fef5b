//! Interflow's protobuf messages, generated from the `.proto` files beside this crate.
//!
//! Bytes fields are [`bytes::Bytes`], so that decoding from one doesn't copy; maps are ordered, so
//! that equal messages have equal encodings.

/// The values that meta keeps.
#[allow(
    missing_docs,
    clippy::doc_markdown,
    clippy::derive_partial_eq_without_eq,
    reason = "generated: the .proto file is the documentation"
)]
pub mod meta {
    include!(concat!(env!("OUT_DIR"), "/interflow.meta.v1.rs"));
}

/// The protocol by which a metadata store is served to other processes.
#[allow(
    missing_docs,
    clippy::doc_markdown,
    clippy::allow_attributes_without_reason,
    clippy::derive_partial_eq_without_eq,
    reason = "generated: the .proto file is the documentation"
)]
pub mod meta_remote {
    include!(concat!(env!("OUT_DIR"), "/interflow.meta.remote.v1.rs"));
}

/// The protocol by which a logstore is used by gateways.
#[allow(
    missing_docs,
    clippy::doc_markdown,
    clippy::allow_attributes_without_reason,
    clippy::derive_partial_eq_without_eq,
    reason = "generated: the .proto file is the documentation"
)]
pub mod log {
    include!(concat!(env!("OUT_DIR"), "/interflow.log.v1.rs"));
}

/// The protocol by which the nodes that store logs replicate segments.
#[allow(
    missing_docs,
    clippy::doc_markdown,
    clippy::allow_attributes_without_reason,
    clippy::derive_partial_eq_without_eq,
    reason = "generated: the .proto file is the documentation"
)]
pub mod peer {
    include!(concat!(env!("OUT_DIR"), "/interflow.peer.v1.rs"));
}
