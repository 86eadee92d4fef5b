//! Interflow's metadata: who and where, in FoundationDB's transaction model.

mod ids;

pub use ids::{Durability, Epoch, LogId, NodeId, Offset};
