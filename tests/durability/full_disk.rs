//! A full disk: appends are refused, reads, deletes and retention go on, and writing resumes by
//! itself, in the same process.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use interflow::config::Config;
use interflow_logstore::disk::FaultDisk;

use crate::admin;
use crate::kafka::{REQUEST_TIMED_OUT, STORAGE_ERROR};
use crate::mqtt5::{Mqtt5, QUOTA_EXCEEDED};
use crate::running::{Addresses, Running, config};
use crate::scene::{PUBLISHED, Scene, TOPIC, is_closed_by, kafka};
use crate::wire::Kafka;

const MIB: u64 = 1 << 20;
/// The topic that fills the disk.
const BIG: &str = "big";
/// Retained, if there is room for it.
const OTHER_RETAINED: &str = "other/0";
/// What is left of two extents has room for fewer small records.
const SMALL_ROOM: usize = 5_000;
/// Writing that doesn't resume within this has not resumed.
const PATIENCE: Duration = Duration::from_secs(30);

fn with_floor(bytes: u64) -> Config {
    let mut config = config();
    config.storage.min_free_bytes = bytes;
    config.storage.retention_interval_s = 1;
    config
}

/// Produces until the disk is full; returns how many records were taken.
fn fill(client: &mut Kafka) -> i64 {
    let value = "x".repeat(100_000);
    for n in 0..1_000 {
        match client.produce(BIG, &value).0 {
            0 => {}
            STORAGE_ERROR => return n,
            other => panic!("error {other}"),
        }
    }
    panic!("the disk doesn't become full");
}

/// Appends of both protocols are refused by the codes for that, after at most so many that still
/// found room.
fn is_refused(scene: &mut Scene, addresses: Addresses, room_for: usize) {
    let mut client = kafka(addresses);
    until(STORAGE_ERROR, room_for, |value| match client.produce(TOPIC, value) {
        (0, offset) => {
            scene.produced(offset, value);
            0
        }
        (code, _) => code,
    });
    let mut client = Mqtt5::connect(addresses.mqtt, "new", true);
    for qos in [1, 2] {
        until(QUOTA_EXCEEDED, room_for, |value| {
            match client.publish(PUBLISHED, value, qos, false) {
                0 => {
                    scene.published(value);
                    0
                }
                code => code,
            }
        });
    }
    until(QUOTA_EXCEEDED, room_for, |value| client.publish(OTHER_RETAINED, value, 1, true));
    until(true, room_for, |value| {
        let is_closed = is_closed_by(addresses, value);
        if !is_closed {
            scene.published(value);
        }
        is_closed
    });
    assert_eq!(admin::get(addresses.admin, "/healthz").0, 200, "it is no failure");
}

/// Tries with a value of its own each time until `refusal` is the answer, or `room_for` were
/// taken.
fn until<T: PartialEq + Default + std::fmt::Debug>(
    refusal: T,
    room_for: usize,
    mut attempt: impl FnMut(&str) -> T,
) {
    static VALUES: AtomicU64 = AtomicU64::new(0);
    for _ in 0..=room_for {
        let n = VALUES.fetch_add(1, Ordering::Relaxed);
        let answer = attempt(&format!("tried {n}"));
        if answer == refusal {
            return;
        }
        assert_eq!(answer, T::default(), "neither taken nor {refusal:?}");
    }
    panic!("{refusal:?} never came");
}

/// Waits until appends are taken: nobody tells a client, so it has to try.
fn wait_until_it_resumes(scene: &mut Scene, addresses: Addresses) {
    let mut client = kafka(addresses);
    let began = Instant::now();
    loop {
        match client.produce(TOPIC, "resumed") {
            (0, offset) => return scene.produced(offset, "resumed"),
            (STORAGE_ERROR, _) => assert!(began.elapsed() < PATIENCE, "writing doesn't resume"),
            (other, _) => panic!("error {other}"),
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn check_over_a_power_cut(disk: &FaultDisk, running: Running, config: Config, scene: &mut Scene) {
    scene.add(running.addresses, "second");
    scene.check(running.addresses);
    disk.crash(1);
    drop(running);
    let running = Running::start(disk, config).unwrap();
    scene.check(running.addresses);
    scene.add(running.addresses, "third");
    scene.check(running.addresses);
}

#[test]
fn below_the_floor_writing_waits_for_a_topic_to_be_deleted() {
    let disk = FaultDisk::new();
    disk.set_capacity(Some(24 * MIB));
    let running = Running::start(&disk, with_floor(8 * MIB)).unwrap();
    let addresses = running.addresses;
    let mut scene = Scene::begin(addresses);
    let mut client = kafka(addresses);
    assert_eq!(client.create(BIG, 1, &[]), 0);
    fill(&mut client);
    is_refused(&mut scene, addresses, 0);
    scene.check(addresses);
    // The floor is there for the metadata.
    assert_eq!(client.create("made-meanwhile", 1, &[]), 0);
    assert_eq!(client.delete("made-meanwhile"), 0);
    assert_eq!(client.delete(BIG), 0);
    wait_until_it_resumes(&mut scene, addresses);
    check_over_a_power_cut(&disk, running, with_floor(8 * MIB), &mut scene);
}

#[test]
fn below_the_floor_retention_goes_on() {
    let disk = FaultDisk::new();
    disk.set_capacity(Some(24 * MIB));
    let running = Running::start(&disk, with_floor(8 * MIB)).unwrap();
    let addresses = running.addresses;
    let mut scene = Scene::begin(addresses);
    let mut client = kafka(addresses);
    assert_eq!(client.create(BIG, 1, &[("segment.bytes", "1048576")]), 0);
    let count = fill(&mut client);
    assert_eq!(client.fetch(BIG, 0, 0).code, 0);
    assert_eq!(client.alter(BIG, "retention.bytes", "1048576"), 0);
    wait_until_it_resumes(&mut scene, addresses);
    let start = admin::logs(addresses.admin, BIG)[0].start as i64;
    assert!(0 < start && start < count, "{start} of {count}");
    assert_eq!(client.fetch(BIG, 0, start).records[0].0, start, "the newest are kept");
    check_over_a_power_cut(&disk, running, with_floor(8 * MIB), &mut scene);
}

/// Without a floor the last byte is used, and then the metadata store has none either.
#[test]
fn a_disk_without_a_single_byte_is_waited_out() {
    let disk = FaultDisk::new();
    disk.set_capacity(Some(16 * MIB));
    let running = Running::start(&disk, config()).unwrap();
    let addresses = running.addresses;
    let mut scene = Scene::begin(addresses);
    let mut client = kafka(addresses);
    assert_eq!(client.create(BIG, 1, &[]), 0);
    fill(&mut client);
    // No room comes up by extents that are closed and cut, but what is left of the last ones still
    // takes what fits.
    disk.set_capacity(Some(0));
    is_refused(&mut scene, addresses, SMALL_ROOM);
    let created = |n: i32, client: &mut Kafka| client.create(&format!("made-{n}"), 200, &[]);
    let last = (0..500).find_map(|n| match created(n, &mut client) {
        0 => None,
        code => Some((n, code)),
    });
    let (last, code) = last.expect("the metadata store becomes full");
    assert_eq!(code, REQUEST_TIMED_OUT);
    is_refused(&mut scene, addresses, SMALL_ROOM);
    scene.check(addresses);
    // Somebody makes room.
    disk.set_capacity(Some(32 * MIB));
    assert_eq!(created(last, &mut client), 0, "in the same process");
    assert_eq!(client.delete(BIG), 0);
    wait_until_it_resumes(&mut scene, addresses);
    check_over_a_power_cut(&disk, running, config(), &mut scene);
}
