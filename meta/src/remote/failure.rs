//! Calls that failed below the store, as tonic tells of them.

use std::error::Error as _;

use tonic::{ConnectError, Status};

/// The connection could not be made, so nothing was sent on it.
pub(super) fn was_not_sent(status: &Status) -> bool {
    let mut source = status.source();
    while let Some(error) = source {
        if error.is::<ConnectError>() {
            return true;
        }
        source = error.source();
    }
    false
}

/// An error with its causes, for people.
pub(super) fn told(error: &(dyn std::error::Error + 'static)) -> String {
    // What it is to a program, and its causes once more, are of no use.
    let own = error.downcast_ref::<Status>().map(|status| status.message().to_owned());
    let mut text = own.unwrap_or_else(|| error.to_string());
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}
