//! One file of the fault disk: what is seen, what is synced, and what lies between.

use std::io;
use std::ops::Range;

use rand::RngExt;
use rand::rngs::StdRng;

#[derive(Default)]
pub(super) struct Inode {
    live: Vec<u8>,
    synced: Vec<u8>,
    unsynced: Vec<Change>,
    /// Errors of writing back so far, and how many of them somebody was told of.
    errors: u64,
    errors_told: u64,
    unreadable: Vec<Range<u64>>,
}

/// What becomes of a write that was not synced.
#[derive(Clone, Copy)]
pub(super) enum Survival {
    /// All, nothing, or some sectors.
    Any,
    /// Some sectors of so many bytes.
    Torn(u64),
}

enum Change {
    Write(u64, Vec<u8>),
    Length(usize),
}

impl Inode {
    pub(super) fn live(&self) -> &[u8] {
        &self.live
    }

    pub(super) fn write(&mut self, bytes: Vec<u8>, position: u64) {
        put(&mut self.live, &bytes, position);
        self.unsynced.push(Change::Write(position, bytes));
    }

    pub(super) fn set_unreadable(&mut self, ranges: Vec<Range<u64>>) {
        self.unreadable = ranges;
    }

    pub(super) fn check_open(&self) -> io::Result<()> {
        match self.unreadable.contains(&(0..u64::MAX)) {
            true => Err(rustix::io::Errno::IO.into()),
            false => Ok(()),
        }
    }

    pub(super) fn read(&self, into: &mut [u8], position: u64) -> io::Result<usize> {
        let from = usize::try_from(position).unwrap_or(usize::MAX);
        let Some(rest) = self.live.get(from..) else { return Ok(0) };
        let n = rest.len().min(into.len());
        let end = position + n as u64;
        if self.unreadable.iter().any(|bad| bad.start < end && position < bad.end) {
            return Err(rustix::io::Errno::IO.into());
        }
        for (to, from) in into.iter_mut().zip(rest) {
            *to = *from;
        }
        Ok(n)
    }

    pub(super) fn set_len(&mut self, len: u64) -> io::Result<()> {
        let len = usize::try_from(len).map_err(|_| io::ErrorKind::StorageFull)?;
        self.live.resize(len, 0);
        self.unsynced.push(Change::Length(len));
        Ok(())
    }

    pub(super) fn sync(&mut self) {
        for change in std::mem::take(&mut self.unsynced) {
            change.apply(&mut self.synced);
        }
    }

    /// What waited to be written is marked clean without having been: it is seen, but only
    /// until the power is cut.
    pub(super) fn fail_sync(&mut self) {
        self.unsynced.clear();
        self.errors += 1;
    }

    /// What a new description has seen: all errors but those that nobody was told of.
    pub(super) fn errors_at_open(&self) -> u64 {
        self.errors_told.min(self.errors)
    }

    pub(super) fn report_error(&mut self, seen: &mut u64) -> io::Result<()> {
        if *seen == self.errors {
            return Ok(());
        }
        *seen = self.errors;
        self.errors_told = self.errors;
        Err(io::Error::other("injected: the sync failed"))
    }

    pub(super) fn flip(&mut self, position: u64, mask: u8) -> io::Result<()> {
        let at = usize::try_from(position).unwrap_or(usize::MAX);
        let byte = self.live.get_mut(at).ok_or(io::ErrorKind::NotFound)?;
        *byte ^= mask;
        if let Some(byte) = self.synced.get_mut(at) {
            *byte ^= mask;
        }
        Ok(())
    }

    pub(super) fn crash(&mut self, survival: Survival, rng: &mut StdRng) {
        for change in std::mem::take(&mut self.unsynced) {
            change.survive(&mut self.synced, survival, rng);
        }
        self.live.clone_from(&self.synced);
    }
}

impl Change {
    fn apply(&self, image: &mut Vec<u8>) {
        match self {
            Self::Write(position, bytes) => put(image, bytes, *position),
            Self::Length(len) => image.resize(*len, 0),
        }
    }

    /// Applies as much as survives.
    fn survive(&self, image: &mut Vec<u8>, survival: Survival, rng: &mut StdRng) {
        let sector = match (survival, rng.random_range(0..4)) {
            (Survival::Torn(sector), _) => sector,
            (Survival::Any, 0) => return,
            (Survival::Any, 1) => return self.apply(image),
            (Survival::Any, 2) => 512,
            (Survival::Any, _) => 4096,
        };
        let Self::Write(position, bytes) = self else { return self.apply(image) };
        let mut at = *position;
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let to_boundary = usize::try_from(sector - at % sector).unwrap_or(usize::MAX);
            let (part, after) = rest.split_at(to_boundary.min(rest.len()));
            if rng.random_bool(0.5) {
                put(image, part, at);
            }
            at += part.len() as u64;
            rest = after;
        }
    }
}

fn put(image: &mut Vec<u8>, bytes: &[u8], position: u64) {
    // The disk's capacity bounds positions long before this does.
    let from = usize::try_from(position).unwrap_or(usize::MAX - bytes.len());
    let to = from + bytes.len();
    if image.len() < to {
        image.resize(to, 0);
    }
    if let Some(place) = image.get_mut(from..to) {
        place.copy_from_slice(bytes);
    }
}
