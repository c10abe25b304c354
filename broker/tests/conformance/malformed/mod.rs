//! Malformed packets, generated from the grammar: thousands, each with the reason code the
//! standard names, and a good client beside them that notices nothing.

mod cases;
mod grammar;

use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::time::timeout;

use crate::peer::*;
use grammar::Verdict;

/// Bounds that thousands of clients in a row do not reach.
fn world() -> World {
    let mut config = config();
    config.limits.connections_max = 10_000;
    config.limits.queue_messages_max = 10_000;
    World::with(config)
}

/// One who goes on beside it all.
struct Bystander {
    subscriber: Client,
    publisher: Client,
    number: usize,
}

impl Bystander {
    async fn of(world: &World, version: Version) -> Self {
        let mut subscriber = world.plain("bystander", version).await;
        subscriber.subscribe("good/#", QoS::AtLeastOnce).await;
        Self { subscriber, publisher: world.plain("good", version).await, number: 0 }
    }

    async fn notices_nothing(&mut self) {
        self.number += 1;
        let number = self.number.to_string();
        self.publisher.tell(message("good/news", &number, QoS::AtLeastOnce, 1)).await;
        let heard = self.subscriber.told().await;
        assert_eq!((heard.topic, heard.payload.as_ref()), (text("good/news"), number.as_bytes()));
    }
}

/// How the broker took a packet.
#[derive(Debug, Eq, PartialEq)]
enum Taken {
    Served,
    Closed(Option<ReasonCode>),
    /// Neither, for so long that nothing more will come.
    Left,
}

async fn taken(client: &mut Client) -> Taken {
    loop {
        match client.hear().await {
            Heard::End => return Taken::Closed(None),
            Heard::Packet(Packet::PingResp) => return Taken::Served,
            Heard::Packet(Packet::Disconnect(told)) => {
                assert_eq!(client.hear().await, Heard::End);
                return Taken::Closed(Some(told.reason));
            }
            Heard::Packet(Packet::ConnAck(_)) => panic!("a second CONNACK"),
            Heard::Packet(_) => {}
        }
    }
}

/// The reason of the CONNACK that is next, in the form of either version, or the end.
async fn connack(client: &mut Client) -> Option<ReasonCode> {
    let mut head = [0; 2];
    client.stream.read_exact(&mut head).await.ok()?;
    let mut rest = vec![0; usize::from(head[1])];
    client.stream.read_exact(&mut rest).await.ok()?;
    let error = rest[1] != 0;
    assert!(head[0] == 0x20 && rest[0] <= u8::from(!error), "{head:02x?} {rest:02x?}");
    match rest.len() {
        2 => ReasonCode::from_v3_connect_return(rest[1]).ok(),
        _ => ReasonCode::from_byte(rest[1]).ok(),
    }
}

fn alias_max(ack: &ConnAck) -> u16 {
    let maximum = |property: &Property| match property {
        Property::TopicAliasMaximum(maximum) => Some(*maximum),
        _ => None,
    };
    ack.properties.find(maximum).unwrap_or(0)
}

fn is_as_judged(verdict: Verdict, taken: &Taken, version: Version) -> bool {
    match (verdict, taken) {
        (Verdict::Good, Taken::Served) | (Verdict::Leave, Taken::Closed(None)) => true,
        (Verdict::Wrong(_), Taken::Closed(None)) => version == Version::V3_1_1,
        (Verdict::Wrong(reasons), Taken::Closed(Some(told))) => version == Version::V5 && reasons.contains(told),
        _ => false,
    }
}

#[tokio::test(start_paused = true)]
async fn every_broken_packet_ends_its_connection_with_the_reason_the_standard_names() {
    let (mut counts, mut all) = ([0, 0, 0], Vec::new());
    for version in VERSIONS {
        let world = world();
        let mut bystander = Bystander::of(&world, version).await;
        let mut found = Vec::new();
        for (at, (first, body)) in cases::packets(version).into_iter().enumerate() {
            let (mut client, ack) = world.join(connect(version, "c")).await;
            let verdict = grammar::judge(version, first, &body, alias_max(&ack));
            client.write(&[frame(first, &body), vec![0xC0, 0]].concat()).await;
            let taken = timeout(Duration::from_secs(5), taken(&mut client)).await.unwrap_or(Taken::Left);
            counts[match verdict {
                Verdict::Good => 0,
                Verdict::Leave => 1,
                Verdict::Wrong(_) => 2,
            }] += 1;
            if !is_as_judged(verdict, &taken, version) {
                found.push(format!("{version:?} {first:02x} {body:02x?}: {taken:?}, wanted {verdict:?}"));
            }
            if at % 16 == 0 {
                bystander.notices_nothing().await;
            }
        }
        bystander.notices_nothing().await;
        all.extend(found);
    }
    assert!(all.is_empty(), "{} of them:\n{}", all.len(), all[..all.len().min(60)].join("\n"));
    println!(
        "{} packets: {} good, {} that leave, {} wrong",
        counts.iter().sum::<usize>(),
        counts[0],
        counts[1],
        counts[2]
    );
    assert!(counts[2] > 5_000, "{counts:?}");
}

#[tokio::test(start_paused = true)]
async fn every_broken_connect_is_turned_away_with_the_reason_the_standard_names() {
    let world = world();
    let mut bystander = Bystander::of(&world, Version::V5).await;
    let (mut found, mut counts) = (Vec::new(), [0, 0]);
    for (at, (first, body)) in cases::connects().into_iter().enumerate() {
        let verdict = grammar::judge_connect(first, &body);
        let mut client = world.stranger(Version::V5);
        client.write(&frame(first, &body)).await;
        let heard = connack(&mut client).await;
        let is_right = match (&verdict, heard) {
            (Verdict::Good, Some(reason)) => reason == ReasonCode::Success,
            (Verdict::Wrong(reasons), Some(reason)) => reasons.contains(&reason),
            // Who speaks 5.0 is told, and who speaks 3.1.1 where it has a name for it.
            (Verdict::Wrong(reasons), None) => {
                let speaks_5 = first == 0x10 && body.starts_with(b"\x00\x04MQTT\x05");
                !speaks_5
                    && reasons.iter().all(|reason| reason.as_v3_connect_return() == 5)
                    && !reasons.contains(&ReasonCode::NotAuthorized)
            }
            _ => false,
        };
        counts[usize::from(verdict != Verdict::Good)] += 1;
        if !is_right {
            found.push(format!("{first:02x} {body:02x?}: {heard:?}, wanted {verdict:?}"));
        } else if verdict != Verdict::Good && heard.is_some() {
            assert_eq!(client.hear().await, Heard::End);
        }
        if at % 16 == 0 {
            bystander.notices_nothing().await;
        }
    }
    assert!(found.is_empty(), "{} of them:\n{}", found.len(), found[..found.len().min(60)].join("\n"));
    println!("{} CONNECTs: {} good, {} wrong", counts[0] + counts[1], counts[0], counts[1]);
    assert!(counts[1] > 1_000, "{counts:?}");
}

#[tokio::test(start_paused = true)]
async fn a_remaining_length_that_is_none_ends_the_connection() {
    let world = world();
    for version in VERSIONS {
        let wrong: [(&[u8], ReasonCode); 4] = [
            (&[0x30, 0xFF, 0xFF, 0xFF, 0xFF], ReasonCode::MalformedPacket),
            (&[0x30, 0x80, 0x80, 0x80, 0x80, 0x00], ReasonCode::MalformedPacket),
            (&[0x30, 0xFF, 0xFF, 0xFF, 0x7F], ReasonCode::PacketTooLarge),
            (&[0x00, 0x00], ReasonCode::MalformedPacket),
        ];
        for (bytes, reason) in wrong {
            let mut client = world.plain("c", version).await;
            client.write(bytes).await;
            client.ended(reason).await;
        }
    }
}
