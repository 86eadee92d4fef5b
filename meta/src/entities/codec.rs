//! Between the store's bytes and the messages in them.

use bytes::Bytes;
use prost::Message;
use uuid::Uuid;

use crate::error::MetaError;
use crate::ids::{Durability, NodeId};

/// The message in `value`; `what` names it in the error.
pub(super) fn decode<M: Message + Default>(value: Bytes, what: &str) -> Result<M, MetaError> {
    M::decode(value).map_err(|error| corrupt(what, &error.to_string()))
}

pub(super) fn encode(message: &impl Message) -> Bytes {
    message.encode_to_vec().into()
}

pub(super) fn corrupt(what: &str, why: &str) -> MetaError {
    MetaError::Corrupt(format!("{what}: {why}"))
}

pub(super) fn uuid(bytes: &[u8], what: &str) -> Result<Uuid, MetaError> {
    Uuid::from_slice(bytes).map_err(|_| corrupt(what, "an id is not 16 bytes long"))
}

/// A little-endian counter; 0 where there is none.
pub(super) fn counter(value: Option<Bytes>, what: &str) -> Result<u64, MetaError> {
    let Some(value) = value else { return Ok(0) };
    let bytes = <[u8; 8]>::try_from(&value[..])
        .map_err(|_| corrupt(what, "a counter is not 8 bytes long"))?;
    Ok(u64::from_le_bytes(bytes))
}

pub(super) fn durability_code(durability: Durability) -> u32 {
    match durability {
        Durability::Durable => 0,
        Durability::Replicated => 1,
        Durability::Volatile => 2,
    }
}

pub(super) fn durability(code: u32) -> Result<Durability, MetaError> {
    match code {
        0 => Ok(Durability::Durable),
        1 => Ok(Durability::Replicated),
        2 => Ok(Durability::Volatile),
        _ => Err(corrupt("log", "unknown durability")),
    }
}

pub(super) fn node_ids(ids: &[u32]) -> Vec<NodeId> {
    ids.iter().copied().map(NodeId).collect()
}

pub(super) fn node_codes(ids: &[NodeId]) -> Vec<u32> {
    ids.iter().map(|id| id.0).collect()
}

/// What a tuple key's error means: somebody else wrote below our root.
pub(super) fn bad_key(what: &str) -> impl FnOnce(foundationdb_tuple::PackError) -> MetaError {
    let what = what.to_owned();
    move |error| corrupt(&what, &error.to_string())
}
