//! The last retained message of each topic (section 3.3.1.3).

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use unhidra_core::time::Timestamp;
use unhidra_core::topic::{TopicFilter, TopicName};

use super::message::Message;

/// Retained messages, bounded by count and by bytes.
#[derive(Debug)]
pub(crate) struct Retained {
    by_topic: BTreeMap<Box<str>, Arc<Message>>,
    /// Those that expire, and when.
    expiring: BTreeSet<(Timestamp, Box<str>)>,
    bytes: usize,
    messages_max: usize,
    bytes_max: usize,
}

/// What became of a message with RETAIN.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Kept {
    /// It is the topic's retained message.
    Yes,
    /// Its payload is empty: the topic has no retained message any more [MQTT-3.3.1-6].
    Cleared,
    /// There is no room. What the topic had is gone too: no value is better than an old one that
    /// looks like the last.
    NoRoom,
}

/// What a look at retained messages has found.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) live: Vec<Arc<Message>>,
    /// Those that have expired, which are forgotten.
    pub(crate) dead: Vec<Arc<Message>>,
    /// The last topic that was looked at.
    pub(crate) last: Option<Box<str>>,
    /// Whether the look ended before the topics did.
    pub(crate) has_more: bool,
}

impl Found {
    fn add(&mut self, message: &Arc<Message>, now: Timestamp) {
        let to = if message.is_expired(now) { &mut self.dead } else { &mut self.live };
        to.push(message.clone());
    }
}

impl Retained {
    pub(crate) const fn new(messages_max: usize, bytes_max: usize) -> Self {
        Self { by_topic: BTreeMap::new(), expiring: BTreeSet::new(), bytes: 0, messages_max, bytes_max }
    }

    /// How many there are, and how many bytes they take.
    pub(crate) fn size(&self) -> (usize, usize) {
        (self.by_topic.len(), self.bytes)
    }

    /// Keeps a message in place of the one its topic had, and says whether it had one.
    pub(crate) fn put(&mut self, message: &Arc<Message>) -> (Kept, bool) {
        let had = self.remove(message.topic());
        if message.is_empty() {
            return (Kept::Cleared, had);
        }
        if self.by_topic.len() >= self.messages_max || self.bytes.saturating_add(message.size()) > self.bytes_max {
            return (Kept::NoRoom, had);
        }
        self.bytes += message.size();
        self.by_topic.insert(message.topic().into(), message.clone());
        if let Some(at) = message.expires_at() {
            self.expiring.insert((at, message.topic().into()));
        }
        (Kept::Yes, had)
    }

    /// Forgets what has expired, and gives it: it takes nobody's place.
    pub(crate) fn expire(&mut self, now: Timestamp) -> Vec<Arc<Message>> {
        let mut expired = Vec::new();
        while let Some((_, topic)) = self.expiring.first().filter(|(at, _)| *at <= now).cloned() {
            expired.extend(self.by_topic.get(&topic).cloned());
            self.remove(&topic);
        }
        expired
    }

    /// The messages a filter stands for, in the order of their topics: at most `max`, those behind
    /// the topic `after`. However few they are, at most `looks_max` topics are looked at.
    pub(crate) fn matches(
        &mut self,
        filter: TopicFilter<'_>,
        after: Option<&str>,
        (max, looks_max): (usize, usize),
        now: Timestamp,
    ) -> Found {
        let mut found = Found::default();
        let text = filter.as_str();
        if filter.has_wildcard() {
            let literal = text.split(['+', '#']).next().unwrap_or_default();
            // `a/#` stands for `a` too, which does not begin with `a/`.
            let start = literal.strip_suffix('/').unwrap_or(literal);
            let from = after.map_or(Bound::Included(start), Bound::Excluded);
            let topics = self.by_topic.range::<str, _>((from, Bound::Unbounded));
            for (looks, (topic, message)) in topics.take_while(|(topic, _)| topic.starts_with(start)).enumerate() {
                if looks >= looks_max || found.live.len() >= max {
                    found.has_more = true;
                    break;
                }
                found.last = Some(topic.clone());
                if TopicName::parse(topic).is_ok_and(|name| filter.matches(name)) {
                    found.add(message, now);
                }
            }
        } else if after.is_none()
            && let Some(message) = self.by_topic.get(text)
        {
            found.add(message, now);
        }
        for message in &found.dead {
            self.remove(message.topic());
        }
        found
    }

    fn remove(&mut self, topic: &str) -> bool {
        let removed = self.by_topic.remove(topic);
        if let Some(at) = removed.as_ref().and_then(|message| message.expires_at()) {
            self.expiring.remove(&(at, topic.into()));
        }
        self.bytes -= removed.as_ref().map_or(0, |message| message.size());
        removed.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::{Properties, Property, QoS, Text};
    use crate::router::message::Incoming;
    use bytes::Bytes;

    fn message(topic: &'static str, payload: &'static [u8], expiry_s: Option<u32>) -> Arc<Message> {
        let properties: Properties = expiry_s.map(Property::MessageExpiryInterval).into_iter().collect();
        let (topic, payload) = (Text::from(topic), Bytes::from_static(payload));
        let qos = QoS::AtMostOnce;
        let incoming = Incoming { topic: &topic, payload: &payload, qos, retain: true, properties: &properties };
        Arc::new(Message::new(incoming, Timestamp::ZERO))
    }

    fn topics(retained: &mut Retained, filter: &str, now_ms: u64) -> Vec<String> {
        let filter = TopicFilter::parse(filter).expect("a filter");
        let found = retained.matches(filter, None, (usize::MAX, usize::MAX), Timestamp::from_ms(now_ms));
        found.live.iter().map(|m| m.topic().to_owned()).collect()
    }

    #[test]
    fn what_has_expired_takes_nobodys_place() {
        let mut retained = Retained::new(2, 1_000_000);
        retained.put(&message("a", b"1", Some(10)));
        retained.put(&message("b", b"1", Some(20)));
        assert_eq!(retained.put(&message("b", b"2", Some(5))).0, Kept::Yes, "in the old one's place");
        assert_eq!(retained.expire(Timestamp::from_ms(4_999)).len(), 0);
        assert_eq!(retained.put(&message("c", b"1", None)).0, Kept::NoRoom);
        let expired = retained.expire(Timestamp::from_ms(5_000));
        assert_eq!(expired.iter().map(|m| m.topic()).collect::<Vec<_>>(), ["b"]);
        assert_eq!(retained.put(&message("c", b"1", None)).0, Kept::Yes);
        assert_eq!(topics(&mut retained, "#", 20_000), ["c"], "a subscriber's look forgets it too");
        assert!(retained.expiring.is_empty());
    }

    #[test]
    fn a_filter_finds_the_last_message_of_each_topic() {
        let mut retained = Retained::new(10, 10_000);
        for topic in ["a", "a/b", "a/b/c", "ab", "$x/y"] {
            assert_eq!(retained.put(&message(topic, b"1", None)), (Kept::Yes, false));
        }
        assert_eq!(topics(&mut retained, "a/#", 0), ["a", "a/b", "a/b/c"]);
        assert_eq!(topics(&mut retained, "+", 0), ["a", "ab"]);
        assert_eq!(topics(&mut retained, "+/b", 0), ["a/b"]);
        assert_eq!(topics(&mut retained, "#", 0), ["a", "a/b", "a/b/c", "ab"]);
        assert_eq!(topics(&mut retained, "$x/#", 0), ["$x/y"]);
        assert_eq!(topics(&mut retained, "a/b", 0), ["a/b"]);
    }

    #[test]
    fn an_empty_payload_clears_and_an_expired_message_is_forgotten() {
        let mut retained = Retained::new(10, 10_000);
        retained.put(&message("a", b"1", Some(5)));
        retained.put(&message("b", b"1", None));
        assert_eq!(retained.put(&message("b", b"", None)), (Kept::Cleared, true));
        assert_eq!(retained.put(&message("b", b"", None)), (Kept::Cleared, false));
        assert_eq!(topics(&mut retained, "#", 4_999), ["a"]);
        assert!(topics(&mut retained, "#", 5_000).is_empty());
        assert_eq!(retained.size(), (0, 0));
    }

    #[test]
    fn what_is_over_the_bound_is_not_kept_and_leaves_no_old_value() {
        let mut retained = Retained::new(2, 10_000);
        retained.put(&message("a", b"1", None));
        retained.put(&message("b", b"1", None));
        assert_eq!(retained.put(&message("c", b"1", None)), (Kept::NoRoom, false));
        assert_eq!(retained.put(&message("b", b"2", None)), (Kept::Yes, true));
        let mut small = Retained::new(10, message("a", b"1", None).size());
        assert_eq!(small.put(&message("a", b"1", None)), (Kept::Yes, false));
        assert_eq!(small.put(&message("a", b"22", None)), (Kept::NoRoom, true));
        assert_eq!(small.size(), (0, 0));
    }
}
