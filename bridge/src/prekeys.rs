//! The node's signed prekeys: the present one, and one old one for handshakes under way
//! (e2ee/PROTOCOL.md section 9).

use std::time::Duration;

use bytes::Bytes;
use rand_core::CryptoRng;
use thiserror::Error;
use unhidra_core::time::UnixTime;
use unhidra_e2ee::prekey::{KemSeed, OneTimePrekeySecret, SignedPrekeySecret};
use unhidra_store::{Op, PrekeyChange, PrekeyKind, PrekeyRecord};
use zeroize::Zeroizing;

use crate::record::ID_JUMP;

/// The signed prekeys a node answers with and to. Shared by all shards; a rotation makes a new
/// value.
pub struct SignedPrekeys {
    present: Signed,
    old: Option<Signed>,
}

struct Signed {
    secret: SignedPrekeySecret,
    created_at: UnixTime,
}

impl Signed {
    /// A new one, and the op that writes it.
    fn generate(id: u32, now: UnixTime, rng: &mut impl CryptoRng) -> (Self, Op) {
        let secret = SignedPrekeySecret::generate(id, rng);
        let bytes = Bytes::copy_from_slice(secret.secret());
        let record = PrekeyRecord { kind: PrekeyKind::Signed, id, created_at: now, secret: bytes };
        (Self { secret, created_at: now }, Op::Prekey(PrekeyChange::Put(record)))
    }
}

/// Why the signed prekeys in the store cannot be used.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum SignedPrekeysError {
    /// A record that is no secret.
    #[error("the prekey {id} has {len} bytes; a secret has 32, with the seed of a KEM pair 96")]
    Length {
        /// Its id.
        id: u32,
        /// Bytes found.
        len: usize,
    },
    /// Ids never repeat, and there is none left.
    #[error("the ids of signed prekeys are used up")]
    IdsUsedUp,
}

impl std::fmt::Debug for SignedPrekeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SignedPrekeys").field("present", &self.present.secret.id()).finish_non_exhaustive()
    }
}

impl SignedPrekeys {
    /// The prekeys as the store has them; `None` where it has none yet.
    ///
    /// # Errors
    ///
    /// [`SignedPrekeysError::Length`] for a record that is no secret.
    pub fn restore(records: &[PrekeyRecord]) -> Result<Option<Self>, SignedPrekeysError> {
        let mut signed: Vec<&PrekeyRecord> = records.iter().filter(|r| r.kind == PrekeyKind::Signed).collect();
        signed.sort_by_key(|record| std::cmp::Reverse(record.id));
        let mut newest = signed.into_iter().take(2).map(|record| {
            let length = SignedPrekeysError::Length { id: record.id, len: record.secret.len() };
            let secret: Zeroizing<[u8; 32]> = Zeroizing::new(record.secret.as_ref().try_into().map_err(|_| length)?);
            Ok(Signed { secret: SignedPrekeySecret::from_bytes(record.id, &secret), created_at: record.created_at })
        });
        let Some(present) = newest.next().transpose()? else { return Ok(None) };
        Ok(Some(Self { present, old: newest.next().transpose()? }))
    }

    /// Whether the present prekey is older than `age`, or was made under a clock that was as far ahead.
    #[must_use]
    pub fn is_due(&self, age: Duration, now: UnixTime) -> bool {
        let made_at = self.present.created_at;
        now.saturating_since(made_at).max(made_at.saturating_since(now)) >= age
    }

    /// A new present prekey, and what is to be committed before it is used. The present one of
    /// `before` becomes the old one, and the old one is deleted.
    ///
    /// # Errors
    ///
    /// [`SignedPrekeysError::IdsUsedUp`] after 2^32 - 1 rotations.
    pub fn rotate(
        before: Option<&Self>,
        now: UnixTime,
        rng: &mut impl CryptoRng,
    ) -> Result<(Self, Vec<Op>), SignedPrekeysError> {
        let last_id = before.map_or(0, |b| b.present.secret.id());
        let id = last_id.checked_add(1).ok_or(SignedPrekeysError::IdsUsedUp)?;
        let (present, put) = Signed::generate(id, now, rng);
        let mut ops = vec![put];
        if let Some(old) = before.and_then(|b| b.old.as_ref()) {
            ops.push(Op::Prekey(PrekeyChange::Delete { kind: PrekeyKind::Signed, id: old.secret.id() }));
        }
        let copy = |signed: &Signed| Signed {
            secret: SignedPrekeySecret::from_bytes(signed.secret.id(), signed.secret.secret()),
            created_at: signed.created_at,
        };
        let old = before.map(|b| copy(&b.present));
        Ok((Self { present, old }, ops))
    }

    /// What takes the place of all signed prekeys when the node was put back from a backup, so that
    /// no handshake recorded since opens: the ops delete every one of `records`, whatever is in it,
    /// and write one new prekey, under an id beyond those that were given since.
    ///
    /// # Errors
    ///
    /// [`SignedPrekeysError::IdsUsedUp`] where there is no such id.
    pub fn replace(
        records: &[PrekeyRecord],
        now: UnixTime,
        rng: &mut impl CryptoRng,
    ) -> Result<Vec<Op>, SignedPrekeysError> {
        let signed = || records.iter().filter(|record| record.kind == PrekeyKind::Signed).map(|record| record.id);
        let id = signed().max().unwrap_or(0).checked_add(ID_JUMP).ok_or(SignedPrekeysError::IdsUsedUp)?;
        let (_, put) = Signed::generate(id, now, rng);
        let delete = |id| Op::Prekey(PrekeyChange::Delete { kind: PrekeyKind::Signed, id });
        Ok(signed().map(delete).chain([put]).collect())
    }

    /// The prekey a bundle names.
    pub(crate) const fn present(&self) -> &SignedPrekeySecret {
        &self.present.secret
    }

    /// The prekey a handshake names, if it is one of the two.
    pub(crate) fn find(&self, id: u32) -> Option<&SignedPrekeySecret> {
        let old = self.old.as_ref().map(|old| &old.secret);
        [Some(&self.present.secret), old].into_iter().flatten().find(|secret| secret.id() == id)
    }
}

/// A device's one-time prekey as the store has it: the X25519 secret, and in suite 2 the seed of
/// the KEM pair behind it.
pub(crate) fn one_time(record: &PrekeyRecord) -> Result<OneTimePrekeySecret, SignedPrekeysError> {
    let length = SignedPrekeysError::Length { id: record.id, len: record.secret.len() };
    let (secret, seed) = record.secret.split_first_chunk::<32>().ok_or(length)?;
    let prekey = OneTimePrekeySecret::from_bytes(record.id, secret);
    if seed.is_empty() {
        return Ok(prekey);
    }
    let seed = seed.try_into().map_err(|_| length)?;
    Ok(prekey.with_kem(KemSeed::from_bytes(seed)))
}

/// What the store keeps of a one-time prekey.
pub(crate) fn one_time_bytes(prekey: &OneTimePrekeySecret) -> Bytes {
    let seed = prekey.kem_seed().map_or(&[][..], |seed| seed.as_bytes());
    Bytes::from([prekey.secret(), seed].concat())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    fn records(ops: &[Op], kept: &mut Vec<PrekeyRecord>) {
        for op in ops {
            match op {
                Op::Prekey(PrekeyChange::Put(record)) => kept.push(record.clone()),
                Op::Prekey(PrekeyChange::Delete { id, .. }) => kept.retain(|r| r.id != *id),
                _ => panic!("prekeys alone"),
            }
        }
    }

    #[test]
    fn a_rotation_keeps_one_old_prekey_and_no_id_comes_back() {
        let (mut rng, mut kept) = (StdRng::seed_from_u64(1), Vec::new());
        let now = UnixTime::from_s(100);
        let (first, ops) = SignedPrekeys::rotate(None, now, &mut rng).expect("ids");
        records(&ops, &mut kept);
        let (second, ops) = SignedPrekeys::rotate(Some(&first), now, &mut rng).expect("ids");
        records(&ops, &mut kept);
        let (third, ops) = SignedPrekeys::rotate(Some(&second), now, &mut rng).expect("ids");
        records(&ops, &mut kept);
        assert_eq!(kept.iter().map(|r| r.id).collect::<Vec<_>>(), [2, 3]);
        assert!(third.find(1).is_none() && third.find(2).is_some() && third.find(3).is_some());
        let restored = SignedPrekeys::restore(&kept).expect("whole").expect("some");
        assert_eq!(restored.present().public(), third.present().public());
        assert_eq!(restored.find(2).map(|s| *s.public()), second.find(2).map(|s| *s.public()));
    }

    #[test]
    fn a_one_time_prekey_of_either_suite_is_kept_and_damage_is_named() {
        let mut rng = StdRng::seed_from_u64(2);
        let [x3dh, other] = [7, 8].map(|id| OneTimePrekeySecret::generate(id, &mut rng));
        let pqxdh = other.with_kem(KemSeed::generate(&mut rng));
        let record = |id, secret: Bytes| PrekeyRecord {
            kind: PrekeyKind::OneTime(unhidra_core::ids::DeviceId::parse("pump-7").expect("an id")),
            id,
            created_at: UnixTime::EPOCH,
            secret,
        };
        for (prekey, len) in [(&x3dh, 32), (&pqxdh, 96)] {
            let kept = one_time_bytes(prekey);
            assert_eq!(kept.len(), len);
            let read = one_time(&record(prekey.id(), kept)).expect("whole");
            assert_eq!((read.id(), read.secret(), read.suite()), (prekey.id(), prekey.secret(), prekey.suite()));
            assert_eq!(read.kem_seed().map(KemSeed::as_bytes), prekey.kem_seed().map(KemSeed::as_bytes));
        }
        for len in [0, 31, 33, 95, 97] {
            let damaged = one_time(&record(9, Bytes::from(vec![1; len])));
            assert_eq!(damaged.map(drop), Err(SignedPrekeysError::Length { id: 9, len }));
        }
    }

    #[test]
    fn a_node_put_back_from_a_backup_keeps_no_signed_prekey_and_repeats_no_id() {
        let (mut rng, mut kept) = (StdRng::seed_from_u64(1), Vec::new());
        let now = UnixTime::from_s(100);
        let (first, ops) = SignedPrekeys::rotate(None, now, &mut rng).expect("ids");
        records(&ops, &mut kept);
        let (_, ops) = SignedPrekeys::rotate(Some(&first), now, &mut rng).expect("ids");
        records(&ops, &mut kept);
        let ops = SignedPrekeys::replace(&kept, now, &mut rng).expect("ids");
        records(&ops, &mut kept);
        assert_eq!(kept.iter().map(|r| r.id).collect::<Vec<_>>(), [2 + ID_JUMP]);

        let last = PrekeyRecord { id: u32::MAX - ID_JUMP + 1, ..kept[0].clone() };
        assert_eq!(SignedPrekeys::replace(&[last], now, &mut rng).err(), Some(SignedPrekeysError::IdsUsedUp));
    }

    #[test]
    fn the_last_id_is_given_once() {
        let mut rng = StdRng::seed_from_u64(1);
        let record = |id| PrekeyRecord {
            kind: PrekeyKind::Signed,
            id,
            created_at: UnixTime::EPOCH,
            secret: Bytes::from_static(&[7; 32]),
        };
        let rotated = |id, rng: &mut StdRng| {
            let before = SignedPrekeys::restore(&[record(id)]).expect("whole").expect("some");
            SignedPrekeys::rotate(Some(&before), UnixTime::EPOCH, rng).map(|(after, _)| after.present().id())
        };
        assert_eq!(rotated(u32::MAX - 1, &mut rng), Ok(u32::MAX));
        assert_eq!(rotated(u32::MAX, &mut rng), Err(SignedPrekeysError::IdsUsedUp));
    }

    #[test]
    fn a_prekey_is_due_after_its_age_and_damage_is_named() {
        let mut rng = StdRng::seed_from_u64(1);
        let (prekeys, _) = SignedPrekeys::rotate(None, UnixTime::from_s(100), &mut rng).expect("ids");
        assert!(!prekeys.is_due(Duration::from_secs(10), UnixTime::from_s(109)));
        assert!(prekeys.is_due(Duration::from_secs(10), UnixTime::from_s(110)));
        let damaged = PrekeyRecord {
            kind: PrekeyKind::Signed,
            id: 4,
            created_at: UnixTime::EPOCH,
            secret: Bytes::from_static(b"short"),
        };
        assert_eq!(SignedPrekeys::restore(&[damaged]).err(), Some(SignedPrekeysError::Length { id: 4, len: 5 }));
        assert!(SignedPrekeys::restore(&[]).is_ok_and(|none| none.is_none()));
    }
}
