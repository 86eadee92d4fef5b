//! The values of retained messages.

use bytes::Bytes;
use interflow_proto::meta as proto;

use crate::entities::codec::{decode, encode};
use crate::error::MetaError;
use crate::ids::{LogId, Offset};

/// Where a retained message was published: of two, the one with the greater version stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RetainedVersion {
    /// The generation of the binding that chose the log.
    pub generation: u64,
    /// The log.
    pub log: LogId,
    /// The record.
    pub offset: Offset,
}

/// A retained message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetainedMessage {
    /// Where it was published.
    pub version: RetainedVersion,
    /// The publisher's QoS: 0, 1 or 2.
    pub qos: u8,
    /// Who published it: the client id.
    pub publisher: String,
    /// MQTT properties, encoded by the gateway.
    pub properties: Bytes,
    /// The payload.
    pub payload: Bytes,
    /// Milliseconds since 1970.
    pub published_ms: i64,
    /// Not served from then on; milliseconds since 1970.
    pub expires_ms: Option<i64>,
}

/// What a topic's row says.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::entities) struct Row {
    pub(super) version: RetainedVersion,
    pub(super) cleared: bool,
    pub(super) qos: u8,
    pub(super) publisher: String,
    pub(super) published_ms: i64,
    pub(super) due_ms: Option<i64>,
    pub(super) body: proto::RetainedBody,
    pub(super) parts: u32,
}

impl Row {
    pub(super) fn live(message: &RetainedMessage) -> Self {
        Self {
            version: message.version,
            cleared: false,
            qos: message.qos,
            publisher: message.publisher.clone(),
            published_ms: message.published_ms,
            due_ms: message.expires_ms,
            body: proto::RetainedBody {
                properties: message.properties.clone(),
                payload: message.payload.clone(),
            },
            parts: 0,
        }
    }

    pub(super) fn cleared(version: RetainedVersion, forget_ms: i64) -> Self {
        Self {
            version,
            cleared: true,
            qos: 0,
            publisher: String::new(),
            published_ms: 0,
            due_ms: Some(forget_ms),
            body: proto::RetainedBody::default(),
            parts: 0,
        }
    }

    /// When it is swept.
    pub(in crate::entities) fn due_ms(&self) -> Option<i64> {
        self.due_ms
    }

    /// How many parts its body lies in, apart from it.
    pub(in crate::entities) fn parts(&self) -> u32 {
        self.parts
    }

    pub(super) fn into_message(self) -> RetainedMessage {
        RetainedMessage {
            version: self.version,
            qos: self.qos,
            publisher: self.publisher,
            properties: self.body.properties,
            payload: self.body.payload,
            published_ms: self.published_ms,
            expires_ms: self.due_ms,
        }
    }

    pub(super) fn encode(self) -> Bytes {
        encode(&proto::Retained {
            generation: self.version.generation,
            log: self.version.log.0,
            offset: self.version.offset,
            cleared: self.cleared,
            qos: u32::from(self.qos),
            published_ms: self.published_ms,
            due_ms: self.due_ms,
            publisher: self.publisher,
            body: Some(self.body),
            parts: self.parts,
        })
    }

    pub(in crate::entities) fn decode(value: Bytes) -> Result<Self, MetaError> {
        let message: proto::Retained = decode(value, "retained")?;
        Ok(Self {
            version: RetainedVersion {
                generation: message.generation,
                log: LogId(message.log),
                offset: message.offset,
            },
            cleared: message.cleared,
            qos: u8::try_from(message.qos).unwrap_or(0).min(2),
            publisher: message.publisher,
            published_ms: message.published_ms,
            due_ms: message.due_ms,
            body: message.body.unwrap_or_default(),
            parts: message.parts,
        })
    }
}
