//! Two clients with sessions, and a node that dies at any moment with whatever its disk had by
//! then: QoS 1 arrives at least once, QoS 2 exactly once, both in order.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use proptest::prelude::*;
use unhidra_broker::packet::*;
use unhidra_broker::*;

use crate::disk::Disk;
use crate::world::*;

#[derive(Clone, Copy, Debug)]
enum Event {
    Publish(QoS),
    /// A client says and hears what it can.
    Talk(Who),
    /// So many writes get to the disk.
    Write(usize),
    Lose(Who),
    Crash,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Who {
    Publisher,
    Subscriber,
}

fn event() -> impl Strategy<Value = Event> {
    let who = || prop_oneof![Just(Who::Publisher), Just(Who::Subscriber)];
    prop_oneof![
        3 => prop_oneof![Just(QoS::AtLeastOnce), Just(QoS::ExactlyOnce)].prop_map(Event::Publish),
        4 => who().prop_map(Event::Talk),
        4 => (1..4_usize).prop_map(Event::Write),
        1 => who().prop_map(Event::Lose),
        1 => Just(Event::Crash),
    ]
}

/// A client that does as the standard says, whatever the node does.
struct Peer {
    name: &'static str,
    client: Option<Client>,
    next_id: u16,
    /// What it published and has not seen the end of; QoS 2 is released or not.
    outgoing: VecDeque<(Publish, bool)>,
    /// QoS 2 messages it has and was not sent PUBREL for.
    incoming: BTreeSet<PacketId>,
    got: Vec<(QoS, u32)>,
}

impl Peer {
    fn new(name: &'static str) -> Self {
        let (outgoing, incoming) = (VecDeque::new(), BTreeSet::new());
        Self { name, client: None, next_id: 1, outgoing, incoming, got: Vec::new() }
    }

    /// Connects, where it is not, and sends again what it must.
    async fn enter(&mut self, world: &World, disk: &Disk) -> &mut Client {
        if self.client.is_none() {
            disk.go_on();
            let mut client = world.client(Identity::Anonymous, Version::V5);
            let mut asked = Connect { clean_start: false, ..connect(Version::V5, self.name) };
            asked.properties.push(Property::SessionExpiryInterval(u32::MAX));
            client.connect(asked).await;
            for (publish, is_released) in &self.outgoing {
                let again = match publish.assurance {
                    Assurance::ExactlyOnce { packet_id, .. } if *is_released => answer(Packet::PubRel, packet_id),
                    Assurance::ExactlyOnce { packet_id, .. } => {
                        let assurance = Assurance::ExactlyOnce { packet_id, dup: true };
                        Packet::Publish(Publish { assurance, ..publish.clone() })
                    }
                    Assurance::AtLeastOnce { packet_id, .. } => {
                        let assurance = Assurance::AtLeastOnce { packet_id, dup: true };
                        Packet::Publish(Publish { assurance, ..publish.clone() })
                    }
                    Assurance::AtMostOnce => continue,
                };
                client.send(again).await;
            }
            disk.stand_still();
            self.client = Some(client);
        }
        self.client.as_mut().expect("a client")
    }

    async fn publish(&mut self, world: &World, disk: &Disk, qos: QoS, number: u32) {
        // Fewer at once than the node announced it takes.
        if self.outgoing.len() >= 4 {
            return;
        }
        let packet_id = packet_id(self.next_id);
        self.next_id = self.next_id % 60 + 1;
        let assurance = match qos {
            QoS::ExactlyOnce => Assurance::ExactlyOnce { packet_id, dup: false },
            _ => Assurance::AtLeastOnce { packet_id, dup: false },
        };
        let publish = Publish { assurance, ..publish("t", &number.to_string(), None) };
        self.enter(world, disk).await;
        self.outgoing.push_back((publish.clone(), false));
        self.enter(world, disk).await.send(Packet::Publish(publish)).await;
    }

    /// Hears all there is, and answers.
    async fn talk(&mut self, world: &World, disk: &Disk) {
        self.enter(world, disk).await.send(Packet::PingReq).await;
        loop {
            let packet = self.enter(world, disk).await.packet().await;
            let reply = match packet {
                Packet::PingResp => return,
                Packet::PubAck(ack) | Packet::PubComp(ack) => {
                    self.outgoing.retain(|(publish, _)| id_of(publish) != Some(ack.packet_id));
                    None
                }
                Packet::PubRec(ack) => {
                    let sent = self.outgoing.iter_mut().find(|(publish, _)| id_of(publish) == Some(ack.packet_id));
                    sent.into_iter().for_each(|(_, is_released)| *is_released = true);
                    Some(answer(Packet::PubRel, ack.packet_id))
                }
                Packet::PubRel(ack) => {
                    self.incoming.remove(&ack.packet_id);
                    Some(answer(Packet::PubComp, ack.packet_id))
                }
                Packet::Publish(publish) => self.hear(&publish),
                other => panic!("{other:?}"),
            };
            if let Some(reply) = reply {
                self.enter(world, disk).await.send(reply).await;
            }
        }
    }

    fn hear(&mut self, publish: &Publish) -> Option<Packet> {
        let number = std::str::from_utf8(&publish.payload).expect("a text").parse().expect("a number");
        match publish.assurance {
            Assurance::AtMostOnce => None,
            Assurance::AtLeastOnce { packet_id, .. } => {
                self.got.push((QoS::AtLeastOnce, number));
                Some(answer(Packet::PubAck, packet_id))
            }
            Assurance::ExactlyOnce { packet_id, .. } => {
                if self.incoming.insert(packet_id) {
                    self.got.push((QoS::ExactlyOnce, number));
                }
                Some(answer(Packet::PubRec, packet_id))
            }
        }
    }
}

fn id_of(publish: &Publish) -> Option<PacketId> {
    match publish.assurance {
        Assurance::AtMostOnce => None,
        Assurance::AtLeastOnce { packet_id, .. } | Assurance::ExactlyOnce { packet_id, .. } => Some(packet_id),
    }
}

fn answer(packet: fn(Acknowledgement) -> Packet, id: PacketId) -> Packet {
    packet(Acknowledgement { packet_id: id, reason: ReasonCode::Success, properties: Properties::default() })
}

async fn play(script: Vec<Event>) {
    let mut disk = Disk::new();
    let mut world = World::on(disk.clone()).await;
    let (mut publisher, mut subscriber) = (Peer::new("p"), Peer::new("s"));
    disk.go_on();
    subscriber.enter(&world, &disk).await;
    disk.go_on();
    subscriber.enter(&world, &disk).await.subscribe("t", QoS::ExactlyOnce).await;
    disk.stand_still();
    let mut published: Vec<(QoS, u32)> = Vec::new();
    for event in script {
        match event {
            Event::Publish(qos) => {
                let before = publisher.outgoing.len();
                let number = u32::try_from(published.len()).expect("few");
                publisher.publish(&world, &disk, qos, number).await;
                if publisher.outgoing.len() > before {
                    published.push((qos, number));
                }
            }
            Event::Talk(Who::Publisher) => publisher.talk(&world, &disk).await,
            Event::Talk(Who::Subscriber) => subscriber.talk(&world, &disk).await,
            Event::Write(count) => disk.step(count),
            Event::Lose(Who::Publisher) => publisher.client = None,
            Event::Lose(Who::Subscriber) => subscriber.client = None,
            Event::Crash => {
                disk = disk.after_crash();
                (publisher.client, subscriber.client) = (None, None);
                world = World::on(disk.clone() as Arc<dyn Persist>).await;
            }
        }
    }
    for _ in 0..200 {
        disk.go_on();
        publisher.talk(&world, &disk).await;
        disk.go_on();
        subscriber.talk(&world, &disk).await;
        if publisher.outgoing.is_empty() && disk.count(PersistTable::Queued) == 0 {
            break;
        }
    }
    subscriber.talk(&world, &disk).await;
    assert!(publisher.outgoing.is_empty(), "every message is answered");
    let of = |list: &[(QoS, u32)], wanted: QoS| -> Vec<u32> {
        list.iter().filter(|(qos, _)| *qos == wanted).map(|(_, number)| *number).collect()
    };
    assert_eq!(of(&subscriber.got, QoS::ExactlyOnce), of(&published, QoS::ExactlyOnce), "exactly once, in order");
    let mut first = of(&subscriber.got, QoS::AtLeastOnce);
    let mut seen = BTreeSet::new();
    first.retain(|number| seen.insert(*number));
    assert_eq!(first, of(&published, QoS::AtLeastOnce), "at least once, in order of the first time");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, max_shrink_iters: 400, ..ProptestConfig::default() })]
    #[test]
    fn no_crash_loses_or_doubles_a_message(script in proptest::collection::vec(event(), 1..50)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        runtime.expect("a runtime").block_on(play(script));
    }
}
