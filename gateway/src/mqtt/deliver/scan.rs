//! The scans of the logs by those who are behind: sessions near one another share them.
//!
//! ```text
//!   session ─┐                ┌─ page ─┬─ page ─┬─ page ─┐  decoded, the last used stay, bounded
//!   session ─┼─► Scan::page ──┤                          │
//!   group   ─┘                └─► one read at a time ────┘
//! ```
//!
//! A reader holds no page while its client is slow: it falls out of the scan and finds its page
//! again, or reads it again.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use interflow_logstore::{LogId, Read, ReadError};
use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;

use super::dispatch::DispatchParts;
use super::page::{Filter, Page};

/// Pages that nobody looked for in this time are let go.
const LINGER: Duration = Duration::from_secs(5);

/// The scan of one log.
#[derive(Debug)]
pub(crate) struct Scan {
    log: LogId,
    pages: Mutex<Pages>,
    max_bytes: usize,
    /// Who holds it reads the log.
    turn: Semaphore,
    used: Arc<Notify>,
}

#[derive(Debug, Default)]
struct Pages {
    /// The last used ones are at the end.
    pages: VecDeque<Arc<Page>>,
    bytes: usize,
    was_used: bool,
}

impl Pages {
    fn find(&mut self, offset: u64, filter: &Filter) -> Option<Arc<Page>> {
        self.was_used = true;
        let at = self.pages.iter().position(|page| page.has(offset) && page.serves(filter))?;
        let page = self.pages.remove(at)?;
        self.pages.push_back(page.clone());
        Some(page)
    }

    /// One page always stays.
    fn keep(&mut self, page: Arc<Page>, max_bytes: usize) {
        self.was_used = true;
        self.bytes += page.bytes();
        self.pages.push_back(page);
        while self.bytes > max_bytes && self.pages.len() > 1 {
            let Some(page) = self.pages.pop_front() else { break };
            self.bytes -= page.bytes();
        }
    }

    /// What to skip by, for a reader of `filter`: the first to read a stretch reads what may match
    /// its own filters, the second reads everything, for all who come after it.
    fn filter(&self, offset: u64, filter: &Filter) -> Filter {
        let was_read = self.pages.iter().any(|page| page.filter().is_some() && page.has(offset));
        if was_read { None } else { filter.clone() }
    }
}

impl Scan {
    fn new(log: LogId, max_bytes: usize, used: Arc<Notify>) -> Self {
        Self { log, pages: Mutex::default(), max_bytes, turn: Semaphore::new(1), used }
    }

    /// A page that has `offset`, with everything that a reader of `filter` looks for. Its end is
    /// past `offset` unless the log ends there.
    ///
    /// # Errors
    /// Those of the read.
    pub(crate) async fn page(
        &self,
        parts: &DispatchParts,
        offset: u64,
        filter: &Filter,
    ) -> Result<Arc<Page>, ReadError> {
        if let Some(page) = self.pages.lock().find(offset, filter) {
            return Ok(page);
        }
        // Never closed. Whoever had the turn before may have read what is wanted here.
        let _turn = self.turn.acquire().await;
        let filter = {
            let mut pages = self.pages.lock();
            if let Some(page) = pages.find(offset, filter) {
                return Ok(page);
            }
            pages.filter(offset, filter)
        };
        parts.metrics.catch_up_reads.inc();
        let read = Read {
            log: self.log,
            offset,
            max_bytes: parts.read_bytes,
            stable_only: true,
            filter: filter.clone(),
        };
        let outcome = parts.client.read(read).await?;
        // The bound of a read counts what is stored; many small records come to more.
        let max_bytes = parts.read_bytes.saturating_mul(4);
        let page = Arc::new(Page::decode(parts, offset, filter, &outcome, max_bytes));
        if page.has(offset) {
            self.pages.lock().keep(page.clone(), self.max_bytes);
            self.used.notify_one();
        }
        Ok(page)
    }

    /// Lets go of pages that were not used since the last time. False if none are left.
    fn sweep(&self) -> bool {
        let mut pages = self.pages.lock();
        if !std::mem::take(&mut pages.was_used) {
            *pages = Pages::default();
        }
        !pages.pages.is_empty()
    }
}

/// The scans of all logs of the stream.
#[derive(Debug)]
pub(crate) struct Scans {
    scans: Box<[Scan]>,
    used: Arc<Notify>,
}

impl Scans {
    /// Each keeps `max_bytes` of pages at most, and one page in any case.
    pub(crate) fn new(logs: impl Iterator<Item = LogId>, max_bytes: usize) -> Self {
        let used = Arc::<Notify>::default();
        let scans = logs.map(|log| Scan::new(log, max_bytes, used.clone())).collect();
        Self { scans, used }
    }

    pub(crate) fn get(&self, shard: usize) -> Option<&Scan> {
        self.scans.get(shard)
    }

    /// Lets go of pages once nobody looks for them, until `stop`.
    pub(crate) async fn run(&self, stop: CancellationToken) {
        let sweep = async {
            loop {
                self.used.notified().await;
                loop {
                    tokio::time::sleep(LINGER).await;
                    if self.scans.iter().filter(|scan| scan.sweep()).count() == 0 {
                        break;
                    }
                }
            }
        };
        tokio::select! {
            () = sweep => {}
            () = stop.cancelled() => {}
        }
    }
}

#[cfg(test)]
impl Scans {
    /// Bytes of all pages.
    pub(crate) fn bytes(&self) -> usize {
        self.scans.iter().map(|scan| scan.pages.lock().bytes).sum()
    }
}
