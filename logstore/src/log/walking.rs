//! A node looks at all logs that there are: nothing here tells of those that it has nothing of.
//!
//! ```text
//!   nothing of it here ──────────────────────── mending looks: it was away from a segment's begin to its close
//!   this node is its sequencer, and doesn't know ► loaded, then placed and healed as all are
//!   its sequencer was removed ────────────────── the first replica that is left closes the segment
//! ```

use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashSet;
use interflow_meta::{Epoch, LogId, NodeId};

use super::healing::{heal, is_wounded};
use super::recovering;
use super::service::Inner;
use crate::LogError;
use crate::core::segment::Head;

/// Logs read at a time.
const PAGE: usize = 500;
/// All are looked at when the node starts, after a change of the nodes, and again after so long.
const AGAIN: Duration = Duration::from_secs(3600);

/// What the node has to do with a log.
enum Part {
    /// Perhaps it lacks something of it.
    Replica,
    /// It is the sequencer.
    Sequencer,
    /// Its sequencer doesn't come back, and appends may not come for long: until then what was lost
    /// with that node isn't copied.
    Heir,
}

/// Has all logs looked at that this node knows nothing of, until the service stops.
pub(super) async fn run(inner: Arc<Inner>) {
    loop {
        let pause = match walk(&inner).await {
            true => AGAIN,
            false => inner.config.retention_interval,
        };
        tokio::select! {
            () = inner.stop.cancelled() => return,
            () = inner.mending.nodes_changed() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// One look; says whether all that it found to do is done.
async fn walk(inner: &Arc<Inner>) -> bool {
    let here: HashSet<_> = inner.store.segments().iter().map(|found| found.id.log).collect();
    let (mut after, mut is_done) = (None, true);
    loop {
        let page = match inner.upkeep.logs(after, PAGE).await {
            Ok(page) => page,
            Err(error) => {
                tracing::debug!(%error, "the logs can't be listed now");
                return false;
            }
        };
        for (log, head) in &page {
            if inner.stop.is_cancelled() {
                return true;
            }
            match part(inner, *log, head, here.contains(log)) {
                Some(Part::Replica) => inner.mending.look_at(*log),
                Some(Part::Sequencer) => is_done &= inner.ready(*log).await.is_ok(),
                Some(Part::Heir) => is_done &= inherit(inner, *log, head).await,
                None => {}
            }
        }
        after = page.last().map(|(log, _)| *log);
        if page.len() < PAGE {
            break;
        }
    }
    is_done
}

fn part(inner: &Inner, log: LogId, head: &Head, is_here: bool) -> Option<Part> {
    let me = inner.me().node;
    let sequencer = head.sequencer.node;
    if sequencer == me {
        let is_ready = inner.known(log).is_some_and(|log| log.is_ready());
        return (!is_ready).then_some(Part::Sequencer);
    }
    if inner.peers.is_gone(sequencer) {
        let candidates = inner.peers.candidates();
        let is_left = |node: &NodeId| candidates.iter().any(|candidate| candidate.node == *node);
        if head.replicas.iter().find(|node| is_left(node)) == Some(&me) {
            return Some(Part::Heir);
        }
    }
    // A log's first segment isn't closed yet: there is nothing to copy.
    (!is_here && head.epoch > Epoch(0)).then_some(Part::Replica)
}

/// Closes the segment of a sequencer that doesn't come back, and copies what is on too few nodes by that:
/// the next sequencer knows nothing of the log before it gets an append. Says whether that is done.
async fn inherit(inner: &Arc<Inner>, log: LogId, head: &Head) -> bool {
    let closed = match recovering::take_over(inner, log, head.epoch).await {
        Ok(()) => inner.upkeep.load(log).await.map_err(|error| LogError::Meta(error.0)),
        Err(error) => Err(error),
    };
    match closed {
        Ok(Some(record)) => {
            let mut is_done = true;
            for closed in record.closed.iter().filter(|closed| is_wounded(inner, closed)) {
                is_done &= heal(inner, log, closed, closed.replicas.len()).await;
            }
            is_done
        }
        Ok(None) => true,
        Err(error) => {
            tracing::debug!(%log, %error, "a segment of a node that is gone can't be closed now");
            false
        }
    }
}
