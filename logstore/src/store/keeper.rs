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
use super::rewrite::{Keeping, Reason, Rewrite, Step};
use super::shared::{Shared, State};
use super::victims::{self, Interleaved};

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

/// Does the most urgent chore. `None` if there is none; else how long to pause after it: what
/// comes up meanwhile is done at once, and rewriting still keeps to its budget.
pub(crate) fn keep_one(shared: &Shared) -> Option<Duration> {
    let mut keeping = shared.keeping.lock();
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
    let pause = keeping.pace.wait(shared.clock.monotonic_ms());
    if !pause.is_zero() {
        return Some(pause);
    }
    if keeping.rewrite.is_none() {
        match begin(shared, &mut state) {
            Next::Nothing => return None,
            Next::Again => return Some(Duration::ZERO),
            Next::Rewrite(rewrite) => keeping.rewrite = Some(rewrite),
        }
    }
    drop(state);
    rewrite_on(shared, &mut keeping)
}

/// What there is to rewrite.
enum Next {
    Nothing,
    /// Something was found out: ask again.
    Again,
    Rewrite(Rewrite),
}

fn begin(shared: &Shared, state: &mut State) -> Next {
    if state.rewrites_are_off {
        return Next::Nothing;
    }
    let options = &shared.options;
    let usage = victims::usage(&state.index);
    let dead = victims::choose(&usage, options);
    if !dead.is_empty() {
        return Next::Rewrite(Rewrite::plan(shared, state, &dead, Reason::Dead));
    }
    match victims::interleaved(&usage, options) {
        Interleaved::None => Next::Nothing,
        Interleaved::Judge(extent) => {
            let soon = u64::try_from(options.rewrite_min_life.as_millis()).unwrap_or(u64::MAX);
            state.index.judge(extent, soon, shared.clock.wall_ms());
            Next::Again
        }
        // Order is not worth the last of the disk.
        Interleaved::Rewrite(_) if !shared.has_room_for(u64::from(options.extent_bytes)) => {
            Next::Nothing
        }
        Interleaved::Rewrite(extent) => {
            Next::Rewrite(Rewrite::plan(shared, state, &[extent], Reason::Interleaved))
        }
    }
}

/// Takes the next step of the rewriting under way.
fn rewrite_on(shared: &Shared, keeping: &mut Keeping) -> Option<Duration> {
    match keeping.rewrite.as_mut()?.step(shared) {
        Ok(Step::Moved(bytes)) => {
            let is_busy = shared.state.lock().core.has_work();
            let now_ms = shared.clock.monotonic_ms();
            let budget = shared.options.rewrite_bytes_per_second;
            keeping.pace.spend(now_ms, bytes, budget, is_busy);
            Some(keeping.pace.wait(now_ms))
        }
        Ok(Step::Done(removed)) => {
            keeping.rewrite = None;
            removed.iter().for_each(|extent| remove(shared, extent));
            Some(Duration::ZERO)
        }
        Err(error) => {
            if let Some(rewrite) = keeping.rewrite.take() {
                rewrite.abandon(shared);
            }
            tracing::warn!(%error, "extents could not be rewritten");
            shared.state.lock().rewrites_are_off = true;
            None
        }
    }
}

/// Prepares an empty, durable extent, unless the disk is full.
pub(crate) fn make_spare(shared: &Shared) {
    if !shared.check_space() {
        nudge_awaiting(shared);
        return;
    }
    let key = {
        let mut state = shared.state.lock();
        ExtentKey { id: state.new_extent(), salt: state.rng.random() }
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
        shared.set_full(&mut shared.state.lock(), true);
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
