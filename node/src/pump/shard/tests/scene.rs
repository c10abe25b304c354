//! A shard with everything around it, over a store that does what the test says.

use std::time::Duration;

use bytes::Bytes;
use prometheus_client::registry::Registry as MetricsRegistry;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use tokio::time::timeout;
use unhidra_bridge::{IdentitySecret, SignedPrekeys};
use unhidra_broker::{Broker, Gate};
use unhidra_core::command::{Command, Life};
use unhidra_core::delivery::{AckToken, Acknowledge, Delivery, DownlinkRow, UplinkRow};
use unhidra_core::ids::CommandId;
use unhidra_core::message::Sealed;
use unhidra_gateway::{Gateway, Tokens};
use unhidra_store::Store;
use unhidra_store::memory::Options;

use super::double::{Double, Heard};
use super::*;
use crate::config::{Purpose, Sources};
use crate::control::Control as _;
use crate::pump::{CommandBounds, Layout, Pump};
use crate::testing::{Ground, NOW, enroll_asked, id};
use crate::unsettled::Unsettled;
use crate::upstream::{self, Upstreams};

/// Longer than anything here takes, on a clock that stands while somebody has something to do.
const SOON: Duration = Duration::from_secs(60);

/// What a command's sender is told.
pub(super) type Told = tokio::sync::oneshot::Receiver<Result<Command, CommandRefused>>;

/// The devices' side of their connections: what was answered to which of their messages.
struct Answers(mpsc::UnboundedSender<(u64, Answer)>);

impl Acknowledge for Answers {
    fn acknowledge(&self, token: AckToken, answer: Answer) {
        _ = self.0.send((token.0, answer));
    }

    fn is_given_up(&self, _: AckToken) -> bool {
        false
    }
}

pub(super) struct Scene {
    pub(super) ground: Ground,
    pub(super) store: Arc<Double>,
    heard: Heard,
    pump: Arc<Pump>,
    answering: Arc<Answers>,
    answers: mpsc::UnboundedReceiver<(u64, Answer)>,
    _end: watch::Sender<End>,
    _shard: JoinSet<()>,
}

impl Scene {
    /// Devices that are enrolled, connected and listen, with nothing on their way.
    pub(super) async fn begin(devices: &[&str]) -> Self {
        let ground = Ground::with(Options { partitions: 1, ..Options::SMALL });
        let registry = ground.registry().await;
        let control = ground.control_over(registry.clone(), None);
        for device in devices {
            control.enroll(enroll_asked(device)).await.unwrap();
        }
        let sources = Sources { purpose: Purpose::Node, file: None, set: Vec::new(), data: None, log_format: None };
        let config = sources.load().unwrap().config;
        let (store, heard) = Double::over(ground.store.clone());
        let (mut metrics, clock) = (MetricsRegistry::default(), ground.clock.clone());
        let bounds = CommandBounds { body_max: 100, expires_after: SOON };
        let ids = Box::new(|| CommandId::new([0; 16]));
        let pump = Pump::new(Layout::new(1, 1), 100, store.clone(), clock.clone(), bounds, ids);
        let gateway_doors = unhidra_gateway::Doors {
            store: store.clone(),
            authority: Arc::new(Tokens::new(1, SOON, clock.clone(), Box::new(|bytes| bytes.fill(1)))),
            commands: pump.clone(),
            clock: clock.clone(),
            cursor_key: [0; 32],
        };
        let broker_doors = unhidra_broker::Doors {
            inlet: pump.clone(),
            admission: registry.clone(),
            gate: Gate::new(config.broker.gate.clone(), clock.clone()),
            clock: clock.clone(),
            persist: None,
            seed: 1,
        };
        let rooms = Arc::new(Rooms {
            store: store.clone(),
            registry,
            broker: Broker::new(config.broker, broker_doors, &mut metrics),
            gateway: Gateway::new(config.gateway, gateway_doors, &mut metrics),
            upstreams: Upstreams::new(Vec::new(), upstream::Metrics::register(&mut metrics), clock.clone()),
            clock,
            metrics: Arc::new(unhidra_bridge::Metrics::register(&mut metrics)),
            unsettled: Unsettled::default(),
        });
        let mut rng = StdRng::seed_from_u64(1);
        let signed = Arc::new(SignedPrekeys::rotate(None, NOW, &mut rng).unwrap().0);
        let identity = Arc::new(IdentitySecret::from_seed(&[7; 32]));
        let (end, ends) = watch::channel(End::NotYet);
        let bridge = || Bridge::new(config.bridge.clone(), identity.clone(), signed.clone());
        let shard = pump.start(&rooms, bridge, || StdRng::seed_from_u64(2), &ends);
        let (answering, answers) = mpsc::unbounded_channel();
        let answering = Arc::new(Answers(answering));
        let scene = Self { ground, store, heard, pump, answering, answers, _end: end, _shard: shard };
        for device in devices {
            let (device, connection) = (id(device), ConnectionId(1));
            scene.happens([
                Event::Broker(BrokerEvent::Connected { device, connection }),
                Event::Broker(BrokerEvent::Listening { device, connection, row: DownlinkRow::Prekeys }),
            ]);
        }
        scene.idle().await;
        scene
    }

    /// The shard is told of these, in this order and at once.
    pub(super) fn happens<const N: usize>(&self, events: [Event; N]) {
        assert!(self.pump.inboxes[0].offer(None, events.into()).is_ok(), "the inbox has room");
    }

    /// Completes when nobody has anything to do.
    pub(super) async fn idle(&self) {
        // The clock goes on once every task waits for it.
        tokio::time::sleep(Duration::from_secs(1)).await;
    }

    /// A device asks for a bundle of prekeys. The first that does has a prekey written; a repeat of it
    /// writes nothing.
    pub(super) fn asks(&self, device: &str, token: u64) -> Event {
        Event::Broker(BrokerEvent::Delivery(Delivery {
            device: id(device),
            row: UplinkRow::PrekeysGet,
            // Suite 1, and a nonce.
            sealed: Sealed(Bytes::from_static(&[1; 17])),
            received_at: NOW,
            ack: Ack::new(self.answering.clone(), AckToken(token)),
        }))
    }

    /// The next batch that the store has taken.
    pub(super) async fn batch(&mut self) -> Batch {
        timeout(SOON, self.heard.batches.recv()).await.expect("nothing comes to the store").unwrap()
    }

    /// Whether the store has taken a batch that nobody has looked at.
    pub(super) fn has_batch(&self) -> bool {
        !self.heard.batches.is_empty()
    }

    /// Completes when the store had no room for a batch.
    pub(super) async fn refused(&mut self) {
        timeout(SOON, self.heard.refused.recv()).await.expect("nothing comes to the store").unwrap();
    }

    /// The batch becomes durable.
    pub(super) fn commit(&self, batch: Batch) {
        assert!(self.ground.store.submit(batch).is_ok());
    }

    /// The batch becomes durable but for what is of one device, for this cause.
    pub(super) fn commit_without(&self, device: &str, cause: CommitError, batch: Batch) {
        let left = LeftOut { device: id(device), cause };
        let ops = batch.ops.into_iter().filter(|op| op.device() != Some(&left.device)).collect();
        let done = batch.done;
        let done = Box::new(move |result: Result<Committed, CommitError>| {
            done(result.map(|committed| Committed { left_out: vec![left], ..committed }));
        });
        self.commit(Batch { ops, done, ..batch });
    }

    /// The next answer that a device is given: to which of its messages, and what.
    pub(super) async fn answer(&mut self) -> (u64, Answer) {
        timeout(SOON, self.answers.recv()).await.expect("nobody is answered").unwrap()
    }
}

/// A client sends a device a command.
pub(super) fn command(device: &str, number: u8) -> (Event, Told) {
    let (reply, told) = tokio::sync::oneshot::channel();
    let command = Command {
        id: CommandId::new([number; 16]),
        device: id(device),
        name: "reboot".into(),
        body: Bytes::new(),
        created_at: NOW,
        expires_at: NOW.saturating_add(Duration::from_secs(3600)),
        asked_by: None,
        life: Life::default(),
    };
    (Event::Order(Order::Send(Box::new(command), reply, None)), told)
}
