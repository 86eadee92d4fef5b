//! An open file of a fault disk, and a folder's lock: both die with the power.

use std::io;
use std::sync::Arc;

use parking_lot::{Condvar, Mutex, MutexGuard};

use super::state::{InodeId, State, dead, is_due, pages};
use crate::disk::{DiskFile, FolderLock};

pub(super) struct FaultFile {
    pub(super) state: Arc<Mutex<State>>,
    pub(super) held: Arc<Condvar>,
    /// Its folder's.
    pub(super) prefix: String,
    pub(super) inode: InodeId,
    pub(super) life: u64,
    /// The errors of writing back that this description was told of.
    pub(super) errors_seen: Mutex<u64>,
}

pub(super) struct FaultLock {
    pub(super) state: Arc<Mutex<State>>,
    pub(super) prefix: String,
    pub(super) life: u64,
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
    fn state(&self) -> io::Result<MutexGuard<'_, State>> {
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
        while state.holds_syncs_of.as_ref() == Some(&self.prefix) {
            state.held_syncs += 1;
            self.held.notify_all();
            self.held.wait(&mut state);
            if state.life != self.life {
                return Err(dead());
            }
            state.held_syncs -= 1;
        }
        let fails = state.sync_fails(&self.prefix);
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
