//! The devices of one shard, and the draft they write together.

mod outside;
mod parked;
mod unread;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use indexmap::IndexMap;
use rand_core::CryptoRng;
use unhidra_core::command::Command;
use unhidra_core::delivery::{Ack, Answer, Delivery, DownlinkRow, Refusal, UplinkRow};
use unhidra_core::ids::{CommandId, DeviceId};
use unhidra_core::time::{Timestamp, UnixTime};
use unhidra_e2ee::identity::IdentitySecret;

use crate::commands::{Outcome, revoked};
use crate::config::Config;
use crate::door::{Door, Way};
use crate::draft::{Asked, Connection, Draft, Ticket};
use crate::link::Link;
use crate::peer::{Loaded, Peer};
use crate::prekeys::SignedPrekeys;
use crate::settings::NewSetting;
use crate::stats::Stats;
use crate::upstream::UpstreamId;

use self::parked::{Count, Parked, Unheard};
use self::unread::Unread;

/// How many seats are looked at for one to give up. An upper bound on the cost of a load.
const EVICTION_TRIES: usize = 64;

/// Both clocks at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// For timers.
    pub timer: Timestamp,
    /// For what is written down.
    pub unix: UnixTime,
}

/// What the peers of a shard share.
pub(crate) struct Common {
    pub(crate) config: Config,
    pub(crate) identity: Arc<IdentitySecret>,
    pub(crate) signed: Arc<SignedPrekeys>,
    pub(crate) draft: Draft,
    pub(crate) stats: Stats,
    /// What came through outside brokers, which `stats` has too.
    outside: BTreeMap<UpstreamId, Stats>,
    /// Where plaintext stands between `open` and its row, or before `seal`.
    pub(crate) scratch: zeroize::Zeroizing<Vec<u8>>,
    next_ticket: u64,
    /// The number of the draft in the making.
    pub(crate) draft_number: u64,
}

impl Common {
    pub(crate) fn ticket(&mut self) -> Ticket {
        self.next_ticket += 1;
        Ticket(self.next_ticket)
    }
}

/// A device's place in memory.
enum Seat {
    /// Its records are being read; what came for it waits, in order.
    Loading(Vec<Parked>),
    Ready(Box<Peer>),
    /// Its records are damaged, which reading them again at once does not mend.
    Damaged {
        until: Timestamp,
        /// What is on its way of it up to this draft may be written still: before, it is not read either.
        last_draft: u64,
    },
}

/// The state of one shard. See the crate's documentation.
pub struct Bridge {
    common: Common,
    seats: IndexMap<DeviceId, Seat>,
    /// Where among them the next look for one to give up begins.
    hand: usize,
    links: HashMap<DeviceId, Link>,
    loads: VecDeque<DeviceId>,
    /// Revoked devices whose commands have ended, and the draft that says so, until that is durable.
    going: BTreeMap<DeviceId, u64>,
    parked: Count,
    /// The newest draft known to be durable.
    committed: u64,
    timers: BTreeSet<(Timestamp, DeviceId)>,
    /// When to look whether a device is silent behind its outside broker. One entry a device; one
    /// that has spoken meanwhile is looked at again.
    silences: BTreeSet<(Timestamp, DeviceId)>,
    /// Devices that have come to be here, and that have gone, in this order, until they are asked for.
    presence: Vec<(DeviceId, bool)>,
    /// Which records have been unreadable since when, and which were damaged when they were read last.
    unread: Unread,
}

impl Bridge {
    /// An empty shard. `config.sessions_max` counts for this shard alone, and `config.parked_max`
    /// for each of its doors.
    #[must_use]
    pub fn new(config: Config, identity: Arc<IdentitySecret>, signed: Arc<SignedPrekeys>) -> Self {
        Self {
            common: Common {
                config,
                identity,
                signed,
                draft: Draft::default(),
                stats: Stats::default(),
                outside: BTreeMap::new(),
                scratch: zeroize::Zeroizing::new(Vec::new()),
                next_ticket: 0,
                draft_number: 1,
            },
            seats: IndexMap::new(),
            hand: 0,
            links: HashMap::new(),
            loads: VecDeque::new(),
            going: BTreeMap::new(),
            parked: Count::default(),
            committed: 0,
            timers: BTreeSet::new(),
            silences: BTreeSet::new(),
            presence: Vec::new(),
            unread: Unread::default(),
        }
    }

    /// Takes one message of a device. One that came behind another of its connection that nobody took is left:
    /// both come again, and opened now it would be stored before that one.
    pub fn handle_delivery(&mut self, delivery: Delivery, now: Now, rng: &mut impl CryptoRng) {
        if delivery.ack.is_given_up() {
            return;
        }
        let device = delivery.device;
        match self.seats.get_mut(&device) {
            Some(Seat::Ready(peer)) => {
                let link = self.links.get(&device);
                deliver(peer, delivery, Way { door: Door::Front, link }, &mut self.common, now, rng);
                peer.send_due(link, &mut self.common, now, rng);
                self.settle_timer(&device, now);
            }
            _ => self.park(device, Parked::Delivery(None, delivery), now),
        }
    }

    /// A connection of a device was admitted.
    pub fn handle_connected(&mut self, device: DeviceId, connection: Connection) {
        let link = self.links.entry(device).or_default();
        if !link.is_here() {
            self.presence.push((device, true));
        }
        link.connected(connection);
        // Commands may wait for it in the store, and it is about to speak.
        self.want(device);
    }

    /// A connection of a device listens on a row.
    pub fn handle_listening(
        &mut self,
        device: DeviceId,
        connection: Connection,
        row: DownlinkRow,
        now: Now,
        rng: &mut impl CryptoRng,
    ) {
        let Some(link) = self.links.get_mut(&device) else { return };
        link.listening(connection, row);
        if let Some(Seat::Ready(peer)) = self.seats.get_mut(&device) {
            peer.release();
            peer.settings.returned(now.unix);
            peer.send_due(Some(link), &mut self.common, now, rng);
        }
        self.settle_timer(&device, now);
    }

    /// A connection of a device ended. What had no PUBACK goes to the outside broker it was heard
    /// behind, if there is one.
    pub fn handle_disconnected(
        &mut self,
        device: DeviceId,
        connection: Connection,
        now: Now,
        rng: &mut impl CryptoRng,
    ) {
        let Some(link) = self.links.get_mut(&device) else { return };
        link.disconnected(connection);
        if link.is_connected() {
            return;
        }
        if !link.is_here() {
            self.links.remove(&device);
            self.presence.push((device, false));
        }
        if let Some(Seat::Ready(peer)) = self.seats.get_mut(&device) {
            peer.connection_ended();
            peer.send_due(self.links.get(&device), &mut self.common, now, rng);
        }
        self.settle_timer(&device, now);
    }

    /// The devices that have come to be here (`true`), by a connection or by being heard behind an
    /// outside broker, and those that have gone, since the last call and in this order.
    pub fn take_presence(&mut self) -> Vec<(DeviceId, bool)> {
        std::mem::take(&mut self.presence)
    }

    /// Takes the broker's word on a publish.
    pub fn handle_published(
        &mut self,
        device: DeviceId,
        ticket: Ticket,
        outcome: Outcome,
        now: Now,
        rng: &mut impl CryptoRng,
    ) {
        // A device that is no longer in memory has been read anew, and sends again what was sent.
        let Some(Seat::Ready(peer)) = self.seats.get_mut(&device) else { return };
        peer.published(ticket, outcome, &mut self.common, now);
        peer.send_due(self.links.get(&device), &mut self.common, now, rng);
        self.settle_timer(&device, now);
    }

    /// Takes a command for a device. The answer is an [`Effect`](crate::draft::Effect), once it is durable; so is each
    /// change from then on.
    ///
    /// One of an id that is open already is answered with that one, or refused. That none of the id
    /// has ended before is the caller's to see to: those are not in memory.
    pub fn handle_command(&mut self, asked: Asked, command: Command, now: Now, rng: &mut impl CryptoRng) {
        let device = command.device;
        match self.seats.get_mut(&device) {
            Some(Seat::Ready(peer)) => {
                peer.take_command(asked, command, self.links.get(&device), &mut self.common, now, rng);
                self.settle_timer(&device, now);
            }
            _ => self.park(device, Parked::Command(asked, command), now),
        }
    }

    /// Calls a command back for `who`. The answer is an [`Effect`](crate::draft::Effect).
    pub fn handle_cancel(&mut self, asked: Asked, device: DeviceId, id: CommandId, who: Arc<str>, now: Now) {
        match self.seats.get_mut(&device) {
            Some(Seat::Ready(peer)) => {
                peer.cancel_command(asked, &id, &who, &mut self.common, now);
                self.settle_timer(&device, now);
            }
            _ => self.park(device, Parked::Cancel(asked, id, who), now),
        }
    }

    /// Takes a setting of a device. The answer is an [`Effect`](crate::draft::Effect), once it is durable.
    pub fn handle_setting(&mut self, asked: Asked, new: NewSetting, now: Now, rng: &mut impl CryptoRng) {
        let device = new.device;
        match self.seats.get_mut(&device) {
            Some(Seat::Ready(peer)) => {
                peer.take_setting(asked, new, self.links.get(&device), &mut self.common, now, rng);
                self.settle_timer(&device, now);
            }
            _ => self.park(device, Parked::Setting(asked, new), now),
        }
    }

    /// Takes a device's records, as [`Bridge::poll_load`] asked for them.
    ///
    /// Where the registry does not hold the device any more, [`Bridge::handle_gone`] is the call;
    /// where the records are damaged, [`Bridge::handle_damaged`]; where the disk does not give them,
    /// [`Bridge::handle_unreadable`]; where it gives none at all, [`Bridge::handle_load_failed`].
    pub fn handle_loaded(&mut self, device: DeviceId, loaded: Loaded, now: Now, rng: &mut impl CryptoRng) {
        let Some(Seat::Loading(parked)) = self.seats.swap_remove(&device) else { return };
        self.parked.remove(&parked);
        self.unread.read(&device);
        if loaded.stored.stale {
            self.common.stats.stale += 1;
            tracing::error!(
                %device,
                "its sessions are older or newer than its rows, so the disk has damaged them; it is asked for a new one"
            );
        }
        match Peer::restore(loaded, &self.common, now) {
            Ok(peer) => {
                self.make_room();
                self.seats.insert(device, Seat::Ready(Box::new(peer)));
                for waiting in parked {
                    match waiting {
                        Parked::Delivery(None, delivery) => self.handle_delivery(delivery, now, rng),
                        Parked::Delivery(Some(via), delivery) => self.handle_outside(via, delivery, now, rng),
                        Parked::Command(asked, command) => self.handle_command(asked, command, now, rng),
                        Parked::Cancel(asked, id, who) => self.handle_cancel(asked, device, id, who, now),
                        Parked::Setting(asked, new) => self.handle_setting(asked, new, now, rng),
                    }
                }
                if let Some(Seat::Ready(peer)) = self.seats.get_mut(&device) {
                    peer.send_due(self.links.get(&device), &mut self.common, now, rng);
                }
                self.settle_timer(&device, now);
            }
            Err(error) => {
                tracing::error!(%device, %error, "a device's records cannot be used; its messages are not taken");
                self.leave_alone(device, parked, now);
            }
        }
    }

    /// The registry does not hold the device any more: what waits for it is refused, and its
    /// commands, those that are not final, end.
    pub fn handle_gone(&mut self, device: DeviceId, commands: Vec<Command>, now: Now) {
        let Some(Seat::Loading(parked)) = self.seats.swap_remove(&device) else { return };
        self.parked.remove(&parked);
        self.unread.read(&device);
        for command in revoked(commands, now.unix) {
            self.common.draft.push_command(command);
            self.going.insert(device, self.common.draft_number);
        }
        for waiting in parked {
            self.refuse(waiting, Answer::Refused(Refusal::NotAuthorized), Unheard::NoDevice);
        }
    }

    /// Reads a device's records again before its next message: it was enrolled anew or revoked.
    ///
    /// Only between drafts that are all durable, or what they hold would be read as it was before.
    pub fn handle_changed(&mut self, device: &DeviceId) {
        debug_assert!(self.is_settled(device) || matches!(self.seats.get(device), Some(Seat::Loading(_))));
        if !matches!(self.seats.get(device), Some(Seat::Loading(_))) {
            let has_commands = matches!(self.empty(device), Some(Seat::Ready(peer)) if !peer.commands.is_empty());
            // What was damaged of it may be another record now.
            if has_commands || self.unread.is_damaged(device) {
                self.want(*device);
            }
        }
        if self.links.contains_key(device) {
            self.want(*device);
        }
    }

    /// Ends what is over of a device although nothing came from it: its records are read where they are
    /// not in memory. Of one that is, the timers may be of a calendar that was set on since.
    pub fn handle_look(&mut self, device: DeviceId, now: Now) {
        match self.seats.get_mut(&device) {
            Some(Seat::Ready(peer)) => {
                peer.expire(&mut self.common, now);
                self.settle_timer(&device, now);
            }
            _ => self.want(device),
        }
    }

    /// Whether nothing of a device is on its way to the store.
    #[must_use]
    pub fn is_settled(&self, device: &DeviceId) -> bool {
        match self.seats.get(device) {
            Some(Seat::Ready(peer)) => peer.last_draft <= self.committed,
            Some(Seat::Loading(_)) => false,
            Some(Seat::Damaged { last_draft, .. }) => *last_draft <= self.committed,
            None => !self.is_going(device),
        }
    }

    /// Whether the end of a revoked device's commands is on its way to the store.
    fn is_going(&self, device: &DeviceId) -> bool {
        self.going.get(device).is_some_and(|draft| *draft > self.committed)
    }

    /// Moves the time on: ends what is over.
    pub fn handle_timeout(&mut self, now: Now, rng: &mut impl CryptoRng) {
        self.listen_for_silence(now, rng);
        // As many as are due now, and no more: a timer that were due again at once would hold up the
        // shard for ever.
        let due = self.timers.iter().take_while(|(at, _)| *at <= now.timer).count();
        for _ in 0..due {
            let Some((_, device)) = self.timers.pop_first() else { return };
            if let Some(Seat::Ready(peer)) = self.seats.get_mut(&device) {
                peer.timer = None;
                peer.expire(&mut self.common, now);
                peer.send_due(self.links.get(&device), &mut self.common, now, rng);
            }
            self.settle_timer(&device, now);
        }
    }

    /// Uses these signed prekeys from now on.
    pub fn set_signed_prekeys(&mut self, signed: Arc<SignedPrekeys>) {
        self.common.signed = signed;
    }

    /// The next device whose records are to be read.
    ///
    /// Not one whose commands are ending: they would be read as open.
    pub fn poll_load(&mut self) -> Option<DeviceId> {
        let at = self.loads.iter().position(|device| !self.is_going(device))?;
        self.loads.remove(at)
    }

    /// What has come together since the last draft. Drafts are committed in this order.
    pub fn poll_draft(&mut self) -> Option<Draft> {
        if self.common.draft.is_empty() {
            return None;
        }
        self.common.draft_number += 1;
        Some(std::mem::take(&mut self.common.draft))
    }

    /// When [`Bridge::handle_timeout`] is to be called next.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        self.timers.first().into_iter().chain(self.silences.first()).map(|(at, _)| *at).min()
    }

    /// The oldest draft not yet known to be durable is.
    pub fn handle_committed(&mut self) {
        self.committed += 1;
        self.going.retain(|_, draft| *draft > self.committed);
    }

    /// A commit failed: what is in memory may be ahead of the store, and is dropped. Where devices
    /// are is kept. Not to be called while a draft is on its way.
    pub fn forget(&mut self) {
        self.committed = self.common.draft_number;
        self.common.draft_number += 1;
        let draft = std::mem::take(&mut self.common.draft);
        drop(draft);
        self.timers.clear();
        self.loads.clear();
        self.parked = Count::default();
        let mut again: BTreeSet<DeviceId> = self.links.keys().copied().collect();
        again.extend(std::mem::take(&mut self.going).into_keys());
        for (device, seat) in self.seats.drain(..) {
            match seat {
                Seat::Loading(parked) => {
                    // Somebody wanted it, and a look that is lost may be the last one.
                    again.insert(device);
                    let refused = parked.into_iter().filter_map(|waiting| Unheard::Unavailable.tell(waiting));
                    self.common.draft.effects.extend(refused);
                }
                // Their commands have an end, also where the device does not come back.
                Seat::Ready(peer) if !peer.commands.is_empty() => drop(again.insert(device)),
                Seat::Ready(_) | Seat::Damaged { .. } => {}
            }
        }
        for device in again {
            self.want(device);
        }
    }

    /// Whether so much of what came by one door waits for records that nothing further should come in
    /// by it: by that outside broker, or by the front door and from clients. No door fills another's.
    #[must_use]
    pub fn is_full(&self, door: Option<UpstreamId>) -> bool {
        self.parked.at(door) >= self.common.config.parked_max
    }

    /// What was counted since the last call.
    pub fn take_stats(&mut self) -> Stats {
        std::mem::take(&mut self.common.stats)
    }

    /// How many devices are in memory.
    #[must_use]
    pub fn len(&self) -> usize {
        self.seats.len()
    }

    /// Whether no device is in memory.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.seats.is_empty()
    }

    fn want(&mut self, device: DeviceId) {
        match self.seats.get(&device) {
            Some(Seat::Ready(_) | Seat::Loading(_)) => return,
            Some(Seat::Damaged { last_draft, .. }) if *last_draft > self.committed => return,
            Some(Seat::Damaged { .. }) | None => {}
        }
        self.seats.insert(device, Seat::Loading(Vec::new()));
        self.loads.push_back(device);
    }

    fn park(&mut self, device: DeviceId, waiting: Parked, now: Now) {
        if !matches!(self.seats.get(&device), Some(Seat::Damaged { until, .. }) if now.timer < *until) {
            self.want(device);
        }
        match self.seats.get_mut(&device) {
            Some(Seat::Loading(parked)) => {
                self.parked.add(&waiting);
                parked.push(waiting);
            }
            _ => self.turn_away(waiting),
        }
    }

    fn refuse(&mut self, waiting: Parked, answer: Answer, why: Unheard) {
        match waiting {
            // Rests on no commit. Given with a draft's it would come behind what the device said next, and that
            // be stored before this.
            Parked::Delivery(_, delivery) if answer == Answer::Retry => delivery.ack.answer(answer),
            Parked::Delivery(_, delivery) => answer_in(&mut self.common, delivery.device, delivery.ack, answer),
            asked => self.common.draft.effects.extend(why.tell(asked)),
        }
    }

    /// Keeps the bound on devices in memory: those that are away, have nothing on their way and keep no
    /// message key whose day has to end go. If a look at a few finds none, the bound is passed rather than a
    /// device refused; the next look goes on from there, so that those who may not go hide nobody for good.
    fn make_room(&mut self) {
        for _ in 0..EVICTION_TRIES {
            if self.seats.len() < self.common.config.sessions_max {
                return;
            }
            match self.seats.get_index(self.hand) {
                Some((device, seat)) if self.may_go(device, seat) => {
                    // The last one comes to its place, and is looked at next.
                    let device = *device;
                    self.empty(&device);
                }
                Some(_) => self.hand += 1,
                None => self.hand = 0,
            }
        }
    }

    fn may_go(&self, device: &DeviceId, seat: &Seat) -> bool {
        match seat {
            Seat::Ready(peer) => {
                let is_settled = peer.last_draft <= self.committed && peer.commands.is_empty();
                is_settled && !peer.keeps_keys() && !self.links.get(device).is_some_and(Link::is_connected)
            }
            Seat::Loading(_) => false,
            Seat::Damaged { last_draft, .. } => *last_draft <= self.committed,
        }
    }

    /// Takes a device out of memory, and its timer with it.
    fn empty(&mut self, device: &DeviceId) -> Option<Seat> {
        let seat = self.seats.swap_remove(device);
        if let Some(Seat::Ready(peer)) = &seat
            && let Some(at) = peer.timer
        {
            self.timers.remove(&(at, *device));
        }
        seat
    }

    /// Has a device looked at when something of it is over. A timer that comes too early stays and is set
    /// anew when it comes: nearly every message moves it on by a little.
    fn settle_timer(&mut self, device: &DeviceId, now: Now) {
        let Some(Seat::Ready(peer)) = self.seats.get_mut(device) else { return };
        let wanted = peer.next_timeout(self.links.get(device), &self.common, now);
        if let (Some(old), Some(at)) = (peer.timer, wanted)
            && old <= at
        {
            return;
        }
        if let Some(old) = peer.timer {
            self.timers.remove(&(old, *device));
        }
        if let Some(at) = wanted {
            self.timers.insert((at, *device));
        }
        peer.timer = wanted;
    }
}

fn deliver(peer: &mut Peer, delivery: Delivery, way: Way<'_>, common: &mut Common, now: Now, rng: &mut impl CryptoRng) {
    let Delivery { device, row, sealed, received_at, ack } = delivery;
    let answer: Answer = match row {
        UplinkRow::Messages => peer.open(&sealed.0, received_at, way, common, now, rng),
        UplinkRow::PrekeysGet => peer.give_bundle(&sealed.0, way, common, now, rng),
    };
    peer.touch(common);
    answer_in(common, device, ack, answer);
}

/// Every answer but [`Answer::Retry`] rides in a draft: what it says may rest on a commit that is still on its way.
fn answer_in(common: &mut Common, device: DeviceId, ack: Ack, answer: Answer) {
    common.draft.answers.push((device, ack, answer));
}
