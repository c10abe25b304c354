//! Where what a device must not forget survives a reset.
//!
//! | record | holds | bytes |
//! | --- | --- | --- |
//! | [`Record::Session`] x 2 | one session each: the present one and the one before it | at most [`RECORD_LEN_MAX`], usually 254 |
//! | [`Record::Receive`] x 2 | what has become of its receiving chain since | 45 |
//! | [`Record::Send`] x 2 | what has become of its sending chain since | 41 |
//! | [`Record::Opened`] x 32 | sequence(8) key(4) N(4) tag(4) of a message opened last | 20 |
//! | [`Record::Command`] x 64 | sequence(8) command id(16) | 24 |
//!
//! A lease in the middle of a chain writes 41 bytes, a message opened in order 45 and 20, a
//! command 24 more. A chain's record that its session has overtaken, or that is of the session before,
//! is known by its ratchet key and number and not used. What is to be forgotten is written empty.

use unhidra_core::durable::{Durable, DurableSource};
use unhidra_e2ee::role::DeviceRole;
use unhidra_e2ee::session::Session;

/// The most bytes of a record: a session with all its skipped keys and its head.
pub const RECORD_LEN_MAX: usize = Session::<DeviceRole>::ENCODED_LEN_MAX;

/// Names a record.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Record {
    /// One of two sessions. A new session takes the place of the older one in one write, so that
    /// no reset finds none.
    Session(Half),
    /// The receiving chain of that session, ahead of it.
    Receive(Half),
    /// The sending chain of that session, ahead of it.
    Send(Half),
    /// A place among the [`OPENED`] messages opened last.
    Opened(u8),
    /// A place among the [`COMMANDS`] command ids seen last.
    Command(u8),
}

/// Which of the two sessions, neither is the present one by name: the one begun last is.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Half {
    /// One.
    A,
    /// The other.
    B,
}

impl Half {
    /// The one that this is not.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }
}

/// Messages opened last that are remembered (e2ee/PROTOCOL.md section 7).
pub const OPENED: u8 = 32;

/// Command ids that are remembered (e2ee/PROTOCOL.md section 7).
pub const COMMANDS: u8 = 64;

impl Record {
    /// How many records there are.
    pub const COUNT: u8 = 6 + OPENED + COMMANDS;

    /// A number for each record, from 0, for media that have keys or places instead of names. It
    /// never changes.
    #[must_use]
    pub const fn index(self) -> u8 {
        match self {
            Self::Session(Half::A) => 0,
            Self::Session(Half::B) => 1,
            Self::Receive(Half::A) => 2,
            Self::Receive(Half::B) => 3,
            Self::Send(Half::A) => 4,
            Self::Send(Half::B) => 5,
            Self::Opened(at) => 6 + at % OPENED,
            Self::Command(at) => 6 + OPENED + at % COMMANDS,
        }
    }
}

/// One record and what is to stand in it.
#[derive(Clone, Copy, Debug)]
pub struct Write<'a> {
    /// Which.
    pub record: Record,
    /// What.
    pub bytes: &'a [u8],
}

/// A medium that keeps records over a reset.
///
/// What it may do when power fails: of a `write` that has not returned, the first few of its
/// records may be written and the rest not. Each single record is the old one or the new one,
/// never a mixture and never gone. Whoever has more (a journal, a transaction) need not use it:
/// every order of records here is safe to be cut anywhere.
pub trait Storage {
    /// Why it cannot.
    type Error;

    /// Reads a record into the front of `out`, and says how long it is; `None` where it was never
    /// written.
    ///
    /// # Errors
    ///
    /// The medium fails, or the record is longer than `out`.
    fn read(&mut self, record: Record, out: &mut [u8]) -> Result<Option<usize>, Self::Error>;

    /// Writes records in order. It returns when all of them survive a power cut.
    ///
    /// # Errors
    ///
    /// The medium fails. Whether anything was written is then unknown.
    fn write(&mut self, writes: &[Write<'_>]) -> Result<(), Self::Error>;
}

/// A medium, and the right to say that a write to it is durable.
pub(crate) struct Vault<S> {
    medium: S,
    source: DurableSource,
}

impl<S: Storage> Vault<S> {
    pub(crate) const fn new(medium: S) -> Self {
        Self { medium, source: DurableSource::new_for_storage() }
    }

    pub(crate) fn read<'o>(&mut self, record: Record, out: &'o mut [u8]) -> Result<Option<&'o [u8]>, S::Error> {
        let len = self.medium.read(record, out)?;
        Ok(len.and_then(|len| out.get(..len)))
    }

    /// Writes, and proves it.
    pub(crate) fn write(&mut self, writes: &[Write<'_>]) -> Result<Durable, S::Error> {
        self.medium.write(writes)?;
        Ok(self.source.durable())
    }

    pub(crate) fn into_medium(self) -> S {
        self.medium
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_record_has_a_number_of_its_own() {
        let of_a_half = |half| [Record::Session(half), Record::Receive(half), Record::Send(half)];
        let sessions = [Half::A, Half::B].into_iter().flat_map(of_a_half);
        let all = sessions.chain((0..OPENED).map(Record::Opened)).chain((0..COMMANDS).map(Record::Command));
        let numbers: BTreeSet<_> = all.map(Record::index).collect();
        assert_eq!(numbers.into_iter().collect::<std::vec::Vec<_>>(), (0..Record::COUNT).collect::<std::vec::Vec<_>>());
    }
}
