//! What observers are told, and in which order.

use parking_lot::Mutex;

use super::*;
use crate::{Bounds, EarlyBatch, LogObserver};

#[derive(Debug, PartialEq, Eq, Clone)]
enum Told {
    Advanced(Offset, Offset),
    Early(i32),
    Ended,
}

#[derive(Default)]
struct Recorder {
    told: Mutex<Vec<Told>>,
}

impl Recorder {
    fn take(&self) -> Vec<Told> {
        std::mem::take(&mut self.told.lock())
    }
}

impl LogObserver for Recorder {
    fn advanced(&self, _log: LogId, bounds: Bounds) {
        self.told.lock().push(Told::Advanced(bounds.start, bounds.committed));
    }

    fn early(&self, _log: LogId, batch: &EarlyBatch) {
        self.told.lock().push(Told::Early(batch.key.sequence));
    }

    fn ended(&self, _log: LogId) {
        self.told.lock().push(Told::Ended);
    }
}

fn early(log: LogId, sequence: i32) -> Append {
    Append { early: true, ..keyed(log, 7, sequence, "e") }
}

#[tokio::test]
async fn an_observer_hears_where_the_log_is_and_then_of_each_change() {
    let node = Node::new();
    let log = node.log().await;
    node.put(batch(log, 2, "a")).await.unwrap();
    let recorder = Arc::new(Recorder::default());
    let guard = node.logs.observe(log, recorder.clone()).await.unwrap();
    assert_eq!(recorder.take(), vec![Told::Advanced(0, 2)]);
    let ticket = node.logs.append(batch(log, 3, "b"));
    assert_eq!(recorder.take(), vec![]);
    node.store.sync();
    assert_eq!(recorder.take(), vec![Told::Advanced(0, 5)]);
    ticket.await.unwrap();
    node.logs.trim(log, 1).await.unwrap();
    assert_eq!(recorder.take(), vec![Told::Advanced(1, 5)]);
    drop(guard);
    node.put(batch(log, 3, "c")).await.unwrap();
    assert_eq!(recorder.take(), vec![]);
}

#[tokio::test]
async fn early_batches_are_shown_once_in_order_and_before_they_are_committed() {
    let node = Node::new();
    let log = node.log().await;
    let recorder = Arc::new(Recorder::default());
    let _guard = node.logs.observe(log, recorder.clone()).await.unwrap();
    recorder.take();
    let mut tickets = vec![node.logs.append(early(log, 0)), node.logs.append(early(log, 1))];
    // A retry isn't shown again, a batch that isn't early never.
    tickets.push(node.logs.append(early(log, 1)));
    tickets.push(node.logs.append(keyed(log, 8, 0, "later")));
    assert_eq!(recorder.take(), vec![Told::Early(0), Told::Early(1)]);
    node.store.sync();
    assert_eq!(recorder.take(), vec![Told::Advanced(0, 3)]);
    for ticket in tickets {
        ticket.await.unwrap();
    }
}

#[tokio::test]
async fn in_a_volatile_log_an_early_batch_comes_before_the_advance_that_covers_it() {
    let node = Node::new();
    let log = node.create(Durability::Volatile, Policy::default()).await;
    let recorder = Arc::new(Recorder::default());
    let _guard = node.logs.observe(log, recorder.clone()).await.unwrap();
    recorder.take();
    node.logs.append(early(log, 0)).await.unwrap();
    node.logs.append(early(log, 1)).await.unwrap();
    assert_eq!(
        recorder.take(),
        vec![Told::Early(0), Told::Advanced(0, 1), Told::Early(1), Told::Advanced(0, 2)]
    );
}

#[tokio::test]
async fn a_deleted_log_and_a_stopped_node_end_the_observation() {
    let node = Node::new();
    let (deleted, kept) = (node.log().await, node.log().await);
    let recorder = Arc::new(Recorder::default());
    let _one = node.logs.observe(deleted, recorder.clone()).await.unwrap();
    recorder.take();
    node.delete(deleted).await;
    node.logs.refresh(deleted).await.unwrap();
    assert_eq!(recorder.take(), vec![Told::Ended]);
    assert!(node.logs.observe(deleted, recorder.clone()).await.is_err());
    let _two = node.logs.observe(kept, recorder.clone()).await.unwrap();
    recorder.take();
    node.logs.shutdown().await;
    assert_eq!(recorder.take(), vec![Told::Ended]);
}

/// Appends to the log from within a call, as nothing forbids.
struct Echo {
    logs: LogStore,
    left: Mutex<u32>,
    tickets: Mutex<Vec<AppendTicket>>,
    seen: Mutex<Vec<Offset>>,
}

impl LogObserver for Echo {
    fn advanced(&self, log: LogId, bounds: Bounds) {
        self.seen.lock().push(bounds.committed);
        let is_to_append = {
            let mut left = self.left.lock();
            let is_to_append = *left > 0;
            *left = left.saturating_sub(1);
            is_to_append
        };
        if is_to_append {
            let ticket = self.logs.append(batch(log, 1, "echo"));
            self.tickets.lock().push(ticket);
        }
    }
}

#[tokio::test]
async fn an_observer_may_append_from_within_the_call() {
    let node = Node::new();
    let log = node.create(Durability::Volatile, Policy::default()).await;
    let echo = Arc::new(Echo {
        logs: node.logs.clone(),
        left: Mutex::new(5),
        tickets: Mutex::default(),
        seen: Mutex::default(),
    });
    let _guard = node.logs.observe(log, echo.clone()).await.unwrap();
    assert_eq!(*echo.seen.lock(), vec![0, 1, 2, 3, 4, 5]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_threads_leave_each_observer_a_monotone_view() {
    let node = Node::new();
    node.store.eager(true);
    let log = node.create(Durability::Durable, Policy { segment_bytes: 500, ..Policy::default() });
    let log = log.await;
    let recorder = Arc::new(Recorder::default());
    let _guard = node.logs.observe(log, recorder.clone()).await.unwrap();
    let tasks: Vec<_> = (0..4i64)
        .map(|producer| {
            let logs = node.logs.clone();
            tokio::spawn(async move {
                let tickets: Vec<_> = (0..200)
                    .map(|n| logs.append(Append { early: true, ..keyed(log, producer, n, "x") }))
                    .collect();
                let mut last = None;
                for ticket in tickets {
                    let base = ticket.await.unwrap().base_offset;
                    assert!(last < Some(base), "a producer's batches in order");
                    last = Some(base);
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    node.store.sync();
    let told = recorder.take();
    let committed: Vec<_> = told
        .iter()
        .filter_map(|told| match told {
            Told::Advanced(_, committed) => Some(*committed),
            Told::Early(_) | Told::Ended => None,
        })
        .collect();
    assert!(committed.is_sorted(), "I7");
    assert_eq!(committed.last(), Some(&800));
    assert_eq!(told.iter().filter(|told| matches!(told, Told::Early(_))).count(), 800);
    assert_eq!(node.read_all(log).await.len(), 800);
}
