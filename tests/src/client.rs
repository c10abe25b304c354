//! A client of the gateway: its WebSocket, over a duplex stream.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::io::DuplexStream;
use tokio::time::{timeout, timeout_at};
use tokio_websockets::{ClientBuilder, Message, WebSocketStream};
use unhidra_gateway::Gateway;

/// Longer than anything in the world takes; in virtual time it costs nothing.
const PATIENCE: Duration = Duration::from_secs(3600);

/// A client that has been let in.
pub struct SimClient {
    socket: WebSocketStream<DuplexStream>,
    /// Where it has read to.
    pub cursor: Option<String>,
    received: Vec<(String, String)>,
    states: BTreeMap<String, String>,
    online: BTreeMap<String, bool>,
}

impl SimClient {
    /// Connects and authenticates.
    ///
    /// # Panics
    ///
    /// Where it is not let in.
    pub async fn enter(gateway: Arc<Gateway>, token: &str) -> Self {
        let (near, far) = tokio::io::duplex(256 * 1024);
        tokio::spawn(gateway.serve_stream(far));
        let builder = ClientBuilder::new().uri("ws://127.0.0.1/v1/ws").expect("a URL");
        let (socket, _) = builder.connect_on(near).await.expect("a WebSocket");
        let mut client =
            Self { socket, cursor: None, received: Vec::new(), states: BTreeMap::new(), online: BTreeMap::new() };
        client.say(&json!({ "type": "authenticate", "version": 1, "token": token })).await;
        client.hear("welcome").await;
        client
    }

    /// Subscribes to every device, from `since` on.
    pub async fn subscribe(&mut self, since: Option<&str>) {
        self.say(&json!({ "type": "subscribe", "device": "*", "since": since })).await;
        let subscribed = self.hear("subscribed").await;
        self.cursor = subscribed["cursor"].as_str().map(str::to_owned);
    }

    /// Sends a command, and gives its id once it is durable.
    pub async fn send(&mut self, device: &str, name: &str, text: &str) -> String {
        self.say(&json!({ "type": "send", "id": 7, "device": device, "name": name, "text": text })).await;
        let command = self.hear("command").await;
        command["command"]["command"].as_str().expect("an id").to_owned()
    }

    /// Waits until a command is in a state that is final, and gives its word.
    pub async fn until_final(&mut self, command: &str) -> String {
        self.settled(command).await;
        self.states.get(command).cloned().unwrap_or_default()
    }

    /// Waits until a command is final, wherever the word of it comes among others'.
    pub async fn settled(&mut self, command: &str) {
        let is_final = |state: Option<&str>| matches!(state, Some("done" | "failed" | "expired" | "cancelled"));
        while !self.states.get(command).is_some_and(|state| is_final(Some(state))) {
            self.hear("command_changed").await;
        }
    }

    /// Asks for the devices, which says where they are and where they go from now on.
    pub async fn say_presence(&mut self) {
        self.subscribe(None).await;
        self.say(&json!({ "type": "devices", "id": 9 })).await;
        let devices = self.hear("devices").await;
        for entry in devices["devices"].as_array().into_iter().flatten() {
            self.place(entry);
        }
    }

    /// Waits until a device is known to be away.
    pub async fn until_offline(&mut self, device: &str) {
        while self.online.get(device) != Some(&false) {
            let presence = self.hear("presence").await;
            for entry in presence["devices"].as_array().into_iter().flatten() {
                self.place(entry);
            }
        }
    }

    fn place(&mut self, entry: &Value) {
        if let (Some(device), Some(online)) = (entry["device"].as_str(), entry["online"].as_bool()) {
            self.online.insert(device.to_owned(), online);
        }
    }

    /// What it has received: device and body, in order.
    #[must_use]
    pub fn received(&self) -> &[(String, String)] {
        &self.received
    }

    /// Waits until it has received this many readings.
    pub async fn readings(&mut self, count: usize) {
        while self.received.len() < count {
            self.next().await;
        }
    }

    /// Receives what comes for so long. The node may be gone.
    pub async fn listen(&mut self, time: Duration) {
        let until = tokio::time::Instant::now() + time;
        // What is cancelled here has taken no frame: none is lost.
        while let Ok(Some(Ok(message))) = timeout_at(until, self.socket.next()).await {
            self.take_message(&message).await;
        }
    }

    async fn say(&mut self, request: &Value) {
        self.socket.send(Message::text(request.to_string())).await.expect("the gateway listens");
    }

    /// The next frame of a type; readings on the way are received.
    pub async fn hear(&mut self, wanted: &str) -> Value {
        loop {
            let frame = self.next().await;
            let kind = frame["type"].as_str().unwrap_or_default();
            assert!(kind != "error" || wanted == "error", "{frame}");
            if kind == wanted {
                return frame;
            }
        }
    }

    async fn next(&mut self) -> Value {
        loop {
            let message = timeout(PATIENCE, self.socket.next()).await.expect("a frame in time");
            let message = message.expect("the gateway speaks").expect("a frame");
            if let Some(frame) = self.take_message(&message).await {
                return frame;
            }
        }
    }

    /// Takes what a frame says; gives it, unless it is one that is answered at once.
    async fn take_message(&mut self, message: &Message) -> Option<Value> {
        let frame: Value = serde_json::from_str(message.as_text()?).expect("JSON");
        match frame["type"].as_str() {
            Some("ping") => {
                self.say(&json!({ "type": "pong" })).await;
                return None;
            }
            Some("readings") => self.take(&frame),
            Some("command_changed") => {
                let text = |key: &str| frame["command"][key].as_str().unwrap_or_default().to_owned();
                self.states.insert(text("command"), text("state"));
            }
            _ => {}
        }
        Some(frame)
    }

    fn take(&mut self, frame: &Value) {
        self.cursor = frame["cursor"].as_str().map(str::to_owned);
        for reading in frame["readings"].as_array().into_iter().flatten() {
            if reading["kind"] == "reading" {
                let text = |key: &str| reading[key].as_str().unwrap_or_default().to_owned();
                self.received.push((text("device"), text("text")));
            }
        }
    }
}
