//! A disk in memory that fails as disks do.
//!
//! ```text
//!   write ──► live image ──sync──► synced image
//!                 │ crash(seed): some of the unsynced writes, some of them torn,
//!                 ▼              some of the unsynced names
//!             what is found after the restart
//! ```

mod inode;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;
use std::sync::Arc;

use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::{Disk, DiskFile, FolderLock, Space};
use inode::Inode;

type InodeId = u64;

/// The whole disk: hand out [`FaultFolder`]s of it; all of them crash together.
#[derive(Clone, Default)]
pub struct FaultDisk {
    state: Arc<Mutex<State>>,
}

/// One folder of a [`FaultDisk`].
#[derive(Clone)]
pub struct FaultFolder {
    state: Arc<Mutex<State>>,
    prefix: String,
}

struct FaultFile {
    state: Arc<Mutex<State>>,
    inode: InodeId,
    life: u64,
    /// The errors of writing back that this description was told of.
    errors_seen: Mutex<u64>,
}

struct FaultLock {
    state: Arc<Mutex<State>>,
    prefix: String,
    life: u64,
}

#[derive(Default)]
struct State {
    inodes: BTreeMap<InodeId, Inode>,
    names: BTreeMap<String, InodeId>,
    synced_names: BTreeMap<String, InodeId>,
    folder_changes: Vec<FolderChange>,
    locked: BTreeSet<String>,
    next_inode: InodeId,
    /// Rises with each crash: what was opened before is dead.
    life: u64,
    capacity: Option<u64>,
    no_sync: bool,
    /// Pages that a disk without a cache has been asked for; `None` while everything is cached.
    cached: Option<BTreeSet<(InodeId, u64)>>,
    reads: u64,
    writes_until_failure: Option<u64>,
    syncs_until_failure: Option<u64>,
    folder_syncs_until_failure: Option<u64>,
    before_read: Option<Box<dyn FnOnce() + Send>>,
    writes: u64,
    syncs: u64,
}

#[derive(Clone)]
enum FolderChange {
    Set(String, InodeId),
    Clear(String),
    Move(String, String, InodeId),
}

impl FaultDisk {
    /// An empty disk without faults.
    pub fn new() -> Self {
        Self::default()
    }

    /// A folder. The same name gives the same folder.
    pub fn folder(&self, name: &str) -> FaultFolder {
        FaultFolder { state: Arc::clone(&self.state), prefix: format!("{name}/") }
    }

    /// Cuts the power and turns it on again. Of each write that was not synced, all, nothing or
    /// some sectors (512 or 4096 bytes) are kept; of names that were not synced, some. Faults
    /// are taken back. What was open fails from now on, and locks are free.
    pub fn crash(&self, seed: u64) {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut state = self.state.lock();
        let mut names = std::mem::take(&mut state.synced_names);
        for change in std::mem::take(&mut state.folder_changes) {
            if rng.random_bool(0.5) {
                change.apply(&mut names);
            }
        }
        for inode in state.inodes.values_mut() {
            inode.crash(&mut rng);
        }
        let kept: BTreeSet<InodeId> = names.values().copied().collect();
        state.inodes.retain(|id, _| kept.contains(id));
        state.names = names.clone();
        state.synced_names = names;
        state.locked.clear();
        state.life += 1;
        state.writes_until_failure = None;
        state.syncs_until_failure = None;
        state.folder_syncs_until_failure = None;
    }

    /// Ends the process without cutting the power: all that was written stays, what was open
    /// fails from now on, and locks are free.
    pub fn kill(&self) {
        let mut state = self.state.lock();
        state.locked.clear();
        state.life += 1;
    }

    /// From now on syncs say Ok and do nothing: the mutant that a durability test must catch.
    pub fn set_no_sync(&self, no_sync: bool) {
        self.state.lock().no_sync = no_sync;
    }

    /// With `true` nothing of what the files hold is cached any more: reads that must not wait
    /// find only pages that were read, or asked for, since. With `false` everything is cached.
    pub fn set_cold(&self, cold: bool) {
        self.state.lock().cached = cold.then(BTreeSet::new);
    }

    /// Reads that were ready to wait, so far.
    pub fn reads(&self) -> u64 {
        self.state.lock().reads
    }

    /// The size of the disk in bytes; `None` is without bounds.
    pub fn set_capacity(&self, capacity: Option<u64>) {
        self.state.lock().capacity = capacity;
    }

    /// The write after the next `n` fails, once.
    pub fn fail_write_after(&self, n: u64) {
        self.state.lock().writes_until_failure = Some(n);
    }

    /// The sync after the next `n` fails, once for each file description, and what it should
    /// have made durable never will be.
    pub fn fail_sync_after(&self, n: u64) {
        self.state.lock().syncs_until_failure = Some(n);
    }

    /// The sync of a folder after the next `n` fails, once; no name becomes durable by it.
    pub fn fail_folder_sync_after(&self, n: u64) {
        self.state.lock().folder_syncs_until_failure = Some(n);
    }

    /// Calls `act` in the midst of the next read that may wait, before it looks at the bytes.
    pub fn before_next_read(&self, act: impl FnOnce() + Send + 'static) {
        self.state.lock().before_read = Some(Box::new(act));
    }

    /// Writes and syncs so far: for tests that something is quiet.
    pub fn activity(&self) -> (u64, u64) {
        let state = self.state.lock();
        (state.writes, state.syncs)
    }

    /// Bytes that all files take.
    pub fn used(&self) -> u64 {
        self.state.lock().used()
    }
}

impl FaultFolder {
    /// What a file holds now.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn contents(&self, name: &str) -> io::Result<Vec<u8>> {
        let state = self.state.lock();
        let inode = state.lookup(&self.full(name))?;
        Ok(state.inode(inode)?.live().to_vec())
    }

    /// Inverts the bits of `mask` in one byte, on the platter and in memory.
    ///
    /// # Errors
    /// `NotFound` if there is no such byte.
    pub fn flip(&self, name: &str, position: u64, mask: u8) -> io::Result<()> {
        let mut state = self.state.lock();
        let inode = state.lookup(&self.full(name))?;
        state.inode_mut(inode)?.flip(position, mask)
    }

    /// Whoever reads one of these bytes of the file is told `EIO`, also after a crash; of a file
    /// without any other bytes, up to `u64::MAX`, already who opens it. An empty list takes that
    /// back. Writes mend nothing.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn set_unreadable(&self, name: &str, ranges: Vec<Range<u64>>) -> io::Result<()> {
        let mut state = self.state.lock();
        let inode = state.lookup(&self.full(name))?;
        state.inode_mut(inode)?.set_unreadable(ranges);
        Ok(())
    }

    fn full(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }
}

impl State {
    fn lookup(&self, full: &str) -> io::Result<InodeId> {
        self.names.get(full).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn inode(&self, id: InodeId) -> io::Result<&Inode> {
        self.inodes.get(&id).ok_or_else(dead)
    }

    fn inode_mut(&mut self, id: InodeId) -> io::Result<&mut Inode> {
        self.inodes.get_mut(&id).ok_or_else(dead)
    }

    fn used(&self) -> u64 {
        self.names
            .values()
            .filter_map(|id| self.inodes.get(id))
            .map(|i| i.live().len() as u64)
            .sum()
    }

    fn cache(&mut self, id: InodeId, position: u64, len: u64) {
        if let Some(cached) = &mut self.cached {
            cached.extend(pages(position, len).map(|page| (id, page)));
        }
    }

    fn change(&mut self, change: FolderChange) {
        change.apply(&mut self.names);
        self.folder_changes.push(change);
    }

    /// Fails if the disk has no room for `id` to be `len` bytes long.
    fn reserve(&self, id: InodeId, len: u64) -> io::Result<()> {
        let grows = len.saturating_sub(self.inode(id)?.live().len() as u64);
        match self.capacity {
            Some(capacity) if grows > 0 && self.used() + grows > capacity => {
                Err(io::ErrorKind::StorageFull.into())
            }
            _ => Ok(()),
        }
    }
}

impl FolderChange {
    fn apply(&self, names: &mut BTreeMap<String, InodeId>) {
        match self {
            Self::Set(name, inode) => {
                names.insert(name.clone(), *inode);
            }
            Self::Clear(name) => {
                names.remove(name);
            }
            Self::Move(from, to, inode) => {
                names.remove(from);
                names.insert(to.clone(), *inode);
            }
        }
    }
}

/// Counts down; true when it is this one's turn.
fn is_due(countdown: &mut Option<u64>) -> bool {
    match countdown {
        Some(0) => {
            *countdown = None;
            true
        }
        Some(n) => {
            *n -= 1;
            false
        }
        None => false,
    }
}

/// The pages that these bytes touch.
fn pages(position: u64, len: u64) -> impl Iterator<Item = u64> {
    const PAGE: u64 = 4096;
    position / PAGE..position.saturating_add(len).div_ceil(PAGE)
}

fn dead() -> io::Error {
    io::Error::other("the power was cut")
}

impl FaultFolder {
    fn handle(&self, state: &State, inode: InodeId) -> io::Result<Arc<dyn DiskFile>> {
        let errors_seen = state.inode(inode)?.errors_at_open();
        Ok(Arc::new(FaultFile {
            state: Arc::clone(&self.state),
            inode,
            life: state.life,
            errors_seen: Mutex::new(errors_seen),
        }))
    }
}

impl Disk for FaultFolder {
    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.state.lock();
        let full = self.full(name);
        if state.names.contains_key(&full) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let id = state.next_inode;
        state.next_inode += 1;
        state.inodes.insert(id, Inode::default());
        state.change(FolderChange::Set(full, id));
        self.handle(&state, id)
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let state = self.state.lock();
        let id = state.lookup(&self.full(name))?;
        state.inode(id)?.check_open()?;
        self.handle(&state, id)
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let state = self.state.lock();
        Ok(state
            .names
            .keys()
            .filter_map(|full| full.strip_prefix(&self.prefix))
            .map(str::to_owned)
            .collect())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.state.lock();
        let full = self.full(name);
        state.lookup(&full)?;
        state.change(FolderChange::Clear(full));
        Ok(())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state.lock();
        let (from, to) = (self.full(from), self.full(to));
        let inode = state.lookup(&from)?;
        state.change(FolderChange::Move(from, to, inode));
        Ok(())
    }

    fn sync_folder(&self) -> io::Result<()> {
        let mut state = self.state.lock();
        state.syncs += 1;
        if is_due(&mut state.folder_syncs_until_failure) {
            return Err(io::Error::other("injected: the folder's sync failed"));
        }
        if state.no_sync {
            return Ok(());
        }
        let prefix = self.prefix.as_str();
        let changes = std::mem::take(&mut state.folder_changes);
        let (mine, others): (Vec<_>, Vec<_>) = changes.into_iter().partition(|change| {
            let (FolderChange::Set(name, _)
            | FolderChange::Clear(name)
            | FolderChange::Move(name, ..)) = change;
            name.starts_with(prefix)
        });
        state.folder_changes = others;
        for change in mine {
            change.apply(&mut state.synced_names);
        }
        Ok(())
    }

    fn space(&self) -> io::Result<Space> {
        let state = self.state.lock();
        let total = state.capacity.unwrap_or(1 << 50);
        Ok(Space { free: total.saturating_sub(state.used()), total })
    }

    fn lock(&self) -> io::Result<Box<dyn FolderLock>> {
        let mut state = self.state.lock();
        if !state.locked.insert(self.prefix.clone()) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let (prefix, life) = (self.prefix.clone(), state.life);
        Ok(Box::new(FaultLock { state: Arc::clone(&self.state), prefix, life }))
    }
}

impl FolderLock for FaultLock {}

impl Drop for FaultLock {
    fn drop(&mut self) {
        let mut state = self.state.lock();
        if state.life == self.life {
            state.locked.remove(&self.prefix);
        }
    }
}

impl FaultFile {
    /// The state, unless the power was cut since the file was opened.
    fn state(&self) -> io::Result<parking_lot::MutexGuard<'_, State>> {
        let state = self.state.lock();
        if state.life == self.life { Ok(state) } else { Err(dead()) }
    }
}

impl DiskFile for FaultFile {
    fn write_vectored_at(&self, parts: &[&[u8]], position: u64) -> io::Result<()> {
        let mut state = self.state()?;
        state.writes += 1;
        if is_due(&mut state.writes_until_failure) {
            return Err(io::Error::other("injected: the write failed"));
        }
        let bytes = parts.concat();
        state.reserve(self.inode, position + bytes.len() as u64)?;
        state.inode_mut(self.inode)?.write(bytes, position);
        Ok(())
    }

    fn read_at(&self, into: &mut [u8], position: u64) -> io::Result<usize> {
        let act = self.state()?.before_read.take();
        if let Some(act) = act {
            act();
        }
        let mut state = self.state()?;
        state.reads += 1;
        let n = state.inode(self.inode)?.read(into, position)?;
        state.cache(self.inode, position, into.len() as u64);
        Ok(n)
    }

    fn will_read(&self, position: u64, len: u64) {
        if let Ok(mut state) = self.state() {
            state.cache(self.inode, position, len);
        }
    }

    fn try_read_at(&self, into: &mut [u8], position: u64) -> io::Result<Option<usize>> {
        let state = self.state()?;
        if let Some(cached) = &state.cached
            && !pages(position, into.len() as u64).all(|page| cached.contains(&(self.inode, page)))
        {
            return Ok(None);
        }
        state.inode(self.inode)?.read(into, position).map(Some)
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.state()?;
        state.syncs += 1;
        let fails = is_due(&mut state.syncs_until_failure);
        let no_sync = state.no_sync;
        let inode = state.inode_mut(self.inode)?;
        if fails {
            inode.fail_sync();
        } else if !no_sync {
            inode.sync();
        }
        inode.report_error(&mut self.errors_seen.lock())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.state()?.inode(self.inode)?.live().len() as u64)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.state()?;
        state.writes += 1;
        state.reserve(self.inode, len)?;
        state.inode_mut(self.inode)?.set_len(len)
    }

    fn preallocate(&self, len: u64) -> io::Result<()> {
        if self.len()? >= len {
            return Ok(());
        }
        self.set_len(len)
    }
}
