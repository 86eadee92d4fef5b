//! AUTH: enhanced authentication (§3.15).

use bytes::BytesMut;

use super::property::{Property, bit, read_properties, with_fewer_diagnostics, write_properties};
use super::reader::Reader;
use super::writer::{Body, Sink, packet};
use super::{DecodeError, Diagnostics, EncodeError, PacketKind, Reason, Receiver, UserProperties};

/// One step of an enhanced authentication.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Auth<'a> {
    /// Success, continue or re-authenticate.
    pub reason: Reason,
    /// Present unless the packet is the two-byte form.
    pub method: Option<&'a str>,
    /// Any bytes.
    pub data: Option<&'a [u8]>,
    /// More about the reason.
    pub diagnostics: Diagnostics<'a>,
}

impl<'a> Auth<'a> {
    pub(crate) fn decode(body: &'a [u8]) -> Result<Self, DecodeError> {
        const ALLOWED: u64 = bit::AuthMethod | bit::AuthData | bit::ReasonString | bit::User;
        let mut reader = Reader::new(body);
        let mut auth = Self {
            reason: Reason::Success,
            method: None,
            data: None,
            diagnostics: Diagnostics::default(),
        };
        if reader.is_empty() {
            return Ok(auth);
        }
        auth.reason = match Reason::from_code(reader.u8()?) {
            Some(
                reason
                @ (Reason::Success | Reason::ContinueAuthentication | Reason::ReAuthenticate),
            ) => reason,
            _ => return Err(DecodeError::protocol("a reason code that AUTH cannot carry")),
        };
        let section = read_properties(&mut reader, ALLOWED, bit::User, |property| {
            match property {
                Property::AuthMethod(method) => auth.method = Some(method),
                Property::AuthData(data) => auth.data = Some(data),
                other => auth.diagnostics.take(other),
            }
            Ok(())
        })?;
        auth.diagnostics.user = UserProperties::new(section);
        reader.end()?;
        if auth.method.is_none() {
            return Err(DecodeError::protocol("an AUTH without a method"));
        }
        Ok(auth)
    }

    /// Appends it to `out`, without diagnostics where `receiver` can't take them.
    ///
    /// # Errors
    /// [`EncodeError::TooLarge`] for a receiver that takes nothing so large.
    pub fn encode(&self, receiver: &Receiver, out: &mut BytesMut) -> Result<(), EncodeError> {
        with_fewer_diagnostics(self.diagnostics, receiver.wants_problem_info, |diagnostics| {
            let body = Self { diagnostics, ..*self };
            packet(out, receiver, PacketKind::Auth.first_byte(), &body)
        })
    }
}

impl Body for Auth<'_> {
    fn write(&self, sink: &mut impl Sink) -> Result<(), EncodeError> {
        sink.u8(self.reason.code());
        write_properties(sink, &AuthProperties(self))
    }
}

struct AuthProperties<'a>(&'a Auth<'a>);

impl Body for AuthProperties<'_> {
    fn write(&self, sink: &mut impl Sink) -> Result<(), EncodeError> {
        let Self(auth) = self;
        let fixed = [auth.method.map(Property::AuthMethod), auth.data.map(Property::AuthData)];
        fixed.into_iter().flatten().try_for_each(|property| property.write(sink))?;
        auth.diagnostics.write(sink)
    }
}
