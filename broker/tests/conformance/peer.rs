//! What a test of the standard says in a line.

use std::time::Duration;

use tokio::io::AsyncReadExt;
use unhidra_broker::Identity;

pub(crate) use crate::world::*;
pub(crate) use unhidra_broker::packet::*;

pub(crate) const LEVELS: [QoS; 3] = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce];

pub(crate) const VERSIONS: [Version; 2] = [Version::V3_1_1, Version::V5];

pub(crate) fn properties<const N: usize>(list: [Property; N]) -> Properties {
    list.into_iter().collect()
}

/// One user property.
pub(crate) fn user(name: &str, value: &str) -> Property {
    Property::UserProperty(text(name), text(value))
}

/// What a PUBLISH of a QoS has, under a packet identifier.
pub(crate) fn assured(qos: QoS, number: u16) -> Assurance {
    match qos {
        QoS::AtMostOnce => Assurance::AtMostOnce,
        QoS::AtLeastOnce => Assurance::AtLeastOnce { packet_id: packet_id(number), dup: false },
        QoS::ExactlyOnce => Assurance::ExactlyOnce { packet_id: packet_id(number), dup: false },
    }
}

pub(crate) fn message(topic: &str, payload: &str, qos: QoS, number: u16) -> Publish {
    Publish { assurance: assured(qos, number), ..publish(topic, payload, None) }
}

pub(crate) fn retained(topic: &str, payload: &str) -> Publish {
    Publish { retain: true, ..publish(topic, payload, None) }
}

/// The identifier and DUP of a message.
pub(crate) fn identity_of(publish: &Publish) -> (PacketId, bool) {
    match publish.assurance {
        Assurance::AtLeastOnce { packet_id, dup } | Assurance::ExactlyOnce { packet_id, dup } => (packet_id, dup),
        Assurance::AtMostOnce => panic!("QoS 0 has no identifier: {publish:?}"),
    }
}

/// A CONNECT whose session outlives its connection by `expiry_s`, or, in 3.1.1, as long as it may.
pub(crate) fn staying(version: Version, client_id: &str, expiry_s: u32) -> Connect {
    let properties = match version {
        Version::V3_1_1 => Properties::default(),
        Version::V5 => properties([Property::SessionExpiryInterval(expiry_s)]),
    };
    Connect { clean_start: false, properties, ..connect(version, client_id) }
}

pub(crate) fn will(topic: &str, payload: &str) -> Will {
    let payload = bytes::Bytes::copy_from_slice(payload.as_bytes());
    Will { topic: text(topic), payload, qos: QoS::AtMostOnce, retain: false, properties: Properties::default() }
}

/// A packet of bytes: its first byte and what follows its length.
pub(crate) fn frame(first: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    let mut left = body.len();
    loop {
        let digit = (left & 0x7F) as u8;
        left >>= 7;
        bytes.push(if left == 0 { digit } else { digit | 0x80 });
        if left == 0 {
            break;
        }
    }
    bytes.extend_from_slice(body);
    bytes
}

/// The CONNECT of these flags and this payload, keep alive 60 s.
pub(crate) fn raw_connect(version: Version, flags: u8, payload: &[u8]) -> Vec<u8> {
    let mut body = b"\x00\x04MQTT".to_vec();
    match version {
        Version::V3_1_1 => body.extend([4, flags, 0, 60]),
        Version::V5 => body.extend([5, flags, 0, 60, 0]),
    }
    body.extend_from_slice(payload);
    frame(0x10, &body)
}

/// Long enough for everything to come to rest, short of every timer.
pub(crate) async fn rest() {
    tokio::time::sleep(Duration::from_millis(500)).await;
}

impl World {
    pub(crate) fn stranger(&self, version: Version) -> Client {
        self.client(Identity::Anonymous, version)
    }

    /// A client that has come in with this CONNECT, and what it was told.
    pub(crate) async fn join(&self, connect: Connect) -> (Client, ConnAck) {
        let mut client = self.stranger(connect.version);
        let ack = client.connect(connect).await;
        (client, ack)
    }
}

impl Client {
    /// The connection is cut, and the broker has noticed.
    pub(crate) async fn lost(self) {
        drop(self);
        rest().await;
    }

    pub(crate) async fn leave(mut self) {
        self.send(Packet::Disconnect(Disconnect::new(ReasonCode::Success))).await;
        assert_eq!(self.hear().await, Heard::End);
        rest().await;
    }

    /// Publishes and sees the exchange of its QoS through.
    pub(crate) async fn tell(&mut self, publish: Publish) {
        self.send(Packet::Publish(publish.clone())).await;
        match publish.assurance {
            Assurance::AtMostOnce => {}
            Assurance::AtLeastOnce { packet_id, .. } => assert_eq!(self.acked().await.0, packet_id.get()),
            Assurance::ExactlyOnce { packet_id, .. } => {
                assert_eq!(self.recorded().await.0, packet_id.get());
                self.release(packet_id).await;
                assert_eq!(self.completed().await, (packet_id.get(), ReasonCode::Success));
            }
        }
    }

    /// A message is next; the exchange of its QoS is seen through.
    pub(crate) async fn told(&mut self) -> Publish {
        let publish = self.message().await;
        match publish.assurance {
            Assurance::AtMostOnce => {}
            Assurance::AtLeastOnce { packet_id, .. } => self.puback(packet_id, ReasonCode::Success).await,
            Assurance::ExactlyOnce { packet_id, .. } => {
                self.pubrec(packet_id, ReasonCode::Success).await;
                assert_eq!(self.released().await, packet_id.get());
                self.pubcomp(packet_id).await;
            }
        }
        publish
    }

    pub(crate) async fn pubrec(&mut self, packet_id: PacketId, reason: ReasonCode) {
        let properties = Properties::default();
        self.send(Packet::PubRec(Acknowledgement { packet_id, reason, properties })).await;
    }

    pub(crate) async fn pubcomp(&mut self, packet_id: PacketId) {
        let (reason, properties) = (ReasonCode::Success, Properties::default());
        self.send(Packet::PubComp(Acknowledgement { packet_id, reason, properties })).await;
    }

    pub(crate) async fn release(&mut self, packet_id: PacketId) {
        let (reason, properties) = (ReasonCode::Success, Properties::default());
        self.send(Packet::PubRel(Acknowledgement { packet_id, reason, properties })).await;
    }

    /// A PUBREC is next: its identifier and code.
    pub(crate) async fn recorded(&mut self) -> (u16, ReasonCode) {
        match self.packet().await {
            Packet::PubRec(ack) => (ack.packet_id.get(), ack.reason),
            other => panic!("{other:?}"),
        }
    }

    /// A PUBREL is next: its identifier.
    pub(crate) async fn released(&mut self) -> u16 {
        match self.packet().await {
            Packet::PubRel(ack) => ack.packet_id.get(),
            other => panic!("{other:?}"),
        }
    }

    /// A PUBCOMP is next: its identifier and code.
    pub(crate) async fn completed(&mut self) -> (u16, ReasonCode) {
        match self.packet().await {
            Packet::PubComp(ack) => (ack.packet_id.get(), ack.reason),
            other => panic!("{other:?}"),
        }
    }

    /// Asks for these filters in one SUBSCRIBE; the SUBACK.
    pub(crate) async fn subscribe_all(&mut self, number: u16, filters: &[(&str, QoS)]) -> SubAck {
        let of = |(filter, qos): &(&str, QoS)| SubscribeFilter {
            filter: text(filter),
            options: SubscriptionOptions::with_qos(*qos),
        };
        let (filters, properties) = (filters.iter().map(of).collect(), Properties::default());
        self.send(Packet::Subscribe(Subscribe { packet_id: packet_id(number), properties, filters })).await;
        match self.packet().await {
            Packet::SubAck(ack) => ack,
            other => panic!("{other:?}"),
        }
    }

    /// A subscription with an identifier.
    pub(crate) async fn subscribe_as(&mut self, filter: &str, qos: QoS, identifier: u32) {
        let properties = properties([Property::SubscriptionIdentifier(identifier)]);
        self.subscribe_with(filter, SubscriptionOptions::with_qos(qos), properties).await;
    }

    /// Gives these filters up in one UNSUBSCRIBE; the UNSUBACK.
    pub(crate) async fn unsubscribe(&mut self, number: u16, filters: &[&str]) -> UnsubAck {
        let filters = filters.iter().map(|filter| text(filter)).collect();
        let properties = Properties::default();
        self.send(Packet::Unsubscribe(Unsubscribe { packet_id: packet_id(number), properties, filters })).await;
        match self.packet().await {
            Packet::UnsubAck(ack) => ack,
            other => panic!("{other:?}"),
        }
    }

    /// The next bytes as they are. Only where no packet was read before.
    pub(crate) async fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.stream.read_exact(&mut bytes).await.expect("bytes");
        bytes
    }

    /// The CONNECT was refused: in 5.0 the reason may be told, in 3.1.1 what is malformed is closed
    /// without a word.
    pub(crate) async fn turned_away(&mut self, reason: ReasonCode, version: Version) {
        match self.hear().await {
            Heard::End => {}
            Heard::Packet(Packet::ConnAck(ack)) if version == Version::V5 => {
                assert_eq!((ack.reason, ack.session_present), (reason, false));
                assert_eq!(self.hear().await, Heard::End);
            }
            other => panic!("{other:?}"),
        }
    }
}
