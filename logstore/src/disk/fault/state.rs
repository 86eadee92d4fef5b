//! What a fault disk holds, and the faults that wait.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use super::inode::Inode;

pub(super) type InodeId = u64;

#[derive(Default)]
pub(super) struct State {
    pub(super) inodes: BTreeMap<InodeId, Inode>,
    pub(super) names: BTreeMap<String, InodeId>,
    pub(super) synced_names: BTreeMap<String, InodeId>,
    pub(super) folder_changes: Vec<FolderChange>,
    pub(super) locked: BTreeSet<String>,
    pub(super) next_inode: InodeId,
    /// Rises with each crash: what was opened before is dead.
    pub(super) life: u64,
    pub(super) capacity: Option<u64>,
    pub(super) no_sync: bool,
    /// Pages that a disk without a cache has been asked for; `None` while everything is cached.
    pub(super) cached: Option<BTreeSet<(InodeId, u64)>>,
    pub(super) reads: u64,
    pub(super) writes_until_failure: Option<u64>,
    /// Which folder's, and how many until then; "" is any.
    pub(super) syncs_until_failure: Option<(String, u64)>,
    pub(super) folder_syncs_until_failure: Option<u64>,
    pub(super) before_read: Option<Box<dyn FnOnce() + Send>>,
    /// The folder whose syncs wait for the end of the power, and how many do.
    pub(super) holds_syncs_of: Option<String>,
    pub(super) held_syncs: u64,
    pub(super) writes: u64,
    pub(super) syncs: u64,
}

#[derive(Clone)]
pub(super) enum FolderChange {
    Set(String, InodeId),
    Clear(String),
    Move(String, String, InodeId),
}

impl State {
    pub(super) fn lookup(&self, full: &str) -> io::Result<InodeId> {
        self.names.get(full).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    pub(super) fn inode(&self, id: InodeId) -> io::Result<&Inode> {
        self.inodes.get(&id).ok_or_else(dead)
    }

    pub(super) fn inode_mut(&mut self, id: InodeId) -> io::Result<&mut Inode> {
        self.inodes.get_mut(&id).ok_or_else(dead)
    }

    /// What is open is dead, and nobody has a lock or waits any more.
    pub(super) fn end_life(&mut self) {
        self.locked.clear();
        self.holds_syncs_of = None;
        self.held_syncs = 0;
        self.life += 1;
    }

    /// Whether a sync in the folder is the one that fails.
    pub(super) fn sync_fails(&mut self, prefix: &str) -> bool {
        let Some((of, mut left)) = self.syncs_until_failure.take() else { return false };
        if !prefix.starts_with(&of) {
            self.syncs_until_failure = Some((of, left));
            return false;
        }
        if left == 0 {
            return true;
        }
        left -= 1;
        self.syncs_until_failure = Some((of, left));
        false
    }

    pub(super) fn used(&self) -> u64 {
        self.names
            .values()
            .filter_map(|id| self.inodes.get(id))
            .map(|i| i.live().len() as u64)
            .sum()
    }

    pub(super) fn cache(&mut self, id: InodeId, position: u64, len: u64) {
        if let Some(cached) = &mut self.cached {
            cached.extend(pages(position, len).map(|page| (id, page)));
        }
    }

    pub(super) fn change(&mut self, change: FolderChange) {
        change.apply(&mut self.names);
        self.folder_changes.push(change);
    }

    /// Fails if the disk has no room for `id` to be `len` bytes long.
    pub(super) fn reserve(&self, id: InodeId, len: u64) -> io::Result<()> {
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
    pub(super) fn apply(&self, names: &mut BTreeMap<String, InodeId>) {
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
pub(super) fn is_due(countdown: &mut Option<u64>) -> bool {
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
pub(super) fn pages(position: u64, len: u64) -> impl Iterator<Item = u64> {
    const PAGE: u64 = 4096;
    position / PAGE..position.saturating_add(len).div_ceil(PAGE)
}

pub(super) fn dead() -> io::Error {
    io::Error::other("the power was cut")
}
