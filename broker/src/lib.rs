//! MQTT 3.1.1 and 5.0: codec, sessions, access control, routing, listeners.
//!
//! The broker carries ciphertext and knows it: what a device publishes on its own rows leaves
//! through the [`Inlet`], what the node tells a device comes in through [`Broker::publish`], and
//! everything else is routed between clients.

pub mod acl;
mod arrears;
mod clients;
mod config;
mod doors;
mod events;
mod gate;
mod metrics;
mod net;
pub mod packet;
mod persist;
mod router;
mod routing;
mod session;
mod sessions;
mod subscribers;
mod sys;

use std::fmt;
use std::io;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use prometheus_client::registry::Registry;
use tokio::sync::{Notify, watch};
use tokio::time::timeout;
use tracing::{info, warn};
use unhidra_core::delivery::DownlinkRow;
use unhidra_core::ids::DeviceId;
use unhidra_core::time::Clock;

use crate::packet::ReasonCode;
use acl::{Acl, RuleSet};
use events::Events;
use gate::Refusal;
use metrics::{ListenerLabels, Metrics, Tally};
use net::connection::Connection;
use net::live::{Closed, Live};
use net::mailbox::{Downlink, Mailbox, Order};
use persist::Journal;
use router::Router;
use router::queue::Terms;
use router::retained::Retained;
use routing::Watchers;
use session::table::Table;
use session::{Referral, Rules};

pub use clients::{ClientRecord, ClientStanding, ClientsPage, SessionName};
pub use config::{
    ClientCertificate, Config, GateConfig, LimitError, Limits, Listen, ListenError, ListenerConfig, MqttConfig,
    Network, NetworkError, Prefix, PrefixError, QueuePolicy, ResponseInformation,
};
pub use doors::{
    Accepted, Admission, Admitted, BoxFuture, BrokerEvent, ConnectionId, Denied, Entrance, Entrant, Identity, Inlet,
    Introduction, Listener, NotPublished, Outcome, Owner, Peer, PeerCertificate, Proof, Stream, Ticket, UserName,
};
pub use doors::{Change, NoRoom, Persist, PersistError, PersistTable, Persisted, Records};
pub use gate::{Gate, Pass};
pub use net::{CertificateError, HandshakeThreads, Layers, PortListener, Revoked, Serial, Showing, TlsOffer};
pub use persist::{RestoreError, TimeOfDay, check_record};
pub use routing::Shown;
/// Runs a whole session under a script of bytes, for the fuzzer.
///
/// # Panics
///
/// The session breaks one of its promises.
#[cfg(feature = "fuzzing")]
pub fn run_session_script(script: &[u8]) {
    session::script::run(script);
}

pub use subscribers::{SubscriberRecord, SubscribersFound};

/// Everything that is not the broker's to decide.
pub struct Doors {
    /// Where its events go.
    pub inlet: Arc<dyn Inlet>,
    /// Who may connect.
    pub admission: Arc<dyn Admission>,
    /// What strangers pass.
    pub gate: Arc<Gate>,
    /// The time.
    pub clock: Arc<dyn Clock + Send + Sync>,
    /// Where sessions, what waits for them and retained messages are kept over a restart. Without
    /// it they end with the process.
    pub persist: Option<Arc<dyn Persist>>,
    /// A number of this process's life, random: it tells client identifiers given in this life
    /// from those of another.
    pub seed: u64,
}

/// The broker: one for a node, however many listeners it has.
pub struct Broker {
    doors: Doors,
    rules: Arc<Rules>,
    metrics: Metrics,
    router: RwLock<Router>,
    watchers: Watchers,
    queue_terms: Arc<Terms>,
    retained: Mutex<Retained>,
    /// `None` where nothing is kept over a restart.
    journal: Option<Arc<Journal>>,
    /// What `$SYS` says.
    sys: Mutex<Retained>,
    /// How often; never where it is off.
    sys_interval: Option<Duration>,
    events: Events,
    sessions: Mutex<Table>,
    /// A session was stored, whose Will or end may come before all others.
    sessions_due: Notify,
    live: Live,
    /// Nobody is in any more, and nobody comes in.
    drained: watch::Sender<bool>,
    next_subscriber: AtomicU64,
}

impl Broker {
    /// Makes a broker that serves nobody yet, and registers its metrics. [`Broker::restore`]
    /// follows.
    ///
    /// # Panics
    ///
    /// Outside of a runtime, where something is kept over a restart.
    #[must_use]
    pub fn new(config: Config, doors: Doors, registry: &mut Registry) -> Arc<Self> {
        let referral = Referral::of(&config);
        let limits = config.limits;
        doors.gate.register(registry);
        Arc::new(Self {
            metrics: Metrics::register(registry),
            router: RwLock::default(),
            watchers: Watchers::default(),
            queue_terms: Arc::new(Terms::of(&limits)),
            retained: Mutex::new(Retained::new(limits.retained_messages_max, limits.retained_bytes_max)),
            // Bounded by its topics, which are ours.
            sys: Mutex::new(Retained::new(usize::MAX, usize::MAX)),
            sys_interval: (config.sys_interval_s > 0).then(|| Duration::from_secs(config.sys_interval_s)),
            events: Events::new(config.log_events_per_s),
            sessions: Mutex::new(Table::new(limits.sessions_max)),
            sessions_due: Notify::new(),
            journal: doors.persist.clone().map(Journal::new),
            live: Live::new(limits.connections_max, doors.gate.config().antechamber_max),
            drained: watch::Sender::new(false),
            next_subscriber: AtomicU64::new(0),
            rules: Arc::new(Rules {
                acl: Acl::new(config.prefix.as_str(), RuleSet::default()),
                limits,
                mqtt: config.mqtt,
                referral,
                stores_sessions: doors.persist.is_some(),
            }),
            doors,
        })
    }

    /// Serves the streams of a listener until the broker has drained. Run one for each listener.
    ///
    /// # Errors
    ///
    /// The listener's own, when it is finished.
    pub async fn serve(self: Arc<Self>, mut listener: Box<dyn Listener>) -> io::Result<()> {
        let mut drained = self.drained.subscribe();
        loop {
            let accepted = tokio::select! {
                biased;
                _ = drained.wait_for(|drained| *drained) => return Ok(()),
                () = self.keep_sessions() => continue,
                accepted = listener.accept() => accepted?,
            };
            self.accept(accepted);
        }
    }

    /// Sends a message to a device, at QoS 1, in the connection the sender means. What becomes of
    /// it is told by [`BrokerEvent::Published`]; it is not kept for another connection.
    ///
    /// Where the device subscribed at QoS 0 the message leaves so, and leaving counts as
    /// [`Outcome::Delivered`].
    ///
    /// # Errors
    ///
    /// The connection is not there, does not listen on the row, or has as many messages waiting
    /// as it may. Then no `Published` follows.
    pub fn publish(
        &self,
        device: &DeviceId,
        connection: ConnectionId,
        row: DownlinkRow,
        payload: Bytes,
        ticket: Ticket,
    ) -> Result<(), NotPublished> {
        let mailbox = self.live.of_device(device).into_iter().find(|mailbox| mailbox.id() == connection);
        let mailbox = mailbox.ok_or(NotPublished::NotConnected)?;
        mailbox.downlink(Downlink { row, payload: payload.clone(), ticket })?;
        self.show_downlink(device, row, &payload);
        self.metrics.downlinks.inc();
        Ok(())
    }

    /// Whether a device has a connection.
    #[must_use]
    pub fn is_connected(&self, device: &DeviceId) -> bool {
        !self.live.of_device(device).is_empty()
    }

    /// Closes a device's connections with a reason, 0x98 after a revocation, and forgets its
    /// sessions. Refusing it from now on is the [`Admission`]'s part, and comes first.
    pub fn disconnect(&self, device: &DeviceId, reason: ReasonCode) {
        for mailbox in self.live.of_device(device) {
            mailbox.order(Order::Revoke(reason));
        }
        let stored = self.sessions().discard(device);
        stored.into_iter().for_each(|stored| _ = self.end_session(stored));
    }

    /// Replaces the rules of who may publish and subscribe where. Subscriptions they do not grant
    /// end, those of stored sessions too; the clients are not told, since no packet says so.
    pub fn use_rules(&self, rules: RuleSet) {
        self.rules.acl.replace(rules);
        self.review_sessions();
    }

    /// Closes a user's connections with a reason. Refusing it from now on is the [`Admission`]'s
    /// part, and comes first. Its sessions stay, for [`Stay::Known`]; of somebody who is gone they
    /// go too.
    pub fn disconnect_user(&self, user: &UserName, reason: ReasonCode, stay: Stay) {
        let order = match stay {
            Stay::Known => Order::Close(reason),
            Stay::Gone => Order::Revoke(reason),
        };
        let connections = self.sessions().of_user(user);
        connections.iter().for_each(|mailbox| mailbox.order(order));
        if stay == Stay::Gone {
            let stored = self.sessions().discard_user(user);
            stored.into_iter().for_each(|stored| _ = self.end_session(stored));
        }
    }

    /// Ends everything in order: takes nobody in and reads no more, lets what is unanswered be
    /// answered for at most `grace`, says DISCONNECT 0x8B, or 0x9C or 0x9D with the other server's
    /// name where there is one, and closes. Returns when no connection is left and the node has
    /// taken their last events. Until then newcomers are told so in CONNACK.
    ///
    /// Wills are published as at any other end that the client did not ask for [MQTT-3.1.2-8].
    pub async fn drain(&self, grace: Duration) {
        let until = self.doors.clock.now().saturating_add(grace);
        for mailbox in self.live.close() {
            mailbox.order(Order::Drain { until });
        }
        // A peer that takes nothing of its farewell, or events that nobody takes any more, hold up the others' end
        // no longer than as long again.
        if timeout(grace.saturating_mul(2), self.live.emptied()).await.is_err() {
            warn!("connections that do not end are left: what of theirs was not acknowledged comes again");
        }
        if let Some(journal) = &self.journal
            && timeout(grace, journal.settled()).await != Ok(true)
        {
            warn!("the last changes to sessions and messages are not stored");
        }
        self.drained.send_replace(true);
    }

    /// From now on these certificates let nobody in, and whoever came in by one is sent away with
    /// 0x87. Its session stays, for its device under another certificate.
    pub fn revoke(&self, revoked: Arc<Revoked>) {
        self.doors.gate.set_revoked(revoked.clone());
        for mailbox in self.live.of_revoked(&revoked) {
            mailbox.order(Order::Close(ReasonCode::NotAuthorized));
        }
    }

    /// Completes when what was routed so far is stored for the sessions that outlive their
    /// connections, or never will be: says which. At once where nothing is kept.
    pub async fn settled(&self) -> bool {
        match &self.journal {
            Some(journal) => journal.settled().await,
            None => true,
        }
    }

    fn accept(self: &Arc<Self>, accepted: Accepted) {
        let limits = self.limits();
        let entered = self.live.enter(|id| Mailbox::new(id, limits.downlinks_max));
        let closed = match &entered {
            Ok(seat) => seat.closed(),
            Err(closed) => Some(*closed),
        };
        let turned_away = closed.map(|closed| self.turn_away(closed, &accepted));
        let Ok(seat) = entered else { return };
        self.metrics.accepted.inc();
        let served = self.metrics.connections.get_or_create_owned(&ListenerLabels { listener: accepted.entrance.name });
        served.inc();
        let (broker, accepted_at) = (self.clone(), self.clock().now());
        tokio::spawn(async move {
            let waited = broker.clock().now().saturating_since(accepted_at);
            let turned_away = turned_away.or_else(|| broker.check_load(waited, &accepted));
            Box::new(Connection::new(broker, seat.mailbox().clone(), accepted, turned_away)).run().await;
            served.dec();
            drop(seat);
        });
    }

    /// What a newcomer is told who cannot come in.
    fn turn_away(&self, closed: Closed, accepted: &Accepted) -> ReasonCode {
        let (refusal, reason) = match closed {
            Closed::Full => (Refusal::ConnectionsFull, ReasonCode::QuotaExceeded),
            Closed::Draining => (Refusal::Draining, self.elsewhere().unwrap_or(ReasonCode::ServerUnavailable)),
        };
        self.doors.gate.refuse(refusal, &accepted.peer, &accepted.entrance.name);
        reason
    }

    fn check_load(&self, waited: Duration, accepted: &Accepted) -> Option<ReasonCode> {
        self.doors.gate.is_overloaded(waited).then(|| {
            let waited = format_args!("it waited {} ms for its turn, or memory is short", waited.as_millis());
            self.doors.gate.refuse(Refusal::Overload, &accepted.peer, &waited);
            ReasonCode::ServerBusy
        })
    }

    /// The reason that sends clients to another server, where there is one.
    fn elsewhere(&self) -> Option<ReasonCode> {
        self.rules.referral.as_ref().map(|referral| referral.reason)
    }

    // What connections call.

    /// Why connections close when the node ends.
    pub(crate) fn farewell(&self) -> ReasonCode {
        self.elsewhere().unwrap_or(ReasonCode::ServerShuttingDown)
    }

    pub(crate) fn is_revoked(&self, certificate: &PeerCertificate) -> bool {
        self.doors.gate.is_revoked(&certificate.serials)
    }

    pub(crate) const fn rules(&self) -> &Arc<Rules> {
        &self.rules
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.rules.limits
    }

    /// Takes what a connection has counted.
    pub(crate) fn count(&self, tally: &mut Tally) {
        if tally.has_messages() {
            self.doors.gate.traffic().moves();
        }
        self.metrics.take(tally);
    }

    pub(crate) const fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    pub(crate) const fn events(&self) -> &Events {
        &self.events
    }

    pub(crate) fn clock(&self) -> &dyn Clock {
        self.doors.clock.as_ref()
    }

    pub(crate) fn inlet(&self) -> &dyn Inlet {
        self.doors.inlet.as_ref()
    }

    pub(crate) fn admission(&self) -> &dyn Admission {
        self.doors.admission.as_ref()
    }

    pub(crate) fn register_device(&self, certificate: &PeerCertificate, mailbox: &Arc<Mailbox>) {
        self.live.add_device(certificate, mailbox.clone());
    }

    pub(crate) fn unregister_device(&self, device: &DeviceId, connection: ConnectionId) {
        self.live.remove_device(device, connection);
    }

    /// Makes room for one more connection of a device: the oldest go.
    pub(crate) fn crowd_out(&self, device: &DeviceId, newest: ConnectionId) {
        let mut others = self.live.of_device(device);
        others.retain(|mailbox| mailbox.id() != newest);
        let over = (others.len() + 1).saturating_sub(self.limits().connections_per_device);
        for mailbox in others.into_iter().take(over) {
            info!(%device, "one connection too many: the oldest is closed");
            mailbox.order(Order::Close(ReasonCode::SessionTakenOver));
        }
    }

    fn sessions(&self) -> MutexGuard<'_, Table> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sys(&self) -> MutexGuard<'_, Retained> {
        self.sys.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn retained(&self) -> MutexGuard<'_, Retained> {
        self.retained.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is left of a user whose connections are closed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Stay {
    /// It may come again, as another password proves: its sessions wait.
    Known,
    /// It may not: nothing of its sessions stays.
    Gone,
}

impl fmt::Debug for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Broker").field("live", &self.live).finish_non_exhaustive()
    }
}

fn gauge(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
