//! A disk in memory that fails as disks do.
//!
//! ```text
//!   write ──► live image ──sync──► synced image
//!                 │ crash(seed): some of the unsynced writes, some of them torn,
//!                 ▼              some of the unsynced names
//!             what is found after the restart
//! ```

mod file;
mod inode;
mod state;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use parking_lot::{Condvar, Mutex, MutexGuard};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::{Disk, DiskFile, FolderLock, Space};
use file::{FaultFile, FaultLock};
use inode::{Inode, Survival};
use state::{FolderChange, InodeId, State, dead, is_due};

/// The whole disk: hand out [`FaultFolder`]s of it; all of them crash together.
#[derive(Clone, Default)]
pub struct FaultDisk {
    state: Arc<Mutex<State>>,
    /// A sync is held, or may go on.
    held: Arc<Condvar>,
}

/// One folder of a [`FaultDisk`], as the process that runs now has it: after a crash or a kill
/// nothing is done to its files any more, so that what is left of the old process's threads can't
/// touch what the next process has.
#[derive(Clone)]
pub struct FaultFolder {
    state: Arc<Mutex<State>>,
    held: Arc<Condvar>,
    prefix: String,
    life: u64,
}

impl FaultDisk {
    /// An empty disk without faults.
    pub fn new() -> Self {
        Self::default()
    }

    /// A folder, until the next crash or kill. The same name gives the same folder.
    pub fn folder(&self, name: &str) -> FaultFolder {
        FaultFolder {
            state: Arc::clone(&self.state),
            held: Arc::clone(&self.held),
            prefix: format!("{name}/"),
            life: self.state.lock().life,
        }
    }

    /// Cuts the power and turns it on again. Of each write that was not synced, all, nothing or
    /// some sectors (512 or 4096 bytes) are kept; of names that were not synced, some. Faults
    /// are taken back. What was open fails from now on, and locks are free.
    pub fn crash(&self, seed: u64) {
        self.cut(seed, Survival::Any);
    }

    /// [`FaultDisk::crash`] in the middle of writing: of every write that was not synced some
    /// sectors of `sector` bytes are kept.
    pub fn tear(&self, seed: u64, sector: u64) {
        self.cut(seed, Survival::Torn(sector.max(1)));
    }

    fn cut(&self, seed: u64, survival: Survival) {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut state = self.state.lock();
        let mut names = std::mem::take(&mut state.synced_names);
        for change in std::mem::take(&mut state.folder_changes) {
            if rng.random_bool(0.5) {
                change.apply(&mut names);
            }
        }
        for inode in state.inodes.values_mut() {
            inode.crash(survival, &mut rng);
        }
        let kept: BTreeSet<InodeId> = names.values().copied().collect();
        state.inodes.retain(|id, _| kept.contains(id));
        state.names = names.clone();
        state.synced_names = names;
        state.end_life();
        state.writes_until_failure = None;
        state.syncs_until_failure = None;
        state.folder_syncs_until_failure = None;
        drop(state);
        self.held.notify_all();
    }

    /// Ends the process without cutting the power: all that was written stays, what was open
    /// fails from now on, and locks are free.
    pub fn kill(&self) {
        self.state.lock().end_life();
        self.held.notify_all();
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
        self.state.lock().syncs_until_failure = Some((String::new(), n));
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
    /// [`FaultDisk::fail_sync_after`] for the files of this folder.
    pub fn fail_sync_after(&self, n: u64) {
        self.state.lock().syncs_until_failure = Some((self.prefix.clone(), n));
    }

    /// From now on syncs of this folder's files don't end: they fail at the next crash or kill.
    pub fn hold_syncs(&self) {
        self.state.lock().holds_syncs_of = Some(self.prefix.clone());
    }

    /// Waits until a sync is held: what was written before it is on the disk, and not synced.
    pub fn wait_for_a_held_sync(&self) {
        let mut state = self.state.lock();
        while state.held_syncs == 0 {
            self.held.wait(&mut state);
        }
    }

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

impl FaultFolder {
    /// The state, unless the power was cut since the folder was handed out.
    fn state(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.state.lock();
        if state.life == self.life { Ok(state) } else { Err(dead()) }
    }

    fn handle(&self, state: &State, inode: InodeId) -> io::Result<Arc<dyn DiskFile>> {
        let errors_seen = state.inode(inode)?.errors_at_open();
        Ok(Arc::new(FaultFile {
            state: Arc::clone(&self.state),
            held: Arc::clone(&self.held),
            prefix: self.prefix.clone(),
            inode,
            life: state.life,
            errors_seen: Mutex::new(errors_seen),
        }))
    }
}

impl Disk for FaultFolder {
    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.state()?;
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
        let state = self.state()?;
        let id = state.lookup(&self.full(name))?;
        state.inode(id)?.check_open()?;
        self.handle(&state, id)
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let state = self.state()?;
        Ok(state
            .names
            .keys()
            .filter_map(|full| full.strip_prefix(&self.prefix))
            .map(str::to_owned)
            .collect())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.state()?;
        let full = self.full(name);
        state.lookup(&full)?;
        state.change(FolderChange::Clear(full));
        Ok(())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state()?;
        let (from, to) = (self.full(from), self.full(to));
        let inode = state.lookup(&from)?;
        state.change(FolderChange::Move(from, to, inode));
        Ok(())
    }

    fn sync_folder(&self) -> io::Result<()> {
        let mut state = self.state()?;
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
        let state = self.state()?;
        let total = state.capacity.unwrap_or(1 << 50);
        Ok(Space { free: total.saturating_sub(state.used()), total })
    }

    fn lock(&self) -> io::Result<Box<dyn FolderLock>> {
        let mut state = self.state()?;
        if !state.locked.insert(self.prefix.clone()) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let (prefix, life) = (self.prefix.clone(), state.life);
        Ok(Box::new(FaultLock { state: Arc::clone(&self.state), prefix, life }))
    }
}
