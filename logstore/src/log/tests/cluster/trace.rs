//! What happens in a simulation, and how often.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::hash::{DefaultHasher, Hash, Hasher};

use parking_lot::Mutex;

/// A hash over all that was noted, and counts. With `SIM_TRACE` set, notes go to stderr too.
pub(super) struct Trace {
    counts: Mutex<BTreeMap<&'static str, u64>>,
    hash: Mutex<DefaultHasher>,
    is_loud: bool,
}

impl Trace {
    pub(super) fn new() -> Self {
        Self {
            counts: Mutex::default(),
            hash: Mutex::default(),
            is_loud: std::env::var_os("SIM_TRACE").is_some(),
        }
    }

    /// Something has happened at `ms`.
    pub(super) fn note(&self, ms: u128, what: std::fmt::Arguments<'_>) {
        let mut line = String::new();
        write!(line, "{ms} {what}").expect("a string");
        if self.is_loud {
            eprintln!("{line}");
        }
        line.hash(&mut *self.hash.lock());
    }

    pub(super) fn count(&self, what: &'static str, by: u64) {
        *self.counts.lock().entry(what).or_insert(0) += by;
    }

    pub(super) fn counts(&self) -> BTreeMap<&'static str, u64> {
        self.counts.lock().clone()
    }

    pub(super) fn hash(&self) -> u64 {
        self.hash.lock().finish()
    }
}
