//! The thread that asks the disk for what sequential readers want next, before they do.
//!
//! It asks only ([`will_read`]): the bytes come into the kernel's cache, which is shared by all
//! readers and gives way to others, and from where a read takes them without waiting.
//!
//! [`will_read`]: crate::disk::DiskFile::will_read

use std::collections::VecDeque;

use parking_lot::{Condvar, Mutex};

use crate::journal::entries::SEEK_BYTES;

use super::plan::{Plan, Wanted, plan, stretches};
use super::read::{FetchError, load_index, will_read};
use super::shared::Shared;
use super::streams::{DiskRead, Limits, Streams, Wish};
use super::{Options, SegmentRead};

/// Wishes that wait; one that would be too many is dropped.
const MAX_WISHES: usize = 256;

/// Who reads in sequence, and what is to be fetched for them.
#[derive(Default)]
pub(crate) struct Ahead {
    state: Mutex<State>,
    wishes: Condvar,
}

#[derive(Default)]
struct State {
    streams: Streams,
    /// Each with the read that it comes from.
    wishes: VecDeque<(Wish, SegmentRead)>,
    is_stopped: bool,
}

fn limits(options: &Options) -> Limits {
    Limits { window: options.read_ahead_bytes as u64, total: options.max_read_ahead_bytes as u64 }
}

impl Ahead {
    /// `read` took `bytes` from the disk and goes on at `next`.
    pub(crate) fn note(&self, read: &SegmentRead, made: &DiskRead, options: &Options, now_ms: u64) {
        let mut state = self.state.lock();
        if state.is_stopped {
            return;
        }
        let Some(wish) = state.streams.read(made, limits(options), now_ms) else { return };
        if state.wishes.len() >= MAX_WISHES {
            state.streams.asked(&wish, wish.from, 0);
            return;
        }
        state.wishes.push_back((wish, read.clone()));
        self.wishes.notify_one();
    }

    /// Nothing is fetched any more.
    pub(crate) fn stop(&self) {
        let mut state = self.state.lock();
        state.is_stopped = true;
        state.wishes.clear();
        self.wishes.notify_all();
    }
}

/// Asks for what is wished until the store stops.
pub(crate) fn run(shared: &Shared) {
    loop {
        let mut state = shared.ahead.state.lock();
        while state.wishes.is_empty() && !state.is_stopped {
            shared.ahead.wishes.wait(&mut state);
        }
        if state.is_stopped {
            return;
        }
        drop(state);
        ask_one(shared);
    }
}

/// Grants one wish. False if there is none.
pub(crate) fn ask_one(shared: &Shared) -> bool {
    let Some((wish, read)) = shared.ahead.state.lock().wishes.pop_front() else { return false };
    // A reader that fails finds out by itself.
    let (to, bytes) = ask(shared, &wish, read).unwrap_or((wish.from, 0));
    shared.ahead.state.lock().streams.asked(&wish, to, bytes);
    true
}

/// Whether fetching costs more ways than bytes. Then the disk has no time to be ahead: on
/// interleaved extents, where a read asks for all its places at once, asking for the next ones
/// as well was measured to make scans up to 1.8 times slower.
fn is_scattered(stretches: &[&[Wanted]]) -> bool {
    let bytes: u64 = stretches.iter().copied().flatten().map(|w| u64::from(w.entry.len())).sum();
    stretches.len() > 1 && bytes / (stretches.len() as u64) < u64::from(SEEK_BYTES)
}

/// Asks for the entries of a wish; returns where they end, and how many bytes they are.
fn ask(shared: &Shared, wish: &Wish, read: SegmentRead) -> Result<(u64, u64), FetchError> {
    let max_bytes = usize::try_from(wish.bytes).unwrap_or(usize::MAX);
    let read = SegmentRead { offset: wish.from, max_bytes, ..read };
    let (wanted, to) = loop {
        let mut state = shared.state.lock();
        let segment = state.index.segment(read.id).ok_or(FetchError::Moved)?;
        match plan(segment, &read, |extent, block| shared.indexes.get(extent, block)) {
            Plan::Damaged(_) => return Ok((wish.from, 0)),
            Plan::Needs(extent, block) => {
                drop(state);
                load_index(shared, read.id, extent, block)?;
            }
            Plan::Entries { mut wanted, next_offset } => {
                let get = &mut state.core;
                wanted.retain(|w| get.get(w.extent, w.entry.at, w.entry.len() as usize).is_none());
                break (wanted, next_offset);
            }
        }
    };
    let stretches = stretches(&wanted);
    if is_scattered(&stretches) {
        return Ok((to, 0));
    }
    let bytes = stretches.into_iter().map(|stretch| will_read(shared, stretch)).sum();
    Ok((to, bytes))
}
