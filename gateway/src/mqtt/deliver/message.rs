//! A record as an MQTT message.

use crate::mqtt::codec::{PayloadFormat, PublishProperties, QoS, UserPropertiesBuf};
use crate::mqtt::publish::header;
use crate::mqtt::topic;
use crate::records::Record;

/// A message of the log, borrowed from its batch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Message<'a> {
    pub(crate) topic: &'a str,
    pub(crate) payload: &'a [u8],
    pub(crate) qos: QoS,
    pub(crate) retain: bool,
    /// Of its publisher, if that spoke MQTT.
    pub(crate) client_id: Option<&'a str>,
    /// When it expires, milliseconds since 1970.
    pub(crate) expires_at_ms: Option<i64>,
    /// Without expiry: that depends on when it is sent.
    pub(crate) properties: PublishProperties<'a>,
}

/// A message that expires as it is published is still delivered at once: within this time.
const AT_ONCE_MS: i64 = 1000;

impl<'a> Message<'a> {
    /// Reads a record; `None` if it is no MQTT message: its key is no topic name. `user` is
    /// overwritten.
    ///
    /// What a Kafka producer may have put into headers and MQTT can't carry is left out.
    pub(crate) fn decode(record: &Record<'a>, user: &'a mut UserPropertiesBuf) -> Option<Self> {
        let topic = std::str::from_utf8(record.key?).ok().filter(|name| topic::is_name(name))?;
        let mut message = Self {
            topic,
            payload: record.value.unwrap_or_default(),
            qos: QoS::AtLeastOnce,
            retain: false,
            client_id: None,
            expires_at_ms: None,
            properties: PublishProperties::default(),
        };
        user.clear();
        for (name, value) in record.headers {
            message.header(record.timestamp, name, value, user);
        }
        message.properties.user = user.view();
        Some(message)
    }

    fn header(
        &mut self,
        timestamp: i64,
        name: &[u8],
        value: Option<&'a [u8]>,
        user: &mut UserPropertiesBuf,
    ) {
        let name = match name.strip_prefix(header::USER) {
            Some(name) if name.starts_with(header::PREFIX) => name,
            _ if name.starts_with(header::PREFIX) => return self.own(timestamp, name, value),
            _ => name,
        };
        let value = std::str::from_utf8(value.unwrap_or_default());
        if let (Ok(name), Ok(value)) = (std::str::from_utf8(name), value) {
            // A header that no user property can hold is left out.
            let _ = user.push(name, value);
        }
    }

    fn own(&mut self, timestamp: i64, name: &[u8], value: Option<&'a [u8]>) {
        let Some(value) = value.filter(|value| value.len() <= usize::from(u16::MAX)) else {
            return;
        };
        let text = || std::str::from_utf8(value).ok().filter(|text| !text.contains('\0'));
        match name {
            header::QOS => {
                self.qos = match value {
                    b"0" => QoS::AtMostOnce,
                    b"2" => QoS::ExactlyOnce,
                    _ => QoS::AtLeastOnce,
                }
            }
            header::RETAIN => self.retain = !matches!(value, b"" | b"0" | b"false"),
            header::CLIENT_ID => self.client_id = text(),
            header::PAYLOAD_FORMAT => {
                self.properties.payload_format = match value {
                    b"0" => Some(PayloadFormat::Bytes),
                    b"1" => Some(PayloadFormat::Utf8),
                    _ => None,
                }
            }
            header::EXPIRY => {
                self.expires_at_ms = text().and_then(|text| text.parse::<i64>().ok()).map(|at| {
                    if at <= timestamp { timestamp.saturating_add(AT_ONCE_MS) } else { at }
                });
                if self.expires_at_ms == Some(timestamp.saturating_add(AT_ONCE_MS))
                    && text().is_some_and(|text| text.parse() == Ok(timestamp))
                {
                    self.properties.message_expiry_s = Some(0);
                }
            }
            header::CONTENT_TYPE => self.properties.content_type = text(),
            header::RESPONSE_TOPIC => {
                self.properties.response_topic = text().filter(|name| topic::is_name(name));
            }
            header::CORRELATION_DATA => self.properties.correlation_data = Some(value),
            _ => {}
        }
    }

    /// Its time is over.
    pub(crate) fn is_expired(&self, now_ms: i64) -> bool {
        self.expires_at_ms.is_some_and(|at| now_ms >= at)
    }
}
