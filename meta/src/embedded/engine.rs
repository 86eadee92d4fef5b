//! One opened redb database, over the guard that keeps its file from harm.

use std::io;
use std::sync::Arc;

use redb::{Database, DatabaseError, StorageError};

use super::backend::Backend;
use super::guard::{ForRedb, Guard};
use super::{OpenError, failed, layout, superblock};
use crate::error::MetaError;

/// A database and what it writes to.
pub(super) struct Engine {
    pub(super) database: Database,
    pub(super) guard: Arc<Guard>,
}

impl Engine {
    /// Opens what is on `backend`, or makes it. Blocks: every page is read and verified.
    pub(super) fn open(backend: Arc<dyn Backend>, cache_bytes: usize) -> Result<Self, OpenError> {
        let found = superblock::read(&*backend)?;
        if found == superblock::Found::Nothing {
            backend.set_len(0).map_err(OpenError::Io)?;
            backend.set_len(superblock::BYTES).map_err(OpenError::Io)?;
        } else {
            // A length whose sync failed in an earlier process may only seem to be there.
            let len = backend.len().map_err(OpenError::Io)?;
            backend.set_len(len).map_err(OpenError::Io)?;
        }
        let engine = Self::on(Arc::clone(&backend), cache_bytes)?;
        if found == superblock::Found::Nothing {
            create_tables(&engine.database).map_err(damaged)?;
            superblock::write(&*backend).map_err(OpenError::Io)?;
        }
        engine.guard.arm();
        Ok(engine)
    }

    /// Opens it once more, behind another engine to which the disk had no room.
    pub(super) fn reopen(backend: Arc<dyn Backend>, cache_bytes: usize) -> Result<Self, OpenError> {
        let engine = Self::on(backend, cache_bytes)?;
        engine.guard.arm();
        Ok(engine)
    }

    fn on(backend: Arc<dyn Backend>, cache_bytes: usize) -> Result<Self, OpenError> {
        let guard = Arc::new(Guard::new(backend));
        let database = Database::builder()
            .set_cache_size(cache_bytes)
            // Every page is read and its checksum verified, also after a clean stop: damage is told
            // here, where otherwise redb may trust it or panic later.
            .set_check_integrity_on_open(true)
            .create_with_backend(ForRedb(Arc::clone(&guard)))
            .map_err(|error| match error {
                DatabaseError::DatabaseAlreadyOpen => OpenError::Locked,
                DatabaseError::Storage(StorageError::Io(error))
                    if error.kind() != io::ErrorKind::InvalidData =>
                {
                    OpenError::Io(error)
                }
                other => OpenError::Corrupt(other.to_string()),
            })?;
        Ok(Self { database, guard })
    }
}

fn create_tables(database: &Database) -> Result<(), MetaError> {
    let write = database.begin_write().map_err(failed)?;
    {
        write.open_table(layout::DATA).map_err(failed)?;
        let mut system = write.open_table(layout::SYSTEM).map_err(failed)?;
        system.insert(layout::VERSION, 0).map_err(failed)?;
    }
    write.commit().map_err(failed)
}

pub(super) fn damaged(error: MetaError) -> OpenError {
    OpenError::Corrupt(error.to_string())
}
