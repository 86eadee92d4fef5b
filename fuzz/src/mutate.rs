//! Makes new inputs of old ones, by a seed.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// Longest input, in bytes.
const MAX_LEN: usize = 8 << 10;

/// Bytes at which decoders change their minds.
const BYTES: [u8; 12] = [0, 1, 2, 3, 4, 0x0b, 0x26, 0x7f, 0x80, 0x81, 0xfe, 0xff];

/// Lengths and counts that are wrong in an interesting way, as they stand on the wire.
const LENGTHS: [&[u8]; 10] = [
    b"\xff\xff",
    b"\x00\x00",
    b"\x7f\xff\xff\xff",
    b"\xff\xff\xff\xff",
    b"\x80\x00\x00\x00",
    b"\xff\xff\xff\x7f",
    b"\xff\xff\xff\xff\x0f",
    b"\xfe\xff\xff\xff\x0f",
    b"\x80\x80\x80\x80\x08",
    b"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01",
];

/// Mutates seeds. The same seed gives the same inputs.
#[derive(Debug)]
pub(crate) struct Mutator {
    rng: StdRng,
    seeds: Vec<Vec<u8>>,
}

impl Mutator {
    pub(crate) fn new(seed: u64, mut seeds: Vec<Vec<u8>>) -> Self {
        seeds.push(Vec::new());
        Self { rng: StdRng::seed_from_u64(seed), seeds }
    }

    /// Writes the next input into `out`: a seed with a few changes, now and then only noise.
    pub(crate) fn next(&mut self, out: &mut Vec<u8>) {
        out.clear();
        if self.rng.random_range(0..50) == 0 {
            let len = self.rng.random_range(0..64);
            out.extend((0..len).map(|_| self.rng.random::<u8>()));
            return;
        }
        let chosen = self.rng.random_range(0..self.seeds.len());
        if let Some(seed) = self.seeds.get(chosen) {
            out.extend_from_slice(seed);
        }
        for _ in 0..=self.rng.random_range(0..6) {
            self.change(out);
        }
        out.truncate(MAX_LEN);
    }

    fn change(&mut self, out: &mut Vec<u8>) {
        let len = out.len();
        let at = self.rng.random_range(0..=len);
        match self.rng.random_range(0..8) {
            0 => self.set(out, at, |byte, rng| byte ^ 1 << rng.random_range(0..8)),
            1 => self.set(out, at, |_, rng| pick(rng, &BYTES)),
            2 => self.set(out, at, |byte, rng| {
                byte.wrapping_add(rng.random_range(0..9)).wrapping_sub(4)
            }),
            3 => out.truncate(at),
            4 => {
                let end = (at + self.rng.random_range(1..9)).min(len);
                out.drain(at..end);
            }
            5 => {
                let length = pick(&mut self.rng, &LENGTHS);
                let end = (at + length.len()).min(len);
                out.splice(at..end, length.iter().copied());
            }
            6 => {
                // A part again, or many times: counts that are right, and large.
                let end = (at + self.rng.random_range(1..17)).min(len);
                let part = out.get(at..end).unwrap_or_default().to_vec();
                let times = if self.rng.random_range(0..8) == 0 { 64 } else { 1 };
                out.splice(at..at, part.repeat(times));
            }
            _ => {
                // A part of another seed.
                let chosen = self.rng.random_range(0..self.seeds.len());
                let Some(other) = self.seeds.get(chosen) else { return };
                let start = self.rng.random_range(0..=other.len());
                let end = self.rng.random_range(start..=other.len());
                out.splice(at..at, other.get(start..end).unwrap_or_default().iter().copied());
            }
        }
    }

    fn set(&mut self, out: &mut [u8], at: usize, change: impl FnOnce(u8, &mut StdRng) -> u8) {
        if let Some(byte) = out.get_mut(at) {
            *byte = change(*byte, &mut self.rng);
        }
    }
}

fn pick<T: Copy>(rng: &mut StdRng, from: &[T]) -> T {
    from[rng.random_range(0..from.len())]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_inputs_and_another_seed_others() {
        let inputs = |seed| {
            let mut mutator = Mutator::new(seed, vec![b"hello".to_vec(), b"world".to_vec()]);
            (0..100)
                .map(|_| {
                    let mut input = Vec::new();
                    mutator.next(&mut input);
                    input
                })
                .collect::<Vec<_>>()
        };
        assert_eq!(inputs(1), inputs(1));
        assert_ne!(inputs(1), inputs(2));
    }
}
