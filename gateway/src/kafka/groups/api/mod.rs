//! The requests about groups.

pub(in crate::kafka) mod membership;
pub(in crate::kafka) mod offset_delete;
pub(in crate::kafka) mod offsets;
pub(in crate::kafka) mod operate;
#[cfg(test)]
mod tests;

use bytes::Bytes;
use kafka_protocol::error::ResponseError;
use kafka_protocol::protocol::StrBytes;

use super::core::{Identity, Name};

/// A group's name in bytes: it is part of a key of meta.
const MAX_NAME_BYTES: usize = 2_048;

/// Whether a group can have that name.
fn check_name(name: &str) -> Result<(), ResponseError> {
    if name.is_empty() || name.len() > MAX_NAME_BYTES {
        return Err(ResponseError::InvalidGroupId);
    }
    Ok(())
}

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

/// A copy that doesn't keep the request's frame in memory.
fn own(bytes: &Bytes) -> Bytes {
    Bytes::copy_from_slice(bytes)
}

fn identity(member: &StrBytes, instance: Option<&StrBytes>) -> Identity {
    Identity { member: member.as_str().into(), instance: instance.map(|name| name.as_str().into()) }
}

fn name(text: &StrBytes) -> Name {
    text.as_str().into()
}
