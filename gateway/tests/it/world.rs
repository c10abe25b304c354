//! A gateway on simulated doors: memory store, paused time, duplex streams.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use prometheus_client::registry::Registry;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::time::Instant;
use tokio_websockets::{ClientBuilder, Error, Message, WebSocketStream};
use unhidra_core::command::{Command, Life};
use unhidra_core::ids::{CommandId, DeviceId};
use unhidra_core::message::{Uplink, UplinkKind};
use unhidra_core::setting::Setting;
use unhidra_core::time::{Clock, Timestamp, UnixTime};
use unhidra_gateway::{
    Authority, Cancel, CommandRefused, Commands, Config, Doors, Gateway, NewCommand, NewSetting, Rights, Session,
    TokenName, TokenRefused, Tokens, Use, Visible,
};
use unhidra_store::BoxFuture;

use crate::store::MemoryStore;

/// The clock of Tokio, which tests pause.
pub(crate) struct PausedClock(Instant);

impl Clock for PausedClock {
    fn now(&self) -> Timestamp {
        Timestamp::ZERO.saturating_add(self.0.elapsed())
    }
    fn unix_now(&self) -> UnixTime {
        UnixTime::from_s(1_700_000_000).saturating_add(self.0.elapsed())
    }
}

/// What the node answers to commands: the next of what the test has put here, else yes.
#[derive(Default)]
pub(crate) struct Script {
    pub(crate) refusals: Mutex<VecDeque<CommandRefused>>,
    pub(crate) taken: Mutex<Vec<NewCommand>>,
    pub(crate) cancelled: Mutex<Vec<Cancel>>,
    pub(crate) set: Mutex<Vec<NewSetting>>,
    /// Told of each command before its sender is answered.
    pub(crate) early: Mutex<Option<Arc<Gateway>>>,
}

impl Commands for Script {
    fn send(&self, new: NewCommand) -> BoxFuture<'_, Result<Command, CommandRefused>> {
        Box::pin(async move {
            tokio::task::yield_now().await;
            if let Some(refusal) = self.refusals.lock().unwrap().pop_front() {
                return Err(refusal);
            }
            let mut taken = self.taken.lock().unwrap();
            taken.push(new.clone());
            let command = Command {
                id: new.id.unwrap_or(CommandId::new([u8::try_from(taken.len()).unwrap(); 16])),
                device: new.device,
                name: new.name.into_inner(),
                body: new.body,
                created_at: UnixTime::from_ms(1000),
                expires_at: UnixTime::from_ms(1000).saturating_add(new.expires_after),
                asked_by: Some(new.asked_by),
                life: Life::default(),
            };
            if let Some(gateway) = &*self.early.lock().unwrap() {
                let mut sent = command.clone();
                sent.sent(UnixTime::from_ms(1001));
                gateway.command_changed(&sent);
            }
            Ok(command)
        })
    }

    fn cancel(&self, cancel: Cancel) -> BoxFuture<'_, Result<Command, CommandRefused>> {
        self.cancelled.lock().unwrap().push(cancel);
        let refusal = self.refusals.lock().unwrap().pop_front();
        Box::pin(async move { Err(refusal.unwrap_or(CommandRefused::NoSuchCommand)) })
    }

    fn set(&self, new: NewSetting) -> BoxFuture<'_, Result<Setting, CommandRefused>> {
        self.set.lock().unwrap().push(new.clone());
        let refusal = self.refusals.lock().unwrap().pop_front();
        let setting = Setting {
            device: new.device,
            name: new.name,
            value: new.value,
            version: 1,
            changed_at: UnixTime::from_ms(1000),
            asked_by: Some(new.asked_by),
            acknowledged: None,
        };
        Box::pin(async move { refusal.map_or(Ok(setting), Err) })
    }
}

/// A gateway and all around it.
pub(crate) struct World {
    pub(crate) gateway: Arc<Gateway>,
    pub(crate) store: Arc<MemoryStore>,
    pub(crate) tokens: Arc<Tokens>,
    pub(crate) script: Arc<Script>,
    pub(crate) registry: Registry,
    published: Mutex<BTreeMap<DeviceId, u64>>,
}

struct Shared(Arc<Tokens>);

impl Authority for Shared {
    fn rights(&self, token: &str) -> Result<Rights, TokenRefused> {
        self.0.rights(token)
    }
    fn exchange(&self, once: &str) -> Result<Session, TokenRefused> {
        self.0.exchange(once)
    }
}

pub(crate) fn config() -> Config {
    serde_json::from_value(json!({
        "listen": "127.0.0.1:0", "hosts": ["gate.example"], "origins": ["https://dash.example"],
        "connections_max": 64, "clients_max": 32, "subscriptions_max": 8, "frame_len_max": 4096,
        "authenticate_s": 5, "ping_s": 25, "pong_s": 10, "write_s": 20, "request_s": 10,
        "http_connection_s": 120, "outbox_frames": 1024, "outbox_bytes": 1048576,
        "intake_readings": 4096, "intake_bytes": 1048576, "presence_max": 100,
        "command_expires_s": 600, "command_expires_max_s": 86400, "session_s": 3600,
        "tokens_max": 16, "drain_s": 5,
    }))
    .unwrap()
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with(config(), MemoryStore::new(2, 1))
    }

    pub(crate) fn with(config: Config, store: Arc<MemoryStore>) -> Self {
        let clock = Arc::new(PausedClock(Instant::now()));
        let mut drawn = 0u64;
        let entropy: unhidra_gateway::Entropy = Box::new(move |bytes| {
            drawn += 1;
            bytes[..8].copy_from_slice(&drawn.to_be_bytes());
        });
        let session = Duration::from_secs(config.session_s);
        let tokens = Arc::new(Tokens::new(config.tokens_max, session, clock.clone(), entropy));
        let script = Arc::new(Script::default());
        let mut registry = Registry::default();
        let doors = Doors {
            store: store.clone(),
            authority: Arc::new(Shared(tokens.clone())),
            commands: script.clone(),
            clock,
            cursor_key: [3; 32],
        };
        let gateway = Gateway::new(config, doors, &mut registry);
        Self { gateway, store, tokens, script, registry, published: Mutex::default() }
    }

    pub(crate) fn token(&self) -> String {
        self.tokens.mint(TokenName::default(), Visible::All, true, Duration::from_secs(36_000), Use::Session)
    }

    /// A stream that the gateway serves.
    pub(crate) fn dial(&self) -> DuplexStream {
        self.dial_with(64 * 1024)
    }

    pub(crate) fn dial_with(&self, buffer: usize) -> DuplexStream {
        let (near, far) = tokio::io::duplex(buffer);
        tokio::spawn(self.gateway.clone().serve_stream(far));
        near
    }

    pub(crate) async fn connect(&self) -> Client {
        self.connect_on(self.dial()).await
    }

    pub(crate) async fn connect_on(&self, stream: DuplexStream) -> Client {
        let builder = ClientBuilder::new().uri("ws://localhost/v1/ws").unwrap();
        let (socket, _) = builder.connect_on(stream).await.unwrap();
        Client { socket }
    }

    /// A client that has been let in.
    pub(crate) async fn enter(&self) -> Client {
        let mut client = self.connect().await;
        client.authenticate(&self.token()).await;
        client
    }

    /// Commits readings of a device, numbered from 1, and does not tell the gateway.
    pub(crate) fn commit(&self, device: &str, count: usize) -> Vec<Arc<unhidra_core::message::Reading>> {
        let id = id(device);
        let mut published = self.published.lock().unwrap();
        let number = published.entry(id).or_default();
        let uplinks = (0..count).map(|_| {
            *number += 1;
            uplink(id, &number.to_string())
        });
        self.store.append(uplinks.collect())
    }

    /// Commits readings of a device, and tells the gateway.
    pub(crate) fn publish(&self, device: &str, count: usize) {
        self.gateway.committed(self.commit(device, count));
    }

    pub(crate) fn metric(&self, name: &str) -> u64 {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry).unwrap();
        let line = text.lines().find(|line| line.split([' ', '{']).next() == Some(name));
        line.and_then(|line| line.rsplit(' ').next())
            .and_then(|value| value.parse().ok())
            .unwrap_or_else(|| panic!("{name} in {text}"))
    }

    /// One HTTP request, and all that comes back until the gateway closes.
    pub(crate) async fn http(&self, request: &str) -> String {
        let mut stream = self.dial();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        String::from_utf8_lossy(&answer).into_owned()
    }
}

pub(crate) fn id(text: &str) -> DeviceId {
    DeviceId::parse(text).unwrap()
}

pub(crate) fn uplink(device: DeviceId, text: &str) -> Uplink {
    Uplink {
        device,
        kind: UplinkKind::Reading,
        name: Arc::from("temperature"),
        device_time: None,
        received_at: UnixTime::from_ms(5),
        reading_id: None,
        body: Bytes::copy_from_slice(text.as_bytes()),
    }
}

/// A client of the gateway.
pub(crate) struct Client {
    pub(crate) socket: WebSocketStream<DuplexStream>,
}

impl Client {
    pub(crate) async fn say(&mut self, frame: Value) {
        self.socket.send(Message::text(frame.to_string())).await.unwrap();
    }

    pub(crate) async fn raw(&mut self, text: &str) {
        self.socket.send(Message::text(text.to_owned())).await.unwrap();
    }

    pub(crate) async fn authenticate(&mut self, token: &str) {
        self.say(json!({ "type": "authenticate", "version": 1, "token": token })).await;
        assert_eq!(self.hear().await["type"], "welcome");
    }

    pub(crate) async fn subscribe(&mut self, device: &str, since: Option<&str>) -> String {
        self.say(match since {
            Some(since) => json!({ "type": "subscribe", "device": device, "since": since }),
            None => json!({ "type": "subscribe", "device": device }),
        })
        .await;
        let frame = self.hear_type("subscribed").await;
        frame["cursor"].as_str().unwrap().to_owned()
    }

    /// The next frame.
    pub(crate) async fn hear(&mut self) -> Value {
        match self.next().await {
            Heard::Frame(frame) => frame,
            Heard::Closed(code, reason) => panic!("closed with {code} {reason}"),
        }
    }

    pub(crate) async fn hear_type(&mut self, kind: &str) -> Value {
        let frame = self.hear().await;
        assert_eq!(frame["type"], kind, "{frame}");
        frame
    }

    /// Takes the next message, unread.
    #[allow(dead_code, reason = "the benchmark's")]
    pub(crate) async fn take(&mut self) {
        self.socket.next().await.unwrap().unwrap();
    }

    pub(crate) async fn next(&mut self) -> Heard {
        loop {
            let message = match self.socket.next().await {
                Some(Ok(message)) => message,
                Some(Err(Error::Io(_))) | None => return Heard::Closed(1006, String::new()),
                Some(Err(error)) => panic!("{error}"),
            };
            if let Some((code, reason)) = message.as_close() {
                return Heard::Closed(code.into(), reason.to_owned());
            }
            if let Some(text) = message.as_text() {
                return Heard::Frame(serde_json::from_str(text).unwrap());
            }
        }
    }

    /// The code the connection ends with; a `closing` frame before it has to say the same.
    pub(crate) async fn end(&mut self) -> u16 {
        let mut said = None;
        loop {
            match self.next().await {
                Heard::Frame(frame) if frame["type"] == "closing" => said = frame["code"].as_u64(),
                Heard::Frame(_) => {}
                Heard::Closed(code, _) => {
                    assert!(said.is_none_or(|said| said == u64::from(code)));
                    return code;
                }
            }
        }
    }

    /// Reads until `count` rows have come, and gives them as (device, offset, prev, body).
    pub(crate) async fn rows(&mut self, count: usize) -> Vec<Row> {
        let mut rows = Vec::new();
        while rows.len() < count {
            let frame = self.hear().await;
            if frame["type"] == "readings" {
                rows.extend(rows_of(&frame));
            }
        }
        rows
    }
}

pub(crate) enum Heard {
    Frame(Value),
    Closed(u16, String),
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Row {
    pub(crate) device: String,
    pub(crate) offset: u64,
    pub(crate) prev: u64,
    pub(crate) body: String,
}

pub(crate) fn rows_of(frame: &Value) -> Vec<Row> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let row = |row: &Value| Row {
        device: text(&row["device"]),
        offset: row["offset"].as_u64().unwrap(),
        prev: row["prev"].as_u64().unwrap(),
        body: text(&row["text"]),
    };
    frame["readings"].as_array().unwrap().iter().map(row).collect()
}

/// What a client can prove by itself: each device's rows follow one another without a gap or a
/// repeat. `last` is what it had before.
pub(crate) fn follow(last: &mut BTreeMap<String, u64>, rows: &[Row]) {
    for row in rows {
        let before = last.insert(row.device.clone(), row.offset);
        assert_eq!(row.prev, before.unwrap_or(row.prev), "a gap or a repeat: {row:?}");
    }
}
