//! Text of responses.

use kafka_protocol::messages::TopicName;
use kafka_protocol::protocol::StrBytes;

pub(super) fn text(text: impl Into<String>) -> StrBytes {
    StrBytes::from_string(text.into())
}

pub(super) fn topic_name(name: &str) -> TopicName {
    TopicName(text(name))
}
