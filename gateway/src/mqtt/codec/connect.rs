//! CONNECT.

use bytes::BytesMut;

use super::property::{Property, bit, read_properties, write_properties};
use super::reader::Reader;
use super::writer::{Body, Sink, packet};
use super::{
    DecodeError, EncodeError, PacketKind, PublishProperties, QoS, Reason, Receiver, UserProperties,
    Version,
};
use crate::mqtt::topic;

/// A client's wish to connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connect<'a> {
    /// Its protocol version.
    pub version: Version,
    /// Clean Start; Clean Session before MQTT 5.
    pub clean_start: bool,
    /// Seconds; 0 is no keep-alive.
    pub keep_alive_s: u16,
    /// Empty: the server is to assign one (MQTT 5; or 3.1.1 with a clean session).
    pub client_id: &'a str,
    /// What to publish when the connection ends badly.
    pub will: Option<Will<'a>>,
    /// User name.
    pub user_name: Option<&'a str>,
    /// Password: any bytes.
    pub password: Option<&'a [u8]>,
    /// Seconds that the session outlives the connection. Before MQTT 5: 0 for a clean session,
    /// else without end (`u32::MAX`).
    pub session_expiry_s: u32,
    /// QoS 1 and 2 PUBLISHes that the client takes unacknowledged.
    pub receive_maximum: u16,
    /// The largest packet that the client takes, in bytes; `None` without limit.
    pub max_packet_bytes: Option<u32>,
    /// The highest topic alias that the client takes.
    pub topic_alias_maximum: u16,
    /// The server may send Response Information.
    pub wants_response_info: bool,
    /// The server may send reason strings and user properties on all packets.
    pub wants_problem_info: bool,
    /// Authentication Method of an enhanced authentication.
    pub auth_method: Option<&'a str>,
    /// Authentication Data.
    pub auth_data: Option<&'a [u8]>,
    /// User properties of CONNECT itself.
    pub user: UserProperties<'a>,
}

/// What to publish when a connection ends without DISCONNECT 0x00.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Will<'a> {
    /// A topic name, checked.
    pub topic: &'a str,
    /// May be empty.
    pub payload: &'a [u8],
    /// Quality of service.
    pub qos: QoS,
    /// Retain it.
    pub retain: bool,
    /// Seconds from the connection's end to the publication.
    pub delay_s: u32,
    /// What goes with the message.
    pub properties: PublishProperties<'a>,
}

/// A CONNECT that broke a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{error}")]
pub struct ConnectError {
    /// The rule.
    pub error: DecodeError,
    /// The version in which a CONNACK with the reason may be sent before closing; `None`: close
    /// without a byte.
    pub answer: Option<Version>,
}

impl<'a> Connect<'a> {
    /// A CONNECT of `version` with every option at its default.
    pub fn new(version: Version, client_id: &'a str) -> Self {
        Self {
            version,
            clean_start: true,
            keep_alive_s: 0,
            client_id,
            will: None,
            user_name: None,
            password: None,
            session_expiry_s: 0,
            receive_maximum: u16::MAX,
            max_packet_bytes: None,
            topic_alias_maximum: 0,
            wants_response_info: false,
            wants_problem_info: true,
            auth_method: None,
            auth_data: None,
            user: UserProperties::default(),
        }
    }

    /// What this client takes.
    pub fn receiver(&self) -> Receiver {
        Receiver {
            version: self.version,
            max_packet_bytes: self.max_packet_bytes.unwrap_or(u32::MAX),
            wants_problem_info: self.wants_problem_info,
        }
    }

    /// Reads the body of a CONNECT.
    ///
    /// # Errors
    /// Unsupported names and levels, and every broken rule of §3.1.
    pub fn decode(body: &'a [u8]) -> Result<Self, ConnectError> {
        let mut reader = Reader::new(body);
        let version = protocol(&mut reader)?;
        decode_rest(version, &mut reader).map_err(|error| ConnectError {
            error,
            // 3.1 and 3.1.1 have no code for most errors: the connection is just closed.
            answer: (version.is_v5() || error.reason == Reason::ClientIdNotValid)
                .then_some(version),
        })
    }

    /// Appends it to `out`.
    ///
    /// # Errors
    /// A field over 65,535 bytes.
    pub fn encode(&self, out: &mut BytesMut) -> Result<(), EncodeError> {
        packet(out, &Receiver::new(self.version), PacketKind::Connect.first_byte(), self)
    }
}

/// Protocol name and level (C3, C4).
fn protocol(reader: &mut Reader<'_>) -> Result<Version, ConnectError> {
    let close = |error| ConnectError { error, answer: None };
    let name = reader.binary().map_err(close)?;
    let level = reader.u8().map_err(close)?;
    let unsupported = |what, answer| ConnectError {
        error: DecodeError::new(Reason::UnsupportedProtocolVersion, what),
        answer: Some(answer),
    };
    match (name, level) {
        (b"MQIsdp", 3) => Ok(Version::V31),
        (b"MQTT", 4) => Ok(Version::V311),
        (b"MQTT", 5) => Ok(Version::V5),
        (b"MQTT", 6..) => Err(unsupported("a protocol level above 5", Version::V5)),
        (b"MQTT" | b"MQIsdp", _) => Err(unsupported("an unknown protocol level", Version::V311)),
        _ => Err(close(DecodeError::new(
            Reason::UnsupportedProtocolVersion,
            "a protocol name other than MQTT",
        ))),
    }
}

/// The bits of the connect flags.
mod flag {
    pub(super) const RESERVED: u8 = 1;
    pub(super) const CLEAN_START: u8 = 1 << 1;
    pub(super) const WILL: u8 = 1 << 2;
    pub(super) const WILL_QOS_SHIFT: u8 = 3;
    pub(super) const WILL_RETAIN: u8 = 1 << 5;
    pub(super) const PASSWORD: u8 = 1 << 6;
    pub(super) const USER_NAME: u8 = 1 << 7;
}

fn decode_rest<'a>(version: Version, reader: &mut Reader<'a>) -> Result<Connect<'a>, DecodeError> {
    let flags = reader.u8()?;
    let has = |bit| flags & bit != 0;
    if has(flag::RESERVED) {
        return Err(DecodeError::malformed("the reserved connect flag is set"));
    }
    let will_qos = QoS::from_bits((flags >> flag::WILL_QOS_SHIFT) & 0b11)
        .ok_or(DecodeError::malformed("a will of QoS 3"))?;
    if !has(flag::WILL) && (will_qos != QoS::AtMostOnce || has(flag::WILL_RETAIN)) {
        return Err(DecodeError::malformed("will QoS or will retain without a will"));
    }
    if !version.is_v5() && has(flag::PASSWORD) && !has(flag::USER_NAME) {
        return Err(DecodeError::malformed("a password without a user name"));
    }
    let mut connect = Connect::new(version, "");
    connect.clean_start = has(flag::CLEAN_START);
    connect.keep_alive_s = reader.u16()?;
    if version.is_v5() {
        connect.read_properties(reader)?;
    } else if !connect.clean_start {
        connect.session_expiry_s = u32::MAX;
    }
    connect.client_id = reader.string()?;
    if has(flag::WILL) {
        connect.will = Some(will(version, reader, will_qos, has(flag::WILL_RETAIN))?);
    }
    if has(flag::USER_NAME) {
        connect.user_name = Some(reader.string()?);
    }
    if has(flag::PASSWORD) {
        connect.password = Some(reader.binary()?);
    }
    reader.end()?;
    let may_be_assigned = match version {
        Version::V31 => false,
        Version::V311 => connect.clean_start,
        Version::V5 => true,
    };
    if connect.client_id.is_empty() && !may_be_assigned {
        return Err(DecodeError::new(
            Reason::ClientIdNotValid,
            "an empty client identifier without a clean session",
        ));
    }
    Ok(connect)
}

fn will<'a>(
    version: Version,
    reader: &mut Reader<'a>,
    qos: QoS,
    retain: bool,
) -> Result<Will<'a>, DecodeError> {
    let mut delay_s = 0;
    let mut properties = PublishProperties::default();
    if version.is_v5() {
        let allowed = PublishProperties::IDS | bit::WillDelay;
        let section = read_properties(reader, allowed, bit::User, |property| {
            if let Property::WillDelay(seconds) = property {
                delay_s = seconds;
            }
            properties.take(property)
        })?;
        properties.user = UserProperties::new(section);
    }
    let topic = reader.string()?;
    if !topic::is_name(topic) {
        return Err(DecodeError::new(
            Reason::TopicNameInvalid,
            "a will topic that is no topic name",
        ));
    }
    let payload = reader.binary()?;
    Ok(Will { topic, payload, qos, retain, delay_s, properties })
}

impl<'a> Connect<'a> {
    fn read_properties(&mut self, reader: &mut Reader<'a>) -> Result<(), DecodeError> {
        const ALLOWED: u64 = bit::SessionExpiry
            | bit::ReceiveMaximum
            | bit::MaximumPacketSize
            | bit::TopicAliasMaximum
            | bit::RequestResponseInfo
            | bit::RequestProblemInfo
            | bit::AuthMethod
            | bit::AuthData
            | bit::User;
        let section = read_properties(reader, ALLOWED, bit::User, |property| {
            match property {
                Property::SessionExpiry(seconds) => self.session_expiry_s = seconds,
                Property::ReceiveMaximum(count) => self.receive_maximum = count,
                Property::MaximumPacketSize(bytes) => self.max_packet_bytes = Some(bytes),
                Property::TopicAliasMaximum(alias) => self.topic_alias_maximum = alias,
                Property::RequestResponseInfo(byte) => self.wants_response_info = byte == 1,
                Property::RequestProblemInfo(byte) => self.wants_problem_info = byte == 1,
                Property::AuthMethod(method) => self.auth_method = Some(method),
                Property::AuthData(data) => self.auth_data = Some(data),
                _ => {}
            }
            Ok(())
        })?;
        self.user = UserProperties::new(section);
        if self.auth_data.is_some() && self.auth_method.is_none() {
            return Err(DecodeError::protocol("authentication data without a method"));
        }
        Ok(())
    }

    fn flags(&self) -> u8 {
        let set = |is_set: bool, bit: u8| if is_set { bit } else { 0 };
        let will = self.will.map_or(0, |will| {
            flag::WILL
                | will.qos.bits() << flag::WILL_QOS_SHIFT
                | set(will.retain, flag::WILL_RETAIN)
        });
        set(self.clean_start, flag::CLEAN_START)
            | will
            | set(self.password.is_some(), flag::PASSWORD)
            | set(self.user_name.is_some(), flag::USER_NAME)
    }
}

impl Body for Connect<'_> {
    fn write(&self, sink: &mut impl Sink) -> Result<(), EncodeError> {
        let name: &[u8] = if self.version == Version::V31 { b"MQIsdp" } else { b"MQTT" };
        sink.field(name)?;
        sink.u8(self.version as u8);
        sink.u8(self.flags());
        sink.u16(self.keep_alive_s);
        if self.version.is_v5() {
            write_properties(sink, &ConnectProperties(self))?;
        }
        sink.field(self.client_id.as_bytes())?;
        if let Some(will) = &self.will {
            if self.version.is_v5() {
                write_properties(sink, &WillProperties(will))?;
            }
            sink.field(will.topic.as_bytes())?;
            sink.field(will.payload)?;
        }
        if let Some(user_name) = self.user_name {
            sink.field(user_name.as_bytes())?;
        }
        self.password.map_or(Ok(()), |password| sink.field(password))
    }
}

struct ConnectProperties<'a>(&'a Connect<'a>);

impl Body for ConnectProperties<'_> {
    fn write(&self, sink: &mut impl Sink) -> Result<(), EncodeError> {
        let Self(connect) = self;
        let when = |is_set: bool, property| is_set.then_some(property);
        let fixed = [
            when(connect.session_expiry_s != 0, Property::SessionExpiry(connect.session_expiry_s)),
            when(
                connect.receive_maximum != u16::MAX,
                Property::ReceiveMaximum(connect.receive_maximum),
            ),
            connect.max_packet_bytes.map(Property::MaximumPacketSize),
            when(
                connect.topic_alias_maximum != 0,
                Property::TopicAliasMaximum(connect.topic_alias_maximum),
            ),
            when(connect.wants_response_info, Property::RequestResponseInfo(1)),
            when(!connect.wants_problem_info, Property::RequestProblemInfo(0)),
            connect.auth_method.map(Property::AuthMethod),
            connect.auth_data.map(Property::AuthData),
        ];
        fixed.into_iter().flatten().try_for_each(|property| property.write(sink))?;
        connect.user.write(sink)
    }
}

struct WillProperties<'a>(&'a Will<'a>);

impl Body for WillProperties<'_> {
    fn write(&self, sink: &mut impl Sink) -> Result<(), EncodeError> {
        let Self(will) = self;
        if will.delay_s != 0 {
            Property::WillDelay(will.delay_s).write(sink)?;
        }
        will.properties.write(sink)
    }
}
