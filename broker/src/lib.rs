//! MQTT 3.1.1 and 5.0: codec, sessions, access control, routing, listeners.
//!
//! The broker carries ciphertext and knows it: what a device publishes on its own rows leaves
//! through the [`Inlet`], what the node tells a device comes in through [`Broker::publish`], and
//! everything else is routed between clients.

mod acl;
mod config;
mod doors;
mod metrics;
mod net;
pub mod packet;
mod router;
mod session;

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use prometheus_client::registry::Registry;
use tokio::sync::{Notify, watch};
use tokio::time::sleep;
use tracing::{info, warn};
use unhidra_core::delivery::DownlinkRow;
use unhidra_core::ids::{ClientId, ClientIdError, DeviceId};
use unhidra_core::time::Clock;
use unhidra_core::topic::{TopicFilter, TopicName};

use crate::packet::{Property, ReasonCode, RetainHandling, Will};
use acl::Acl;
use metrics::{DropCause, Metrics};
use net::connection::Connection;
use net::live::Live;
use net::mailbox::{Downlink, Mailbox, Order};
use router::message::{Incoming, Message, Queued};
use router::queue::{Pushed, Queue};
use router::retained::{Kept, Retained};
use router::{Router, SubscriberId, Subscription};
use session::table::{Claim, Due, SessionKey, Stored, Table, will_due};
use session::{Remains, Resumable, Rules};

pub use config::{Config, Limits, Listen, ListenError, Prefix, PrefixError, TcpConfig, TlsConfig};
pub use doors::{
    Accepted, Admission, Admitted, BoxFuture, BrokerEvent, ConnectionId, Denied, Identity, Inlet, Listener,
    NotPublished, Outcome, PeerCertificate, Stream, Ticket,
};
pub use net::{CertificateError, TcpListener, TlsListener};

/// Everything that is not the broker's to decide.
pub struct Doors {
    /// Where its events go.
    pub inlet: Arc<dyn Inlet>,
    /// Who may connect.
    pub admission: Arc<dyn Admission>,
    /// The time.
    pub clock: Arc<dyn Clock + Send + Sync>,
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
    retained: Mutex<Retained>,
    sessions: Mutex<Table>,
    /// A session was stored, whose Will or end may come before all others.
    sessions_due: Notify,
    live: Live,
    draining: watch::Sender<bool>,
    next_subscriber: AtomicU64,
}

/// A session a connection has been given.
pub(crate) struct Claimed {
    pub(crate) resumed: Option<Resumable>,
    pub(crate) subscriber: SubscriberId,
    pub(crate) queue: Arc<Queue>,
}

impl Broker {
    /// Makes a broker that serves nobody yet, and registers its metrics.
    #[must_use]
    pub fn new(config: Config, doors: Doors, registry: &mut Registry) -> Arc<Self> {
        let limits = config.limits;
        Arc::new(Self {
            metrics: Metrics::register(registry),
            router: RwLock::default(),
            retained: Mutex::new(Retained::new(limits.retained_messages_max, limits.retained_bytes_max)),
            sessions: Mutex::new(Table::new(limits.sessions_max)),
            sessions_due: Notify::new(),
            live: Live::new(limits.connections_max),
            draining: watch::Sender::new(false),
            next_subscriber: AtomicU64::new(0),
            rules: Arc::new(Rules { acl: Acl::new(config.prefix.as_str()), limits }),
            doors,
        })
    }

    /// Serves the streams of a listener until the broker drains. Run one for each listener.
    ///
    /// # Errors
    ///
    /// The listener's own, when it is finished.
    pub async fn serve(self: Arc<Self>, mut listener: Box<dyn Listener>) -> io::Result<()> {
        let mut draining = self.draining.subscribe();
        loop {
            let accepted = tokio::select! {
                biased;
                _ = draining.wait_for(|draining| *draining) => return Ok(()),
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
        mailbox.downlink(Downlink { row, payload, ticket })?;
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
        stored.into_iter().for_each(|stored| self.end_session(stored));
    }

    /// Ends everything in order: accepts and reads no more, lets what is unanswered be answered
    /// for at most `grace`, says DISCONNECT 0x8B and closes. Returns when no connection is left
    /// and the node has taken their last events.
    pub async fn drain(&self, grace: Duration) {
        self.draining.send_replace(true);
        let until = self.doors.clock.now().saturating_add(grace);
        for mailbox in self.live.close() {
            mailbox.order(Order::Drain { until });
        }
        self.live.emptied().await;
    }

    fn accept(self: &Arc<Self>, accepted: Accepted) {
        let limits = self.limits();
        let Some(seat) = self.live.enter(|id| Mailbox::new(id, limits.downlinks_max)) else {
            warn!(peer = %accepted.peer, max = limits.connections_max, "connection refused: there are too many");
            return;
        };
        self.metrics.connections.inc();
        let broker = self.clone();
        tokio::spawn(async move {
            Connection::new(broker.clone(), seat.mailbox().clone(), accepted).run().await;
            broker.metrics.connections.dec();
            drop(seat);
        });
    }

    /// Publishes Wills and ends sessions whose time has come. Completes when it has done so, to be
    /// called again.
    async fn keep_sessions(&self) {
        let stored = self.sessions_due.notified();
        let due_at = self.sessions().poll_timeout();
        match due_at {
            None => stored.await,
            Some(at) => {
                let wait = at.saturating_since(self.doors.clock.now());
                tokio::select! {
                    () = sleep(wait) => {}
                    () = stored => return,
                }
            }
        }
        let due = self.sessions().handle_timeout(self.doors.clock.now());
        for due in due {
            match due {
                Due::Will(will) => self.publish_will(&will),
                Due::Ended(stored) => self.end_session(*stored),
            }
        }
    }

    // What connections call.

    pub(crate) const fn rules(&self) -> &Arc<Rules> {
        &self.rules
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.rules.limits
    }

    pub(crate) const fn metrics(&self) -> &Metrics {
        &self.metrics
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

    pub(crate) fn register_device(&self, device: &DeviceId, mailbox: &Arc<Mailbox>) {
        self.live.add_device(device, mailbox.clone());
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

    pub(crate) fn assign_client_id(&self, connection: ConnectionId) -> Result<ClientId, ClientIdError> {
        ClientId::parse(&format!("auto-{:016x}-{}", self.doors.seed, connection.0))
    }

    /// Gives a connection its session, once no other carries it. `None` where there are too many.
    pub(crate) async fn claim(&self, key: &SessionKey, mailbox: &Arc<Mailbox>, clean_start: bool) -> Option<Claimed> {
        loop {
            let claim = self.sessions().claim(key, mailbox, clean_start);
            match claim {
                Claim::Live(other) => {
                    other.order(Order::Close(ReasonCode::SessionTakenOver));
                    other.ended().await;
                }
                Claim::Resumed(stored) => {
                    let Stored { resumable, subscriber, queue, .. } = *stored;
                    return Some(Claimed { resumed: Some(resumable), subscriber, queue });
                }
                Claim::New { ended } => {
                    if let Some(stored) = ended {
                        self.end_session(*stored);
                    }
                    let limits = self.limits();
                    let subscriber = SubscriberId(self.next_subscriber.fetch_add(1, Ordering::Relaxed));
                    let queue = Arc::new(Queue::new(limits.queue_messages_max, limits.queue_bytes_max));
                    self.count_sessions();
                    return Some(Claimed { resumed: None, subscriber, queue });
                }
                Claim::Full => return None,
            }
        }
    }

    /// A connection has ended: its session is stored or ends, and its Will is published or waits.
    pub(crate) fn release(
        &self,
        key: &SessionKey,
        subscriber: SubscriberId,
        queue: Arc<Queue>,
        remains: Remains,
        forget: bool,
        with_will: bool,
    ) {
        let now = self.doors.clock.now();
        let Remains { resumable, expiry_s, will, .. } = remains;
        let expiry_s = if forget { 0 } else { expiry_s };
        let will = will.filter(|_| with_will);
        let delay_s = will.as_ref().and_then(|will| will.properties.find(will_delay_s)).unwrap_or(0);
        let will = match (will, will_due(now, delay_s, expiry_s)) {
            (Some(will), None) => {
                self.publish_will(&will);
                None
            }
            (Some(will), Some(at)) => Some((at, will)),
            (None, _) => None,
        };
        let expires_at = now.saturating_add(Duration::from_secs(u64::from(expiry_s)));
        let stored = Stored { resumable, subscriber, queue, expires_at, will };
        if expiry_s == 0 {
            self.sessions().release(key, None);
            self.end_session(stored);
        } else {
            self.sessions().release(key, Some(Box::new(stored)));
            self.sessions_due.notify_waiters();
        }
    }

    pub(crate) fn subscribe(
        &self,
        filter: &str,
        subscriber: SubscriberId,
        queue: &Arc<Queue>,
        subscription: Subscription,
        is_new: bool,
        full: &mut Vec<(Arc<Queue>, Queued)>,
    ) {
        let Ok(filter) = TopicFilter::parse(filter) else { return };
        let subscriptions = {
            let mut router = self.router.write().unwrap_or_else(PoisonError::into_inner);
            router.subscribe(filter, subscriber, queue.clone(), subscription);
            router.len()
        };
        self.metrics.subscriptions.set(gauge(subscriptions));
        let wanted = match subscription.options.retain_handling {
            RetainHandling::Send => true,
            RetainHandling::SendIfNew => is_new,
            RetainHandling::DoNotSend => false,
        };
        if !wanted {
            return;
        }
        let retained = self.retained().matches(filter, self.doors.clock.now());
        for message in retained {
            let qos = message.qos().min(subscription.options.qos);
            let identifiers = subscription.identifier.into_iter().collect();
            self.push(queue, Queued { message, qos, retain: true, identifiers }, full);
        }
    }

    pub(crate) fn unsubscribe(&self, filter: &str, subscriber: SubscriberId) {
        let Ok(filter) = TopicFilter::parse(filter) else { return };
        let mut router = self.router.write().unwrap_or_else(PoisonError::into_inner);
        router.unsubscribe(filter, subscriber);
        self.metrics.subscriptions.set(gauge(router.len()));
    }

    /// Routes a message to whom it matters, and says to how many. Those without room are added to
    /// `full`.
    pub(crate) fn route(
        &self,
        incoming: Incoming<'_>,
        from: Option<SubscriberId>,
        full: &mut Vec<(Arc<Queue>, Queued)>,
    ) -> usize {
        let Ok(topic) = TopicName::parse(incoming.topic.as_str()) else { return 0 };
        self.metrics.routed.inc();
        let now = self.doors.clock.now();
        let make = || Arc::new(Message::new(incoming, now));
        let retained = incoming.retain.then(make);
        if let Some(message) = &retained {
            let (kept, count) = {
                let mut store = self.retained();
                (store.put(message), store.len())
            };
            self.metrics.retained.set(gauge(count));
            if kept == Kept::NoRoom {
                self.metrics.drop_message(DropCause::NotRetained);
            }
        }
        let router = self.router.read().unwrap_or_else(PoisonError::into_inner);
        router.route(topic, from, || retained.unwrap_or_else(make), |queue, queued| self.push(queue, queued, full))
    }

    fn push(&self, queue: &Arc<Queue>, queued: Queued, full: &mut Vec<(Arc<Queue>, Queued)>) {
        match queue.push(queued) {
            Pushed::Taken => {}
            Pushed::Dropped => self.metrics.drop_message(DropCause::Away),
            Pushed::Full(queued) => full.push((queue.clone(), queued)),
        }
    }

    fn publish_will(&self, will: &Will) {
        let mut full = Vec::new();
        self.route(will.into(), None, &mut full);
        // Nobody is there to wait for a subscriber without room.
        full.iter().for_each(|_| self.metrics.drop_message(DropCause::Slow));
    }

    fn end_session(&self, stored: Stored) {
        for filter in stored.resumable.subscriptions.keys() {
            self.unsubscribe(filter, stored.subscriber);
        }
        if let Some((_, will)) = stored.will {
            self.publish_will(&will);
        }
        self.count_sessions();
    }

    fn count_sessions(&self) {
        let count = self.sessions().len();
        self.metrics.sessions.set(gauge(count));
    }

    fn sessions(&self) -> MutexGuard<'_, Table> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn retained(&self) -> MutexGuard<'_, Retained> {
        self.retained.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Broker").field("live", &self.live).finish_non_exhaustive()
    }
}

fn gauge(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn will_delay_s(property: &Property) -> Option<u32> {
    match property {
        Property::WillDelayInterval(s) => Some(*s),
        _ => None,
    }
}
