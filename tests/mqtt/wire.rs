//! MQTT packets as bytes, written by hand: nothing here is shared with the broker, so a mistake of
//! its codec can't hide itself.

/// Property identifiers (MQTT 5.0, 2.2.2.2).
pub(crate) mod id {
    pub(crate) const PAYLOAD_FORMAT: u8 = 0x01;
    pub(crate) const MESSAGE_EXPIRY: u8 = 0x02;
    pub(crate) const CONTENT_TYPE: u8 = 0x03;
    pub(crate) const RESPONSE_TOPIC: u8 = 0x08;
    pub(crate) const CORRELATION: u8 = 0x09;
    pub(crate) const SUBSCRIPTION_ID: u8 = 0x0B;
    pub(crate) const SESSION_EXPIRY: u8 = 0x11;
    pub(crate) const ASSIGNED_ID: u8 = 0x12;
    pub(crate) const SERVER_KEEP_ALIVE: u8 = 0x13;
    pub(crate) const REQUEST_PROBLEM: u8 = 0x17;
    pub(crate) const WILL_DELAY: u8 = 0x18;
    pub(crate) const REQUEST_RESPONSE: u8 = 0x19;
    pub(crate) const RESPONSE_INFO: u8 = 0x1A;
    pub(crate) const REASON: u8 = 0x1F;
    pub(crate) const RECEIVE_MAX: u8 = 0x21;
    pub(crate) const ALIAS_MAX: u8 = 0x22;
    pub(crate) const ALIAS: u8 = 0x23;
    pub(crate) const MAX_QOS: u8 = 0x24;
    pub(crate) const RETAIN_AVAILABLE: u8 = 0x25;
    pub(crate) const USER: u8 = 0x26;
    pub(crate) const MAX_PACKET: u8 = 0x27;
    pub(crate) const WILDCARD_AVAILABLE: u8 = 0x28;
    pub(crate) const SUBSCRIPTION_ID_AVAILABLE: u8 = 0x29;
    pub(crate) const SHARED_AVAILABLE: u8 = 0x2A;
}

/// First bytes of packets, without the flags that a PUBLISH has.
pub(crate) const CONNECT: u8 = 0x10;
pub(crate) const CONNACK: u8 = 0x20;
pub(crate) const PUBLISH: u8 = 0x30;
pub(crate) const PUBACK: u8 = 0x40;
pub(crate) const PUBREC: u8 = 0x50;
pub(crate) const PUBREL: u8 = 0x62;
pub(crate) const PUBCOMP: u8 = 0x70;
pub(crate) const SUBSCRIBE: u8 = 0x82;
pub(crate) const SUBACK: u8 = 0x90;
pub(crate) const UNSUBSCRIBE: u8 = 0xA2;
pub(crate) const UNSUBACK: u8 = 0xB0;
pub(crate) const PINGREQ: u8 = 0xC0;
pub(crate) const PINGRESP: u8 = 0xD0;
pub(crate) const DISCONNECT: u8 = 0xE0;
pub(crate) const AUTH: u8 = 0xF0;

/// Bytes under construction.
#[derive(Clone, Default)]
pub(crate) struct Bytes(pub(crate) Vec<u8>);

impl Bytes {
    pub(crate) fn u8(mut self, value: u8) -> Self {
        self.0.push(value);
        self
    }
    pub(crate) fn u16(mut self, value: u16) -> Self {
        self.0.extend(value.to_be_bytes());
        self
    }
    pub(crate) fn u32(mut self, value: u32) -> Self {
        self.0.extend(value.to_be_bytes());
        self
    }
    pub(crate) fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend(bytes);
        self
    }
    /// A length of two bytes, then the bytes: strings and binary data alike.
    pub(crate) fn field(self, bytes: impl AsRef<[u8]>) -> Self {
        let bytes = bytes.as_ref();
        self.u16(u16::try_from(bytes.len()).unwrap()).raw(bytes)
    }
    pub(crate) fn varint(mut self, mut value: u32) -> Self {
        loop {
            let low = (value & 0x7F) as u8;
            value >>= 7;
            self.0.push(if value > 0 { low | 0x80 } else { low });
            if value == 0 {
                return self;
            }
        }
    }
    /// Properties with their length before them.
    pub(crate) fn props(self, props: &[Prop]) -> Self {
        let body = encode(props);
        self.varint(body.len() as u32).raw(&body)
    }
}

/// Starts a sequence of bytes.
pub(crate) fn bytes() -> Bytes {
    Bytes::default()
}

/// A packet: first byte, remaining length, body.
pub(crate) fn packet(first: u8, body: Bytes) -> Vec<u8> {
    bytes().u8(first).varint(body.0.len() as u32).raw(&body.0).0
}

/// One property.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Prop {
    Byte(u8, u8),
    Short(u8, u16),
    Long(u8, u32),
    Var(u8, u32),
    Text(u8, String),
    Data(u8, Vec<u8>),
    User(String, String),
}

pub(crate) fn user(name: &str, value: &str) -> Prop {
    Prop::User(name.to_owned(), value.to_owned())
}

pub(crate) fn text(id: u8, value: &str) -> Prop {
    Prop::Text(id, value.to_owned())
}

/// Properties without the length before them.
pub(crate) fn encode(props: &[Prop]) -> Vec<u8> {
    props
        .iter()
        .fold(bytes(), |out, prop| match prop {
            Prop::Byte(id, value) => out.u8(*id).u8(*value),
            Prop::Short(id, value) => out.u8(*id).u16(*value),
            Prop::Long(id, value) => out.u8(*id).u32(*value),
            Prop::Var(id, value) => out.u8(*id).varint(*value),
            Prop::Text(id, value) => out.u8(*id).field(value),
            Prop::Data(id, value) => out.u8(*id).field(value),
            Prop::User(name, value) => out.u8(id::USER).field(name).field(value),
        })
        .0
}

/// A cursor over received bytes; anything malformed fails the test.
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn take(&mut self, n: usize) -> &'a [u8] {
        let (head, tail) = self.0.split_at_checked(n).expect("the server's packet is too short");
        self.0 = tail;
        head
    }
    pub(crate) fn u8(&mut self) -> u8 {
        self.take(1)[0]
    }
    pub(crate) fn u16(&mut self) -> u16 {
        u16::from_be_bytes(self.take(2).try_into().unwrap())
    }
    pub(crate) fn u32(&mut self) -> u32 {
        u32::from_be_bytes(self.take(4).try_into().unwrap())
    }
    pub(crate) fn varint(&mut self) -> u32 {
        let mut value = 0;
        for shift in [0, 7, 14, 21] {
            let byte = self.u8();
            value |= u32::from(byte & 0x7F) << shift;
            if byte & 0x80 == 0 {
                return value;
            }
        }
        panic!("the server sent a varint of more than four bytes")
    }
    pub(crate) fn data(&mut self) -> Vec<u8> {
        let n = self.u16();
        self.take(n.into()).to_vec()
    }
    pub(crate) fn text(&mut self) -> String {
        String::from_utf8(self.data()).expect("the server sent a string that isn't UTF-8")
    }
    pub(crate) fn props(&mut self) -> Props {
        let n = self.varint() as usize;
        let mut inner = Reader(self.take(n));
        let mut found = Vec::new();
        while !inner.0.is_empty() {
            let id = inner.u8();
            found.push(match id {
                0x01 | 0x17 | 0x19 | 0x24 | 0x25 | 0x28 | 0x29 | 0x2A => Prop::Byte(id, inner.u8()),
                0x13 | 0x21 | 0x22 | 0x23 => Prop::Short(id, inner.u16()),
                0x02 | 0x11 | 0x18 | 0x27 => Prop::Long(id, inner.u32()),
                0x0B => Prop::Var(id, inner.varint()),
                0x03 | 0x08 | 0x12 | 0x15 | 0x1A | 0x1C | 0x1F => Prop::Text(id, inner.text()),
                0x09 | 0x16 => Prop::Data(id, inner.data()),
                0x26 => Prop::User(inner.text(), inner.text()),
                _ => panic!("the server sent an unknown property {id:#04x}"),
            });
        }
        Props(found)
    }
}

/// The properties of a received packet, in order.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Props(pub(crate) Vec<Prop>);

impl Props {
    /// All numbers under `id`, in order.
    pub(crate) fn numbers(&self, id: u8) -> Vec<u32> {
        let number = |prop: &Prop| match *prop {
            Prop::Byte(i, v) if i == id => Some(v.into()),
            Prop::Short(i, v) if i == id => Some(v.into()),
            Prop::Long(i, v) | Prop::Var(i, v) if i == id => Some(v),
            _ => None,
        };
        self.0.iter().filter_map(number).collect()
    }
    pub(crate) fn number(&self, id: u8) -> Option<u32> {
        self.numbers(id).first().copied()
    }
    pub(crate) fn text(&self, id: u8) -> Option<&str> {
        self.0.iter().find_map(|prop| match prop {
            Prop::Text(i, v) if *i == id => Some(v.as_str()),
            _ => None,
        })
    }
    pub(crate) fn data(&self, id: u8) -> Option<&[u8]> {
        self.0.iter().find_map(|prop| match prop {
            Prop::Data(i, v) if *i == id => Some(v.as_slice()),
            _ => None,
        })
    }
    pub(crate) fn user(&self) -> Vec<(&str, &str)> {
        let pair = |prop: &'_ Prop| matches!(prop, Prop::User(..));
        self.0
            .iter()
            .filter(|prop| pair(prop))
            .map(|prop| match prop {
                Prop::User(name, value) => (name.as_str(), value.as_str()),
                _ => unreachable!(),
            })
            .collect()
    }
}

/// A packet as it came.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Packet {
    pub(crate) first: u8,
    pub(crate) body: Vec<u8>,
}

/// PUBACK, PUBREC, PUBREL, PUBCOMP, SUBACK, UNSUBACK: a packet id and what follows it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Ack {
    pub(crate) id: u16,
    pub(crate) codes: Vec<u8>,
    pub(crate) props: Props,
}

impl Ack {
    /// The only reason code; success where the packet leaves it out.
    pub(crate) fn code(&self) -> u8 {
        match self.codes[..] {
            [] => 0,
            [code] => code,
            _ => panic!("several reason codes: {self:?}"),
        }
    }
}

/// A PUBLISH, either to send or as it came.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Publish {
    pub(crate) topic: String,
    pub(crate) payload: Vec<u8>,
    pub(crate) qos: u8,
    pub(crate) dup: bool,
    pub(crate) retain: bool,
    pub(crate) id: u16,
    pub(crate) props: Props,
}

impl Publish {
    pub(crate) fn new(topic: impl Into<String>, payload: impl AsRef<[u8]>, qos: u8) -> Publish {
        Publish {
            topic: topic.into(),
            payload: payload.as_ref().to_vec(),
            qos,
            id: u16::from(qos > 0),
            ..Publish::default()
        }
    }
    pub(crate) fn retain(mut self) -> Publish {
        self.retain = true;
        self
    }
    pub(crate) fn dup(mut self) -> Publish {
        self.dup = true;
        self
    }
    pub(crate) fn id(mut self, id: u16) -> Publish {
        self.id = id;
        self
    }
    pub(crate) fn prop(mut self, prop: Prop) -> Publish {
        self.props.0.push(prop);
        self
    }
    /// The payload as text.
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.payload).unwrap()
    }
    pub(crate) fn bytes(&self, version: u8) -> Vec<u8> {
        let flags = u8::from(self.dup) << 3 | self.qos << 1 | u8::from(self.retain);
        let mut body = bytes().field(&self.topic);
        if self.qos > 0 {
            body = body.u16(self.id);
        }
        if version == 5 {
            body = body.props(&self.props.0);
        }
        packet(PUBLISH | flags, body.raw(&self.payload))
    }
}

impl Packet {
    /// The packet type as its first byte with the flags that it usually has.
    pub(crate) fn kind(&self) -> u8 {
        match self.first & 0xF0 {
            PUBLISH => PUBLISH,
            0x60 => PUBREL,
            other => other,
        }
    }

    pub(crate) fn publish(&self, version: u8) -> Publish {
        assert_eq!(self.first & 0xF0, PUBLISH, "expected a PUBLISH, got {self:02x?}");
        let mut r = Reader(&self.body);
        let qos = self.first >> 1 & 3;
        let topic = r.text();
        let id = if qos > 0 { r.u16() } else { 0 };
        let props = if version == 5 { r.props() } else { Props::default() };
        Publish {
            topic,
            payload: r.0.to_vec(),
            qos,
            dup: self.first & 8 != 0,
            retain: self.first & 1 != 0,
            id,
            props,
        }
    }

    pub(crate) fn ack(&self, version: u8) -> Ack {
        let mut r = Reader(&self.body);
        let id = r.u16();
        let many = matches!(self.first, SUBACK | UNSUBACK);
        let mut codes = Vec::new();
        let mut props = Props::default();
        if many {
            if version == 5 {
                props = r.props();
            }
            codes = r.0.to_vec();
        } else if !r.0.is_empty() {
            assert_eq!(version, 5, "3.1.1 acknowledgements are two bytes: {self:02x?}");
            codes.push(r.u8());
            if !r.0.is_empty() {
                props = r.props();
                assert!(r.0.is_empty(), "bytes after the properties: {self:02x?}");
            }
        }
        Ack { id, codes, props }
    }

    /// Reason code and properties of a v5 DISCONNECT or AUTH.
    pub(crate) fn reason(&self) -> (u8, Props) {
        let mut r = Reader(&self.body);
        let code = if r.0.is_empty() { 0 } else { r.u8() };
        let props = if r.0.is_empty() { Props::default() } else { r.props() };
        (code, props)
    }

    /// Acknowledge flags, reason code, properties of a CONNACK.
    pub(crate) fn connack(&self, version: u8) -> (u8, u8, Props) {
        assert_eq!(self.first, CONNACK, "expected a CONNACK, got {self:02x?}");
        let mut r = Reader(&self.body);
        let (flags, code) = (r.u8(), r.u8());
        let props = if version == 5 { r.props() } else { Props::default() };
        assert!(r.0.is_empty(), "bytes after the CONNACK: {self:02x?}");
        (flags, code, props)
    }
}
