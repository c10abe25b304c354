//! Message keys kept for late arrivals: bounded in number and age, wiped where they lay.

use core::fmt;
use core::time::Duration;

use unhidra_core::time::UnixTime;
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::keys::{KeyId, MessageKey};
use crate::wire::{Reader, Short, Writer, join};

/// Bytes of one key in a state record: chain(8) number(4) kept_at_s(4) key(32).
pub(crate) const SLOT_LEN: usize = 48;

/// A place for one message key, vacant when made.
///
/// Not `Clone`: a copy left behind is a key that was not wiped.
#[derive(Default, Zeroize, ZeroizeOnDrop)]
pub struct SkippedKey {
    chain: KeyId,
    number: u32,
    /// Seconds since the epoch; a u32 serves until 2106.
    kept_at_s: u32,
    key: [u8; 32],
}

impl SkippedKey {
    fn is_older(&self, age: Option<Duration>, now: UnixTime) -> bool {
        let kept_for_s = seconds(now).saturating_sub(self.kept_at_s);
        age.is_some_and(|age| u64::from(kept_for_s) > age.as_secs())
    }
}

impl fmt::Debug for SkippedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

/// Where the places are. Which of them are taken, and by what, is decided here and not there.
pub trait SkippedKeys: Default {
    /// All places.
    fn slots(&self) -> &[SkippedKey];
    /// All places.
    fn slots_mut(&mut self) -> &mut [SkippedKey];
    /// Makes places, so that there are at least `len` if it can. One that cannot keeps fewer keys,
    /// and the oldest goes earlier.
    ///
    /// Who moves places elsewhere takes each by `core::mem::take`, so that nothing is left there.
    fn grow(&mut self, len: usize);
}

/// `N` places inline, for those who have no allocator.
#[derive(Debug)]
pub struct Inline<const N: usize>([SkippedKey; N]);

impl<const N: usize> Default for Inline<N> {
    fn default() -> Self {
        Self([const { SkippedKey { chain: [0; 8], number: 0, kept_at_s: 0, key: [0; 32] } }; N])
    }
}

impl<const N: usize> SkippedKeys for Inline<N> {
    fn slots(&self) -> &[SkippedKey] {
        &self.0
    }
    fn slots_mut(&mut self) -> &mut [SkippedKey] {
        &mut self.0
    }
    fn grow(&mut self, _: usize) {}
}

/// The keys kept, oldest first, in the front of the places.
#[derive(Debug, Default)]
pub(crate) struct Kept<S> {
    places: S,
    len: u16,
}

impl<S: SkippedKeys> Kept<S> {
    pub(crate) fn as_slice(&self) -> &[SkippedKey] {
        self.places.slots().get(..self.len.into()).unwrap_or_default()
    }

    /// Whether a key of this chain is kept.
    pub(crate) fn knows(&self, chain: &KeyId) -> bool {
        self.as_slice().iter().any(|kept| kept.chain == *chain)
    }

    /// Where the key of a message is kept.
    pub(crate) fn find(&self, chain: &KeyId, number: u32) -> Option<usize> {
        self.as_slice().iter().position(|kept| kept.number == number && kept.chain == *chain)
    }

    /// The key at a place that [`find`](Self::find) gave, unless it is older than `age`.
    pub(crate) fn key(&self, at: usize, age: Option<Duration>, now: UnixTime) -> Option<MessageKey> {
        self.as_slice().get(at).filter(|kept| !kept.is_older(age, now)).map(|kept| MessageKey(kept.key))
    }

    /// Keeps a key, of at most `max` in all; the oldest goes when there is no place.
    pub(crate) fn keep(&mut self, chain: &KeyId, number: u32, key: &MessageKey, now: UnixTime, max: usize) {
        let wanted = usize::from(self.len).saturating_add(1).min(max);
        if self.places.slots().len() < wanted {
            self.places.grow(wanted);
        }
        if usize::from(self.len) >= self.places.slots().len().min(max) {
            self.remove(0);
        }
        let slot = SkippedKey { chain: *chain, number, kept_at_s: seconds(now), key: key.0 };
        self.push(slot);
    }

    fn push(&mut self, slot: SkippedKey) {
        if let Some(vacant) = self.places.slots_mut().get_mut(usize::from(self.len)) {
            *vacant = slot;
            self.len = self.len.saturating_add(1);
        }
    }

    /// Forgets a key, and wipes the place that falls vacant.
    pub(crate) fn remove(&mut self, at: usize) {
        let taken = self.places.slots_mut().get_mut(..self.len.into()).unwrap_or_default();
        let Some(behind) = taken.get_mut(at..).filter(|behind| !behind.is_empty()) else { return };
        behind.rotate_left(1);
        if let Some(vacant) = behind.last_mut() {
            vacant.zeroize();
            self.len = self.len.saturating_sub(1);
        }
    }

    /// Forgets what is older than `age`. Whether there was any.
    pub(crate) fn expire(&mut self, age: Option<Duration>, now: UnixTime) -> bool {
        let mut any = false;
        while let Some(at) = self.as_slice().iter().position(|kept| kept.is_older(age, now)) {
            self.remove(at);
            any = true;
        }
        any
    }

    /// When [`expire`](Self::expire) has something to forget: the oldest key is over its age.
    pub(crate) fn expires_at(&self, age: Option<Duration>) -> Option<UnixTime> {
        let oldest = self.as_slice().first()?;
        // Ages are counted in whole seconds, and one of exactly `age` is kept.
        let kept_for = age?.saturating_add(Duration::from_secs(1));
        Some(UnixTime::from_s(oldest.kept_at_s.into()).saturating_add(kept_for))
    }

    pub(crate) fn encode(&self, out: &mut Writer<'_>) {
        out.put(&self.len.to_be_bytes());
        for kept in self.as_slice() {
            let mut slot: [u8; SLOT_LEN] =
                join(&[&kept.chain, &kept.number.to_be_bytes(), &kept.kept_at_s.to_be_bytes(), &kept.key]);
            out.put(&slot);
            slot.zeroize();
        }
    }

    /// How many bytes [`encode`](Self::encode) puts.
    pub(crate) fn encoded_len(&self) -> usize {
        usize::from(self.len).saturating_mul(SLOT_LEN).saturating_add(2)
    }

    /// Reads what [`encode`](Self::encode) put. `None` where there are more than `max`, or more
    /// than there is place for.
    pub(crate) fn decode(reader: &mut Reader<'_>, max: usize) -> Result<Option<Self>, Short> {
        let len = reader.u16()?;
        let mut kept = Self { places: S::default(), len: 0 };
        if usize::from(len) > max {
            return Ok(None);
        }
        kept.places.grow(len.into());
        if kept.places.slots().len() < usize::from(len) {
            return Ok(None);
        }
        for _ in 0..len {
            kept.push(SkippedKey {
                chain: *reader.take()?,
                number: reader.u32()?,
                kept_at_s: reader.u32()?,
                key: *reader.take()?,
            });
        }
        Ok(Some(kept))
    }
}

fn seconds(time: UnixTime) -> u32 {
    u32::try_from(time.as_s()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;
    use std::vec::Vec;

    const NOW: UnixTime = UnixTime::from_s(1_000_000);

    fn numbers<S: SkippedKeys>(kept: &Kept<S>) -> Vec<u32> {
        kept.as_slice().iter().map(|slot| slot.number).collect()
    }

    fn full() -> Kept<Inline<4>> {
        let mut kept = Kept::default();
        for number in 0..4 {
            kept.keep(&[1; 8], number, &MessageKey([number as u8; 32]), NOW, 4);
        }
        kept
    }

    #[test]
    fn the_oldest_goes_when_all_places_are_taken() {
        let mut kept = full();
        kept.keep(&[1; 8], 4, &MessageKey([4; 32]), NOW, 4);
        assert_eq!(numbers(&kept), [1, 2, 3, 4]);
        kept.keep(&[1; 8], 5, &MessageKey([4; 32]), NOW, 3);
        assert_eq!(numbers(&kept).len(), 4, "a smaller bound takes one for one");
    }

    /// Places that are made as they are asked for, and remember each wish.
    #[derive(Default)]
    struct Made {
        places: Vec<SkippedKey>,
        wishes: Vec<usize>,
    }

    impl SkippedKeys for Made {
        fn slots(&self) -> &[SkippedKey] {
            &self.places
        }
        fn slots_mut(&mut self) -> &mut [SkippedKey] {
            &mut self.places
        }
        fn grow(&mut self, len: usize) {
            self.wishes.push(len);
            self.places.resize_with(len, SkippedKey::default);
        }
    }

    #[test]
    fn places_are_asked_for_one_by_one_and_never_beyond_the_bound() {
        let mut kept = Kept::<Made>::default();
        for number in 0..6 {
            kept.keep(&[1; 8], number, &MessageKey([9; 32]), NOW, 4);
        }
        assert_eq!((numbers(&kept), &*kept.places.wishes), (std::vec![2, 3, 4, 5], &[1, 2, 3, 4][..]));
        kept.remove(0);
        kept.keep(&[1; 8], 6, &MessageKey([9; 32]), NOW, 4);
        assert_eq!((numbers(&kept), kept.places.wishes.len()), (std::vec![3, 4, 5, 6], 4), "a vacant place serves");
    }

    #[test]
    fn a_key_does_not_print() {
        let slot = SkippedKey { chain: [0xab; 8], number: 7, kept_at_s: 1, key: [0xcd; 32] };
        assert_eq!(std::format!("{slot:?}"), "[secret]");
    }

    #[test]
    fn a_place_that_falls_vacant_holds_nothing() {
        let mut kept = full();
        kept.remove(kept.find(&[1; 8], 1).unwrap());
        assert_eq!(numbers(&kept), [0, 2, 3]);
        let vacant = &kept.places.0[3];
        assert_eq!((vacant.key, vacant.chain, vacant.number), ([0; 32], [0; 8], 0));
        kept.remove(3);
        assert_eq!(numbers(&kept), [0, 2, 3], "a place without a key");
    }

    #[test]
    fn a_key_is_found_by_chain_and_number() {
        let kept = full();
        assert_eq!(kept.find(&[1; 8], 2), Some(2));
        assert_eq!(kept.find(&[2; 8], 2), None);
        assert!(kept.knows(&[1; 8]) && !kept.knows(&[2; 8]));
    }

    #[test]
    fn keys_are_forgotten_with_age() {
        let mut kept = full();
        let age = Some(Duration::from_secs(60));
        assert!(!kept.expire(age, NOW.saturating_add(Duration::from_secs(60))));
        assert!(!kept.expire(None, NOW.saturating_add(Duration::from_secs(6000))));
        kept.keep(&[1; 8], 9, &MessageKey([4; 32]), NOW.saturating_add(Duration::from_secs(30)), 4);
        assert!(kept.expire(age, NOW.saturating_add(Duration::from_secs(61))));
        assert_eq!(numbers(&kept), [9]);
    }

    #[test]
    fn what_was_encoded_is_decoded() {
        let kept = full();
        let mut bytes = [0; 200];
        let mut writer = Writer::new(&mut bytes);
        kept.encode(&mut writer);
        let len = writer.finish().unwrap();
        assert_eq!(len, kept.encoded_len());
        let again = Kept::<Inline<4>>::decode(&mut Reader::new(&bytes[..len]), 4).unwrap().unwrap();
        assert_eq!(numbers(&again), numbers(&kept));
        assert_eq!(again.key(3, None, NOW).unwrap().0, [3; 32]);
        assert!(Kept::<Inline<4>>::decode(&mut Reader::new(&bytes[..len]), 3).unwrap().is_none());
        assert!(Kept::<Inline<3>>::decode(&mut Reader::new(&bytes[..len]), 4).unwrap().is_none());
        assert!(Kept::<Inline<4>>::decode(&mut Reader::new(&bytes[..len - 1]), 4).is_err());
    }
}
