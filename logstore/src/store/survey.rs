//! What is in the folder at the start: footers, and scans of the extents without one.
//!
//! What the disk does not give back is no reason not to open: it is judged as damage. Only where
//! nothing at all can be read there is nothing to go on with.

use std::collections::BTreeMap;
use std::io;

use crate::disk::{Disk, DiskFile, is_unreadable};
use crate::journal::footer::{MARK, Mark, Summary};
use crate::journal::format::{self, EXTENT_HEADER};
use crate::journal::recovery::Scanned;
use crate::journal::scan::{Found, scan_past_errors};
use crate::journal::{ExtentId, ExtentKey, ExtentKind};

use super::OpenError;
use super::open::trying;

/// All that the folder holds.
pub(super) struct Survey {
    /// The names of all files.
    pub(super) names: Vec<String>,
    pub(super) extents: BTreeMap<ExtentId, (ExtentKey, ExtentKind)>,
    /// Extents with a valid footer.
    pub(super) loaded: Vec<Loaded>,
    /// The others, ascending.
    pub(super) scanned: Vec<Scanned>,
}

/// An extent with a valid footer.
pub(super) struct Loaded {
    pub(super) key: ExtentKey,
    pub(super) kind: ExtentKind,
    pub(super) mark: Mark,
    pub(super) summary: Summary,
    pub(super) len: u64,
}

/// Reads what a start needs of every extent.
///
/// # Errors
/// The folder can't be listed, nothing in it can be read, or a file is of a newer format.
pub(super) fn survey(disk: &dyn Disk) -> Result<Survey, OpenError> {
    let names = disk.list().map_err(trying("listing the folder"))?;
    let extents = extents_in(&names);
    let mut survey = Survey { names, extents, loaded: Vec::new(), scanned: Vec::new() };
    let mut unread = None;
    for (key, kind) in survey.extents.values() {
        let (key, kind) = (*key, *kind);
        let name = key.file_name(kind);
        match look(disk, key, kind, &name)? {
            Looked::Footer(loaded) => survey.loaded.push(*loaded),
            Looked::Scan(scanned, error) => {
                if let Some(error) = error {
                    tracing::error!(file = name, %error, "an extent can't be read everywhere");
                    unread.get_or_insert((name, error));
                }
                survey.scanned.push(scanned);
            }
        }
    }
    match unread {
        Some((name, error)) if survey.loaded.is_empty() && !survey.scanned.iter().any(is_read) => {
            Err(trying(format!("reading {name}"))(error))
        }
        _ => Ok(survey),
    }
}

fn extents_in(names: &[String]) -> BTreeMap<ExtentId, (ExtentKey, ExtentKind)> {
    let extents = names.iter().filter_map(|name| ExtentKey::parse_name(name));
    extents.map(|(key, kind)| (key.id, (key, kind))).collect()
}

/// Asks every extent that can be read for its format, and says whether there are any. Nothing is
/// changed.
///
/// # Errors
/// [`OpenError::NewerFormat`]; the folder can't be listed, or a file not be opened.
pub(super) fn check_formats(disk: &dyn Disk) -> Result<bool, OpenError> {
    let names = disk.list().map_err(trying("listing the folder"))?;
    let extents = extents_in(&names);
    for (key, kind) in extents.values() {
        let name = key.file_name(*kind);
        match disk.open(&name) {
            Ok(file) => check_version(&*file, &name)?,
            Err(error) if is_unreadable(&error) => {}
            Err(error) => return Err(trying(format!("opening {name}"))(error)),
        }
    }
    Ok(!extents.is_empty())
}

/// Whether anything was read of it, if only that there is nothing.
fn is_read(extent: &Scanned) -> bool {
    extent.unreadable.is_empty()
        || extent.found.iter().any(|found| !matches!(found, Found::Bad { .. }))
}

enum Looked {
    Footer(Box<Loaded>),
    /// And what the disk said where it gave nothing back.
    Scan(Scanned, Option<io::Error>),
}

fn look(
    disk: &dyn Disk,
    key: ExtentKey,
    kind: ExtentKind,
    name: &str,
) -> Result<Looked, OpenError> {
    let opened = disk.open(name).and_then(|file| file.len().map(|len| (file, len)));
    let (file, len) = match opened {
        Ok(opened) => opened,
        Err(error) if is_unreadable(&error) => return Ok(lost(key, kind, error)),
        Err(error) => return Err(trying(format!("opening {name}"))(error)),
    };
    check_version(&*file, name)?;
    let footer = match read_footer(&*file, key) {
        Err(error) if is_unreadable(&error) => None,
        footer => footer.map_err(trying(format!("reading {name}")))?,
    };
    if let Some((mark, summary)) = footer {
        return Ok(Looked::Footer(Box::new(Loaded { key, kind, mark, summary, len })));
    }
    let (found, unreadable) =
        scan_past_errors(&*file, key).map_err(trying(format!("reading {name}")))?;
    let len = u32::try_from(len).unwrap_or(u32::MAX);
    let (ranges, error) = unreadable.map_or((Vec::new(), None), |u| (u.ranges, Some(u.error)));
    let scanned = Scanned { id: key.id, kind, found, len, unreadable: ranges };
    Ok(Looked::Scan(scanned, error))
}

/// A file that can't even be opened: all of an extent may have been in it.
fn lost(key: ExtentKey, kind: ExtentKind, error: io::Error) -> Looked {
    let found = vec![Found::Bad { from: EXTENT_HEADER, to: u32::MAX }];
    let unreadable = vec![(0, u32::MAX)];
    let scanned = Scanned { id: key.id, kind, found, len: u32::MAX, unreadable };
    Looked::Scan(scanned, Some(error))
}

fn check_version(file: &dyn DiskFile, name: &str) -> Result<(), OpenError> {
    let mut header = [0; 64];
    let n = match file.read_at(&mut header, 0) {
        Err(error) if is_unreadable(&error) => 0,
        read => read.map_err(trying(format!("reading {name}")))?,
    };
    match format::decode_extent_version(header.get(..n).unwrap_or_default()) {
        Some(found) if found > format::VERSION => {
            Err(OpenError::NewerFormat { file: name.to_owned(), found, known: format::VERSION })
        }
        // The name says all that is needed to read an extent whose header is damaged.
        _ => Ok(()),
    }
}

fn read_footer(file: &dyn DiskFile, key: ExtentKey) -> io::Result<Option<(Mark, Summary)>> {
    let len = file.len()?;
    let Some(at) = len.checked_sub(MARK as u64) else { return Ok(None) };
    let mut bytes = [0; MARK];
    file.read_at(&mut bytes, at)?;
    let Some(mark) = Mark::decode(&bytes, key) else { return Ok(None) };
    if u64::from(mark.summary_at) + u64::from(mark.summary_len) != at {
        return Ok(None);
    }
    let mut bytes = vec![0; mark.summary_len as usize];
    file.read_at(&mut bytes, u64::from(mark.summary_at))?;
    Ok(mark.summary(key, &bytes).map(|summary| (mark, summary)))
}
