//! Where a standalone keeps its bytes.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use interflow_logstore::disk::{Disk, RealDisk};
use interflow_meta::{Backend, FileBackend, OpenError};

use crate::config::Config;
use crate::meta_store::META_FILE;

/// The folder of the journal.
const JOURNAL_FOLDER: &str = "journal";

/// The two things that a standalone writes to.
pub struct Disks {
    /// What the journal writes to.
    pub journal: Arc<dyn Disk>,
    /// What the embedded metadata store writes to.
    pub meta: Arc<dyn Backend>,
}

impl Disks {
    /// The data folder of `config`, made if there is none. The folder is this process's alone
    /// until the disks are dropped.
    ///
    /// # Errors
    /// A folder that can't be made or written; another process that has it.
    pub fn open(config: &Config) -> anyhow::Result<Self> {
        let folder = &config.data_dir.0;
        let (journal, meta) = (folder.join(JOURNAL_FOLDER), folder.join(META_FILE));
        make_folder(&journal).with_context(|| {
            format!("cannot make the data folder {} (see --data-dir)", folder.display())
        })?;
        let meta = FileBackend::open(&meta).map_err(|error| match error {
            OpenError::Locked => anyhow::anyhow!(
                "another interflow runs on {}: end that one, or choose another folder with \
                 --data-dir",
                folder.display()
            ),
            other => anyhow::Error::new(other).context(format!("cannot open {}", meta.display())),
        })?;
        let journal = RealDisk::open(&journal)
            .with_context(|| format!("cannot open {}", journal.display()))?;
        Ok(Self { journal: Arc::new(journal), meta: Arc::new(meta) })
    }
}

fn make_folder(folder: &Path) -> std::io::Result<()> {
    fs::create_dir_all(folder)?;
    // What was just made must still be there after a power cut.
    for made in folder.ancestors().skip(1).take(2).filter(|made| !made.as_os_str().is_empty()) {
        fs::File::open(made)?.sync_all()?;
    }
    Ok(())
}
