//! The end of a run: everything durable, extents closed, nothing left to scan.

use std::sync::Arc;

use crate::journal::ExtentKind;

use super::keeper::{self, Relations};
use super::shared::{Shared, WorkerFile};

/// Refuses entries from now on; writes and syncs all that was appended, and writes the footers.
pub(crate) async fn close(shared: &Arc<Shared>, has_threads: bool) {
    loop {
        let settled = shared.settled.notified();
        tokio::pin!(settled);
        settled.as_mut().enable();
        {
            let mut state = shared.state.lock();
            state.is_closing = true;
            if state.core.is_settled() {
                break;
            }
            shared.wake_worker(&mut state);
        }
        if !has_threads {
            drain(shared);
            continue;
        }
        settled.await;
    }
    let shared = Arc::clone(shared);
    // Cancelled or failed, a start scans the last extent instead.
    let _ = tokio::task::spawn_blocking(move || finish(&shared)).await;
}

/// Writes and syncs all that waits, on this thread.
pub(crate) fn drain(shared: &Shared) {
    let mut files = WorkerFile::default();
    loop {
        let Some(group) = shared.state.lock().core.take() else { return };
        match shared.write(&group, &mut files) {
            Some(written) => shared.sync(&written),
            None => return,
        }
    }
}

fn finish(shared: &Shared) {
    let _alone = shared.keeping.lock();
    {
        let mut state = shared.state.lock();
        if std::mem::replace(&mut state.is_stopped, true) {
            return;
        }
        shared.work.notify_all();
        shared.chores.notify_all();
        shared.ahead.stop();
        if state.core.failed().is_some() {
            return;
        }
    }
    let (ended, current, spare) = {
        let mut state = shared.state.lock();
        let (current, spare) = state.core.retire();
        (std::mem::take(&mut state.ended), current, spare)
    };
    for (id, end) in ended.into_iter().chain(current) {
        if let Err(error) = keeper::close_extent(shared, id, end, &Relations::default()) {
            tracing::warn!(%error, "an extent is left open; the next start scans it");
            return;
        }
    }
    if let Some(key) = spare {
        shared.state.lock().index.extents.remove(&key.id);
        let _ = shared.disk.remove(&key.file_name(ExtentKind::Journal));
    }
}
