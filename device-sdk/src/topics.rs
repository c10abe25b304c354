//! The four topics of a device (e2ee/PROTOCOL.md section 2).

use core::fmt::Write;

use heapless::String;
use thiserror::Error;
use unhidra_core::ids::{DEVICE_ID_LEN_MAX, DeviceId};
use unhidra_core::topic::{TopicError, TopicName};

/// The most bytes of a prefix: firmware keeps it inline.
pub const PREFIX_LEN_MAX: usize = 64;

/// The longest topic: prefix, `/devices/`, device id, `/prekeys/get`.
pub(crate) const TOPIC_LEN_MAX: usize = PREFIX_LEN_MAX + 9 + DEVICE_ID_LEN_MAX + 12;

/// A topic, held inline.
pub(crate) type Topic = String<TOPIC_LEN_MAX>;

/// The prefix all devices' topics begin with, `unhidra` for instance.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Prefix(String<PREFIX_LEN_MAX>);

/// A text that is no [`Prefix`].
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum PrefixError {
    /// It is no Topic Name.
    #[error("the prefix is no topic: {0}")]
    Topic(TopicError),
    /// It is too long.
    #[error("a prefix of {len} bytes; at most 64 are allowed")]
    TooLong {
        /// Bytes found.
        len: usize,
    },
}

impl Prefix {
    /// Parses a prefix.
    ///
    /// # Errors
    ///
    /// [`PrefixError`] says which rule the text breaks.
    pub fn parse(text: &str) -> Result<Self, PrefixError> {
        TopicName::parse(text).map_err(PrefixError::Topic)?;
        String::try_from(text).map(Self).map_err(|_| PrefixError::TooLong { len: text.len() })
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// One of a device's topics.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Row {
    Messages,
    Commands,
    PrekeysGet,
    Prekeys,
}

impl Row {
    const fn suffix(self) -> &'static str {
        match self {
            Self::Messages => "messages",
            Self::Commands => "commands",
            Self::PrekeysGet => "prekeys/get",
            Self::Prekeys => "prekeys",
        }
    }
}

/// The topics of one device.
#[derive(Debug)]
pub(crate) struct Topics {
    prefix: Prefix,
    device: DeviceId,
}

impl Topics {
    pub(crate) const fn new(prefix: Prefix, device: DeviceId) -> Self {
        Self { prefix, device }
    }

    pub(crate) fn topic(&self, row: Row) -> Topic {
        let mut topic = Topic::new();
        // TOPIC_LEN_MAX is the sum of the parts' bounds, so this always fits.
        let _ = write!(topic, "{}/devices/{}/{}", self.prefix.as_str(), self.device.as_str(), row.suffix());
        topic
    }

    /// Which of the rows to this device `topic` is.
    pub(crate) fn row_to_device(&self, topic: &str) -> Option<Row> {
        [Row::Commands, Row::Prekeys].into_iter().find(|row| self.topic(*row) == topic)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_topics_are_those_of_the_protocol() {
        let device = DeviceId::parse("pump-7").expect("a device id");
        let topics = Topics::new(Prefix::parse("unhidra").expect("a prefix"), device);
        assert_eq!(topics.topic(Row::Messages), "unhidra/devices/pump-7/messages");
        assert_eq!(topics.topic(Row::Commands), "unhidra/devices/pump-7/commands");
        assert_eq!(topics.topic(Row::PrekeysGet), "unhidra/devices/pump-7/prekeys/get");
        assert_eq!(topics.row_to_device("unhidra/devices/pump-7/prekeys"), Some(Row::Prekeys));
        assert_eq!(topics.row_to_device("unhidra/devices/pump-7/messages"), None);
        assert_eq!(topics.row_to_device("unhidra/devices/pump-8/commands"), None);
    }

    #[test]
    fn the_longest_names_fit() {
        let device = DeviceId::parse(&"d".repeat(DEVICE_ID_LEN_MAX)).expect("a device id");
        let prefix = Prefix::parse(&"p".repeat(PREFIX_LEN_MAX)).expect("a prefix");
        assert_eq!(Topics::new(prefix, device).topic(Row::PrekeysGet).len(), TOPIC_LEN_MAX);
    }

    #[test]
    fn a_prefix_is_a_topic_name_of_at_most_64_bytes() {
        assert_eq!(Prefix::parse("").map_err(|_| ()), Err(()));
        assert_eq!(Prefix::parse("a/#").map_err(|_| ()), Err(()));
        assert_eq!(Prefix::parse(&"p".repeat(65)), Err(PrefixError::TooLong { len: 65 }));
    }
}
