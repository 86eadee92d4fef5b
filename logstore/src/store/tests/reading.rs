//! Cold reads: fetched ahead where they are in sequence, and once for all who want the same.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use crate::store::ahead;
use crate::store::flights::Seat;
use crate::store::read::first_cold;

use super::*;

const EACH: u64 = 200;

fn payload(log: u64, offset: u64) -> Vec<u8> {
    let mut payload = vec![0x33; 400];
    payload[..8].copy_from_slice(&(log * 1000 + offset).to_le_bytes());
    payload
}

/// Two logs in turn, over several extents; nothing of the files is cached.
fn cold() -> Harness {
    let harness = Harness::new();
    for offset in 0..EACH {
        for log in 0..2 {
            harness.must_append(log, offset, &payload(log, offset));
        }
    }
    harness.settle();
    harness.disk.set_cold(true);
    harness
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().build().unwrap()
}

fn some(offset: Offset) -> SegmentRead {
    SegmentRead { offset, max_bytes: 1200, ..whole(0) }
}

/// Reads log 0 from `offset` on, `reads` times; returns how many of them found everything cached.
fn scan(harness: &Harness, mut offset: Offset, reads: usize, asks: bool) -> usize {
    let runtime = runtime();
    let mut cached = 0;
    for _ in 0..reads {
        let outcome = match harness.store.try_read(&some(offset)) {
            Some(outcome) => {
                cached += 1;
                outcome.unwrap()
            }
            None => runtime.block_on(harness.store.read(some(offset))).unwrap(),
        };
        for batch in outcome.batches {
            assert_eq!(batch.base_offset, offset);
            assert_eq!(batch.bytes, payload(0, offset));
            offset += 1;
        }
        assert_eq!(outcome.next_offset, offset);
        while asks && ahead::ask_one(&harness.store.shared) {}
    }
    cached
}

#[test]
fn a_scan_finds_what_was_fetched_ahead() {
    let (with, without) = (scan(&cold(), 0, 50, true), scan(&cold(), 0, 50, false));
    // The first two come too early, and so does what lies in the next extent.
    assert!(with >= 40, "{with} of 50");
    assert!(without < 25, "{without} of 50: a page that one read leaves is often another's");
}

#[test]
fn reads_here_and_there_fetch_nothing_ahead() {
    let harness = cold();
    let runtime = runtime();
    for offset in (0..EACH - 20).rev().step_by(13) {
        runtime.block_on(harness.store.read(some(offset))).unwrap();
        assert!(!ahead::ask_one(&harness.store.shared));
    }
    let harness = Harness::over(FaultDisk::new(), Options { read_ahead_bytes: 0, ..options() });
    (0..EACH).for_each(|offset| {
        harness.must_append(0, offset, &payload(0, offset));
    });
    harness.settle();
    harness.disk.set_cold(true);
    scan(&harness, 0, 30, false);
    assert!(!ahead::ask_one(&harness.store.shared), "turned off");
}

#[test]
fn what_is_scattered_is_not_fetched_ahead() {
    let harness = Harness::new();
    for offset in 0..EACH {
        harness.must_append(0, offset, &payload(0, offset));
        (0..3).for_each(|n| {
            harness.must_append(1, offset * 3 + n, &[9; 3000]);
        });
    }
    harness.settle();
    harness.disk.set_cold(true);
    let with = scan(&harness, 0, 30, true);
    assert!(with <= 5, "{with} of 30: no more than the last entry of an extent");
}

fn poll<F: Future>(future: std::pin::Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

#[test]
fn those_who_want_the_same_block_wait_for_one_read_of_it() {
    let harness = cold();
    let runtime = runtime();
    let _inside = runtime.enter();
    let store = &harness.store;
    // The index is in memory.
    runtime.block_on(store.read(some(0))).unwrap();
    harness.disk.set_cold(true);
    let block = first_cold(&store.shared, &some(0)).unwrap();
    let Seat::Pilot(flight) = store.shared.flights.board(block) else { panic!("nobody flies") };
    let mut first = pin!(store.read(some(0)));
    let mut second = pin!(store.read(some(0)));
    let mut elsewhere = pin!(store.read(some(1)));
    assert!(poll(first.as_mut()).is_pending());
    assert!(poll(second.as_mut()).is_pending());
    assert!(poll(elsewhere.as_mut()).is_pending());
    let before = harness.disk.reads();
    read(&store.shared, &some(0), Wait::Yes).unwrap().unwrap();
    let by_one = harness.disk.reads() - before;
    drop(flight);
    for waiting in [first.as_mut(), second.as_mut()] {
        let Poll::Ready(outcome) = poll(waiting) else { panic!("it is there") };
        assert_eq!(outcome.unwrap().batches[0].bytes, payload(0, 0));
    }
    assert_eq!(harness.disk.reads() - before, by_one, "one read for all");
    // One that finds its bytes missing all the same reads them itself.
    let outcome = runtime.block_on(elsewhere).unwrap();
    assert_eq!(outcome.batches[0].bytes, payload(0, 1));
}

#[test]
fn a_flight_ends_although_nobody_waits_for_it_any_more() {
    let harness = cold();
    let runtime = runtime();
    runtime.block_on(harness.store.read(some(0))).unwrap();
    harness.disk.set_cold(true);
    {
        let _inside = runtime.enter();
        let mut read = pin!(harness.store.read(some(0)));
        // It begins, and may even be over already.
        let _ = poll(read.as_mut());
    }
    harness.disk.set_cold(true);
    let outcome = runtime.block_on(harness.store.read(some(0))).unwrap();
    assert_eq!(outcome.batches[0].bytes, payload(0, 0));
}

#[test]
fn with_its_thread_a_store_reads_on_and_stops() {
    let disk = FaultDisk::new();
    let options = Options { threads: true, ..options() };
    let harness = Harness::over(disk.clone(), options);
    let runtime = runtime();
    for offset in 0..40 {
        loop {
            let told = *harness.events.told.lock();
            match harness.append(0, offset, &payload(0, offset)) {
                Err(StoreError::Busy) => {
                    while *harness.events.told.lock() == told {
                        std::thread::yield_now();
                    }
                }
                done => {
                    done.unwrap();
                    break;
                }
            }
        }
    }
    runtime.block_on(harness.store.close());
    disk.set_cold(true);
    scan(&harness, 0, 10, false);
}
