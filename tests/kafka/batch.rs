//! Record batches (version 2), written and read by hand: nothing here is shared with the broker.

/// One record.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Record {
    pub(crate) offset: i64,
    pub(crate) timestamp: i64,
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) value: Option<Vec<u8>>,
    pub(crate) headers: Vec<(String, Option<Vec<u8>>)>,
}

impl Record {
    pub(crate) fn new(key: &str, value: &str) -> Record {
        Record { key: Some(key.into()), value: Some(value.into()), ..Record::default() }
    }
    pub(crate) fn header(mut self, name: &str, value: &[u8]) -> Record {
        self.headers.push((name.to_owned(), Some(value.to_vec())));
        self
    }
    pub(crate) fn at(mut self, timestamp: i64) -> Record {
        self.timestamp = timestamp;
        self
    }
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(self.value.as_ref().unwrap()).unwrap()
    }
    /// The first header of this name.
    pub(crate) fn header_text(&self, name: &str) -> Option<&str> {
        let (_, value) = self.headers.iter().find(|(found, _)| found == name)?;
        Some(std::str::from_utf8(value.as_ref()?).unwrap())
    }
}

/// A batch under construction.
#[derive(Clone, Debug)]
pub(crate) struct Batch {
    pub(crate) records: Vec<Record>,
    pub(crate) magic: u8,
    pub(crate) attributes: i16,
    pub(crate) producer: (i64, i16, i32),
    pub(crate) count: Option<i32>,
    pub(crate) last_delta: Option<i32>,
    pub(crate) gzip: bool,
}

/// A batch of records with this key and these values.
pub(crate) fn batch(key: &str, values: &[&str]) -> Batch {
    Batch::of(values.iter().map(|value| Record::new(key, value)).collect())
}

impl Batch {
    pub(crate) fn of(records: Vec<Record>) -> Batch {
        let producer = (-1, -1, -1);
        let gzip = false;
        Batch { records, magic: 2, attributes: 0, producer, count: None, last_delta: None, gzip }
    }

    pub(crate) fn producer(mut self, id: i64, epoch: i16, sequence: i32) -> Batch {
        self.producer = (id, epoch, sequence);
        self
    }

    pub(crate) fn gzip(mut self) -> Batch {
        self.gzip = true;
        self.attributes |= 1;
        self
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let base = self.records.iter().map(|r| r.timestamp).min().unwrap_or(0);
        let max = self.records.iter().map(|r| r.timestamp).max().unwrap_or(0);
        let count = self.records.len() as i32;
        let mut body = Vec::new();
        for (delta, record) in self.records.iter().enumerate() {
            let mut one = vec![0];
            zigzag(&mut one, record.timestamp - base);
            zigzag(&mut one, delta as i64);
            field(&mut one, record.key.as_deref());
            field(&mut one, record.value.as_deref());
            zigzag(&mut one, record.headers.len() as i64);
            for (name, value) in &record.headers {
                field(&mut one, Some(name.as_bytes()));
                field(&mut one, value.as_deref());
            }
            zigzag(&mut body, one.len() as i64);
            body.extend(one);
        }
        if self.gzip {
            body = stored_gzip(&body);
        }
        let mut checked = Vec::new();
        checked.extend(self.attributes.to_be_bytes());
        checked.extend(self.last_delta.unwrap_or(count - 1).to_be_bytes());
        checked.extend(base.to_be_bytes());
        checked.extend(max.to_be_bytes());
        checked.extend(self.producer.0.to_be_bytes());
        checked.extend(self.producer.1.to_be_bytes());
        checked.extend(self.producer.2.to_be_bytes());
        checked.extend(self.count.unwrap_or(count).to_be_bytes());
        checked.extend(body);
        let mut out = Vec::new();
        out.extend(0i64.to_be_bytes());
        out.extend((checked.len() as i32 + 9).to_be_bytes());
        out.extend((-1i32).to_be_bytes());
        out.push(self.magic);
        out.extend(crc(&checked, 0x82F6_3B78).to_be_bytes());
        out.extend(checked);
        out
    }
}

/// The records of all batches in a fetched set; a batch that was cut at the end is left out.
pub(crate) fn records(mut data: &[u8]) -> Vec<Record> {
    let mut out = Vec::new();
    while data.len() >= 61 {
        let length = 12 + i32::from_be_bytes(data[8..12].try_into().unwrap()) as usize;
        if data.len() < length {
            break;
        }
        let (one, rest) = data.split_at(length);
        data = rest;
        let at64 = |at: usize| i64::from_be_bytes(one[at..at + 8].try_into().unwrap());
        assert_eq!(one[16], 2, "magic");
        assert_eq!(crc(&one[21..], 0x82F6_3B78).to_be_bytes(), one[17..21], "CRC-32C");
        let attributes = i16::from_be_bytes(one[21..23].try_into().unwrap());
        let unpacked = match attributes & 7 {
            0 => one[61..].to_vec(),
            1 => unstored_gzip(&one[61..]).to_vec(),
            other => panic!("codec {other}"),
        };
        let (offset, base, max) = (at64(0), at64(27), at64(35));
        let count = i32::from_be_bytes(one[57..61].try_into().unwrap());
        let mut body = &unpacked[..];
        for _ in 0..count {
            let _length = unzigzag(&mut body);
            body = &body[1..];
            let timestamp = base + unzigzag(&mut body);
            let timestamp = if attributes & 8 != 0 { max } else { timestamp };
            let offset = offset + unzigzag(&mut body);
            let (key, value) = (read_field(&mut body), read_field(&mut body));
            let headers = (0..unzigzag(&mut body))
                .map(|_| {
                    let name = String::from_utf8(read_field(&mut body).unwrap()).unwrap();
                    (name, read_field(&mut body))
                })
                .collect();
            out.push(Record { offset, timestamp, key, value, headers });
        }
        assert!(body.is_empty(), "bytes behind the last record");
    }
    out
}

/// Base offset and leader epoch set to what they were before the broker patched them.
pub(crate) fn unpatched(data: &[u8]) -> Vec<u8> {
    let mut data = data.to_vec();
    data[..8].copy_from_slice(&0i64.to_be_bytes());
    data[12..16].copy_from_slice(&(-1i32).to_be_bytes());
    data
}

fn zigzag(out: &mut Vec<u8>, value: i64) {
    let mut value = (value << 1 ^ value >> 63) as u64;
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn unzigzag(data: &mut &[u8]) -> i64 {
    let (mut value, mut shift) = (0u64, 0);
    loop {
        let byte = data[0];
        *data = &data[1..];
        value |= u64::from(byte & 0x7F) << shift;
        shift += 7;
        if byte < 0x80 {
            return (value >> 1) as i64 ^ -((value & 1) as i64);
        }
    }
}

fn field(out: &mut Vec<u8>, value: Option<&[u8]>) {
    zigzag(out, value.map_or(-1, |value| value.len() as i64));
    out.extend(value.unwrap_or_default());
}

fn read_field(data: &mut &[u8]) -> Option<Vec<u8>> {
    let n = usize::try_from(unzigzag(data)).ok()?;
    let (value, rest) = data.split_at(n);
    *data = rest;
    Some(value.to_vec())
}

/// CRC-32 with the reflected polynomial given: 0x82F63B78 is Castagnoli's.
fn crc(data: &[u8], polynomial: u32) -> u32 {
    !data.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            crc >> 1 ^ (polynomial & (crc & 1).wrapping_neg())
        })
    })
}

/// A gzip member whose one block is stored.
fn stored_gzip(data: &[u8]) -> Vec<u8> {
    let n = u16::try_from(data.len()).unwrap();
    let mut out = vec![0x1F, 0x8B, 8, 0, 0, 0, 0, 0, 0, 255, 1];
    out.extend(n.to_le_bytes());
    out.extend((!n).to_le_bytes());
    out.extend(data);
    out.extend(crc(data, 0xEDB8_8320).to_le_bytes());
    out.extend(u32::from(n).to_le_bytes());
    out
}

/// What [`stored_gzip`] packed.
fn unstored_gzip(data: &[u8]) -> &[u8] {
    let n = usize::from(u16::from_le_bytes([data[11], data[12]]));
    &data[15..15 + n]
}
