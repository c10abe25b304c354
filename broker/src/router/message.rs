//! A message on its way to subscribers, encoded once for all of one version and QoS.

use std::fmt;
use std::num::{NonZeroU16, NonZeroU64};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use unhidra_core::time::Timestamp;

use super::shared::Group;
use crate::packet::{PacketId, Properties, Property, Publish, QoS, Text, Version, Will};

/// A message in memory of its own: it does not hold on to the read it came in.
pub(crate) struct Message {
    topic: Text,
    payload: Bytes,
    qos: QoS,
    retain: bool,
    /// What of its properties is passed on unchanged, encoded.
    forwarded: Bytes,
    expires_at: Option<Timestamp>,
    frames: [OnceLock<Frame>; 4],
}

/// What a PUBLISH or a Will brings.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Incoming<'a> {
    pub(crate) topic: &'a Text,
    pub(crate) payload: &'a Bytes,
    pub(crate) qos: QoS,
    pub(crate) retain: bool,
    pub(crate) properties: &'a Properties,
}

/// A PUBLISH whose Packet Identifier, RETAIN, DUP and Message Expiry Interval are still blank.
struct Frame {
    bytes: Bytes,
    packet_id_at: usize,
    properties_len: usize,
    expiry_at: usize,
}

/// A message as one subscriber gets it.
#[derive(Clone, Debug)]
pub(crate) struct Queued {
    pub(crate) message: Arc<Message>,
    /// The lower of the message's QoS and the subscription's.
    pub(crate) qos: QoS,
    pub(crate) retain: bool,
    /// The identifiers of the subscriptions it comes by (section 3.3.2.3.8).
    pub(crate) identifiers: Box<[u32]>,
    /// The group it is shared in, whose other members have it if this one never will.
    pub(crate) group: Option<Arc<Group>>,
    /// Where it is kept over a restart, if it is.
    pub(crate) kept: Option<Kept>,
}

/// A queued message's place where it is kept.
#[derive(Clone, Debug)]
pub(crate) struct Kept {
    /// Its number among its session's.
    pub(crate) sequence: NonZeroU64,
    /// Whether its contents lie there once for several sessions.
    pub(crate) shared: Option<Arc<Shared>>,
}

/// A message that several sessions keep in one place.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) number: u64,
    /// How many sessions still do.
    holders: AtomicUsize,
}

impl Shared {
    pub(crate) fn new(number: u64, holders: usize) -> Arc<Self> {
        Arc::new(Self { number, holders: AtomicUsize::new(holders) })
    }

    /// One session more keeps it.
    pub(crate) fn hold(&self) {
        self.holders.fetch_add(1, Ordering::Relaxed);
    }

    /// One session less keeps it. Says whether it was the last.
    pub(crate) fn release(&self) -> bool {
        self.holders.fetch_sub(1, Ordering::AcqRel) == 1
    }

    /// Whether no session keeps it.
    pub(crate) fn is_orphan(&self) -> bool {
        self.holders.load(Ordering::Acquire) == 0
    }
}

/// What is filled in as a message is written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Filling {
    pub(crate) version: Version,
    /// `None` at QoS 0.
    pub(crate) packet_id: Option<PacketId>,
    pub(crate) dup: bool,
    /// What stands for the topic, in 5.0.
    pub(crate) alias: Option<Alias>,
    pub(crate) now: Timestamp,
}

/// A Topic Alias of ours (section 3.3.2.3.4).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Alias {
    pub(crate) number: NonZeroU16,
    /// Whether it is set by this message, which has its topic too.
    pub(crate) is_new: bool,
}

impl Message {
    /// Copies what came.
    pub(crate) fn new(incoming: Incoming<'_>, now: Timestamp) -> Self {
        let Incoming { topic, payload, qos, retain, properties } = incoming;
        let mut forwarded = BytesMut::new();
        let mut expires_at = None;
        for property in properties.iter() {
            match property {
                Property::MessageExpiryInterval(s) => {
                    expires_at = Some(now.saturating_add(Duration::from_secs(u64::from(*s))));
                }
                Property::PayloadFormatIndicator(_)
                | Property::ContentType(_)
                | Property::ResponseTopic(_)
                | Property::CorrelationData(_)
                | Property::UserProperty(..) => property.encode(&mut forwarded),
                _ => {}
            }
        }
        Self {
            topic: topic.detach(),
            payload: Bytes::copy_from_slice(payload),
            qos,
            retain,
            forwarded: forwarded.freeze(),
            expires_at,
            frames: Default::default(),
        }
    }

    /// One that was kept. `expires_at` is what its properties say no more.
    pub(crate) fn restored(publish: &Publish, qos: QoS, expires_at: Option<Timestamp>) -> Self {
        let message = Self::new(Incoming { qos, ..publish.into() }, Timestamp::ZERO);
        Self { expires_at, ..message }
    }

    /// Appends a PUBLISH of 5.0 at QoS 0 with all that is passed on.
    pub(crate) fn put_publish(&self, out: &mut BytesMut) {
        out.extend_from_slice(&Frame::new(self, Version::V5, QoS::AtMostOnce, &[]).bytes);
    }

    /// How long it has before it expires, if it does.
    pub(crate) fn left(&self, now: Timestamp) -> Option<Duration> {
        self.expires_at.map(|at| at.saturating_since(now))
    }

    pub(crate) fn topic(&self) -> &str {
        self.topic.as_str()
    }

    pub(crate) const fn topic_text(&self) -> &Text {
        &self.topic
    }

    pub(crate) const fn qos(&self) -> QoS {
        self.qos
    }

    pub(crate) const fn retain(&self) -> bool {
        self.retain
    }

    /// Whether its payload is empty, which clears a retained message [MQTT-3.3.1-6].
    pub(crate) fn is_empty(&self) -> bool {
        self.payload_len() == 0
    }

    pub(crate) const fn payload_len(&self) -> usize {
        self.payload.len()
    }

    /// The bytes of its topic, its payload and the properties it is passed on with.
    fn len(&self) -> usize {
        self.topic.len() + self.payload.len() + self.forwarded.len()
    }

    /// What it takes in memory, nearly.
    pub(crate) fn size(&self) -> usize {
        size_of::<Self>() + self.len()
    }

    /// Whether nobody is to get it any more (section 3.3.2.3.3).
    pub(crate) fn is_expired(&self, now: Timestamp) -> bool {
        self.expires_at.is_some_and(|at| at <= now)
    }

    fn frame(&self, version: Version, qos: QoS) -> &Frame {
        let slot = match (version, qos) {
            (Version::V3_1_1, QoS::AtMostOnce) => &self.frames[0],
            (Version::V3_1_1, _) => &self.frames[1],
            (Version::V5, QoS::AtMostOnce) => &self.frames[2],
            (Version::V5, _) => &self.frames[3],
        };
        slot.get_or_init(|| Frame::new(self, version, qos, &[]))
    }
}

impl<'a> From<&'a Publish> for Incoming<'a> {
    fn from(publish: &'a Publish) -> Self {
        let Publish { assurance, retain, topic, properties, payload } = publish;
        Self { topic, payload, qos: assurance.qos(), retain: *retain, properties }
    }
}

impl<'a> From<&'a Will> for Incoming<'a> {
    fn from(will: &'a Will) -> Self {
        let Will { topic, payload, qos, retain, properties } = will;
        Self { topic, payload, qos: *qos, retain: *retain, properties }
    }
}

impl Queued {
    /// No PUBLISH of it is longer than this.
    pub(crate) fn size_max(&self) -> usize {
        // The fixed header, the lengths, the packet identifier, an alias, what is left of its life.
        const HEAD_MAX: usize = 5 + 2 + 2 + 4 + 3 + 5;
        HEAD_MAX + self.message.len() + self.identifiers.len() * 5
    }

    /// Appends the PUBLISH, unless it has more than `len_max` bytes: then the client does not get
    /// it, as if it had been sent [MQTT-3.1.2-25]. Says whether it did.
    pub(crate) fn encode(&self, filling: Filling, len_max: usize, out: &mut BytesMut) -> bool {
        let own;
        let frame = if self.identifiers.is_empty() || filling.version == Version::V3_1_1 {
            self.message.frame(filling.version, self.qos)
        } else {
            own = Frame::new(&self.message, filling.version, self.qos, &self.identifiers);
            &own
        };
        let start = out.len();
        let (packet_id_at, expiry_at) = match filling.alias {
            Some(alias) if filling.version == Version::V5 => frame.put_with_alias(&self.message, alias, out),
            _ => {
                out.extend_from_slice(&frame.bytes);
                (frame.packet_id_at, frame.expiry_at)
            }
        };
        if out.len() - start > len_max {
            out.truncate(start);
            return false;
        }
        let Some(written) = out.get_mut(start..) else { return false };
        if let Some(first) = written.first_mut() {
            *first |= u8::from(self.retain) | u8::from(filling.dup) << 3;
        }
        if let Some(packet_id) = filling.packet_id {
            fill(written, packet_id_at, &packet_id.get().to_be_bytes());
        }
        if let (Some(at), Version::V5) = (self.message.expires_at, filling.version) {
            // The seconds that are left, rounded up, so that a message sent at once says what it
            // said when it came [MQTT-3.3.2-6].
            let left = at.saturating_since(filling.now).as_millis().div_ceil(1000);
            fill(written, expiry_at, &u32::try_from(left).unwrap_or(u32::MAX).to_be_bytes());
        }
        true
    }
}

fn fill(frame: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(slot) = frame.get_mut(at..at + bytes.len()) {
        slot.copy_from_slice(bytes);
    }
}

impl Frame {
    fn new(message: &Message, version: Version, qos: QoS, identifiers: &[u32]) -> Self {
        let mut head = BytesMut::new();
        let topic = message.topic.as_bytes();
        // A topic came in with a two-byte length, so it has one.
        head.put_u16(u16::try_from(topic.len()).unwrap_or(u16::MAX));
        head.put_slice(topic);
        let mut packet_id_at = head.len();
        if qos != QoS::AtMostOnce {
            head.put_u16(0);
        }
        let (mut properties_len, mut expiry_at) = (0, 0);
        if version == Version::V5 {
            let mut properties = BytesMut::new();
            if message.expires_at.is_some() {
                Property::MessageExpiryInterval(0).encode(&mut properties);
            }
            identifiers.iter().for_each(|id| Property::SubscriptionIdentifier(*id).encode(&mut properties));
            properties.extend_from_slice(&message.forwarded);
            properties_len = properties.len();
            Property::put_length(properties_len, &mut head);
            // The identifier of the property, then its value.
            expiry_at = head.len() + 1;
            head.extend_from_slice(&properties);
        }
        let mut bytes = BytesMut::with_capacity(5 + head.len() + message.payload.len());
        bytes.put_u8(0x30 | qos.as_bits() << 1);
        Property::put_length(head.len() + message.payload.len(), &mut bytes);
        packet_id_at += bytes.len();
        expiry_at += bytes.len();
        bytes.extend_from_slice(&head);
        bytes.extend_from_slice(&message.payload);
        Self { bytes: bytes.freeze(), packet_id_at, properties_len, expiry_at }
    }

    /// Appends the frame with an alias, in place of its topic where the client knows it: a head of
    /// its own before the shared properties and payload. Gives where the blanks are.
    fn put_with_alias(&self, message: &Message, alias: Alias, out: &mut BytesMut) -> (usize, usize) {
        let topic = if alias.is_new { message.topic.as_bytes() } else { &[] };
        let alias = Property::TopicAlias(alias.number.get());
        let start = out.len();
        let first = self.bytes.first().copied().unwrap_or_default();
        let packet_id: &[u8] = if first & 0b0110 == 0 { &[] } else { &[0; 2] };
        let shared = self.bytes.get(self.expiry_at.saturating_sub(1)..).unwrap_or_default();
        let mut properties = BytesMut::with_capacity(8);
        Property::put_length(self.properties_len + alias.len(), &mut properties);
        alias.encode(&mut properties);
        out.put_u8(first);
        Property::put_length(2 + topic.len() + packet_id.len() + properties.len() + shared.len(), out);
        out.put_u16(u16::try_from(topic.len()).unwrap_or(u16::MAX));
        out.put_slice(topic);
        let packet_id_at = out.len() - start;
        out.put_slice(packet_id);
        out.put_slice(&properties);
        // The identifier of the property, then its value.
        let expiry_at = out.len() - start + 1;
        out.put_slice(shared);
        (packet_id_at, expiry_at)
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message")
            .field("topic", &self.topic)
            .field("qos", &self.qos)
            .field("retain", &self.retain)
            .field("payload_len", &self.payload.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::{Assurance, Packet, split_frame};

    fn message(properties: Properties) -> Arc<Message> {
        let (topic, payload) = (Text::from("a/b"), Bytes::from_static(b"hello"));
        let incoming = Incoming {
            topic: &topic,
            payload: &payload,
            qos: QoS::AtLeastOnce,
            retain: false,
            properties: &properties,
        };
        Arc::new(Message::new(incoming, Timestamp::from_ms(1000)))
    }

    fn written(queued: &Queued, filling: Filling) -> Publish {
        let mut out = BytesMut::new();
        assert!(queued.encode(filling, 1000, &mut out));
        let frame = split_frame(&mut out, 1000).expect("a frame").expect("whole");
        match Packet::decode(frame, filling.version) {
            Ok(Packet::Publish(publish)) => publish,
            other => panic!("{other:?}"),
        }
    }

    fn filling(version: Version, id: Option<u16>, now_ms: u64) -> Filling {
        Filling {
            version,
            packet_id: id.and_then(PacketId::new),
            dup: false,
            alias: None,
            now: Timestamp::from_ms(now_ms),
        }
    }

    #[test]
    fn one_frame_serves_all_of_a_version_and_a_qos() {
        let message = message(Properties::default());
        let queued = Queued {
            message: message.clone(),
            qos: QoS::AtLeastOnce,
            retain: false,
            identifiers: Box::default(),
            group: None,
            kept: None,
        };
        for version in [Version::V3_1_1, Version::V5] {
            for id in [7, 8] {
                let publish = written(&queued, Filling { dup: id == 8, ..filling(version, Some(id), 1000) });
                let packet_id = PacketId::new(id).expect("not 0");
                assert_eq!(publish.assurance, Assurance::AtLeastOnce { packet_id, dup: id == 8 });
                assert_eq!((publish.topic.as_str(), publish.payload.as_ref()), ("a/b", &b"hello"[..]));
            }
        }
        assert_eq!(message.frames.iter().filter(|frame| frame.get().is_some()).count(), 2);
    }

    #[test]
    fn expiry_counts_down_and_user_properties_pass_unchanged() {
        let pair = |value| Property::UserProperty(Text::from("k"), Text::from(value));
        let given = [pair("1"), Property::MessageExpiryInterval(10), pair("2"), Property::TopicAlias(3)];
        let message = message(given.into_iter().collect());
        let queued = Queued {
            message: message.clone(),
            qos: QoS::AtMostOnce,
            retain: true,
            identifiers: [5, 9].into(),
            group: None,
            kept: None,
        };
        let publish = written(&queued, filling(Version::V5, None, 4000));
        let expected = [
            Property::MessageExpiryInterval(7),
            Property::SubscriptionIdentifier(5),
            Property::SubscriptionIdentifier(9),
            pair("1"),
            pair("2"),
        ];
        assert_eq!(publish.properties, expected.into_iter().collect());
        assert!(publish.retain);
        assert!(!message.is_expired(Timestamp::from_ms(10_999)) && message.is_expired(Timestamp::from_ms(11_000)));
    }

    #[test]
    fn an_alias_takes_the_place_of_its_topic_and_of_nothing_else() {
        let pair = Property::UserProperty(Text::from("k"), Text::from("v"));
        let message = message([Property::MessageExpiryInterval(10), pair].into_iter().collect());
        for qos in [QoS::AtMostOnce, QoS::AtLeastOnce] {
            let queued = Queued {
                message: message.clone(),
                qos,
                retain: true,
                identifiers: [5].into(),
                group: None,
                kept: None,
            };
            let id = (qos != QoS::AtMostOnce).then_some(7);
            let plain = written(&queued, filling(Version::V5, id, 4000));
            for is_new in [true, false] {
                let alias = Some(Alias { number: NonZeroU16::MAX, is_new });
                let mut aliased = written(&queued, Filling { alias, ..filling(Version::V5, id, 4000) });
                assert_eq!(aliased.topic.as_str(), if is_new { "a/b" } else { "" });
                aliased.topic = plain.topic.clone();
                let alias = [Property::TopicAlias(u16::MAX)];
                aliased.properties = aliased.properties.iter().filter(|p| !alias.contains(p)).cloned().collect();
                assert_eq!(aliased, plain);
            }
        }
    }

    #[test]
    fn an_alias_saves_the_bytes_of_the_topic() {
        let queued = Queued {
            message: message(Properties::default()),
            qos: QoS::AtMostOnce,
            retain: false,
            identifiers: Box::default(),
            group: None,
            kept: None,
        };
        let len = |alias| {
            let mut out = BytesMut::new();
            assert!(queued.encode(Filling { alias, ..filling(Version::V5, None, 0) }, 1000, &mut out));
            out.len()
        };
        let alias = |is_new| Some(Alias { number: NonZeroU16::MIN, is_new });
        assert_eq!((len(None), len(alias(true)), len(alias(false))), (13, 16, 13), "a topic of 3 bytes saves nothing");
    }

    #[test]
    fn what_is_too_large_for_its_client_is_not_written() {
        let queued = Queued {
            message: message(Properties::default()),
            qos: QoS::AtMostOnce,
            retain: false,
            identifiers: Box::default(),
            group: None,
            kept: None,
        };
        let mut out = BytesMut::new();
        assert!(!queued.encode(filling(Version::V3_1_1, None, 0), 11, &mut out) && out.is_empty());
        assert!(queued.encode(filling(Version::V3_1_1, None, 0), 12, &mut out));
    }
}
