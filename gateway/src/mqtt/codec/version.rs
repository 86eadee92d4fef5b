//! Protocol versions, qualities of service, and what a receiver can take.

/// A version of the protocol, by its level in CONNECT.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Version {
    /// MQTT 3.1 ("MQIsdp").
    V31 = 3,
    /// MQTT 3.1.1.
    V311 = 4,
    /// MQTT 5.0.
    V5 = 5,
}

impl Version {
    /// Whether packets carry properties and reason codes.
    pub fn is_v5(self) -> bool {
        self == Version::V5
    }
}

/// Quality of service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum QoS {
    /// QoS 0.
    #[default]
    AtMostOnce = 0,
    /// QoS 1.
    AtLeastOnce = 1,
    /// QoS 2.
    ExactlyOnce = 2,
}

impl QoS {
    /// The QoS of two bits; `None` for 3.
    pub fn from_bits(bits: u8) -> Option<Self> {
        match bits {
            0 => Some(QoS::AtMostOnce),
            1 => Some(QoS::AtLeastOnce),
            2 => Some(QoS::ExactlyOnce),
            _ => None,
        }
    }

    /// Its two bits.
    pub fn bits(self) -> u8 {
        self as u8
    }
}

/// What the receiver of a packet can take: from its CONNECT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receiver {
    /// Its protocol version.
    pub version: Version,
    /// Its Maximum Packet Size in bytes, the fixed header included.
    pub max_packet_bytes: u32,
    /// Its Request Problem Information: without it, reason strings and user properties go only
    /// on PUBLISH, CONNACK and DISCONNECT [MQTT-3.1.2-29].
    pub wants_problem_info: bool,
}

impl Receiver {
    /// A receiver that stated no limits.
    pub fn new(version: Version) -> Self {
        Self { version, max_packet_bytes: u32::MAX, wants_problem_info: true }
    }
}
