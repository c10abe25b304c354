//! The loop of one connection: feed what arrived, drain what goes out, sleep until something is
//! ready.
//!
//! It reads only while it may go on: not while the node has no room for its events, not while a
//! subscriber it publishes to has no room, not while its own peer takes nothing.

use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::task::yield_now;
use tokio::time::{Instant, Sleep, sleep};
use unhidra_core::delivery::{Ack, AckToken, Acknowledge, Delivery};
use unhidra_core::ids::DeviceId;
use unhidra_core::message::Sealed;
use unhidra_core::time::{Clock, Timestamp};

use super::ending::Ending;
use super::hold::Hold;
use super::mailbox::{Mailbox, Order};
use super::wire::{Read, Wire};
use crate::Broker;
use crate::acl::Principal;
use crate::arrears::Arrears;
use crate::doors::{Accepted, BrokerEvent, Entrance, Identity, Outcome, Peer};
use crate::gate::Pass;
use crate::metrics::{DropCause, Tally};
use crate::packet::{Packet, Publish, ReasonCode, begins_connection, split_frame};
use crate::persist::{Keeper, Storing};
use crate::router::SubscriberId;
use crate::router::message::Filling;
use crate::router::queue::Queue;
use crate::routing::{Place, Sender};
use crate::session::table::SessionKey;
use crate::session::{Event, Request, Session, SessionError, Transmit};

/// How much a connection reads before the others have their turn.
const FAIR_BYTES: usize = 64 * 1024;

/// One connection.
pub(crate) struct Connection {
    pub(super) broker: Arc<Broker>,
    pub(super) mailbox: Arc<Mailbox>,
    pub(super) identity: Identity,
    pub(super) peer: Peer,
    pub(super) entrance: Arc<Entrance>,
    /// It is not to be served but told so, with this reason, once it has said CONNECT.
    pub(super) turned_away: Option<ReasonCode>,
    /// When its certificate ends.
    expires_at: Option<Timestamp>,
    /// Given back when the connection is gone.
    _pass: Option<Pass>,
    pub(super) wire: Wire,
    pub(super) session: Session,
    pub(super) client: Client,
    /// What goes inward with the next offer.
    pub(super) inward: Vec<BrokerEvent>,
    pub(super) hold: Hold,
    /// What the session writes as it moves on, where it is kept over a restart.
    pub(super) keeper: Option<Box<Keeper>>,
    /// Whether it reads nothing because what it has written is not taken.
    pub(super) held_by_store: bool,
    /// Made with the first subscription, and gone once nothing is owed.
    pub(super) arrears: Option<Box<Arrears>>,
    /// More of them is to be looked up as soon as others have had their turn.
    owes_more: bool,
    pub(super) course: Course,
    /// When what the client has shown ends.
    pub(super) until: Option<Timestamp>,
    pub(super) tally: Tally,
    /// Once its end is decided.
    pub(super) ending: Option<Box<Ending>>,
    /// When the turn of the loop began: one look at the clock serves all it does.
    pub(super) now: Timestamp,
    /// Bytes read since others had their turn.
    spent: usize,
}

/// Who is on the other side.
pub(super) enum Client {
    /// Nobody has come in yet.
    Unknown,
    /// Somebody has, with a session.
    Admitted { who: Arc<Principal>, key: SessionKey, subscriber: SubscriberId, queue: Arc<Queue> },
}

/// Where the connection is going.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Course {
    /// On.
    Serving,
    /// To its end, once all is answered.
    Draining { until: Timestamp },
    /// To its end, and nothing of its session stays.
    Revoked,
}

/// What a turn of waiting brought.
#[derive(Default)]
struct Turn {
    read: Option<io::Result<Read>>,
    written: Option<io::Result<usize>>,
    room: bool,
}

impl Connection {
    pub(crate) fn new(
        broker: Arc<Broker>,
        mailbox: Arc<Mailbox>,
        accepted: Accepted,
        turned_away: Option<ReasonCode>,
    ) -> Self {
        let Accepted { stream, identity, peer, entrance, pass } = accepted;
        let now = broker.clock().now();
        let session = Session::new(broker.rules().clone(), now);
        let expires_at = expiry(&identity, broker.clock());
        Self {
            broker,
            mailbox,
            identity,
            peer,
            entrance,
            turned_away,
            expires_at,
            _pass: pass,
            wire: Wire::new(stream),
            session,
            client: Client::Unknown,
            inward: Vec::new(),
            hold: Hold::default(),
            keeper: None,
            held_by_store: false,
            arrears: None,
            owes_more: false,
            course: Course::Serving,
            until: None,
            tally: Tally::default(),
            ending: None,
            now,
            spent: 0,
        }
    }

    /// Serves the peer to the end.
    ///
    /// An idle connection waits in `carry`, so that its future is kept small: what is needed once
    /// in a connection's life is boxed, and so is the connection, which a future would hold twice.
    pub(crate) async fn run(mut self: Box<Self>) {
        self.carry().await;
        Box::pin(self.finish()).await;
    }

    async fn carry(&mut self) {
        let (broker, mailbox) = (self.broker.clone(), self.mailbox.clone());
        let mut arrived = pin!(mailbox.arrived());
        let mut timer = pin!(sleep(Duration::ZERO));
        let mut armed = None;
        loop {
            let now = broker.clock().now();
            self.now = now;
            self.wire.wake();
            self.take_mail();
            self.check_time(now);
            self.hold.retry_subscribers(&mailbox, &broker, now);
            self.held_by_store = self.held_by_store && broker.is_behind(&mailbox);
            self.take_input(now).await;
            self.deliver_waiting(now);
            self.hold.offer(&mut self.inward, &broker);
            self.wire.rest();
            self.session.rest();
            if let Some(facts) = mailbox.facts() {
                facts.note(self.session.holdings());
            }
            broker.count(&mut self.tally);
            if self.session.is_ended() {
                return;
            }
            // Made anew each time round: what is held may be something else by now.
            let mut room = self.hold.room(&broker);
            if room.is_some() && self.hold.retry(&broker) {
                // It came while the future was made.
                continue;
            }
            let reads = self.may_read();
            self.session.reading(reads, now);
            self.arm(timer.as_mut(), &mut armed, now);
            let owes_more = std::mem::take(&mut self.owes_more);
            let wire = &mut self.wire;
            let turn = poll_fn(|cx| {
                let mut turn = Turn::default();
                let mut woken = owes_more;
                if wire.has_output()
                    && let Poll::Ready(written) = wire.poll_write(cx, now)
                {
                    turn.written = Some(written);
                }
                if reads && let Poll::Ready(read) = wire.poll_read(cx) {
                    turn.read = Some(read);
                }
                if arrived.as_mut().poll(cx).is_ready() {
                    arrived.set(mailbox.arrived());
                    woken = true;
                }
                if armed.is_some() && timer.as_mut().poll(cx).is_ready() {
                    armed = None;
                    woken = true;
                }
                if let Some(future) = &mut room
                    && future.as_mut().poll(cx).is_ready()
                {
                    room = None;
                    turn.room = true;
                }
                let ready = woken || turn.room || turn.read.is_some() || turn.written.is_some();
                if ready { Poll::Ready(turn) } else { Poll::Pending }
            })
            .await;
            self.take_turn(turn);
            if self.spent >= FAIR_BYTES || owes_more {
                // Whoever publishes at full speed must not keep its subscribers from their turn.
                self.spent = 0;
                yield_now().await;
            }
        }
    }

    fn take_turn(&mut self, turn: Turn) {
        match turn.written {
            Some(Ok(count)) => {
                self.broker.metrics().written_bytes.inc_by(count as u64);
            }
            Some(Err(error)) => self.lost(&error.to_string()),
            None => {}
        }
        match turn.read {
            Some(Ok(Read::Bytes(count))) => {
                self.spent += count;
                self.broker.metrics().read_bytes.inc_by(count as u64);
            }
            Some(Ok(Read::End)) => self.lost("the peer closed it"),
            Some(Err(error)) => self.lost(&error.to_string()),
            None => {}
        }
        if turn.room {
            self.hold.retry(&self.broker);
        }
    }

    fn lost(&mut self, cause: &str) {
        self.ends_lost(cause);
        self.wire.abandon();
        self.session.lose();
    }

    fn check_time(&mut self, now: Timestamp) {
        let slow = self.broker.limits().slow_client();
        if let Some(reason) = self.session.handle_timeout(now) {
            self.ends_with(reason, "it said nothing for too long");
        }
        if self.wire.stalled_since().is_some_and(|since| since.saturating_add(slow) <= now) {
            self.lost("it took nothing that was written to it for too long");
        }
        if self.until.is_some_and(|until| until <= now) {
            self.ends_with(ReasonCode::MaximumConnectTime, "what it came in with has ended");
            self.close(ReasonCode::MaximumConnectTime);
        }
        if self.expires_at.is_some_and(|at| at <= now) {
            // Unless the wall clock was set back meanwhile.
            self.expires_at = expiry(&self.identity, self.broker.clock());
            if self.expires_at.is_some_and(|at| at <= now) {
                self.expires_at = None;
                self.ends_with(ReasonCode::NotAuthorized, "its certificate has ended");
                self.close(ReasonCode::NotAuthorized);
            }
        }
        if let Course::Draining { until } = self.course
            && (until <= now || self.session.unanswered() == 0)
        {
            self.close(self.broker.farewell());
        }
    }

    fn close(&mut self, reason: ReasonCode) {
        if !self.session.is_ended() {
            self.session.close(reason);
            self.ends_with(reason, "the node ends it");
        }
    }

    /// When the loop must look at the time again.
    fn deadline(&self) -> Option<Timestamp> {
        let slow = self.broker.limits().slow_client();
        let stalled = self.wire.stalled_since().map(|since| since.saturating_add(slow));
        let held = self.hold.deadline();
        let drained = match self.course {
            Course::Draining { until } => Some(until),
            Course::Serving | Course::Revoked => None,
        };
        let ends = [self.until, self.expires_at];
        [self.session.poll_timeout(), stalled, held, drained].into_iter().chain(ends).flatten().min()
    }

    /// Sets the timer, unless it rings early enough: most deadlines only ever move on.
    fn arm(&self, timer: std::pin::Pin<&mut Sleep>, armed: &mut Option<Timestamp>, now: Timestamp) {
        let Some(deadline) = self.deadline() else { return };
        if armed.is_none_or(|at| at > deadline) {
            timer.reset(Instant::now() + deadline.saturating_since(now));
            *armed = Some(deadline);
        }
    }

    fn may_read(&self) -> bool {
        self.hold.is_empty()
            && !self.held_by_store
            && matches!(self.course, Course::Serving)
            && self.session.wants_packet()
            && self.wire.output.len() < self.broker.limits().output_bytes_max
    }

    // What others have for this connection.

    fn take_mail(&mut self) {
        let mail = self.mailbox.take();
        if let Some(number) = self.keeper.as_mut().and_then(|keeper| keeper.kept(mail.kept)) {
            self.session.kept(number);
        }
        for (token, answer) in mail.answers {
            self.session.answer(token, answer);
        }
        for downlink in mail.downlinks {
            self.session.send(downlink.row, downlink.payload, downlink.ticket);
        }
        self.take_events();
        if let Some(reason) = self.session.close_if_owed() {
            self.ends_with(reason, "a message of it was answered so");
        }
        if mail.review {
            self.session.review();
            self.take_events();
        }
        match mail.order {
            Some(Order::Drain { until }) if self.course == Course::Serving => {
                self.course = Course::Draining { until };
            }
            Some(Order::Close(reason)) => self.close(reason),
            Some(Order::Revoke(reason)) => {
                self.course = Course::Revoked;
                self.close(reason);
            }
            Some(Order::Drain { .. }) | None => {}
        }
    }

    fn deliver_waiting(&mut self, now: Timestamp) {
        self.transmit(now);
        let Client::Admitted { queue, .. } = &self.client else { return };
        let queue = queue.clone();
        while let Some(deliverable) = self.session.deliverable() {
            self.pay_arrears(now);
            let room = self.broker.limits().output_bytes_max.saturating_sub(self.wire.output.len());
            let taken = queue.take(deliverable, room, now);
            if taken.is_empty() {
                return;
            }
            for queued in taken {
                if queued.message.is_expired(now)
                    && let Some(session) = queue.keeper()
                {
                    self.broker.metrics().drop_message(DropCause::Expired);
                    self.broker.forget_queued(session, [queued]);
                    continue;
                }
                if !self.session.deliver(queued, now) {
                    self.broker.metrics().drop_message(DropCause::Expired);
                }
                self.take_events();
                self.transmit(now);
            }
        }
    }

    fn pay_arrears(&mut self, now: Timestamp) {
        if let (Some(arrears), Client::Admitted { who, subscriber, queue, .. }) = (&mut self.arrears, &self.client) {
            self.owes_more = self.broker.pay(arrears, Place { who, subscriber: *subscriber, queue }, now);
            if arrears.is_empty() {
                self.arrears = None;
            }
        }
    }

    /// Encodes what goes out, behind what already does.
    pub(super) fn transmit(&mut self, now: Timestamp) {
        let (version, len_max) = (self.session.version(), self.session.client_packet_max());
        while let Some(transmit) = self.session.poll_transmit() {
            match transmit {
                Transmit::Packet(mut packet) => {
                    let output = self.wire.output.own();
                    let start = output.len();
                    packet.encode(version, output);
                    self.tally.packets_sent += 1;
                    if let Packet::Publish(publish) = &packet {
                        self.tally.sent(publish.assurance.qos(), publish.payload.len());
                    }
                    if output.len() - start > len_max && packet.shorten() {
                        output.truncate(start);
                        packet.encode(version, output);
                    }
                    if output.len() - start > len_max {
                        // There is no way to tell it anything it takes [MQTT-3.1.2-24].
                        output.truncate(start);
                        self.lost("the client takes no packet as large as the answer to it");
                    }
                }
                Transmit::Routed { queued, packet_id, dup, alias } => {
                    let filling = Filling { version, packet_id, dup, alias, now };
                    if queued.encode(filling, len_max, &mut self.wire.output) {
                        self.tally.sent(queued.qos, queued.message.payload_len());
                        self.tally.packets_sent += 1;
                    } else {
                        self.broker.metrics().drop_message(DropCause::TooLarge);
                        self.session.not_sent(packet_id);
                    }
                }
            }
        }
    }

    // What the peer has sent.

    async fn take_input(&mut self, now: Timestamp) {
        while self.may_read() {
            let first = self.wire.input.first();
            if self.session.expects_connect() && first.is_some_and(|byte| !begins_connection(*byte)) {
                // Not even the rest of it is waited for.
                self.ends_refused(ReasonCode::ProtocolError, "NotMqtt");
                return self.session.close(ReasonCode::ProtocolError);
            }
            let packet_bytes_max = self.broker.limits().packet_bytes_max;
            let frame = match split_frame(&mut self.wire.input, packet_bytes_max) {
                Ok(Some(frame)) => frame,
                Ok(None) => return,
                Err(error) => return self.fail(&error.into()),
            };
            self.tally.packets_received += 1;
            let goodbye = frame.disconnect_reason();
            match (self.session.handle_frame(frame, now), goodbye) {
                (Err(error), _) => self.fail(&error),
                (Ok(()), Some(reason)) => self.ends_by_client(reason),
                (Ok(()), None) => {}
            }
            if let Some(request) = self.take_events() {
                Box::pin(self.decide(request)).await;
                self.take_events();
            }
            if let Some(reason) = self.session.close_if_owed() {
                self.ends_with(reason, "a message of it was answered so");
            }
            self.transmit(now);
        }
    }

    fn fail(&mut self, error: &SessionError) {
        self.ends_with(error.reason_code(), error.to_string());
        if !self.session.is_ended() {
            self.session.fail(error);
        }
    }

    /// Does what the session asks for, up to a CONNECT, which takes a decision.
    pub(super) fn take_events(&mut self) -> Option<Request> {
        while let Some(event) = self.session.poll_event() {
            match event {
                Event::Connect(request) => return Some(request),
                Event::Deliver { row, publish, token } => {
                    self.tally.received(publish.assurance.qos(), publish.payload.len());
                    self.deliver_inward(row, publish, token);
                }
                Event::Route { publish, token } => {
                    self.tally.routed += 1;
                    self.tally.received(publish.assurance.qos(), publish.payload.len());
                    self.route(&publish, token);
                }
                Event::Subscribe { filter, subscription, is_new } => {
                    if let Client::Admitted { who, subscriber, queue, .. } = &self.client {
                        let place = Place { who, subscriber: *subscriber, queue };
                        let arrears = self.arrears.get_or_insert_default();
                        self.broker.subscribe(&filter, place, subscription, is_new, arrears);
                    }
                }
                Event::Renew { filter, subscription } => {
                    if let Client::Admitted { who, subscriber, queue, .. } = &self.client {
                        let place = Place { who, subscriber: *subscriber, queue };
                        self.broker.place(filter.as_str(), place, subscription);
                    }
                }
                Event::Unsubscribe { filter } => {
                    if let Client::Admitted { subscriber, .. } = &self.client {
                        self.broker.unsubscribe(filter.as_str(), *subscriber);
                        if let Some(arrears) = &mut self.arrears {
                            arrears.forget(filter.as_str());
                        }
                    }
                }
                Event::Listen(row) => {
                    if let Some(device) = self.device() {
                        self.mailbox.listen(row, true);
                        self.inward.push(BrokerEvent::Listening { device, connection: self.mailbox.id(), row });
                    }
                }
                Event::Unlisten(row) => self.mailbox.listen(row, false),
                Event::Published { ticket, outcome } => {
                    if let Some(device) = self.device() {
                        if outcome == Outcome::TooLarge {
                            let max = self.session.client_packet_max();
                            tracing::warn!(%device, max, "a message is longer than its device takes; it did not leave");
                        }
                        self.mailbox.settled();
                        self.inward.push(BrokerEvent::Published { device, ticket, outcome });
                    }
                }
                Event::Answered { received_at, reason } => {
                    let took = self.now.saturating_since(received_at);
                    if !took.is_zero() {
                        self.broker.metrics().answer_seconds.observe(took.as_secs_f64());
                    }
                    match reason {
                        ReasonCode::Success => self.tally.accepted += 1,
                        other => self.broker.metrics().answer(other),
                    }
                }
                Event::Keep { number, change } => {
                    let known = match &mut self.keeper {
                        Some(keeper) => {
                            let known = keeper.step(number, change, self.arrears.as_deref());
                            self.held_by_store |= self.broker.is_behind(&self.mailbox);
                            known
                        }
                        None => Some(number),
                    };
                    known.into_iter().for_each(|number| self.session.kept(number));
                }
            }
        }
        None
    }

    fn deliver_inward(&mut self, row: unhidra_core::delivery::UplinkRow, publish: Publish, token: Option<AckToken>) {
        let Some(device) = self.device() else { return };
        let ack = match token {
            Some(token) => Ack::new(self.mailbox.clone() as Arc<dyn Acknowledge>, token),
            None => Ack::nobody(),
        };
        let received_at = self.broker.clock().unix_now();
        self.broker.show((&publish).into());
        let delivery = Delivery { device, row, sealed: Sealed(publish.payload), received_at, ack };
        self.broker.metrics().deliveries.inc();
        self.inward.push(BrokerEvent::Delivery(delivery));
    }

    fn route(&mut self, publish: &Publish, token: Option<AckToken>) {
        let Client::Admitted { subscriber, .. } = &self.client else { return };
        let mut held = Vec::new();
        let sender = Sender { subscriber: *subscriber, mailbox: &self.mailbox };
        let mut storing = Storing::new(&self.mailbox, token);
        if let Some(keeper) = &mut self.keeper {
            keeper.join(&mut storing);
        }
        let found = self.broker.route(publish.into(), Some(sender), &mut storing, &mut held);
        if let Some(number) = self.keeper.as_mut().and_then(|keeper| keeper.joined(&mut storing)) {
            self.session.kept(number);
        }
        self.held_by_store |= storing.is_written() && self.broker.is_behind(&self.mailbox);
        // What must be stored is answered then.
        if let Some(token) = storing.finish() {
            let reason = if found == 0 { ReasonCode::NoMatchingSubscribers } else { ReasonCode::Success };
            self.session.routed(token, reason);
        }
        self.hold.keep_for_subscribers(held);
    }

    pub(super) fn device(&self) -> Option<DeviceId> {
        match &self.client {
            Client::Admitted { who, .. } => who.device().copied(),
            Client::Unknown => None,
        }
    }
}

/// When the certificate of a peer ends: with the second that it names.
fn expiry(identity: &Identity, clock: &dyn Clock) -> Option<Timestamp> {
    let Identity::Device(certificate) = identity else { return None };
    let left = certificate.not_after.saturating_add(Duration::from_secs(1)).saturating_since(clock.unix_now());
    Some(clock.now().saturating_add(left))
}
