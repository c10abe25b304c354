//! One shard: takes events, lets the bridge think, hands drafts to the writer, and lets out what
//! became durable.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use rand_core::CryptoRng;
use tokio::sync::futures::OwnedNotified;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use unhidra_bridge::{
    Asked, Bridge, CommandRefused, Connection, Draft, Effect, Now, Outcome, Payload, Publish, SettingRefused, Ticket,
};
use unhidra_broker::{BrokerEvent, ConnectionId, NotPublished};
use unhidra_core::delivery::{Ack, Answer};
use unhidra_core::durable::Durable;
use unhidra_core::ids::{DeviceId, Partition};
use unhidra_core::message::{Reading, Uplink};
use unhidra_store::{Batch, CommitError, Committed, Health, LeftOut, ReadError, Unit};

use self::untold::Untold;
use super::load::{self, Found, load};
use super::newcomers::{Newcomers, delivery};
use super::orders::{CommandReply, Named, Order, SettingReply};
use super::{End, Event, Inbox, Rooms};
use crate::upstream::{NotTaken, UpstreamEvent};

mod held;
mod untold;

/// Events handled before their draft is handed over.
const EVENTS_PER_DRAFT: usize = 256;
/// Messages that begin sessions among them: a millisecond's worth, after which others have their turn.
const NEWCOMERS_PER_DRAFT: usize = 4;
/// Drafts on their way to the store. At the bound the shard takes no further events.
const DRAFTS_MAX: usize = 32;
/// Devices whose records are read at once. Further ones wait in the bridge.
const LOADS_MAX: usize = 64;

/// What the writer says of a draft.
struct Written {
    durable: Vec<Option<Durable>>,
    left_out: Vec<LeftOut>,
}

type Settled = Result<Written, CommitError>;

/// Who waits for an answer.
enum Reply {
    Command { reply: CommandReply, _named: Option<Named> },
    Setting(SettingReply),
}

/// What waits for one draft to become durable.
#[derive(Default)]
struct Waits {
    answers: Vec<(DeviceId, Ack, Answer)>,
    effects: Vec<Effect>,
}

enum State {
    Serving,
    /// A commit failed, or a draft was refused. What is in memory is void, and so is what was concluded
    /// from it; once all that was on its way has been answered and the store serves again, it is dropped
    /// and read anew.
    Recovering,
}

pub(super) struct Shard<R> {
    partition: Partition,
    inbox: Arc<Inbox<Event>>,
    newcomers: Newcomers,
    rooms: Arc<Rooms>,
    bridge: Bridge,
    rng: R,
    state: State,
    /// What waits for the drafts on their way, oldest first.
    in_flight: VecDeque<Waits>,
    /// How many drafts have been answered for.
    settled_drafts: u64,
    /// Devices the store has left out of a draft, and the last draft that was in the making then: what
    /// waits for them in any up to that one is void.
    left_out: HashMap<DeviceId, u64>,
    /// How many devices of the shard the metrics show as damaged.
    damaged: i64,
    /// The node ends while no rows are taken: what devices say is left, before it is opened.
    leaves_rows: bool,
    /// A batch the writer had no room for, and the signal that it may have now.
    blocked: Option<(Batch, std::pin::Pin<Box<OwnedNotified>>)>,
    settled: mpsc::Receiver<Settled>,
    settle: mpsc::Sender<Settled>,
    loads: JoinSet<load::Outcome>,
    /// Who waits for something to become durable. Bounded by the inbox and the drafts.
    replies: HashMap<Asked, Reply>,
    /// The newest of them.
    asked: u64,
    untold: Untold,
    /// Devices to be read anew as soon as nothing of theirs is on its way.
    changed: Vec<DeviceId>,
    /// Those of its own that were not made ready when the store went back, as of its start.
    unsettled: Vec<DeviceId>,
}

impl<R: CryptoRng> Shard<R> {
    pub(super) fn new(
        partition: Partition,
        inbox: Arc<Inbox<Event>>,
        rooms: Arc<Rooms>,
        bridge: Bridge,
        rng: R,
        unsettled: Vec<DeviceId>,
    ) -> Self {
        // Each draft on its way sends once, so this channel is never full.
        let (settle, settled) = mpsc::channel(DRAFTS_MAX);
        Self {
            partition,
            inbox,
            newcomers: Newcomers::default(),
            rooms,
            bridge,
            rng,
            state: State::Serving,
            in_flight: VecDeque::new(),
            settled_drafts: 0,
            left_out: HashMap::new(),
            damaged: 0,
            leaves_rows: false,
            blocked: None,
            settled,
            settle,
            loads: JoinSet::new(),
            replies: HashMap::new(),
            asked: 0,
            untold: Untold::default(),
            changed: Vec::new(),
            unsettled,
        }
    }

    /// Serves until `end` says so and nothing is on its way.
    pub(super) async fn run(mut self, mut end: watch::Receiver<End>) {
        let mut health = self.rooms.store.health();
        self.leave_out_unsettled();
        loop {
            let how_far = *end.borrow();
            self.leaves_rows = how_far != End::NotYet && matches!(*health.borrow(), Health::Full(_));
            self.take_events();
            self.start_loads();
            self.hand_over();
            if self.leave_held() {
                continue;
            }
            self.rooms.metrics.add(&self.bridge.take_stats());
            self.rooms.upstreams.count(&self.bridge.take_outside_stats());
            self.show_damaged();
            self.tell_presence();
            if how_far == End::Now && self.is_idle() {
                return;
            }
            let recovering = matches!(self.state, State::Recovering);
            if recovering && self.in_flight.is_empty() {
                if matches!(*health.borrow_and_update(), Health::Ready | Health::Full(_)) {
                    self.tell_untold().await;
                    self.recover();
                    continue;
                }
                if matches!(*health.borrow(), Health::Failed(_)) && how_far == End::Now {
                    return;
                }
            }
            let may_take = self.may_take();
            let (bridge, newcomers) = (&self.bridge, &self.newcomers);
            let is_open = |door| !bridge.is_full(door) && newcomers.room(door) > 0;
            let is_new = newcomers.any(|door| !bridge.is_full(door));
            let clock = self.rooms.clock.clone();
            let timeout = self.bridge.poll_timeout().filter(|_| may_take);
            let room = self.blocked.as_mut().map(|(_, room)| room.as_mut());
            tokio::select! {
                Some(settled) = self.settled.recv() => self.let_out(settled),
                Some(loaded) = self.loads.join_next() => self.loaded(loaded),
                () = self.inbox.arrived(is_open), if may_take => {}
                () = std::future::ready(()), if may_take && is_new => {}
                () = wait(room) => self.retry(),
                () = until(timeout, &*clock) => {
                    let now = self.now();
                    self.bridge.handle_timeout(now, &mut self.rng);
                }
                Ok(()) = health.changed(), if recovering || how_far != End::NotYet => {}
                Ok(()) = end.changed(), if how_far != End::Now => {}
            }
            // Events that keep coming would otherwise keep a single thread to this shard.
            tokio::task::yield_now().await;
        }
    }

    fn now(&self) -> Now {
        Now { timer: self.rooms.clock.now(), unix: self.rooms.clock.unix_now() }
    }

    fn may_take(&self) -> bool {
        matches!(self.state, State::Serving) && self.blocked.is_none() && self.in_flight.len() < DRAFTS_MAX
    }

    fn is_idle(&self) -> bool {
        self.in_flight.is_empty()
            && self.blocked.is_none()
            && self.loads.is_empty()
            && self.inbox.len() == 0
            && !self.newcomers.any(|_| true)
            && matches!(self.state, State::Serving)
    }

    fn take_events(&mut self) {
        if !self.may_take() {
            return;
        }
        let now = self.now();
        // Both bounds are each door's own: what comes by another goes on.
        let (bridge, newcomers) = (&self.bridge, &self.newcomers);
        let room = |door| if bridge.is_full(door) { 0 } else { newcomers.room(door) };
        for event in self.inbox.take(EVENTS_PER_DRAFT, room) {
            if let Some(event) = self.newcomers.divert(event) {
                self.event(event, now);
            }
        }
        for _ in 0..NEWCOMERS_PER_DRAFT {
            let Some(event) = self.newcomers.next(|door| !self.bridge.is_full(door)) else { break };
            self.event(event, now);
        }
        self.read_changed(now);
    }

    fn event(&mut self, event: Event, now: Now) {
        // Dropped unanswered: nobody would store it, and it comes again.
        if self.leaves_rows && delivery(&event).is_some() {
            return;
        }
        match event {
            Event::Broker(event) => self.broker_event(event, now),
            Event::Upstream(event) => self.upstream_event(event, now),
            Event::Order(order) => self.order(order, now),
            Event::Changed(device) => self.changed.push(device),
            Event::Look(device) => self.bridge.handle_look(device, now),
            Event::Prekeys(prekeys) => self.bridge.set_signed_prekeys(prekeys),
        }
    }

    fn order(&mut self, order: Order, now: Now) {
        self.asked += 1;
        let asked = Asked(self.asked);
        match order {
            Order::Send(command, reply, named) => {
                self.replies.insert(asked, Reply::Command { reply, _named: named });
                self.bridge.handle_command(asked, *command, now, &mut self.rng);
            }
            Order::Cancel(device, id, who, reply) => {
                self.replies.insert(asked, Reply::Command { reply, _named: None });
                self.bridge.handle_cancel(asked, device, id, who, now);
            }
            Order::Set(new, reply) => {
                self.replies.insert(asked, Reply::Setting(reply));
                self.bridge.handle_setting(asked, new, now, &mut self.rng);
            }
        }
    }

    fn broker_event(&mut self, event: BrokerEvent, now: Now) {
        match event {
            BrokerEvent::Delivery(delivery) => self.bridge.handle_delivery(delivery, now, &mut self.rng),
            BrokerEvent::Connected { device, connection } => {
                self.bridge.handle_connected(device, Connection::Local(connection.0));
            }
            BrokerEvent::Listening { device, connection, row } => {
                self.bridge.handle_listening(device, Connection::Local(connection.0), row, now, &mut self.rng);
            }
            BrokerEvent::Disconnected { device, connection } => {
                self.bridge.handle_disconnected(device, Connection::Local(connection.0), now, &mut self.rng);
            }
            BrokerEvent::Published { device, ticket, outcome } => {
                let outcome = match outcome {
                    unhidra_broker::Outcome::Delivered => Outcome::Delivered,
                    unhidra_broker::Outcome::Refused(_) | unhidra_broker::Outcome::TooLarge => Outcome::Refused,
                    unhidra_broker::Outcome::Lost => Outcome::Lost,
                };
                self.bridge.handle_published(device, Ticket(ticket.0), outcome, now, &mut self.rng);
            }
        }
    }

    fn upstream_event(&mut self, event: UpstreamEvent, now: Now) {
        match event {
            UpstreamEvent::Delivery(via, delivery) => {
                self.bridge.handle_outside(via, delivery, now, &mut self.rng);
            }
            UpstreamEvent::Published(device, ticket, outcome) => {
                self.bridge.handle_published(device, ticket, outcome, now, &mut self.rng);
            }
            UpstreamEvent::Reach(upstream, reach) => {
                self.bridge.handle_reach(upstream, reach, now, &mut self.rng);
            }
        }
    }

    fn show_damaged(&mut self) {
        let damaged = i64::try_from(self.bridge.damaged()).unwrap_or(i64::MAX);
        if damaged != self.damaged {
            self.rooms.metrics.devices_damaged.inc_by(damaged - self.damaged);
            self.damaged = damaged;
        }
    }

    /// Says which devices have come, and which have gone.
    fn tell_presence(&mut self) {
        let now = self.rooms.clock.unix_now();
        for (device, is_here) in self.bridge.take_presence() {
            self.rooms.gateway.presence(device, is_here, now);
        }
    }

    fn read_changed(&mut self, now: Now) {
        let (settled, waiting) = std::mem::take(&mut self.changed).into_iter().partition(|d| self.bridge.is_settled(d));
        self.changed = waiting;
        let settled: Vec<DeviceId> = settled;
        for device in settled {
            self.bridge.handle_changed(&device);
            if self.rooms.registry.get(&device).is_none_or(|device| !device.is_enrolled()) {
                // Its commands end, also where it is not in memory.
                self.bridge.handle_look(device, now);
            }
        }
    }

    fn start_loads(&mut self) {
        while self.loads.len() < LOADS_MAX
            && let Some(device) = self.bridge.poll_load()
        {
            let rooms = self.rooms.clone();
            self.loads.spawn(async move { load(&rooms, device).await });
        }
    }

    fn loaded(&mut self, loaded: Result<load::Outcome, tokio::task::JoinError>) {
        let now = self.now();
        match loaded {
            Ok((device, Ok(Found::Enrolled(loaded)))) => {
                self.bridge.handle_loaded(device, *loaded, now, &mut self.rng);
            }
            Ok((device, Ok(Found::Gone(commands)))) => self.bridge.handle_gone(device, commands, now),
            Ok((device, Err(load::Unread { error, is_its_own }))) => {
                tracing::error!(%device, %error, "a device's records could not be read");
                match error {
                    ReadError::Damaged { .. } => self.bridge.handle_damaged(device, now),
                    ReadError::Engine(_) if is_its_own => self.bridge.handle_unreadable(device, now),
                    ReadError::Engine(_) | ReadError::Unavailable => self.bridge.handle_load_failed(device),
                }
            }
            // Only an aborted one ends so: its shard has forgotten what it was for.
            Err(_) => {}
        }
    }

    fn hand_over(&mut self) {
        while matches!(self.state, State::Serving)
            && self.blocked.is_none()
            && self.in_flight.len() < DRAFTS_MAX
            && let Some(draft) = self.bridge.poll_draft()
        {
            let batch = self.batch(draft);
            self.submit(batch);
        }
    }

    /// A draft as the writer takes it. Rows leave from the writer's thread, in the order of commits;
    /// the rest is let out here: to wake hundreds of connections from a thread that is not the
    /// runtime's takes its lock for each.
    fn batch(&mut self, draft: Draft) -> Batch {
        let Draft { ops, rows, answers, effects, .. } = draft;
        self.in_flight.push_back(Waits { answers, effects });
        let (partition, gateway, settle) = (self.partition, self.rooms.gateway.clone(), self.settle.clone());
        let done = move |result: Result<Committed, CommitError>| {
            let settled = match result {
                Ok(Committed { readings, durable, left_out }) => {
                    let is_written = |uplink: &Uplink| !left_out.iter().any(|left| left.device == uplink.device);
                    let placed =
                        rows.into_iter().filter(is_written).zip(readings).map(|(uplink, at)| {
                            Arc::new(Reading { partition, offset: at.offset, prev: at.prev, uplink })
                        });
                    let placed: Vec<Arc<Reading>> = placed.collect();
                    if !placed.is_empty() {
                        gateway.committed(placed);
                    }
                    Ok(Written { durable, left_out })
                }
                Err(error) => Err(error),
            };
            // The shard is gone only where the whole node is.
            let _ = settle.try_send(settled);
        };
        Batch { partition, fence: self.rooms.store.fence(partition), ops, unit: Unit::Device, done: Box::new(done) }
    }

    fn submit(&mut self, batch: Batch) {
        // Registered before the attempt: a signal between the two would be missed.
        let mut room = Box::pin(self.rooms.store.room(self.partition).notified_owned());
        room.as_mut().enable();
        if let Err(full) = self.rooms.store.submit(batch) {
            self.blocked = Some((*full.0, room));
        }
    }

    fn retry(&mut self) {
        if let Some((batch, _)) = self.blocked.take() {
            self.submit(batch);
        }
    }

    fn let_out(&mut self, settled: Settled) {
        let waits = self.in_flight.pop_front().unwrap_or_default();
        match (settled, &self.state) {
            (Ok(Written { mut durable, left_out }), State::Serving) => {
                self.settled_drafts += 1;
                self.bridge.handle_committed();
                left_out.into_iter().for_each(|left| self.leave_out(left));
                for (device, ack, answer) in waits.answers {
                    // Dropped unanswered, as after a commit that failed.
                    if !self.is_void(&device) {
                        ack.answer(answer);
                    }
                }
                for effect in waits.effects {
                    match effect.device() {
                        Some(device) if self.is_void(device) => self.give_back(effect),
                        _ => self.release(effect, &mut durable),
                    }
                }
                self.left_out.retain(|_, last| *last > self.settled_drafts);
                self.read_changed(self.now());
            }
            // It is durable, and was concluded from one that is not: the repeat of a message that was in
            // that one would be acknowledged, and nobody has it.
            (Ok(_), State::Recovering) => self.void(waits),
            (Err(error), _) => {
                self.recover_after(&error);
                self.void(waits);
            }
        }
    }

    /// Nothing that waited for a draft is let out.
    fn void(&mut self, Waits { answers, effects }: Waits) {
        // Dropped unanswered: their devices send again.
        drop(answers);
        for effect in effects {
            self.untold.note(&effect);
            self.give_back(effect);
        }
    }

    fn recover_after(&mut self, error: &CommitError) {
        tracing::error!(partition = %self.partition, %error, "a commit failed; sessions are read again");
        self.state = State::Recovering;
        // A batch the writer never took: nobody will answer for it.
        if self.blocked.take().is_some() {
            let waits = self.in_flight.pop_back().unwrap_or_default();
            self.void(waits);
        }
    }

    /// Nothing of a device was written of a draft whose other devices were.
    fn leave_out(&mut self, LeftOut { device, cause }: LeftOut) {
        let in_making = self.settled_drafts + self.in_flight.len() as u64 + 1;
        if self.is_void(&device) {
            return;
        }
        self.left_out.insert(device, in_making);
        match cause {
            CommitError::Damaged { .. } => {
                tracing::error!(%device, %cause, "a device is not served; nothing of it is acknowledged");
                self.bridge.handle_left_out(device, self.now());
            }
            // Not the disk's doing: what is in memory of others may be wrong as well.
            cause => self.recover_after(&cause),
        }
    }

    /// Those that were not made ready count as damaged before anybody speaks to them.
    fn leave_out_unsettled(&mut self) {
        let now = self.now();
        let Rooms { unsettled, registry, .. } = &*self.rooms;
        let is_enrolled = |device: &DeviceId| registry.get(device).is_some_and(|device| device.is_enrolled());
        for device in self.unsettled.iter().filter(|device| unsettled.contains(device) && is_enrolled(device)) {
            self.bridge.handle_unserved(*device, now);
        }
    }

    /// Whether what waits for this device in the draft that was answered for last comes to nothing.
    fn is_void(&self, device: &DeviceId) -> bool {
        self.left_out.get(device).is_some_and(|last| self.settled_drafts <= *last)
    }

    fn release(&mut self, effect: Effect, durable: &mut [Option<Durable>]) {
        match effect {
            Effect::Publish(publish) => self.publish(publish, durable),
            Effect::CommandChanged(command) => self.rooms.gateway.command_changed(&command),
            Effect::SettingChanged(setting) => self.rooms.gateway.setting_changed(&setting),
            Effect::CommandAnswered(asked, answer) => {
                if let Some(Reply::Command { reply, .. }) = self.replies.remove(&asked) {
                    // The client may have gone meanwhile; the command stands.
                    let _ = reply.send(answer);
                }
            }
            Effect::SettingAnswered(asked, answer) => {
                if let Some(Reply::Setting(reply)) = self.replies.remove(&asked) {
                    let _ = reply.send(answer);
                }
            }
        }
    }

    fn publish(&mut self, publish: Publish, durable: &mut [Option<Durable>]) {
        let Publish { device, connection, row, ticket, payload } = publish;
        let bytes = match payload {
            Payload::Plain(bytes) => bytes,
            Payload::Sealed { write, pending } => match durable.get_mut(write).and_then(Option::take) {
                Some(durable) => pending.release(durable).freeze(),
                // A store that gave too few proofs: the message stays sealed in, and goes again.
                None => return self.unsent(device, ticket, Outcome::Refused),
            },
        };
        // Where the way is gone there may be another. Where it is full or nobody listens, the device has to come first.
        let sent = match connection {
            Connection::Local(connection) => {
                let ticket = unhidra_broker::Ticket(ticket.0);
                let sent = self.rooms.broker.publish(&device, ConnectionId(connection), row, bytes, ticket);
                sent.map_err(|why| why == NotPublished::NotConnected)
            }
            Connection::Outside(upstream) => {
                let sent = self.rooms.upstreams.publish(upstream, device, row, bytes, ticket);
                sent.map_err(|why| why == NotTaken::NotReached)
            }
        };
        match sent {
            Ok(()) => {}
            Err(true) => self.bridge.handle_unreached(device, ticket, connection, self.now(), &mut self.rng),
            Err(false) => self.unsent(device, ticket, Outcome::Refused),
        }
    }

    fn unsent(&mut self, device: DeviceId, ticket: Ticket, outcome: Outcome) {
        let now = self.now();
        self.bridge.handle_published(device, ticket, outcome, now, &mut self.rng);
    }

    fn give_back(&mut self, effect: Effect) {
        match effect {
            Effect::CommandAnswered(asked, _) | Effect::SettingAnswered(asked, _) => {
                if let Some(reply) = self.replies.remove(&asked) {
                    reply.give_up();
                }
            }
            Effect::CommandChanged(_) | Effect::SettingChanged(_) | Effect::Publish(_) => {}
        }
    }

    fn recover(&mut self) {
        self.loads = JoinSet::new();
        self.bridge.forget();
        self.left_out.clear();
        self.replies.drain().for_each(|(_, reply)| reply.give_up());
        self.state = State::Serving;
        self.leave_out_unsettled();
    }
}

impl Reply {
    /// Nobody knows whether it became durable: whoever asked may ask again.
    fn give_up(self) {
        match self {
            Self::Command { reply, .. } => drop(reply.send(Err(CommandRefused::Unavailable))),
            Self::Setting(reply) => drop(reply.send(Err(SettingRefused::Unavailable))),
        }
    }
}

async fn wait(room: Option<std::pin::Pin<&mut OwnedNotified>>) {
    match room {
        Some(room) => room.await,
        None => std::future::pending().await,
    }
}

async fn until(at: Option<unhidra_core::time::Timestamp>, clock: &(dyn unhidra_core::time::Clock + Send + Sync)) {
    match at {
        Some(at) => tokio::time::sleep(at.saturating_since(clock.now())).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
