//! The bridge, and what the store would keep of its drafts.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use rand::SeedableRng;
use rand::rngs::StdRng;
use unhidra_bridge::upstream::{Reach, UpstreamId, Via};
use unhidra_bridge::{
    Asked, Bridge, CommandRefused, Config, Connection, Draft, Effect, IdentitySecret, Loaded, NewSetting, Now, Outcome,
    Payload, SettingRefused, SignedPrekeys, Ticket, put_back, put_back_told,
};
use unhidra_core::command::{Command, CommandState, Life};
use unhidra_core::delivery::{Ack, AckToken, Acknowledge, Answer, Delivery, DownlinkRow, UplinkRow};
use unhidra_core::device::{Device as Enrolled, Fingerprint, Standing};
use unhidra_core::durable::DurableSource;
use unhidra_core::ids::{CommandId, DeviceId, DeviceNumber, Offset, Version};
use unhidra_core::message::{Sealed, Uplink, UplinkKind};
use unhidra_core::setting::{Setting, SettingName};
use unhidra_core::suite::Suite;
use unhidra_core::time::{Timestamp, UnixTime};
use unhidra_store::{Lane, MessageTag, Op, PrekeyChange, PrekeyRecord, Slot, Stored, StoredSession};

use crate::device::Device;

pub(crate) const HERE: Connection = Connection::Local(1);

#[derive(Default)]
struct Answers(Mutex<Vec<Answer>>);

impl Acknowledge for Answers {
    fn acknowledge(&self, _: AckToken, answer: Answer) {
        self.0.lock().expect("not poisoned").push(answer);
    }

    fn is_given_up(&self, _: AckToken) -> bool {
        false
    }
}

/// What survives, of one device.
#[derive(Clone, Default)]
pub(crate) struct Kept {
    pub(crate) stored: Stored,
    pub(crate) prekeys: Vec<PrekeyRecord>,
    pub(crate) rows: Vec<(MessageTag, Uplink)>,
    pub(crate) commands: BTreeMap<CommandId, Command>,
    pub(crate) settings: BTreeMap<SettingName, Setting>,
}

impl Kept {
    /// The reading ids of the rows, of which the first has the Offset 1.
    pub(crate) fn reading_ids(&self) -> Vec<(Offset, u64)> {
        let rows = (1..).zip(&self.rows);
        rows.filter_map(|(at, (_, row))| row.reading_id.map(|id| (Offset::new(at), id))).collect()
    }
}

pub(crate) struct World {
    pub(crate) bridge: Bridge,
    pub(crate) kept: Kept,
    /// Whether what is kept reads back damaged.
    pub(crate) damaged: bool,
    /// Whether the disk gives nothing of it just now; of others it does, or it does not.
    pub(crate) unreadable: Option<bool>,
    /// How often it was read.
    pub(crate) loads: usize,
    pub(crate) enrolled: Arc<Enrolled>,
    identity: Arc<IdentitySecret>,
    signed: Arc<SignedPrekeys>,
    pub(crate) now: Now,
    pub(crate) rng: StdRng,
    /// What was published to the device, and not yet taken.
    pub(crate) published: Vec<(DownlinkRow, Ticket, Bytes)>,
    /// By which way each of all messages left.
    pub(crate) ways: Vec<Connection>,
    pub(crate) changed: Vec<(CommandId, CommandState)>,
    /// What those who asked for something were told, by a number each.
    pub(crate) told: BTreeMap<u64, Result<CommandState, CommandRefused>>,
    pub(crate) set: BTreeMap<u64, Result<Setting, SettingRefused>>,
    asked: u64,
    answers: Arc<Answers>,
}

pub(crate) fn config() -> Config {
    Config {
        sessions_max: 10,
        parked_max: 10,
        commands_open_max: 2,
        commands_in_flight: 8,
        command_answer_s: 30,
        command_grace_s: 60,
        command_body_max: 1000,
        signed_prekey_rotation_s: 604_800,
    }
}

impl World {
    /// A node and a device that was enrolled with suite 1, listens, and has never spoken.
    pub(crate) fn new() -> (Self, Device) {
        Self::of(Suite::X3dh)
    }

    /// A node and a device that was enrolled, listens, and has never spoken.
    pub(crate) fn of(suite: Suite) -> (Self, Device) {
        let mut rng = StdRng::seed_from_u64(7);
        let identity = Arc::new(IdentitySecret::generate(&mut rng));
        let now = Now { timer: Timestamp::from_ms(1000), unix: UnixTime::from_s(1_800_000_000) };
        let (signed, _) = SignedPrekeys::rotate(None, now.unix, &mut rng).expect("ids");
        let mut device = Device::new("pump-7", identity.public(), StdRng::seed_from_u64(8));
        device.suite = suite;
        let enrolled = Arc::new(Enrolled {
            id: device.id,
            number: DeviceNumber::new(1),
            identity_key: *device.identity.public().as_bytes(),
            certificate: Fingerprint([0; 32]),
            certificate_expires: UnixTime::from_s(2_000_000_000),
            suite,
            tags: Default::default(),
            class: String::new(),
            enrolled_at: now.unix,
            standing: Standing::Enrolled,
        });
        let signed = Arc::new(signed);
        let bridge = Bridge::new(config(), identity.clone(), signed.clone());
        let mut world = Self {
            bridge,
            kept: Kept::default(),
            damaged: false,
            unreadable: None,
            loads: 0,
            enrolled,
            identity,
            signed,
            now,
            rng,
            published: Vec::new(),
            ways: Vec::new(),
            changed: Vec::new(),
            told: BTreeMap::new(),
            set: BTreeMap::new(),
            asked: 0,
            answers: Arc::default(),
        };
        world.connect();
        (world, device)
    }

    pub(crate) fn node_key(&self) -> unhidra_bridge::IdentityKey {
        self.identity.public()
    }

    pub(crate) fn connect(&mut self) {
        let id = self.enrolled.id;
        self.bridge.handle_connected(id, HERE);
        for row in [DownlinkRow::Commands, DownlinkRow::Prekeys] {
            self.bridge.handle_listening(id, HERE, row, self.now, &mut self.rng);
        }
        self.settle();
    }

    /// The node's process ends, and another begins on what was kept.
    pub(crate) fn restart(&mut self) {
        self.bridge = Bridge::new(config(), self.identity.clone(), self.signed.clone());
        self.published.clear();
        self.connect();
    }

    /// The node's process ends, and another begins on what was kept; the device stays away.
    pub(crate) fn restart_without_the_device(&mut self) {
        self.bridge = Bridge::new(config(), self.identity.clone(), self.signed.clone());
        self.settle();
    }

    /// The node's process ends, a copy of what was kept is put back, and another process begins on
    /// it, after what it does first.
    pub(crate) fn put_back(&mut self, copy: Kept) {
        self.kept = copy;
        let peer = self.kept.stored.peer.clone();
        for op in put_back(&self.enrolled, peer.as_deref(), &self.kept.prekeys.clone()).expect("its record reads") {
            self.apply(op);
        }
        let commands = self.kept.commands.values().filter(|command| !command.is_final()).cloned().collect();
        for op in put_back_told(commands, self.kept.settings.values().cloned().collect(), self.now.unix) {
            self.apply(op);
        }
        let ops = SignedPrekeys::replace(&[], self.now.unix, &mut self.rng).expect("ids");
        let put = ops.into_iter().filter_map(|op| match op {
            Op::Prekey(PrekeyChange::Put(record)) => Some(record),
            _ => None,
        });
        let records: Vec<PrekeyRecord> = put.collect();
        self.signed = Arc::new(SignedPrekeys::restore(&records).expect("whole").expect("one"));
        self.restart();
    }

    /// The device's connection ends.
    pub(crate) fn disconnect(&mut self) {
        self.bridge.handle_disconnected(self.enrolled.id, HERE, self.now, &mut self.rng);
        self.settle();
    }

    pub(crate) fn pass(&mut self, ms: u64) {
        let more = std::time::Duration::from_millis(ms);
        self.now = Now { timer: self.now.timer.saturating_add(more), unix: self.now.unix.saturating_add(more) };
        self.bridge.handle_timeout(self.now, &mut self.rng);
        self.settle();
    }

    /// One message of the device, all the way; what it is answered.
    pub(crate) fn deliver(&mut self, row: UplinkRow, bytes: &[u8]) -> Answer {
        self.offer(row, bytes);
        self.settle();
        self.answer()
    }

    pub(crate) fn message(&mut self, bytes: &[u8]) -> Answer {
        self.deliver(UplinkRow::Messages, bytes)
    }

    pub(crate) fn delivery(&self, row: UplinkRow, bytes: &[u8]) -> Delivery {
        Delivery {
            device: self.enrolled.id,
            row,
            sealed: Sealed(Bytes::copy_from_slice(bytes)),
            received_at: self.now.unix,
            ack: Ack::new(self.answers.clone(), AckToken(0)),
        }
    }

    /// A message that is handed in, whose draft has not been taken.
    pub(crate) fn offer(&mut self, row: UplinkRow, bytes: &[u8]) {
        let delivery = self.delivery(row, bytes);
        self.hand_in(delivery);
    }

    /// What comes through an outside broker.
    pub(crate) fn hand_in_through(&mut self, via: Via, delivery: Delivery) {
        self.bridge.handle_outside(via, delivery, self.now, &mut self.rng);
        self.load();
    }

    /// The same of one whose answer goes elsewhere.
    pub(crate) fn hand_in(&mut self, delivery: Delivery) {
        self.bridge.handle_delivery(delivery, self.now, &mut self.rng);
        self.load();
    }

    /// One message in the device's name through an outside broker, all the way; what it is answered.
    pub(crate) fn outside(&mut self, via: Via, row: UplinkRow, bytes: &[u8]) -> Answer {
        let delivery = self.delivery(row, bytes);
        self.comes(via, delivery);
        self.settle();
        self.answer()
    }

    /// Messages of so many other devices through an outside broker. Their records are asked for, and do
    /// not come.
    pub(crate) fn parks(&mut self, via: Via, devices: usize) {
        for number in 0..devices {
            let device = DeviceId::parse(&format!("valve-{number}")).expect("an id");
            let delivery = Delivery { device, ..self.delivery(UplinkRow::Messages, b"x") };
            self.comes(via, delivery);
            while self.bridge.poll_load().is_some() {}
        }
    }

    /// A message through an outside broker is handed in, and nothing more is done.
    pub(crate) fn comes(&mut self, via: Via, delivery: Delivery) {
        self.bridge.handle_outside(via, delivery, self.now, &mut self.rng);
    }

    /// The way to an outside broker is another one now.
    pub(crate) fn reach(&mut self, upstream: UpstreamId, reach: Reach) {
        self.bridge.handle_reach(upstream, reach, self.now, &mut self.rng);
        self.settle();
    }

    pub(crate) fn answer(&mut self) -> Answer {
        let mut answers = self.answers.0.lock().expect("not poisoned");
        assert_eq!(answers.len(), 1, "one answer for one message");
        answers.remove(0)
    }

    pub(crate) fn command(&mut self, n: u8, expires_s: u64) -> CommandId {
        let id = CommandId::new([n; 16]);
        let command = Command {
            id,
            device: self.enrolled.id,
            name: "reboot".into(),
            body: Bytes::from_static(b"now"),
            created_at: self.now.unix,
            expires_at: self.now.unix.saturating_add(std::time::Duration::from_secs(expires_s)),
            asked_by: None,
            life: Life::default(),
        };
        // Some are refused, and looked for by those who expect it.
        let _ = self.send(command);
        id
    }

    /// Hands a command in; what whoever asked is told.
    pub(crate) fn send(&mut self, command: Command) -> Result<CommandState, CommandRefused> {
        self.asked += 1;
        self.bridge.handle_command(Asked(self.asked), command, self.now, &mut self.rng);
        self.settle();
        self.told[&self.asked]
    }

    /// Calls a command back; what whoever asked is told.
    pub(crate) fn cancel(&mut self, id: CommandId) -> Result<CommandState, CommandRefused> {
        self.asked += 1;
        self.bridge.handle_cancel(Asked(self.asked), self.enrolled.id, id, "me".into(), self.now);
        self.settle();
        self.told[&self.asked]
    }

    /// Sets something; what whoever asked is told.
    pub(crate) fn set(&mut self, name: &str, value: Option<&'static str>) -> Result<Setting, SettingRefused> {
        self.asked += 1;
        let new = NewSetting {
            device: self.enrolled.id,
            name: name.parse().expect("a name"),
            value: value.map(|text| Bytes::from_static(text.as_bytes())),
            asked_by: None,
        };
        self.bridge.handle_setting(Asked(self.asked), new, self.now, &mut self.rng);
        self.settle();
        self.set[&self.asked].clone()
    }

    pub(crate) fn broker_says(&mut self, ticket: Ticket, outcome: Outcome) {
        self.bridge.handle_published(self.enrolled.id, ticket, outcome, self.now, &mut self.rng);
        self.settle();
    }

    /// The bundle the device asked for.
    pub(crate) fn bundle(&mut self) -> Bytes {
        assert_eq!(self.deliver(UplinkRow::PrekeysGet, &Device::asks(self.enrolled.suite)), Answer::Accepted);
        let (row, _, bundle) = self.published.remove(0);
        assert_eq!(row, DownlinkRow::Prekeys);
        bundle
    }

    /// A device with a session the node has answered in.
    pub(crate) fn greeted() -> (Self, Device) {
        let (mut world, mut device) = Self::new();
        let bundle = world.bundle();
        device.begin(&bundle, world.now.unix);
        let first = device.reading(b"first", world.now.unix);
        assert_eq!(world.message(&first), Answer::Accepted);
        let hello = world.take_message();
        assert_eq!(device.hear(&hello, world.now.unix), crate::device::Heard::hello());
        (world, device)
    }

    /// The one message that was published on the commands row.
    pub(crate) fn take_message(&mut self) -> Bytes {
        assert_eq!(self.published.len(), 1, "one message");
        let (row, _, bytes) = self.published.remove(0);
        assert_eq!(row, DownlinkRow::Commands);
        bytes
    }

    /// The bodies of the rows that somebody is shown.
    pub(crate) fn shown(&self) -> Vec<&[u8]> {
        let shown = |row: &&(MessageTag, Uplink)| row.1.kind != UplinkKind::Ignored;
        self.kept.rows.iter().filter(shown).map(|row| row.1.body.as_ref()).collect()
    }

    /// Reads what the bridge wants read, and commits what it wants committed, until it is quiet.
    pub(crate) fn settle(&mut self) {
        self.load();
        while let Some(draft) = self.bridge.poll_draft() {
            self.commit(draft);
            self.load();
        }
    }

    fn load(&mut self) {
        while let Some(id) = self.bridge.poll_load() {
            self.loads += 1;
            if self.damaged {
                self.bridge.handle_damaged(id, self.now);
                continue;
            }
            if let Some(others_are_read) = self.unreadable {
                match others_are_read {
                    true => self.bridge.handle_unreadable(id, self.now),
                    false => self.bridge.handle_load_failed(id),
                }
                continue;
            }
            let mut stored = self.kept.stored.clone();
            if stored.stale {
                (stored.present, stored.previous) = (None, None);
            }
            let newest = self.kept.rows.len().saturating_sub(32);
            stored.recent = self.kept.rows[newest..].iter().map(|row| row.0).collect();
            let loaded = Loaded {
                device: self.enrolled.clone(),
                stored,
                prekeys: self.kept.prekeys.clone(),
                commands: self.kept.commands.values().filter(|c| !c.is_final()).cloned().collect(),
                settings: self.kept.settings.values().cloned().collect(),
                reading_ids: self.kept.reading_ids(),
            };
            self.bridge.handle_loaded(id, loaded, self.now, &mut self.rng);
        }
    }

    fn commit(&mut self, draft: Draft) {
        let mut writes = 0;
        for op in draft.ops {
            writes += usize::from(matches!(op, Op::Session { .. } | Op::Chain { .. }));
            self.apply(op);
        }
        for (_, ack, answer) in draft.answers {
            ack.answer(answer);
        }
        self.bridge.handle_committed();
        for effect in draft.effects {
            match effect {
                Effect::Publish(publish) => {
                    let bytes = match publish.payload {
                        Payload::Plain(bytes) => bytes,
                        Payload::Sealed { write, pending } => {
                            assert!(write < writes, "the write is in this draft");
                            pending.release(DurableSource::new_for_storage().durable()).freeze()
                        }
                    };
                    self.ways.push(publish.connection);
                    self.published.push((publish.row, publish.ticket, bytes));
                }
                Effect::CommandChanged(command) => self.changed.push((command.id, command.state())),
                Effect::CommandAnswered(asked, answer) => {
                    self.told.insert(asked.0, answer.map(|command| command.state()));
                }
                Effect::SettingChanged(_) => {}
                Effect::SettingAnswered(asked, answer) => drop(self.set.insert(asked.0, answer)),
            }
        }
    }

    fn moved(&mut self, device: DeviceId, expect: Version) -> &mut Stored {
        assert_eq!((device, expect), (self.enrolled.id, self.kept.stored.version));
        let stored = &mut self.kept.stored;
        stored.version = expect.next().expect("few");
        // The first write ends what was not of the newest row.
        if std::mem::take(&mut stored.stale) {
            (stored.present, stored.previous) = (None, None);
        }
        stored
    }

    fn apply(&mut self, op: Op) {
        match op {
            Op::Session { device, slot, expect, whole } => {
                let session = Some(StoredSession { whole, receive: None, send: None });
                let stored = self.moved(device, expect);
                match slot {
                    Slot::Present => stored.present = session,
                    Slot::Previous => stored.previous = session,
                }
            }
            Op::Chain { device, slot, lane, expect, delta } => {
                assert!(delta.len() <= 48, "a chain record of {} bytes", delta.len());
                let stored = self.moved(device, expect);
                let session = match slot {
                    Slot::Present => stored.present.as_mut(),
                    Slot::Previous => stored.previous.as_mut(),
                };
                let session = session.expect("a whole beneath the chain");
                match lane {
                    Lane::Receive => session.receive = Some(delta),
                    Lane::Send => session.send = Some(delta),
                }
            }
            Op::Rotate { device, expect } => {
                let stored = self.moved(device, expect);
                stored.previous = stored.present.take();
            }
            Op::EndSessions { device, expect, present } => {
                let stored = self.moved(device, expect);
                stored.previous = None;
                if present {
                    stored.present = None;
                }
            }
            Op::Peer { bytes, .. } => self.kept.stored.peer = Some(bytes),
            Op::Reading { tag, uplink } => self.kept.rows.push((tag, uplink)),
            Op::Command(command) => {
                self.kept.commands.insert(command.id, command);
            }
            Op::LateReceipt { command, status, at, .. } => {
                if let Some(command) = self.kept.commands.get_mut(&command) {
                    command.note(status, at);
                }
            }
            Op::Setting(setting) => drop(self.kept.settings.insert(setting.name.clone(), setting)),
            Op::ForgetSetting { name, .. } => drop(self.kept.settings.remove(&name)),
            Op::Prekey(PrekeyChange::Put(record)) => self.kept.prekeys.push(record),
            Op::Prekey(PrekeyChange::Delete { kind, id }) => {
                self.kept.prekeys.retain(|record| (record.kind, record.id) != (kind, id));
            }
            Op::Act(_) => {}
            Op::Device(_) | Op::Broker { .. } | Op::Trim { .. } | Op::Forget { .. } | Op::Reseal(_) => {
                panic!("not the bridge's")
            }
        }
    }
}
