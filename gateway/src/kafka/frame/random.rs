//! Random request bodies, for tests.

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::ApiKey;
use proptest::prelude::Rng as _;
use proptest::test_runner::TestRng;

use super::schema::{self, Field, Kind};

/// Writes a random value of a kind, as the schema has it.
struct Writer<'a> {
    version: i16,
    flexible: bool,
    rng: &'a mut TestRng,
    out: BytesMut,
}

impl Writer<'_> {
    fn below(&mut self, n: u64) -> u64 {
        self.rng.next_u64() % n
    }

    fn unsigned(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.out.put_u8(value as u8 | 0x80);
            value >>= 7;
        }
        self.out.put_u8(value as u8);
    }

    fn len(&mut self, len: Option<usize>, is_str: bool) {
        match (len, self.flexible) {
            (len, true) => self.unsigned(len.map_or(0, |len| len as u64 + 1)),
            (len, false) if is_str => self.out.put_i16(len.map_or(-1, |len| len as i16)),
            (len, false) => self.out.put_i32(len.map_or(-1, |len| len as i32)),
        }
    }

    fn slice(&mut self, is_str: bool, nullable: bool) {
        let len = (!nullable || self.below(4) > 0).then(|| self.below(200) as usize);
        self.len(len, is_str);
        for _ in 0..len.unwrap_or(0) {
            let byte = self.below(if is_str { 128 } else { 256 });
            self.out.put_u8(byte as u8);
        }
    }

    fn value(&mut self, kind: &Kind) {
        match kind {
            // A boolean must be 0 or 1; a byte may be.
            Kind::Fixed(1) => {
                let value = self.below(2) as u8;
                self.out.put_u8(value);
            }
            Kind::Fixed(len) => {
                for _ in 0..*len {
                    let byte = self.below(256) as u8;
                    self.out.put_u8(byte);
                }
            }
            Kind::Str => self.slice(true, false),
            Kind::NullableStr => self.slice(true, true),
            Kind::Bytes => self.slice(false, false),
            Kind::NullableBytes => self.slice(false, true),
            Kind::Array(element) => self.array(element, false),
            Kind::NullableArray(element) => self.array(element, true),
            Kind::Struct(fields) => {
                for field in *fields {
                    let has = field.since <= self.version && self.version <= field.until;
                    if field.tag.is_none() && has {
                        self.value(&field.kind);
                    }
                }
                if self.flexible {
                    self.tags(fields);
                }
            }
        }
    }

    fn array(&mut self, element: &Kind, nullable: bool) {
        let count = (!nullable || self.below(4) > 0).then(|| self.below(4) as usize);
        self.len(count, false);
        for _ in 0..count.unwrap_or(0) {
            self.value(element);
        }
    }

    fn tags(&mut self, fields: &'static [Field]) {
        let mut chosen = Vec::new();
        for field in fields {
            let has = field.since <= self.version && self.version <= field.until;
            if let Some(tag) = field.tag
                && has
                && self.below(2) == 0
            {
                chosen.push((tag, &field.kind));
            }
        }
        let unknown = self.below(2) as usize;
        self.unsigned((chosen.len() + unknown) as u64);
        for (tag, kind) in chosen {
            self.unsigned(u64::from(tag));
            let rest = self.out.split();
            self.value(kind);
            let content = std::mem::replace(&mut self.out, rest);
            self.unsigned(content.len() as u64);
            self.out.put_slice(&content);
        }
        for _ in 0..unknown {
            self.unsigned(1000);
            self.unsigned(3);
            self.out.put_slice(b"abc");
        }
    }
}

/// A body of `api` and `version`, with random content, as its schema has it.
pub(crate) fn random_body(api: ApiKey, version: i16, rng: &mut TestRng) -> Bytes {
    let schema = schema::of(api).unwrap();
    let flexible = version >= schema.flexible_since;
    let mut writer = Writer { version, flexible, rng, out: BytesMut::new() };
    writer.value(&schema.body);
    writer.out.freeze()
}

/// The same random numbers in each run.
pub(crate) fn rng() -> TestRng {
    TestRng::deterministic_rng(proptest::test_runner::RngAlgorithm::ChaCha)
}
