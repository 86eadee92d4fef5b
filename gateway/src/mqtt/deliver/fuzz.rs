//! Records that Kafka producers may have written, as MQTT messages: for fuzzing.

use super::Message;
use crate::mqtt::codec::UserPropertiesBuf;
use crate::mqtt::topic::is_name;
use crate::records::{BatchBuilder, OpenBatch};

/// Reads any bytes as a record: fields, each with its length in a byte before it, are the key, the
/// value, and names and values of headers.
pub fn fuzz_record(bytes: &[u8]) {
    let mut rest = bytes;
    let mut fields = std::iter::from_fn(move || {
        let (len, after) = rest.split_first()?;
        let (field, after) = after.split_at_checked(usize::from(*len))?;
        rest = after;
        Some(field)
    });
    let (key, value) = (fields.next(), fields.next());
    let all: Vec<&[u8]> = fields.collect();
    let headers = all.chunks(2).filter_map(|pair| Some((*pair.first()?, pair.get(1).copied())));
    let headers: Vec<_> = headers.collect();
    let mut builder = BatchBuilder::new();
    if builder.append(key, value, headers.iter().copied(), 1_000).is_err() {
        return;
    }
    let Some(batch) = builder.finish() else { return };
    let opened = OpenBatch::open(&batch.bytes, 1 << 20).ok();
    let record = opened.as_ref().and_then(|batch| batch.records().next()?.ok());
    assert!(record.is_some(), "what was built can't be read");
    let Some(record) = record else { return };
    let mut user = UserPropertiesBuf::default();
    let message = Message::decode(&record, &mut user);
    let is_topic = key.and_then(|key| std::str::from_utf8(key).ok()).is_some_and(is_name);
    assert_eq!(message.is_some(), is_topic);
    let Some(message) = message else { return };
    assert_eq!(message.payload, value.unwrap_or_default());
    assert!(message.properties.response_topic.is_none_or(is_name));
    assert!(message.properties.user.iter().count() <= headers.len());
    let _ = message.is_expired(0);
}

/// Inputs of [`fuzz_record`] to begin with.
pub fn record_seeds() -> Vec<Vec<u8>> {
    let record = |fields: &[&str]| -> Vec<u8> {
        let field = |field: &&str| [&[field.len() as u8][..], field.as_bytes()].concat();
        fields.iter().flat_map(field).collect()
    };
    vec![
        record(&["a/b", "payload"]),
        record(&["a/+", "no topic"]),
        record(&["a", "x", "mqtt.qos", "2", "mqtt.retain", "1", "mqtt.client-id", "me"]),
        record(&["a", "x", "mqtt.expiry", "1000", "mqtt.payload-format", "1"]),
        record(&["a", "x", "mqtt.response-topic", "b/#", "mqtt.content-type", "text"]),
        record(&[
            "a",
            "x",
            "mqtt.correlation-data",
            "id",
            "name",
            "value",
            "mqtt.user.mqtt.x",
            "y",
        ]),
        record(&["a", "", "mqtt.expiry", "-9223372036854775808", "mqtt.unknown", "z"]),
    ]
}
