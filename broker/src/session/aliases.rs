//! Topic Aliases (section 3.3.2.3.4): a number in place of a topic, for one connection, each
//! direction with its own. No memory is taken before the first is set.

use std::num::NonZeroU16;

use super::SessionError;
use crate::packet::{Property, Publish, Text};
use crate::router::message::Alias;

/// Those the client has set.
#[derive(Debug, Default)]
pub(super) struct ClientAliases {
    /// By alias, from 1 on; empty where none is set.
    topics: Vec<Text>,
}

/// Those we have set. First come, first served: a topic that finds none free is written out, and
/// so a client of many topics pays for no alias that it will not see again.
#[derive(Debug)]
pub(super) struct OurAliases {
    topics: Vec<Text>,
    max: usize,
}

/// The bytes of the property: a topic that has no more is not worth an alias.
const PROPERTY_LEN: usize = 3;

impl ClientAliases {
    /// Sets the alias of a PUBLISH, or puts the topic in place of it. `topic_bytes_max` bounds what
    /// is kept for one.
    pub(super) fn resolve(
        &mut self,
        publish: &mut Publish,
        max: u16,
        topic_bytes_max: usize,
    ) -> Result<(), SessionError> {
        let alias = publish.properties.find(|property| match property {
            Property::TopicAlias(number) => Some(*number),
            _ => None,
        });
        let Some(number) = alias else {
            // A Protocol Error (section 3.3.2.1).
            return if publish.topic.is_empty() { Err(SessionError::NoTopic) } else { Ok(()) };
        };
        // [MQTT-3.3.2-8, MQTT-3.3.2-9]
        let index = usize::from(number).checked_sub(1).filter(|_| number <= max);
        let index = index.ok_or(SessionError::TopicAlias { found: number, max })?;
        if publish.topic.is_empty() {
            let set = self.topics.get(index).filter(|topic| !topic.is_empty());
            publish.topic = set.ok_or(SessionError::NoTopic)?.clone();
        } else if publish.topic.len() <= topic_bytes_max {
            if self.topics.len() <= index {
                self.topics.resize(index + 1, Text::default());
            }
            if let Some(topic) = self.topics.get_mut(index) {
                *topic = publish.topic.detach();
            }
        }
        Ok(())
    }
}

impl OurAliases {
    /// At most `max`: the client's Topic Alias Maximum or our own bound [MQTT-3.1.2-26].
    pub(super) const fn new(max: u16) -> Self {
        Self { topics: Vec::new(), max: max as usize }
    }

    /// The alias a topic has or is given. One that is given must be written, with its topic, before
    /// any other of the topic's messages.
    pub(super) fn get(&mut self, topic: &Text, may_set: bool) -> Option<Alias> {
        if self.max == 0 || topic.len() <= PROPERTY_LEN {
            return None;
        }
        let known = self.topics.iter().position(|known| known == topic);
        let index = match known {
            Some(index) => index,
            None if may_set && self.topics.len() < self.max => {
                self.topics.push(topic.clone());
                self.topics.len() - 1
            }
            None => return None,
        };
        let number = NonZeroU16::new(u16::try_from(index + 1).ok()?)?;
        Some(Alias { number, is_new: known.is_none() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::{Assurance, Properties};
    use bytes::Bytes;

    fn publish(topic: &'static str, alias: Option<u16>) -> Publish {
        let properties: Properties = alias.map(Property::TopicAlias).into_iter().collect();
        let (assurance, topic, payload) = (Assurance::AtMostOnce, Text::from(topic), Bytes::new());
        Publish { assurance, retain: false, topic, properties, payload }
    }

    #[test]
    fn an_alias_stands_for_the_topic_it_was_last_set_to() {
        let mut aliases = ClientAliases::default();
        let mut resolve = |topic, alias| {
            let mut publish = publish(topic, alias);
            aliases.resolve(&mut publish, 3, 10).map(|()| publish.topic.as_str().to_owned())
        };
        assert_eq!(resolve("", Some(2)), Err(SessionError::NoTopic));
        assert_eq!(resolve("a", Some(2)).as_deref(), Ok("a"));
        assert_eq!(resolve("", Some(2)).as_deref(), Ok("a"));
        assert_eq!(resolve("", Some(1)), Err(SessionError::NoTopic));
        assert_eq!(resolve("b", Some(2)).as_deref(), Ok("b"));
        assert_eq!(resolve("", Some(2)).as_deref(), Ok("b"));
        assert_eq!(resolve("", None), Err(SessionError::NoTopic));
        assert_eq!(resolve("c", None).as_deref(), Ok("c"));
        for found in [0, 4] {
            assert_eq!(resolve("a", Some(found)), Err(SessionError::TopicAlias { found, max: 3 }));
        }
    }

    #[test]
    fn topics_are_given_aliases_until_none_is_left() {
        let mut aliases = OurAliases::new(2);
        let mut get = |topic: &'static str| aliases.get(&Text::from(topic), true).map(|a| (a.number.get(), a.is_new));
        assert_eq!(get("abc"), None, "it is no longer than the alias");
        assert_eq!(get("long/a"), Some((1, true)));
        assert_eq!(get("long/b"), Some((2, true)));
        assert_eq!(get("long/c"), None);
        assert_eq!(get("long/a"), Some((1, false)));
        assert_eq!(OurAliases::new(0).get(&Text::from("long/a"), true), None);
        assert_eq!(OurAliases::new(9).get(&Text::from("long/a"), false), None);
    }
}
