//! A folder of files, as much of one as a journal or a small database needs.
//!
//! ```text
//!   journal, embedded meta ──► Disk ──┬─► RealDisk   the file system
//!                                     └─► FaultDisk  memory; crashes, torn writes, failed syncs
//! ```
//!
//! Nothing is durable before it is synced: a file's bytes by [`DiskFile::sync`], its name by
//! [`Disk::sync_folder`].

mod fault;
#[allow(clippy::disallowed_methods, reason = "this is where the real files are")]
mod real;

pub use fault::{FaultDisk, FaultFolder};
pub use real::RealDisk;

use std::io::{self, IoSlice};
use std::sync::Arc;

use rustix::io::Errno;

/// Room on a disk, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// What may still be written.
    pub free: u64,
    /// The size of the disk.
    pub total: u64,
}

/// Held while a folder is in use; dropping it lets others in.
pub trait FolderLock: Send + Sync {}

/// One folder of files. Names are plain: no folders below.
pub trait Disk: Send + Sync + 'static {
    /// Makes a new, empty file; its name is durable after [`Disk::sync_folder`].
    ///
    /// # Errors
    /// `AlreadyExists`, and what the file system says.
    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;

    /// Opens a file for reading and writing, with a file description of its own: an error of
    /// writing back is reported once to each description.
    ///
    /// # Errors
    /// `NotFound`, and what the file system says.
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;

    /// All names, sorted.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Removes a file; who has it open can go on reading.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Renames a file, over another one if there is one.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Makes all names durable as they are.
    fn sync_folder(&self) -> io::Result<()>;

    /// How much room there is.
    fn space(&self) -> io::Result<Space>;

    /// Takes the folder for this process alone.
    ///
    /// # Errors
    /// `WouldBlock` if somebody has it.
    fn lock(&self) -> io::Result<Box<dyn FolderLock>>;
}

/// One open file. Reads and writes name their position and may overlap.
pub trait DiskFile: Send + Sync {
    /// Writes all of `bytes` at `position`, growing the file where needed.
    fn write_at(&self, bytes: &[u8], position: u64) -> io::Result<()> {
        self.write_vectored_at(&[bytes], position)
    }

    /// Writes all `parts`, one after the other, beginning at `position`.
    fn write_vectored_at(&self, parts: &[&[u8]], position: u64) -> io::Result<()>;

    /// Reads up to `into.len()` bytes; fewer only where the file ends.
    fn read_at(&self, into: &mut [u8], position: u64) -> io::Result<usize>;

    /// [`DiskFile::read_at`] if it can be done without waiting for the device; else `None`.
    fn try_read_at(&self, into: &mut [u8], position: u64) -> io::Result<Option<usize>>;

    /// Says that these bytes will be read soon: what can be fetched without waiting for it may be.
    /// A hint, so it never fails.
    fn will_read(&self, position: u64, len: u64) {
        let _ = (position, len);
    }

    /// Says that reads come in no order that could be guessed: nothing is to be fetched but what is
    /// read, or what [`DiskFile::will_read`] names. A hint, so it never fails.
    fn reads_at_random(&self) {}

    /// Makes every byte durable that was written, by anyone, before the call (`fdatasync`).
    ///
    /// # Errors
    /// After one, what was written may be lost, and a second call may say nothing about it.
    fn sync(&self) -> io::Result<()>;

    /// The file's length in bytes.
    fn len(&self) -> io::Result<u64>;

    /// Whether the file has no bytes.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Cuts the file, or fills it up with zeros.
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// Reserves room, so that writes below `len` can't run out of it. New bytes are zeros.
    fn preallocate(&self, len: u64) -> io::Result<()>;
}

/// Whether an error says that bytes can't be got off the device, or that the file system's own
/// records of the file are broken: the rest of the disk may be fine.
pub(crate) fn is_unreadable(error: &io::Error) -> bool {
    const ERRORS: [Errno; 6] =
        [Errno::IO, Errno::BADMSG, Errno::UCLEAN, Errno::NODATA, Errno::ILSEQ, Errno::REMOTEIO];
    Errno::from_io_error(error).is_some_and(|errno| ERRORS.contains(&errno))
}

/// The parts as the kernel wants them, without the first `skip` bytes, at most `max` parts.
fn slices<'a>(parts: &[&'a [u8]], mut skip: usize, max: usize) -> Vec<IoSlice<'a>> {
    let mut slices = Vec::with_capacity(parts.len().min(max));
    for part in parts {
        if skip >= part.len() {
            skip -= part.len();
            continue;
        }
        if slices.len() == max {
            break;
        }
        slices.push(IoSlice::new(part.get(skip..).unwrap_or_default()));
        skip = 0;
    }
    slices
}
