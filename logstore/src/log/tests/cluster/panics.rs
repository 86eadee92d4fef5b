//! Panics of a simulation's tasks, which would otherwise be a task's own.

use std::cell::RefCell;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

thread_local! {
    /// The first panic of a task of the simulation that runs on this thread.
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

static HOOK: Once = Once::new();

/// The first panic since [`guarded`] has begun on this thread.
pub(super) fn panicked() -> Option<String> {
    PANIC.with(|panic| panic.borrow().clone()).filter(|what| !what.is_empty())
}

/// Runs a simulation.
///
/// # Errors
/// Its own, or what panicked in it, in any task.
pub(super) fn guarded<T>(run: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    note_panics();
    let result = panic::catch_unwind(AssertUnwindSafe(run));
    let panicked = panicked();
    PANIC.with(|panic| *panic.borrow_mut() = None);
    match (panicked, result) {
        (Some(what), _) => Err(what),
        (None, result) => result.unwrap_or_else(|_| Err("a panic".to_owned())),
    }
}

fn note_panics() {
    HOOK.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let is_simulated = PANIC.with(|panic| {
                let mut panic = panic.borrow_mut();
                let is_simulated = panic.is_some();
                if panic.as_deref() == Some("") {
                    *panic = Some(info.to_string());
                }
                is_simulated
            });
            if !is_simulated {
                before(info);
            }
        }));
    });
    PANIC.with(|panic| *panic.borrow_mut() = Some(String::new()));
}
