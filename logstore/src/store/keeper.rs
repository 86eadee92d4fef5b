//! The thread behind the journal: prepares the next extent, writes footers, frees and rewrites.
//!
//! One chore at a time, most urgent first; without any it sleeps until it is woken.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rand::RngExt;

use crate::journal::entries::RunIndex;
use crate::journal::footer::{self, RunSummary};
use crate::journal::{ExtentId, ExtentKey, ExtentKind, format};

use super::index::{Extent, RunPlace};
use super::recycle;
use super::rewrite::{self, Rewrite, Step};
use super::shared::Shared;

/// What a footer states besides the runs.
#[derive(Clone, Debug, Default)]
pub(crate) struct Relations {
    /// Extents up to this one hold nothing that counts.
    pub(crate) void_to: ExtentId,
    pub(crate) replaces: Vec<ExtentId>,
}

/// Does chores until the store stops.
pub(crate) fn run(shared: &Shared) {
    loop {
        while let Some(pause) = keep_one(shared) {
            let mut state = shared.state.lock();
            if state.is_stopped {
                return;
            }
            // Rewriting keeps to its share of the disk; what is urgent ends the pause.
            if !pause.is_zero() && !state.is_keeper_needed {
                shared.chores.wait_for(&mut state, pause);
            }
            state.is_keeper_needed = false;
        }
        let mut state = shared.state.lock();
        if state.is_stopped {
            return;
        }
        if !state.is_keeper_needed {
            shared.chores.wait(&mut state);
        }
        state.is_keeper_needed = false;
    }
}

/// Does the most urgent chore. `None` if there is none; else how long to pause after it.
pub(crate) fn keep_one(shared: &Shared) -> Option<Duration> {
    let mut rewriting = shared.keeping.lock();
    let mut state = shared.state.lock();
    if state.core.failed().is_some() || state.is_stopped {
        return None;
    }
    if std::mem::take(&mut state.recheck_space) {
        drop(state);
        shared.check_space();
        return Some(Duration::ZERO);
    }
    if state.core.is_full() && !state.free.is_empty() {
        drop(state);
        recycle::let_go(shared);
        shared.check_space();
        return Some(Duration::ZERO);
    }
    if state.core.needs_spare() && !state.core.is_full() && !state.is_closing {
        drop(state);
        make_spare(shared);
        return Some(Duration::ZERO);
    }
    if let Some((id, end)) = state.ended.front().copied()
        && state.core.is_past(id)
        && !state.core.is_full()
    {
        drop(state);
        close_ended(shared, id, end);
        return Some(Duration::ZERO);
    }
    let dead = state.index.extents.values().find(|extent| extent.is_closed && extent.live == 0);
    if let Some(extent) = dead.cloned() {
        state.index.extents.remove(&extent.key.id);
        let is_full = state.core.is_full();
        drop(state);
        remove(shared, &extent);
        if is_full {
            shared.check_space();
        }
        return Some(Duration::ZERO);
    }
    if rewriting.is_none() {
        if state.rewrites_are_off {
            return None;
        }
        let victims = rewrite::choose(&rewrite::usage(&state.index), &shared.options);
        if victims.is_empty() {
            return None;
        }
        *rewriting = Some(Rewrite::plan(&mut state, &victims));
    }
    drop(state);
    match rewriting.as_mut()?.step(shared) {
        Ok(Step::Wrote(bytes)) => Some(pause(bytes, shared.options.rewrite_bytes_per_second)),
        Ok(Step::Done(removed)) => {
            *rewriting = None;
            removed.iter().for_each(|extent| remove(shared, extent));
            Some(Duration::ZERO)
        }
        Err(error) => {
            if let Some(rewrite) = rewriting.take() {
                rewrite.abandon(shared);
            }
            tracing::warn!(%error, "extents could not be rewritten");
            shared.state.lock().rewrites_are_off = true;
            None
        }
    }
}

/// How long to wait after writing `bytes`, to stay within the budget.
fn pause(bytes: u64, bytes_per_second: u64) -> Duration {
    let micros = bytes.saturating_mul(1_000_000) / bytes_per_second.max(1);
    Duration::from_micros(micros.min(1_000_000))
}

/// Prepares an empty, durable extent, unless the disk is full.
pub(crate) fn make_spare(shared: &Shared) {
    if !shared.check_space() {
        nudge_awaiting(shared);
        return;
    }
    let key = {
        let mut state = shared.state.lock();
        let id = state.next_extent;
        state.next_extent = ExtentId(id.0.saturating_add(1));
        ExtentKey { id, salt: state.rng.random() }
    };
    match create(shared, key) {
        Ok(()) => {
            let mut state = shared.state.lock();
            let mut extent = Extent::new(key, ExtentKind::Journal, Default::default());
            extent.total = u64::from(shared.options.extent_bytes);
            state.index.extents.insert(key.id, extent);
            state.core.set_spare(key);
            drop(state);
            nudge_awaiting(shared);
        }
        Err(error) => {
            // Whatever is there of it holds nothing; a start removes it as well.
            let _ = shared.disk.remove(&key.file_name(ExtentKind::Journal));
            out_of_space_or_fail(shared, "an extent could not be made", &error);
            nudge_awaiting(shared);
        }
    }
}

/// Those who wait for the next extent try again. If there is none, they are told why.
fn nudge_awaiting(shared: &Shared) {
    let was_awaited = std::mem::take(&mut shared.state.lock().waits_for_spare);
    if was_awaited {
        shared.nudge();
    }
}

fn create(shared: &Shared, key: ExtentKey) -> io::Result<()> {
    if recycle::renew(shared, key)? {
        return Ok(());
    }
    let file = shared.disk.create(&key.file_name(ExtentKind::Journal))?;
    file.preallocate(u64::from(shared.options.extent_bytes))?;
    file.write_at(&format::encode_extent(key), 0)?;
    file.sync()?;
    shared.disk.sync_folder()
}

/// A full disk is waited out; anything else ends the journal.
fn out_of_space_or_fail(shared: &Shared, what: &str, error: &io::Error) {
    if error.kind() == io::ErrorKind::StorageFull {
        tracing::warn!(%error, what);
        shared.state.lock().core.set_full(true);
    } else {
        shared.fail(&format!("{what}: {error}"));
    }
}

fn close_ended(shared: &Shared, id: ExtentId, end: u32) {
    match close_extent(shared, id, end, &Relations::default()) {
        Ok(()) => {
            let mut state = shared.state.lock();
            if state.ended.front().is_some_and(|(front, _)| *front == id) {
                state.ended.pop_front();
            }
        }
        Err(error) => out_of_space_or_fail(shared, "a footer could not be written", &error),
    }
}

/// Writes the extent's footer behind its data, cuts the file there, and makes that durable.
pub(crate) fn close_extent(
    shared: &Shared,
    id: ExtentId,
    end: u32,
    relations: &Relations,
) -> io::Result<()> {
    let state = shared.state.lock();
    let extent = state.index.extents.get(&id).filter(|extent| !extent.is_closed).cloned();
    let Some(extent) = extent else { return Ok(()) };
    let runs = state.index.runs_of(id);
    drop(state);

    let mut indexes: Vec<(RunSummary, Arc<RunIndex>)> = Vec::with_capacity(runs.len());
    for (summary, place) in runs {
        if let RunPlace::Memory(index) = place {
            indexes.push((summary, index));
        }
    }
    let mut pairs: Vec<_> = indexes.iter().map(|(run, index)| (run.clone(), &**index)).collect();
    let Relations { void_to, replaces } = relations;
    let bytes = footer::encode(extent.key, end, extent.previous, *void_to, replaces, &mut pairs);
    let summaries: Vec<RunSummary> = pairs.into_iter().map(|(summary, _)| summary).collect();

    let total = u64::from(end) + bytes.len() as u64;
    let file = shared.disk.open(&extent.key.file_name(extent.kind))?;
    file.write_at(&bytes, u64::from(end))?;
    file.set_len(total)?;
    file.sync()?;

    for (summary, (_, index)) in summaries.iter().zip(&indexes) {
        shared.indexes.put(id, summary.block, Arc::clone(index));
    }
    shared.state.lock().index.close_extent(id, &summaries, total);
    Ok(())
}

/// Removes an extent that nothing refers to any more. Should its name come back all the same, a
/// start finds only segments that are dropped again.
fn remove(shared: &Shared, extent: &Extent) {
    shared.files.forget(extent.key.id);
    shared.indexes.forget(extent.key.id);
    if let Err(error) = recycle::retire(shared, extent) {
        tracing::warn!(%error, extent = extent.key.id.0, "could not remove an extent");
    }
}
