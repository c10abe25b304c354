//! A session as it lies, and what it listens to.

use bytes::{BufMut, Bytes, BytesMut};
use unhidra_core::delivery::DownlinkRow;
use unhidra_core::ids::{ClientId, DeviceId};
use unhidra_core::time::UnixTime;

use super::fields::{Fields, RecordError, VERSION, flags, put_text, qos, wrong};
use crate::doors::{Change, Owner, PersistTable, UserName};
use crate::packet::{Assurance, Packet, Property, Publish, RetainHandling, SubscriptionOptions, Version, Will};
use crate::router::{SubscriberId, Subscription, shared};
use crate::session::Interest;
use crate::session::table::SessionKey;

/// A session as it lies.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SessionRecord {
    pub(crate) key: SessionKey,
    /// How long it outlives its connection.
    pub(crate) expiry_s: u32,
    /// When its connection ended; `None` while one carries it.
    pub(crate) left_at: Option<UnixTime>,
    /// What is published then, unless the session is taken up before. While a connection carries
    /// it, so long after that one's end.
    pub(crate) will: Option<(UnixTime, Will)>,
}

impl SessionRecord {
    pub(crate) fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        out.put_u8(VERSION);
        let (kind, name) = match self.key.owner() {
            Owner::Anybody => (0, ""),
            Owner::Device(device) => (1, device.as_str()),
            Owner::User(name) => (2, name.as_str()),
        };
        out.put_u8(kind);
        put_text(&mut out, name);
        put_text(&mut out, self.key.client_id().as_str());
        out.put_u32(self.expiry_s);
        out.put_u64(self.left_at.map_or(0, UnixTime::as_ms));
        match &self.will {
            None => out.put_u64(0),
            Some((due_at, will)) => {
                out.put_u64(match self.left_at {
                    Some(_) => due_at.as_ms().max(1),
                    None => due_at.as_ms().saturating_add(1),
                });
                out.put_u8(flags(will.qos, will.retain));
                let properties = will.properties.iter().filter(|p| !matches!(p, Property::WillDelayInterval(_)));
                let publish = Publish {
                    assurance: Assurance::AtMostOnce,
                    retain: false,
                    topic: will.topic.clone(),
                    properties: properties.cloned().collect(),
                    payload: will.payload.clone(),
                };
                Packet::Publish(publish).encode(Version::V5, &mut out);
            }
        }
        out.freeze()
    }

    pub(crate) fn decode(value: Bytes) -> Result<Self, RecordError> {
        let mut fields = Fields::begin(value)?;
        let kind = fields.u8()?;
        let name = fields.text()?;
        let owner = match (kind, name.as_str()) {
            (0, "") => Owner::Anybody,
            (1, id) => Owner::Device(DeviceId::parse(id).map_err(|error| wrong("its device", error))?),
            (2, name) => Owner::User(UserName::new(name)),
            (kind, _) => return Err(wrong("its kind of owner", kind)),
        };
        let client_id = ClientId::parse(fields.text()?.as_str()).map_err(|error| wrong("its client id", error))?;
        let expiry_s = fields.u32()?;
        let left_at = Some(fields.u64()?).filter(|ms| *ms > 0).map(UnixTime::from_ms);
        let will = match fields.u64()? {
            0 => None,
            due_at => {
                let due_at = if left_at.is_some() { due_at } else { due_at - 1 };
                let (qos, retain) = fields.flags()?;
                let Publish { topic, properties, payload, .. } = fields.publish()?;
                Some((UnixTime::from_ms(due_at), Will { topic, payload, qos, retain, properties }))
            }
        };
        fields.finish()?;
        Ok(Self { key: SessionKey::owned(owner, client_id), expiry_s, left_at, will })
    }
}

/// The key of one filter of a session.
pub(super) fn filter_key(session: SubscriberId, filter: &str) -> Bytes {
    [&session.0.to_be_bytes()[..], filter.as_bytes()].concat().into()
}

/// The key of one row of a session.
pub(super) fn row_key(session: SubscriberId, row: DownlinkRow) -> Bytes {
    let row = match row {
        DownlinkRow::Commands => 1,
        DownlinkRow::Prekeys => 2,
    };
    [&session.0.to_be_bytes()[..], &[0, row]].concat().into()
}

/// In the options of a subscription: retained messages are still to be sent for it.
const OWED: u8 = 1 << 6;

/// A session's interest as it becomes; `owed` where retained messages are still to be sent for it.
pub(super) fn interest_change(session: SubscriberId, step: &Interest, owed: bool) -> Change {
    let (key, value) = match step {
        Interest::Begun(filter, subscription) => {
            (filter_key(session, filter), Some(subscription_value(*subscription, owed)))
        }
        Interest::Ended(filter) => (filter_key(session, filter), None),
        Interest::Listens(row, qos) => {
            (row_key(session, *row), Some(Bytes::copy_from_slice(&[VERSION, qos.as_bits()])))
        }
        Interest::ListensNoMore(row) => (row_key(session, *row), None),
    };
    Change { table: PersistTable::Subscriptions, key, value }
}

fn subscription_value(subscription: Subscription, owed: bool) -> Bytes {
    let mut out = BytesMut::new();
    out.put_u8(VERSION);
    let SubscriptionOptions { qos, no_local, retain_as_published, retain_handling } = subscription.options;
    let handling = match retain_handling {
        RetainHandling::Send => 0,
        RetainHandling::SendIfNew => 1,
        RetainHandling::DoNotSend => 2,
    };
    let options = qos.as_bits() | u8::from(no_local) << 2 | u8::from(retain_as_published) << 3 | handling << 4;
    out.put_u8(if owed { options | OWED } else { options });
    out.put_u32(subscription.identifier.unwrap_or(0));
    out.freeze()
}

/// Which session, what it listens to, and whether retained messages are still to be sent for it.
pub(super) fn decode_interest(key: &Bytes, value: Bytes) -> Result<(SubscriberId, Interest, bool), RecordError> {
    let mut name = Fields(key.clone());
    let session = SubscriberId(name.u64()?);
    let mut fields = Fields::begin(value)?;
    if let Some((0, row)) = name.0.split_first() {
        let row = match row {
            [1] => DownlinkRow::Commands,
            [2] => DownlinkRow::Prekeys,
            other => return Err(wrong("its row", format!("{other:02x?}"))),
        };
        let qos = qos(fields.u8()?)?;
        fields.finish()?;
        return Ok((session, Interest::Listens(row, qos), false));
    }
    let filter = std::str::from_utf8(&name.0).map_err(|error| wrong("its filter", error))?;
    shared::Interest::parse(filter).map_err(|_| wrong("its filter", filter))?;
    let options = fields.u8()?;
    let (owed, options) = (options & OWED != 0, options & !OWED);
    let identifier = Some(fields.u32()?).filter(|id| *id > 0);
    fields.finish()?;
    let retain_handling = match options >> 4 {
        0 => RetainHandling::Send,
        1 => RetainHandling::SendIfNew,
        2 => RetainHandling::DoNotSend,
        _ => return Err(wrong("its options", options)),
    };
    let options = SubscriptionOptions {
        qos: qos(options & 0b11)?,
        no_local: options & 0b100 != 0,
        retain_as_published: options & 0b1000 != 0,
        retain_handling,
    };
    Ok((session, Interest::Begun(filter.into(), Subscription { options, identifier }), owed))
}
