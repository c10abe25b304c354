//! The messages opened last: what tells a repeat from a rolled-back sender (PROTOCOL.md section 7).

use crate::envelope::Message;
use crate::error::OpenError;
use crate::role::RECENT_MAX;
use crate::wire::join;

/// What names one message among those opened last.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct MessageTag {
    /// The first 4 bytes of its ratchet key.
    pub key: [u8; 4],
    /// N.
    pub number: u32,
    /// The first 4 bytes of its authentication tag.
    pub tag: [u8; 4],
}

impl MessageTag {
    /// The name of a message.
    #[must_use]
    pub fn of(message: &Message<'_>) -> Self {
        let [a, b, c, d, ..] = *message.ratchet_key();
        let [e, f, g, h, ..] = *message.tag();
        Self { key: [a, b, c, d], number: message.number(), tag: [e, f, g, h] }
    }

    /// Its 12 bytes in a record: key, number, tag.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; 12] {
        join(&[&self.key, &self.number.to_be_bytes(), &self.tag])
    }

    /// The name of 12 bytes.
    #[must_use]
    pub const fn from_bytes(bytes: &[u8; 12]) -> Self {
        let [a, b, c, d, n0, n1, n2, n3, e, f, g, h] = *bytes;
        Self { key: [a, b, c, d], number: u32::from_be_bytes([n0, n1, n2, n3]), tag: [e, f, g, h] }
    }
}

/// The last 32 opened, over all sessions of a device.
#[derive(Debug, Default)]
pub struct Recent {
    tags: [MessageTag; RECENT_MAX],
    len: usize,
    /// Where the next one goes.
    next: usize,
}

impl Recent {
    /// The memory of messages that were opened in this order; of more than 32 the last count.
    pub fn from_tags(oldest_first: impl IntoIterator<Item = MessageTag>) -> Self {
        let mut recent = Self::default();
        for tag in oldest_first {
            recent.remember(tag);
        }
        recent
    }

    /// Remembers one, and forgets the oldest of 33.
    pub(crate) fn remember(&mut self, tag: MessageTag) {
        if let Some(place) = self.tags.get_mut(self.next) {
            *place = tag;
        }
        self.next = self.next.wrapping_add(1) % RECENT_MAX;
        self.len = self.len.saturating_add(1).min(RECENT_MAX);
    }

    /// What is remembered, oldest first.
    pub fn tags(&self) -> impl Iterator<Item = MessageTag> {
        let oldest = if self.len < RECENT_MAX { 0 } else { self.next };
        let (newer, older) = self.tags.split_at_checked(oldest).unwrap_or_default();
        older.iter().chain(newer).take(self.len).copied()
    }

    /// Whether a message may be tried.
    ///
    /// # Errors
    ///
    /// [`OpenError::Duplicate`] where it was opened, [`OpenError::RolledBack`] where another
    /// message was, under the same ratchet key and number.
    pub fn check(&self, message: &Message<'_>) -> Result<(), OpenError> {
        let new = MessageTag::of(message);
        // In whatever order: one ratchet key and number is remembered once at most.
        let mut remembered = self.tags.iter().take(self.len);
        match remembered.find(|old| old.number == new.number && old.key == new.key) {
            None => Ok(()),
            Some(old) if old.tag == new.tag => Err(OpenError::Duplicate),
            Some(_) => Err(OpenError::RolledBack { number: new.number }),
        }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;
    use std::vec::Vec;

    fn tag(number: u32) -> MessageTag {
        MessageTag { key: [1; 4], number, tag: [number as u8; 4] }
    }

    #[test]
    fn the_last_32_are_remembered_in_order() {
        let few = Recent::from_tags((0..5).map(tag));
        assert_eq!(few.tags().collect::<Vec<_>>(), (0..5).map(tag).collect::<Vec<_>>());
        let many = Recent::from_tags((0..77).map(tag));
        assert_eq!(many.tags().collect::<Vec<_>>(), (45..77).map(tag).collect::<Vec<_>>());
        assert_eq!(Recent::default().tags().count(), 0);
    }

    #[test]
    fn a_name_survives_its_bytes() {
        let name = MessageTag { key: [1, 2, 3, 4], number: 0x0506_0708, tag: [9, 10, 11, 12] };
        assert_eq!(name.to_bytes(), [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
        assert_eq!(MessageTag::from_bytes(&name.to_bytes()), name);
    }
}
