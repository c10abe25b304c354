use super::*;
use crate::KeyState;

const NOW: UnixTime = UnixTime::from_s(1_800_000_000);
const ROW: &[u8] = &[7; 12];

fn master() -> Arc<dyn MasterKey> {
    Arc::new(LocalMaster::new(Zeroizing::new([3; 32])))
}

/// A ring, in a folder that goes with it.
struct Place {
    _folder: tempfile::TempDir,
    ring: Arc<Keyring>,
}

impl Place {
    fn new() -> Self {
        Self::with(|folder| Keyring::make(folder, master(), NOW).unwrap())
    }

    /// Of a folder of version 1, whose one key had the id 7.
    fn of_version_1() -> Self {
        let first = DataKey::new(NonZeroU16::new(7).unwrap(), Zeroizing::new([3; 32]));
        Self::with(|folder| Keyring::adopt(folder, master(), first, NOW).unwrap())
    }

    fn with(make: impl FnOnce(&std::path::Path) -> Keyring) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let ring = Arc::new(make(folder.path()));
        Self { _folder: folder, ring }
    }

    fn sealing(&self, opening: u32) -> Sealing {
        Sealing::data(Arc::clone(&self.ring), opening, [opening as u8; 32])
    }

    fn active(&self, purpose: Purpose) -> u16 {
        self.ring.ring().active(purpose).unwrap().id().get()
    }
}

fn open(sealing: &Sealing, table: Table, key: &[u8], record: &[u8]) -> Result<Bytes, UnsealError> {
    sealing.open(table, key, record, |opening| Ok((opening < 9).then_some([opening as u8; 32])))
}

impl Sealing {
    fn seal(&self, table: Table, key: &[u8], value: &[u8]) -> Result<Vec<u8>, SealError> {
        let mut record = b"what lay there before".to_vec();
        self.seal_into(&mut record, table, key, value)?;
        Ok(record)
    }
}

#[test]
fn a_record_opens_in_its_place_alone() {
    let place = Place::new();
    let sealing = place.sealing(1);
    let record = sealing.seal(Table::Registry, b"key", b"value").unwrap();
    assert_eq!(open(&sealing, Table::Registry, b"key", &record), Ok(Bytes::from("value")));
    assert_eq!(open(&sealing, Table::Registry, b"kez", &record), Err(UnsealError::Forged));
    // Moved to another table, and with that table's tag too.
    for (table, tag) in [(Table::Numbers, Tag::Number), (Table::Acts, Tag::Act)] {
        let found = Tag::Device.as_byte();
        let refused = UnsealError::Tag { found, expected: tag.as_byte() };
        assert_eq!(open(&sealing, table, b"key", &record), Err(refused));
        let mut moved = record.clone();
        moved[1] = tag.as_byte();
        assert_eq!(open(&sealing, table, b"key", &moved), Err(UnsealError::Forged));
    }
}

#[test]
fn a_record_moved_to_another_partition_or_folder_does_not_open() {
    let place = Place::new();
    let record = place.sealing(1).seal(Table::Readings, ROW, b"value").unwrap();
    // Another partition of the folder: the same ring, and a salt of its own.
    let partition = Sealing::data(Arc::clone(&place.ring), 1, [99; 32]);
    assert_eq!(open(&partition, Table::Readings, ROW, &record), Err(UnsealError::Forged));
    // Another folder under the same master key.
    let other = Place::new();
    assert_eq!(open(&other.sealing(1), Table::Readings, ROW, &record), Err(UnsealError::Forged));
}

#[test]
fn each_purpose_has_a_key_of_its_own_and_no_other_opens_it() {
    let place = Place::new();
    let sealing = place.sealing(1);
    let session = [0, 0, 0, 1, 0x10];
    let mut ids = Vec::new();
    for (table, key) in [
        (Table::Sessions, &session[..]),
        (Table::Readings, ROW),
        (Table::Broker, &[1, 1]),
        (Table::Registry, b"pump-7"),
    ] {
        let record = sealing.seal(table, key, b"value").unwrap();
        ids.push(key_of(&record).unwrap());
        assert_eq!(ids.last(), Some(&place.active(table.purpose())));
    }
    ids.dedup();
    assert_eq!(ids.len(), 4);
    let mut record = sealing.seal(Table::Readings, ROW, b"value").unwrap();
    let id = place.active(Purpose::Broker);
    record[2..4].copy_from_slice(&id.to_be_bytes());
    let refused = UnsealError::Purpose { id, found: Purpose::Broker, expected: Purpose::Readings };
    assert_eq!(open(&sealing, Table::Readings, ROW, &record), Err(refused));
}

#[test]
fn a_rotated_key_opens_what_it_sealed_and_seals_no_more() {
    let place = Place::new();
    let sealing = place.sealing(1);
    let before = sealing.seal(Table::Readings, ROW, b"before").unwrap();
    let old = place.active(Purpose::Readings);
    place.ring.rotate(&[Purpose::Readings], NOW).unwrap();
    let after = sealing.seal(Table::Readings, ROW, b"after").unwrap();
    assert_eq!((key_of(&before), key_of(&after)), (Some(old), Some(place.active(Purpose::Readings))));
    assert_ne!(key_of(&before), key_of(&after));
    // In the same opening, and in the next.
    for sealing in [&sealing, &place.sealing(2)] {
        assert_eq!(open(sealing, Table::Readings, ROW, &before), Ok(Bytes::from("before")));
        assert_eq!(open(sealing, Table::Readings, ROW, &after), Ok(Bytes::from("after")));
    }
    assert_ne!(before[4..13], after[4..13], "the counter goes on");
    place.ring.destroy(&[NonZeroU16::new(old).unwrap()]).unwrap();
    assert_eq!(open(&sealing, Table::Readings, ROW, &before), Err(UnsealError::Key(old)));
    assert_eq!(open(&sealing, Table::Readings, ROW, &after), Ok(Bytes::from("after")));
}

/// A record of version 1, sealed as that version did.
fn version_1(table: Table, key: &[u8], value: &[u8]) -> Vec<u8> {
    let header = [VERSION_1, 0, 7];
    let mut sealed = value.to_vec();
    let ad = Aad::from(associated_data(table, key, &header));
    let data = DataKey::new(NonZeroU16::new(7).unwrap(), Zeroizing::new([3; 32]));
    let cipher = data.of_opening(1, &[1; 32]).unwrap();
    let tag = cipher.seal_in_place_separate_tag(nonce(1, 5), ad, &mut sealed).unwrap();
    [&header[..], &[0, 0, 1, 0, 0, 0, 0, 0, 5], &sealed, tag.as_ref()].concat()
}

#[test]
fn records_of_version_1_open_but_for_those_of_sessions() {
    let place = Place::of_version_1();
    let sealing = place.sealing(2);
    let record = version_1(Table::Readings, ROW, b"value");
    assert_eq!(open(&sealing, Table::Readings, ROW, &record), Ok(Bytes::from("value")));
    let key = [0, 0, 0, 1, 0x10];
    let record = version_1(Table::Sessions, &key, b"value");
    assert_eq!(open(&sealing, Table::Sessions, &key, &record), Err(UnsealError::Old));
    let opened: Result<_, UnsealError> = sealing.open_any(Table::Sessions, &key, &record, |_| Ok(Some([1; 32])));
    assert_eq!(opened, Ok(Bytes::from("value")));
    let entry = place.ring.record().keys.into_iter().find(|key| key.id == 7).unwrap();
    assert_eq!((entry.purpose, entry.state), (Purpose::All, KeyState::Rotated { at: NOW }));
    assert_ne!(key_of(&sealing.seal(Table::Readings, ROW, b"value").unwrap()), Some(7));
}

#[test]
fn a_record_in_the_place_of_another_kind_is_known() {
    let key = [0, 0, 0, 1, 0x10];
    let mut record = Sealing::Plain.seal(Table::Sessions, &key, b"value").unwrap();
    record[1] = Tag::Peer.as_byte();
    let refused = UnsealError::Tag { found: 0x05, expected: 0x03 };
    assert_eq!(open(&Sealing::Plain, Table::Sessions, &key, &record), Err(refused));
    assert_eq!(Sealing::Plain.seal(Table::Sessions, b"none", b"value"), Err(SealError::NoKind));
    record[0] = 3;
    let refused = UnsealError::Version { found: 3 };
    assert_eq!(open(&Sealing::Plain, Table::Sessions, &key, &record), Err(refused));
}

#[test]
fn a_changed_byte_never_opens() {
    let place = Place::new();
    let sealing = place.sealing(1);
    let record = sealing.seal(Table::Readings, ROW, b"value").unwrap();
    for at in 0..record.len() {
        let mut changed = record.clone();
        changed[at] ^= 1;
        assert!(open(&sealing, Table::Readings, ROW, &changed).is_err(), "byte {at}");
        assert!(open(&sealing, Table::Readings, ROW, &record[..at]).is_err(), "cut at {at}");
    }
}

#[test]
fn records_of_earlier_openings_open_and_those_of_unknown_ones_do_not() {
    let place = Place::new();
    let record = place.sealing(1).seal(Table::Readings, ROW, b"value").unwrap();
    assert_eq!(open(&place.sealing(2), Table::Readings, ROW, &record), Ok(Bytes::from("value")));
    let unknown = place.sealing(9).seal(Table::Readings, ROW, b"value").unwrap();
    assert_eq!(open(&place.sealing(2), Table::Readings, ROW, &unknown), Err(UnsealError::Opening(9)));
}

/// Two openings with the same number, as a restored backup makes them, differ by their salts.
#[test]
fn a_restored_opening_has_another_key() {
    let place = Place::new();
    let seal = |salt: u8| {
        let sealing = Sealing::data(Arc::clone(&place.ring), 5, [salt; 32]);
        sealing.seal(Table::Readings, ROW, &[0; 64]).unwrap()
    };
    let (once, again) = (seal(1), seal(2));
    assert_eq!(once[..13], again[..13], "header and nonce are the same");
    assert_ne!(once[13..], again[13..]);
}

#[test]
fn plain_records_are_for_plain_folders_alone() {
    let place = Place::new();
    let plain = Sealing::Plain.seal(Table::Readings, ROW, b"value").unwrap();
    assert_eq!(plain, b"\x02\x01\x00\x00value");
    assert_eq!(open(&Sealing::Plain, Table::Readings, ROW, &plain), Ok(Bytes::from("value")));
    assert_eq!(open(&place.sealing(1), Table::Readings, ROW, &plain), Err(UnsealError::Plain));
    let sealed = place.sealing(1).seal(Table::Readings, ROW, b"value").unwrap();
    let id = place.active(Purpose::Readings);
    assert_eq!(open(&Sealing::Plain, Table::Readings, ROW, &sealed), Err(UnsealError::Sealed(id)));
}

#[test]
fn a_full_chain_record_has_85_bytes() {
    let longest = crate::record::encode_session(
        Default::default(),
        Default::default(),
        &[0; crate::ledger::draft::CHAIN_LEN_MAX],
    );
    let key = [0, 0, 0, 1, 0x11];
    let sealing = Place::new().sealing(1);
    assert_eq!(sealing.seal(Table::Sessions, &key, &longest).unwrap().len(), 85);
    let usual = crate::record::encode_session(Default::default(), Default::default(), &[0; 41]);
    assert_eq!(sealing.seal(Table::Sessions, &key, &usual).unwrap().len(), 78);
}

#[test]
fn no_nonce_is_used_twice_and_the_last_one_ends_it() {
    let sealing = Place::new().sealing(OPENING_MAX);
    let first = sealing.seal(Table::Broker, b"\x01", b"").unwrap();
    let second = sealing.seal(Table::Broker, b"\x01", b"").unwrap();
    assert_ne!(first[..13], second[..13]);
    let Sealing::Data(data) = &sealing else { panic!("sealed") };
    data.next.store(COUNTER_MAX, Ordering::Relaxed);
    let last = sealing.seal(Table::Broker, b"\x01", b"last").unwrap();
    assert_eq!(open(&sealing, Table::Broker, b"\x01", &last), Ok(Bytes::from("last")));
    assert_eq!(sealing.seal(Table::Broker, b"\x01", b""), Err(SealError::Exhausted));
}

#[test]
fn a_key_shows_nothing_of_itself() {
    let shown = format!("{:?}", Keys::Sealed { master: master(), now: NOW });
    assert_eq!(shown, format!("Sealed({})", master().id()));
    let shown = format!("{:?}", DataKey::new(NonZeroU16::MIN, Zeroizing::new([0xab; 32])));
    assert_eq!(shown, "DataKey(1, [secret])");
}
