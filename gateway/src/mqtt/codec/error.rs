//! Why a packet could not be read or written.

use super::Reason;

/// A packet broke a rule: the connection ends with `reason`.
///
/// Before CONNACK and to 3.1.1 clients no DISCONNECT is sent, only the connection closed
/// [MQTT-3.14.0-1].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct DecodeError {
    /// The code to send to an MQTT 5 client.
    pub reason: Reason,
    /// The rule, for logs and reason strings.
    pub what: &'static str,
}

impl DecodeError {
    pub(crate) const fn new(reason: Reason, what: &'static str) -> Self {
        Self { reason, what }
    }

    pub(crate) const fn malformed(what: &'static str) -> Self {
        Self::new(Reason::MalformedPacket, what)
    }

    pub(crate) const fn protocol(what: &'static str) -> Self {
        Self::new(Reason::ProtocolError, what)
    }
}

/// A packet could not be written. Nothing was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// It is larger than the receiver's Maximum Packet Size even without reason string and user
    /// properties: it must not be sent [MQTT-3.1.2-24].
    #[error("larger than the receiver's maximum packet size")]
    TooLarge,
    /// A string or binary field is longer than 65,535 bytes.
    #[error("a field is longer than 65,535 bytes")]
    FieldTooLong,
    /// A string holds U+0000 [MQTT-1.5.4-2].
    #[error("a string holds U+0000")]
    NulInString,
}
