//! Retention over the store in memory, on a clock of the test's.

use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use unhidra_core::ids::{Offset, Partition, Version};
use unhidra_core::message::{Reading, Uplink, UplinkKind};
use unhidra_core::time::{Timestamp, UnixTime};
use unhidra_store::memory::Options;
use unhidra_store::{Batch, Full, Health, Limit, MessageTag, Op, STUBS, Slot, Trim, Unit};

use super::*;
use crate::commit::commit;
use crate::control::{Control, EnrollAsked};
use crate::testing::{Ground, NOW, enroll_asked, id};

const ALL: Limit = Limit { rows: usize::MAX, bytes: usize::MAX };

/// Nothing is bounded.
fn config() -> Config {
    Config {
        days: 0,
        device_rows_max: 0,
        device_bytes_max: 0,
        commands_days: 0,
        disk_bytes_max: 0,
        interval_s: 1,
        class: BTreeMap::new(),
    }
}

fn row(device: &str, number: u32, received_at: UnixTime) -> Op {
    let uplink = Uplink {
        device: id(device),
        kind: UplinkKind::Reading,
        name: "temperature".into(),
        device_time: None,
        received_at,
        reading_id: None,
        body: Bytes::from_static(b"21.5"),
    };
    Op::Reading { tag: MessageTag { key: [1; 4], number, tag: [2; 4] }, uplink }
}

/// Devices with `rows` readings each: the first half of `days` days ago, the rest of now.
async fn filled(ground: &Ground, devices: &[(&str, &str)], rows: u32, days: u64) -> Arc<Registry> {
    let registry = ground.registry().await;
    let control = ground.control_over(registry.clone(), None);
    for (device, class) in devices {
        let asked = EnrollAsked { class: (*class).to_owned(), ..enroll_asked(device) };
        control.enroll(asked).await.unwrap();
        let old = UnixTime::from_ms(NOW.as_ms() - days * 86_400_000);
        let ops = (0..rows).map(|n| row(device, n, if n < rows / 2 { old } else { NOW })).collect();
        let partition = ground.store.partition_of(&id(device));
        commit(&*ground.store, partition, ops).await.unwrap();
    }
    registry
}

async fn history(ground: &Ground, device: &str) -> Vec<Reading> {
    ground.store.history(&id(device), Offset::ZERO, ALL).await.unwrap().rows
}

fn sweep(ground: &Ground, config: Config, registry: Arc<Registry>) -> Sweep {
    let calendar = Calendar::new(ground.clock.clone(), &mut MetricsRegistry::default());
    Sweep::new(config, ground.store.clone(), registry, Arc::new(calendar), Metrics::default(), Recount::default())
}

#[tokio::test]
async fn each_class_has_bounds_of_its_own() {
    let ground = Ground::new();
    let devices = [("pump", ""), ("camera", "camera"), ("meter", "meter")];
    let registry = filled(&ground, &devices, 400, 10).await;
    let class = |days| ClassConfig { days: Some(days), ..ClassConfig::default() };
    let few = ClassConfig { days: Some(0), device_rows_max: Some(100), device_bytes_max: None };
    let class = BTreeMap::from([("camera".to_owned(), class(7)), ("meter".to_owned(), few)]);
    let mut sweep = sweep(&ground, Config { days: 90, class, ..config() }, registry);
    sweep.look().await.unwrap();
    assert_eq!(history(&ground, "pump").await.len(), 400);
    assert_eq!(history(&ground, "camera").await.len(), 200, "a week");
    assert_eq!(history(&ground, "meter").await.len(), 100, "as many as it may have");
    // A device that was looked at is looked at again when something is due.
    ground.clock.advance(Duration::from_secs(3000));
    let partition = ground.store.partition_of(&id("meter"));
    commit(&*ground.store, partition, vec![row("meter", 500, NOW)]).await.unwrap();
    sweep.look().await.unwrap();
    let meter = history(&ground, "meter").await;
    assert_eq!((meter.len(), meter[99].prev), (100, meter[98].offset));
}

#[tokio::test]
async fn a_device_that_is_enrolled_anew_is_held_to_its_new_class() {
    let ground = Ground::new();
    let registry = filled(&ground, &[("pump", "")], 400, 10).await;
    let week = ClassConfig { days: Some(7), ..ClassConfig::default() };
    let class = BTreeMap::from([("camera".to_owned(), week)]);
    let mut sweep = sweep(&ground, Config { days: 90, class, ..config() }, registry.clone());
    sweep.look().await.unwrap();
    assert_eq!(history(&ground, "pump").await.len(), 400, "nothing is due for 80 days");
    let asked = EnrollAsked { class: "camera".to_owned(), replace: true, ..enroll_asked("pump") };
    ground.control_over(registry, None).enroll(asked).await.unwrap();
    sweep.look().await.unwrap();
    assert_eq!(history(&ground, "pump").await.len(), 200, "a week");
}

/// Else nothing of its device would be looked at before the time of that one is over.
#[tokio::test]
async fn what_is_due_is_not_what_a_reading_of_the_future_says() {
    let ground = Ground::new();
    let registry = filled(&ground, &[("pump", ""), ("camera", "camera")], 0, 0).await;
    let taken = async |device, rows: std::ops::Range<u32>| {
        let ahead = NOW.saturating_add(super::days(5 * 365));
        let rows = rows.map(|n| row(device, n, if n == 0 { ahead } else { NOW })).collect();
        commit(&*ground.store, ground.store.partition_of(&id(device)), rows).await.unwrap();
    };
    taken("pump", 0..200).await;
    taken("camera", 0..200).await;
    let class =
        BTreeMap::from([("camera".to_owned(), ClassConfig { device_rows_max: Some(200), ..ClassConfig::default() })]);
    let mut sweep = sweep(&ground, Config { days: 90, class, ..config() }, registry);
    let left = async || {
        let [pump, camera] = [history(&ground, "pump").await, history(&ground, "camera").await];
        [pump, camera].map(|rows| rows.iter().filter(|row| row.uplink.kind == UplinkKind::Reading).count())
    };
    sweep.look().await.unwrap();
    assert_eq!(left().await, [200, 200]);
    taken("camera", 200..202).await;
    sweep.look().await.unwrap();
    assert_eq!(left().await, [200, 200], "as many as it may have, before anything is due by its age");
    ground.clock.advance(super::days(90));
    sweep.look().await.unwrap();
    assert_eq!(left().await, [0, 0], "the one of the future goes with those that came later");
}

#[tokio::test]
async fn a_clock_that_jumps_costs_nothing_for_a_day() {
    let ground = Ground::new();
    let registry = filled(&ground, &[("pump", "")], 200, 10).await;
    let mut sweep = sweep(&ground, Config { days: 90, ..config() }, registry);
    sweep.look().await.unwrap();
    ground.clock.jump(Duration::from_secs(400 * 86_400));
    sweep.look().await.unwrap();
    assert_eq!(history(&ground, "pump").await.iter().filter(|row| row.uplink.kind == UplinkKind::Reading).count(), 200);
    for _ in 0..25 {
        ground.clock.advance(Duration::from_secs(3600));
        sweep.look().await.unwrap();
    }
    let left = history(&ground, "pump").await;
    assert!(left.len() == STUBS && left.iter().all(|row| row.uplink.kind == UplinkKind::Trimmed));
}

#[tokio::test]
async fn a_full_disk_loses_its_oldest_rows_and_then_takes_none() {
    let ground = Ground::new();
    filled(&ground, &[("pump", ""), ("camera", "")], 2000, 1).await;
    let used = ground.store.disk_bytes().await.unwrap();
    let disk = |max| Disk::new(max, ground.store.clone(), ground.clock.clone(), Metrics::default(), Recount::default());
    disk(used * 2).look().await.unwrap();
    assert_eq!(history(&ground, "pump").await.len() + history(&ground, "camera").await.len(), 4000);
    // Over nine tenths: the oldest go, and rows are taken on.
    let max = used / 100 * 105;
    disk(max).look().await.unwrap();
    let left = ground.store.disk_bytes().await.unwrap();
    assert!((max / 100 * 30..max / 100 * 86).contains(&left), "{left} of {max}");
    assert_eq!(*ground.store.health().borrow(), Health::Ready);
    // What cannot be made to fit: the newest of each device stay as stubs, and more is not taken.
    let mut tight = disk(1000);
    for _ in 0..20 {
        tight.look().await.unwrap();
    }
    assert!(
        matches!(&*ground.store.health().borrow(), Health::Full(why) if why.contains("disk_bytes_max allows 1000"))
    );
    let partition = ground.store.partition_of(&id("pump"));
    let fence = ground.store.fence(partition);
    let batch =
        Batch { partition, fence, ops: vec![row("pump", 9000, NOW)], unit: Unit::Batch, done: Box::new(|_| ()) };
    assert!(matches!(ground.store.submit(batch), Err(Full(_))));
    assert!(ground.store.log(Partition::new(0), Offset::ZERO, ALL).await.is_ok(), "what is there is shown");
}

/// A log that begins with the stubs of silent devices, 2560 of them; and one device with rows.
async fn stubs_and_a_pump() -> Ground {
    let ground = Ground::with(Options { partitions: 1, ..Options::SMALL });
    let names: Vec<String> = (0..40).map(|n| format!("silent{n}")).collect();
    let silent: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "")).collect();
    filled(&ground, &silent, 64, 1).await;
    for name in &names {
        let stub = history(&ground, name).await.iter().map(|row| row.offset).collect();
        let trim = Trim { delete: Vec::new(), stub };
        commit(&*ground.store, Partition::new(0), vec![Op::Trim { device: id(name), trim }]).await.unwrap();
    }
    filled(&ground, &[("pump", "")], 4000, 1).await;
    ground
}

/// Else nothing would go for minutes after a start, while rows come.
#[tokio::test]
async fn stubs_of_silent_devices_do_not_end_a_look_for_room() {
    let ground = stubs_and_a_pump().await;
    let max = ground.store.disk_bytes().await.unwrap() / 100 * 105;
    let disk = |max| Disk::new(max, ground.store.clone(), ground.clock.clone(), Metrics::default(), Recount::default());
    disk(max).look().await.unwrap();
    let left = ground.store.disk_bytes().await.unwrap();
    assert!(left < max / 100 * 86, "{left} of {max}");
    assert_eq!(history(&ground, "silent0").await.len(), STUBS, "they are what a repeat is known by");
    // Where there is nothing else it ends, too.
    let mut tight = disk(1000);
    for _ in 0..20 {
        tight.look().await.unwrap();
    }
    assert_eq!(history(&ground, "pump").await.len(), STUBS);
}

/// A clock by which whatever is done takes a second.
#[derive(Default)]
struct SlowClock(AtomicU64);

impl Clock for SlowClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_ms(self.0.fetch_add(1000, Ordering::Relaxed))
    }
    fn unix_now(&self) -> UnixTime {
        NOW
    }
    fn since_boot(&self) -> Timestamp {
        self.now()
    }
}

/// Else rows would come unseen meanwhile.
#[tokio::test]
async fn a_look_for_room_that_frees_nothing_ends_when_the_next_is_due_and_that_goes_on() {
    let ground = stubs_and_a_pump().await;
    let used = ground.store.disk_bytes().await.unwrap();
    let clock = Arc::new(SlowClock::default());
    let max = used / 100 * 105;
    let mut disk = Disk::new(max, ground.store.clone(), clock, Metrics::default(), Recount::default());
    for _ in 0..2 {
        disk.look().await.unwrap();
        assert_eq!(ground.store.disk_bytes().await.unwrap(), used);
    }
    disk.look().await.unwrap();
    let left = ground.store.disk_bytes().await.unwrap();
    assert!(left < max / 100 * 86, "{left} of {max}");
}

/// Else the sweep would hold them against the device a second time, and delete what it may keep.
#[tokio::test]
async fn what_went_for_the_disk_is_not_counted_any_more() {
    let ground = Ground::new();
    let registry = filled(&ground, &[("pump", "")], 2000, 1).await;
    let recount = Recount::default();
    let calendar = Arc::new(Calendar::new(ground.clock.clone(), &mut MetricsRegistry::default()));
    let bounds = Config { device_rows_max: 2000, ..config() };
    let mut sweep = Sweep::new(bounds, ground.store.clone(), registry, calendar, Metrics::default(), recount.clone());
    sweep.look().await.unwrap();
    assert_eq!(history(&ground, "pump").await.len(), 2000);
    let max = ground.store.disk_bytes().await.unwrap() / 100 * 105;
    Disk::new(max, ground.store.clone(), ground.clock.clone(), Metrics::default(), recount).look().await.unwrap();
    let left = history(&ground, "pump").await.len();
    assert!(left < 1800, "{left} are left");
    let more = (2000..2100).map(|n| row("pump", n, NOW)).collect();
    commit(&*ground.store, ground.store.partition_of(&id("pump")), more).await.unwrap();
    sweep.look().await.unwrap();
    assert_eq!(history(&ground, "pump").await.len(), left + 100);
}

/// Else one flipped bit would have the disk fill up.
#[tokio::test]
async fn a_damaged_row_stays_and_what_is_old_of_all_others_goes() {
    let ground = Ground::new();
    let registry = filled(&ground, &[("a", ""), ("b", ""), ("c", "")], 400, 10).await;
    let oldest = history(&ground, "a").await[0].offset;
    assert!(ground.store.damage_row(&id("a"), oldest));
    sweep(&ground, Config { days: 7, ..config() }, registry).look().await.unwrap();
    assert_eq!((history(&ground, "b").await.len(), history(&ground, "c").await.len()), (200, 200));

    let used = ground.store.disk_bytes().await.unwrap();
    let mut disk =
        Disk::new(used / 100 * 105, ground.store.clone(), ground.clock.clone(), Metrics::default(), Recount::default());
    disk.look().await.unwrap();
    let left = ground.store.disk_bytes().await.unwrap();
    assert!(left < used / 100 * 90, "{left} of {used}");
    assert!(ground.store.history(&id("a"), Offset::ZERO, ALL).await.is_err(), "it is not hidden");
}

/// The store looks at a device's sessions before it deletes rows of it.
#[tokio::test]
async fn what_is_old_of_a_device_with_a_damaged_session_stays_and_that_of_all_others_goes() {
    let ground = Ground::with(Options { known_devices: 1, ..Options::SMALL });
    let registry = filled(&ground, &[("a", ""), ("b", ""), ("c", "")], 400, 10).await;
    let whole = Op::Session { device: id("a"), slot: Slot::Present, expect: Version::new(0), whole: Bytes::new() };
    let partition = ground.store.partition_of(&id("a"));
    commit(&*ground.store, partition, vec![whole]).await.unwrap();
    // The writer forgets what it knows of the first.
    commit(&*ground.store, partition, vec![row("b", 400, NOW)]).await.unwrap();
    let whole = ground.store.damage_session(&id("a")).unwrap();
    let mut sweep = sweep(&ground, Config { days: 7, ..config() }, registry);
    sweep.look().await.unwrap();
    let left = async || [history(&ground, "a").await.len(), history(&ground, "b").await.len()];
    assert_eq!(left().await, [400, 201]);
    ground.store.mend_session(&id("a"), whole);
    sweep.look().await.unwrap();
    assert_eq!(left().await, [200, 201], "it is looked at anew");
}

#[test]
fn a_setting_out_of_its_bounds_names_itself() {
    let wrong = Config { disk_bytes_max: 1000, ..config() }.check().unwrap_err();
    assert_eq!(wrong.to_string(), "retention.disk_bytes_max = 1000: at least 268435456 is needed");
    assert!(Config { interval_s: 0, ..config() }.check().is_err());
    assert_eq!(config().check(), Ok(()));
}

/// Rows at full rate against the bound, with files: what the disk takes, and whether it is held.
#[ignore = "seconds of a disk at full rate"]
#[tokio::test(flavor = "multi_thread")]
async fn the_disk_stays_below_its_bound_at_full_rate() {
    use unhidra_store::{Embedded, Keys};
    let seconds = std::env::var("RETENTION_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(40);
    let config = crate::config::Sources {
        purpose: crate::config::Purpose::Node,
        file: None,
        set: ["store.journal_bytes=67108864", "store.partitions=1"].map(str::to_owned).to_vec(),
        data: None,
        log_format: None,
    };
    let config = config.load().unwrap().config.store;
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(Embedded::open(&folder.path().join("store"), &config, Keys::Plain).unwrap());
    let ground = Ground::new();
    let control = ground.control(None).await;
    for n in 0..20 {
        control.enroll(enroll_asked(&format!("d{n}"))).await.unwrap();
    }
    for device in ground.store.devices(None, 100).await.unwrap().rows {
        commit(&*store, Partition::new(0), vec![Op::Device(device)]).await.unwrap();
    }
    let max = 400 << 20;
    let clock = Arc::new(crate::clock::SystemClock::start());
    let mut disk = Disk::new(max, store.clone(), clock.clone(), Metrics::default(), Recount::default());
    let writer = tokio::spawn({
        let store = store.clone();
        async move {
            for number in 0.. {
                let ops = (0..200).map(|n| {
                    let Op::Reading { tag, mut uplink } = row(&format!("d{}", n % 20), number, NOW) else { panic!() };
                    uplink.body = Bytes::from(vec![b'x'; 1000]);
                    Op::Reading { tag, uplink }
                });
                let ops = ops.collect();
                commit(&*store, Partition::new(0), ops).await.unwrap();
            }
        }
    });
    // What it takes between the looks, while what was in memory lies on the disk twice.
    let watched = Arc::new(std::sync::atomic::AtomicU64::new(0));
    let watcher = tokio::spawn({
        let (store, most) = (store.clone(), watched.clone());
        async move {
            let mut before = 0;
            loop {
                let used = store.disk_bytes().await.unwrap();
                let highest = most.fetch_max(used, std::sync::atomic::Ordering::Relaxed);
                if used > highest.max(max) {
                    let newest = store.committed(Partition::new(0)).borrow().get();
                    println!("{:>7} {:>4} MiB, 20 ms before {:>4} MiB, {newest} rows", "", used >> 20, before >> 20);
                }
                before = used;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    });
    let (mut looks, mut held, mut said, mut most) = (0, 0, 0, 0);
    loop {
        tokio::time::sleep(disk.pause()).await;
        disk.look().await.unwrap();
        let second = clock.now().as_ms() / 1000;
        if second >= seconds {
            break;
        }
        let used = store.disk_bytes().await.unwrap();
        most = used.max(most);
        looks += 1;
        held += u64::from(matches!(*store.health().borrow(), Health::Full(_)));
        if second >= said {
            said = second + 2;
            let newest = store.committed(Partition::new(0)).borrow().get();
            println!(
                "{second:>4} s  {:>4} MiB, owed {:>4} MiB, {newest} rows, {:?}",
                used >> 20,
                disk.owed >> 20,
                disk.level
            );
        }
    }
    writer.abort();
    watcher.abort();
    let peak = watched.load(std::sync::atomic::Ordering::Relaxed);
    println!(
        "at most {} MiB of {} MiB after a look, {} MiB between; held in {held} of {looks} looks",
        most >> 20,
        max >> 20,
        peak >> 20
    );
    // A table that is written out lies beside the journals it came from until they are gone, as docs/operations.md
    // says: no look is sure to come between two of them.
    let in_passing = config.journal_bytes + 2 * (config.readings_memtable_bytes + config.sessions_memtable_bytes);
    let most = most.max(peak);
    assert!(most < max + in_passing, "{most} of {max}, and {in_passing} in passing");
}
