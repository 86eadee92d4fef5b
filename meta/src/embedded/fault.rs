//! A disk that loses what was not synced, for durability tests.

use std::io;
use std::sync::Arc;

use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::backend::Backend;
use super::memory::span;

/// Writes reach the disk in pieces of this size: any of them may be lost by itself.
const SECTOR: usize = 512;

/// What a disk holds over crashes. Each [`start`](FaultDisk::start) gives a backend on it, each
/// [`crash`](FaultDisk::crash) ends all of these and loses a random part of what they didn't sync.
#[derive(Debug)]
pub struct FaultDisk {
    disk: Arc<Mutex<Disk>>,
}

#[derive(Debug)]
struct Disk {
    /// What a reader sees now.
    current: Vec<u8>,
    /// What surely survives.
    durable: Vec<u8>,
    unsynced: Vec<Change>,
    random: StdRng,
    /// Backends of earlier lives are dead.
    life: u64,
    /// `sync` answers Ok and does nothing: a mutant that tests must catch.
    ignores_sync: bool,
    /// Syncs until one fails.
    fail_sync_after: Option<u64>,
    /// Writes until the disk has no room for any more.
    full_after: Option<u64>,
    /// Writes, lengths and syncs until the power goes.
    cut_after: Option<u64>,
}

#[derive(Debug)]
enum Change {
    Write { offset: usize, data: Vec<u8> },
    Len(usize),
}

impl FaultDisk {
    /// An empty disk whose losses are drawn from `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            disk: Arc::new(Mutex::new(Disk {
                current: Vec::new(),
                durable: Vec::new(),
                unsynced: Vec::new(),
                random: StdRng::seed_from_u64(seed),
                life: 0,
                ignores_sync: false,
                fail_sync_after: None,
                full_after: None,
                cut_after: None,
            })),
        }
    }

    /// From now on syncs do nothing, and say that they did.
    pub fn ignore_syncs(&self) {
        self.disk.lock().ignores_sync = true;
    }

    /// Lets `count` more syncs succeed and fails all that follow, until the next crash.
    pub fn fail_syncs_after(&self, count: u64) {
        self.disk.lock().fail_sync_after = Some(count);
    }

    /// Takes `count` more writes and growths, and refuses all that follow as a full disk does; `None`
    /// makes room.
    pub fn full_after(&self, count: Option<u64>) {
        self.disk.lock().full_after = count;
    }

    /// Cuts the power by itself in the place of the write or sync after the next `count`.
    pub fn cut_after(&self, count: u64) {
        self.disk.lock().cut_after = Some(count);
    }

    /// A backend on what the disk holds.
    #[must_use]
    pub fn start(&self) -> FaultBackend {
        FaultBackend { life: self.disk.lock().life, disk: Arc::clone(&self.disk) }
    }

    /// Cuts the power: of each unsynced write each sector is kept or lost by chance, lengths too.
    /// Backends from before answer with errors from now on.
    pub fn crash(&self) {
        self.disk.lock().crash();
    }
}

impl Disk {
    fn crash(&mut self) {
        self.life += 1;
        self.fail_sync_after = None;
        self.full_after = None;
        self.cut_after = None;
        // Anything between keeping nearly all and losing nearly all.
        let keep: f64 = self.random.random();
        for change in std::mem::take(&mut self.unsynced) {
            match change {
                Change::Len(len) => {
                    if self.random.random_bool(keep) {
                        self.durable.resize(len, 0);
                    }
                }
                Change::Write { offset, data } => {
                    let mut at = offset;
                    while at < offset + data.len() {
                        let next = ((at / SECTOR + 1) * SECTOR).min(offset + data.len());
                        if self.random.random_bool(keep) {
                            let piece = data.get(at - offset..next - offset);
                            put(&mut self.durable, at, piece.unwrap_or_default());
                        }
                        at = next;
                    }
                }
            }
        }
        self.current.clone_from(&self.durable);
    }

    /// Makes durable what was written.
    fn settle(&mut self) {
        for change in std::mem::take(&mut self.unsynced) {
            match change {
                Change::Len(len) => self.durable.resize(len, 0),
                Change::Write { offset, data } => put(&mut self.durable, offset, &data),
            }
        }
    }

    /// Takes room for one write; an error is the lack of it.
    fn take_room(&mut self) -> io::Result<()> {
        if let Some(left) = &mut self.full_after {
            *left = left.checked_sub(1).ok_or(io::ErrorKind::StorageFull)?;
        }
        Ok(())
    }

    /// Counts one change of the disk; an error is the power's end.
    fn step(&mut self) -> io::Result<()> {
        if let Some(left) = &mut self.cut_after {
            match left.checked_sub(1) {
                Some(fewer) => *left = fewer,
                None => {
                    self.crash();
                    return Err(io::Error::other("the power was cut"));
                }
            }
        }
        Ok(())
    }
}

/// Writes `data` at `offset`; a file whose new length was lost grows by what is written.
fn put(bytes: &mut Vec<u8>, offset: usize, data: &[u8]) {
    let end = offset + data.len();
    if bytes.len() < end {
        bytes.resize(end, 0);
    }
    if let Some(place) = bytes.get_mut(offset..end) {
        place.copy_from_slice(data);
    }
}

/// A backend that lives until the next crash of its disk.
#[derive(Debug)]
pub struct FaultBackend {
    life: u64,
    disk: Arc<Mutex<Disk>>,
}

impl FaultBackend {
    fn with<T>(&self, run: impl FnOnce(&mut Disk) -> io::Result<T>) -> io::Result<T> {
        let mut disk = self.disk.lock();
        if disk.life != self.life {
            return Err(io::Error::other("the power was cut"));
        }
        run(&mut disk)
    }
}

impl Backend for FaultBackend {
    fn len(&self) -> io::Result<u64> {
        self.with(|disk| u64::try_from(disk.current.len()).map_err(io::Error::other))
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.with(|disk| {
            let source =
                disk.current.get(span(offset, out.len())?).ok_or(io::ErrorKind::UnexpectedEof)?;
            out.copy_from_slice(source);
            Ok(())
        })
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.with(|disk| {
            disk.step()?;
            disk.take_room()?;
            let span = span(offset, data.len())?;
            let offset = span.start;
            disk.current.get_mut(span).ok_or(io::ErrorKind::UnexpectedEof)?.copy_from_slice(data);
            disk.unsynced.push(Change::Write { offset, data: data.to_vec() });
            Ok(())
        })
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.with(|disk| {
            disk.step()?;
            let len = span(len, 0)?.start;
            if len > disk.current.len() {
                disk.take_room()?;
            }
            disk.current.resize(len, 0);
            disk.unsynced.push(Change::Len(len));
            Ok(())
        })
    }

    fn sync(&self) -> io::Result<()> {
        self.with(|disk| {
            disk.step()?;
            if let Some(left) = &mut disk.fail_sync_after {
                let Some(fewer) = left.checked_sub(1) else {
                    return Err(io::Error::other("the sync failed"));
                };
                *left = fewer;
            }
            if disk.ignores_sync {
                return Ok(());
            }
            disk.settle();
            Ok(())
        })
    }
}
