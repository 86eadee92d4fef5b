//! The header of a request.

use bytes::{Buf, Bytes};
use kafka_protocol::messages::ApiKey;
use kafka_protocol::protocol::StrBytes;

use super::schema;
use super::walk::{FrameError, Walk};
use crate::records::Cursor;

/// What every request begins with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestHeader {
    /// The API's key; it may be of one that isn't served.
    pub api_key: i16,
    /// The version of the API; it may be one that isn't served.
    pub version: i16,
    /// Comes back with the response.
    pub correlation_id: i32,
    /// The name that the client gives itself.
    pub client_id: Option<StrBytes>,
}

/// Splits a request frame (without its size) into header and body. Nothing is copied.
///
/// APIs and versions that aren't served pass: what to answer them is not decided here, and that
/// their body begins where it says is not promised.
///
/// # Errors
/// [`FrameError`]: the frame is no request; the connection must be closed.
pub fn parse_header(frame: &Bytes) -> Result<(RequestHeader, Bytes), FrameError> {
    let mut at = Cursor::new(frame);
    let api_key = at.i16()?;
    let version = at.i16()?;
    let correlation_id = at.i32()?;
    let client_id = match at.i16()? {
        -1 => None,
        len => {
            let len = usize::try_from(len).map_err(|_| FrameError::Length)?;
            let name = frame.slice_ref(at.take(len)?);
            Some(StrBytes::try_from(name).map_err(|_| FrameError::ClientId)?)
        }
    };
    let schema = ApiKey::try_from(api_key).ok().and_then(schema::of);
    if schema.is_some_and(|schema| version >= schema.flexible_since) {
        at = Walk::new(at).unknown_tags()?;
    }
    let mut body = frame.clone();
    body.advance(frame.len() - at.remaining());
    Ok((RequestHeader { api_key, version, correlation_id, client_id }, body))
}
