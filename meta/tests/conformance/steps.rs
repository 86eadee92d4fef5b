//! Random transactions, and the model that they are compared with.

use std::collections::BTreeMap;

use bytes::Bytes;
use interflow_meta::{AtomicOp, KeyRange, MetaError, RangeOptions, Transaction};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::Bed;

/// What a store holds, by the names of the keys.
pub(super) type Map = BTreeMap<Vec<u8>, Bytes>;

/// One operation of a transaction, on keys by their names.
#[derive(Clone, Debug)]
pub(super) enum Step {
    Set(Vec<u8>, Vec<u8>),
    Clear(Vec<u8>),
    ClearRange(Vec<u8>, Vec<u8>),
    Atomic(AtomicOp, Vec<u8>, Vec<u8>),
    Get(Vec<u8>),
    Range { begin: Vec<u8>, end: Vec<u8>, options: RangeOptions },
}

/// What a step has read: names and values.
pub(super) type Seen = Vec<(Vec<u8>, Bytes)>;

/// The source of a run's random choices; tells its seed when the run fails.
pub(super) struct Seed {
    seed: u64,
    pub(super) random: StdRng,
}

impl Seed {
    /// `count` seeds that are always the same, or the one in `INTERFLOW_TEST_SEED`.
    pub(super) fn several(count: u64) -> impl Iterator<Item = Self> {
        let chosen = std::env::var("INTERFLOW_TEST_SEED").ok();
        let chosen = chosen.map(|seed| seed.parse().expect("INTERFLOW_TEST_SEED is a number"));
        let seeds = chosen.map_or(0..count, |seed: u64| seed..seed + 1);
        seeds.map(|seed| Self { seed, random: StdRng::seed_from_u64(seed) })
    }

    /// A few short keys, so that transactions meet.
    pub(super) fn name(&mut self) -> Vec<u8> {
        self.bytes()
    }

    fn bytes(&mut self) -> Vec<u8> {
        let len = self.random.random_range(0..4);
        (0..len).map(|_| self.random.random_range(0..3)).collect()
    }

    fn ends(&mut self) -> (Vec<u8>, Vec<u8>) {
        let (a, b) = (self.name(), self.name());
        (a.clone().min(b.clone()), a.max(b))
    }

    /// A step of any kind.
    pub(super) fn step(&mut self) -> Step {
        if self.random.random_range(0..13) < 8 { self.write() } else { self.read() }
    }

    /// A step that writes.
    pub(super) fn write(&mut self) -> Step {
        use AtomicOp::{
            Add, And, AppendIfFits, ByteMax, ByteMin, CompareAndClear, Max, Min, Or, Xor,
        };
        const OPS: [AtomicOp; 10] =
            [Add, And, AppendIfFits, ByteMax, ByteMin, CompareAndClear, Max, Min, Or, Xor];
        match self.random.random_range(0..8) {
            0..3 => Step::Set(self.name(), self.bytes()),
            3 => Step::Clear(self.name()),
            4 => {
                let (begin, end) = self.ends();
                Step::ClearRange(begin, end)
            }
            _ => {
                let op = OPS[self.random.random_range(0..OPS.len())];
                Step::Atomic(op, self.name(), self.bytes())
            }
        }
    }

    /// A step that reads.
    pub(super) fn read(&mut self) -> Step {
        if self.random.random_range(0..5) < 2 {
            return Step::Get(self.name());
        }
        let (begin, end) = self.ends();
        let options = RangeOptions {
            rows: self.random.random_range(1..6),
            bytes: self.random.random_range(1..300),
            reverse: self.random.random(),
            snapshot: false,
        };
        Step::Range { begin, end, options }
    }

    /// Up to `most` steps of any kind, at least one.
    pub(super) fn steps(&mut self, most: usize) -> Vec<Step> {
        let count = self.random.random_range(1..=most);
        (0..count).map(|_| self.step()).collect()
    }
}

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("failed with INTERFLOW_TEST_SEED={}", self.seed);
        }
    }
}

impl Step {
    /// It may change something.
    pub(super) fn is_write(&self) -> bool {
        match self {
            Self::Set(..) | Self::Clear(_) | Self::Atomic(..) => true,
            Self::ClearRange(begin, end) => begin < end,
            Self::Get(_) | Self::Range { .. } => false,
        }
    }

    /// Makes it in `tx`.
    pub(super) async fn run(&self, bed: &Bed, tx: &Transaction) -> Result<Seen, MetaError> {
        let mut seen = Seen::new();
        match self.clone() {
            Self::Set(key, value) => tx.set(bed.key(key), value)?,
            Self::Clear(key) => tx.clear(bed.key(key))?,
            Self::ClearRange(begin, end) => tx.clear_range(bed.range(begin, end))?,
            Self::Atomic(op, key, operand) => tx.atomic(op, bed.key(key), operand)?,
            Self::Get(key) => {
                let value = tx.get(&bed.key(&key)).await?;
                seen.extend(value.map(|value| (key, value)));
            }
            Self::Range { begin, end, options } => {
                seen = read_all(bed, tx, bed.range(begin, end), options).await?;
            }
        }
        Ok(seen)
    }

    /// Makes it in the model: what it must have read.
    pub(super) fn apply(&self, model: &mut Map) -> Seen {
        match self.clone() {
            Self::Set(key, value) => {
                model.insert(key, value.into());
            }
            Self::Clear(key) => {
                model.remove(&key);
            }
            Self::ClearRange(begin, end) => model.retain(|key, _| *key < begin || *key >= end),
            Self::Atomic(op, key, operand) => {
                match op.apply(model.get(&key), &operand.into()) {
                    Some(value) => model.insert(key, value),
                    None => model.remove(&key),
                };
            }
            Self::Get(key) => {
                let value = model.get(&key).cloned();
                return value.map(|value| (key, value)).into_iter().collect();
            }
            Self::Range { begin, end, options } => {
                let mut rows: Seen = model
                    .range(begin..end)
                    .map(|(key, value)| (key.clone(), value.clone()))
                    .collect();
                if options.reverse {
                    rows.reverse();
                }
                rows.truncate(options.rows);
                return rows;
            }
        }
        Seen::new()
    }
}

async fn read_all(
    bed: &Bed,
    tx: &Transaction,
    range: KeyRange,
    options: RangeOptions,
) -> Result<Seen, MetaError> {
    let prefix = bed.prefix_bytes();
    let mut scan = tx.scan(range, options);
    let mut seen = Seen::new();
    while let Some(page) = scan.next_page().await? {
        seen.extend(page.into_iter().map(|(key, value)| (key[prefix..].to_vec(), value)));
    }
    Ok(seen)
}

/// All rows whose names are made of the bytes that random keys are made of.
pub(super) async fn contents(bed: &Bed) -> Map {
    let tx = bed.meta.begin();
    let range = bed.range("", [3]);
    let rows = read_all(bed, &tx, range, RangeOptions::default()).await.unwrap();
    rows.into_iter().collect()
}
