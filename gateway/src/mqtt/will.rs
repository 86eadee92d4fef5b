//! Wills: kept as the client gave them, published when its connection ends badly.

use std::sync::Arc;

use super::codec::{self, PayloadFormat, PublishProperties, QoS, UserPropertiesBuf};
use super::publish::Inbound;

/// A will message.
#[derive(Clone, Debug)]
pub(crate) struct Will {
    topic: Box<str>,
    payload: Box<[u8]>,
    qos: QoS,
    retain: bool,
    payload_format: Option<PayloadFormat>,
    message_expiry_s: Option<u32>,
    content_type: Option<Box<str>>,
    response_topic: Option<Box<str>>,
    correlation_data: Option<Box<[u8]>>,
    user: UserPropertiesBuf,
    client_id: Arc<str>,
}

impl Will {
    /// Copies the will out of a CONNECT.
    pub(crate) fn new(will: &codec::Will<'_>, client_id: Arc<str>) -> Self {
        let properties = &will.properties;
        let mut user = UserPropertiesBuf::default();
        for (name, value) in properties.user.iter() {
            // They were checked when they were read.
            let _ = user.push(name, value);
        }
        Self {
            topic: will.topic.into(),
            payload: will.payload.into(),
            qos: will.qos,
            retain: will.retain,
            payload_format: properties.payload_format,
            message_expiry_s: properties.message_expiry_s,
            content_type: properties.content_type.map(Into::into),
            response_topic: properties.response_topic.map(Into::into),
            correlation_data: properties.correlation_data.map(Into::into),
            user,
            client_id,
        }
    }

    /// The message as it is published at `now_ms`: its expiry counts from there.
    pub(crate) fn message(&self, now_ms: i64) -> Inbound<'_> {
        Inbound {
            topic: &self.topic,
            payload: &self.payload,
            qos: self.qos,
            retain: self.retain,
            properties: PublishProperties {
                payload_format: self.payload_format,
                message_expiry_s: self.message_expiry_s,
                content_type: self.content_type.as_deref(),
                response_topic: self.response_topic.as_deref(),
                correlation_data: self.correlation_data.as_deref(),
                user: self.user.view(),
            },
            client_id: &self.client_id,
            now_ms,
        }
    }
}
