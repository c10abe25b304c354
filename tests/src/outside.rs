//! An outside broker between devices and the node that does to their messages whatever a test wants:
//! it drops, repeats, reorders, forges and holds back.
//!
//! It speaks MQTT 5.0 with the codec of this workspace, keeps a session for every Client Identifier,
//! and acknowledges to devices whatever it then does.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream};
use tokio::sync::{Notify, broadcast, watch};
use unhidra_broker::packet::{
    Acknowledgement, Assurance, ConnAck, Packet, PacketId, Properties, Property, Publish, ReasonCode, SubAck, Text,
    Version, split_frame,
};
use unhidra_broker::{BoxFuture, Listener};
use unhidra_core::topic::{TopicFilter, TopicName};
use unhidra_node::upstream::{Dial, Wire};

use crate::door::Network;

/// Messages to one client that are not acknowledged.
const IN_FLIGHT_MAX: usize = 16;

/// A message: its topic and its bytes.
pub type Said = (String, Bytes);

/// What the broker does with a message: what it passes on in its place.
pub type Evil = Box<dyn FnMut(Said) -> Vec<Said> + Send>;

/// The broker.
#[derive(Clone)]
pub struct OutsideBroker {
    state: Arc<Mutex<State>>,
    arrived: Arc<Notify>,
    cut: broadcast::Sender<()>,
    /// Whether the way to the node takes everything and delivers nothing.
    swallows: watch::Sender<bool>,
    /// Where devices dial.
    pub network: Network,
}

struct State {
    sessions: HashMap<String, Session>,
    evil: Evil,
    /// All that devices have said, in order.
    seen: Vec<Said>,
    is_down: bool,
    /// Whether devices are told that their messages are refused.
    refuses: bool,
    retains: bool,
    echoes: bool,
    /// Connections that were let in.
    lives: u64,
    /// PUBACKs that came behind those of messages that were sent after theirs.
    disorders: u64,
}

/// What is kept of one client.
#[derive(Default)]
struct Session {
    filters: Vec<String>,
    waiting: VecDeque<Said>,
    /// In the order they were sent.
    in_flight: VecDeque<(u16, Said)>,
    /// Those that were sent before one that is acknowledged, and have no PUBACK.
    passed_by: BTreeSet<u16>,
    last_id: u16,
    /// Which connection has it: the newest [MQTT-3.1.4-3].
    life: u64,
}

impl OutsideBroker {
    /// An honest one.
    #[must_use]
    pub fn start() -> Self {
        let honest: Evil = Box::new(|said| vec![said]);
        let state = State {
            sessions: HashMap::new(),
            evil: honest,
            seen: Vec::new(),
            is_down: false,
            refuses: false,
            retains: false,
            echoes: false,
            lives: 0,
            disorders: 0,
        };
        let broker = Self {
            state: Arc::new(Mutex::new(state)),
            arrived: Arc::new(Notify::new()),
            cut: broadcast::Sender::new(1),
            swallows: watch::Sender::new(false),
            network: Network::default(),
        };
        let (accepting, mut door) = (broker.clone(), broker.network.open());
        tokio::spawn(async move {
            while let Ok(accepted) = door.accept().await {
                tokio::spawn(accepting.clone().serve(accepted.stream));
            }
        });
        broker
    }

    /// From now on it does this with each message of a device to the node.
    pub fn be(&self, evil: impl FnMut(Said) -> Vec<Said> + Send + 'static) {
        self.lock().evil = Box::new(evil);
    }

    /// From now on, or no longer, it tells devices that their messages are refused, whatever it does with
    /// them.
    pub fn refuse(&self, refuses: bool) {
        self.lock().refuses = refuses;
    }

    /// Says something to whoever has asked for it, as if it had been published.
    pub fn say(&self, topic: &str, payload: impl Into<Bytes>) {
        self.lock().pass((topic.to_owned(), payload.into()));
        self.arrived.notify_waiters();
    }

    /// All that devices have said on `topic`, in order.
    #[must_use]
    pub fn seen(&self, topic: &str) -> Vec<Bytes> {
        self.lock().seen.iter().filter(|(of, _)| of == topic).map(|(_, payload)| payload.clone()).collect()
    }

    /// From now on, or no longer, every message it passes on carries RETAIN.
    pub fn retain(&self, retains: bool) {
        self.lock().retains = retains;
    }

    /// From now on, or no longer, it sends every message twice, under one Packet Identifier.
    pub fn echo(&self, echoes: bool) {
        self.lock().echoes = echoes;
    }

    /// How many messages it has sent to the node and has no PUBACK of.
    #[must_use]
    pub fn unacknowledged(&self) -> usize {
        let state = self.lock();
        let to_node = |session: &&Session| session.filters.iter().any(|filter| filter.contains('+'));
        state.sessions.values().filter(to_node).map(|session| session.in_flight.len()).sum()
    }

    /// How many PUBACKs have come out of the order of their messages [MQTT-4.6.0-2].
    #[must_use]
    pub fn disorders(&self) -> u64 {
        self.lock().disorders
    }

    /// Cuts every connection.
    pub fn cut_all(&self) {
        // Nobody is connected: there is nothing to cut.
        let _ = self.cut.send(());
    }

    /// From now on, or no longer, what the node says and what is said to it is taken and gone: its
    /// connections stand, and nobody is behind them.
    pub fn swallow(&self, swallows: bool) {
        self.swallows.send_replace(swallows);
    }

    /// Ends, with what it had or without, and takes nobody in until it is begun again.
    pub fn end(&self, forgets: bool) {
        let mut state = self.lock();
        state.is_down = true;
        if forgets {
            state.sessions.clear();
        }
        drop(state);
        self.cut_all();
    }

    /// Takes clients in again.
    pub fn begin(&self) {
        self.lock().is_down = false;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn serve(self, mut stream: impl AsyncRead + AsyncWrite + Unpin) {
        let mut cut = self.cut.subscribe();
        let mut client: Option<(String, u64)> = None;
        let mut read = BytesMut::new();
        loop {
            let mut arrived = std::pin::pin!(self.arrived.notified());
            arrived.as_mut().enable();
            let mut out = BytesMut::new();
            while let Some(frame) = split_frame(&mut read, 1 << 20).expect("clients speak MQTT") {
                let packet = Packet::decode(frame, Version::V5).expect("clients speak MQTT 5.0");
                let Some(answers) = self.answer(packet, &mut client) else { return };
                answers.iter().for_each(|answer| answer.encode(Version::V5, &mut out));
            }
            if let Some((client, life)) = &client {
                let Some(due) = self.lock().due(client, *life) else { return };
                due.iter().for_each(|publish| publish.encode(Version::V5, &mut out));
            }
            if stream.write_all(&out).await.is_err() {
                return;
            }
            tokio::select! {
                biased;
                _ = cut.recv() => return,
                read = stream.read_buf(&mut read) => match read {
                    Ok(0) | Err(_) => return,
                    Ok(_) => {}
                },
                () = arrived => {}
            }
        }
    }

    /// The answers to a packet; none where the connection is over.
    fn answer(&self, packet: Packet, client: &mut Option<(String, u64)>) -> Option<Vec<Packet>> {
        let mut state = self.lock();
        match packet {
            Packet::Connect(connect) if !state.is_down => {
                let id = connect.client_id.as_str().to_owned();
                if connect.clean_start {
                    state.sessions.remove(&id);
                }
                let session_present = state.sessions.contains_key(&id);
                state.lives += 1;
                let life = state.lives;
                state.sessions.entry(id.clone()).or_default().resume(life);
                *client = Some((id, life));
                // Whoever had the session before has it no more.
                self.arrived.notify_waiters();
                let mut properties = Properties::default();
                properties.push(Property::ReceiveMaximum(64));
                Some(vec![Packet::ConnAck(ConnAck { session_present, reason: ReasonCode::Success, properties })])
            }
            Packet::Subscribe(subscribe) => {
                let session = state.sessions.get_mut(&client.as_ref()?.0)?;
                let reasons = subscribe.filters.iter().map(|_| ReasonCode::GrantedQos1).collect();
                session.filters.extend(subscribe.filters.iter().map(|f| f.filter.as_str().to_owned()));
                let (packet_id, properties) = (subscribe.packet_id, Properties::default());
                Some(vec![Packet::SubAck(SubAck { packet_id, properties, reasons })])
            }
            Packet::Publish(publish) => {
                let said = (publish.topic.as_str().to_owned(), publish.payload.clone());
                state.seen.push(said.clone());
                let from_device = said.0.ends_with("/messages") || said.0.ends_with("/get");
                let passed = if from_device { (state.evil)(said) } else { vec![said] };
                passed.into_iter().for_each(|said| state.pass(said));
                let refuses = state.refuses && from_device;
                drop(state);
                self.arrived.notify_waiters();
                Some(match publish.assurance {
                    Assurance::AtLeastOnce { packet_id, .. } => {
                        let reason =
                            if refuses { ReasonCode::ImplementationSpecificError } else { ReasonCode::Success };
                        let properties = Properties::default();
                        vec![Packet::PubAck(Acknowledgement { packet_id, reason, properties })]
                    }
                    _ => Vec::new(),
                })
            }
            Packet::PubAck(ack) => {
                let session = state.sessions.get_mut(&client.as_ref()?.0)?;
                let place = session.in_flight.iter().position(|(id, _)| *id == ack.packet_id.get());
                let before = session.in_flight.iter().take(place.unwrap_or_default()).map(|(id, _)| *id);
                session.passed_by.extend(before);
                place.and_then(|place| session.in_flight.remove(place));
                let is_late = session.passed_by.remove(&ack.packet_id.get());
                state.disorders += u64::from(is_late);
                Some(Vec::new())
            }
            Packet::PingReq => Some(vec![Packet::PingResp]),
            _ => None,
        }
    }
}

impl State {
    fn pass(&mut self, said: Said) {
        let Ok(topic) = TopicName::parse(&said.0) else { return };
        for session in self.sessions.values_mut() {
            let wants = |filter: &String| TopicFilter::parse(filter).is_ok_and(|filter| filter.matches(topic));
            if session.filters.iter().any(wants) {
                session.waiting.push_back(said.clone());
            }
        }
    }

    /// What is sent next; none where another connection has taken the session over, or it is gone.
    fn due(&mut self, client: &str, life: u64) -> Option<Vec<Packet>> {
        let session = self.sessions.get_mut(client).filter(|session| session.life == life)?;
        let mut due = Vec::new();
        while session.in_flight.len() < IN_FLIGHT_MAX
            && let Some(said) = session.waiting.pop_front()
        {
            session.last_id = session.last_id % 60_000 + 1;
            let packet_id = PacketId::new(session.last_id).expect("not 0");
            let topic = Text::from_bytes(Bytes::copy_from_slice(said.0.as_bytes())).expect("a topic is text");
            let publish = |dup: bool| Publish {
                assurance: Assurance::AtLeastOnce { packet_id, dup },
                retain: self.retains,
                topic: topic.clone(),
                properties: Properties::default(),
                payload: said.1.clone(),
            };
            due.push(Packet::Publish(publish(false)));
            due.extend(self.echoes.then(|| Packet::Publish(publish(true))));
            session.in_flight.push_back((session.last_id, said));
        }
        Some(due)
    }
}

impl Session {
    /// A new connection has it. What was not acknowledged goes again, before what waits.
    fn resume(&mut self, life: u64) {
        self.passed_by.clear();
        let again = std::mem::take(&mut self.in_flight).into_iter().rev();
        again.for_each(|(_, said)| self.waiting.push_front(said));
        self.life = life;
    }
}

impl Dial for OutsideBroker {
    fn dial(&self) -> BoxFuture<'_, io::Result<Box<dyn Wire>>> {
        Box::pin(async move {
            let ends = || tokio::io::duplex(64 * 1024);
            let ((near, middle), (other, far)): ((DuplexStream, DuplexStream), _) = (ends(), ends());
            tokio::spawn(self.clone().serve(far));
            tokio::spawn(carry(middle, other, self.swallows.subscribe()));
            Ok(Box::new(near) as Box<dyn Wire>)
        })
    }
}

/// The way between the node and the broker, until either ends. Where bytes were lost it carries none ever
/// again, not even an end.
async fn carry(mut near: DuplexStream, mut far: DuplexStream, mut swallows: watch::Receiver<bool>) {
    tokio::select! {
        biased;
        _ = swallows.wait_for(|swallows| *swallows) => {}
        _ = tokio::io::copy_bidirectional(&mut near, &mut far) => return,
    }
    tokio::join!(swallow(near), swallow(far));
}

/// Takes what one side says until it ends.
async fn swallow(mut stream: DuplexStream) {
    // A duplex stream ends, and does not fail.
    let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
}
