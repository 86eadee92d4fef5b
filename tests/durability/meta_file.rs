//! The metadata store's file on the faulty disk.

use std::io;
use std::sync::Arc;

use interflow_logstore::disk::{Disk, DiskFile, FaultFolder};
use interflow_meta::Backend;

/// Its name in its folder.
pub(crate) const NAME: &str = "meta.redb";

/// A file as the metadata store wants it.
pub(crate) struct MetaFile(Arc<dyn DiskFile>);

impl MetaFile {
    pub(crate) fn open(folder: &FaultFolder) -> io::Result<Self> {
        let file = match folder.open(NAME) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let file = folder.create(NAME)?;
                folder.sync_folder()?;
                file
            }
            opened => opened?,
        };
        Ok(Self(file))
    }
}

impl std::fmt::Debug for MetaFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MetaFile")
    }
}

impl Backend for MetaFile {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let mut at = 0;
        while at < out.len() {
            match self.0.read_at(&mut out[at..], offset + at as u64)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                read => at += read,
            }
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write_vectored_at(&[data], offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync()
    }
}
