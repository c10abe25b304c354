//! The task of one outside broker: it holds one connection, carries what is said inward, and answers
//! once that is durable.
//!
//! ```text
//!  wait for the guard --> dial --> CONNECT, SUBSCRIBE --> serve --+
//!        ^                 |               |                       |
//!        +-----------------+---------------+--- the stream ended --+
//! ```
//!
//! A message that the node cannot take, for a fault of its own, gets no PUBACK and holds up no other.
//! It comes again on the next connection, so while there is such a one the node begins the next one by
//! itself, after a wait that grows.
//!
//! It trusts the broker with nothing but the transport: every message is looked at for its topic, its
//! length and its device before a shard sees it, and the rest is the sessions' to find out.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rand::Rng as _;
use rand::rngs::StdRng;
use tokio::sync::watch;
use tokio::time::timeout;
use unhidra_bridge::upstream::{MESSAGE_LEN_MAX, Reach, Rows, UpstreamId, Via, Window};
use unhidra_bridge::{Outcome, Ticket};
use unhidra_core::backoff::Backoff;
use unhidra_core::delivery::{Answer, Delivery, Refusal, UplinkRow};
use unhidra_core::ids::DeviceId;
use unhidra_core::message::Sealed;
use unhidra_core::time::{Clock, Timestamp};
use zeroize::Zeroizing;

use super::UpstreamEvent;
use super::config::UpstreamConfig;
use super::dial::Dial;
use super::downlinks::Downlinks;
use super::line::Line;
use super::link::Link;
use super::mailbox::{Downlink, Mailbox};
use super::metrics::Metrics;
use super::status::{Status, UpstreamState, shown};
use super::takeover::Takeovers;
use super::wire::{Client, Message, Receipt, Said, Terms};
use crate::outside::Guard;
use crate::pump::Pump;
use crate::registry::{Hears, Registry};

/// How long a connection must serve before it counts as a success. A broker that lets the node in and
/// drops it at once is then left alone like one that does not let it in.
const STABLE_AFTER: Duration = Duration::from_secs(10);

/// One outside broker and all it takes to serve it.
pub(super) struct Upstream {
    pub(super) id: UpstreamId,
    pub(super) config: UpstreamConfig,
    pub(super) rows: Rows,
    pub(super) client_id: String,
    pub(super) password: Option<Zeroizing<Vec<u8>>>,
    pub(super) dial: Arc<dyn Dial>,
    pub(super) mailbox: Arc<Mailbox>,
    pub(super) status: Arc<Status>,
    pub(super) metrics: Metrics,
    pub(super) clock: Arc<dyn Clock + Send + Sync>,
    pub(super) pump: Arc<Pump>,
    pub(super) registry: Arc<Registry>,
    pub(super) guard: Guard,
    /// Between two connections that are begun anew because a message could not be taken.
    pub(super) again: Backoff,
    pub(super) takeovers: Takeovers,
    pub(super) rng: StdRng,
}

/// Why a connection is over.
enum Ended {
    /// The node is told to end, and all that was read is answered.
    Stopped,
    /// The node begins anew, so that what it could not take comes again.
    Again,
    /// Anything else; the text is for people.
    Failed(String),
}

impl Upstream {
    /// Serves until `stop`.
    pub(super) async fn run(mut self, mut stop: watch::Receiver<bool>) {
        let mut next_token = 0;
        loop {
            let now = self.clock.now();
            if let Err(until) = self.guard.admit(now) {
                tokio::select! {
                    () = tokio::time::sleep(until.saturating_since(now)) => continue,
                    () = told(&mut stop) => return,
                }
            }
            self.status.state(UpstreamState::Connecting, self.clock.unix_now());
            let ended = tokio::select! {
                connected = self.dial() => match connected {
                    Ok(connection) => self.hold(connection, &mut next_token, &mut stop).await,
                    Err(error) => Ended::Failed(error),
                },
                () = told(&mut stop) => return,
            };
            let error = match ended {
                Ended::Stopped => return,
                Ended::Again => continue,
                Ended::Failed(error) => error,
            };
            let now = self.clock.now();
            self.guard.failed(now, self.rng.next_u64());
            self.metrics.failed(self.name());
            self.status.failed(&error, self.guard.state(), self.clock.unix_now());
            tracing::warn!(upstream = self.name(), error = shown(&error), "an outside broker is not reached");
        }
    }

    fn name(&self) -> &str {
        self.config.name.as_str()
    }

    /// How long a broker may owe an answer.
    fn patience(&self) -> Duration {
        Duration::from_secs(self.config.keep_alive_s.get().into())
    }

    async fn dial(&self) -> Result<Link, String> {
        let patience = Duration::from_secs(self.config.connect_timeout_s);
        let stream = match timeout(patience, self.dial.dial()).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(error.to_string()),
            Err(_) => return Err(format!("no connection within {} s", patience.as_secs())),
        };
        let password = self.password.as_ref().map(|password| Bytes::copy_from_slice(password)).unwrap_or_default();
        let terms = Terms {
            client_id: self.client_id.clone(),
            credentials: (!self.config.user.is_empty()).then(|| (self.config.user.clone(), password)),
            keep_alive_s: self.config.keep_alive_s.get(),
            session_expiry_s: self.config.session_expiry_s,
            connect_timeout: patience,
            receive_max: self.config.receive_max.get(),
            packet_bytes_max: self.config.packet_bytes_max.get(),
            downlinks_max: self.config.downlinks_max.get(),
        };
        Ok(Link::begin(self.config.version, &terms, stream))
    }

    /// Serves a connection to its end, and cleans up behind it.
    async fn hold(&mut self, mut link: Link, next_token: &mut u64, stop: &mut watch::Receiver<bool>) -> Ended {
        let now = self.clock.now();
        let mut serving = Serving {
            window: Window::new(*next_token, self.config.receive_max.get().into()),
            line: Line::new(self.mailbox.clone()),
            held: VecDeque::new(),
            downlinks: Downlinks::new(now),
            phase: Phase::Entering { until: now.saturating_add(Duration::from_secs(self.config.connect_timeout_s)) },
            is_stable: false,
            again_at: None,
        };
        let ended = self.serve(&mut serving, &mut link, stop).await;
        *next_token = serving.window.next();
        if !matches!(ended, Ended::Failed(_)) {
            link.take_leave().await;
        }
        link.end().await;
        self.metrics.reached(self.name(), false);
        if !matches!(serving.phase, Phase::Entering { .. }) {
            self.pump.reach(self.id, Reach::Lost).await;
        }
        let unsent = self.mailbox.close();
        let Serving { held, mut downlinks, .. } = serving;
        // Outcomes that no shard had room for yet; deliveries among them are dropped, and come again.
        for event in held {
            if let UpstreamEvent::Published(..) = event {
                self.pump.upstream(self.id, event).await;
            }
        }
        while let Some((device, ticket, receipt)) = downlinks.next(&*self.clock).await {
            self.pump.upstream(self.id, self.settled(device, ticket, receipt)).await;
        }
        let unsent = unsent.into_iter().map(|Downlink { device, ticket, .. }| (device, ticket));
        for (device, ticket) in downlinks.into_unsent().into_iter().chain(unsent) {
            self.pump.upstream(self.id, UpstreamEvent::Published(device, ticket, Outcome::Lost)).await;
        }
        ended
    }

    async fn serve(&mut self, serving: &mut Serving, link: &mut Link, stop: &mut watch::Receiver<bool>) -> Ended {
        let mut stopping = false;
        loop {
            if let Err(error) = self.answer(serving, &link.client) {
                return Ended::Failed(error);
            }
            self.pump.take_upstream(self.id, &mut serving.held);
            if stopping && serving.window.is_empty() {
                return Ended::Stopped;
            }
            let reads = !stopping && serving.held.is_empty() && !serving.window.is_full();
            let waits_for = serving.held.front().and_then(UpstreamEvent::device).copied();
            if serving.again_at.is_some_and(|at| at <= self.clock.now()) {
                // It let the node in and had its say: it is no failure of its.
                self.stable(serving);
                return Ended::Again;
            }
            serving.downlinks.hears(reads, self.clock.now());
            let deadline = serving.deadline();
            let overdue = serving.downlinks.overdue_at(self.patience());
            let done = tokio::select! {
                biased;
                () = told(stop), if !stopping => {
                    stopping = true;
                    Ok(())
                }
                () = self.mailbox.arrived() => self.take_mail(serving, &link.client),
                Some((device, ticket, receipt)) = serving.downlinks.next(&*self.clock), if !serving.downlinks.is_empty() => {
                    self.mailbox.settled();
                    let event = self.settled(device, ticket, receipt);
                    serving.held.push_back(event);
                    Ok(())
                }
                () = self.pump.room_for(self.id, waits_for), if waits_for.is_some() => Ok(()),
                Some(said) = link.heard.recv(), if reads => {
                    serving.downlinks.heard(self.clock.now());
                    self.hear(serving, &link.client, said).await
                }
                Some(ended) = link.driver.join_next() => {
                    // What it said last and nobody has heard is not acknowledged, and comes again.
                    let ended = ended.unwrap_or_else(|_| "the connection's task ended".to_owned().into());
                    self.look_for_takeover(&serving.phase, ended.taken_over);
                    Err(ended.cause)
                }
                () = at(deadline, &*self.clock) => self.deadline(serving),
                () = at(overdue, &*self.clock) => {
                    Err(format!("it has not acknowledged a message within {} s", self.patience().as_secs()))
                }
                // Looked at above.
                () = at(serving.again_at, &*self.clock) => Ok(()),
            };
            if let Err(error) = done {
                return Ended::Failed(error);
            }
        }
    }

    /// Says once an episode what to do about another client that comes as this one.
    fn look_for_takeover(&mut self, phase: &Phase, taken_over: bool) {
        let since = match phase {
            Phase::Serving { since } => Some(*since),
            Phase::Entering { .. } | Phase::Subscribing { .. } => None,
        };
        if self.takeovers.ended(taken_over, since, self.clock.now()) {
            tracing::error!(
                upstream = self.name(),
                client_id = self.client_id,
                "another client comes to this outside broker with the node's Client Identifier, and the broker ends the \
                 connection of each for the other: set upstream.client_id to one that nobody else has there, or stop the \
                 other, which may be a copy of this node"
            );
        }
    }

    /// Sends the PUBACKs whose turn has come.
    fn answer(&mut self, serving: &mut Serving, client: &Client) -> Result<(), String> {
        let (mut accepted, passed) = (false, serving.window.passed());
        while let Some(next) = serving.window.pop() {
            accepted |= next.answer == Answer::Accepted;
            client.acknowledge(next).map_err(|_| "the client library has no room".to_owned())?;
        }
        let passed = serving.window.passed().saturating_sub(passed);
        if passed > 0 {
            self.metrics.passed_by(self.name(), passed as u64);
            self.begin_anew_later(serving);
        }
        if accepted {
            // Something came, was made durable and acknowledged: it serves.
            self.stable(serving);
        }
        Ok(())
    }

    /// A message is passed by: says when the next connection begins, where that is not said.
    fn begin_anew_later(&mut self, serving: &mut Serving) {
        if serving.again_at.is_some() {
            return;
        }
        let now = self.clock.now();
        // What was passed by before has been taken: this is another fault.
        if matches!(serving.phase, Phase::Serving { since } if now.saturating_since(since) >= STABLE_AFTER) {
            self.again.reset();
        }
        let at = self.again.failed(now, self.rng.next_u64());
        serving.again_at = Some(at);
        let in_ms = at.saturating_since(now).as_millis();
        tracing::warn!(upstream = self.name(), in_ms, "a message cannot be taken now; it is to come again");
    }

    fn stable(&mut self, serving: &mut Serving) {
        if !std::mem::replace(&mut serving.is_stable, true) {
            self.guard.succeeded();
        }
    }

    fn take_mail(&mut self, serving: &mut Serving, client: &Client) -> Result<(), String> {
        let mail = self.mailbox.take();
        for (token, answer) in mail.answers {
            serving.window.answer(token, answer);
        }
        let given = serving.downlinks.give(client, &self.rows, mail.downlinks, self.clock.now());
        given.map_err(|_| "the client library takes nothing more".to_owned())
    }

    async fn hear(&mut self, serving: &mut Serving, client: &Client, said: Said) -> Result<(), String> {
        match (said, serving.phase) {
            (Said::Connected { resumed, packet_max }, Phase::Entering { until }) => {
                serving.downlinks.set_packet_max(packet_max);
                let subscribed = client.subscribe(&self.rows.filters());
                subscribed.map_err(|_| "the client library has no room".to_owned())?;
                serving.phase = Phase::Subscribing { until, resumed };
                self.mailbox.open();
                let reach = if resumed { Reach::Resumed } else { Reach::Anew };
                self.pump.reach(self.id, reach).await;
                Ok(())
            }
            (Said::Subscribed { granted: true }, Phase::Subscribing { resumed, .. }) => {
                let since = self.clock.now();
                serving.phase = Phase::Serving { since };
                self.metrics.reached(self.name(), true);
                self.status.state(UpstreamState::Connected, self.clock.unix_now());
                tracing::info!(upstream = self.name(), resumed, "an outside broker is reached");
                Ok(())
            }
            (Said::Subscribed { granted: false }, Phase::Subscribing { .. }) => {
                let [messages, prekeys] = self.rows.filters();
                Err(format!("it does not let the node subscribe to {messages} and {prekeys} at QoS 1"))
            }
            // A session of before sends what it has as soon as it has let the node in.
            (Said::Message(message), Phase::Subscribing { .. } | Phase::Serving { .. }) => {
                self.take_in(serving, message)
            }
            (Said::Violation(what), _) => Err(what.to_owned()),
            (Said::Connected { .. } | Said::Subscribed { .. } | Said::Message(_), _) => {
                Err("it speaks out of turn".to_owned())
            }
        }
    }

    /// Takes a message in a device's name, or refuses what no session needs to see.
    fn take_in(&mut self, serving: &mut Serving, message: Message) -> Result<(), String> {
        self.status.received();
        let look = self.look_at(&message);
        let device = look.device();
        let received = match message.packet_id {
            None => serving.window.receive_unacknowledged(device).map(Some),
            Some(packet_id) => serving.window.receive(packet_id, device),
        };
        let token = match received {
            Ok(Some(token)) => token,
            // It comes again before its answer: that one serves both.
            Ok(None) => {
                self.metrics.message(self.name(), "repeated_in_flight");
                return Ok(());
            }
            // Not read while the window is full.
            Err(_) => return Err("it sends more than it may before it is answered".to_owned()),
        };
        match look {
            // One before it is still to come: it would overtake that.
            Look::Now(device, _) if serving.window.passes_by(&device) => serving.window.answer(token, Answer::Retry),
            Look::Now(device, row) => {
                let ack = serving.line.ack(token, device, message.packet_id.is_some());
                let received_at = self.clock.unix_now();
                let sealed = Sealed(message.payload);
                let via = Via { upstream: self.id, silent_after: Duration::from_secs(self.config.silent_s) };
                let delivery = Delivery { device, row, sealed, received_at, ack };
                serving.held.push_back(UpstreamEvent::Delivery(via, delivery));
            }
            // The broker would drop it for good, and the fault is not the device's. Left without an answer, so that
            // what its shard has of the device, and what comes behind, does not overtake it.
            Look::Later(device) => {
                self.metrics.message(self.name(), "kept_out");
                drop(serving.line.ack(token, device, message.packet_id.is_some()));
            }
            Look::Never(outcome, refusal) => {
                self.metrics.message(self.name(), outcome);
                serving.window.answer(token, Answer::Refused(refusal));
            }
        }
        Ok(())
    }

    /// What is to become of a message, as far as its topic, its length and the registry say.
    fn look_at(&self, message: &Message) -> Look {
        let Ok((device, row)) = self.rows.read(&message.topic) else {
            return Look::Never("bad_topic", Refusal::NotAuthorized);
        };
        if message.payload.len() > MESSAGE_LEN_MAX {
            return Look::Never("oversize", Refusal::DoesNotOpen);
        }
        // A retained message is one of the past (e2ee/PROTOCOL.md section 2).
        if message.retain {
            return Look::Never("retained", Refusal::NotAuthorized);
        }
        match self.registry.hears(&device) {
            Hears::Now => Look::Now(device, row),
            Hears::Later => Look::Later(device),
            Hears::Never => Look::Never("not_enrolled", Refusal::NotAuthorized),
        }
    }

    fn settled(&self, device: DeviceId, ticket: Ticket, receipt: Receipt) -> UpstreamEvent {
        let (outcome, word) = match receipt {
            Receipt::Taken => (Outcome::Relayed, "taken"),
            Receipt::TooLarge => (Outcome::Refused, "refused"),
            Receipt::Refused => (Outcome::Declined, "refused"),
            // It may have been taken, and its PUBACK lost.
            Receipt::Lost => (Outcome::Unclear, "lost"),
        };
        self.metrics.downlink(self.name(), word);
        if receipt == Receipt::Taken {
            self.status.sent();
        }
        UpstreamEvent::Published(device, ticket, outcome)
    }

    fn deadline(&mut self, serving: &mut Serving) -> Result<(), String> {
        match serving.phase {
            Phase::Serving { .. } => {
                self.stable(serving);
                Ok(())
            }
            Phase::Entering { .. } | Phase::Subscribing { .. } => {
                Err(format!("it has not let the node in within {} s", self.config.connect_timeout_s))
            }
        }
    }
}

/// What becomes of a message before any session has seen it.
#[derive(Clone, Copy, Debug)]
enum Look {
    /// Its device's shard takes it, on this row.
    Now(DeviceId, UplinkRow),
    /// Its device's record is being changed: it is to come again.
    Later(DeviceId),
    /// It is counted under this name and refused.
    Never(&'static str, Refusal),
}

impl Look {
    /// Who is heard by it, now or later.
    const fn device(self) -> Option<DeviceId> {
        match self {
            Self::Now(device, _) | Self::Later(device) => Some(device),
            Self::Never(..) => None,
        }
    }
}

/// How far a connection has come.
#[derive(Clone, Copy, Debug)]
enum Phase {
    /// CONNECT is sent.
    Entering { until: Timestamp },
    /// SUBSCRIBE is sent.
    Subscribing { until: Timestamp, resumed: bool },
    /// Devices are heard.
    Serving { since: Timestamp },
}

/// A connection that is served.
struct Serving {
    window: Window,
    line: Arc<Line>,
    /// What the shards have no room for: while there is any, nothing more is read.
    held: VecDeque<UpstreamEvent>,
    downlinks: Downlinks,
    phase: Phase,
    is_stable: bool,
    /// When the next connection is begun, where a message is to come again.
    again_at: Option<Timestamp>,
}

impl Serving {
    fn deadline(&self) -> Option<Timestamp> {
        match self.phase {
            Phase::Entering { until } | Phase::Subscribing { until, .. } => Some(until),
            Phase::Serving { since } => (!self.is_stable).then(|| since.saturating_add(STABLE_AFTER)),
        }
    }
}

async fn told(stop: &mut watch::Receiver<bool>) {
    // An error says that nobody is left to tell us.
    let _ = stop.wait_for(|stop| *stop).await;
}

async fn at(deadline: Option<Timestamp>, clock: &(dyn Clock + Send + Sync)) {
    match deadline {
        Some(at) => tokio::time::sleep(at.saturating_since(clock.now())).await,
        None => std::future::pending().await,
    }
}
