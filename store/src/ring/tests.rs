use super::*;
use crate::master::LocalMaster;

const NOW: UnixTime = UnixTime::from_s(1_800_000_000);

fn master(byte: u8) -> LocalMaster {
    LocalMaster::new(Zeroizing::new([byte; 32]))
}

fn later(days: u64) -> UnixTime {
    UnixTime::from_s(1_800_000_000 + days * 86_400)
}

/// What a ring says, without its secrets but for a digest of each.
fn shown(ring: &Ring) -> Vec<(u16, Purpose, KeyState, UnixTime, [u8; 32])> {
    let row =
        |entry: &RingEntry| (entry.id().get(), entry.purpose, entry.state, entry.created_at, *entry.key.as_bytes());
    ring.keys.iter().map(row).collect()
}

fn refused(file: &[u8], master: &LocalMaster) -> RingError {
    Ring::decode(file, master).map(|_| ()).unwrap_err()
}

#[test]
fn a_ring_reads_back_under_its_master_key() {
    let ring = Ring::draw(NOW).unwrap().rotated(&[Purpose::Readings], later(90)).unwrap();
    let file = ring.encode(&[&master(1)]).unwrap();
    let read = Ring::decode(&file, &master(1)).unwrap();
    assert_eq!(shown(&read.ring), shown(&ring));
    assert_eq!((read.ring.id, read.ring.generation, read.ring.next), (ring.id, 2, 6));
    assert_eq!(read.other, None);
    assert_eq!(Ring::masters(&file).unwrap(), [master(1).id()]);
}

#[test]
fn another_master_key_is_named_and_opens_nothing() {
    let file = Ring::draw(NOW).unwrap().encode(&[&master(1)]).unwrap();
    let expected = RingError::OtherMaster { held: master(1).id(), given: master(2).id() };
    assert_eq!(refused(&file, &master(2)), expected);
    // One that says it is the right one is found out.
    let mut forged = file.clone();
    let at = HEADER_LEN + 1;
    forged[at..at + 16].copy_from_slice(master(2).id().as_bytes());
    assert_eq!(refused(&forged, &master(2)), RingError::Forged);
}

#[test]
fn a_ring_for_two_master_keys_opens_under_either() {
    let ring = Ring::draw(NOW).unwrap();
    let file = ring.encode(&[&master(1), &master(2)]).unwrap();
    let (first, second) = (Ring::decode(&file, &master(1)).unwrap(), Ring::decode(&file, &master(2)).unwrap());
    assert_eq!(shown(&first.ring), shown(&second.ring));
    assert_eq!((first.other, second.other), (Some(master(2).id()), Some(master(1).id())));
    assert!(matches!(refused(&file, &master(3)), RingError::OtherMaster { .. }));
}

#[test]
fn no_changed_byte_and_no_cut_is_taken() {
    let file = Ring::draw(NOW).unwrap().encode(&[&master(1)]).unwrap();
    for at in 0..file.len() {
        for bit in [0x01, 0x80] {
            let mut changed = file.clone();
            changed[at] ^= bit;
            assert!(Ring::decode(&changed, &master(1)).is_err(), "byte {at}");
        }
        assert!(Ring::decode(&file[..at], &master(1)).is_err(), "cut at {at}");
    }
    let longer = [&file[..], &[0]].concat();
    assert!(Ring::decode(&longer, &master(1)).is_err());
}

/// Whoever may write the file has two true ones of the same ring, and mixes them.
#[test]
fn entries_of_two_files_do_not_mix() {
    let ring = Ring::draw(NOW).unwrap();
    let old = ring.encode(&[&master(1)]).unwrap();
    let new = ring.again().encode(&[&master(1)]).unwrap();
    assert_eq!(old.len(), new.len());
    let entry = HEAD_LEN + 32 + TAG_LEN;
    let keys = old.len() - MAC_LEN - 4 * entry;
    for nth in 0..4 {
        let mut mixed = new.clone();
        let range = keys + nth * entry..keys + (nth + 1) * entry;
        mixed[range.clone()].copy_from_slice(&old[range]);
        assert_eq!(refused(&mixed, &master(1)), RingError::Forged, "entry {nth}");
    }
    let mut swapped = new.clone();
    let (first, second) = (keys..keys + entry, keys + entry..keys + 2 * entry);
    swapped[first.clone()].copy_from_slice(&new[second.clone()]);
    swapped[second].copy_from_slice(&new[first]);
    assert_eq!(refused(&swapped, &master(1)), RingError::Forged);
    let mut head = new.clone();
    head[..keys].copy_from_slice(&old[..keys]);
    assert_eq!(refused(&head, &master(1)), RingError::Forged, "the ring key of one, the entries of the other");
}

/// A thief with the file and without the master key, and whoever reads along.
#[test]
fn a_file_shows_no_key() {
    let ring = Ring::draw(NOW).unwrap();
    let file = ring.encode(&[&master(1)]).unwrap();
    for entry in &ring.keys {
        assert!(!file.windows(32).any(|window| window == entry.key.as_bytes()));
    }
    assert!(!file.windows(32).any(|window| window == master(1).as_bytes()));
    assert!(format!("{:?}", ring.keys).contains("[secret]"));
    assert_ne!(ring.encode(&[&master(1)]).unwrap(), file, "each writing has a ring key of its own");
}

#[test]
fn a_rotated_key_opens_and_seals_no_more() {
    let ring = Ring::draw(NOW).unwrap();
    assert_eq!(ring.keys.len(), 4);
    let first = ring.active(Purpose::Readings).unwrap().id();
    let next = ring.rotated(&[Purpose::Readings], later(90)).unwrap();
    let active = next.active(Purpose::Readings).unwrap();
    assert_ne!(active.id(), first);
    assert_eq!(active.created_at, later(90));
    assert_eq!(next.key(first.get()).unwrap().state, KeyState::Rotated { at: later(90) });
    assert_eq!(next.active(Purpose::Sessions).unwrap().id(), ring.active(Purpose::Sessions).unwrap().id());
    assert_eq!(next.without(&[active.id()]).keys.len(), 5, "an active key is never destroyed");
    let destroyed = next.without(&[first]);
    assert!(destroyed.key(first.get()).is_none());
    let again = destroyed.rotated(&[Purpose::Readings], later(180)).unwrap();
    assert_ne!(again.active(Purpose::Readings).unwrap().id(), first, "an id is never given again");
}

#[test]
fn a_full_ring_takes_no_more_keys() {
    let mut ring = Ring::draw(NOW).unwrap();
    while ring.keys.len() < KEYS_MAX {
        ring = ring.rotated(&Purpose::SEALING, NOW).unwrap();
    }
    assert_eq!(ring.rotated(&[Purpose::Broker], NOW).map(|_| ()), Err(RingError::Full));
    let file = ring.encode(&[&master(1), &master(2)]).unwrap();
    assert!((file.len() as u64) < FILE_LEN_MAX);
    assert_eq!(Ring::decode(&file, &master(2)).unwrap().ring.keys.len(), KEYS_MAX);
}

#[test]
fn the_key_of_a_folder_of_version_1_stays_and_opens() {
    let first = DataKey::new(NonZeroU16::MIN, Zeroizing::new([9; 32]));
    let ring = Ring::of_first_key(first, NOW).unwrap();
    let entry = ring.key(1).unwrap();
    assert_eq!((entry.purpose, entry.state), (Purpose::All, KeyState::Rotated { at: NOW }));
    assert_eq!(entry.key.as_bytes(), &[9; 32]);
    let ids: Vec<u16> = Purpose::SEALING.iter().map(|p| ring.active(*p).unwrap().id().get()).collect();
    assert_eq!(ids, [2, 3, 4, 5]);
}

proptest::proptest! {
    /// Whatever lies there: a ring or an error.
    #[test]
    fn no_bytes_panic(
        rest in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..600),
        whole in proptest::prelude::any::<bool>(),
    ) {
        let head = if whole { [&MAGIC[..], &[VERSION]].concat() } else { Vec::new() };
        let bytes = [head, rest].concat();
        assert!(Ring::decode(&bytes, &master(1)).is_err());
        let _ = Ring::masters(&bytes);
    }
}

/// A security module as a token: the key never leaves it, and what it makes of a key is its own
/// affair.
struct Token {
    inside: LocalMaster,
}

impl MasterKey for Token {
    fn id(&self) -> MasterId {
        MasterId::new([0x70; 16])
    }

    fn wrap(&self, context: &[u8], key: &KeyBytes) -> Result<Vec<u8>, MasterError> {
        Ok([&b"token:"[..], &self.inside.wrap(context, key)?].concat())
    }

    fn unwrap(&self, context: &[u8], wrapped: &[u8]) -> Result<KeyBytes, MasterError> {
        self.inside.unwrap(context, wrapped.strip_prefix(b"token:").ok_or(MasterError::Forged)?)
    }
}

#[test]
fn a_master_key_may_stay_in_a_token_of_its_own() {
    let token = Token { inside: master(5) };
    let ring = Ring::draw(NOW).unwrap();
    let file = ring.encode(&[&master(1), &token]).unwrap();
    assert_eq!(shown(&Ring::decode(&file, &token).unwrap().ring), shown(&ring));
    let other = Token { inside: master(6) };
    assert_eq!(Ring::decode(&file, &other).map(|_| ()).unwrap_err(), RingError::Forged);
    assert!(token.first_data_key().is_none());
}
