//! The store with its own threads, over both disks.

use parking_lot::Condvar;

use crate::disk::RealDisk;

use super::*;

/// Lets appenders wait for what is durable.
#[derive(Default)]
struct Waiter {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    durable: Position,
    failed: Option<String>,
    /// How often the store told of something.
    told: u64,
}

impl StoreEvents for Waiter {
    fn durable(&self, position: Position) {
        let mut state = self.state.lock();
        assert!(position >= state.durable);
        state.durable = position;
        state.told += 1;
        self.changed.notify_all();
    }

    fn failed(&self, reason: &str) {
        self.state.lock().failed = Some(reason.to_owned());
        self.changed.notify_all();
    }
}

impl Waiter {
    /// False if the journal failed before.
    fn wait(&self, position: Position) -> bool {
        let mut state = self.state.lock();
        while state.durable < position && state.failed.is_none() {
            self.changed.wait(&mut state);
        }
        state.durable >= position
    }

    /// Waits until the store tells of something more than `told` times.
    fn wait_for_more(&self, told: u64) {
        let mut state = self.state.lock();
        while state.told <= told {
            self.changed.wait(&mut state);
        }
    }
}

fn threaded() -> Options {
    Options { threads: true, ..options() }
}

/// Appends from several threads, each to a log of its own, each entry durable before the next.
fn work(store: &JournalStore, waiter: &Waiter, from: u64, to: u64) {
    std::thread::scope(|scope| {
        for log in 0..4 {
            scope.spawn(move || {
                for offset in from..to {
                    let payload = vec![u8::try_from(offset % 251).unwrap(); 300];
                    let entry = Entry {
                        header: header(log, offset, 1),
                        payload: &payload,
                        leader_epoch: None,
                    };
                    let position = loop {
                        let told = waiter.state.lock().told;
                        match store.append(&entry) {
                            Ok(position) => break position,
                            Err(StoreError::Busy) => waiter.wait_for_more(told),
                            Err(error) => panic!("{error}"),
                        }
                    };
                    assert!(waiter.wait(position));
                }
            });
        }
    });
}

fn check(store: &JournalStore, end: u64) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    for log in 0..4 {
        let mut wanted = whole(log);
        while wanted.offset < end {
            let outcome = runtime.block_on(store.read(wanted.clone())).unwrap();
            for batch in &outcome.batches {
                assert_eq!(batch.base_offset, wanted.offset);
                assert_eq!(batch.bytes, vec![u8::try_from(wanted.offset % 251).unwrap(); 300]);
                wanted.offset += 1;
            }
            assert_eq!(outcome.next_offset, wanted.offset);
        }
        assert_eq!(store.segment(segment(log)).map_or(0, |found| found.end), end);
    }
}

fn round(disk: Arc<dyn Disk>, from: u64, to: u64, is_clean: bool) {
    let waiter = Arc::new(Waiter::default());
    let store = JournalStore::open(disk, threaded(), waiter.clone()).unwrap();
    check(&store, from);
    work(&store, &waiter, from, to);
    if is_clean {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(store.close());
    }
    check(&store, to);
}

#[test]
fn threads_on_the_file_system() {
    let folder = tempfile::tempdir().unwrap();
    let disk = || Arc::new(RealDisk::open(folder.path().join("a/b")).unwrap());
    round(disk(), 0, 40, true);
    round(disk(), 40, 80, false);
    round(disk(), 80, 81, true);
    let locked = JournalStore::open(disk(), threaded(), Arc::<Waiter>::default()).unwrap();
    let second = JournalStore::open(disk(), threaded(), Arc::<Waiter>::default());
    assert!(matches!(second, Err(OpenError::Locked)));
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(locked.close());
    // While nobody else has the folder: the next owner may move what the closed one knows.
    check(&locked, 81);
    let next = JournalStore::open(disk(), threaded(), Arc::<Waiter>::default());
    assert!(next.is_ok(), "a closed store lets go of the folder, whoever still owns it");
}

#[test]
fn threads_on_the_fault_disk() {
    for seed in 0..10 {
        let disk = FaultDisk::new();
        round(Arc::new(disk.folder("j")), 0, 60, false);
        disk.crash(seed);
        round(Arc::new(disk.folder("j")), 60, 100, seed % 2 == 0);
        disk.crash(seed);
        round(Arc::new(disk.folder("j")), 100, 101, true);
    }
}

#[test]
fn a_failed_sync_stops_all_threads_from_acknowledging() {
    let disk = FaultDisk::new();
    let waiter = Arc::new(Waiter::default());
    let store = JournalStore::open(Arc::new(disk.folder("j")), threaded(), waiter.clone()).unwrap();
    work(&store, &waiter, 0, 5);
    disk.fail_sync_after(0);
    let entry = Entry { header: header(0, 5, 1), payload: &[1; 9], leader_epoch: None };
    let position = store.append(&entry).unwrap();
    assert!(!waiter.wait(position));
    assert!(matches!(store.append(&entry), Err(StoreError::Failed(_))));
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(store.close());
    check_prefix(&store);
}

fn check_prefix(store: &JournalStore) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let outcome = runtime.block_on(store.read(whole(1))).unwrap();
    assert_eq!(outcome.next_offset, 5, "reads go on");
}
