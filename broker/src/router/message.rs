//! A message on its way to subscribers: for one it is encoded into what is written to it, for many once
//! for all of one version and QoS.

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
    /// Once it is written for many.
    frames: OnceLock<Box<[OnceLock<Frame>; 4]>>,
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

/// A PUBLISH whose Packet Identifier, RETAIN, DUP and Message Expiry Interval are still blank, but for
/// a payload that goes out apart.
struct Frame {
    bytes: Box<[u8]>,
    blanks: Blanks,
}

/// Where a PUBLISH is still blank, from its first byte on.
#[derive(Clone, Copy)]
struct Blanks {
    packet_id_at: usize,
    expiry_at: usize,
}

/// What a PUBLISH of a message is like.
#[derive(Clone, Copy)]
struct Shape<'a> {
    version: Version,
    qos: QoS,
    /// Empty in 3.1.1, as the alias is `None`.
    identifiers: &'a [u32],
    alias: Option<Alias>,
}

/// How many hold a message that goes to one subscriber: the session, until it is acknowledged, and
/// what is being written. Beyond that it is encoded once and copied; below it that would only cost.
const HOLDERS: usize = 2;

/// From so many bytes on a payload is not copied for each subscriber: it goes out from where it lies.
/// Below, the copy costs less than another piece to write.
const APART_MIN: usize = 4096;

/// What a PUBLISH is written to.
pub(crate) trait Sink {
    /// What was written here, to be appended to.
    fn bytes(&mut self) -> &mut BytesMut;

    /// Appends a payload that others write too.
    fn put_shared(&mut self, payload: &Bytes);
}

impl Sink for BytesMut {
    fn bytes(&mut self) -> &mut BytesMut {
        self
    }

    fn put_shared(&mut self, payload: &Bytes) {
        self.extend_from_slice(payload);
    }
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
            frames: OnceLock::new(),
        }
    }

    /// One that was kept. `expires_at` is what its properties say no more.
    pub(crate) fn restored(publish: &Publish, qos: QoS, expires_at: Option<Timestamp>) -> Self {
        let message = Self::new(Incoming { qos, ..publish.into() }, Timestamp::ZERO);
        Self { expires_at, ..message }
    }

    /// Appends a PUBLISH of 5.0 at QoS 0 with all that is passed on.
    pub(crate) fn put_publish(&self, out: &mut BytesMut) {
        self.put(Shape { version: Version::V5, qos: QoS::AtMostOnce, identifiers: &[], alias: None }, out);
        out.put_slice(self.apart().map_or(&[], |payload| payload));
    }

    /// The payload, where it goes out apart.
    fn apart(&self) -> Option<&Bytes> {
        Some(&self.payload).filter(|payload| payload.len() >= APART_MIN)
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

    /// From when on nobody is to get it any more.
    pub(crate) const fn expires_at(&self) -> Option<Timestamp> {
        self.expires_at
    }

    /// Whether nobody is to get it any more (section 3.3.2.3.3).
    pub(crate) fn is_expired(&self, now: Timestamp) -> bool {
        self.expires_at.is_some_and(|at| at <= now)
    }

    fn frame(&self, version: Version, qos: QoS) -> &Frame {
        let [old_0, old, new_0, new] = self.frames.get_or_init(Box::default).as_ref();
        let slot = match (version, qos) {
            (Version::V3_1_1, QoS::AtMostOnce) => old_0,
            (Version::V3_1_1, _) => old,
            (Version::V5, QoS::AtMostOnce) => new_0,
            (Version::V5, _) => new,
        };
        slot.get_or_init(|| {
            let mut bytes = BytesMut::new();
            let blanks = self.put(Shape { version, qos, identifiers: &[], alias: None }, &mut bytes);
            Frame { bytes: bytes.as_ref().into(), blanks }
        })
    }

    /// Appends a PUBLISH, but for a payload that goes out apart, and says where it is blank.
    fn put(&self, shape: Shape<'_>, out: &mut BytesMut) -> Blanks {
        const EXPIRY_LEN: usize = 5;
        const ALIAS_LEN: usize = 3;
        let Shape { version, qos, identifiers, alias } = shape;
        let topic = match alias {
            Some(Alias { is_new: false, .. }) => &[],
            Some(_) | None => self.topic.as_bytes(),
        };
        let id_len = if qos == QoS::AtMostOnce { 0 } else { 2 };
        let properties_len = self.forwarded.len()
            + identifiers.iter().map(|id| 1 + Property::length_len(*id as usize)).sum::<usize>()
            + if self.expires_at.is_some() { EXPIRY_LEN } else { 0 }
            + if alias.is_some() { ALIAS_LEN } else { 0 };
        let properties = match version {
            Version::V3_1_1 => 0,
            Version::V5 => Property::length_len(properties_len) + properties_len,
        };
        let len = 2 + topic.len() + id_len + properties + self.payload.len();
        let start = out.len();
        out.reserve(5 + len - self.apart().map_or(0, Bytes::len));
        out.put_u8(0x30 | qos.as_bits() << 1);
        Property::put_length(len, out);
        // A topic came in with a two-byte length, so it has one.
        out.put_u16(u16::try_from(topic.len()).unwrap_or(u16::MAX));
        out.put_slice(topic);
        let packet_id_at = out.len() - start;
        out.put_bytes(0, id_len);
        let mut expiry_at = 0;
        if version == Version::V5 {
            Property::put_length(properties_len, out);
            if let Some(alias) = alias {
                Property::TopicAlias(alias.number.get()).encode(out);
            }
            if self.expires_at.is_some() {
                // The identifier of the property, then its value.
                expiry_at = out.len() - start + 1;
                Property::MessageExpiryInterval(0).encode(out);
            }
            identifiers.iter().for_each(|id| Property::SubscriptionIdentifier(*id).encode(out));
            out.put_slice(&self.forwarded);
        }
        if self.apart().is_none() {
            out.put_slice(&self.payload);
        }
        Blanks { packet_id_at, expiry_at }
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
    pub(crate) fn encode(&self, filling: Filling, len_max: usize, sink: &mut impl Sink) -> bool {
        let apart = self.message.apart();
        let room = len_max.saturating_sub(apart.map_or(0, Bytes::len));
        let out = sink.bytes();
        let (version, qos) = (filling.version, self.qos);
        let (identifiers, alias) = match version {
            Version::V3_1_1 => (&[][..], None),
            Version::V5 => (self.identifiers.as_ref(), filling.alias),
        };
        let start = out.len();
        let is_own = !identifiers.is_empty() || alias.is_some() || Arc::strong_count(&self.message) <= HOLDERS;
        let Blanks { packet_id_at, expiry_at } = if is_own {
            self.message.put(Shape { version, qos, identifiers, alias }, out)
        } else {
            let frame = self.message.frame(version, qos);
            out.extend_from_slice(&frame.bytes);
            frame.blanks
        };
        if out.len() - start > room {
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
        if let Some(payload) = apart {
            sink.put_shared(payload);
        }
        true
    }
}

fn fill(frame: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(slot) = frame.get_mut(at..at + bytes.len()) {
        slot.copy_from_slice(bytes);
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
mod tests;
