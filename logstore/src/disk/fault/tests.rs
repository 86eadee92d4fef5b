use super::*;

#[test]
fn a_crash_keeps_what_was_synced_and_only_some_of_the_rest() {
    let (mut kept, mut lost, mut torn) = (0, 0, 0);
    for seed in 0..100 {
        let disk = FaultDisk::new();
        let folder = disk.folder("f");
        let file = folder.create("a").unwrap();
        file.write_at(&[1; 4096], 0).unwrap();
        file.sync().unwrap();
        folder.sync_folder().unwrap();
        file.write_at(&[2; 8192], 4096).unwrap();
        disk.crash(seed);
        assert!(file.read_at(&mut [0; 1], 0).is_err(), "opened before the crash");
        let now = folder.contents("a").unwrap();
        assert_eq!(now[..4096], [1; 4096]);
        match now[4096..].iter().filter(|byte| **byte == 2).count() {
            8192 => kept += 1,
            0 => lost += 1,
            n => {
                assert_eq!(n % 512, 0);
                torn += 1;
            }
        }
    }
    assert!(kept > 10 && lost > 10 && torn > 10, "{kept} {lost} {torn}");
}

#[test]
fn names_last_when_their_folder_was_synced() {
    let (mut kept, mut lost) = (0, 0);
    for seed in 0..50 {
        let disk = FaultDisk::new();
        let folder = disk.folder("f");
        folder.create("synced").unwrap();
        folder.sync_folder().unwrap();
        folder.create("not").unwrap();
        disk.crash(seed);
        let names = disk.folder("f").list().unwrap();
        assert!(names.contains(&"synced".to_owned()));
        if names.len() == 2 { kept += 1 } else { lost += 1 }
    }
    assert!(kept > 5 && lost > 5);
}

#[test]
fn a_failed_sync_is_told_once_a_description_and_loses_the_data() {
    let disk = FaultDisk::new();
    let folder = disk.folder("f");
    let one = folder.create("a").unwrap();
    let two = folder.open("a").unwrap();
    folder.sync_folder().unwrap();
    one.write_at(&[7; 10], 0).unwrap();
    disk.fail_sync_after(0);
    assert!(one.sync().is_err());
    assert!(one.sync().is_ok(), "told once");
    assert!(two.sync().is_err(), "each description is told");
    assert!(folder.open("a").unwrap().sync().is_ok(), "a later one is not");
    disk.crash(1);
    assert!(folder.contents("a").unwrap().is_empty());
}

#[test]
fn no_sync_and_capacity_and_lock() {
    let disk = FaultDisk::new();
    let folder = disk.folder("f");
    let file = folder.create("a").unwrap();
    disk.set_capacity(Some(100));
    assert_eq!(file.write_at(&[0; 101], 0).unwrap_err().kind(), io::ErrorKind::StorageFull);
    file.write_at(&[0; 60], 0).unwrap();
    assert_eq!(folder.space().unwrap(), Space { free: 40, total: 100 });
    let lock = folder.lock().unwrap();
    assert!(folder.lock().is_err());
    drop(lock);
    assert!(folder.lock().is_ok());

    let lost = (0..20).any(|seed| {
        let disk = FaultDisk::new();
        disk.set_no_sync(true);
        let folder = disk.folder("f");
        folder.create("a").unwrap().sync().unwrap();
        folder.sync_folder().unwrap();
        disk.crash(seed);
        disk.folder("f").list().unwrap().is_empty()
    });
    assert!(lost);
}

#[test]
fn a_held_sync_ends_with_the_power_and_its_write_is_torn() {
    for sector in [512, 4096] {
        let disk = FaultDisk::new();
        let folder = disk.folder("f");
        let file = folder.create("a").unwrap();
        folder.sync_folder().unwrap();
        let other = disk.folder("g").create("b").unwrap();
        folder.hold_syncs();
        file.write_at(&[1; 64 << 10], 0).unwrap();
        let held = std::thread::spawn({
            let file = Arc::clone(&file);
            move || file.sync()
        });
        folder.wait_for_a_held_sync();
        other.sync().unwrap();
        disk.tear(1, sector);
        assert!(held.join().unwrap().is_err());
        let now = folder.contents("a").unwrap();
        let sectors: Vec<_> = now.chunks(sector as usize).collect();
        assert!(sectors.iter().all(|bytes| bytes.iter().all(|byte| *byte == bytes[0])));
        assert!(sectors.iter().any(|bytes| bytes[0] == 1), "some are kept");
        assert!(sectors.iter().any(|bytes| bytes[0] == 0), "some are lost");
        let file = disk.folder("f").open("a").unwrap();
        file.sync().unwrap();
    }
}

/// A thread of the old process that opens a file only now would write and sync in the next life.
#[test]
fn nothing_of_a_folder_can_be_used_after_a_crash_or_a_kill() {
    let ends: [fn(&FaultDisk); 2] = [|disk| disk.crash(1), FaultDisk::kill];
    for end in ends {
        let disk = FaultDisk::new();
        let folder = disk.folder("f");
        folder.create("a").unwrap();
        folder.sync_folder().unwrap();
        end(&disk);
        assert!(folder.open("a").is_err());
        assert!(folder.create("b").is_err());
        assert!(folder.rename("a", "b").is_err());
        assert!(folder.remove("a").is_err());
        assert!(folder.list().is_err());
        assert!(folder.sync_folder().is_err());
        assert!(folder.lock().is_err());
        assert_eq!(disk.folder("f").list().unwrap(), ["a"]);
    }
}

#[test]
fn a_sync_fails_in_the_folder_that_is_meant() {
    let disk = FaultDisk::new();
    let (one, other) = (disk.folder("f"), disk.folder("g"));
    let (one_file, other_file) = (one.create("a").unwrap(), other.create("a").unwrap());
    one.fail_sync_after(1);
    other_file.sync().unwrap();
    one_file.sync().unwrap();
    other_file.sync().unwrap();
    assert!(one_file.sync().is_err());
    one_file.sync().unwrap();
}
