//! DISCONNECT, of both sides.

use bytes::BytesMut;

use super::property::{Property, bit, read_properties, with_fewer_diagnostics, write_properties};
use super::reader::Reader;
use super::writer::{Body, Sink, packet};
use super::{
    DecodeError, Diagnostics, EncodeError, PacketKind, Reason, Receiver, UserProperties, Version,
};

/// The last packet of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disconnect<'a> {
    /// Why. Before MQTT 5 always [`Reason::Success`].
    pub reason: Reason,
    /// A client's new session expiry, in seconds. Servers never send it [MQTT-3.14.2-2].
    pub session_expiry_s: Option<u32>,
    /// A server's hint where to go instead.
    pub server_reference: Option<&'a str>,
    /// More about the reason.
    pub diagnostics: Diagnostics<'a>,
}

impl<'a> Disconnect<'a> {
    /// A DISCONNECT with a reason only.
    pub fn new(reason: Reason) -> Self {
        Self {
            reason,
            session_expiry_s: None,
            server_reference: None,
            diagnostics: Diagnostics::default(),
        }
    }

    /// A DISCONNECT for a broken rule.
    pub fn for_error(error: &DecodeError) -> Self {
        Self { diagnostics: Diagnostics::reason(error.what), ..Self::new(error.reason) }
    }

    pub(crate) fn decode(
        version: Version,
        body: &'a [u8],
        from_server: bool,
    ) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body);
        let mut disconnect = Self::new(Reason::Success);
        if version.is_v5() && !reader.is_empty() {
            disconnect.reason = Reason::from_code(reader.u8()?)
                .filter(|reason| may_say(from_server, *reason))
                .ok_or(DecodeError::protocol(
                    "a reason code that this side cannot disconnect with",
                ))?;
            if !reader.is_empty() {
                disconnect.read_properties(&mut reader, from_server)?;
            }
        }
        reader.end()?;
        Ok(disconnect)
    }

    fn read_properties(
        &mut self,
        reader: &mut Reader<'a>,
        from_server: bool,
    ) -> Result<(), DecodeError> {
        const ALLOWED: u64 =
            bit::SessionExpiry | bit::ServerReference | bit::ReasonString | bit::User;
        let section = read_properties(reader, ALLOWED, bit::User, |property| {
            match property {
                Property::SessionExpiry(_) if from_server => {
                    return Err(DecodeError::protocol("a session expiry from the server"));
                }
                Property::ServerReference(_) if !from_server => {
                    return Err(DecodeError::protocol("a server reference from a client"));
                }
                Property::SessionExpiry(seconds) => self.session_expiry_s = Some(seconds),
                Property::ServerReference(server) => self.server_reference = Some(server),
                other => self.diagnostics.take(other),
            }
            Ok(())
        })?;
        self.diagnostics.user = UserProperties::new(section);
        Ok(())
    }

    /// Appends it to `out`, without diagnostics where `receiver` can't take them. Goes to MQTT 5
    /// receivers only: for others nothing is written from a server (E5). A client's own is
    /// [`super::client::encode_disconnect`].
    ///
    /// # Errors
    /// [`EncodeError::TooLarge`] for a receiver that takes nothing so large.
    pub fn encode(&self, receiver: &Receiver, out: &mut BytesMut) -> Result<(), EncodeError> {
        if !receiver.version.is_v5() {
            return Ok(());
        }
        // DISCONNECT may carry diagnostics whatever Request Problem Information says.
        with_fewer_diagnostics(self.diagnostics, true, |diagnostics| {
            let body = Self { diagnostics, ..*self };
            packet(out, receiver, PacketKind::Disconnect.first_byte(), &body)
        })
    }

    fn has_properties(&self) -> bool {
        self.session_expiry_s.is_some()
            || self.server_reference.is_some()
            || !self.diagnostics.is_empty()
    }
}

fn may_say(from_server: bool, reason: Reason) -> bool {
    use Reason::*;
    match reason {
        Success
        | UnspecifiedError
        | MalformedPacket
        | ProtocolError
        | ImplementationSpecificError
        | TopicNameInvalid
        | ReceiveMaximumExceeded
        | TopicAliasInvalid
        | PacketTooLarge
        | MessageRateTooHigh
        | QuotaExceeded
        | AdministrativeAction
        | PayloadFormatInvalid => true,
        DisconnectWithWill => !from_server,
        NotAuthorized
        | ServerBusy
        | ServerShuttingDown
        | KeepAliveTimeout
        | SessionTakenOver
        | TopicFilterInvalid
        | RetainNotSupported
        | QoSNotSupported
        | UseAnotherServer
        | ServerMoved
        | SharedSubscriptionsNotSupported
        | ConnectionRateExceeded
        | MaximumConnectTime
        | SubscriptionIdsNotSupported
        | WildcardSubscriptionsNotSupported => from_server,
        _ => false,
    }
}

impl Body for Disconnect<'_> {
    fn write(&self, sink: &mut impl Sink) -> Result<(), EncodeError> {
        if self.reason == Reason::Success && !self.has_properties() {
            return Ok(());
        }
        sink.u8(self.reason.code());
        if self.has_properties() {
            write_properties(sink, &DisconnectProperties(self))
        } else {
            Ok(())
        }
    }
}

struct DisconnectProperties<'a>(&'a Disconnect<'a>);

impl Body for DisconnectProperties<'_> {
    fn write(&self, sink: &mut impl Sink) -> Result<(), EncodeError> {
        let Self(disconnect) = self;
        let fixed = [
            disconnect.session_expiry_s.map(Property::SessionExpiry),
            disconnect.server_reference.map(Property::ServerReference),
        ];
        fixed.into_iter().flatten().try_for_each(|property| property.write(sink))?;
        disconnect.diagnostics.write(sink)
    }
}
