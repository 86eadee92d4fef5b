//! Writes over a file, in memory: the file isn't touched.

use std::collections::BTreeMap;
use std::io;

/// What a write is kept in.
const BLOCK: u64 = 4_096;
const BLOCK_BYTES: usize = 4_096;

/// Blocks that differ from the file's, and the file's length as it would be.
#[derive(Debug, Default)]
pub(super) struct Overlay {
    blocks: BTreeMap<u64, Box<[u8; BLOCK_BYTES]>>,
    len: u64,
    /// The file's own bytes count up to here.
    below_len: u64,
}

impl Overlay {
    /// Nothing is written yet over a file of `len` bytes.
    pub(super) fn new(len: u64) -> Self {
        Self { blocks: BTreeMap::new(), len, below_len: len }
    }

    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Cuts, or grows with zeros.
    pub(super) fn set_len(&mut self, len: u64) {
        self.len = len;
        self.below_len = self.below_len.min(len);
        self.blocks.split_off(&len.div_ceil(BLOCK));
        if let Some(block) = self.blocks.get_mut(&(len / BLOCK)) {
            let kept = usize::try_from(len % BLOCK).unwrap_or(0);
            block.iter_mut().skip(kept).for_each(|byte| *byte = 0);
        }
    }

    /// Fills `out` from `offset`; what was never written comes from `below`.
    pub(super) fn read(
        &self,
        offset: u64,
        out: &mut [u8],
        below: impl Fn(u64, &mut [u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        let end = offset.saturating_add(out.len() as u64);
        if end > self.len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let from_file =
            usize::try_from(self.below_len.saturating_sub(offset)).unwrap_or(usize::MAX);
        let (file, rest) = out.split_at_mut(from_file.min(out.len()));
        if !file.is_empty() {
            below(offset, file)?;
        }
        rest.fill(0);
        for (number, block) in self.blocks.range(offset / BLOCK..end.div_ceil(BLOCK)) {
            let begin = number * BLOCK;
            let (from, to) = (begin.max(offset), (begin + BLOCK).min(end));
            copy(&mut out[..], from - offset, &block[..], from - begin, to - from);
        }
        Ok(())
    }

    /// Keeps `data` at `offset`.
    pub(super) fn write(
        &mut self,
        offset: u64,
        data: &[u8],
        below: impl Fn(u64, &mut [u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        let end = offset.saturating_add(data.len() as u64);
        if end > self.len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        for number in offset / BLOCK..end.div_ceil(BLOCK) {
            let begin = number * BLOCK;
            let (from, to) = (begin.max(offset), (begin + BLOCK).min(end));
            if !self.blocks.contains_key(&number) {
                let mut block = Box::new([0; BLOCK_BYTES]);
                if to - from < BLOCK {
                    let there = usize::try_from(self.len.min(begin + BLOCK) - begin).unwrap_or(0);
                    let there = block.get_mut(..there).unwrap_or_default();
                    self.read(begin, there, &below)?;
                }
                self.blocks.insert(number, block);
            }
            if let Some(block) = self.blocks.get_mut(&number) {
                copy(&mut block[..], from - begin, data, from - offset, to - from);
            }
        }
        Ok(())
    }
}

/// Copies `len` bytes, as far as both sides have them.
fn copy(to: &mut [u8], to_at: u64, from: &[u8], from_at: u64, len: u64) {
    let at = |at: u64| usize::try_from(at).unwrap_or(usize::MAX);
    let to = to.get_mut(at(to_at)..).unwrap_or_default();
    let from = from.get(at(from_at)..).unwrap_or_default();
    for (to, from) in to.iter_mut().zip(from).take(at(len)) {
        *to = *from;
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    use super::*;

    /// The overlay over a file reads as if all had been written to it.
    #[test]
    fn it_reads_as_a_file_that_was_written_to() {
        for seed in 0..50 {
            let mut random = StdRng::seed_from_u64(seed);
            let file: Vec<u8> = (0..random.random_range(0..20_000)).map(|n| n as u8).collect();
            let below = |at: u64, out: &mut [u8]| {
                let at = at as usize;
                out.copy_from_slice(file.get(at..at + out.len()).ok_or(io::ErrorKind::Other)?);
                Ok(())
            };
            let mut expected = file.clone();
            let mut overlay = Overlay::new(file.len() as u64);
            for round in 0..60_u8 {
                if random.random_range(0..6) == 0 {
                    let len = random.random_range(0..30_000);
                    expected.resize(len, 0);
                    overlay.set_len(len as u64);
                } else if !expected.is_empty() {
                    let from = random.random_range(0..expected.len());
                    let to = random.random_range(from..=expected.len());
                    expected[from..to].fill(round);
                    overlay.write(from as u64, &vec![round; to - from], below).unwrap();
                }
                assert_eq!(overlay.len(), expected.len() as u64);
                let from = random.random_range(0..=expected.len());
                let mut found = vec![0xEE; expected.len() - from];
                overlay.read(from as u64, &mut found, below).unwrap();
                assert_eq!(found, expected[from..], "seed {seed}, round {round}");
                let mut beyond = vec![0; found.len() + 1];
                assert!(overlay.read(from as u64, &mut beyond, below).is_err());
            }
        }
    }
}
