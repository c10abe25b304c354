//! Rows to another MQTT broker, at QoS 1 in MQTT 5.0: as many on their way as may be, each taken with
//! its PUBACK, and further ones go as those come.
//!
//! A connection that breaks is given up with all that was on its way, and the next one begins anew
//! behind the last row that was acknowledged in order: rows may come twice, and never out of order.

use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::time::Duration;

use futures_util::FutureExt as _;
use rumqttc::mqttbytes::v5::{ConnAck, Packet, PubAckReason, PublishProperties};
use rumqttc::{
    AsyncClient, Broker, ConnectionError, DisconnectReasonCode, Event, EventLoop, MqttOptions, PublishNoticeError,
    PublishOptions, StateError,
};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Sleep, timeout};
use unhidra_core::ids::Epoch;
use unhidra_store::BoxFuture;
use zeroize::Zeroizing;

use super::config::{Address, Config, Format};
use super::courier::Rest;
use super::fault::{Cause, Sent};
use super::local::{payload, user_properties};
use super::runner::Item;
use super::template::Template;
use crate::dial::Dialer;
use crate::upstream::why;

/// What a PUBLISH has beside topic and payload, at most: its header, lengths and identifier, and its
/// user properties, which are the same few for every row.
const OVERHEAD: usize = 192;

/// Seconds of silence after which the other side is asked whether it is there.
const KEEP_ALIVE_S: u16 = 30;

/// Another broker.
pub(crate) struct Remote {
    options: MqttOptions,
    template: Template,
    raw: bool,
    retain: bool,
    epoch: Epoch,
    rows_max: usize,
    bytes_max: usize,
    patience: Duration,
    session: Option<Session>,
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remote").field("template", &self.template).finish_non_exhaustive()
    }
}

/// A connection. It ends with this.
struct Session {
    client: AsyncClient,
    standing: watch::Receiver<Standing>,
    /// The most bytes a packet may have.
    packet_max: usize,
    /// Rows without their PUBACK, in order: at most `rows_max` of them, and `bytes_max` bytes or one row.
    on_their_way: VecDeque<OnItsWay>,
    bytes: usize,
    /// The first row that it can never take.
    too_large: Option<String>,
    /// How long the next PUBACK may take.
    patience: Pin<Box<Sleep>>,
    _carrier: JoinSet<()>,
}

/// A row without its PUBACK.
struct OnItsWay {
    bytes: usize,
    answer: BoxFuture<'static, Result<(), PublishNoticeError>>,
}

/// What became of a row that was offered to a connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Offered {
    /// It is on its way.
    Sent,
    /// It has to wait for one before it.
    Full,
}

/// How a connection stands.
#[derive(Clone, Debug)]
enum Standing {
    Connecting,
    Open {
        /// The most bytes a packet may have.
        packet_max: usize,
    },
    Gone {
        cause: Cause,
        text: String,
    },
}

/// What a broker is told of who comes.
pub(crate) struct Credentials {
    pub(crate) client_id: String,
    pub(crate) user: String,
    pub(crate) password: Zeroizing<Vec<u8>>,
}

impl Remote {
    pub(crate) fn new(
        config: &Config,
        dialer: Dialer,
        address: &Address,
        template: Template,
        credentials: Credentials,
        epoch: Epoch,
    ) -> Self {
        let rows_max = config.batch_rows.min(usize::from(u16::MAX));
        let mut options =
            MqttOptions::new(credentials.client_id, Broker::tcp(&address.host, address.port.unwrap_or_default()));
        options
            .set_keep_alive(KEEP_ALIVE_S)
            .set_clean_start(true)
            .set_connect_timeout(Duration::from_secs(config.timeout_s))
            .set_outgoing_inflight_upper_limit(u16::try_from(rows_max).unwrap_or(u16::MAX));
        if !credentials.user.is_empty() {
            options.set_credentials(credentials.user, credentials.password.to_vec());
        }
        // TLS and all is the dialler's: one way out for every outlet, one provider.
        options.set_socket_connector(move |_, _| {
            let dialer = dialer.clone();
            async move { dialer.dial().await }
        });
        Self {
            options,
            template,
            raw: config.format == Format::Raw,
            retain: config.retain,
            epoch,
            rows_max,
            bytes_max: config.batch_bytes,
            patience: Duration::from_secs(config.timeout_s),
            session: None,
        }
    }

    /// Sees to it that there is a connection, with nothing on its way.
    ///
    /// # Errors
    ///
    /// Why there is none.
    pub(crate) async fn open(&mut self) -> Result<(), Sent> {
        let before = self.session.take().filter(|session| matches!(*session.standing.borrow(), Standing::Open { .. }));
        let mut session = match before {
            Some(session) => session,
            None => self.connect().await?,
        };
        session.on_their_way.clear();
        (session.bytes, session.too_large) = (0, None);
        self.session = Some(session);
        Ok(())
    }

    /// How many rows are without their PUBACK.
    pub(crate) fn on_their_way(&self) -> usize {
        self.session.as_ref().map_or(0, |session| session.on_their_way.len())
    }

    /// Sends a row behind those that are on their way, if it may be there beside them.
    pub(crate) fn offer(&mut self, item: &Item) -> Offered {
        let (message, bytes) = (self.message(item), item.row.uplink.body.len());
        let (rows_max, bytes_max, patience) = (self.rows_max, self.bytes_max, self.patience);
        let Some(session) = &mut self.session else { return Offered::Full };
        let is_first = session.on_their_way.is_empty();
        let has_room = session.on_their_way.len() < rows_max && session.bytes.saturating_add(bytes) <= bytes_max;
        if session.too_large.is_some() || !(has_room || is_first) {
            return Offered::Full;
        }
        if message.size() > session.packet_max {
            let text = format!("a message of {} bytes; it takes {}", message.size(), session.packet_max);
            session.too_large = Some(text);
            return Offered::Full;
        }
        let Message { topic, payload, options } = message;
        // The library keeps what is beyond the other side's Receive Maximum, and no more than `rows_max`.
        let Ok(notice) = session.client.try_publish_tracked(topic, payload, options) else { return Offered::Full };
        if is_first {
            session.patience = Box::pin(tokio::time::sleep(patience));
        }
        session.bytes = session.bytes.saturating_add(bytes);
        session.on_their_way.push_back(OnItsWay { bytes, answer: Box::pin(notice.wait_completion_async()) });
        Offered::Sent
    }

    /// Waits for the PUBACK of the first row on its way, and takes with it those behind it that are there
    /// too. Says how many rows are taken. Cancel-safe.
    ///
    /// # Errors
    ///
    /// Why the row behind those that are taken is not. Where it was not refused, the connection is over.
    pub(crate) async fn acknowledged(&mut self) -> Result<usize, Sent> {
        let patience = self.patience;
        let Some(session) = &mut self.session else {
            return Err(Sent::failed(0, Cause::Broken, "the connection ended"));
        };
        let Some(first) = session.on_their_way.front_mut() else { return Ok(0) };
        let mut answer = tokio::select! {
            biased;
            answer = &mut first.answer => Some(answer),
            () = &mut session.patience => None,
        };
        let mut taken = 0;
        while let Some(Ok(())) = answer {
            let bytes = session.on_their_way.pop_front().map_or(0, |row| row.bytes);
            session.bytes = session.bytes.saturating_sub(bytes);
            taken += 1;
            let next = session.on_their_way.front_mut().and_then(|row| (&mut row.answer).now_or_never());
            match next {
                Some(next) => answer = Some(next),
                None => {
                    session.patience = Box::pin(tokio::time::sleep(patience));
                    return Ok(taken);
                }
            }
        }
        let sent = match answer {
            Some(Err(error)) => unacknowledged(&session.standing, &error, taken),
            _ => Sent::failed(taken, Cause::Timeout, format!("no PUBACK within {} s", patience.as_secs())),
        };
        if sent.fault.as_ref().is_some_and(|fault| fault.cause != Cause::Refused) {
            self.session = None;
        }
        Err(sent)
    }

    /// What there is to say once nothing is on its way of the rows that were offered: whether the next is
    /// one that is never taken.
    pub(crate) fn ended(&mut self, offered: usize) -> Sent {
        match self.session.as_mut().map(|session| session.too_large.take()) {
            Some(Some(text)) => Sent::refused(0, Rest::FirstRefused, text),
            Some(None) if offered > 0 => Sent::all(0),
            _ => {
                self.session = None;
                Sent::broke(0, Cause::Broken, "the connection takes nothing")
            }
        }
    }

    /// Sends one row with nothing on its way beside it, and waits for its PUBACK.
    pub(crate) async fn send_alone(&mut self, item: &Item) -> Sent {
        if let Err(sent) = self.open().await {
            return sent;
        }
        if self.offer(item) == Offered::Full {
            return self.ended(0);
        }
        match self.acknowledged().await {
            Ok(taken) => Sent::all(taken),
            Err(sent) => sent,
        }
    }

    /// A new connection that is let in.
    async fn connect(&mut self) -> Result<Session, Sent> {
        let built = AsyncClient::builder(self.options.clone()).capacity(self.rows_max).try_build();
        let (client, events) = built.map_err(|error| Sent::failed(0, Cause::Endpoint, error.to_string()))?;
        let (tell, mut standing) = watch::channel(Standing::Connecting);
        let mut carrier = JoinSet::new();
        carrier.spawn(carry(events, tell));
        let patience = self.patience;
        let known = standing.wait_for(|standing| !matches!(standing, Standing::Connecting));
        let known = timeout(patience, known).await.map(|known| known.map(|known| known.clone()));
        let known = match known {
            Ok(Ok(known)) => known,
            Ok(Err(_)) => return Err(Sent::failed(0, Cause::Broken, "the connection ended")),
            Err(_) => {
                return Err(Sent::failed(0, Cause::Timeout, format!("no CONNACK within {} s", patience.as_secs())));
            }
        };
        match known {
            Standing::Open { packet_max } => Ok(Session {
                client,
                standing,
                packet_max,
                on_their_way: VecDeque::new(),
                bytes: 0,
                too_large: None,
                patience: Box::pin(tokio::time::sleep(patience)),
                _carrier: carrier,
            }),
            Standing::Gone { cause, text } => Err(Sent::failed(0, cause, text)),
            Standing::Connecting => Err(Sent::failed(0, Cause::Broken, "the connection ended")),
        }
    }

    fn message(&self, item: &Item) -> Message {
        let user_properties = user_properties(item, self.epoch);
        let properties = PublishProperties { user_properties, ..PublishProperties::default() };
        Message {
            topic: self.template.topic(&item.row, item.device.as_deref()),
            payload: payload(item, self.raw, self.epoch),
            options: PublishOptions::at_least_once().retain(self.retain).properties(properties),
        }
    }
}

/// What it means that a row got no PUBACK, or one that says no.
fn unacknowledged(standing: &watch::Receiver<Standing>, error: &PublishNoticeError, taken: usize) -> Sent {
    if let PublishNoticeError::V5PubAck(reason) = error {
        let text = format!("PUBACK {reason:?}");
        return match reason {
            PubAckReason::NotAuthorized
            | PubAckReason::TopicNameInvalid
            | PubAckReason::PayloadFormatInvalid
            | PubAckReason::ImplementationSpecificError => Sent::refused(taken, Rest::FirstRefused, text),
            _ => Sent::broke(taken, Cause::Unavailable, text),
        };
    }
    match &*standing.borrow() {
        Standing::Gone { cause: Cause::Broken, text } => Sent::broke(taken, Cause::Broken, text.clone()),
        Standing::Gone { cause, text } => Sent::failed(taken, *cause, text.clone()),
        Standing::Connecting | Standing::Open { .. } => Sent::broke(taken, Cause::Broken, error.to_string()),
    }
}

/// A message on its way.
struct Message {
    topic: String,
    payload: bytes::Bytes,
    options: PublishOptions,
}

impl Message {
    /// What its packet has, at most.
    fn size(&self) -> usize {
        self.topic.len() + self.payload.len() + OVERHEAD
    }
}

/// Carries a connection's packets until it ends, and says how it stands. What waits for an answer then
/// hears that there is none.
async fn carry(mut events: EventLoop, tell: watch::Sender<Standing>) {
    let mut is_in = false;
    loop {
        match events.poll().await {
            Ok(Event::Incoming(Packet::ConnAck(answer))) => {
                is_in = true;
                tell.send_replace(Standing::Open { packet_max: packet_max(&answer) });
            }
            Ok(_) => {}
            Err(error) => {
                tell.send_replace(Standing::Gone { cause: cause(&error, is_in), text: why(&error) });
                return;
            }
        }
    }
}

fn packet_max(answer: &ConnAck) -> usize {
    let told = answer.properties.as_ref().and_then(|properties| properties.max_packet_size);
    told.and_then(|max| usize::try_from(max).ok()).unwrap_or(usize::MAX)
}

/// What kind of end it was of a connection that was let in, or was not. Broken is one that what was sent
/// may have brought about.
const fn cause(error: &ConnectionError, is_in: bool) -> Cause {
    match error {
        ConnectionError::Io(_) | ConnectionError::Timeout(_) if !is_in => Cause::Connect,
        ConnectionError::Timeout(_) | ConnectionError::MqttState(StateError::AwaitPingResp) => Cause::Timeout,
        ConnectionError::ConnectionRefused(_) => Cause::Endpoint,
        ConnectionError::MqttState(StateError::ServerDisconnect { reason_code, .. })
            if speaks_of_itself(*reason_code) =>
        {
            Cause::Unavailable
        }
        _ => Cause::Broken,
    }
}

/// Whether a DISCONNECT says that the other side ends the connection whatever was sent on it (section
/// 3.14.2.1).
const fn speaks_of_itself(reason: DisconnectReasonCode) -> bool {
    matches!(
        reason,
        DisconnectReasonCode::ServerBusy
            | DisconnectReasonCode::ServerShuttingDown
            | DisconnectReasonCode::KeepAliveTimeout
            | DisconnectReasonCode::SessionTakenOver
            | DisconnectReasonCode::MessageRateTooHigh
            | DisconnectReasonCode::AdministrativeAction
            | DisconnectReasonCode::UseAnotherServer
            | DisconnectReasonCode::ServerMoved
            | DisconnectReasonCode::ConnectionRateExceeded
            | DisconnectReasonCode::MaximumConnectTime
    )
}

#[cfg(test)]
mod tests;
