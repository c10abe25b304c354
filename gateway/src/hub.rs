//! Where what is committed meets those who watch.
//!
//! One lock over the dispatcher's place, the subscriptions and the presence, taken before any
//! client's own. A stream joins under it, so the dispatcher's place and "frames from now on" are
//! the same instant.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use unhidra_core::command::Command;
use unhidra_core::ids::{CommandId, DeviceId, Offset, Partition};
use unhidra_core::message::Reading;
use unhidra_core::setting::Setting;

use crate::auth::TokenName;
use crate::client::From;
use crate::cursor::{Cursors, Position};
use crate::error::{Close, CursorError};
use crate::frame::{self, Audience, Reply, RequestId};
use crate::metrics::Metrics;
use crate::outbox::{Bounds, Change, LiveFrame, Outbox, Pushed};
use crate::registered::Presence;
use crate::subscription::{ClientNumber, Subscriptions};
use crate::told::{CommandEntry, SettingEntry};

/// A client's outbox and the bell of its writer.
pub(crate) struct Mailbox {
    outbox: Mutex<Outbox>,
    bell: Notify,
}

impl Mailbox {
    /// Works on the outbox and rings.
    pub(crate) fn with<T>(&self, work: impl FnOnce(&mut Outbox) -> T) -> T {
        let done = work(&mut lock(&self.outbox));
        self.bell.notify_one();
        done
    }

    /// Works on the outbox for the writer itself, which needs no bell.
    pub(crate) fn quietly<T>(&self, work: impl FnOnce(&mut Outbox) -> T) -> T {
        work(&mut lock(&self.outbox))
    }

    /// Completes when something may wait.
    pub(crate) fn rung(&self) -> Notified<'_> {
        self.bell.notified()
    }
}

/// Every lock here guards values that are whole between any two statements that could panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// All clients, and what the dispatcher knows.
pub(crate) struct Hub {
    cursors: Cursors,
    presence_max: usize,
    metrics: Metrics,
    /// How often tokens were revoked. Changed under the lock.
    revocations: AtomicU64,
    state: Mutex<State>,
}

struct State {
    position: Position,
    clients: HashMap<ClientNumber, Arc<Mailbox>>,
    // By which token each came in, once it has shown one.
    tokens: HashMap<ClientNumber, TokenName>,
    watchers: Subscriptions<Arc<Mailbox>>,
    // Who has sent a command to a device and may hear of it without watching.
    senders: Subscriptions<Arc<Mailbox>>,
    presence: BTreeMap<DeviceId, Presence>,
    next: u64,
}

impl Hub {
    pub(crate) fn new(cursors: Cursors, position: Position, presence_max: usize, metrics: Metrics) -> Self {
        let state = State {
            position,
            clients: HashMap::new(),
            tokens: HashMap::new(),
            watchers: Subscriptions::new(),
            senders: Subscriptions::new(),
            presence: BTreeMap::new(),
            next: 0,
        };
        Self { cursors, presence_max, metrics, revocations: AtomicU64::new(0), state: Mutex::new(state) }
    }

    pub(crate) const fn cursors(&self) -> &Cursors {
        &self.cursors
    }

    /// The place the dispatcher has reached in a log.
    pub(crate) fn dispatched(&self, partition: Partition) -> Offset {
        lock(&self.state).position.at(partition)
    }

    pub(crate) fn connect(&self, bounds: Bounds) -> (ClientNumber, Arc<Mailbox>) {
        let mailbox = Arc::new(Mailbox { outbox: Mutex::new(Outbox::new(bounds)), bell: Notify::new() });
        let mut state = lock(&self.state);
        let number = ClientNumber(state.next);
        state.next += 1;
        state.clients.insert(number, mailbox.clone());
        self.metrics.clients.inc();
        (number, mailbox)
    }

    /// Forgets a client and all its subscriptions.
    pub(crate) fn disconnect(&self, client: ClientNumber) {
        let mut state = lock(&self.state);
        state.tokens.remove(&client);
        if state.clients.remove(&client).is_some() {
            self.metrics.clients.dec();
            let ended = state.watchers.remove_all(client);
            state.senders.remove_all(client);
            self.metrics.subscriptions.dec_by(i64::try_from(ended).unwrap_or(i64::MAX));
        }
    }

    /// How often tokens were revoked; asked before a client's token is looked at.
    pub(crate) fn revocations(&self) -> u64 {
        self.revocations.load(Ordering::Acquire)
    }

    /// A client has come in by a token of this name, looked at when so many revocations had been. One
    /// that came between may have been of its token: the client goes, and shows it again.
    pub(crate) fn entered(&self, client: ClientNumber, token: TokenName, revocations: u64) {
        let mut state = lock(&self.state);
        let Some(mailbox) = state.clients.get(&client).cloned() else { return };
        if self.revocations() == revocations {
            state.tokens.insert(client, token);
        } else {
            mailbox.with(|outbox| outbox.close(Close::TokenRefused));
        }
    }

    /// Ends the connections of those who came in by a token of this name. Says how many.
    pub(crate) fn end(&self, token: &TokenName) -> usize {
        let mut state = lock(&self.state);
        self.revocations.fetch_add(1, Ordering::AcqRel);
        let State { tokens, clients, .. } = &mut *state;
        let of: Vec<ClientNumber> = tokens.extract_if(|_, name| name == token).map(|(client, _)| client).collect();
        let ended: Vec<_> = of.iter().filter_map(|client| clients.get(client)).collect();
        ended.iter().for_each(|mailbox| mailbox.with(|outbox| outbox.close(Close::TokenRefused)));
        ended.len()
    }

    /// Ends every connection.
    pub(crate) fn close_all(&self, close: Close) {
        lock(&self.state).clients.values().for_each(|mailbox| mailbox.with(|outbox| outbox.close(close)));
    }

    /// How many clients there are.
    pub(crate) fn clients(&self) -> usize {
        lock(&self.state).clients.len()
    }

    /// Begins a subscription.
    ///
    /// # Errors
    ///
    /// [`CursorError::OtherEpoch`] where the place lies beyond the log's end: rows that were there
    /// are no more.
    pub(crate) fn subscribe(
        &self,
        client: ClientNumber,
        id: RequestId,
        audience: Audience,
        from: From,
        partitions: u16,
    ) -> Result<(), CursorError> {
        let mut state = lock(&self.state);
        let from = match from {
            From::Now => state.position.clone(),
            From::Beginning => Position::beginning(partitions),
            From::After(position) => position,
        };
        if from.beyond(&state.position).is_some() {
            return Err(CursorError::OtherEpoch);
        }
        let Some(mailbox) = state.clients.get(&client).cloned() else { return Ok(()) };
        let reply = Reply::Subscribed { id, device: audience, cursor: self.cursors.encode(&from) }.encode();
        mailbox.with(|outbox| outbox.open(audience, from, reply));
        state.watchers.insert(audience, client, mailbox);
        self.metrics.subscriptions.inc();
        Ok(())
    }

    pub(crate) fn unsubscribe(&self, client: ClientNumber, id: RequestId, audience: Audience) {
        let mut state = lock(&self.state);
        state.watchers.remove(&audience, client);
        self.metrics.subscriptions.dec();
        if let Some(mailbox) = state.clients.get(&client) {
            mailbox.with(|outbox| {
                outbox.end(&audience);
                outbox.reply(Reply::Unsubscribed { id, device: audience }.encode());
            });
        }
    }

    /// Registers a stream that is behind for live frames, at the dispatcher's place.
    pub(crate) fn join(&self, mailbox: &Mailbox, audience: &Audience) {
        let state = lock(&self.state);
        mailbox.quietly(|outbox| outbox.join(audience, &state.position));
    }

    /// Hands committed rows of one partition, in order, to all who watch. Each is encoded at most
    /// once, each frame once, whoever watches.
    pub(crate) fn dispatch(&self, partition: Partition, readings: &[Arc<Reading>]) {
        let Some(last) = readings.last() else { return };
        let mut state = lock(&self.state);
        let after = state.position.with(partition, last.offset);
        state.position = after.clone();
        let all = state.watchers.any(&Audience::All);
        let mut devices: BTreeMap<DeviceId, Vec<usize>> = BTreeMap::new();
        for (at, reading) in readings.iter().enumerate() {
            let device = reading.uplink.device;
            if state.watchers.any(&Audience::Device(device)) {
                devices.entry(device).or_default().push(at);
            }
        }
        if !all && devices.is_empty() {
            return;
        }
        let cursor = self.cursors.encode(&after);
        let texts: Vec<Bytes> = readings
            .iter()
            .map(|reading| match all || devices.contains_key(&reading.uplink.device) {
                true => self.encode(reading),
                false => Bytes::new(),
            })
            .collect();
        if all {
            self.deliver(&state, Audience::All, &cursor, &texts, &after);
        }
        for (device, rows) in devices {
            let texts: Vec<Bytes> = rows.iter().filter_map(|at| texts.get(*at).cloned()).collect();
            self.deliver(&state, Audience::Device(device), &cursor, &texts, &after);
        }
    }

    /// Moves on to `to` past rows that are gone: whoever is live goes back to the store, and is told
    /// there what is missing.
    pub(crate) fn skip(&self, partition: Partition, to: Offset) {
        let mut state = lock(&self.state);
        state.position = state.position.with(partition, to);
        state.clients.values().for_each(|mailbox| mailbox.with(Outbox::fall_behind));
    }

    fn encode(&self, reading: &Reading) -> Bytes {
        self.metrics.readings_encoded.inc();
        frame::encode_reading(reading)
    }

    fn deliver(&self, state: &State, audience: Audience, cursor: &str, texts: &[Bytes], after: &Position) {
        let text = frame::readings_frame(&audience, cursor, &[], texts);
        let frame = Arc::new(LiveFrame { text, after: after.clone(), readings: texts.len() });
        let readings = u64::try_from(frame.readings).unwrap_or(u64::MAX);
        for (_, mailbox) in state.watchers.of(&audience) {
            match mailbox.with(|outbox| outbox.push(&audience, &frame)) {
                Pushed::Queued => drop(self.metrics.readings_queued.inc_by(readings)),
                Pushed::FellBehind => drop(self.metrics.fell_behind.inc()),
                Pushed::NotLive => {}
            }
        }
    }

    /// Notes that a device came or went, and tells who watches.
    pub(crate) fn presence(&self, device: DeviceId, presence: Presence) {
        let mut state = lock(&self.state);
        if state.presence.len() >= self.presence_max && !state.presence.contains_key(&device) {
            let away = state.presence.iter().find(|(_, presence)| !presence.online).map(|(device, _)| *device);
            match away {
                Some(away) => drop(state.presence.remove(&away)),
                None => return,
            }
        }
        state.presence.insert(device, presence);
        for audience in [Audience::All, Audience::Device(device)] {
            for (_, mailbox) in state.watchers.of(&audience) {
                mailbox.with(|outbox| outbox.presence(device, presence));
            }
        }
    }

    /// Whether a device is here; `None` where it was not since the start.
    pub(crate) fn presence_of(&self, device: &DeviceId) -> Option<Presence> {
        lock(&self.state).presence.get(device).copied()
    }

    /// Notes that a client has a command on its way to the store.
    pub(crate) fn begin_command(&self, client: ClientNumber, device: DeviceId) {
        let mut state = lock(&self.state);
        if let Some(mailbox) = state.clients.get(&client).cloned() {
            mailbox.with(|outbox| outbox.begin_command(device));
            state.senders.insert(Audience::Device(device), client, mailbox);
        }
    }

    /// Answers it.
    pub(crate) fn end_command(&self, client: ClientNumber, device: DeviceId, reply: Bytes, taken: Option<CommandId>) {
        let mut state = lock(&self.state);
        let watching = state.watches(client, device);
        let Some(mailbox) = state.clients.get(&client).cloned() else { return };
        let gone = mailbox.with(|outbox| {
            let forgotten = outbox.end_command(reply, taken.map(|id| (id, device)), watching);
            [Some(device), forgotten].map(|device| device.filter(|device| !outbox.tracks(device)))
        });
        for device in gone.into_iter().flatten() {
            state.senders.remove(&Audience::Device(device), client);
        }
    }

    /// Tells who watches a command's device, and who sent it, what became of it.
    pub(crate) fn command_changed(&self, command: &Command) {
        let mut state = lock(&self.state);
        let device = command.device;
        let mut told: BTreeMap<ClientNumber, (Arc<Mailbox>, bool)> = BTreeMap::new();
        told.extend(state.senders.of(&Audience::Device(device)).map(|(c, mailbox)| (c, (mailbox.clone(), false))));
        for audience in [Audience::All, Audience::Device(device)] {
            told.extend(state.watchers.of(&audience).map(|(c, mailbox)| (c, (mailbox.clone(), true))));
        }
        if told.is_empty() {
            return;
        }
        let change = Change {
            command: command.id,
            device,
            last: command.is_final(),
            text: Reply::CommandChanged { command: CommandEntry::new(command) }.encode(),
        };
        for (client, (mailbox, watching)) in told {
            let tracks = mailbox.with(|outbox| {
                outbox.changed(change.clone(), watching);
                outbox.tracks(&device)
            });
            if !tracks {
                state.senders.remove(&Audience::Device(device), client);
            }
        }
    }
}

impl Hub {
    /// Tells who watches a device that a setting of it is wanted, or known to it.
    pub(crate) fn setting_changed(&self, setting: &Setting) {
        let state = lock(&self.state);
        let audiences = [Audience::All, Audience::Device(setting.device)];
        if !audiences.iter().any(|audience| state.watchers.any(audience)) {
            return;
        }
        let text = Reply::SettingChanged { setting: SettingEntry::new(setting, false) }.encode();
        let mut told: BTreeMap<ClientNumber, Arc<Mailbox>> = BTreeMap::new();
        for audience in &audiences {
            told.extend(state.watchers.of(audience).map(|(client, mailbox)| (client, mailbox.clone())));
        }
        told.values().for_each(|mailbox| mailbox.with(|outbox| outbox.reply(text.clone())));
    }
}

impl State {
    fn watches(&self, client: ClientNumber, device: DeviceId) -> bool {
        [Audience::All, Audience::Device(device)].iter().any(|audience| self.watchers.contains(audience, client))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbox::Next;
    use crate::testing::{device, reading};
    use unhidra_core::ids::Epoch;
    use unhidra_core::time::UnixTime;

    const BOUNDS: Bounds = Bounds { frames: 1000, bytes: 100_000_000 };

    fn hub() -> Hub {
        let cursors = Cursors::new(&[0; 32], Epoch::new(1), 1);
        Hub::new(cursors, Position::beginning(1), 2, Metrics::default())
    }

    /// A client whose stream is live.
    fn watch(hub: &Hub, audience: Audience) -> Arc<Mailbox> {
        let (number, mailbox) = hub.connect(BOUNDS);
        hub.subscribe(number, None, audience, From::Now, 1).expect("now is no cursor");
        hub.join(&mailbox, &audience);
        let round = mailbox.quietly(|outbox| outbox.take(BOUNDS));
        let Next::Replay(replay) = round.next else { panic!("{round:?}") };
        assert!(mailbox.quietly(|outbox| outbox.replayed(&replay, replay.until.clone())));
        mailbox.quietly(|outbox| outbox.take(BOUNDS));
        mailbox
    }

    fn waiting(mailbox: &Mailbox) -> Vec<Bytes> {
        mailbox.quietly(|outbox| outbox.take(BOUNDS)).frames
    }

    #[test]
    fn all_who_watch_are_given_the_same_bytes() {
        let hub = hub();
        let pump = Audience::Device(device("pump-7"));
        let watchers: Vec<_> = [Audience::All, Audience::All, pump, pump].map(|a| watch(&hub, a)).into();
        hub.dispatch(Partition::new(0), &[Arc::new(reading("pump-7", 1, 0, b"21.5"))]);
        let texts: Vec<Bytes> = watchers.iter().flat_map(|mailbox| waiting(mailbox)).collect();
        let [a, b, c, d] = texts.as_slice() else { panic!("{texts:?}") };
        assert!(std::ptr::eq(a.as_ptr(), b.as_ptr()) && std::ptr::eq(c.as_ptr(), d.as_ptr()));
        assert_eq!(hub.metrics.readings_encoded.get(), 1, "for both audiences");
    }

    /// What a batch costs beyond its frames is one entry in each outbox, whatever it holds.
    #[test]
    fn watchers_cost_no_copy_of_a_payload() {
        let body = vec![b'x'; 50_000];
        let cost = |watchers: usize| {
            let hub = hub();
            let watchers: Vec<_> = (0..watchers).map(|_| watch(&hub, Audience::All)).collect();
            let row = Arc::new(reading("pump-7", 1, 0, &body));
            let cost = allocation_counter::measure(|| hub.dispatch(Partition::new(0), &[row]));
            assert!(watchers.iter().all(|mailbox| waiting(mailbox).iter().all(|text| text.len() > body.len())));
            cost.bytes_total
        };
        let (one, hundred) = (cost(1), cost(100));
        assert!(one > 50_000, "it is encoded: {one}");
        let each = (hundred - one) / 99;
        assert!(each < 512, "{each} bytes for each further watcher");
    }

    #[test]
    fn nobody_watching_costs_no_encoding_and_moves_the_place() {
        let hub = hub();
        watch(&hub, Audience::Device(device("other")));
        hub.dispatch(Partition::new(0), &[Arc::new(reading("pump-7", 1, 0, b"21.5"))]);
        assert_eq!(hub.metrics.readings_encoded.get(), 0);
        assert_eq!(hub.dispatched(Partition::new(0)), Offset::new(1));
    }

    #[test]
    fn whoever_is_live_where_rows_are_gone_goes_back_to_the_store() {
        let hub = hub();
        let mailbox = watch(&hub, Audience::All);
        hub.dispatch(Partition::new(0), &[Arc::new(reading("pump-7", 1, 0, b"21.5"))]);
        hub.skip(Partition::new(0), Offset::new(9));
        assert_eq!(hub.dispatched(Partition::new(0)), Offset::new(9));
        let round = mailbox.quietly(|outbox| outbox.take(BOUNDS));
        assert!(round.frames.is_empty(), "what waited is read back too: {round:?}");
        assert!(matches!(round.next, Next::Join(Audience::All)), "{round:?}");
        hub.join(&mailbox, &Audience::All);
        let Next::Replay(replay) = mailbox.quietly(|outbox| outbox.take(BOUNDS)).next else { panic!("it reads") };
        assert_eq!(
            (replay.from.at(Partition::new(0)), replay.until.at(Partition::new(0))),
            (Offset::ZERO, Offset::new(9))
        );
    }

    #[test]
    fn presence_beyond_its_bound_forgets_a_device_that_is_away() {
        let hub = hub();
        let at = |online| Presence { online, since: UnixTime::EPOCH };
        hub.presence(device("a"), at(true));
        hub.presence(device("b"), at(false));
        hub.presence(device("c"), at(true));
        assert_eq!((hub.presence_of(&device("b")), hub.presence_of(&device("c"))), (None, Some(at(true))));
        hub.presence(device("d"), at(true));
        assert_eq!(hub.presence_of(&device("d")), None, "all others are here");
        hub.presence(device("a"), at(false));
        assert_eq!(hub.presence_of(&device("a")), Some(at(false)));
    }

    #[test]
    fn a_client_that_leaves_is_forgotten_everywhere() {
        let hub = hub();
        let (number, _) = hub.connect(BOUNDS);
        hub.subscribe(number, None, Audience::All, From::Now, 1).expect("now is no cursor");
        hub.begin_command(number, device("a"));
        hub.disconnect(number);
        hub.disconnect(number);
        assert_eq!((hub.metrics.clients.get(), hub.metrics.subscriptions.get(), hub.clients()), (0, 0, 0));
        let state = lock(&hub.state);
        assert!(!state.watchers.any(&Audience::All) && !state.senders.any(&Audience::Device(device("a"))));
    }
}
