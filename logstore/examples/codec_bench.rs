//! What protobuf costs for the messages that every append is in, next to a layout of fixed fields
//! written for them.
//!
//! `cargo run --release -p interflow-logstore --example codec_bench -- [rounds]`
//!
//! Each message is encoded into a buffer that is there and decoded from it, as for the wire: its
//! batch is copied once on the way out, and a slice on the way in. What is printed is the best of
//! some runs, in nanoseconds for a message there and back. The fixed layout is kept here only.

#![allow(clippy::disallowed_methods, reason = "a benchmark reads real clocks")]

use std::hint::black_box;
use std::time::Instant;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use interflow_proto::{log, peer};
use prost::Message;

type Failure = Box<dyn std::error::Error + Send + Sync>;

const RUNS: usize = 5;

/// The fields that all appends have, as they are fixed in length.
struct Fixed {
    number: u32,
    id: u64,
    kind: u8,
    producer_id: i64,
    producer_epoch: i16,
    sequence: i32,
    window: u16,
    count: u32,
    max_timestamp: i64,
    batch: Bytes,
}

const HEAD_BYTES: usize = 4 + 8 + 1 + 8 + 2 + 4 + 2 + 4 + 8 + 4;

impl Fixed {
    fn encode(&self, to: &mut BytesMut) {
        to.reserve(HEAD_BYTES + self.batch.len());
        to.put_u32_le(self.number);
        to.put_u64_le(self.id);
        to.put_u8(self.kind);
        to.put_i64_le(self.producer_id);
        to.put_i16_le(self.producer_epoch);
        to.put_i32_le(self.sequence);
        to.put_u16_le(self.window);
        to.put_u32_le(self.count);
        to.put_i64_le(self.max_timestamp);
        to.put_u32_le(u32::try_from(self.batch.len()).unwrap_or(u32::MAX));
        to.put_slice(&self.batch);
    }

    fn decode(mut from: Bytes) -> Option<Self> {
        if from.len() < HEAD_BYTES {
            return None;
        }
        let mut fixed = Self {
            number: from.get_u32_le(),
            id: from.get_u64_le(),
            kind: from.get_u8(),
            producer_id: from.get_i64_le(),
            producer_epoch: from.get_i16_le(),
            sequence: from.get_i32_le(),
            window: from.get_u16_le(),
            count: from.get_u32_le(),
            max_timestamp: from.get_i64_le(),
            batch: Bytes::new(),
        };
        let bytes = usize::try_from(from.get_u32_le()).ok()?;
        fixed.batch = (from.len() >= bytes).then(|| from.split_to(bytes))?;
        Some(fixed)
    }
}

/// The best time of a call, in nanoseconds.
fn time(rounds: u32, mut call: impl FnMut() -> Result<(), Failure>) -> Result<f64, Failure> {
    let mut best = f64::INFINITY;
    for _ in 0..RUNS {
        let began = Instant::now();
        for _ in 0..rounds {
            call()?;
        }
        best = best.min(began.elapsed().as_secs_f64() * 1e9 / f64::from(rounds));
    }
    Ok(best)
}

/// A message there and back by protobuf.
fn protobuf<M: Message + Default>(rounds: u32, message: &M) -> Result<f64, Failure> {
    let mut buffer = BytesMut::new();
    time(rounds, || {
        buffer.reserve(message.encoded_len());
        black_box(message).encode(&mut buffer)?;
        black_box(M::decode(buffer.split().freeze())?);
        Ok(())
    })
}

fn main() -> Result<(), Failure> {
    let rounds = std::env::args().nth(1).map_or(Ok(1_000_000), |word| word.parse())?;
    println!("{:<34} {:>9} {:>9}", "ns there and back", "protobuf", "fixed");
    for bytes in [100, 1024] {
        let batch = Bytes::from(vec![7; bytes]);
        let fixed = Fixed {
            number: 3,
            id: 1_000_000,
            kind: 0,
            producer_id: 70_000,
            producer_epoch: 1,
            sequence: 123_456,
            window: 5,
            count: 1,
            max_timestamp: 1_780_000_000_000,
            batch: batch.clone(),
        };
        let mut buffer = BytesMut::new();
        let by_hand = time(rounds, || {
            black_box(&fixed).encode(&mut buffer);
            black_box(Fixed::decode(buffer.split().freeze()).ok_or("too short")?);
            Ok(())
        })?;
        let put = log::Put {
            number: fixed.number,
            id: fixed.id,
            kind: 0,
            key: Some(log::AppendKey {
                producer_id: fixed.producer_id,
                producer_epoch: fixed.producer_epoch.into(),
                sequence: fixed.sequence,
            }),
            window: fixed.window.into(),
            count: fixed.count,
            max_timestamp: fixed.max_timestamp,
            digest: None,
            early: false,
            batch: batch.clone(),
        };
        let put = log::AppendRequest { kind: Some(log::append_request::Kind::Put(put)) };
        println!(
            "{:<34} {:>9.0} {by_hand:>9.0}",
            format!("append of {bytes} bytes"),
            protobuf(rounds, &put)?
        );
        let entry = peer::Entry {
            kind: 0,
            base_offset: fixed.id,
            count: fixed.count,
            max_timestamp: fixed.max_timestamp,
            key: Some(peer::Key {
                producer_id: fixed.producer_id,
                producer_epoch: fixed.producer_epoch.into(),
                sequence: fixed.sequence,
            }),
            window: fixed.window.into(),
            digest: None,
            payload: batch,
        };
        println!(
            "{:<34} {:>9.0} {by_hand:>9.0}",
            format!("replicated entry of {bytes} bytes"),
            protobuf(rounds, &entry)?
        );
    }
    let appended = log::Appended { base_offset: 1_000_000, log_start: 0, duplicate: false };
    let result = log::Result { id: 1_000_000, kind: Some(log::result::Kind::Appended(appended)) };
    let results = log::Results { results: vec![result] };
    let answer = log::AppendAnswer { kind: Some(log::append_answer::Kind::Results(results)) };
    let mut buffer = BytesMut::new();
    let by_hand = time(rounds, || {
        buffer.reserve(25);
        buffer.put_u64_le(black_box(1_000_000));
        buffer.put_u64_le(black_box(1_000_000));
        buffer.put_u64_le(black_box(0));
        buffer.put_u8(black_box(0));
        let mut from = buffer.split().freeze();
        black_box((from.get_u64_le(), from.get_u64_le(), from.get_u64_le(), from.get_u8()));
        Ok(())
    })?;
    println!("{:<34} {:>9.0} {by_hand:>9.0}", "answer to one append", protobuf(rounds, &answer)?);
    Ok(())
}
