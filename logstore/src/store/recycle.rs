//! Dead extents that are written over by later ones.
//!
//! ```text
//!   dead extent ─rename, sync folder─► "….free" ─header, sync─► "….free" ─rename, sync folder─► extent
//! ```
//!
//! A write to blocks that were written before changes none of the file system's records, so its
//! sync waits for the data alone; on ext4 that makes a sync half as long as in a fresh file,
//! whose reserved blocks have to be marked as written. What stands in the file passes for
//! nothing of the new extent: its id and salt are in every checksum.

use std::io;

use crate::disk::Disk;
use crate::journal::{ExtentId, ExtentKey, ExtentKind, format};

use super::index::Extent;
use super::shared::Shared;

/// What the name of a file that is to be written over ends with.
const FREE: &str = ".free";
/// A file with less than this share of an extent, in percent, is mostly new blocks again.
const MIN_PERCENT: u64 = 75;

/// The file's id in its earlier life, if it is one to be written over.
fn parse(name: &str) -> Option<ExtentId> {
    ExtentKey::parse_name(name.strip_suffix(FREE)?).map(|(key, _)| key.id)
}

/// The newest id that any file to be written over ever had.
pub(super) fn newest(names: &[String]) -> ExtentId {
    names.iter().filter_map(|name| parse(name)).max().unwrap_or_default()
}

/// The files to be written over that a start keeps; removes the others.
pub(super) fn adopt(disk: &dyn Disk, names: &[String], keep: usize) -> Vec<String> {
    let mut free: Vec<String> =
        names.iter().filter(|name| parse(name).is_some()).cloned().collect();
    for surplus in free.drain(keep.min(free.len())..) {
        // If that fails, the next start tries again.
        let _ = disk.remove(&surplus);
    }
    free
}

/// Puts the file of a dead extent aside to be written over, or removes it where enough are.
///
/// # Errors
/// The disk's. The file may still have its name then.
pub(super) fn retire(shared: &Shared, extent: &Extent) -> io::Result<()> {
    let name = extent.key.file_name(extent.kind);
    if !is_wanted(shared, extent) {
        shared.disk.remove(&name)?;
        return shared.disk.sync_folder();
    }
    let free = format!("{name}{FREE}");
    shared.disk.rename(&name, &free)?;
    // Before anything is written to it: under its old name it must be as it was.
    shared.disk.sync_folder()?;
    shared.state.lock().free.push(free);
    Ok(())
}

fn is_wanted(shared: &Shared, extent: &Extent) -> bool {
    let state = shared.state.lock();
    let whole = u64::from(shared.options.extent_bytes);
    state.free.len() < shared.options.recycled_extents
        && !state.core.is_full()
        && !state.is_closing
        && extent.total * 100 >= whole * MIN_PERCENT
}

/// Makes the new, empty, durable extent `key` out of a file that is to be written over. False if
/// there is none.
///
/// # Errors
/// The disk's, about the folder. A file that can't be used is removed.
pub(super) fn renew(shared: &Shared, key: ExtentKey) -> io::Result<bool> {
    loop {
        let Some(free) = shared.state.lock().free.pop() else { return Ok(false) };
        match refit(shared, &free, key) {
            Ok(()) => {
                shared.disk.rename(&free, &key.file_name(ExtentKind::Journal))?;
                shared.disk.sync_folder()?;
                return Ok(true);
            }
            Err(error) => {
                tracing::warn!(%error, file = free, "a file could not be written over");
                shared.disk.remove(&free)?;
            }
        }
    }
}

fn refit(shared: &Shared, name: &str, key: ExtentKey) -> io::Result<()> {
    let size = u64::from(shared.options.extent_bytes);
    let file = shared.disk.open(name)?;
    if file.len()? > size {
        file.set_len(size)?;
    }
    file.preallocate(size)?;
    file.write_at(&format::encode_extent(key), 0)?;
    file.sync()
}

/// Removes a file that is to be written over, if there is one, for its room.
pub(super) fn let_go(shared: &Shared) {
    let Some(free) = shared.state.lock().free.pop() else { return };
    if let Err(error) = shared.disk.remove(&free).and_then(|()| shared.disk.sync_folder()) {
        tracing::warn!(%error, file = free, "could not remove a file");
    }
}
