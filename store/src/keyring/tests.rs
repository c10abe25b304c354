use std::os::unix::fs::MetadataExt;

use zeroize::Zeroizing;

use super::*;
use crate::master::LocalMaster;

const NOW: UnixTime = UnixTime::from_s(1_800_000_000);

fn master(byte: u8) -> Arc<dyn MasterKey> {
    Arc::new(LocalMaster::new(Zeroizing::new([byte; 32])))
}

fn made() -> (tempfile::TempDir, Keyring) {
    let folder = tempfile::tempdir().unwrap();
    let ring = Keyring::make(folder.path(), master(1), NOW).unwrap();
    (folder, ring)
}

fn open(folder: &Path, id: RingId, byte: u8) -> Result<Keyring, KeyringError> {
    Keyring::open(folder, id, master(byte))
}

#[test]
fn a_ring_is_its_owners_alone_and_reads_back() {
    let (folder, ring) = made();
    let mode = fs::metadata(folder.path().join(FILE)).unwrap().mode();
    assert_eq!(mode & 0o777, 0o600);
    ring.rotate(&[Purpose::Broker], NOW).unwrap();
    let read = open(folder.path(), ring.id(), 1).unwrap();
    assert_eq!(read.record(), ring.record());
    assert_eq!((ring.record().keys.len(), ring.generation()), (5, 2));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing else is left");
}

#[test]
fn a_ring_of_another_folder_a_missing_one_and_an_old_one_are_refused() {
    let (folder, ring) = made();
    let (other, _) = made();
    let path = folder.path().join(FILE);
    let old = fs::read(&path).unwrap();
    ring.rotate(&Purpose::SEALING, NOW).unwrap();
    fs::write(&path, old).unwrap();
    let refused = open(folder.path(), ring.id(), 1).unwrap().check_seen(2).unwrap_err();
    assert!(matches!(refused, KeyringError::Old { found: 1, seen: 2, .. }), "{refused}");
    fs::copy(other.path().join(FILE), &path).unwrap();
    let refused = open(folder.path(), ring.id(), 1).unwrap_err();
    assert!(refused.to_string().contains("another folder"), "{refused}");
    fs::remove_file(&path).unwrap();
    assert!(matches!(open(folder.path(), ring.id(), 1), Err(KeyringError::Missing { .. })));
    fs::write(&path, vec![0; 300_000]).unwrap();
    assert!(matches!(open(folder.path(), ring.id(), 1), Err(KeyringError::Ring { .. })));
}

#[test]
fn a_wrong_master_key_is_told_so_with_where_to_look() {
    let (folder, ring) = made();
    let refused = open(folder.path(), ring.id(), 2).unwrap_err().to_string();
    assert!(refused.contains(&master(1).id().to_string()) && refused.contains("store.master_key_file"), "{refused}");
}

/// Whichever master key is in place when power fails, it opens the ring.
#[test]
fn a_master_key_is_changed_so_that_one_of_two_always_opens() {
    let (folder, ring) = made();
    let opens = |byte| open(folder.path(), ring.id(), byte).is_ok();
    let keys = ring.record().keys;
    assert!(opens(1) && !opens(2));
    ring.begin_rewrap(master(2)).unwrap();
    assert!(opens(1) && opens(2), "between the two steps");
    assert_eq!(ring.record().next_master, Some(master(2).id()));
    ring.rotate(&[Purpose::Readings], NOW).unwrap();
    assert!(opens(1) && opens(2), "a rotation meanwhile is for both");
    assert!(matches!(ring.end_rewrap(master(3).id()), Err(KeyringError::NotNext { .. })));
    assert!(opens(1) && opens(2), "another change's end is not this one's");
    ring.end_rewrap(master(2).id()).unwrap();
    assert!(matches!(ring.end_rewrap(master(2).id()), Err(KeyringError::NotNext { .. })));
    assert!(!opens(1) && opens(2));
    assert_eq!((ring.record().master, ring.record().next_master), (master(2).id(), None));
    assert_eq!(ring.record().keys[0], keys[0], "the data keys are what they were");
    assert!(matches!(ring.begin_rewrap(master(2)), Err(KeyringError::SameMaster { .. })));
}

#[test]
fn a_change_of_the_master_key_cut_short_is_ended_by_the_new_and_kept_by_the_old() {
    let (folder, ring) = made();
    let id = ring.id();
    ring.begin_rewrap(master(2)).unwrap();
    drop(ring);
    // The next process comes with the old one: both still open it, and no key is added.
    let ring = open(folder.path(), id, 1).unwrap();
    assert!(!ring.is_opened_by_the_new().unwrap());
    let refused = ring.rotate(&[Purpose::Broker], NOW).unwrap_err();
    assert!(matches!(refused, KeyringError::RewrapUnderWay { .. }), "{refused}");
    assert!(open(folder.path(), id, 2).is_ok());
    // Then one with the new.
    let ring = open(folder.path(), id, 2).unwrap();
    assert!(ring.is_opened_by_the_new().unwrap());
    ring.settle_rewrap().unwrap();
    assert!(open(folder.path(), id, 1).is_err());
    ring.rotate(&[Purpose::Broker], NOW).unwrap();
    assert!(!ring.is_opened_by_the_new().unwrap());
    // Begun anew under the old one, a change gives up the one before it.
    ring.begin_rewrap(master(3)).unwrap();
    let ring = open(folder.path(), id, 2).unwrap();
    ring.begin_rewrap(master(4)).unwrap();
    assert!(open(folder.path(), id, 3).is_err() && open(folder.path(), id, 4).is_ok());
}

#[test]
fn a_change_that_cannot_be_written_changes_nothing() {
    let (folder, ring) = made();
    let before = ring.record();
    // The draft's name is taken by what no file can replace.
    fs::create_dir(folder.path().join("keys.new")).unwrap();
    assert!(matches!(ring.rotate(&Purpose::SEALING, NOW), Err(KeyringError::Io { .. })));
    assert!(matches!(ring.begin_rewrap(master(2)), Err(KeyringError::Io { .. })));
    assert_eq!(ring.record(), before);
    fs::remove_dir(folder.path().join("keys.new")).unwrap();
    assert_eq!(open(folder.path(), ring.id(), 1).unwrap().record(), before);
}

#[test]
fn a_ring_shows_nothing_of_its_keys() {
    let (_folder, ring) = made();
    assert_eq!(format!("{ring:?}"), "Keyring { generation: 1, .. }");
}
