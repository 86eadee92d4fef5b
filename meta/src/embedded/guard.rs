//! What redb writes to: the backend, kept from harm when a write fails.
//!
//! ```text
//!   pages, lengths ──► backend                     at once
//!   the header     ──► held ──► backend, sync      at the sync that ends a commit
//!   after a fault, all of it ──► memory            the disk stays as it was
//! ```
//!
//! The header says which tree counts. It is written behind everything else, so a page for which the
//! disk has no room leaves the last commit's tree the one that counts, in the file as in memory.
//!
//! Once it is armed, redb is told of no failed write: after one it would read nothing from its
//! backend any more. It goes on over a copy in memory instead, and whoever commits asks for the
//! [`Fault`] afterwards. What was published before the fault is read as ever: no page of it is
//! written over.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use super::backend::Backend;
use super::overlay::Overlay;
use super::superblock;

/// Why nothing is written any more.
#[derive(Clone, Debug)]
pub(super) enum Fault {
    /// The disk has no room. Nothing of the commit counts, and [`Guard::has_room`] tells when
    /// another engine may be opened on the backend.
    Full,
    /// A write or sync failed. The commit may count after a restart.
    Failed(String),
}

/// A backend as redb sees it, behind the superblock.
#[derive(Debug)]
pub(super) struct Guard {
    backend: Arc<dyn Backend>,
    /// Reads have to look into `state`.
    has_fault: AtomicBool,
    is_retired: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The header as the last sync left it.
    durable: Option<Vec<u8>>,
    /// The header that the next sync writes.
    held: Option<Vec<u8>>,
    fault: Option<Fault>,
    /// What the disk had no room for.
    refused: Option<Refused>,
    /// Failures are kept from redb.
    is_armed: bool,
    /// Where writes go after a fault; none if the backend doesn't even say how long it is.
    overlay: Option<Overlay>,
}

#[derive(Debug)]
enum Refused {
    Write(u64, Vec<u8>),
    Len(u64),
}

/// Where redb's `offset` lies.
fn behind(offset: u64) -> io::Result<u64> {
    offset.checked_add(superblock::BYTES).ok_or_else(|| io::ErrorKind::InvalidInput.into())
}

impl Guard {
    pub(super) fn new(backend: Arc<dyn Backend>) -> Self {
        Self {
            backend,
            has_fault: AtomicBool::new(false),
            is_retired: AtomicBool::new(false),
            state: Mutex::default(),
        }
    }

    /// The database is open: from now on it has something to go on reading after a fault.
    pub(super) fn arm(&self) {
        self.state.lock().is_armed = true;
    }

    pub(super) fn backend(&self) -> &Arc<dyn Backend> {
        &self.backend
    }

    /// Why writing ended, if it did. To be asked after each commit: redb says that it went well.
    pub(super) fn fault(&self) -> Option<Fault> {
        self.state.lock().fault.clone()
    }

    /// After [`Fault::Full`]: whether the disk takes now what it had no room for. No tree that
    /// counts has that page, so that it is written does no harm.
    pub(super) fn has_room(&self) -> io::Result<bool> {
        let tried = match &self.state.lock().refused {
            None => return Ok(true),
            Some(Refused::Write(offset, data)) => self.backend.write(behind(*offset)?, data),
            Some(Refused::Len(len)) => self.backend.set_len(behind(*len)?),
        };
        match tried {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::StorageFull => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Another engine has taken the backend over; this one's views read no more.
    pub(super) fn retire(&self) {
        self.is_retired.store(true, Ordering::Release);
    }

    pub(super) fn is_retired(&self) -> bool {
        self.is_retired.load(Ordering::Acquire)
    }

    fn len(&self) -> io::Result<u64> {
        let mut state = self.state.lock();
        if state.fault.is_some() {
            return Ok(state.overlay()?.len());
        }
        Ok(self.backend.len()?.saturating_sub(superblock::BYTES))
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        if offset > 0 && !self.has_fault.load(Ordering::Acquire) {
            return self.read_below(offset, out);
        }
        let mut state = self.state.lock();
        if state.fault.is_some() {
            state.overlay()?.read(offset, out, |at, out| self.read_below(at, out))?;
        } else {
            self.read_below(offset, out)?;
        }
        if offset == 0 {
            for (to, from) in out.iter_mut().zip(state.held.iter().flatten()) {
                *to = *from;
            }
        }
        Ok(())
    }

    fn read_below(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.backend.read(behind(offset)?, out)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.state.lock();
        if offset == 0 {
            if state.durable.is_none() && self.backend.len()? >= behind(data.len() as u64)? {
                let mut header = vec![0; data.len()];
                self.read_below(0, &mut header)?;
                state.durable = Some(header);
            }
            state.held = Some(data.to_vec());
            return Ok(());
        }
        if state.fault.is_none() {
            let Err(error) = self.backend.write(behind(offset)?, data) else { return Ok(()) };
            self.refused(&mut state, error, Refused::Write(offset, data.to_vec()))?;
        }
        state.overlay()?.write(offset, data, |at, out| self.read_below(at, out))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.state.lock();
        if state.fault.is_none() {
            let Err(error) = self.backend.set_len(behind(len)?) else { return Ok(()) };
            self.refused(&mut state, error, Refused::Len(len))?;
        }
        state.overlay()?.set_len(len);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.state.lock();
        if state.fault.is_some() {
            return Ok(());
        }
        if let Some(header) = &state.held
            && let Err(error) = self.backend.write(behind(0)?, header)
        {
            // To put the old one back is what there has to be room for then.
            let Some(old) = state.durable.clone() else { return Err(error) };
            return self.refused(&mut state, error, Refused::Write(0, old));
        }
        let Err(error) = self.backend.sync() else {
            if let Some(header) = state.held.take() {
                state.durable = Some(header);
            }
            return Ok(());
        };
        // Pages of a failed sync look clean and may not be on the disk: a restart without a reboot
        // must not take the new tree for complete, and then build on it.
        if let (Some(_), Some(header)) = (&state.held, &state.durable) {
            let _ = self.backend.write(behind(0)?, header);
        }
        self.fail(&mut state, Fault::Failed(error.to_string()), error)
    }

    fn refused(&self, state: &mut State, error: io::Error, refused: Refused) -> io::Result<()> {
        if error.kind() == io::ErrorKind::StorageFull {
            state.refused = Some(refused);
            self.fail(state, Fault::Full, error)
        } else {
            self.fail(state, Fault::Failed(error.to_string()), error)
        }
    }

    fn fail(&self, state: &mut State, fault: Fault, error: io::Error) -> io::Result<()> {
        if !state.is_armed {
            return Err(error);
        }
        let len = self.backend.len().ok();
        state.overlay = len.map(|len| Overlay::new(len.saturating_sub(superblock::BYTES)));
        state.fault = Some(fault);
        self.has_fault.store(true, Ordering::Release);
        Ok(())
    }
}

impl State {
    fn overlay(&mut self) -> io::Result<&mut Overlay> {
        self.overlay.as_mut().ok_or_else(|| io::Error::other("the disk is gone"))
    }
}

/// A guard as redb takes it.
#[derive(Debug)]
pub(super) struct ForRedb(pub(super) Arc<Guard>);

impl redb::StorageBackend for ForRedb {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write(offset, data)
    }
}
