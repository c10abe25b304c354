//! Any interleaving of publishes, losses, takeovers, crashes and late answers: QoS 1 arrives at
//! least once, QoS 2 exactly once, each in order.
//!
//! ```text
//! publisher --link--> session --Route--> queue --deliver--> session --link--> subscriber
//!                        |                                     |
//!                        +---------- steps, to the log --------+
//! ```
//!
//! Both clients follow the standard to the letter. A cut forgets what is in flight; a crash forgets
//! all of the node but the steps that were committed. Where the node stores nothing there are cuts
//! and no crashes.

mod log;
mod publisher;
mod subscriber;

use std::collections::VecDeque;

use bytes::{Buf, BytesMut};
use proptest::prelude::*;

use super::*;
use crate::packet::split_frame;
use crate::router::message::Filling;
use log::{Log, Step};
use publisher::Publisher;
use subscriber::Subscriber;

/// What happens next.
#[derive(Clone, Copy, Debug)]
enum Act {
    Publish(QoS),
    /// The oldest packet on a link arrives.
    ToNode(Who),
    FromNode(Who),
    /// The subscriber sends the oldest answer it owes.
    Answer,
    /// The node hands over what waits in the queue, as far as the client takes it.
    Deliver,
    /// The node answers a PUBLISH it has routed.
    Route(u8),
    /// So many steps are on the disk.
    Commit(u8),
    /// The stream is lost, with what is on it.
    Cut(Who),
    Connect(Who, Start),
    /// The node dies and comes back.
    Crash,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Who {
    Publisher,
    Subscriber,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Start {
    Clean,
    Resume,
}

/// One client's connection: what is on its way, and what the node makes of it.
#[derive(Debug)]
struct Link {
    to_node: VecDeque<Packet>,
    from_node: BytesMut,
    session: Session,
}

struct World {
    version: Version,
    rules: Arc<Rules>,
    publisher: Publisher,
    subscriber: Subscriber,
    links: [Option<Link>; 2],
    /// What the node remembers of sessions that no connection carries.
    away: [Option<Resumable>; 2],
    queue: VecDeque<Queued>,
    log: Log,
    /// Messages that were routed and are not answered yet.
    unanswered: Vec<(AckToken, usize)>,
}

impl Who {
    const fn index(self) -> usize {
        match self {
            Self::Publisher => 0,
            Self::Subscriber => 1,
        }
    }
}

impl World {
    fn new(version: Version, stores_sessions: bool) -> Self {
        let rules = Rules { stores_sessions, ..Arc::into_inner(rules()).expect("one") };
        Self {
            version,
            rules: Arc::new(rules),
            publisher: Publisher::new(version),
            subscriber: Subscriber::new(version),
            links: [None, None],
            away: [None, None],
            queue: VecDeque::new(),
            log: Log::default(),
            unanswered: Vec::new(),
        }
    }

    fn act(&mut self, act: Act) {
        match act {
            Act::Publish(qos) => self.publisher.publish(qos),
            Act::ToNode(who) => self.arrive(who),
            Act::FromNode(who) => self.hear(who),
            Act::Answer => self.subscriber.answer(),
            Act::Deliver => self.deliver(),
            Act::Route(which) => self.route(which),
            Act::Commit(count) => self.commit(usize::from(count)),
            Act::Cut(who) => self.cut(who),
            Act::Connect(who, start) => self.connect(who, start),
            Act::Crash if self.rules.stores_sessions => self.crash(),
            Act::Crash => {}
        }
        self.exchange();
    }

    /// The clients put on their links what they may.
    fn exchange(&mut self) {
        if let Some(link) = &mut self.links[0] {
            link.to_node.extend(self.publisher.send());
        }
        if let Some(link) = &mut self.links[1] {
            link.to_node.extend(self.subscriber.send());
        }
    }

    fn connect(&mut self, who: Who, start: Start) {
        // A connection there may be is taken over, without its client's knowledge.
        if let Some(link) = &mut self.links[who.index()] {
            link.session.close(ReasonCode::SessionTakenOver);
        }
        self.cut(who);
        let resumed = match start {
            Start::Resume => self.away[who.index()].take(),
            Start::Clean => {
                self.forget(who);
                None
            }
        };
        // CONNACK waits for whatever the connection before has left to be stored.
        self.commit(usize::MAX);
        let mut asked = connect(self.version);
        asked.clean_start = start == Start::Clean;
        if self.version == Version::V5 {
            asked.properties = [
                Property::SessionExpiryInterval(3600),
                Property::ReceiveMaximum(subscriber::RECEIVE_MAX),
                Property::TopicAliasMaximum(1),
            ]
            .into_iter()
            .collect();
        } else {
            asked.clean_start = false;
        }
        let mut session = Session::new(self.rules.clone(), Timestamp::ZERO);
        let asked = Packet::Connect(Box::new(asked));
        session.handle_packet(asked, Timestamp::ZERO).expect("a good CONNECT");
        assert!(matches!(session.poll_event(), Some(Event::Connect(_))));
        let is_present = resumed.is_some();
        session.admit(Arc::new(named(Admitted::Client(None))), resumed, None, Timestamp::ZERO);
        self.links[who.index()] = Some(Link { to_node: VecDeque::new(), from_node: BytesMut::new(), session });
        match who {
            Who::Publisher => self.publisher.connected(is_present),
            Who::Subscriber => self.subscriber.connected(is_present),
        }
        self.serve(who);
    }

    /// A session ends, on both sides.
    fn forget(&mut self, who: Who) {
        self.away[who.index()] = None;
        self.log.forget(who);
        if who == Who::Subscriber {
            self.queue.clear();
            self.publisher.nothing_more_is_promised();
        }
    }

    fn cut(&mut self, who: Who) {
        let Some(mut link) = self.links[who.index()].take() else { return };
        link.session.lose();
        self.away[who.index()] = link.session.finish().map(|remains| remains.resumable);
        match who {
            Who::Publisher => {
                self.unanswered.clear();
                self.publisher.lost();
            }
            Who::Subscriber => {
                // QoS 0 waits for nobody.
                self.queue.retain(|queued| queued.qos != QoS::AtMostOnce);
                self.subscriber.lost();
            }
        }
    }

    fn crash(&mut self) {
        self.cut(Who::Publisher);
        self.cut(Who::Subscriber);
        let had = [self.away[0].is_some(), self.away[1].is_some()];
        let (publisher, subscriber, queue) = self.log.recover();
        self.away = [had[0].then_some(publisher), had[1].then_some(subscriber)];
        self.queue = queue;
    }

    fn arrive(&mut self, who: Who) {
        let Some(link) = &mut self.links[who.index()] else { return };
        if !link.session.wants_packet() {
            return;
        }
        let Some(packet) = link.to_node.pop_front() else { return };
        let mut bytes = BytesMut::from(&packet.to_bytes(self.version)[..]);
        let frame = split_frame(&mut bytes, 10_000).expect("a frame").expect("whole");
        link.session.handle_frame(frame, Timestamp::ZERO).unwrap_or_else(|error| panic!("{error}: {packet:?}"));
        self.serve(who);
    }

    /// Does what a session asks for, and puts what it sends on its link.
    fn serve(&mut self, who: Who) {
        let Some(link) = &mut self.links[who.index()] else { return };
        let mut received = None;
        while let Some(event) = link.session.poll_event() {
            match event {
                // Stored with the message it is told before.
                Event::Keep { number, change: Change::Received(packet_id) } => received = Some((number, packet_id)),
                Event::Keep { number, change } => self.log.add(Step::of(who, change), Some((who, number))),
                Event::Route { publish, token } => {
                    let qos = publish.assurance.qos();
                    let message = Arc::new(Message::new((&publish).into(), Timestamp::ZERO));
                    let queued = Queued { message, ..queued(qos) };
                    let waits = self.links[1].is_some() || qos != QoS::AtMostOnce;
                    let step = Step::Routed { received: received.map(|(_, id)| id), queued: queued.clone() };
                    if waits {
                        self.queue.push_back(queued);
                    }
                    if let Some(token) = token {
                        self.log.add(step, received.take().map(|(number, _)| (who, number)));
                        self.unanswered.push((token, self.log.len()));
                    }
                    return self.serve(who);
                }
                Event::Answered { .. } => {}
                other => panic!("{other:?}"),
            }
        }
        if !self.rules.stores_sessions {
            self.log.commit(usize::MAX);
        }
        self.transmit(who);
    }

    fn transmit(&mut self, who: Who) {
        let Some(link) = &mut self.links[who.index()] else { return };
        while let Some(transmit) = link.session.poll_transmit() {
            match transmit {
                Transmit::Packet(packet) => packet.encode(self.version, &mut link.from_node),
                Transmit::Routed { queued, packet_id, dup, alias } => {
                    let filling = Filling { version: self.version, packet_id, dup, alias, now: Timestamp::ZERO };
                    assert!(queued.encode(filling, usize::MAX, &mut link.from_node));
                }
            }
        }
    }

    fn hear(&mut self, who: Who) {
        let Some(link) = &mut self.links[who.index()] else { return };
        let Some(frame) = split_frame(&mut link.from_node, 10_000).expect("a frame") else { return };
        let packet = Packet::decode(frame, self.version).expect("a packet");
        match who {
            Who::Publisher => self.publisher.handle(packet),
            Who::Subscriber => self.subscriber.handle(packet),
        }
    }

    fn deliver(&mut self) {
        let Some(link) = &mut self.links[1] else { return };
        while link.session.deliverable().is_some_and(|room| room > 0) {
            let Some(queued) = self.queue.pop_front() else { break };
            assert!(link.session.deliver(queued, Timestamp::ZERO));
        }
        self.serve(Who::Subscriber);
    }

    fn route(&mut self, which: u8) {
        let committed = self.log.committed();
        let ready: Vec<usize> = (0..self.unanswered.len()).filter(|at| self.unanswered[*at].1 <= committed).collect();
        let Some(at) = ready.get(usize::from(which) % ready.len().max(1)) else { return };
        let (token, _) = self.unanswered.remove(*at);
        if let Some(link) = &mut self.links[0] {
            link.session.routed(token, ReasonCode::Success);
        }
        self.serve(Who::Publisher);
    }

    fn commit(&mut self, count: usize) {
        for (who, number) in self.log.commit(count) {
            if let Some(link) = &mut self.links[who.index()] {
                link.session.kept(number);
            }
            self.serve(who);
        }
    }

    /// From here on nothing is lost, and everything there is to be done is done.
    fn ends_quiet(&mut self) {
        for who in [Who::Publisher, Who::Subscriber] {
            if self.links[who.index()].is_none() {
                self.connect(who, Start::Resume);
            }
        }
        for _ in 0..20_000 {
            let busy = self.is_busy();
            for act in [Act::Commit(255), Act::Route(0), Act::Deliver, Act::Answer] {
                self.act(act);
            }
            for who in [Who::Publisher, Who::Subscriber] {
                self.act(Act::ToNode(who));
                self.act(Act::FromNode(who));
            }
            if !busy && !self.is_busy() {
                return;
            }
        }
        panic!("it never comes to rest");
    }

    fn is_busy(&self) -> bool {
        let link =
            |link: &Option<Link>| link.as_ref().is_some_and(|l| !l.to_node.is_empty() || l.from_node.has_remaining());
        self.links.iter().any(link)
            || !self.queue.is_empty()
            || !self.unanswered.is_empty()
            || self.log.committed() < self.log.len()
            || self.publisher.is_busy()
            || self.subscriber.is_busy()
    }

    fn check(&self) {
        for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
            let mut delivered: Vec<u32> = self.subscriber.delivered(qos);
            let count = delivered.len();
            if qos == QoS::AtLeastOnce {
                // One that was routed to a session that has ended, and is sent again to the next, may
                // come behind those after it.
                delivered.retain(|number| *number >= self.publisher.promised_from());
                let mut seen = Vec::new();
                delivered.retain(|number| {
                    !seen.contains(number) && {
                        seen.push(*number);
                        true
                    }
                });
            }
            assert!(delivered.is_sorted(), "{qos:?} out of order: {delivered:?}");
            let before = delivered.len();
            delivered.dedup();
            assert_eq!(delivered.len(), before, "twice at {qos:?}, of {count}");
            if qos != QoS::AtMostOnce {
                for number in self.publisher.promised(qos) {
                    assert!(delivered.contains(&number), "{number} lost at {qos:?}: {delivered:?}");
                }
            }
        }
    }
}

fn act() -> impl Strategy<Value = Act> {
    let who = || prop_oneof![Just(Who::Publisher), Just(Who::Subscriber)];
    let qos = prop_oneof![1 => Just(QoS::AtMostOnce), 2 => Just(QoS::AtLeastOnce), 4 => Just(QoS::ExactlyOnce)];
    prop_oneof![
        12 => qos.prop_map(Act::Publish),
        24 => who().prop_map(Act::ToNode),
        20 => who().prop_map(Act::FromNode),
        10 => Just(Act::Answer),
        10 => Just(Act::Deliver),
        10 => (0_u8..4).prop_map(Act::Route),
        10 => (1_u8..5).prop_map(Act::Commit),
        2 => who().prop_map(Act::Cut),
        4 => who().prop_map(|who| Act::Connect(who, Start::Resume)),
        1 => who().prop_map(|who| Act::Connect(who, Start::Clean)),
        1 => Just(Act::Crash),
    ]
}

fn run(version: Version, stores_sessions: bool, acts: &[Act]) {
    let mut world = World::new(version, stores_sessions);
    world.connect(Who::Publisher, Start::Clean);
    world.connect(Who::Subscriber, Start::Clean);
    acts.iter().for_each(|act| world.act(*act));
    world.ends_quiet();
    world.check();
}

proptest! {
    #[test]
    fn qos_1_arrives_at_least_once_and_qos_2_exactly_once(
        is_new in any::<bool>(),
        stores_sessions in any::<bool>(),
        acts in proptest::collection::vec(act(), 0..300),
    ) {
        run(if is_new { Version::V5 } else { Version::V3_1_1 }, stores_sessions, &acts);
    }
}
