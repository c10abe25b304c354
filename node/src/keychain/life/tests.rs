use std::path::PathBuf;

use unhidra_core::device::{Device, Fingerprint, Standing};
use unhidra_core::ids::{DeviceNumber, Offset, Version};
use unhidra_core::message::{Uplink, UplinkKind};
use unhidra_core::suite::Suite;
use unhidra_core::time::Clock;
use unhidra_store::{Act, Config, Embedded, KeyRecord, Keys, Limit, LocalMaster, MasterKey, MessageTag, Slot, keyfile};

use super::*;
use crate::config::{Purpose as Whose, Sources};
use crate::control::RewrapAsked;
use crate::master::Source;
use crate::testing::{NOW, StillClock, id};

const DAY: u64 = 86_400;
const AGES: Ages = Ages { rotation: Duration::from_secs(90 * DAY), expiry: Duration::from_secs(365 * DAY) };

fn key(id: u16, purpose: Purpose, age_days: u64, active: bool) -> KeyRecord {
    let created_at = UnixTime::from_ms(NOW.as_ms() - age_days * DAY * 1000);
    let state = if active { KeyState::Active } else { KeyState::Rotated { at: NOW } };
    KeyRecord { id, purpose, created_at, state }
}

fn record(keys: Vec<KeyRecord>) -> RingRecord {
    let master = LocalMaster::draw().unwrap().id();
    RingRecord { generation: 1, master, next_master: None, keys }
}

fn ids(ids: &[u16]) -> Vec<NonZeroU16> {
    ids.iter().map(|id| NonZeroU16::new(*id).unwrap()).collect()
}

#[test]
fn keys_rotate_are_emptied_and_go_at_their_ages() {
    let ring = record(vec![
        key(1, Purpose::All, 365, false),
        key(2, Purpose::Sessions, 320, false),
        key(3, Purpose::Readings, 319, false),
        key(4, Purpose::Broker, 90, true),
        key(5, Purpose::Readings, 89, true),
    ]);
    let due = due(&ring, NOW, AGES);
    assert_eq!(due.rotate, [Purpose::Broker]);
    assert_eq!(due.empty, ids(&[1, 2]));
    assert_eq!(due.destroy, ids(&[1]).into_iter().collect());
}

/// An active key is never one of those to be emptied, whatever its age: it is rotated first.
#[test]
fn an_active_key_is_never_destroyed() {
    let due = due(&record(vec![key(1, Purpose::Broker, 10_000, true)]), NOW, AGES);
    assert_eq!((due.rotate, due.empty.len(), due.destroy.len()), (vec![Purpose::Broker], 0, 0));
}

#[test]
fn a_key_of_a_clock_that_was_ahead_counts_as_expired() {
    let made = UnixTime::from_ms(NOW.as_ms() + 30 * DAY * 1000);
    assert_eq!(age(made, NOW, AGES), AGES.expiry);
    let within = UnixTime::from_ms(NOW.as_ms() + DAY * 500);
    assert_eq!(age(within, NOW, AGES), Duration::ZERO);
}

/// A store in a folder, and its keys.
struct Place {
    folder: tempfile::TempDir,
    clock: Arc<StillClock>,
}

impl Place {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), clock: Arc::default() }
    }

    fn config(&self) -> Config {
        let sources = Sources { purpose: Whose::Node, file: None, set: Vec::new(), data: None, log_format: None };
        let config = sources.load().unwrap().config.store;
        Config { master_key_file: self.key_file(), partitions: 2, cache_bytes: 1 << 20, ..config }
    }

    fn key_file(&self) -> PathBuf {
        self.folder.path().join("node.key")
    }

    fn open(&self) -> Arc<Keychain> {
        let (config, path) = (self.config(), self.folder.path().join("store"));
        let master = keyfile::load_or_create(&self.key_file(), &path).unwrap();
        let store = Embedded::open(&path, &config, Keys::sealed(master, self.clock.unix_now())).unwrap();
        Arc::new(Keychain::new(Arc::new(store), &config, self.folder.path(), self.clock.clone()))
    }

    fn life(&self, keys: &Arc<Keychain>) -> Life {
        Life { keys: keys.clone(), metrics: Metrics::default(), empty: BTreeSet::new(), left_at: None }
    }

    fn pass(&self, days: u64) {
        self.clock.advance(Duration::from_secs(days * DAY));
    }
}

async fn write(keys: &Keychain, ops: Vec<Op>) {
    let partition = keys.store.partition_of(&id("a"));
    commit(&*keys.store, partition, ops).await.unwrap();
}

fn device() -> Op {
    Op::Device(Device {
        id: id("a"),
        number: DeviceNumber::new(0),
        identity_key: [1; 32],
        certificate: Fingerprint([2; 32]),
        certificate_expires: NOW,
        suite: Suite::X3dh,
        tags: Default::default(),
        class: "mk2".into(),
        enrolled_at: NOW,
        standing: Standing::Enrolled,
    })
}

fn reading(n: u32) -> Op {
    let uplink = Uplink {
        device: id("a"),
        kind: UplinkKind::Reading,
        name: "t".into(),
        device_time: None,
        received_at: NOW,
        reading_id: None,
        body: n.to_string().into(),
    };
    Op::Reading { tag: MessageTag { key: [1; 4], number: n, tag: [2; 4] }, uplink }
}

async fn bodies(keys: &Keychain) -> Vec<String> {
    let all = Limit { rows: usize::MAX, bytes: usize::MAX };
    let page = keys.store.history(&id("a"), Offset::ZERO, all).await.unwrap();
    page.rows.iter().map(|row| String::from_utf8(row.uplink.body.to_vec()).unwrap()).collect()
}

fn held(keys: &Keychain) -> Vec<u16> {
    keys.store.keyring().unwrap().record().keys.iter().map(|key| key.id).collect()
}

async fn deeds(keys: &Keychain) -> Vec<Deed> {
    let page = keys.store.acts(Partition::new(0), 0, 100).await.unwrap();
    page.rows.into_iter().map(|row| row.act.deed).collect()
}

/// A year of a store, in which nobody runs a command: keys rotate, what is old is sealed anew, the
/// old keys go, and everything is read at each point, also by the next process.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_goes_only_when_nothing_is_left_under_it() {
    let place = Place::new();
    let keys = place.open();
    let whole = |n: u32| Op::Session {
        device: id("a"),
        slot: Slot::Present,
        expect: Version::new(n),
        whole: format!("session {n}").into(),
    };
    write(&keys, vec![device(), reading(0), whole(0)]).await;
    let mut life = place.life(&keys);
    life.look(true).await.unwrap();
    assert_eq!(held(&keys), [1, 2, 3, 4], "nothing is due");
    place.pass(90);
    life.look(true).await.unwrap();
    assert_eq!(held(&keys), [1, 2, 3, 4, 5, 6, 7, 8], "all rotate");
    write(&keys, vec![reading(1), whole(1)]).await;
    place.pass(240);
    life.look(true).await.unwrap();
    assert_eq!(held(&keys).len(), 12, "the first are emptied, and stay until they expire");
    assert!(life.metrics.resealed.get() > 0);
    assert_eq!(bodies(&keys).await, ["0", "1"]);
    let mut again = place.life(&keys);
    again.look(true).await.unwrap();
    assert_eq!(again.metrics.resealed.get(), 0, "the next process finds nothing left to seal anew");
    place.pass(40);
    life.look(true).await.unwrap();
    assert!(held(&keys).iter().all(|id| *id > 4), "they are gone: {:?}", held(&keys));
    assert_eq!(bodies(&keys).await, ["0", "1"]);
    let stored = keys.store.session(&id("a")).await.unwrap().unwrap();
    assert_eq!((stored.version, &stored.present.unwrap().whole[..]), (Version::new(2), &b"session 1"[..]));
    assert!(deeds(&keys).await.contains(&Deed::DestroyKeys));
    keys.store.close().await;
    drop((life, again, keys));
    let keys = place.open();
    assert_eq!(bodies(&keys).await, ["0", "1"]);
    assert_eq!(keys.store.device(&id("a")).await.unwrap().unwrap().class, "mk2");
}

/// The clock leaps ten years ahead and back, before anything could be sealed anew or while it is.
#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_leaps_takes_no_key_from_a_record() {
    let place = Place::new();
    let keys = place.open();
    write(&keys, vec![device(), reading(0)]).await;
    let ahead = place.clock.clone();
    ahead.advance(Duration::from_secs(3650 * DAY));
    place.life(&keys).look(true).await.unwrap();
    assert_eq!(bodies(&keys).await, ["0"]);
    keys.store.close().await;
    drop(keys);
    // Back again: the keys that were made meanwhile are of the future.
    let place = Place { clock: Arc::default(), ..place };
    let keys = place.open();
    place.life(&keys).look(true).await.unwrap();
    assert_eq!(bodies(&keys).await, ["0"]);
    let now = NOW.saturating_add(Duration::from_secs(DAY));
    let record = keys.store.keyring().unwrap().record();
    assert!(record.keys.iter().filter(|k| k.state == KeyState::Active).all(|k| k.created_at < now), "{record:?}");
}

/// A clock that jumped makes no key, and takes none, until it has been believed again.
#[tokio::test(flavor = "multi_thread")]
async fn keys_stay_as_they_are_while_the_clock_is_not_believed() {
    let place = Place::new();
    let keys = place.open();
    let mut life = place.life(&keys);
    place.pass(400);
    life.look(false).await.unwrap();
    assert_eq!(held(&keys), [1, 2, 3, 4]);
    life.look(true).await.unwrap();
    assert!(held(&keys).iter().all(|id| *id > 4), "others are in their place: {:?}", held(&keys));
}

/// What a device writes while its records are sealed anew is what it reads.
#[tokio::test(flavor = "multi_thread")]
async fn sealing_anew_never_sets_a_record_back() {
    let place = Place::new();
    let keys = place.open();
    write(&keys, vec![device()]).await;
    keys.rotate().await.unwrap();
    let old = ids(&[1, 2, 3, 4]);
    let mut life = place.life(&keys);
    let (writer, walker) = (keys.clone(), &mut life);
    let writes = async move {
        for n in 0..200_u32 {
            let whole = n.to_string().into();
            let op = Op::Session { device: id("a"), slot: Slot::Present, expect: Version::new(n), whole };
            write(&writer, vec![op]).await;
        }
    };
    let walks = async {
        for _ in 0..20 {
            walker.walk(&old).await.unwrap();
        }
    };
    tokio::join!(writes, walks);
    let stored = keys.store.session(&id("a")).await.unwrap().unwrap();
    assert_eq!((stored.version, &stored.present.unwrap().whole[..]), (Version::new(200), &b"199"[..]));
}

#[tokio::test]
async fn status_says_how_old_and_how_long_still() {
    let place = Place::new();
    let keys = place.open();
    place.pass(30);
    let status = keys.status().unwrap();
    assert_eq!(status.keys.len(), 4);
    let first = &status.keys[0];
    assert_eq!((first.id, first.purpose.as_str(), first.state.as_str()), (1, "sessions", "active"));
    assert_eq!((first.age_days, first.rotates_in_days, first.expires_in_days), (30.0, Some(60.0), 335.0));
    assert!(status.master_key_from.ends_with("node.key"), "{}", status.master_key_from);
    let status = keys.rotate().await.unwrap();
    let states: Vec<_> = status.keys.iter().map(|key| key.state.as_str()).collect();
    assert_eq!(states, ["rotated", "rotated", "rotated", "rotated", "active", "active", "active", "active"]);
    assert_eq!(deeds(&keys).await, [Deed::RotateKeys]);
    let json = serde_json::to_string(&status).unwrap();
    let secret = keyfile::load(&place.key_file()).unwrap();
    let hex: String = secret.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    assert!(!json.contains(&hex));
}

#[tokio::test]
async fn a_new_master_key_takes_the_place_of_the_old_in_its_file() {
    let place = Place::new();
    let keys = place.open();
    write(&keys, vec![device(), reading(0)]).await;
    let first = keyfile::load(&place.key_file()).unwrap().id();
    let drawn = keys.rewrap(RewrapAsked::default()).await.unwrap();
    let second = keyfile::load(&place.key_file()).unwrap().id();
    assert!(drawn.done && drawn.master_key == second.to_string() && second != first);
    // Named in a file.
    let named = place.folder.path().join("new.key");
    keyfile::save(&named, &LocalMaster::draw().unwrap()).unwrap();
    let asked = RewrapAsked { new_key_file: Some(named.clone()) };
    keys.rewrap(asked.clone()).await.unwrap();
    assert_eq!(keyfile::load(&place.key_file()).unwrap().id(), keyfile::load(&named).unwrap().id());
    let refused = keys.rewrap(asked).await.unwrap_err();
    assert!(matches!(refused, ControlError::Invalid(_)), "{refused}");
    let nowhere = RewrapAsked { new_key_file: Some(place.folder.path().join("none")) };
    assert!(keys.rewrap(nowhere).await.is_err());
    assert_eq!(deeds(&keys).await, [Deed::RewrapKeys, Deed::RewrapKeys]);
    keys.store.close().await;
    drop(keys);
    assert_eq!(bodies(&place.open()).await, ["0"], "the file's key opens it");
}

/// However they fall together, and though nobody waits for some of them.
#[tokio::test(flavor = "multi_thread")]
async fn of_many_changes_at_once_the_last_leaves_the_key_that_opens_in_the_file() {
    let place = Place::new();
    let keys = place.open();
    write(&keys, vec![device(), reading(0)]).await;
    let ask = |n: u64| {
        let keys = keys.clone();
        let asked = async move { keys.rewrap(RewrapAsked::default()).await };
        tokio::time::timeout(Duration::from_millis(if n.is_multiple_of(3) { 2 * n } else { 60_000 }), asked)
    };
    let told = futures_util::future::join_all((0..12).map(|n| tokio::spawn(ask(n)))).await;
    let done = told.into_iter().filter_map(|told| told.unwrap().ok()).map(Result::unwrap).count();
    assert!(done >= 8, "{done}");
    // Behind those that nobody waited for.
    keys.rewrap(RewrapAsked::default()).await.unwrap();
    let status = keys.status().unwrap();
    let there = keyfile::load(&place.key_file()).unwrap().id().to_string();
    assert_eq!((status.master_key, status.next_master_key), (there, None));
    keys.store.close().await;
    drop(keys);
    assert_eq!(bodies(&place.open()).await, ["0"]);
}

/// Power fails between the steps of a change: with the old key in its file, and with the new.
#[tokio::test]
async fn a_change_of_the_master_key_survives_a_crash_at_each_step() {
    let place = Place::new();
    let keys = place.open();
    write(&keys, vec![device(), reading(0)]).await;
    let new = Arc::new(LocalMaster::draw().unwrap());
    let next = Arc::clone(&new);
    keys.change(move |ring| ring.begin_rewrap(next)).await.unwrap();
    keys.store.close().await;
    drop(keys);
    // Behind the first step: the old key opens, and the change is not made.
    let keys = place.open();
    let status = keys.status().unwrap();
    assert_eq!(status.next_master_key, Some(new.id().to_string()));
    assert_eq!(bodies(&keys).await, ["0"]);
    keys.store.close().await;
    drop(keys);
    // Behind the second: the new key opens, and ends it.
    keyfile::save(&place.key_file(), &new).unwrap();
    let keys = place.open();
    let status = keys.status().unwrap();
    assert_eq!((status.master_key, status.next_master_key), (new.id().to_string(), None));
    assert_eq!(bodies(&keys).await, ["0"]);
    // A change that failed behind its second step goes on from there, and never leaves the file
    // with a key that opens nothing.
    let third = Arc::new(LocalMaster::draw().unwrap());
    let next = Arc::clone(&third);
    keys.change(move |ring| ring.begin_rewrap(next)).await.unwrap();
    keyfile::save(&place.key_file(), &third).unwrap();
    keys.rewrap(RewrapAsked::default()).await.unwrap();
    let there = keyfile::load(&place.key_file()).unwrap().id();
    assert_eq!(keys.status().unwrap().master_key, there.to_string());
    assert_ne!(there, third.id());
    // Another key in the file than the ring knows is not overwritten.
    keyfile::save(&place.key_file(), &LocalMaster::draw().unwrap()).unwrap();
    let refused = keys.rewrap(RewrapAsked::default()).await.unwrap_err().to_string();
    assert!(refused.contains("put that one back first"), "{refused}");
}

/// The key's folder takes no new file: nothing has changed, and nothing is in the way of what comes.
#[tokio::test]
async fn a_change_whose_key_cannot_be_put_into_its_place_is_given_up() {
    let place = Place::new();
    let keys = place.open();
    let before = keys.status().unwrap();
    std::fs::create_dir(place.folder.path().join("node.key.new")).unwrap();
    assert!(matches!(keys.rewrap(RewrapAsked::default()).await, Err(ControlError::Unavailable(_))));
    let after = keys.status().unwrap();
    assert_eq!((after.master_key, after.next_master_key), (before.master_key, None));
    std::fs::remove_dir(place.folder.path().join("node.key.new")).unwrap();
    keys.rewrap(RewrapAsked::default()).await.unwrap();
    assert_eq!(keys.status().unwrap().next_master_key, None);
}

/// Where a secrets manager has the key.
#[tokio::test]
async fn a_key_that_the_operator_puts_into_its_place_may_come_before_or_after() {
    let place = Place::new();
    drop(place.open());
    let (first, second) = (place.key_file(), place.folder.path().join("second.key"));
    keyfile::save(&second, &LocalMaster::draw().unwrap()).unwrap();
    let given = place.folder.path().join("given.key");
    std::fs::copy(&first, &given).unwrap();
    let argv = vec!["cat".to_owned(), given.display().to_string()];
    let config = Config { master_key_file: PathBuf::new(), master_key_command: argv.into(), ..place.config() };
    let open = || async {
        let path = place.folder.path().join("store");
        let master = Source::of(&config, place.folder.path()).read_or_create(&path).await.unwrap();
        let store = Embedded::open(&path, &config, Keys::sealed(master, NOW)).unwrap();
        Arc::new(Keychain::new(Arc::new(store), &config, place.folder.path(), place.clock.clone()))
    };
    let id_of = |path: &PathBuf| keyfile::load(path).unwrap().id().to_string();
    let masters = |keys: &Keychain| {
        let status = keys.status().unwrap();
        (status.master_key, status.next_master_key)
    };
    let keys = open().await;
    let refused = keys.rewrap(RewrapAsked::default()).await.unwrap_err().to_string();
    assert!(refused.contains("still gives the key that is in use"), "{refused}");
    // Named first, and given up: the present key is named.
    let named = RewrapAsked { new_key_file: Some(second.clone()) };
    assert!(!keys.rewrap(named.clone()).await.unwrap().done);
    assert_eq!(masters(&keys), (id_of(&first), Some(id_of(&second))));
    assert!(keys.rewrap(RewrapAsked::default()).await.unwrap().done);
    assert_eq!(masters(&keys), (id_of(&first), None));
    // Named first, put into place afterwards.
    keys.rewrap(named).await.unwrap();
    keys.store.close().await;
    drop(keys);
    std::fs::copy(&second, &given).unwrap();
    let keys = open().await;
    assert_eq!(masters(&keys), (id_of(&second), None));
    // Put into place first.
    std::fs::copy(&first, &given).unwrap();
    assert!(keys.rewrap(RewrapAsked::default()).await.unwrap().done);
    assert_eq!(masters(&keys), (id_of(&first), None));
}

#[tokio::test]
async fn an_older_ring_in_the_place_of_the_present_one_is_refused() {
    let place = Place::new();
    let keys = place.open();
    let path = place.folder.path().join("store/keys");
    let old = std::fs::read(&path).unwrap();
    keys.rotate().await.unwrap();
    write(&keys, vec![device()]).await;
    keys.store.close().await;
    drop(keys);
    let present = std::fs::read(&path).unwrap();
    std::fs::write(&path, old).unwrap();
    let master = keyfile::load(&place.key_file()).unwrap();
    let store = place.folder.path().join("store");
    let refused = Embedded::open(&store, &place.config(), Keys::sealed(master, NOW)).err().unwrap().to_string();
    assert!(refused.contains("an old one, of generation 1") && refused.contains("generation 2"), "{refused}");
    std::fs::write(&path, present).unwrap();
    drop(place.open());
}

#[tokio::test]
async fn acts_of_the_keys_say_who() {
    let place = Place::new();
    let keys = place.open();
    crate::actor::by(crate::actor::user(7), keys.rotate()).await.unwrap();
    let page = keys.store.acts(Partition::new(0), 0, 9).await.unwrap();
    let Act { by, deed, detail, .. } = page.rows[0].act.clone();
    assert_eq!(
        (&*by, deed, &*detail),
        ("uid 7", Deed::RotateKeys, "new keys for sessions, readings, broker, registry")
    );
}
