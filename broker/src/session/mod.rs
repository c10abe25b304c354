//! One connection's protocol, from CONNECT to its end. No I/O, no clock.
//!
//! ```text
//! Greeting --CONNECT--> Deciding --admit()--> Open --DISCONNECT, close(), lose()--> Ended
//!     |                    |                                                         ^
//!     +--close()-----------+--refuse()-----------------------------------------------+
//! ```
//!
//! The shell hands over what arrives, drains [`Session::poll_event`] and
//! [`Session::poll_transmit`], and sleeps until [`Session::poll_timeout`].

mod aliases;
mod error;
mod greeting;
mod inbound;
mod keep_alive;
mod keeping;
mod open;
mod outbound;
mod receive;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod script;
mod send;
mod state;
mod subscribe;
pub(crate) mod table;
mod terms;

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use unhidra_core::delivery::{AckToken, Answer, DownlinkRow, UplinkRow};
use unhidra_core::ids::ClientId;
use unhidra_core::time::Timestamp;

use crate::acl::{Acl, Principal};
use crate::config::{Config, Limits, MqttConfig};
use crate::doors::{Outcome, Ticket};
use crate::net::facts::Holdings;
use crate::packet::{
    ConnAck, Connect, Disconnect, Frame, Packet, PacketId, Properties, Property, Publish, ReasonCode, Text, Version,
    Will,
};
use crate::router::Subscription;
use crate::router::message::{Alias, Queued};
pub(crate) use error::SessionError;
use open::Open;
pub(crate) use state::{Change, Interest, Remains, Resumable, Rows, Subscriptions};

/// What a client that is in takes here.
/// What holds for every session.
#[derive(Debug)]
pub(crate) struct Rules {
    pub(crate) acl: Acl,
    pub(crate) limits: Limits,
    pub(crate) mqtt: MqttConfig,
    /// Where clients go when the node ends.
    pub(crate) referral: Option<Referral>,
    /// Whether [`Event::Keep`] is told for sessions that outlive their connection.
    pub(crate) stores_sessions: bool,
}

/// Another server, and whether for good (section 4.11).
#[derive(Clone, Debug)]
pub(crate) struct Referral {
    pub(crate) server: Text,
    pub(crate) reason: ReasonCode,
}

impl Referral {
    pub(crate) fn of(config: &Config) -> Option<Self> {
        let reason = if config.server_moved { ReasonCode::ServerMoved } else { ReasonCode::UseAnotherServer };
        config.server_reference.clone().map(|server| Self { server, reason })
    }
}

impl Rules {
    /// What is said with a reason: with one that sends the client elsewhere, where.
    fn properties_of(&self, reason: ReasonCode) -> Properties {
        let mut properties = Properties::default();
        if let Some(referral) = self.referral.as_ref().filter(|referral| referral.reason == reason) {
            properties.push(Property::ServerReference(referral.server.clone()));
        }
        properties
    }
}

/// One connection's protocol.
#[derive(Debug)]
pub(crate) struct Session {
    rules: Arc<Rules>,
    phase: Phase,
    out: Out,
}

/// What the shell is to send and to do.
#[derive(Debug, Default)]
struct Out {
    transmit: VecDeque<Transmit>,
    events: VecDeque<Event>,
}

impl Out {
    fn packet(&mut self, packet: Packet) {
        self.transmit.push_back(Transmit::Packet(packet));
    }
}

#[derive(Debug)]
enum Phase {
    /// Nothing but CONNECT may come, until then.
    /// `spoken` is what a CONNECT that could not be read said it speaks.
    Greeting { deadline: Timestamp, spoken: Option<Version> },
    /// The shell finds out whether the client may come in, and with which session.
    Deciding(Box<Connect>),
    /// The client is in.
    Open(Box<Open>),
    /// Nothing more comes or goes but what is in `transmit`.
    Ended { was: Option<Box<Open>>, version: Version },
}

/// What the shell is to do.
#[derive(Debug)]
pub(crate) enum Event {
    /// Decide about a client: [`Session::admit`] or [`Session::refuse`].
    Connect(Request),
    /// Hand a device's message inward, and answer under the token.
    Deliver { row: UplinkRow, publish: Publish, token: Option<AckToken> },
    /// Route a plain client's message, and answer under the token.
    Route { publish: Publish, token: Option<AckToken> },
    /// Put a subscription into the router, then send what is retained.
    Subscribe { filter: Text, subscription: Subscription, is_new: bool },
    /// Put one into the router anew: other rules hold for it. Nothing retained follows.
    Renew { filter: Text, subscription: Subscription },
    /// Take one out.
    Unsubscribe { filter: Text },
    /// A device listens on a row from now on.
    Listen(DownlinkRow),
    /// A device listens no more.
    Unlisten(DownlinkRow),
    /// Tell who published it.
    Published { ticket: Ticket, outcome: Outcome },
    /// A QoS 1 or 2 message was answered that had come then.
    Answered { received_at: Timestamp, reason: ReasonCode },
    /// Store this step, in order, and say so by [`Session::kept`].
    Keep { number: u64, change: Change },
}

/// What CONNECT asks for, as far as the shell decides it.
pub(crate) struct Request {
    /// `None` where the client leaves the choice to us.
    pub(crate) client_id: Option<ClientId>,
    pub(crate) clean_start: bool,
    pub(crate) user_name: Option<Text>,
    pub(crate) password: Option<Bytes>,
}

impl fmt::Debug for Request {
    // As of CONNECT itself.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("client_id", &self.client_id)
            .field("clean_start", &self.clean_start)
            .field("user_name", &self.user_name.as_ref().map(|_| "[secret]"))
            .field("password", &self.password.as_ref().map(|_| "[secret]"))
            .finish()
    }
}

/// What goes out.
#[derive(Debug)]
pub(crate) enum Transmit {
    /// A packet of this session alone.
    Packet(Packet),
    /// A message that others may get too, encoded once for all.
    Routed { queued: Queued, packet_id: Option<PacketId>, dup: bool, alias: Option<Alias> },
}

impl Session {
    /// A stream was accepted.
    pub(crate) fn new(rules: Arc<Rules>, now: Timestamp) -> Self {
        let deadline = now.saturating_add(rules.limits.connect_timeout());
        Self { rules, phase: Phase::Greeting { deadline, spoken: None }, out: Out::default() }
    }

    /// What the client speaks; 3.1.1 until it has said so.
    pub(crate) fn version(&self) -> Version {
        match &self.phase {
            Phase::Greeting { spoken, .. } => spoken.unwrap_or(Version::V3_1_1),
            Phase::Deciding(connect) => connect.version,
            Phase::Open(open) => open.version(),
            Phase::Ended { version, .. } => *version,
        }
    }

    /// The largest packet the client takes.
    pub(crate) fn client_packet_max(&self) -> usize {
        match &self.phase {
            Phase::Open(open) => open.packet_max(),
            Phase::Ended { was: Some(open), .. } => open.packet_max(),
            Phase::Greeting { .. } | Phase::Deciding(_) | Phase::Ended { was: None, .. } => usize::MAX,
        }
    }

    /// What it holds of its client's.
    pub(crate) fn holdings(&self) -> Holdings {
        match &self.phase {
            Phase::Open(open) => open.holdings(),
            Phase::Greeting { .. } | Phase::Deciding(_) | Phase::Ended { .. } => Holdings::default(),
        }
    }

    /// The Keep Alive that holds, in s; 0 is none.
    pub(crate) fn keep_alive_s(&self) -> u16 {
        match &self.phase {
            Phase::Open(open) => open.keep_alive_s,
            Phase::Greeting { .. } | Phase::Deciding(_) | Phase::Ended { .. } => 0,
        }
    }

    /// Whether another packet may be handed over now. A 3.1.1 client knows no Receive Maximum: it
    /// waits here.
    pub(crate) fn wants_packet(&self) -> bool {
        match &self.phase {
            Phase::Greeting { .. } => true,
            Phase::Open(open) => open.wants_packet(&self.rules.limits),
            Phase::Deciding(_) | Phase::Ended { .. } => false,
        }
    }

    /// Whether CONNECT is what comes next.
    pub(crate) const fn expects_connect(&self) -> bool {
        matches!(self.phase, Phase::Greeting { .. })
    }

    /// Whether nothing more comes.
    pub(crate) const fn is_ended(&self) -> bool {
        matches!(self.phase, Phase::Ended { .. })
    }

    /// Takes the next packet as it was cut from the stream.
    ///
    /// # Errors
    ///
    /// As [`Session::handle_packet`].
    pub(crate) fn handle_frame(&mut self, frame: Frame, now: Timestamp) -> Result<(), SessionError> {
        if let Phase::Greeting { spoken, .. } = &mut self.phase {
            *spoken = frame.connect_version();
        }
        let packet = Packet::decode(frame, self.version())?;
        self.handle_packet(packet, now)
    }

    /// Takes one packet.
    ///
    /// # Errors
    ///
    /// The client broke a rule: [`Session::fail`] follows.
    pub(crate) fn handle_packet(&mut self, packet: Packet, now: Timestamp) -> Result<(), SessionError> {
        match (&mut self.phase, packet) {
            (Phase::Greeting { .. }, Packet::Connect(connect)) => {
                let request = greeting::check(&connect, &self.rules);
                self.phase = Phase::Deciding(connect);
                self.out.events.push_back(Event::Connect(request?));
                Ok(())
            }
            (Phase::Greeting { .. }, packet) => Err(SessionError::NotConnect { packet: packet.name() }),
            (Phase::Open(open), Packet::Disconnect(disconnect)) => {
                open.disconnected(&disconnect, &self.rules.limits)?;
                self.end();
                Ok(())
            }
            (Phase::Open(open), packet) => open.handle_packet(packet, &self.rules, now, &mut self.out),
            // The shell hands nothing over while it decides, nor after the end.
            (Phase::Deciding(_) | Phase::Ended { .. }, _) => Ok(()),
        }
    }

    /// How long the session is to outlive the connection that asks for it, in s.
    pub(crate) fn expiry_s(&self) -> u32 {
        match &self.phase {
            Phase::Deciding(connect) => terms::Terms::of(connect, &self.rules.limits).expiry_s,
            Phase::Open(open) => open.expiry_s,
            Phase::Greeting { .. } | Phase::Ended { .. } => 0,
        }
    }

    /// The Will of a client that asks to come in.
    pub(crate) fn will_asked(&self) -> Option<&Will> {
        match &self.phase {
            Phase::Deciding(connect) => connect.will.as_ref(),
            Phase::Greeting { .. } | Phase::Open(_) | Phase::Ended { .. } => None,
        }
    }

    /// Checks what only a known client can be told about its CONNECT.
    ///
    /// # Errors
    ///
    /// Its Will is not for it: the reason to [`Session::refuse`] with.
    pub(crate) fn may_come_in(&self, who: &Principal) -> Result<(), ReasonCode> {
        match &self.phase {
            Phase::Deciding(connect) => greeting::check_will(connect, who, &self.rules),
            Phase::Greeting { .. } | Phase::Open(_) | Phase::Ended { .. } => Ok(()),
        }
    }

    /// The client is in: as `who`, with the session it had or a new one, under an identifier of
    /// ours where it brought none.
    pub(crate) fn admit(
        &mut self,
        who: Arc<Principal>,
        resumed: Option<Resumable>,
        assigned: Option<&ClientId>,
        now: Timestamp,
    ) {
        let version = self.version();
        match std::mem::replace(&mut self.phase, Phase::Ended { was: None, version }) {
            Phase::Deciding(connect) => {
                let open = Open::new(*connect, who, resumed, assigned, &self.rules, now, &mut self.out);
                self.phase = Phase::Open(Box::new(open));
            }
            other => self.phase = other,
        }
    }

    /// The client is not let in.
    pub(crate) fn refuse(&mut self, reason: ReasonCode) {
        self.refuse_with(reason, self.rules.properties_of(reason));
    }

    /// The client broke a rule: the connection ends, and the client hears which, if it cares to.
    pub(crate) fn fail(&mut self, error: &SessionError) {
        self.close_with(error.reason_code(), || Some(Text::from_checked(error.to_string())));
    }

    /// Ends the connection and tells the client why, as far as its version can.
    pub(crate) fn close(&mut self, reason: ReasonCode) {
        self.close_with(reason, || None);
    }

    fn close_with(&mut self, reason: ReasonCode, words: impl FnOnce() -> Option<Text>) {
        let explains = match &self.phase {
            Phase::Greeting { spoken, .. } => *spoken == Some(Version::V5),
            Phase::Deciding(connect) => connect.version == Version::V5 && terms::explains(connect),
            Phase::Open(open) => open.explains,
            Phase::Ended { .. } => return,
        };
        let words = if explains { words() } else { None };
        let mut properties = self.rules.properties_of(reason);
        words.map(Property::ReasonString).into_iter().for_each(|words| properties.push(words));
        match (&self.phase, self.version()) {
            // What is no CONNECT of ours is answered by nothing [MQTT-3.1.4-1], but another version is.
            (Phase::Greeting { spoken: None | Some(Version::V3_1_1), .. }, _)
                if reason != ReasonCode::UnsupportedProtocolVersion =>
            {
                self.end();
            }
            (Phase::Greeting { .. } | Phase::Deciding(_), _) => self.refuse_with(reason, properties),
            (Phase::Open(_), Version::V5) => {
                let reason = reason.of_disconnect();
                self.out.packet(Packet::Disconnect(Disconnect { reason, properties }));
                self.end();
            }
            (Phase::Open(_), Version::V3_1_1) => self.end(),
            (Phase::Ended { .. }, _) => {}
        }
    }

    fn refuse_with(&mut self, reason: ReasonCode, properties: Properties) {
        let ack = ConnAck { session_present: false, reason: reason.of_connack(), properties };
        self.out.packet(Packet::ConnAck(ack));
        self.end();
    }

    /// The stream is gone.
    pub(crate) fn lose(&mut self) {
        self.end();
    }

    /// A message of a subscription. Ask [`Session::deliverable`] before.
    /// Says whether it leaves: not once it has expired.
    pub(crate) fn deliver(&mut self, queued: Queued, now: Timestamp) -> bool {
        match &mut self.phase {
            Phase::Open(open) => open.deliver(queued, now, &mut self.out),
            Phase::Greeting { .. } | Phase::Deciding(_) | Phase::Ended { .. } => false,
        }
    }

    /// A message was not written after all: it counts as acknowledged.
    pub(crate) fn not_sent(&mut self, packet_id: Option<PacketId>) {
        if let (Phase::Open(open), Some(packet_id)) = (&mut self.phase, packet_id) {
            open.not_sent(packet_id, &mut self.out);
        }
    }

    /// How many messages of QoS 1 or 2 the client takes now. `None` where it takes nothing.
    pub(crate) fn deliverable(&self) -> Option<usize> {
        match &self.phase {
            Phase::Open(open) => Some(open.deliverable()),
            Phase::Greeting { .. } | Phase::Deciding(_) | Phase::Ended { .. } => None,
        }
    }

    /// A message of the node. Its outcome comes as [`Event::Published`].
    pub(crate) fn send(&mut self, row: DownlinkRow, payload: Bytes, ticket: Ticket) {
        match &mut self.phase {
            Phase::Open(open) => open.send(row, payload, ticket, &self.rules, &mut self.out),
            Phase::Greeting { .. } | Phase::Deciding(_) | Phase::Ended { .. } => {
                self.out.events.push_back(Event::Published { ticket, outcome: Outcome::Lost });
            }
        }
    }

    /// The answer to a message.
    pub(crate) fn answer(&mut self, token: AckToken, answer: Answer) {
        self.reply(token, answer.into());
    }

    /// What became of a routed message.
    pub(crate) fn routed(&mut self, token: AckToken, reason: ReasonCode) {
        self.reply(token, inbound::Reply::Code(reason));
    }

    fn reply(&mut self, token: AckToken, reply: inbound::Reply) {
        if let Phase::Open(open) = &mut self.phase {
            open.answer(token, reply, &mut self.out);
        }
    }

    /// Every step up to [`Event::Keep`]'s number is stored: what waited for it goes on.
    pub(crate) fn kept(&mut self, number: u64) {
        if let Phase::Open(open) = &mut self.phase {
            open.kept(number, &mut self.out);
        }
    }

    /// Closes where an answer asks for it. Apart from [`Session::answer`], so that what the node
    /// had published before, a ResetRequest perhaps, leaves first.
    pub(crate) fn close_if_owed(&mut self) -> Option<ReasonCode> {
        let owed = match &self.phase {
            Phase::Open(open) => open.owed_close(),
            Phase::Greeting { .. } | Phase::Deciding(_) | Phase::Ended { .. } => None,
        };
        if let Some(reason) = owed {
            self.close(reason);
        }
        owed
    }

    /// The rules are others now: subscriptions they do not grant end, the others are put into the
    /// router anew. MQTT has no packet that says so; the client is not told.
    pub(crate) fn review(&mut self) {
        if let Phase::Open(open) = &mut self.phase {
            open.review(&self.rules, &mut self.out);
        }
    }

    /// How many messages of the client wait for their answer.
    pub(crate) fn unanswered(&self) -> usize {
        match &self.phase {
            Phase::Open(open) => open.unanswered(),
            Phase::Greeting { .. } | Phase::Deciding(_) | Phase::Ended { .. } => 0,
        }
    }

    /// Whether the shell reads from now on.
    pub(crate) fn reading(&mut self, reads: bool, now: Timestamp) {
        if let Phase::Open(open) = &mut self.phase {
            open.reading(reads, now);
        }
    }

    /// Time has passed. Says what the connection ends for, if it does.
    pub(crate) fn handle_timeout(&mut self, now: Timestamp) -> Option<ReasonCode> {
        self.poll_timeout().filter(|at| *at <= now)?;
        let reason = match &self.phase {
            Phase::Greeting { .. } => ReasonCode::MaximumConnectTime,
            Phase::Deciding(_) | Phase::Open(_) | Phase::Ended { .. } => ReasonCode::KeepAliveTimeout,
        };
        self.close(reason);
        Some(reason)
    }

    /// When to call [`Session::handle_timeout`].
    pub(crate) fn poll_timeout(&self) -> Option<Timestamp> {
        match &self.phase {
            Phase::Greeting { deadline, .. } => Some(*deadline),
            Phase::Open(open) => open.deadline(),
            Phase::Deciding(_) | Phase::Ended { .. } => None,
        }
    }

    /// What goes out next.
    pub(crate) fn poll_transmit(&mut self) -> Option<Transmit> {
        self.out.transmit.pop_front()
    }

    /// What the shell does next.
    pub(crate) fn poll_event(&mut self) -> Option<Event> {
        self.out.events.pop_front()
    }

    /// Takes apart what the connection leaves. `None` where nobody had come in.
    pub(crate) fn finish(mut self) -> Option<Remains> {
        self.end();
        match self.phase {
            Phase::Ended { was: Some(open), .. } => Some(open.finish()),
            Phase::Ended { was: None, .. } | Phase::Greeting { .. } | Phase::Deciding(_) | Phase::Open(_) => None,
        }
    }

    /// Gives back the memory of what has been sent and done.
    pub(crate) fn rest(&mut self) {
        if self.out.transmit.is_empty() {
            self.out.transmit = VecDeque::new();
        }
        if self.out.events.is_empty() {
            self.out.events = VecDeque::new();
        }
    }

    fn end(&mut self) {
        let version = self.version();
        self.phase = match std::mem::replace(&mut self.phase, Phase::Ended { was: None, version }) {
            Phase::Open(open) => Phase::Ended { was: Some(open), version },
            ended @ Phase::Ended { .. } => ended,
            Phase::Greeting { .. } | Phase::Deciding(_) => Phase::Ended { was: None, version },
        };
    }
}

#[cfg(test)]
pub(crate) mod tests;
