//! Open extents and loaded indexes, a bounded number of each.

use std::io;
use std::sync::Arc;

use hashbrown::HashMap;
use parking_lot::Mutex;

use crate::disk::{Disk, DiskFile};
use crate::journal::entries::RunIndex;
use crate::journal::footer::BlockRef;
use crate::journal::{ExtentId, ExtentKey, ExtentKind};

/// Files held open for reading.
const MAX_OPEN: usize = 256;

/// Extents that are open for reading.
#[derive(Default)]
pub(crate) struct Files {
    open: Mutex<HashMap<ExtentId, Arc<dyn DiskFile>>>,
}

/// Indexes that were read from footers.
pub(crate) struct IndexCache {
    max_bytes: usize,
    state: Mutex<Cached>,
}

type BlockId = (ExtentId, u32);

#[derive(Default)]
struct Cached {
    indexes: HashMap<BlockId, (Arc<RunIndex>, u64)>,
    bytes: usize,
    /// Rises with each use.
    clock: u64,
}

impl Files {
    pub(crate) fn get(
        &self,
        disk: &dyn Disk,
        key: ExtentKey,
        kind: ExtentKind,
    ) -> io::Result<Arc<dyn DiskFile>> {
        if let Some(file) = self.open.lock().get(&key.id) {
            return Ok(Arc::clone(file));
        }
        let file = disk.open(&key.file_name(kind))?;
        // What others wrote lies between: what a reader wants next is known here, not to the kernel.
        file.reads_at_random();
        let mut open = self.open.lock();
        if open.len() >= MAX_OPEN
            && let Some(any) = open.keys().next().copied()
        {
            open.remove(&any);
        }
        open.insert(key.id, Arc::clone(&file));
        Ok(file)
    }

    pub(crate) fn forget(&self, extent: ExtentId) {
        self.open.lock().remove(&extent);
    }
}

impl IndexCache {
    pub(crate) fn new(max_bytes: usize) -> Self {
        Self { max_bytes, state: Mutex::default() }
    }

    pub(crate) fn get(&self, extent: ExtentId, block: BlockRef) -> Option<Arc<RunIndex>> {
        let mut state = self.state.lock();
        state.clock += 1;
        let now = state.clock;
        let (index, used) = state.indexes.get_mut(&(extent, block.at))?;
        *used = now;
        Some(Arc::clone(index))
    }

    pub(crate) fn put(&self, extent: ExtentId, block: BlockRef, index: Arc<RunIndex>) {
        let mut state = self.state.lock();
        state.clock += 1;
        let now = state.clock;
        state.bytes += index.memory();
        if let Some((old, _)) = state.indexes.insert((extent, block.at), (index, now)) {
            state.bytes -= old.memory();
        }
        // The newest stays, however large it is: its reader needs it.
        while state.bytes > self.max_bytes && state.indexes.len() > 1 {
            let oldest = state.indexes.iter().min_by_key(|(_, (_, used))| *used);
            let Some(oldest) = oldest.map(|(id, _)| *id) else { break };
            if let Some((old, _)) = state.indexes.remove(&oldest) {
                state.bytes -= old.memory();
            }
        }
    }

    pub(crate) fn forget(&self, extent: ExtentId) {
        let mut state = self.state.lock();
        let mut freed = 0;
        state.indexes.retain(|(id, _), (index, _)| {
            let stays = *id != extent;
            if !stays {
                freed += index.memory();
            }
            stays
        });
        state.bytes -= freed;
    }
}
