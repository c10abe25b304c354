//! The device's MQTT 5 client: bytes in, bytes out, timers as values. No socket, no clock.
//!
//! ```text
//! Offline --open--> Connecting --CONNACK 0--> Online --error, disconnect--> Closing --DISCONNECT--> Closed
//!    ^                  |                       |                                                     |
//!    |                  +--CONNACK >= 0x80------+--DISCONNECT of the server-----------------------> Closed
//!    +-------------------------------------- closed --------------------------------------------------+
//! ```
//!
//! A link that takes no more bytes holds nobody for ever: Connecting and Closing have a deadline,
//! after which they are Closed, and Online has one unless Keep Alive is off.
//!
//! Clause numbers are of MQTT 5.0.

use core::time::Duration;

use heapless::{Deque, Vec};
use thiserror::Error;
use unhidra_core::ids::DeviceId;
use unhidra_core::time::Timestamp;

mod assembler;
mod decode;
mod encode;
mod ended;
mod online;
mod reason;
mod window;
mod wire;

pub use decode::DecodeError;
pub use ended::Ended;
pub use reason::ReasonCode;
pub use window::Publication;

use assembler::Assembler;
use decode::{Connack, Packet};
use online::Online;
use window::Window;

/// Messages of the server that may wait for their PUBACK at once; announced as Receive Maximum.
/// A server that sends more is disconnected with 0x93.
pub const RECEIVE_MAX: usize = 4;

/// The longest control packet that is no PUBLISH: SUBSCRIBE to two topics of the longest kind.
const CONTROL_LEN_MAX: usize = 384;

/// How a message travels.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Qos {
    /// Sent once, perhaps lost.
    AtMostOnce,
    /// Sent until it is acknowledged.
    AtLeastOnce,
}

/// What CONNECT asks for.
#[derive(Clone, Copy, Debug)]
pub struct ClientOptions {
    /// The Client Identifier: the device's name.
    pub client_id: DeviceId,
    /// Whether the server is to forget the MQTT session of before.
    pub clean_start: bool,
    /// How long the server keeps the MQTT session after the connection ends.
    pub session_expiry_s: u32,
    /// The longest silence promised; 0 promises nothing.
    pub keep_alive_s: u16,
    /// How long an answer to CONNECT, SUBSCRIBE or PINGREQ may take, and a link to take a PINGREQ
    /// or a DISCONNECT.
    pub response_timeout: Duration,
}

/// The client. `PACKET` bounds every packet both ways, in bytes, and is announced as Maximum
/// Packet Size; `WINDOW` is how many of its own messages it holds until they are acknowledged.
pub struct Client<const PACKET: usize, const WINDOW: usize> {
    options: ClientOptions,
    state: State,
    /// Counts connections, so that an answer for an old one is known.
    connection: u32,
    assembler: Assembler<PACKET>,
    window: Window<PACKET, WINDOW>,
    unanswered: Vec<u16, RECEIVE_MAX>,
    answers: Deque<(u16, ReasonCode), RECEIVE_MAX>,
    control: Control,
    outgoing: Outgoing,
}

/// One control packet, written when it is due.
struct Control {
    pending: bool,
    len: usize,
    bytes: [u8; CONTROL_LEN_MAX],
}

/// The packet that is leaving, and how many of its bytes have left.
enum Outgoing {
    Nothing,
    Control { sent: usize },
    Publish { slot: usize, sent: usize },
}

enum State {
    Offline,
    Connecting {
        deadline: Timestamp,
    },
    Online(Online),
    /// DISCONNECT is due, behind the packet that has begun, or is leaving: then `goodbye` is taken.
    /// `deadline` is set as soon as a time is told, since [`Client::disconnect`] is told none.
    Closing {
        goodbye: Option<ReasonCode>,
        deadline: Option<Timestamp>,
    },
    /// Nothing leaves any more, not even the rest of a packet.
    Closed,
}

/// What a packet of the server means.
#[derive(Debug, Eq, PartialEq)]
pub enum Incoming<'a> {
    /// The server takes the connection.
    Connected {
        /// Whether it kept the MQTT session of before.
        session_present: bool,
    },
    /// Every topic asked for is granted.
    Subscribed,
    /// A message.
    Message {
        /// Its Topic Name.
        topic: &'a str,
        /// What it carries.
        payload: &'a [u8],
        /// To be answered with [`Client::acknowledge`]; `None` at QoS 0.
        delivery: Option<Delivery>,
    },
    /// PUBACK: the server took a message, or refused it. Or no PUBACK, with 0x95: a message of a
    /// connection before is longer than the server takes on this one, and is not sent again.
    Acknowledged {
        /// Which.
        publication: Publication,
        /// Success, or why it was refused.
        reason: ReasonCode,
    },
}

/// The right, and the duty, to answer one message of the server. Not `Clone`.
#[derive(Debug, Eq, PartialEq)]
#[must_use = "the server waits for PUBACK and sends at most RECEIVE_MAX messages without one"]
pub struct Delivery {
    packet_id: u16,
    connection: u32,
}

/// Why a message was not taken.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum PublishError {
    /// Every slot of the window is in use, or 32 would be on their way. Ask again after a PUBACK.
    #[error("as many messages as may be are on their way")]
    Full,
    /// The packet is larger than the buffer, or than the server takes.
    #[error("a packet of {len} bytes, at most {max} are possible")]
    TooLarge {
        /// Bytes of the packet.
        len: usize,
        /// Bytes possible.
        max: usize,
    },
    /// There is no connection.
    #[error("not connected")]
    NotConnected,
}

/// Messages that may follow the oldest unacknowledged one of QoS 1: the other side knows a repeat
/// by its memory of the last 32 (e2ee/PROTOCOL.md section 7).
const AFTER_OLDEST_MAX: u64 = 31;

impl<const PACKET: usize, const WINDOW: usize> Client<PACKET, WINDOW> {
    /// A client without a connection.
    #[must_use]
    pub const fn new(options: ClientOptions) -> Self {
        Self {
            options,
            state: State::Offline,
            connection: 0,
            assembler: Assembler::new(),
            window: Window::new(),
            unanswered: Vec::new(),
            answers: Deque::new(),
            control: Control { pending: false, len: 0, bytes: [0; CONTROL_LEN_MAX] },
            outgoing: Outgoing::Nothing,
        }
    }

    /// The transport is up: CONNECT is due.
    pub fn open(&mut self, now: Timestamp) {
        self.closed();
        let connect = encode::Connect {
            client_id: self.options.client_id.as_str(),
            clean_start: self.options.clean_start,
            keep_alive_s: self.options.keep_alive_s,
            session_expiry_s: self.options.session_expiry_s,
            receive_max: RECEIVE_MAX as u16,
            packet_len_max: u32::try_from(PACKET).unwrap_or(u32::MAX),
        };
        self.control.write(|out| connect.write(out));
        self.state = State::Connecting { deadline: now.saturating_add(self.options.response_timeout) };
    }

    /// The transport is gone. What was not acknowledged waits for the next connection.
    pub fn closed(&mut self) {
        self.state = State::Offline;
        self.connection = self.connection.wrapping_add(1);
        self.assembler.clear();
        self.unanswered.clear();
        self.answers.clear();
        self.control.pending = false;
        self.outgoing = Outgoing::Nothing;
    }

    /// Whether the server has taken the connection and it has not ended.
    #[must_use]
    pub const fn is_online(&self) -> bool {
        matches!(self.state, State::Online(_))
    }

    /// Whether nothing more is to be sent or read, so that the transport can be closed.
    #[must_use]
    pub const fn is_finished(&self) -> bool {
        matches!(self.state, State::Offline | State::Closed)
    }

    /// Takes bytes off the front of `bytes`, up to the end of one packet, and says what it means.
    /// Call again until it gives `None`: then `bytes` is empty.
    ///
    /// # Errors
    ///
    /// [`Ended`] says why the connection is over; a DISCONNECT may be left to send.
    pub fn handle_bytes<'a>(&'a mut self, bytes: &mut &[u8], now: Timestamp) -> Result<Option<Incoming<'a>>, Ended> {
        // Of what CONNACK ruled out the layer above hears as of any refusal, one message a call.
        if let Some(publication) = self.window.take_refused() {
            return Ok(Some(Incoming::Acknowledged { publication, reason: ReasonCode::PACKET_TOO_LARGE }));
        }
        loop {
            let whole = match self.state {
                State::Connecting { .. } | State::Online(_) => self.assembler.feed(bytes),
                // What comes after the end is not read.
                State::Offline | State::Closing { .. } | State::Closed => {
                    *bytes = &[];
                    return Ok(None);
                }
            };
            let (first, body) = match whole {
                Ok(Some(whole)) => whole,
                Ok(None) => return Ok(None),
                Err(error) => return Err(self.end(Ended::from_assembler(error, PACKET), now)),
            };
            let mut inner = Inner {
                state: &mut self.state,
                connection: self.connection,
                window: &mut self.window,
                unanswered: &mut self.unanswered,
                options: &self.options,
            };
            let handled =
                decode::decode(first, body).map_err(Ended::Malformed).and_then(|packet| inner.handle(packet, now));
            match handled {
                Ok(Step::Nothing) => {}
                Ok(Step::Connected { session_present }) => return Ok(Some(Incoming::Connected { session_present })),
                Ok(Step::Subscribed) => return Ok(Some(Incoming::Subscribed)),
                Ok(Step::Acknowledged { publication, reason }) => {
                    return Ok(Some(Incoming::Acknowledged { publication, reason }));
                }
                Ok(Step::Message { delivery }) => return Ok(self.message(delivery)),
                Err(ended) => return Err(self.end(ended, now)),
            }
        }
    }

    /// The message that was just put together.
    fn message(&self, delivery: Option<Delivery>) -> Option<Incoming<'_>> {
        let (first, body) = self.assembler.whole()?;
        match decode::decode(first, body) {
            Ok(Packet::Publish { topic, payload, .. }) => Some(Incoming::Message { topic, payload, delivery }),
            _ => None,
        }
    }

    /// Answers a message of the server. An answer for a connection that is over is dropped: the
    /// server sends that message again.
    pub fn acknowledge(&mut self, delivery: Delivery, reason: ReasonCode) {
        if delivery.connection != self.connection {
            return;
        }
        if let Some(at) = self.unanswered.iter().position(|id| *id == delivery.packet_id) {
            self.unanswered.swap_remove(at);
            // At most RECEIVE_MAX are unanswered or queued, so there is room.
            let _ = self.answers.push_back((delivery.packet_id, reason));
        }
    }

    /// Subscribes to `topics` at QoS 1. Once a connection; further calls replace what was not sent.
    ///
    /// # Errors
    ///
    /// [`PublishError`] where there is no connection or the topics are too long.
    pub fn subscribe(&mut self, topics: &[&str], now: Timestamp) -> Result<(), PublishError> {
        let State::Online(online) = &mut self.state else { return Err(PublishError::NotConnected) };
        let packet_id = self.window.take_packet_id();
        if !self.control.write(|out| encode::subscribe(out, packet_id, topics)) {
            return Err(PublishError::TooLarge { len: CONTROL_LEN_MAX + 1, max: CONTROL_LEN_MAX });
        }
        online.subscribe(packet_id, topics.len(), now);
        Ok(())
    }

    /// Whether [`publish`](Self::publish) has a slot now.
    #[must_use]
    pub fn has_room(&self) -> bool {
        let after_oldest = self.window.since_oldest_unacknowledged();
        self.is_online() && self.window.has_room() && after_oldest.is_none_or(|after| after < AFTER_OLDEST_MAX)
    }

    /// The most bytes of payload a message to `topic` may have on this connection.
    #[must_use]
    pub fn payload_len_max(&self, topic: &str) -> usize {
        let State::Online(online) = &self.state else { return 0 };
        let max = online.packet_len_max.min(PACKET);
        // The length of the length depends on the length: step down until it fits.
        let mut payload = max.saturating_sub(encode::publish_len(topic, true, 0));
        while payload > 0 && encode::publish_len(topic, true, payload) > max {
            payload -= 1;
        }
        payload
    }

    /// Takes a message for sending. Its bytes wait here until PUBACK and are sent again, the same
    /// ones, on every new connection that takes as many.
    ///
    /// # Errors
    ///
    /// [`PublishError`]; nothing was taken.
    pub fn publish(&mut self, topic: &str, qos: Qos, payload: &[u8]) -> Result<Publication, PublishError> {
        let State::Online(online) = &self.state else { return Err(PublishError::NotConnected) };
        let acknowledged = qos == Qos::AtLeastOnce;
        let (len, max) = (encode::publish_len(topic, acknowledged, payload.len()), online.packet_len_max.min(PACKET));
        if len > max {
            return Err(PublishError::TooLarge { len, max });
        }
        if !self.has_room() {
            return Err(PublishError::Full);
        }
        self.window.push(topic, acknowledged, payload).map_err(|_| PublishError::Full)
    }

    /// Ends the connection: DISCONNECT is due.
    pub fn disconnect(&mut self, reason: ReasonCode) {
        match self.state {
            State::Online(_) => self.state = State::Closing { goodbye: Some(reason), deadline: None },
            // Before CONNACK the transport is simply closed.
            State::Connecting { .. } => self.finish(),
            State::Offline | State::Closing { .. } | State::Closed => {}
        }
    }

    /// The bytes to send next: the same again until [`transmitted`](Self::transmitted) says how
    /// many of them have left. A packet that has begun is finished before the next one.
    pub fn poll_transmit(&mut self, now: Timestamp) -> Option<&[u8]> {
        self.limit_closing(now);
        if matches!(self.outgoing, Outgoing::Nothing) {
            self.outgoing = self.next_outgoing(now);
        }
        match self.outgoing {
            Outgoing::Nothing => None,
            Outgoing::Control { sent } => self.control.packet().get(sent..),
            Outgoing::Publish { slot, sent } => self.window.packet(slot).get(sent..),
        }
    }

    /// The first `count` bytes that [`poll_transmit`](Self::poll_transmit) gave have left.
    pub fn transmitted(&mut self, count: usize, now: Timestamp) {
        let (len, sent) = match &mut self.outgoing {
            Outgoing::Nothing => return,
            Outgoing::Control { sent } => (self.control.len, sent),
            Outgoing::Publish { slot, sent } => (self.window.packet(*slot).len(), sent),
        };
        *sent = sent.saturating_add(count);
        if *sent >= len {
            match self.outgoing {
                Outgoing::Publish { slot, .. } => self.window.sent(slot),
                Outgoing::Control { .. } => self.control.pending = false,
                Outgoing::Nothing => {}
            }
            self.outgoing = Outgoing::Nothing;
            if matches!(self.state, State::Closing { goodbye: None, .. }) {
                self.state = State::Closed;
            }
        }
        if let State::Online(online) = &mut self.state {
            online.sent(now);
        }
    }

    /// What leaves next: an answer before a PINGREQ before a message.
    fn next_outgoing(&mut self, now: Timestamp) -> Outgoing {
        match &mut self.state {
            State::Offline | State::Closed => return Outgoing::Nothing,
            State::Connecting { .. } => {}
            State::Closing { goodbye, .. } => {
                if let Some(reason) = goodbye.take() {
                    self.control.write(|out| encode::disconnect(out, reason));
                }
            }
            State::Online(_) if self.control.pending => {}
            State::Online(online) => {
                if let Some((packet_id, reason)) = self.answers.pop_front() {
                    self.control.write(|out| encode::puback(out, packet_id, reason));
                } else if online.take_ping(now) {
                    self.control.write(encode::pingreq);
                } else if let Some(slot) = self.window.begin(online.in_flight_max) {
                    return Outgoing::Publish { slot, sent: 0 };
                }
            }
        }
        if self.control.pending { Outgoing::Control { sent: 0 } } else { Outgoing::Nothing }
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        match &self.state {
            State::Offline | State::Closed => None,
            // Without one it is set at once.
            State::Closing { deadline, .. } => Some(deadline.unwrap_or(Timestamp::ZERO)),
            State::Connecting { deadline } => Some(*deadline),
            State::Online(online) => online.poll_timeout(),
        }
    }

    /// Time has passed.
    ///
    /// # Errors
    ///
    /// [`Ended::Silent`] where an answer is overdue. An end of which the reason was given before is
    /// only cut short: then [`is_finished`](Self::is_finished) says so.
    pub fn handle_timeout(&mut self, now: Timestamp) -> Result<(), Ended> {
        self.limit_closing(now);
        let silent = match &mut self.state {
            State::Offline | State::Closed => false,
            State::Closing { deadline, .. } => {
                if deadline.is_some_and(|deadline| now >= deadline) {
                    self.finish();
                }
                false
            }
            State::Connecting { deadline } => now >= *deadline,
            State::Online(online) => online.is_overdue(now),
        };
        if silent { Err(self.end(Ended::Silent, now)) } else { Ok(()) }
    }

    /// Ends the connection for a reason, and gives the reason back.
    fn end(&mut self, ended: Ended, now: Timestamp) -> Ended {
        match ended.reason_code() {
            // Before CONNACK a client has nothing to say but CONNECT.
            Some(reason) if self.is_online() => {
                self.state = State::Closing { goodbye: Some(reason), deadline: None };
                self.limit_closing(now);
            }
            _ => self.finish(),
        }
        ended
    }

    /// A link that takes no more bytes would hold back DISCONNECT, or the packet before it, for ever.
    fn limit_closing(&mut self, now: Timestamp) {
        if let State::Closing { deadline: deadline @ None, .. } = &mut self.state {
            *deadline = Some(now.saturating_add(self.options.response_timeout));
        }
    }

    /// Nothing more is sent: what had left in part is cut off with the transport.
    fn finish(&mut self) {
        self.state = State::Closed;
        self.control.pending = false;
        self.outgoing = Outgoing::Nothing;
    }
}

/// The client without the buffer a packet is read from.
struct Inner<'a, const PACKET: usize, const WINDOW: usize> {
    state: &'a mut State,
    connection: u32,
    window: &'a mut Window<PACKET, WINDOW>,
    unanswered: &'a mut Vec<u16, RECEIVE_MAX>,
    options: &'a ClientOptions,
}

enum Step {
    Nothing,
    Connected { session_present: bool },
    Subscribed,
    Message { delivery: Option<Delivery> },
    Acknowledged { publication: Publication, reason: ReasonCode },
}

impl<const PACKET: usize, const WINDOW: usize> Inner<'_, PACKET, WINDOW> {
    fn handle(&mut self, packet: Packet<'_>, now: Timestamp) -> Result<Step, Ended> {
        let online = match (&mut *self.state, &packet) {
            (State::Connecting { .. }, Packet::Connack(connack)) => return self.connack(*connack, now),
            (State::Online(online), _) => online,
            _ => return Err(Ended::OutOfTurn),
        };
        online.received(now);
        match packet {
            Packet::Connack(_) => Err(Ended::OutOfTurn),
            Packet::Publish { packet_id: None, .. } => Ok(Step::Message { delivery: None }),
            Packet::Publish { packet_id: Some(packet_id), .. } => {
                if self.unanswered.contains(&packet_id) {
                    return Err(Ended::OutOfTurn);
                }
                self.unanswered.push(packet_id).map_err(|_| Ended::ReceiveMaximumExceeded)?;
                Ok(Step::Message { delivery: Some(Delivery { packet_id, connection: self.connection }) })
            }
            Packet::Puback { packet_id, reason } => match self.window.acknowledge(packet_id) {
                Some(publication) => Ok(Step::Acknowledged { publication, reason }),
                None => Err(Ended::UnknownPacketId(packet_id)),
            },
            Packet::Suback { packet_id, reasons } => online.subscribed(packet_id, reasons).map(|()| Step::Subscribed),
            Packet::Pingresp => online.pong().map(|()| Step::Nothing),
            Packet::Disconnect { reason } => Err(Ended::ByServer(reason)),
        }
    }

    fn connack(&mut self, connack: Connack, now: Timestamp) -> Result<Step, Ended> {
        if connack.reason.is_failure() {
            return Err(Ended::Refused(connack.reason));
        }
        if connack.session_present && self.options.clean_start {
            return Err(Ended::OutOfTurn);
        }
        let online = Online::new(&connack, self.options, now);
        let packet_len_max = online.packet_len_max;
        *self.state = State::Online(online);
        if connack.qos_max == 0 {
            return Err(Ended::QosNotSupported);
        }
        self.window.rewind(connack.session_present, packet_len_max);
        Ok(Step::Connected { session_present: connack.session_present })
    }
}

impl Control {
    /// Writes a packet that is then due; `false` where it is longer than the buffer.
    fn write(&mut self, write: impl FnOnce(&mut [u8]) -> Result<usize, wire::NoRoom>) -> bool {
        match write(&mut self.bytes) {
            Ok(len) => {
                (self.pending, self.len) = (true, len);
                true
            }
            Err(wire::NoRoom) => false,
        }
    }

    fn packet(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}
