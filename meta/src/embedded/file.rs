//! A backend on a file that one process has at a time.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};

use super::OpenError;
use super::backend::Backend;

/// A locked file. The lock goes with the process, however it ends.
#[derive(Debug)]
pub struct FileBackend {
    file: File,
}

impl FileBackend {
    /// Opens or creates the file at `path` and locks it.
    ///
    /// # Errors
    /// [`OpenError::Locked`] when another process has it; [`OpenError::Io`].
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(OpenError::Io)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(OpenError::Locked),
            Err(error) => return Err(OpenError::Io(error.into())),
        }
        // A new file is only durable once its folder is.
        if let Some(folder) = path.parent() {
            let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
            File::open(folder).and_then(|folder| folder.sync_all()).map_err(OpenError::Io)?;
        }
        Ok(Self { file })
    }
}

impl Backend for FileBackend {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(out, offset)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.file.write_all_at(data, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        // fdatasync also writes the length, which is needed to read the data back.
        self.file.sync_data()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{EmbeddedOptions, EmbeddedStore, Env, Meta};

    fn open(path: &Path) -> Result<Meta, OpenError> {
        let env = Env::default();
        let store = EmbeddedStore::open(path, &EmbeddedOptions::default(), env.clone())?;
        Ok(Meta::new(Arc::new(store), env, "test"))
    }

    #[tokio::test]
    async fn a_file_is_kept_and_its_versions_go_on() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("meta");
        let mut last = 0;
        for n in 0..3_u8 {
            let meta = open(&path).unwrap();
            let tx = meta.begin();
            let before = tx.get(b"k").await.unwrap();
            assert_eq!(before.is_some(), n > 0);
            tx.set("k", vec![n]).unwrap();
            let version = tx.commit().await.unwrap().version;
            assert!(version > last, "versions rise over restarts");
            last = version;
        }
    }

    #[tokio::test]
    async fn a_file_in_use_is_told_from_a_bad_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("meta");
        let meta = open(&path).unwrap();
        assert!(matches!(open(&path), Err(OpenError::Locked)));
        meta.close().await;
        drop(meta);
        open(&path).unwrap();
        std::fs::write(&path, b"no store at all, but long enough to look".repeat(300)).unwrap();
        assert!(matches!(open(&path), Err(OpenError::Corrupt(_))));
        let missing = folder.path().join("no/such/folder");
        assert!(matches!(open(&missing), Err(OpenError::Io(_))));
    }
}
