//! Watches of an embedded store.

use std::collections::HashMap;

use bytes::Bytes;
use tokio::sync::oneshot;

use crate::store::{KeyRange, WatchRequest};

#[derive(Debug)]
struct Waiting {
    seen: Option<Bytes>,
    fire: oneshot::Sender<()>,
}

/// Who waits for which key.
#[derive(Debug, Default)]
pub(super) struct Watches {
    keys: HashMap<Bytes, Vec<Waiting>>,
}

impl Watches {
    pub(super) fn add(&mut self, request: WatchRequest) {
        let WatchRequest { key, seen, fire } = request;
        let waiting = self.keys.entry(key).or_default();
        // Who gave up waiting leaves no trace behind.
        waiting.retain(|other| !other.fire.is_closed());
        waiting.push(Waiting { seen, fire });
    }

    /// Nothing is watched: commits needn't look.
    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The watched keys of `range`.
    pub(super) fn watched_in(&self, range: &KeyRange) -> Vec<Bytes> {
        if *range == KeyRange::key(&range.begin) {
            return self
                .keys
                .get_key_value(&range.begin)
                .map(|(key, _)| key.clone())
                .into_iter()
                .collect();
        }
        self.keys.keys().filter(|key| range.contains(key)).cloned().collect()
    }

    /// `key` has `value` now: fires the watches that saw another.
    pub(super) fn check(&mut self, key: &Bytes, value: Option<&Bytes>) {
        let Some(waiting) = self.keys.get_mut(key) else {
            return;
        };
        let (fire, keep): (Vec<_>, Vec<_>) =
            std::mem::take(waiting).into_iter().partition(|one| one.seen.as_ref() != value);
        if keep.is_empty() {
            self.keys.remove(key);
        } else {
            *waiting = keep;
        }
        for one in fire {
            // A watch that was dropped has nobody to tell.
            let _ = one.fire.send(());
        }
    }

    /// Ends all watches.
    pub(super) fn clear(&mut self) {
        self.keys.clear();
    }
}
