//! Built batches against kafka-protocol's decoder, broken ones against the rules.

use std::io::Write;

use bytes::{Bytes, BytesMut};
use kafka_protocol::records::RecordBatchDecoder;
use proptest::prelude::*;

use super::*;

type OwnedHeaders = Vec<(Vec<u8>, Option<Vec<u8>>)>;

#[derive(Clone, Debug)]
struct Rec {
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: OwnedHeaders,
    timestamp: i64,
}

const RULES: BatchRules = BatchRules {
    max_bytes: 1 << 20,
    timestamp_type: TimestampType::CreateTime,
    before_max_ms: i64::MAX,
    after_max_ms: 3_600_000,
};
const NOW: i64 = 1_900_000_000_000;

fn records() -> impl Strategy<Value = Vec<Rec>> {
    let bytes = || proptest::collection::vec(any::<u8>(), 0..200);
    let headers = proptest::collection::vec(("[a-c]{0,3}", proptest::option::of(bytes())), 0..4)
        .prop_map(|h| h.into_iter().map(|(name, value)| (name.into_bytes(), value)).collect());
    let record = (proptest::option::of(bytes()), proptest::option::of(bytes()), headers, 0..NOW)
        .prop_map(|(key, value, headers, timestamp)| Rec { key, value, headers, timestamp });
    proptest::collection::vec(record, 1..20)
}

fn build(records: &[Rec]) -> BuiltBatch {
    let mut builder = BatchBuilder::new();
    for r in records {
        let headers = r.headers.iter().map(|(n, v)| (n.as_slice(), v.as_deref()));
        builder.append(r.key.as_deref(), r.value.as_deref(), headers, r.timestamp).unwrap();
    }
    builder.finish().unwrap()
}

fn simple() -> BuiltBatch {
    let record = |n: u8| Rec {
        key: Some(vec![n; 3]),
        value: Some(vec![n; 50]),
        headers: vec![],
        timestamp: NOW + i64::from(n),
    };
    build(&(0..10).map(record).collect::<Vec<_>>())
}

/// The batch with its records compressed and its header made good.
fn compressed(batch: &BuiltBatch, kind: u8, compress: impl Fn(&[u8]) -> Vec<u8>) -> Bytes {
    let payload = compress(&batch.bytes[BatchHeader::LEN..]);
    let mut out = BytesMut::from(&batch.bytes[..BatchHeader::LEN]);
    out.extend_from_slice(&payload);
    out[22] |= kind;
    fix(out)
}

/// Sets length and CRC.
fn fix(mut batch: BytesMut) -> Bytes {
    let length = (batch.len() - 12) as i32;
    batch[8..12].copy_from_slice(&length.to_be_bytes());
    let crc = crc32c::crc32c(&batch[21..]);
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
    batch.freeze()
}

fn patched(batch: &Bytes, at: usize, field: &[u8]) -> Bytes {
    let mut batch = BytesMut::from(&batch[..]);
    batch[at..at + field.len()].copy_from_slice(field);
    fix(batch)
}

fn read_all(batch: &Bytes) -> Vec<Rec> {
    let open = OpenBatch::open(batch, 1 << 20).unwrap();
    let mut all = Vec::new();
    for (n, record) in open.records().enumerate() {
        let r = record.unwrap();
        assert_eq!(r.offset_delta, n as u32);
        all.push(Rec {
            key: r.key.map(<[u8]>::to_vec),
            value: r.value.map(<[u8]>::to_vec),
            headers: r.headers.map(|(n, v)| (n.to_vec(), v.map(<[u8]>::to_vec))).collect(),
            timestamp: r.timestamp,
        });
    }
    all
}

proptest! {
    #[test]
    fn built_batches_are_valid_and_read_back(records in records()) {
        let batch = build(&records);
        let header = validate(&batch.bytes, &RULES, NOW).unwrap();
        prop_assert_eq!(header.count as usize, records.len());
        prop_assert_eq!(header.max_timestamp, records.iter().map(|r| r.timestamp).max().unwrap());
        prop_assert_eq!(batch.max_timestamp, header.max_timestamp);
        prop_assert_eq!(format!("{:?}", read_all(&batch.bytes)), format!("{records:?}"));
    }

    #[test]
    fn kafka_protocol_reads_what_was_built(mut records in records()) {
        for record in &mut records {
            // Its map of headers keeps one of each name.
            let mut seen = std::collections::HashSet::new();
            record.headers.retain(|(name, _)| seen.insert(name.clone()));
        }
        let mut bytes = build(&records).bytes;
        let set = RecordBatchDecoder::decode(&mut bytes).unwrap();
        prop_assert_eq!(set.records.len(), records.len());
        for (n, (theirs, ours)) in set.records.iter().zip(&records).enumerate() {
            prop_assert_eq!(theirs.offset, n as i64);
            prop_assert_eq!(theirs.timestamp, ours.timestamp);
            prop_assert_eq!(theirs.key.as_deref(), ours.key.as_deref());
            prop_assert_eq!(theirs.value.as_deref(), ours.value.as_deref());
            let headers: OwnedHeaders = theirs.headers.iter()
                .map(|(n, v)| (n.as_bytes().to_vec(), v.as_ref().map(|v| v.to_vec())))
                .collect();
            prop_assert_eq!(&headers, &ours.headers);
        }
    }

    #[test]
    fn mutated_batches_never_panic(
        records in records(),
        flips in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..8),
        compress in 0..5_u8,
    ) {
        let batch = build(&records);
        let bytes = match compress {
            0 => batch.bytes,
            1 => compressed(&batch, 1, gzip),
            2 => compressed(&batch, 2, snappy_raw),
            3 => compressed(&batch, 3, lz4),
            _ => compressed(&batch, 4, zstd_),
        };
        let mut bytes = bytes.to_vec();
        for (at, value) in flips {
            *at.get_mut(&mut bytes) = value;
        }
        fuzz_batch(&bytes);
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    out.write_all(bytes).unwrap();
    out.finish().unwrap()
}

fn snappy_raw(bytes: &[u8]) -> Vec<u8> {
    snap::raw::Encoder::new().compress_vec(bytes).unwrap()
}

fn snappy_xerial(bytes: &[u8]) -> Vec<u8> {
    let mut out = b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01".to_vec();
    for chunk in bytes.chunks(100) {
        let block = snappy_raw(chunk);
        out.extend((block.len() as u32).to_be_bytes());
        out.extend(block);
    }
    out
}

fn lz4(bytes: &[u8]) -> Vec<u8> {
    let mut out = lz4_flex::frame::FrameEncoder::new(Vec::new());
    out.write_all(bytes).unwrap();
    out.finish().unwrap()
}

fn zstd_(bytes: &[u8]) -> Vec<u8> {
    zstd::stream::encode_all(bytes, 3).unwrap()
}

/// With the largest window there is.
fn zstd_ultra(bytes: &[u8]) -> Vec<u8> {
    zstd::stream::encode_all(bytes, 22).unwrap()
}

#[test]
fn compressed_batches_read_as_plain_ones() {
    let batch = simple();
    let plain = format!("{:?}", read_all(&batch.bytes));
    type Codec = fn(&[u8]) -> Vec<u8>;
    let codecs: [(u8, Codec); 6] =
        [(1, gzip), (2, snappy_raw), (2, snappy_xerial), (3, lz4), (4, zstd_), (4, zstd_ultra)];
    for (kind, codec) in codecs {
        let bytes = compressed(&batch, kind, codec);
        validate(&bytes, &RULES, NOW).unwrap();
        assert_eq!(format!("{:?}", read_all(&bytes)), plain, "codec {kind}");
    }
}

#[test]
fn decompression_is_bounded() {
    let zeros = vec![0_u8; 10 << 20];
    for (kind, bomb) in [
        (Compression::Gzip, gzip(&zeros)),
        (Compression::Snappy, snappy_raw(&zeros)),
        (Compression::Snappy, snappy_xerial(&zeros)),
        (Compression::Lz4, lz4(&zeros)),
        (Compression::Zstd, zstd_(&zeros)),
    ] {
        let error = decompress(kind, &bomb, 1 << 20).unwrap_err();
        assert!(matches!(error, DecompressError::TooLarge { .. }), "{kind:?}: {error}");
        assert_eq!(decompress(kind, &bomb, 10 << 20).unwrap().len(), 10 << 20);
    }
    // A raw block that claims 4 GiB in 70 bytes is not believed.
    let mut liar = vec![0xff, 0xff, 0xff, 0xff, 0x0f];
    liar.resize(70, 0);
    let error = decompress(Compression::Snappy, &liar, usize::MAX).unwrap_err();
    assert!(matches!(error, DecompressError::Malformed(_)));
}

#[test]
fn duplicate_and_null_headers_are_kept_in_order() {
    let headers: OwnedHeaders = vec![
        (b"b".to_vec(), Some(b"1".to_vec())),
        (b"a".to_vec(), None),
        (b"b".to_vec(), Some(vec![])),
    ];
    let record = Rec { key: Some(vec![]), value: None, headers, timestamp: 5 };
    let batch = build(std::slice::from_ref(&record));
    assert_eq!(format!("{:?}", read_all(&batch.bytes)), format!("[{record:?}]"));
}

#[test]
fn each_rule_of_k4_has_its_error() {
    let good = simple().bytes;
    let check = |bytes: &[u8]| validate(bytes, &RULES, NOW).map(|_| ());
    assert_eq!(check(&good), Ok(()));
    assert_eq!(check(&good[..60]), Err(BatchError::Length));
    assert_eq!(check(&good[..good.len() - 1]), Err(BatchError::Length));
    assert_eq!(check(&[&good[..], &good[..]].concat()), Err(BatchError::SeveralBatches));
    let mut flipped = good.to_vec();
    flipped[100] ^= 1;
    assert_eq!(check(&flipped), Err(BatchError::Crc));
    for magic in [0, 1, 3] {
        let bytes = patched(&good, 16, &[magic]);
        assert_eq!(check(&bytes), Err(BatchError::Magic(magic as i8)));
    }
    assert_eq!(check(&patched(&good, 57, &0_i32.to_be_bytes())), Err(BatchError::Count));
    assert_eq!(check(&patched(&good, 57, &(-1_i32).to_be_bytes())), Err(BatchError::Count));
    assert_eq!(check(&patched(&good, 57, &9_i32.to_be_bytes())), Err(BatchError::Count));
    assert_eq!(check(&patched(&good, 23, &10_i32.to_be_bytes())), Err(BatchError::Count));
    let many = patched(&good, 57, &1_000_000_i32.to_be_bytes());
    let many = patched(&many, 23, &999_999_i32.to_be_bytes());
    assert_eq!(check(&many), Err(BatchError::Count));
    assert_eq!(check(&patched(&good, 22, &[5])), Err(BatchError::UnknownCompression(5)));
    assert_eq!(check(&patched(&good, 22, &[0x20])), Err(BatchError::BrokerOnly));
    assert_eq!(check(&patched(&good, 22, &[0x40])), Err(BatchError::BrokerOnly));
    assert_eq!(check(&patched(&good, 22, &[0x10])), Err(BatchError::Producer));
    assert_eq!(check(&patched(&good, 43, &7_i64.to_be_bytes())), Err(BatchError::Producer));
    assert_eq!(check(&patched(&good, 22, &[0x08])), Err(BatchError::Timestamp));
    let late = (NOW + 3_700_000).to_be_bytes();
    assert_eq!(check(&patched(&good, 35, &late)), Err(BatchError::Timestamp));
    assert_eq!(check(&patched(&good, 27, &(-2_i64).to_be_bytes())), Err(BatchError::Timestamp));
    let small = BatchRules { max_bytes: good.len() - 1, ..RULES };
    let too_large = BatchError::TooLarge { bytes: good.len(), max_bytes: good.len() - 1 };
    assert_eq!(validate(&good, &small, NOW), Err(too_large));
    let recent = BatchRules { before_max_ms: 1000, ..RULES };
    assert!(validate(&good, &recent, NOW + 1000).is_ok());
    assert_eq!(validate(&good, &recent, NOW + 1011), Err(BatchError::Timestamp));
}

proptest! {
    /// K4: what isn't decoded on arrival may lie; whoever reads it later gets sound records at their
    /// own offsets, then one error at most.
    #[test]
    fn a_compressed_batch_that_lies_about_its_records_shifts_nothing(
        count in prop_oneof![-2_i32..14, Just(i32::MAX)],
        last_delta in prop_oneof![-2_i32..14, Just(i32::MAX - 1)],
    ) {
        let honest = compressed(&simple(), 1, gzip);
        let lying = patched(&honest, 57, &count.to_be_bytes());
        let lying = patched(&lying, 23, &last_delta.to_be_bytes());
        let agrees = count >= 1 && last_delta == count - 1;
        let expected = if agrees { Ok(()) } else { Err(BatchError::Count) };
        prop_assert_eq!(validate(&lying, &RULES, NOW).map(|_| ()), expected);
        let open = OpenBatch::open(&lying, 1 << 20).unwrap();
        let results: Vec<_> = open.records().collect();
        let sound = results.iter().take_while(|result| result.is_ok()).count();
        for (offset, record) in results.iter().take(sound).flatten().enumerate() {
            prop_assert_eq!(record.offset_delta as usize, offset);
            prop_assert_eq!(record.key, Some(&[offset as u8; 3][..]));
        }
        prop_assert_eq!(sound as i32, 10.min(count.max(0)).min(last_delta.max(-1) + 1));
        let is_true = count == 10 && last_delta >= 9;
        prop_assert_eq!(results.len(), sound + usize::from(!is_true));
    }
}

#[test]
fn log_append_time_changes_only_what_it_must() {
    let batch = simple().bytes;
    let set = set_log_append_time(batch.clone(), NOW + 77).unwrap();
    let header = BatchHeader::parse(&set).unwrap();
    assert_eq!(header.timestamp_type(), TimestampType::LogAppendTime);
    assert_eq!(header.max_timestamp, NOW + 77);
    assert_eq!(header.crc, crc32c::crc32c(&set[BatchHeader::CRC_FROM..]));
    assert_eq!(set[43..], batch[43..]);
    assert_eq!(set[23..35], batch[23..35]);
    assert!(read_all(&set).iter().all(|record| record.timestamp == NOW + 77));
}

#[test]
fn records_are_strict() {
    let good = simple().bytes;
    let errs = |bytes: &Bytes| {
        let open = OpenBatch::open(bytes, 1 << 20).unwrap();
        let results: Vec<_> = open.records().collect();
        assert!(results.iter().rev().skip(1).all(Result::is_ok));
        results.last().unwrap().is_err()
    };
    assert!(!errs(&good));
    assert!(errs(&patched(&good, 57, &9_i32.to_be_bytes())), "trailing records");
    assert!(errs(&patched(&good, 57, &11_i32.to_be_bytes())), "missing records");
    assert!(errs(&patched(&good, 23, &8_i32.to_be_bytes())), "a delta past the last");
    assert!(errs(&patched(&good, 61, &[0x01])), "a negative length");
}

#[test]
fn a_builder_starts_again_after_finish() {
    let mut builder = BatchBuilder::with_capacity(100);
    assert_eq!(builder.finish(), None);
    builder.set_producer(7, 2, 40);
    builder.append(None, Some(b"a"), std::iter::empty(), 10).unwrap();
    let first = builder.finish().unwrap();
    let header = BatchHeader::parse(&first.bytes).unwrap();
    assert_eq!((header.producer_id, header.producer_epoch, header.base_sequence), (7, 2, 40));
    builder.append(None, Some(b"a"), std::iter::empty(), 20).unwrap();
    builder.append(None, Some(b"a"), std::iter::empty(), 15).unwrap();
    let second = builder.finish().unwrap();
    let header = BatchHeader::parse(&second.bytes).unwrap();
    assert_eq!((header.producer_id, header.count), (-1, 2));
    assert_eq!((header.base_timestamp, header.max_timestamp), (20, 20));
    assert!(builder.is_empty());
}
