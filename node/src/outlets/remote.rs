//! Rows to another MQTT broker, at QoS 1 in MQTT 5.0: a run of them on its way at once, each taken with
//! its PUBACK.
//!
//! A connection that breaks is given up with all that was on its way, and the next one begins anew
//! behind the last row that was acknowledged in order: rows may come twice, and never out of order.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use rumqttc::mqttbytes::v5::{ConnAck, Packet, PubAckReason, PublishProperties};
use rumqttc::{
    AsyncClient, Broker, ConnectionError, Event, EventLoop, MqttOptions, PublishNotice, PublishNoticeError,
    PublishOptions,
};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;
use unhidra_core::ids::Epoch;
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
    _carrier: JoinSet<()>,
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
            patience: Duration::from_secs(config.timeout_s),
            session: None,
        }
    }

    /// Sends a run of rows and waits for their PUBACKs.
    pub(crate) async fn send(&mut self, rows: &[&Item]) -> Sent {
        let (session, packet_max) = match self.open().await {
            Ok(open) => open,
            Err(failed) => return failed,
        };
        let sent = self.publish(&session, packet_max, rows).await;
        let breaks = sent.fault.as_ref().is_some_and(|fault| fault.cause != Cause::Refused);
        self.session = (!breaks).then_some(session);
        sent
    }

    /// The connection there is, or a new one.
    async fn open(&mut self) -> Result<(Session, usize), Sent> {
        if let Some(session) = self.session.take() {
            let standing = session.standing.borrow().clone();
            if let Standing::Open { packet_max } = standing {
                return Ok((session, packet_max));
            }
        }
        let mut session = self.connect()?;
        let patience = self.patience;
        let standing = session.standing.wait_for(|standing| !matches!(standing, Standing::Connecting));
        let standing = match timeout(patience, standing).await {
            Ok(Ok(standing)) => standing.clone(),
            Ok(Err(_)) => return Err(Sent::failed(0, Cause::Broken, "the connection ended")),
            Err(_) => {
                return Err(Sent::failed(0, Cause::Timeout, format!("no CONNACK within {} s", patience.as_secs())));
            }
        };
        match standing {
            Standing::Open { packet_max } => Ok((session, packet_max)),
            Standing::Gone { cause, text } => Err(Sent::failed(0, cause, text)),
            Standing::Connecting => Err(Sent::failed(0, Cause::Broken, "the connection ended")),
        }
    }

    fn connect(&self) -> Result<Session, Sent> {
        let built = AsyncClient::builder(self.options.clone()).capacity(self.rows_max).try_build();
        let (client, events) = built.map_err(|error| Sent::failed(0, Cause::Endpoint, error.to_string()))?;
        let (tell, standing) = watch::channel(Standing::Connecting);
        let mut carrier = JoinSet::new();
        carrier.spawn(carry(events, tell));
        Ok(Session { client, standing, _carrier: carrier })
    }

    async fn publish(&self, session: &Session, packet_max: usize, rows: &[&Item]) -> Sent {
        let mut on_their_way = VecDeque::new();
        let mut stop = None;
        for item in rows {
            let message = self.message(item);
            if message.size() > packet_max {
                stop = Some(format!("a message of {} bytes; it takes {packet_max}", message.size()));
                break;
            }
            let Message { topic, payload, options } = message;
            match session.client.try_publish_tracked(topic, payload, options) {
                Ok(notice) => on_their_way.push_back(notice),
                // It has as many on their way as it may: the rest is another run.
                Err(_) => break,
            }
        }
        let mut taken = 0;
        while let Some(notice) = on_their_way.pop_front() {
            if let Err(sent) = self.acknowledged(session, notice, taken).await {
                return sent;
            }
            taken += 1;
        }
        match stop {
            Some(text) => Sent::refused(taken, Rest::FirstRefused, text),
            None if taken == 0 => Sent::failed(0, Cause::Broken, "the connection takes nothing"),
            None => Sent::all(taken),
        }
    }

    async fn acknowledged(&self, session: &Session, notice: PublishNotice, taken: usize) -> Result<(), Sent> {
        match timeout(self.patience, notice.wait_completion_async()).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(PublishNoticeError::V5PubAck(reason))) => {
                let text = format!("PUBACK {reason:?}");
                Err(match reason {
                    PubAckReason::NotAuthorized
                    | PubAckReason::TopicNameInvalid
                    | PubAckReason::PayloadFormatInvalid
                    | PubAckReason::ImplementationSpecificError => Sent::refused(taken, Rest::FirstRefused, text),
                    _ => Sent::failed(taken, Cause::Unavailable, text),
                })
            }
            Ok(Err(error)) => Err(match &*session.standing.borrow() {
                Standing::Gone { cause, text } => Sent::failed(taken, *cause, text.clone()),
                _ => Sent::failed(taken, Cause::Broken, error.to_string()),
            }),
            Err(_) => {
                Err(Sent::failed(taken, Cause::Timeout, format!("no PUBACK within {} s", self.patience.as_secs())))
            }
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
    loop {
        match events.poll().await {
            Ok(Event::Incoming(Packet::ConnAck(answer))) => {
                tell.send_replace(Standing::Open { packet_max: packet_max(&answer) });
            }
            Ok(_) => {}
            Err(error) => {
                tell.send_replace(Standing::Gone { cause: cause(&error), text: why(&error) });
                return;
            }
        }
    }
}

fn packet_max(answer: &ConnAck) -> usize {
    let told = answer.properties.as_ref().and_then(|properties| properties.max_packet_size);
    told.and_then(|max| usize::try_from(max).ok()).unwrap_or(usize::MAX)
}

const fn cause(error: &ConnectionError) -> Cause {
    match error {
        ConnectionError::Io(_) | ConnectionError::Timeout(_) => Cause::Connect,
        ConnectionError::ConnectionRefused(_) => Cause::Endpoint,
        _ => Cause::Broken,
    }
}
