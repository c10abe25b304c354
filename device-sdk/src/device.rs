//! The device: what firmware holds, feeds and asks.
//!
//! ```text
//!             publish, answer                       poll_event
//! firmware ---------------------> outbox    inbox -------------------> firmware
//!                                   |         ^
//!                              seal |         | open
//!                                   v         |
//! transport <--- poll_transmit --- client --- handle_bytes <--- transport
//! ```
//!
//! [`connected`](Device::connected) and [`disconnected`](Device::disconnected) say how the
//! transport is; [`poll_turn`](Device::poll_turn) does the rest over a
//! [`Transport`](crate::transport::Transport).

use core::num::NonZeroU8;
use core::time::Duration;

use heapless::Deque;
use rand_core::CryptoRng;
use unhidra_core::time::{Timestamp, UnixTime};
use unhidra_e2ee::envelope::PLAINTEXT_LEN_MAX;
use unhidra_e2ee::fingerprint::Fingerprint;

use crate::backoff::{Backoff, BackoffOptions};
use crate::client::{
    Client, ClientOptions, Delivery, Ended, Incoming, Publication, PublishError, Qos, RECEIVE_MAX, ReasonCode,
};
use crate::clock::WallClock;
use crate::outbox::{Content, Outbox, QueueError, ReadingId, WhenFull};
use crate::secure::{Identity, LoadError, SealFault, Secure};
use crate::storage::Storage;
use crate::topics::{Prefix, Row, Topics};

mod event;
mod inbox;
mod prekeys;
mod shown;
mod size;
mod turn;
mod waiting;

pub use event::{CommandTicket, Event, Fault, NotAnswered, Queued, SettingTicket, Stats};
pub use size::packet_len;
pub use turn::Turn;

use inbox::{Inbox, Took};
use prekeys::Prekeys;
use shown::{NEWS_MAX, News};
use waiting::Waiting;

/// How the device behaves.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What the topics begin with.
    pub prefix: Prefix,
    /// The longest silence promised to the node; 0 promises nothing.
    pub keep_alive_s: u16,
    /// How long the node's broker keeps the MQTT session after a connection ends; 0 asks for a new
    /// one each time.
    pub session_expiry_s: u32,
    /// How long an answer to CONNECT, SUBSCRIBE or PINGREQ may take.
    pub response_timeout: Duration,
    /// Message numbers reserved by one write: 32 suits most; 1 where RAM does not outlive a
    /// reading.
    pub lease: NonZeroU8,
    /// What is done with a new reading when as many wait as may.
    pub when_full: WhenFull,
    /// How long to wait before dialling again.
    pub backoff: BackoffOptions,
}

/// The device. Every bound is a parameter: `SLOTS` messages wait in the outbox (of which
/// [`RECEIVE_MAX`] are kept for receipts), each with a body of at most `BODY` bytes; `WINDOW`
/// sealed ones are on their way; no packet has more than `PACKET` bytes either way, which
/// [`packet_len`] computes.
pub struct Device<S, R, const SLOTS: usize, const BODY: usize, const WINDOW: usize, const PACKET: usize> {
    client: Client<PACKET, WINDOW>,
    outbox: Outbox<SLOTS, BODY>,
    secure: Secure<S>,
    topics: Topics,
    rng: R,
    clock: WallClock,
    backoff: Backoff,
    link: Link,
    prekeys: Prekeys,
    /// The node asked for a new session: nothing is sealed in the present one.
    must_begin: bool,
    /// The two do not reach one another any more: a new session is due when one may begin.
    should_begin: bool,
    commands: Deque<Waiting<BODY>, RECEIVE_MAX>,
    /// Settings that came and of which the application has not said that it took them over.
    not_applied: u16,
    /// The command or setting the application was shown last.
    shown: Option<Waiting<BODY>>,
    news: Deque<News, NEWS_MAX>,
    next_id: u64,
    plaintext: [u8; PACKET],
    sealed: [u8; PACKET],
    stats: Stats,
    /// A write failed: what is in memory may be ahead of storage.
    stopped: bool,
}

/// How the transport is.
#[derive(Debug)]
enum Link {
    Down { dial_at: Timestamp },
    Up { since: Timestamp, subscribed: bool, ended: Option<Ended> },
}

impl<S: Storage, R: CryptoRng, const SLOTS: usize, const BODY: usize, const WINDOW: usize, const PACKET: usize>
    Device<S, R, SLOTS, BODY, WINDOW, PACKET>
{
    const BUFFERS_FIT: () = {
        assert!(PACKET >= packet_len(BODY) && WINDOW >= 1, "PACKET is less than packet_len(BODY), or WINDOW is 0");
        // 512 bytes are room for the name, the ids and the times beside it.
        assert!(BODY + 512 <= PLAINTEXT_LEN_MAX, "a BODY this long fits no message: 64 000 bytes are the most");
    };

    /// Opens the device: reads what survived, and connects to nothing.
    ///
    /// # Errors
    ///
    /// [`LoadError`] says what of the storage cannot be used.
    pub fn open(
        settings: Settings,
        identity: Identity,
        medium: S,
        mut rng: R,
        now: Timestamp,
    ) -> Result<Self, LoadError<S::Error>> {
        const { Self::BUFFERS_FIT };
        let options = ClientOptions {
            client_id: identity.device,
            clean_start: settings.session_expiry_s == 0,
            session_expiry_s: settings.session_expiry_s,
            keep_alive_s: settings.keep_alive_s,
            response_timeout: settings.response_timeout,
        };
        let topics = Topics::new(settings.prefix, identity.device);
        let secure = Secure::load(identity, settings.lease, medium)?;
        // Ids of one boot follow one another; those of two boots do not meet.
        let next_id = rng.next_u64();
        Ok(Self {
            client: Client::new(options),
            outbox: Outbox::new(settings.when_full),
            secure,
            topics,
            rng,
            clock: WallClock::default(),
            backoff: Backoff::new(settings.backoff),
            link: Link::Down { dial_at: now },
            prekeys: Prekeys::Idle,
            must_begin: false,
            should_begin: false,
            commands: Deque::new(),
            not_applied: 0,
            shown: None,
            news: Deque::new(),
            next_id,
            plaintext: [0; PACKET],
            sealed: [0; PACKET],
            stats: Stats::default(),
            stopped: false,
        })
    }

    /// What a person compares with what the node shows; see [`Identity::fingerprint`].
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        self.secure.identity().fingerprint()
    }

    /// Sets the calendar. A device without a clock, whose application never does this, learns the time from the
    /// node when it first connects, and again once a day.
    pub fn set_time(&mut self, unix: UnixTime, now: Timestamp) {
        self.clock.set(unix, now);
        self.judge(now);
    }

    /// The calendar, if the device knows it.
    #[must_use]
    pub fn time(&self, now: Timestamp) -> Option<UnixTime> {
        self.clock.unix(now)
    }

    /// Takes a reading. It waits as plaintext until there is a connection, and leaves the outbox
    /// when the node has it durably (at QoS 0 when it was sent).
    ///
    /// What became of it is told by [`poll_event`](Self::poll_event), which is to be asked until it has nothing: of
    /// more than 32 that were acknowledged since, the oldest are not told.
    /// The outbox does not outlive a reset; firmware that keeps readings itself gives them ids of its own, with
    /// [`publish_as`](Self::publish_as).
    ///
    /// # Errors
    ///
    /// [`QueueError`] says why it was not taken.
    pub fn publish(&mut self, name: &str, body: &[u8], qos: Qos, now: Timestamp) -> Result<Queued, QueueError> {
        self.queue(self.fresh_id(), Content::Reading, name, body, qos, now)
    }

    /// Takes a reading under an id of the application's, which it keeps with the reading until
    /// [`Event::Acknowledged`]: published again under the same id after a reset, the node takes it once, as long
    /// as fewer than 64 other messages of the device came between. No two readings may have the same. One that
    /// waits already is not taken a second time.
    ///
    /// # Errors
    ///
    /// [`QueueError`] says why it was not taken.
    pub fn publish_as(
        &mut self,
        id: ReadingId,
        name: &str,
        body: &[u8],
        qos: Qos,
        now: Timestamp,
    ) -> Result<Queued, QueueError> {
        if self.outbox.holds(id) {
            return Ok(Queued { reading: id, dropped: None });
        }
        self.queue(id, Content::Reading, name, body, qos, now)
    }

    /// Takes a reading or an event back, and says whether it was there. One that is on its way cannot be: the node
    /// may have it.
    pub fn withdraw(&mut self, id: ReadingId) -> bool {
        self.outbox.withdraw(id)
    }

    /// Takes an event: something that happened, rather than a measured value.
    ///
    /// # Errors
    ///
    /// [`QueueError`] says why it was not taken.
    pub fn report(&mut self, name: &str, body: &[u8], qos: Qos, now: Timestamp) -> Result<Queued, QueueError> {
        self.queue(self.fresh_id(), Content::Event, name, body, qos, now)
    }

    const fn fresh_id(&self) -> ReadingId {
        ReadingId(self.next_id)
    }

    fn queue(
        &mut self,
        reading: ReadingId,
        content: Content,
        name: &str,
        body: &[u8],
        qos: Qos,
        now: Timestamp,
    ) -> Result<Queued, QueueError> {
        let dropped = self.outbox.push(reading, content, name, body, self.clock.unix(now), qos)?;
        if reading == self.fresh_id() {
            self.next_id = self.next_id.wrapping_add(1);
        }
        Ok(Queued { reading, dropped })
    }

    /// How many messages the node does not have yet, those on their way included.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.outbox.len()
    }

    /// What was counted.
    #[must_use]
    pub const fn stats(&self) -> &Stats {
        &self.stats
    }

    /// When to dial; `None` while the transport is up.
    #[must_use]
    pub const fn dial_at(&self) -> Option<Timestamp> {
        match self.link {
            Link::Down { dial_at } => Some(dial_at),
            Link::Up { .. } => None,
        }
    }

    /// The transport is up.
    pub fn connected(&mut self, now: Timestamp) {
        self.client.open(now);
        self.prekeys = Prekeys::Idle;
        self.clock.connected();
        self.link = Link::Up { since: now, subscribed: false, ended: None };
    }

    /// The transport is gone, or dialling failed.
    pub fn disconnected(&mut self, now: Timestamp) {
        self.client.closed();
        let (up_since, ended) = match self.link {
            Link::Up { since, ended, .. } => (Some(since), Some(ended.unwrap_or(Ended::TransportLost))),
            Link::Down { .. } => (None, None),
        };
        let dial_at = self.backoff.dial_at(up_since, now, &mut self.rng);
        self.link = Link::Down { dial_at };
        if let Some(why) = ended {
            self.tell(News::Disconnected { why, dial_at });
        }
    }

    /// Says DISCONNECT; the connection is over when that has left.
    pub fn disconnect(&mut self) {
        self.client.disconnect(ReasonCode::SUCCESS);
        self.ended(Ended::ByDevice(ReasonCode::SUCCESS));
    }

    /// Whether nothing more is to be sent or read, so that the transport can be closed.
    #[must_use]
    pub const fn is_finished(&self) -> bool {
        self.client.is_finished()
    }

    /// Bytes have arrived. Whatever they are, at worst they end the connection.
    ///
    /// # Errors
    ///
    /// [`Fault`]: the device has stopped.
    pub fn handle_bytes(&mut self, mut bytes: &[u8], now: Timestamp) -> Result<(), Fault<S::Error>> {
        self.running()?;
        loop {
            let took = match self.client.handle_bytes(&mut bytes, now) {
                Ok(None) => return Ok(()),
                Err(ended) => {
                    self.ended(ended);
                    return Ok(());
                }
                Ok(Some(Incoming::Message { topic, payload, delivery })) => {
                    let may_begin = self.secure.sessions().may_restart(self.clock.unix_or_uptime(now));
                    let mut inbox = Inbox {
                        secure: &mut self.secure,
                        topics: &self.topics,
                        prekeys: &mut self.prekeys,
                        clock: &mut self.clock,
                        rng: &mut self.rng,
                        out: &mut self.plaintext,
                        stats: &mut self.stats,
                        commands: &mut self.commands,
                        not_applied: &mut self.not_applied,
                        wants_session: self.must_begin || (self.should_begin && may_begin),
                    };
                    let took = inbox.take(topic, payload, delivery, now);
                    // It may have said the time.
                    self.judge(now);
                    took
                }
                Ok(Some(Incoming::Connected { session_present })) => {
                    self.subscribe(session_present, now);
                    continue;
                }
                Ok(Some(Incoming::Subscribed)) => {
                    if let Link::Up { subscribed, .. } = &mut self.link {
                        *subscribed = true;
                    }
                    self.speak_up(now);
                    continue;
                }
                Ok(Some(Incoming::Acknowledged { publication, reason })) => {
                    self.acknowledged(publication, reason, now);
                    continue;
                }
            };
            self.follow(took, now)?;
        }
    }

    fn subscribe(&mut self, session_present: bool, now: Timestamp) {
        let (commands, prekeys) = (self.topics.topic(Row::Commands), self.topics.topic(Row::Prekeys));
        // The client is online, and two topics of the longest kind fit.
        let _ = self.client.subscribe(&[&commands, &prekeys], now);
        self.tell(News::Connected { session_present });
    }

    fn acknowledged(&mut self, publication: Publication, reason: ReasonCode, now: Timestamp) {
        self.stats.refused += u64::from(reason.is_undelivered());
        self.prekeys.acknowledged(publication, reason, now);
        let answered = self.outbox.acknowledged(publication, reason, now);
        self.stats.untold += u64::from(answered.untold);
        // What the node does not open twice it will not open the third time.
        self.should_begin |= answered.unopened_again;
    }

    /// Does what follows from a message of the node.
    fn follow(&mut self, took: Took<S::Error>, now: Timestamp) -> Result<(), Fault<S::Error>> {
        match took {
            Took::Answered { delivery, reason } => self.reply(delivery, reason),
            // PUBACK leaves when the application has taken the command.
            Took::Kept => {}
            Took::Receipt { delivery, command, status } => {
                self.reply(delivery, ReasonCode::SUCCESS);
                // Where the outbox has no room left, the node hears nothing: it has its own expiry.
                let receipt = Content::Receipt { command, status };
                let _ = self.queue(self.fresh_id(), receipt, "", b"", Qos::AtLeastOnce, now);
            }
            Took::NewSession { delivery, counter } => {
                (self.must_begin, self.should_begin) = (false, false);
                self.reply(delivery, ReasonCode::SUCCESS);
                self.tell(News::NewSession { counter });
                self.say_something(now);
            }
            Took::Reset { delivery } => {
                self.must_begin = true;
                self.reply(delivery, ReasonCode::SUCCESS);
            }
            Took::OutOfReach { delivery } => {
                self.should_begin = true;
                self.reply(delivery, ReasonCode::IMPLEMENTATION_SPECIFIC);
            }
            Took::Storage(error) => {
                self.stopped = true;
                return Err(Fault::Storage(error));
            }
        }
        Ok(())
    }

    /// The node learns of a session by its first message, so there must be one: only then can it
    /// send commands.
    fn say_something(&mut self, now: Timestamp) {
        if self.outbox.next(self.secure.session_counter()).is_none() {
            // A full outbox has something to say, so this does not fail where it matters.
            let _ = self.queue(self.fresh_id(), Content::Greeting, "session", b"", Qos::AtLeastOnce, now);
        }
    }

    /// A device that is here and has nothing new to say says that. The node may have lost its session
    /// or been put back from a backup, or may have as much unanswered as may be: it can say nothing
    /// before it has heard the device, and a device that only listens would wait for ever.
    fn speak_up(&mut self, now: Timestamp) {
        // What is sent again is no answer: the node has opened it before.
        if self.secure.sessions().present().is_some() {
            self.say_something(now);
        }
    }

    fn reply(&mut self, delivery: Option<Delivery>, reason: ReasonCode) {
        if let Some(delivery) = delivery {
            self.client.acknowledge(delivery, reason);
        }
    }

    /// The bytes to send next: the same again until [`transmitted`](Self::transmitted) says how
    /// many of them have left. What waits is sealed here, since only now there is a connection.
    ///
    /// # Errors
    ///
    /// [`Fault`]: the device has stopped.
    pub fn poll_transmit(&mut self, now: Timestamp) -> Result<Option<&[u8]>, Fault<S::Error>> {
        self.running()?;
        self.judge(now);
        if matches!(self.link, Link::Up { subscribed: true, ended: None, .. }) {
            self.expire(now)?;
            self.ask_for_bundle(now);
            self.seal_waiting(now)?;
        }
        Ok(self.client.poll_transmit(now))
    }

    /// The first `count` bytes that [`poll_transmit`](Self::poll_transmit) gave have left.
    pub fn transmitted(&mut self, count: usize, now: Timestamp) {
        self.client.transmitted(count, now);
    }

    fn expire(&mut self, now: Timestamp) -> Result<(), Fault<S::Error>> {
        if let Some(unix) = self.clock.unix(now) {
            self.secure.clock_is(unix);
        }
        let unix = self.clock.unix_or_uptime(now);
        self.secure.expire(unix).map_err(|error| {
            self.stopped = true;
            Fault::Storage(error)
        })
    }

    fn ask_for_bundle(&mut self, now: Timestamp) {
        let unix = self.clock.unix_or_uptime(now);
        let sessions = self.secure.sessions();
        let wanted = self.must_begin
            || sessions.restart_due(unix)
            || (self.should_begin && sessions.may_restart(unix))
            || self.clock.asks_at().is_some_and(|at| now >= at);
        if wanted && self.prekeys.may_ask(now) && self.client.has_room() {
            let suite = self.secure.identity().suite;
            let request = self.prekeys.ask(suite, now, &mut self.rng);
            let asked = self.client.publish(&self.topics.topic(Row::PrekeysGet), Qos::AtLeastOnce, &request);
            self.prekeys.asked(asked.ok(), now);
            self.clock.asked(now);
        }
    }

    fn seal_waiting(&mut self, now: Timestamp) -> Result<(), Fault<S::Error>> {
        let topic = self.topics.topic(Row::Messages);
        let payload_len_max = self.client.payload_len_max(&topic);
        while !self.must_begin && self.client.has_room() {
            let session = self.secure.session_counter();
            let Some(entry) = self.outbox.next(session) else { break };
            let (id, qos) = (entry.id, entry.qos);
            let padded = entry.plaintext().encode_padded(&mut self.plaintext);
            let plaintext = padded.ok().and_then(|len| self.plaintext.get(..len)).unwrap_or_default();
            let Some(sealed_len) = self.secure.sealed_len(plaintext.len()) else { break };
            if plaintext.is_empty() || sealed_len > payload_len_max {
                // What a command came to is said without what the application says of it, rather than not at all.
                if self.outbox.shorten(id) {
                    continue;
                }
                // The node's own bound: another connection may have another.
                self.outbox.refused(id, ReasonCode::PACKET_TOO_LARGE, session, now);
                continue;
            }
            let unix = self.clock.unix_or_uptime(now);
            let sealed = match self.secure.seal(plaintext, &mut self.sealed, unix, &mut self.rng) {
                Ok(sealed) => sealed,
                Err(SealFault::Storage(error)) => {
                    self.stopped = true;
                    return Err(Fault::Storage(error));
                }
                Err(SealFault::NoSession) => break,
                Err(SealFault::Spent) => {
                    // Only a new session goes on.
                    self.must_begin = true;
                    break;
                }
            };
            self.stats.sealed += 1;
            match self.client.publish(&topic, qos, sealed) {
                Ok(publication) => self.outbox.sent(id, publication, session),
                // There was room and it fits, so this is never taken; the number would be wasted
                // and the reading sealed anew.
                Err(PublishError::Full | PublishError::TooLarge { .. } | PublishError::NotConnected) => break,
            }
        }
        Ok(())
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        match self.link {
            Link::Down { dial_at } => Some(dial_at),
            Link::Up { subscribed, .. } => {
                let may_ask = subscribed && self.prekeys.is_idle() && self.client.has_room();
                let asks_at = self.clock.asks_at().filter(|_| may_ask);
                let others = [self.client.poll_timeout(), self.prekeys.poll_timeout(), self.outbox.poll_timeout()];
                others.into_iter().chain([asks_at]).flatten().min()
            }
        }
    }

    /// Time has passed. Then [`poll_transmit`](Self::poll_transmit) may have something.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        self.judge(now);
        self.prekeys.handle_timeout(now);
        self.outbox.handle_timeout(now);
        if matches!(self.link, Link::Up { subscribed: true, ended: None, .. }) {
            self.ask_for_bundle(now);
        }
        if let Err(ended) = self.client.handle_timeout(now) {
            self.ended(ended);
        }
    }

    /// Ends the device and gives its medium back, for tests and for a restart after a [`Fault`].
    pub fn into_medium(self) -> S {
        self.secure.into_medium()
    }

    const fn running(&self) -> Result<(), Fault<S::Error>> {
        if self.stopped { Err(Fault::Stopped) } else { Ok(()) }
    }

    fn ended(&mut self, why: Ended) {
        if let Link::Up { ended: ended @ None, .. } = &mut self.link {
            *ended = Some(why);
        }
    }
}
