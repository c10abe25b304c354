//! What waits for a session as it lies, and the identifiers in use.

use bytes::{BufMut, Bytes, BytesMut};
use unhidra_core::time::UnixTime;

use super::fields::{Fields, RecordError, VERSION, flags, wrong};
use super::message::MessageRecord;
use crate::doors::{Change, PersistTable};
use crate::packet::{PacketId, QoS};
use crate::router::SubscriberId;
use crate::router::message::Queued;

/// What waits for a session, as it lies.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct QueuedRecord {
    pub(crate) qos: QoS,
    pub(crate) retain: bool,
    pub(crate) identifiers: Vec<u32>,
    pub(crate) body: Body,
}

/// Where a queued message's contents lie.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Body {
    Here(MessageRecord),
    /// Among the messages, under this number.
    Shared(u64),
}

impl QueuedRecord {
    /// One whose message lies here.
    pub(crate) fn whole(queued: &Queued, stored_at: UnixTime, left_ms: Option<u64>) -> Bytes {
        let mut out = BytesMut::new();
        Self::put_head(false, queued, &mut out);
        MessageRecord::put(&queued.message, stored_at, left_ms, &mut out);
        out.freeze()
    }

    /// One whose message lies among the messages.
    pub(crate) fn shared(queued: &Queued, number: u64) -> Bytes {
        let mut out = BytesMut::new();
        Self::put_head(true, queued, &mut out);
        out.put_u64(number);
        out.freeze()
    }

    fn put_head(shared: bool, queued: &Queued, out: &mut BytesMut) {
        out.put_u8(VERSION);
        out.put_u8(u8::from(shared));
        out.put_u8(flags(queued.qos, queued.retain));
        // A session has fewer subscriptions than this by far; what is over is not told the client.
        let count = u8::try_from(queued.identifiers.len()).unwrap_or(u8::MAX);
        out.put_u8(count);
        queued.identifiers.iter().take(usize::from(count)).for_each(|id| out.put_u32(*id));
    }

    pub(crate) fn decode(value: Bytes) -> Result<Self, RecordError> {
        let mut fields = Fields::begin(value)?;
        let kind = fields.u8()?;
        let (qos, retain) = fields.flags()?;
        if qos == QoS::AtMostOnce {
            return Err(wrong("the QoS of a queued message", 0));
        }
        let count = fields.u8()?;
        let identifiers = (0..count).map(|_| fields.u32()).collect::<Result<_, _>>()?;
        let body = match kind {
            0 => Body::Here(MessageRecord::take(&mut fields)?),
            1 => Body::Shared(fields.u64()?),
            other => return Err(wrong("its kind", other)),
        };
        fields.finish()?;
        Ok(Self { qos, retain, identifiers, body })
    }
}

/// How far a QoS 2 message, or one of QoS 1 to the client, has come under its identifier.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Exchange {
    /// It came and was not released.
    Received,
    /// It was sent: the message with this sequence.
    Sent(u64),
    /// PUBREC has come, and PUBCOMP has not. They are told apart by a number, in their order.
    Releasing(u64),
}

impl Exchange {
    const fn kind(self) -> u8 {
        match self {
            Self::Received => 1,
            Self::Sent(_) => 2,
            Self::Releasing(_) => 3,
        }
    }

    fn key(self, session: SubscriberId, packet_id: PacketId) -> Bytes {
        [&session.0.to_be_bytes()[..], &[self.kind()], &packet_id.get().to_be_bytes()].concat().into()
    }

    /// It has come so far.
    pub(crate) fn put(self, session: SubscriberId, packet_id: PacketId) -> Change {
        let mut value = BytesMut::new();
        value.put_u8(VERSION);
        match self {
            Self::Received => {}
            Self::Sent(number) | Self::Releasing(number) => value.put_u64(number),
        }
        let (table, key) = (PersistTable::Exchanges, self.key(session, packet_id));
        Change { table, key, value: Some(value.freeze()) }
    }

    /// It has come further. The number says nothing here.
    pub(crate) fn delete(self, session: SubscriberId, packet_id: PacketId) -> Change {
        Change { table: PersistTable::Exchanges, key: self.key(session, packet_id), value: None }
    }

    pub(super) fn decode(key: &Bytes, value: Bytes) -> Result<(SubscriberId, PacketId, Self), RecordError> {
        let mut name = Fields(key.clone());
        let (session, kind, packet_id) = (SubscriberId(name.u64()?), name.u8()?, name.u16()?);
        name.finish()?;
        let packet_id = PacketId::new(packet_id).ok_or_else(|| wrong("its Packet Identifier", 0))?;
        let mut fields = Fields::begin(value)?;
        let exchange = match kind {
            1 => Self::Received,
            2 => Self::Sent(fields.u64()?),
            3 => Self::Releasing(fields.u64()?),
            other => return Err(wrong("its kind", other)),
        };
        fields.finish()?;
        Ok((session, packet_id, exchange))
    }
}

/// The key of what stands under one number.
pub(super) fn number_key(number: u64) -> Bytes {
    Bytes::copy_from_slice(&number.to_be_bytes())
}

/// The number a key is.
pub(super) fn decode_number_key(key: &Bytes) -> Result<u64, RecordError> {
    let mut fields = Fields(key.clone());
    let number = fields.u64()?;
    fields.finish()?;
    Ok(number)
}

/// The key of a queued message.
pub(super) fn queued_key(session: SubscriberId, sequence: u64) -> Bytes {
    [session.0.to_be_bytes(), sequence.to_be_bytes()].concat().into()
}

/// The session and the sequence of a queued message.
pub(super) fn decode_queued_key(key: &Bytes) -> Result<(SubscriberId, u64), RecordError> {
    let mut fields = Fields(key.clone());
    let (session, sequence) = (SubscriberId(fields.u64()?), fields.u64()?);
    fields.finish()?;
    Ok((session, sequence))
}
