//! A node looks at all logs that there are, for segments that it is to have and has nothing of: it was
//! away, or not reached, from their begin to their close, and nothing here tells of them.

use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashSet;

use super::service::Inner;

/// Logs read at a time.
const PAGE: usize = 500;
/// All are looked at when the node starts, and again after so long: not for each view of the nodes,
/// for there may be many logs of which it has none.
const AGAIN: Duration = Duration::from_secs(3600);

/// Has all logs looked at that this node knows nothing of, until the service stops.
pub(super) async fn run(inner: Arc<Inner>) {
    loop {
        let pause = match walk(&inner).await {
            true => AGAIN,
            false => inner.config.retention_interval,
        };
        tokio::select! {
            () = inner.stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// One look; says whether it came to the end.
async fn walk(inner: &Inner) -> bool {
    let here: HashSet<_> = inner.store.segments().iter().map(|found| found.id.log).collect();
    let mut after = None;
    loop {
        let page = match inner.upkeep.logs(after, PAGE).await {
            Ok(page) => page,
            Err(error) => {
                tracing::debug!(%error, "the logs can't be listed now");
                return false;
            }
        };
        for log in page.iter().filter(|log| !here.contains(*log)) {
            inner.mending.look_at(*log);
        }
        after = page.last().copied();
        if page.len() < PAGE || inner.stop.is_cancelled() {
            return true;
        }
    }
}
