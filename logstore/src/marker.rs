//! Whose a disk is: a small file beside the extents that names the cluster, the node and the disk.
//!
//! What the metadata doesn't know is dropped from the disk, and what it knows and the disk doesn't
//! have is lost. So a journal must never be run with metadata that isn't its own (one of them lost,
//! another store, a folder that was mixed up): the marker is written before the first entry, the
//! metadata remembers the disk's id, and both are compared at each start.

use std::io;

use uuid::Uuid;

use crate::NodeId;
use crate::disk::Disk;

const NAME: &str = "owner";
/// A crash leaves this behind; the next start writes over it.
const UNFINISHED: &str = "owner.tmp";
const FIRST_LINE: &str = "interflow journal 1";
/// A marker is far shorter, in bytes.
const MAX_BYTES: usize = 4096;

/// Whose a disk is, and which.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Marker {
    /// The cluster whose metadata the disk goes with.
    pub cluster: Uuid,
    /// The node of that cluster.
    pub node: NodeId,
    /// The disk's own id, given when it was first taken.
    pub disk: Uuid,
}

/// What the metadata says, when a disk is to be taken.
#[derive(Clone, Copy, Debug)]
pub struct Claim {
    /// The cluster.
    pub cluster: Uuid,
    /// It was set up just now.
    pub is_new: bool,
    /// The node of this process.
    pub node: NodeId,
    /// The disk that the node's segments are on, if it has one.
    pub disk: Option<Uuid>,
}

/// Why a disk is not taken. Nothing on it was changed.
#[derive(Debug, thiserror::Error)]
pub enum MarkerError {
    /// It goes with other metadata.
    #[error(
        "the journal belongs to cluster {} node {}, and the metadata is that of cluster {} node {}: \
         put back the metadata that belongs to it (see --meta and --data-dir), or take an empty folder",
        found.cluster, found.node, claim.cluster, claim.node
    )]
    Foreign {
        /// Whose it is.
        found: Marker,
        /// What the metadata says.
        claim: Claim,
    },
    /// The messages that the metadata knows are on another disk.
    #[error(
        "the metadata knows messages that belong to another journal than this one: put that \
         journal back (see --data-dir and --meta), or take empty metadata as well"
    )]
    OtherDisk,
    /// There are messages, and the metadata that knows them is gone.
    #[error(
        "the journal holds messages, and the metadata is new and knows none of them: put back the \
         metadata that belongs to it (see --meta and --data-dir), or take an empty folder"
    )]
    MetadataIsNew,
    /// What the marker says can't be read.
    #[error("the journal's file `{NAME}` is damaged: restore the folder from a backup")]
    Damaged,
    /// The file system's answer.
    #[error("cannot read or write the journal's file `{NAME}`: {0}")]
    Io(#[from] io::Error),
}

impl Marker {
    /// Finds that the disk is the claimant's, or makes it so, durably, under the id `fresh`.
    /// `has_entries` says whether the journal holds anything; one with entries and without a
    /// marker is of a build that wrote none.
    ///
    /// # Errors
    /// See [`MarkerError`].
    pub fn claim(
        disk: &dyn Disk,
        claim: Claim,
        has_entries: bool,
        fresh: Uuid,
    ) -> Result<Self, MarkerError> {
        match read(disk)? {
            Some(found) if (found.cluster, found.node) != (claim.cluster, claim.node) => {
                Err(MarkerError::Foreign { found, claim })
            }
            Some(found) if claim.disk.is_some_and(|known| known != found.disk) => {
                Err(MarkerError::OtherDisk)
            }
            Some(found) => Ok(found),
            None if claim.disk.is_some() => Err(MarkerError::OtherDisk),
            None if has_entries && claim.is_new => Err(MarkerError::MetadataIsNew),
            None => {
                let marker = Self { cluster: claim.cluster, node: claim.node, disk: fresh };
                marker.write(disk)?;
                Ok(marker)
            }
        }
    }

    fn write(self, disk: &dyn Disk) -> io::Result<()> {
        match disk.remove(UNFINISHED) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = disk.create(UNFINISHED)?;
        file.write_at(self.encode().as_bytes(), 0)?;
        file.sync()?;
        disk.rename(UNFINISHED, NAME)?;
        disk.sync_folder()
    }

    /// Lines for people, and a checksum over them.
    fn encode(self) -> String {
        let Self { cluster, node, disk } = self;
        let lines = format!("{FIRST_LINE}\ncluster {cluster}\nnode {}\ndisk {disk}\n", node.0);
        format!("{lines}crc32c {:08x}\n", crc32c::crc32c(lines.as_bytes()))
    }

    fn decode(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let first = lines.next()?;
        let mut field = |name: &str| lines.next()?.strip_prefix(name);
        let marker = Self {
            cluster: field("cluster ")?.parse().ok()?,
            node: NodeId(field("node ")?.parse().ok()?),
            disk: field("disk ")?.parse().ok()?,
        };
        (first == FIRST_LINE && marker.encode() == text).then_some(marker)
    }
}

fn read(disk: &dyn Disk) -> Result<Option<Marker>, MarkerError> {
    let file = match disk.open(NAME) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let len = usize::try_from(file.len()?).unwrap_or(usize::MAX);
    if len > MAX_BYTES {
        return Err(MarkerError::Damaged);
    }
    let mut bytes = vec![0; len];
    let n = file.read_at(&mut bytes, 0)?;
    bytes.truncate(n);
    let text = std::str::from_utf8(&bytes).map_err(|_| MarkerError::Damaged)?;
    Marker::decode(text).map(Some).ok_or(MarkerError::Damaged)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{FaultDisk, FaultFolder};

    const FRESH: Uuid = Uuid::from_u128(7);

    fn claim(cluster: u128) -> Claim {
        Claim { cluster: Uuid::from_u128(cluster), is_new: false, node: NodeId(1), disk: None }
    }

    fn take(folder: &FaultFolder, claim: Claim, has_entries: bool) -> Result<Uuid, MarkerError> {
        Marker::claim(folder, claim, has_entries, FRESH).map(|marker| marker.disk)
    }

    #[test]
    fn the_first_owner_keeps_the_disk_over_power_cuts() {
        for seed in 0..64 {
            let disk = FaultDisk::new();
            let folder = disk.folder("journal");
            assert_eq!(take(&folder, Claim { is_new: true, ..claim(1) }, false).unwrap(), FRESH);
            disk.crash(seed);
            let folder = disk.folder("journal");
            let known = Claim { disk: Some(FRESH), ..claim(1) };
            let later = Marker::claim(&folder, known, true, Uuid::from_u128(8)).unwrap();
            assert_eq!(later.disk, FRESH);
            for has_entries in [false, true] {
                let refused = take(&folder, Claim { is_new: true, ..claim(2) }, has_entries);
                assert!(matches!(refused, Err(MarkerError::Foreign { .. })), "{refused:?}");
                let refused = take(&folder, Claim { node: NodeId(2), ..claim(1) }, has_entries);
                assert!(matches!(refused, Err(MarkerError::Foreign { .. })), "{refused:?}");
            }
        }
    }

    #[test]
    fn a_power_cut_before_the_claim_is_durable_leaves_it_to_be_made_again() {
        for (seed, is_folder) in (0..64).flat_map(|seed| [(seed, false), (seed, true)]) {
            let disk = FaultDisk::new();
            let folder = disk.folder("journal");
            if is_folder {
                disk.fail_folder_sync_after(0);
            } else {
                disk.fail_sync_after(0);
            }
            assert!(take(&folder, claim(1), false).is_err());
            disk.crash(seed);
            let folder = disk.folder("journal");
            take(&folder, claim(1), false).unwrap();
            take(&folder, claim(1), true).unwrap();
        }
    }

    #[test]
    fn metadata_that_knows_another_disk_is_no_owner() {
        let disk = FaultDisk::new();
        let folder = disk.folder("journal");
        let known = Claim { disk: Some(Uuid::from_u128(9)), ..claim(1) };
        let refused = take(&folder, known, false);
        assert!(matches!(refused, Err(MarkerError::OtherDisk)), "{refused:?}");
        assert!(folder.list().unwrap().is_empty());
        take(&folder, claim(1), false).unwrap();
        let refused = take(&folder, known, true);
        assert!(matches!(refused, Err(MarkerError::OtherDisk)), "{refused:?}");
    }

    #[test]
    fn entries_without_a_marker_are_taken_over_only_by_metadata_that_was_there() {
        let disk = FaultDisk::new();
        let folder = disk.folder("journal");
        let refused = take(&folder, Claim { is_new: true, ..claim(1) }, true);
        assert!(matches!(refused, Err(MarkerError::MetadataIsNew)), "{refused:?}");
        assert!(folder.list().unwrap().is_empty());
        take(&folder, claim(1), true).unwrap();
        assert!(take(&folder, claim(2), true).is_err());
    }

    #[test]
    fn a_damaged_marker_is_told() {
        let disk = FaultDisk::new();
        let folder = disk.folder("journal");
        take(&folder, claim(1), false).unwrap();
        for at in 0..folder.open(NAME).unwrap().len().unwrap() {
            folder.flip(NAME, at, 1).unwrap();
            let refused = take(&folder, claim(1), true);
            assert!(matches!(refused, Err(MarkerError::Damaged)), "{at}: {refused:?}");
            folder.flip(NAME, at, 1).unwrap();
        }
        take(&folder, claim(1), true).unwrap();
    }
}
