//! The log service over a journal of its own.

use std::io;
use std::sync::Arc;

use interflow_meta::Meta;

use super::{Identity, LogConfig, LogStore, Progress};
use crate::clock::Clock;
use crate::disk::Disk;
use crate::store::{JournalStore, OpenError, Options, StoreEvents};

impl LogStore {
    /// Opens the journal in the folder `disk`, an empty one if there is none, and starts the
    /// service over it on the current tokio runtime.
    ///
    /// # Errors
    /// The journal's own: the folder is in use, of a newer format, or can't be read.
    pub async fn open_journal(
        disk: Arc<dyn Disk>,
        options: Options,
        meta: Meta,
        identity: Identity,
        config: LogConfig,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, OpenError> {
        let progress = Progress::new();
        let events = Arc::clone(&progress) as Arc<dyn StoreEvents>;
        let journal =
            tokio::task::spawn_blocking(move || JournalStore::open(disk, options, events))
                .await
                .map_err(|error| OpenError::Io {
                what: "opening the journal".to_owned(),
                error: io::Error::other(error),
            })??;
        Ok(Self::open(meta, Arc::new(journal), progress, identity, config, clock))
    }
}
