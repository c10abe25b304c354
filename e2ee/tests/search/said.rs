//! What the model's messages say. Of another form than section 6, which has tests of its own: here
//! it only matters who said what.

/// A plaintext.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Said {
    /// Up: a reading, by its id.
    Reading(u64),
    /// Up: nothing but that there is a session.
    Greeting,
    /// Up: the answer to a command, by its id, and whether it was done.
    Receipt(u64, bool),
    /// Down: a command, by its id, and when it expires, in ms.
    Command(u64, u64),
    /// Down: `hello`, `alive`.
    Setting,
}

impl Said {
    pub(crate) fn encode(self) -> Vec<u8> {
        let (kind, id, more) = match self {
            Self::Reading(id) => (0, id, 0),
            Self::Greeting => (1, 0, 0),
            Self::Receipt(id, done) => (2, id, u64::from(done)),
            Self::Command(id, expires_at) => (16, id, expires_at),
            Self::Setting => (17, 0, 0),
        };
        [&[kind][..], &id.to_be_bytes(), &more.to_be_bytes()].concat()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (kind, rest) = bytes.split_first()?;
        let (id, more) = rest.split_first_chunk()?;
        let (id, more) = (u64::from_be_bytes(*id), u64::from_be_bytes(more.try_into().ok()?));
        Some(match kind {
            0 => Self::Reading(id),
            1 => Self::Greeting,
            2 => Self::Receipt(id, more != 0),
            16 => Self::Command(id, more),
            17 => Self::Setting,
            _ => return None,
        })
    }
}
