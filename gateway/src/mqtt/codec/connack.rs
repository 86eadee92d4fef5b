//! CONNACK.

use bytes::BytesMut;

use super::property::{Property, bit, read_properties, with_fewer_diagnostics, write_properties};
use super::reader::Reader;
use super::writer::{Body, Sink, packet};
use super::{
    DecodeError, Diagnostics, EncodeError, PacketKind, QoS, Reason, Receiver, UserProperties,
    Version,
};

/// The answer to CONNECT. Fields at their defaults are left out of the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnAck<'a> {
    /// The session was there already. Never with an error [MQTT-3.2.2-6].
    pub session_present: bool,
    /// How it went.
    pub reason: Reason,
    /// The session expiry that the server uses instead of the client's, in seconds.
    pub session_expiry_s: Option<u32>,
    /// QoS 1 and 2 PUBLISHes that the server takes unacknowledged.
    pub receive_maximum: u16,
    /// The highest QoS that the server takes.
    pub maximum_qos: QoS,
    /// Retained messages are served.
    pub retain_available: bool,
    /// The largest packet that the server takes, in bytes; `None` without limit.
    pub max_packet_bytes: Option<u32>,
    /// The client identifier that the server chose.
    pub assigned_client_id: Option<&'a str>,
    /// The highest topic alias that the server takes.
    pub topic_alias_maximum: u16,
    /// Wildcard subscriptions are served.
    pub wildcard_available: bool,
    /// Subscription identifiers are served.
    pub subscription_ids_available: bool,
    /// Shared subscriptions are served.
    pub shared_available: bool,
    /// The keep-alive that the client must use instead of its own, in seconds.
    pub server_keep_alive_s: Option<u16>,
    /// The basis for response topics.
    pub response_info: Option<&'a str>,
    /// Where to go instead.
    pub server_reference: Option<&'a str>,
    /// Authentication Method.
    pub auth_method: Option<&'a str>,
    /// Authentication Data.
    pub auth_data: Option<&'a [u8]>,
    /// More about the reason.
    pub diagnostics: Diagnostics<'a>,
}

impl<'a> ConnAck<'a> {
    /// A CONNACK with a reason only.
    pub fn new(reason: Reason) -> Self {
        Self {
            session_present: false,
            reason,
            session_expiry_s: None,
            receive_maximum: u16::MAX,
            maximum_qos: QoS::ExactlyOnce,
            retain_available: true,
            max_packet_bytes: None,
            assigned_client_id: None,
            topic_alias_maximum: 0,
            wildcard_available: true,
            subscription_ids_available: true,
            shared_available: true,
            server_keep_alive_s: None,
            response_info: None,
            server_reference: None,
            auth_method: None,
            auth_data: None,
            diagnostics: Diagnostics::default(),
        }
    }

    /// Appends it to `out`: reasons become return codes before MQTT 5.
    ///
    /// # Errors
    /// [`EncodeError::TooLarge`] for a receiver that takes nothing so large.
    pub fn encode(&self, receiver: &Receiver, out: &mut BytesMut) -> Result<(), EncodeError> {
        let first = PacketKind::ConnAck.first_byte();
        if !receiver.version.is_v5() {
            // 3.1 has no Session Present flag: its byte is reserved.
            let session_present = self.has_session() && receiver.version == Version::V311;
            let body = [u8::from(session_present), self.reason.connack_v3()];
            out.extend_from_slice(&[first, 2]);
            out.extend_from_slice(&body);
            return Ok(());
        }
        // CONNACK may carry diagnostics whatever Request Problem Information says.
        with_fewer_diagnostics(self.diagnostics, true, |diagnostics| {
            packet(out, receiver, first, &Self { diagnostics, ..*self })
        })
    }

    fn has_session(&self) -> bool {
        self.session_present && !self.reason.is_error()
    }

    pub(crate) fn decode(version: Version, body: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body);
        let flags = reader.u8()?;
        let code = reader.u8()?;
        if version.is_v5() {
            let reason =
                Reason::from_code(code).ok_or(DecodeError::protocol("an unknown reason code"))?;
            let mut connack = Self::new(reason);
            connack.session_present = session_present(flags)?;
            connack.read_properties(&mut reader)?;
            reader.end()?;
            return Ok(connack);
        }
        reader.end()?;
        let reason = match code {
            0 => Reason::Success,
            1 => Reason::UnsupportedProtocolVersion,
            2 => Reason::ClientIdNotValid,
            3 => Reason::ServerUnavailable,
            4 => Reason::BadUserNameOrPassword,
            5 => Reason::NotAuthorized,
            _ => return Err(DecodeError::malformed("an unknown return code")),
        };
        let session_present = version == Version::V311 && session_present(flags)?;
        Ok(Self { session_present, ..Self::new(reason) })
    }

    fn read_properties(&mut self, reader: &mut Reader<'a>) -> Result<(), DecodeError> {
        const ALLOWED: u64 = bit::SessionExpiry
            | bit::ReceiveMaximum
            | bit::MaximumQoS
            | bit::RetainAvailable
            | bit::MaximumPacketSize
            | bit::AssignedClientId
            | bit::TopicAliasMaximum
            | bit::ReasonString
            | bit::User
            | bit::WildcardAvailable
            | bit::SubscriptionIdAvailable
            | bit::SharedAvailable
            | bit::ServerKeepAlive
            | bit::ResponseInfo
            | bit::ServerReference
            | bit::AuthMethod
            | bit::AuthData;
        let section = read_properties(reader, ALLOWED, bit::User, |property| {
            match property {
                Property::SessionExpiry(seconds) => self.session_expiry_s = Some(seconds),
                Property::ReceiveMaximum(count) => self.receive_maximum = count,
                Property::MaximumQoS(byte) => {
                    self.maximum_qos = if byte == 0 { QoS::AtMostOnce } else { QoS::AtLeastOnce };
                }
                Property::RetainAvailable(byte) => self.retain_available = byte == 1,
                Property::MaximumPacketSize(bytes) => self.max_packet_bytes = Some(bytes),
                Property::AssignedClientId(id) => self.assigned_client_id = Some(id),
                Property::TopicAliasMaximum(alias) => self.topic_alias_maximum = alias,
                Property::WildcardAvailable(byte) => self.wildcard_available = byte == 1,
                Property::SubscriptionIdAvailable(byte) => {
                    self.subscription_ids_available = byte == 1;
                }
                Property::SharedAvailable(byte) => self.shared_available = byte == 1,
                Property::ServerKeepAlive(seconds) => self.server_keep_alive_s = Some(seconds),
                Property::ResponseInfo(text) => self.response_info = Some(text),
                Property::ServerReference(text) => self.server_reference = Some(text),
                Property::AuthMethod(method) => self.auth_method = Some(method),
                Property::AuthData(data) => self.auth_data = Some(data),
                other => self.diagnostics.take(other),
            }
            Ok(())
        })?;
        self.diagnostics.user = UserProperties::new(section);
        Ok(())
    }
}

fn session_present(flags: u8) -> Result<bool, DecodeError> {
    if flags > 1 {
        return Err(DecodeError::malformed("reserved flags of CONNACK"));
    }
    Ok(flags == 1)
}

impl Body for ConnAck<'_> {
    fn write(&self, sink: &mut impl Sink) -> Result<(), EncodeError> {
        sink.u8(u8::from(self.has_session()));
        sink.u8(self.reason.code());
        write_properties(sink, &ConnAckProperties(self))
    }
}

struct ConnAckProperties<'a>(&'a ConnAck<'a>);

impl Body for ConnAckProperties<'_> {
    fn write(&self, sink: &mut impl Sink) -> Result<(), EncodeError> {
        let Self(connack) = self;
        let when = |is_set: bool, property| is_set.then_some(property);
        let fixed = [
            connack.session_expiry_s.map(Property::SessionExpiry),
            when(
                connack.receive_maximum != u16::MAX,
                Property::ReceiveMaximum(connack.receive_maximum),
            ),
            when(
                connack.maximum_qos != QoS::ExactlyOnce,
                Property::MaximumQoS(connack.maximum_qos.bits()),
            ),
            when(!connack.retain_available, Property::RetainAvailable(0)),
            connack.max_packet_bytes.map(Property::MaximumPacketSize),
            connack.assigned_client_id.map(Property::AssignedClientId),
            when(
                connack.topic_alias_maximum != 0,
                Property::TopicAliasMaximum(connack.topic_alias_maximum),
            ),
            when(!connack.wildcard_available, Property::WildcardAvailable(0)),
            when(!connack.subscription_ids_available, Property::SubscriptionIdAvailable(0)),
            when(!connack.shared_available, Property::SharedAvailable(0)),
            connack.server_keep_alive_s.map(Property::ServerKeepAlive),
            connack.response_info.map(Property::ResponseInfo),
            connack.server_reference.map(Property::ServerReference),
            connack.auth_method.map(Property::AuthMethod),
            connack.auth_data.map(Property::AuthData),
        ];
        fixed.into_iter().flatten().try_for_each(|property| property.write(sink))?;
        connack.diagnostics.write(sink)
    }
}
