//! The threads that write and sync groups.

use crate::journal::core::Group;

use super::shared::{Shared, WorkerFile};

/// Writes and syncs groups until the store stops. Woken by appends; an idle journal states
/// once what is durable, and then is silent.
pub(crate) fn run(shared: &Shared) {
    let mut files = WorkerFile::default();
    while let Some(group) = next(shared) {
        if let Some(written) = shared.write(&group, &mut files) {
            shared.sync(&written);
            drop(written);
            shared.count_written(group.len());
        }
    }
}

fn next(shared: &Shared) -> Option<Group> {
    let mut state = shared.state.lock();
    loop {
        if state.is_stopped {
            return None;
        }
        if let Some(group) = state.core.take() {
            // What is left over, because this group was full, is for another worker.
            if state.core.has_work() {
                shared.wake_worker(&mut state);
            }
            return Some(group);
        }
        let watches = !state.is_watching_idle && state.core.wants_marker();
        state.idle_workers += 1;
        let mut is_idle = false;
        if watches {
            state.is_watching_idle = true;
            is_idle = shared.work.wait_for(&mut state, shared.options.idle_after).timed_out();
            state.is_watching_idle = false;
        } else {
            shared.work.wait(&mut state);
        }
        state.idle_workers -= 1;
        if !is_idle {
            state.is_waking = false;
        } else if let Some(marker) = state.core.take_marker() {
            return Some(marker);
        }
    }
}
