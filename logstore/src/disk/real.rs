//! The file system.

use std::fs::{File, OpenOptions};
use std::io::{self, IoSliceMut};
use std::num::NonZeroU64;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Advice, FallocateFlags, FlockOperation};
use rustix::io::{Errno, ReadWriteFlags};

use super::{Disk, DiskFile, FolderLock, Space, slices};

/// The name of the file that is locked; its content doesn't matter.
const LOCK: &str = "lock";
/// The kernel's bound on the parts of one vectored write.
const MAX_PARTS: usize = 1024;

/// A folder of the file system.
#[derive(Debug)]
pub struct RealDisk {
    path: PathBuf,
    folder: File,
}

struct RealFile(File);

struct RealLock {
    _file: File,
}

impl FolderLock for RealLock {}

impl RealDisk {
    /// Opens a folder; makes it, and those above it, if it isn't there.
    ///
    /// # Errors
    /// What the file system says.
    pub fn open(path: impl AsRef<Path>) -> io::Result<Self> {
        let path = path.as_ref().to_path_buf();
        make_folders(&path, |folder| sync_folder(&File::open(folder)?))?;
        let folder = File::open(&path)?;
        Ok(Self { path, folder })
    }

    fn options() -> OpenOptions {
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        options
    }
}

/// Makes `path` and those above it that aren't there. `sync` is called with the folder that holds
/// each new one: a new folder's own name has to last as well.
fn make_folders(path: &Path, mut sync: impl FnMut(&Path) -> io::Result<()>) -> io::Result<()> {
    let missing: Vec<&Path> = path
        .ancestors()
        .take_while(|above| !above.as_os_str().is_empty() && !above.is_dir())
        .collect();
    for folder in missing.into_iter().rev() {
        match std::fs::create_dir(folder) {
            Ok(()) => {}
            // Somebody else was faster, and may not have synced it yet.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && folder.is_dir() => {}
            Err(error) => return Err(error),
        }
        match folder.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            Some(parent) => sync(parent)?,
            None => sync(Path::new("."))?,
        }
    }
    Ok(())
}

/// Makes the names in a folder durable; not tried again, as [`sync_data`] isn't.
fn sync_folder(folder: &File) -> io::Result<()> {
    Ok(rustix::fs::fsync(folder)?)
}

/// `fdatasync`, once, whatever it says. After an error the kernel has dropped the pages, and a
/// second call would say Ok over the loss. That goes for `EINTR`, too, which Linux documents
/// without a word on what was written until then: a file system whose write-back can be
/// interrupted (NFS, FUSE) answers it in place of a write-back error that this very call has
/// taken off the description. Local ones wait without being interruptible and never answer it.
/// (`File::sync_data` tries again at `EINTR`.)
fn sync_data(file: &File) -> io::Result<()> {
    Ok(rustix::fs::fdatasync(file)?)
}

/// Reserves room by `fallocate`. A signal may end that half-way; what is reserved by then stays,
/// and the call is made again. Falls back to the length alone where the file system has no such
/// call.
fn reserve(
    fallocate: impl FnMut() -> rustix::io::Result<()>,
    set_len: impl FnOnce() -> io::Result<()>,
) -> io::Result<()> {
    match rustix::io::retry_on_intr(fallocate) {
        Ok(()) => Ok(()),
        Err(Errno::OPNOTSUPP) => set_len(),
        Err(error) => Err(error.into()),
    }
}

impl Disk for RealDisk {
    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let file = Self::options().create_new(true).open(self.path.join(name))?;
        Ok(Arc::new(RealFile(file)))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(RealFile(Self::options().open(self.path.join(name))?)))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.path)? {
            let entry = entry?;
            if let (true, Ok(name)) =
                (entry.file_type()?.is_file(), entry.file_name().into_string())
                && name != LOCK
            {
                names.push(name);
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        std::fs::remove_file(self.path.join(name))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        std::fs::rename(self.path.join(from), self.path.join(to))
    }

    fn sync_folder(&self) -> io::Result<()> {
        sync_folder(&self.folder)
    }

    fn space(&self) -> io::Result<Space> {
        let stat = rustix::io::retry_on_intr(|| rustix::fs::fstatvfs(&self.folder))?;
        Ok(Space {
            free: stat.f_bavail.saturating_mul(stat.f_frsize),
            total: stat.f_blocks.saturating_mul(stat.f_frsize),
        })
    }

    fn lock(&self) -> io::Result<Box<dyn FolderLock>> {
        let file = Self::options().create(true).truncate(false).open(self.path.join(LOCK))?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Box::new(RealLock { _file: file })),
            Err(error) => Err(error.into()),
        }
    }
}

impl DiskFile for RealFile {
    fn write_at(&self, bytes: &[u8], position: u64) -> io::Result<()> {
        self.0.write_all_at(bytes, position)
    }

    fn write_vectored_at(&self, parts: &[&[u8]], position: u64) -> io::Result<()> {
        let total: usize = parts.iter().map(|part| part.len()).sum();
        let mut done = 0;
        while done < total {
            let some = slices(parts, done, MAX_PARTS);
            match rustix::io::pwritev(&self.0, &some, position + done as u64) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => done += n,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn read_at(&self, into: &mut [u8], position: u64) -> io::Result<usize> {
        let mut done = 0;
        while let Some(rest) = into.get_mut(done..).filter(|rest| !rest.is_empty()) {
            match self.0.read_at(rest, position + done as u64) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    fn try_read_at(&self, into: &mut [u8], position: u64) -> io::Result<Option<usize>> {
        let wanted = into.len();
        let mut parts = [IoSliceMut::new(into)];
        match rustix::io::preadv2(&self.0, &mut parts, position, ReadWriteFlags::NOWAIT) {
            // A short read means that the rest isn't cached, or that the file ends.
            Ok(n) if n == wanted => Ok(Some(n)),
            Ok(_) | Err(Errno::AGAIN | Errno::OPNOTSUPP | Errno::INTR) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn will_read(&self, mut position: u64, mut len: u64) {
        // One call fetches no more than this, whatever it is asked for.
        const MAX_ADVICE: u64 = 128 << 10;
        while let Some(some) = NonZeroU64::new(len.min(MAX_ADVICE)) {
            if rustix::fs::fadvise(&self.0, position, Some(some), Advice::WillNeed).is_err() {
                return;
            }
            position = position.saturating_add(some.get());
            len -= some.get();
        }
    }

    fn reads_at_random(&self) {
        let _ = rustix::fs::fadvise(&self.0, 0, None, Advice::Random);
    }

    fn sync(&self) -> io::Result<()> {
        sync_data(&self.0)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn preallocate(&self, len: u64) -> io::Result<()> {
        reserve(
            || rustix::fs::fallocate(&self.0, FallocateFlags::empty(), 0, len),
            || if self.len()? >= len { Ok(()) } else { self.set_len(len) },
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_every_new_folder_is_synced() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        let mut synced = Vec::new();
        let mut make = |path: &Path| {
            synced.clear();
            make_folders(path, |folder| {
                synced.push(folder.to_path_buf());
                Ok(())
            })
            .unwrap();
            synced.clone()
        };
        let deep = root.join("a/b/c");
        assert_eq!(make(&deep), [root.to_path_buf(), root.join("a"), root.join("a/b")]);
        assert!(deep.is_dir());
        assert!(make(&deep).is_empty(), "nothing is new");
        assert_eq!(make(&root.join("a/b/d")), [root.join("a/b")]);
        RealDisk::open(root.join("e/f")).unwrap();
        assert!(root.join("e/f").is_dir());
        std::fs::write(root.join("file"), b"").unwrap();
        assert!(make_folders(&root.join("file"), |_| Ok(())).is_err());
    }

    #[test]
    fn reserving_goes_on_after_a_signal() {
        let mut answers = vec![Ok(()), Err(Errno::INTR), Err(Errno::INTR)];
        reserve(|| answers.pop().unwrap(), || panic!("not needed")).unwrap();
        assert!(answers.is_empty());
        let mut is_set = false;
        reserve(
            || Err(Errno::OPNOTSUPP),
            || {
                is_set = true;
                Ok(())
            },
        )
        .unwrap();
        assert!(is_set);
        let full = reserve(|| Err(Errno::NOSPC), || panic!("not needed")).unwrap_err();
        assert_eq!(full.kind(), io::ErrorKind::StorageFull);
    }

    #[test]
    fn what_is_written_is_read_back_over_a_reserved_file() {
        let root = tempfile::tempdir().unwrap();
        let disk = RealDisk::open(root.path()).unwrap();
        let file = disk.create("a").unwrap();
        file.preallocate(10_000).unwrap();
        assert_eq!(file.len().unwrap(), 10_000);
        file.write_vectored_at(&[b"one", b"", b"two"], 4094).unwrap();
        file.sync().unwrap();
        disk.sync_folder().unwrap();
        let mut bytes = [0; 8];
        assert_eq!(disk.open("a").unwrap().read_at(&mut bytes, 4093).unwrap(), 8);
        assert_eq!(&bytes, b"\0onetwo\0");
    }
}
