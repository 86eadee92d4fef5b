//! One group in memory: its state machine and its writer's queue.

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU64, AtomicUsize, Ordering};

use interflow_meta::groups::Coordinator;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::core::{Answer, Group, Ms};
use super::writer::WriteQueue;

/// Answers a request that may have waited.
pub(super) type Reply = oneshot::Sender<Answer>;

/// One group in memory. Locks are taken in the order of the fields.
pub(super) struct Slot {
    pub(super) name: Arc<str>,
    pub(super) group: Mutex<Group<Reply>>,
    pub(super) writes: Mutex<WriteQueue>,
    /// What its writes hold the group by; `None` for one of which nothing is stored.
    pub(super) held: Mutex<Option<Coordinator>>,
    /// When it is called next; `Ms::MAX` for never.
    scheduled: AtomicU64,
    /// What it was last found to take.
    bytes: AtomicUsize,
    /// The generation that it was last found in.
    generation: AtomicI32,
}

impl Slot {
    pub(super) fn new(name: &str, group: Group<Reply>, held: Option<Coordinator>) -> Arc<Self> {
        Arc::new(Self {
            generation: AtomicI32::new(group.generation()),
            name: name.into(),
            group: Mutex::new(group),
            writes: Mutex::default(),
            held: Mutex::new(held),
            scheduled: AtomicU64::new(Ms::MAX),
            bytes: AtomicUsize::new(0),
        })
    }

    pub(super) fn scheduled(&self) -> Ms {
        self.scheduled.load(Ordering::Relaxed)
    }

    pub(super) fn set_scheduled(&self, at: Ms) {
        self.scheduled.store(at, Ordering::Relaxed);
    }

    /// Notes its generation; whether that is a new one.
    pub(super) fn note_generation(&self, generation: i32) -> bool {
        self.generation.swap(generation, Ordering::Relaxed) != generation
    }

    /// Notes what it takes; returns what it was thought to take before.
    pub(super) fn note_bytes(&self, bytes: usize) -> usize {
        self.bytes.swap(bytes, Ordering::Relaxed)
    }
}
