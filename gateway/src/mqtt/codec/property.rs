//! Properties of MQTT 5 (§2.2.2): one table of ids and types, and which packet may carry which.

use super::reader::Reader;
use super::writer::{Body, Sink, check_field, measure};
use super::{DecodeError, EncodeError, Reason};

macro_rules! properties {
    ($($name:ident = $id:literal $kind:ident,)*) => {
        /// One property.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Property<'a> {
            $($name(properties!(@type $kind 'a)),)*
        }

        /// Property ids as bits of a set.
        #[expect(non_upper_case_globals, reason = "named as the properties are")]
        pub(crate) mod bit {
            $(pub(crate) const $name: u64 = 1 << $id;)*
        }

        impl<'a> Property<'a> {
            fn read(id: u8, reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
                match id {
                    $($id => Ok(Property::$name(properties!(@read $kind reader))),)*
                    _ => Err(DecodeError::malformed("an unknown property")),
                }
            }

            /// Writes it with its id.
            pub(crate) fn write(&self, sink: &mut impl Sink) -> Result<(), EncodeError> {
                match *self {
                    $(Property::$name(value) => {
                        sink.u8($id);
                        properties!(@write $kind sink value);
                    })*
                }
                Ok(())
            }
        }
    };
    (@type Byte $lt:lifetime) => { u8 };
    (@type Two $lt:lifetime) => { u16 };
    (@type Four $lt:lifetime) => { u32 };
    (@type Var $lt:lifetime) => { u32 };
    (@type Text $lt:lifetime) => { &$lt str };
    (@type Blob $lt:lifetime) => { &$lt [u8] };
    (@type Pair $lt:lifetime) => { (&$lt str, &$lt str) };
    (@read Byte $reader:ident) => { $reader.u8()? };
    (@read Two $reader:ident) => { $reader.u16()? };
    (@read Four $reader:ident) => { $reader.u32()? };
    (@read Var $reader:ident) => { $reader.varint()? };
    (@read Text $reader:ident) => { $reader.string()? };
    (@read Blob $reader:ident) => { $reader.binary()? };
    (@read Pair $reader:ident) => { ($reader.string()?, $reader.string()?) };
    (@write Byte $sink:ident $value:ident) => { $sink.u8($value) };
    (@write Two $sink:ident $value:ident) => { $sink.u16($value) };
    (@write Four $sink:ident $value:ident) => { $sink.u32($value) };
    (@write Var $sink:ident $value:ident) => { $sink.varint($value) };
    (@write Text $sink:ident $value:ident) => { $sink.field($value.as_bytes())? };
    (@write Blob $sink:ident $value:ident) => { $sink.field($value)? };
    (@write Pair $sink:ident $value:ident) => {
        { $sink.field($value.0.as_bytes())?; $sink.field($value.1.as_bytes())? }
    };
}

properties! {
    PayloadFormat = 1 Byte,
    MessageExpiry = 2 Four,
    ContentType = 3 Text,
    ResponseTopic = 8 Text,
    CorrelationData = 9 Blob,
    SubscriptionId = 11 Var,
    SessionExpiry = 17 Four,
    AssignedClientId = 18 Text,
    ServerKeepAlive = 19 Two,
    AuthMethod = 21 Text,
    AuthData = 22 Blob,
    RequestProblemInfo = 23 Byte,
    WillDelay = 24 Four,
    RequestResponseInfo = 25 Byte,
    ResponseInfo = 26 Text,
    ServerReference = 28 Text,
    ReasonString = 31 Text,
    ReceiveMaximum = 33 Two,
    TopicAliasMaximum = 34 Two,
    TopicAlias = 35 Two,
    MaximumQoS = 36 Byte,
    RetainAvailable = 37 Byte,
    User = 38 Pair,
    MaximumPacketSize = 39 Four,
    WildcardAvailable = 40 Byte,
    SubscriptionIdAvailable = 41 Byte,
    SharedAvailable = 42 Byte,
}

impl Property<'_> {
    /// Refuses values that are errors wherever the property stands.
    fn check(&self) -> Result<(), DecodeError> {
        match *self {
            Property::TopicAlias(0) => {
                Err(DecodeError::new(Reason::TopicAliasInvalid, "topic alias 0"))
            }
            Property::ReceiveMaximum(0) => Err(DecodeError::protocol("receive maximum 0")),
            Property::MaximumPacketSize(0) => Err(DecodeError::protocol("maximum packet size 0")),
            Property::SubscriptionId(0) => Err(DecodeError::protocol("subscription identifier 0")),
            Property::PayloadFormat(2..)
            | Property::RequestProblemInfo(2..)
            | Property::RequestResponseInfo(2..)
            | Property::MaximumQoS(2..)
            | Property::RetainAvailable(2..)
            | Property::WildcardAvailable(2..)
            | Property::SubscriptionIdAvailable(2..)
            | Property::SharedAvailable(2..) => {
                Err(DecodeError::protocol("a property that must be 0 or 1"))
            }
            _ => Ok(()),
        }
    }
}

/// Reads a property section and gives each property to `each`, in order. Returns its bytes.
///
/// `allowed` is the set of ids that the packet may carry, `repeated` those that may come twice.
pub(crate) fn read_properties<'a>(
    reader: &mut Reader<'a>,
    allowed: u64,
    repeated: u64,
    mut each: impl FnMut(Property<'a>) -> Result<(), DecodeError>,
) -> Result<&'a [u8], DecodeError> {
    let len = reader.varint()?;
    let section = reader.take(len as usize)?;
    let mut reader = Reader::new(section);
    let mut seen = 0_u64;
    while !reader.is_empty() {
        let id = reader.u8()?;
        let property = Property::read(id, &mut reader)?;
        // `read` knows no id over 42.
        let bit = 1_u64 << id;
        if bit & allowed == 0 {
            return Err(DecodeError::malformed("a property that this packet cannot carry"));
        }
        if bit & seen & !repeated != 0 {
            return Err(DecodeError::protocol("a property that may come only once comes twice"));
        }
        seen |= bit;
        property.check()?;
        each(property)?;
    }
    Ok(section)
}

/// Writes a property section with its length.
pub(crate) fn write_properties(
    sink: &mut impl Sink,
    properties: &impl Body,
) -> Result<(), EncodeError> {
    sink.varint(measure(|count| properties.write(count))?);
    properties.write(sink)
}

/// Goes through a property section that [`read_properties`] or this module's writers passed.
pub(crate) fn each_property(section: &[u8]) -> impl Iterator<Item = Property<'_>> {
    let mut reader = Reader::new(section);
    std::iter::from_fn(move || {
        let id = reader.u8().ok()?;
        Property::read(id, &mut reader).ok()
    })
}

/// What a payload is, if its publisher said so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum PayloadFormat {
    /// Unspecified bytes.
    Bytes = 0,
    /// UTF-8 text.
    Utf8 = 1,
}

impl PayloadFormat {
    pub(crate) fn from_byte(byte: u8) -> Self {
        if byte == 0 { PayloadFormat::Bytes } else { PayloadFormat::Utf8 }
    }
}

/// User properties, in their order and with their repeats, read from the packet's own bytes.
#[derive(Clone, Copy, Default)]
pub struct UserProperties<'a> {
    section: &'a [u8],
}

impl<'a> UserProperties<'a> {
    /// `section` holds them among other properties, and was checked.
    pub(crate) fn new(section: &'a [u8]) -> Self {
        Self { section }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }

    /// Names and values.
    pub fn iter(&self) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
        each_property(self.section).filter_map(|property| match property {
            Property::User(pair) => Some(pair),
            _ => None,
        })
    }

    pub(crate) fn write(&self, sink: &mut impl Sink) -> Result<(), EncodeError> {
        self.iter().try_for_each(|pair| Property::User(pair).write(sink))
    }
}

impl PartialEq for UserProperties<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for UserProperties<'_> {}

impl std::fmt::Debug for UserProperties<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// User properties to be sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserPropertiesBuf {
    section: Vec<u8>,
}

impl UserPropertiesBuf {
    /// Adds one.
    ///
    /// # Errors
    /// A name or value over 65,535 bytes, or with U+0000, can't be sent: nothing is added.
    pub fn push(&mut self, name: &str, value: &str) -> Result<(), EncodeError> {
        check_field(name.as_bytes())?;
        check_field(value.as_bytes())?;
        if name.contains('\0') || value.contains('\0') {
            return Err(EncodeError::NulInString);
        }
        Property::User((name, value)).write(&mut self.section)
    }

    /// Empties it and keeps its memory.
    pub fn clear(&mut self) {
        self.section.clear();
    }

    /// A view of all.
    pub fn view(&self) -> UserProperties<'_> {
        UserProperties::new(&self.section)
    }
}

/// What acknowledgements and DISCONNECT can say besides the reason code. All of it is left out
/// rather than sent to a receiver that doesn't want it or can't take it [MQTT-3.1.2-29,
/// MQTT-3.4.2-2].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Diagnostics<'a> {
    /// For people to read.
    pub reason_string: Option<&'a str>,
    /// Anything.
    pub user: UserProperties<'a>,
}

impl<'a> Diagnostics<'a> {
    /// Takes up `property`, if it is one of these.
    pub(crate) fn take(&mut self, property: Property<'a>) {
        if let Property::ReasonString(text) = property {
            self.reason_string = Some(text);
        }
    }

    /// With a reason string only.
    pub fn reason(text: &'a str) -> Self {
        Self { reason_string: Some(text), user: UserProperties::default() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.reason_string.is_none() && self.user.is_empty()
    }

    pub(crate) fn write(&self, sink: &mut impl Sink) -> Result<(), EncodeError> {
        if let Some(text) = self.reason_string {
            Property::ReasonString(text).write(sink)?;
        }
        self.user.write(sink)
    }
}

/// Writes a packet by `attempt` with ever fewer diagnostics until it fits.
pub(crate) fn with_fewer_diagnostics<'a>(
    diagnostics: Diagnostics<'a>,
    wanted: bool,
    mut attempt: impl FnMut(Diagnostics<'a>) -> Result<(), EncodeError>,
) -> Result<(), EncodeError> {
    let none = Diagnostics::default();
    if !wanted || diagnostics.is_empty() {
        return attempt(none);
    }
    let text_only = Diagnostics { user: UserProperties::default(), ..diagnostics };
    attempt(diagnostics).or_else(|_| attempt(text_only)).or_else(|_| attempt(none))
}
