//! A message as it lies.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use unhidra_core::time::UnixTime;
use unhidra_core::topic::TopicName;

use super::TimeOfDay;
use super::fields::{Fields, RecordError, VERSION, flags, wrong};
use crate::packet::{Publish, QoS};
use crate::router::message::Message;

/// In place of what a message has left, where it does not expire.
const FOREVER: u64 = u64::MAX;

/// A message as it lies.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct MessageRecord {
    pub(crate) publish: Publish,
    pub(crate) qos: QoS,
    pub(crate) stored_at: UnixTime,
    /// How long it had then; `None` where it does not expire.
    pub(crate) left_ms: Option<u64>,
}

impl MessageRecord {
    pub(crate) fn encode(message: &Message, stored_at: UnixTime, left_ms: Option<u64>) -> Bytes {
        let mut out = BytesMut::new();
        out.put_u8(VERSION);
        Self::put(message, stored_at, left_ms, &mut out);
        out.freeze()
    }

    pub(super) fn put(message: &Message, stored_at: UnixTime, left_ms: Option<u64>, out: &mut BytesMut) {
        out.put_u8(flags(message.qos(), message.retain()));
        out.put_u64(stored_at.as_ms());
        out.put_u64(left_ms.unwrap_or(FOREVER));
        message.put_publish(out);
    }

    pub(crate) fn decode(value: Bytes) -> Result<Self, RecordError> {
        let mut fields = Fields::begin(value)?;
        let record = Self::take(&mut fields)?;
        fields.finish()?;
        Ok(record)
    }

    pub(super) fn take(fields: &mut Fields) -> Result<Self, RecordError> {
        let (qos, retain) = fields.flags()?;
        let stored_at = UnixTime::from_ms(fields.u64()?);
        let left_ms = Some(fields.u64()?).filter(|ms| *ms != FOREVER);
        let publish = Publish { retain, ..fields.publish()? };
        TopicName::parse(publish.topic.as_str()).map_err(|error| wrong("its topic", error))?;
        Ok(Self { publish, qos, stored_at, left_ms })
    }

    /// What it has left now. A clock that was set back gives it no more than it had.
    pub(crate) fn left_at(&self, now: UnixTime, time: TimeOfDay) -> Option<Duration> {
        let passed = time.lain_for(now.saturating_since(self.stored_at));
        self.left_ms.map(|ms| Duration::from_millis(ms).saturating_sub(passed))
    }
}
