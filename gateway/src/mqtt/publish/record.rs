//! An MQTT message as a record: key, value and headers.
//!
//! | header | value |
//! |---|---|
//! | `mqtt.qos` | `0`, `1` or `2` |
//! | `mqtt.retain` | `1`; absent if not retained |
//! | `mqtt.client-id` | of the publisher |
//! | `mqtt.payload-format` | `0` or `1` |
//! | `mqtt.expiry` | milliseconds since 1970, decimal |
//! | `mqtt.content-type`, `mqtt.response-topic`, `mqtt.correlation-data` | as published |
//! | any other name | a user property; one that begins with `mqtt.` is `mqtt.user.` + its name |

use smallvec::SmallVec;

use crate::mqtt::codec::{PayloadFormat, PublishProperties, QoS};
use crate::records::{BatchBuilder, BatchFull};

/// Names of the headers.
pub(crate) mod header {
    pub(crate) const PREFIX: &[u8] = b"mqtt.";
    pub(crate) const USER: &[u8] = b"mqtt.user.";
    pub(crate) const QOS: &[u8] = b"mqtt.qos";
    pub(crate) const RETAIN: &[u8] = b"mqtt.retain";
    pub(crate) const CLIENT_ID: &[u8] = b"mqtt.client-id";
    pub(crate) const PAYLOAD_FORMAT: &[u8] = b"mqtt.payload-format";
    pub(crate) const EXPIRY: &[u8] = b"mqtt.expiry";
    pub(crate) const CONTENT_TYPE: &[u8] = b"mqtt.content-type";
    pub(crate) const RESPONSE_TOPIC: &[u8] = b"mqtt.response-topic";
    pub(crate) const CORRELATION_DATA: &[u8] = b"mqtt.correlation-data";
}

/// A message from a client, its topic alias resolved.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Inbound<'a> {
    pub(crate) topic: &'a str,
    pub(crate) payload: &'a [u8],
    pub(crate) qos: QoS,
    pub(crate) retain: bool,
    pub(crate) properties: PublishProperties<'a>,
    pub(crate) client_id: &'a str,
    /// When it arrived, milliseconds since 1970.
    pub(crate) now_ms: i64,
}

type Header<'a> = (&'a [u8], Option<&'a [u8]>);

impl Inbound<'_> {
    /// Bytes that its record takes, about.
    pub(crate) fn bytes(&self) -> usize {
        self.topic.len() + self.payload.len() + self.client_id.len() + 64
    }

    /// Appends it to `batch`.
    pub(crate) fn append_to(&self, batch: &mut BatchBuilder) -> Result<(), BatchFull> {
        let properties = &self.properties;
        let expiry = properties.message_expiry_s.map(|seconds| {
            self.now_ms.saturating_add(i64::from(seconds).saturating_mul(1000)).to_string()
        });
        let escaped: SmallVec<[Vec<u8>; 1]> = properties
            .user
            .iter()
            .filter(|(name, _)| name.as_bytes().starts_with(header::PREFIX))
            .map(|(name, _)| [header::USER, name.as_bytes()].concat())
            .collect();
        let mut escaped = escaped.iter();

        let mut headers: SmallVec<[Header<'_>; 10]> = SmallVec::new();
        let qos: &[u8] = match self.qos {
            QoS::AtMostOnce => b"0",
            QoS::AtLeastOnce => b"1",
            QoS::ExactlyOnce => b"2",
        };
        headers.push((header::QOS, Some(qos)));
        if self.retain {
            headers.push((header::RETAIN, Some(b"1")));
        }
        headers.push((header::CLIENT_ID, Some(self.client_id.as_bytes())));
        if let Some(format) = properties.payload_format {
            let format: &[u8] = if format == PayloadFormat::Utf8 { b"1" } else { b"0" };
            headers.push((header::PAYLOAD_FORMAT, Some(format)));
        }
        if let Some(expiry) = &expiry {
            headers.push((header::EXPIRY, Some(expiry.as_bytes())));
        }
        if let Some(content_type) = properties.content_type {
            headers.push((header::CONTENT_TYPE, Some(content_type.as_bytes())));
        }
        if let Some(topic) = properties.response_topic {
            headers.push((header::RESPONSE_TOPIC, Some(topic.as_bytes())));
        }
        if let Some(data) = properties.correlation_data {
            headers.push((header::CORRELATION_DATA, Some(data)));
        }
        for (name, value) in properties.user.iter() {
            let name = name.as_bytes();
            let name = if name.starts_with(header::PREFIX) {
                escaped.next().map_or(name, Vec::as_slice)
            } else {
                name
            };
            headers.push((name, Some(value.as_bytes())));
        }
        batch.append(
            Some(self.topic.as_bytes()),
            Some(self.payload),
            headers.iter().copied(),
            self.now_ms,
        )
    }
}
