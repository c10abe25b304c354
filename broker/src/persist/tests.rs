use std::num::NonZeroU64;

use proptest::prelude::*;
use unhidra_core::delivery::DownlinkRow;
use unhidra_core::ids::{ClientId, DeviceId};
use unhidra_core::time::Timestamp;

use super::fields::RecordError;
use super::queued::{Body, Exchange};
use super::session::{SessionRecord, decode_interest, interest_change};
use super::*;
use crate::doors::{Owner, UserName};
use crate::packet::{PacketId, Properties, Property, RetainHandling, SubscriptionOptions, Text, Will};
use crate::router::Subscription;
use crate::router::message::Incoming;
use crate::session::Interest;
use crate::session::table::SessionKey;

fn queued(qos: QoS, payload: &[u8], expiry_s: Option<u32>) -> Queued {
    let user = Property::UserProperty(Text::from("k"), Text::from("v"));
    let expiry = expiry_s.map(Property::MessageExpiryInterval);
    let properties: Properties = expiry.into_iter().chain([user]).collect();
    let (topic, payload) = (&Text::from("a/b"), &Bytes::copy_from_slice(payload));
    let message =
        Message::new(Incoming { topic, payload, qos, retain: true, properties: &properties }, Timestamp::ZERO);
    let sequence = NonZeroU64::MIN;
    let identifiers = [1, 268_435_455].into();
    let kept = Some(Kept { sequence, shared: None });
    Queued { message: Arc::new(message), qos, retain: true, identifiers, group: None, kept }
}

fn session(owner: Owner, has_will: bool) -> SessionRecord {
    let properties = [Property::ContentType(Text::from("x"))].into_iter().collect();
    let (topic, payload) = (Text::from("w"), Bytes::from_static(b"gone"));
    let will = Will { topic, payload, qos: QoS::ExactlyOnce, retain: true, properties };
    SessionRecord {
        key: SessionKey::owned(owner, ClientId::parse("c").expect("an id")),
        expiry_s: 77,
        left_at: Some(UnixTime::from_ms(5)),
        will: has_will.then(|| (UnixTime::from_ms(9), will)),
    }
}

/// A record reads back as what it was, and no part of it does, nor it with more behind.
fn holds<T: PartialEq + std::fmt::Debug>(
    value: &Bytes,
    expected: Option<&T>,
    decode: impl Fn(Bytes) -> Result<T, RecordError>,
) {
    let whole = decode(value.clone()).expect("a record");
    expected.into_iter().for_each(|expected| assert_eq!(&whole, expected));
    for len in 0..value.len() {
        assert!(decode(value.slice(..len)).ok().as_ref() != Some(&whole), "cut to {len}");
    }
    let longer: Bytes = [&value[..], &[0]].concat().into();
    assert!(decode(longer).is_err(), "with a byte behind");
    let mut other = value.to_vec();
    other[0] = 2;
    assert_eq!(decode(other.into()), Err(RecordError::Version { found: 2 }));
}

#[test]
fn records_read_back_and_nothing_else_does() {
    let device = Owner::Device(DeviceId::parse("pump-7").expect("an id"));
    for owner in [Owner::Anybody, device, Owner::User(UserName::new("ada"))] {
        for has_will in [false, true] {
            let record = session(owner.clone(), has_will);
            holds(&record.encode(), Some(&record), SessionRecord::decode);
            let carried = SessionRecord { left_at: None, ..record };
            holds(&carried.encode(), Some(&carried), SessionRecord::decode);
        }
    }
    let message = queued(QoS::AtLeastOnce, b"hello", Some(10));
    let value = MessageRecord::encode(&message.message, UnixTime::from_ms(3), Some(10_000));
    holds(&value, None, MessageRecord::decode);
    let record = MessageRecord::decode(value).expect("a record");
    assert_eq!((record.left_ms, record.qos, record.publish.retain), (Some(10_000), QoS::AtLeastOnce, true));
    assert_eq!(
        record.left_at(UnixTime::EPOCH, TimeOfDay::Believed),
        Some(std::time::Duration::from_secs(10)),
        "a clock set back gives nothing"
    );
    holds(&QueuedRecord::whole(&message, UnixTime::from_ms(3), None), None, QueuedRecord::decode);
    let shared = QueuedRecord::shared(&message, 9);
    holds(&shared, None, QueuedRecord::decode);
    assert_eq!(QueuedRecord::decode(shared).map(|record| record.body), Ok(Body::Shared(9)));
    let (session, packet_id) = (SubscriberId(4), PacketId::FIRST);
    for exchange in [Exchange::Received, Exchange::Sent(6), Exchange::Releasing(7)] {
        let Change { key, value, .. } = exchange.put(session, packet_id);
        holds(&value.expect("a value"), Some(&(session, packet_id, exchange)), |value| Exchange::decode(&key, value));
    }
    let options = SubscriptionOptions {
        no_local: true,
        retain_as_published: true,
        retain_handling: RetainHandling::DoNotSend,
        qos: QoS::ExactlyOnce,
    };
    for interest in [
        Interest::Begun("a/+/#".into(), Subscription { options, identifier: Some(3) }),
        Interest::Begun("$share/g/a".into(), Subscription { options, identifier: None }),
        Interest::Listens(DownlinkRow::Prekeys, QoS::AtLeastOnce),
    ] {
        for owed in [false, matches!(interest, Interest::Begun(..))] {
            let Change { key, value, .. } = interest_change(session, &interest, owed);
            let read = (session, interest.clone(), owed);
            holds(&value.expect("a value"), Some(&read), |value| decode_interest(&key, value));
        }
    }
}

proptest! {
    #[test]
    fn no_bytes_make_a_record_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80), tag in 0..3_u8) {
        let value = Bytes::from([&[1, tag][..], &bytes].concat());
        let key = Bytes::from(bytes);
        let _ = SessionRecord::decode(value.clone());
        let _ = MessageRecord::decode(value.clone());
        let _ = QueuedRecord::decode(value.clone());
        let _ = Exchange::decode(&key, value.clone());
        let _ = decode_interest(&key, value);
    }
}
