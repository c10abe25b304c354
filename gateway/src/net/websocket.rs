//! One client's connection: a reader and a writer around its cores.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::http::header::{self, HeaderMap, HeaderValue};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{sleep, timeout};
use tokio_websockets::{CloseCode, Limits as SocketLimits, Message, ServerBuilder, WebSocketStream};
use unhidra_core::ids::DeviceId;
use unhidra_core::time::Timestamp;
use unhidra_store::{DamagedRow, Limit, ReadError, Readable};

use crate::auth::Visible;
use crate::client::{Bench, Client, Event, Limits};
use crate::doors::{Cancel, NewCommand, NewSetting};
use crate::error::{Close, ErrorCode};
use crate::frame::{self, Gap, Id, Reply, RequestId};
use crate::hub::Mailbox;
use crate::net::http::{App, Refusal, check_origin};
use crate::net::replay;
use crate::outbox::{Bounds, Next, Round};
use crate::registered::DeviceEntry;
use crate::subscription::ClientNumber;
use crate::told::{CommandEntry, SettingEntry};
use crate::{Shared, spawn};

/// What RFC 6455 section 1.3 appends to the client's key.
const KEY_SUFFIX: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// What one write carries at most.
const ROUND: Bounds = Bounds { frames: 64, bytes: 64 * 1024 };
/// Bytes of bodies in one answer of history.
const HISTORY_BYTES: usize = 256 * 1024;
/// How long the peer has to answer our close.
const CLOSE_WAIT: Duration = Duration::from_secs(2);

/// `GET /v1/ws`
pub(crate) async fn upgrade(State(app): State<App>, mut request: Request) -> Result<Response, Refusal> {
    let shared = app.shared.clone();
    let admitted = admit(&shared, &request);
    let (accept, permit) = admitted.inspect_err(|refusal| shared.metrics.refuse(refusal.code))?;
    let upgraded = hyper::upgrade::on(&mut request);
    let Some(tasks) = app.tasks.upgrade() else { return Err(draining()) };
    spawn(&tasks, async move {
        match timeout(shared.config.request_timeout(), upgraded).await {
            Ok(Ok(upgraded)) => run(shared, TokioIo::new(upgraded), permit).await,
            Ok(Err(error)) => tracing::debug!(%error, "an upgrade failed"),
            Err(_) => tracing::debug!("an upgrade took too long"),
        }
    });
    let headers = [
        (header::UPGRADE, HeaderValue::from_static("websocket")),
        (header::CONNECTION, HeaderValue::from_static("Upgrade")),
        (header::SEC_WEBSOCKET_ACCEPT, accept),
    ];
    Ok((StatusCode::SWITCHING_PROTOCOLS, headers).into_response())
}

fn admit(shared: &Shared, request: &Request) -> Result<(HeaderValue, OwnedSemaphorePermit), Refusal> {
    check_origin(shared, request.headers(), request.uri())?;
    let accept = accept_key(request.headers())?;
    if *shared.draining.borrow() {
        return Err(draining());
    }
    let permit = shared.clients.clone().try_acquire_owned().map_err(|_| {
        Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "clients_full", "as many clients are connected as may be")
    })?;
    Ok((accept, permit))
}

fn draining() -> Refusal {
    Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "draining", "the node is about to stop")
}

/// Checks the opening handshake and answers its key (RFC 6455 section 4.2).
fn accept_key(headers: &HeaderMap) -> Result<HeaderValue, Refusal> {
    let has = |name, token: &str| {
        let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|value| value.split(',')).any(|found| found.trim().eq_ignore_ascii_case(token))
    };
    let key = headers.get(header::SEC_WEBSOCKET_KEY).map(HeaderValue::as_bytes);
    let key = key.filter(|key| STANDARD.decode(key).is_ok_and(|nonce| nonce.len() == 16));
    let (true, true, Some(key)) = (has(header::UPGRADE, "websocket"), has(header::CONNECTION, "upgrade"), key) else {
        return Err(Refusal::new(StatusCode::UPGRADE_REQUIRED, "not_websocket", "this is the way for WebSocket alone"));
    };
    if !has(header::SEC_WEBSOCKET_VERSION, "13") {
        return Err(Refusal::new(StatusCode::UPGRADE_REQUIRED, "not_websocket", "WebSocket version 13 is spoken here"));
    }
    let mut hashed = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    hashed.update(key);
    hashed.update(KEY_SUFFIX);
    HeaderValue::from_str(&STANDARD.encode(hashed.finish()))
        .map_err(|_| Refusal::new(StatusCode::BAD_REQUEST, "not_websocket", "the key cannot be answered"))
}

struct Connection<'a> {
    shared: &'a Shared,
    number: ClientNumber,
    mailbox: Arc<Mailbox>,
}

async fn run<S>(shared: Arc<Shared>, stream: S, permit: OwnedSemaphorePermit)
where
    S: AsyncRead + AsyncWrite + Send + Unpin,
{
    let config = &shared.config;
    let (sink, mut messages) = ServerBuilder::new()
        .limits(SocketLimits::default().max_payload_len(Some(config.frame_len_max)))
        .serve(stream)
        .split();
    let bounds = Bounds { frames: config.outbox_frames, bytes: config.outbox_bytes };
    let (number, mailbox) = shared.hub.connect(bounds);
    let connection = Connection { shared: &shared, number, mailbox };
    let _leaving = Leaving { shared: &shared, number, _permit: permit };
    if *shared.draining.borrow() {
        connection.mailbox.with(|outbox| outbox.close(Close::Draining));
    }
    let closed = tokio::select! {
        () = connection.read(&mut messages) => false,
        closed = connection.write(sink) => closed,
    };
    if closed {
        // The peer's answer to our close, so that it has read what came before it.
        let answered = async { while messages.next().await.is_some_and(|message| message.is_ok()) {} };
        let _ = timeout(CLOSE_WAIT, answered).await;
    }
}

/// Takes the client out of the hub however its task ends.
struct Leaving<'a> {
    shared: &'a Shared,
    number: ClientNumber,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        self.shared.hub.disconnect(self.number);
        self.shared.gone.notify_waiters();
    }
}

impl Connection<'_> {
    fn limits(&self) -> Limits {
        let config = &self.shared.config;
        let ping_ms = config.ping_s.saturating_mul(1000);
        Limits {
            authenticate: Duration::from_secs(config.authenticate_s),
            // Up to a fifth earlier, so that clients that came together are not asked together.
            ping: Duration::from_millis(ping_ms - spread(self.number, ping_ms / 5)),
            pong: Duration::from_secs(config.pong_s),
            frame_len_max: config.frame_len_max,
            subscriptions_max: config.subscriptions_max,
            command_expires: Duration::from_secs(config.command_expires_s),
            command_expires_max: Duration::from_secs(config.command_expires_max_s),
        }
    }

    /// Reads until the peer is gone. One request is served at a time: who asks faster than that
    /// waits in its own socket.
    async fn read<S>(&self, messages: &mut SplitStream<WebSocketStream<S>>)
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let clock = &self.shared.doors.clock;
        let mut client = Client::new(self.limits(), clock.now());
        let mut revocations = 0;
        loop {
            let due = client.poll_timeout().map(|at| at.saturating_since(clock.now()));
            tokio::select! {
                message = messages.next() => match message {
                    // Nothing more is done for one who is to go, and nothing more is read: what a peer is
                    // owed for pings has no bound but its own reading.
                    _ if self.mailbox.quietly(|outbox| outbox.is_closing()) => return pending().await,
                    Some(Ok(message)) => {
                        revocations = self.shared.hub.revocations();
                        self.heard(&mut client, &message);
                    }
                    Some(Err(error)) => {
                        tracing::debug!(%error, "a client's connection ended");
                        // What the error queued, a close with its code, leaves with the next poll.
                        let _ = timeout(CLOSE_WAIT, messages.next()).await;
                        return;
                    }
                    None => return,
                },
                () = sleep(due.unwrap_or(Duration::MAX)), if due.is_some() => client.handle_timeout(clock.now()),
            }
            self.transmit(&mut client);
            while let Some(event) = client.poll_event() {
                match event {
                    Event::Entered(token) => self.shared.hub.entered(self.number, token, revocations),
                    event => self.act(&mut client, event).await,
                }
                self.transmit(&mut client);
            }
        }
    }

    fn heard(&self, client: &mut Client, message: &Message) {
        let clock = &self.shared.doors.clock;
        if let Some(text) = message.as_text() {
            let bench = Bench {
                now: clock.now(),
                unix_now: clock.unix_now(),
                authority: &*self.shared.doors.authority,
                cursors: self.shared.hub.cursors(),
            };
            client.handle_text(text, &bench);
        } else if message.is_binary() {
            client.handle_binary();
        } else if message.is_ping() {
            client.handle_ping(clock.now());
        }
    }

    fn transmit(&self, client: &mut Client) {
        while let Some(text) = client.poll_transmit() {
            self.reply(text);
        }
    }

    fn reply(&self, text: Bytes) {
        self.mailbox.with(|outbox| outbox.reply(text));
    }

    fn error(&self, id: RequestId, code: ErrorCode, message: &str) {
        self.reply(Reply::Error { id, code, message }.encode());
    }

    async fn act(&self, client: &mut Client, event: Event) {
        let hub = &self.shared.hub;
        match event {
            // The caller's: it knows how many revocations there were before.
            Event::Entered(_) => {}
            Event::Close(close) => self.mailbox.with(|outbox| outbox.close(close)),
            Event::Subscribe { id, audience, from } => {
                let partitions = self.shared.doors.store.partitions();
                if let Err(error) = hub.subscribe(self.number, id, audience, from, partitions) {
                    client.not_subscribed(&audience);
                    self.error(id, error.code(), &error.to_string());
                }
            }
            Event::Unsubscribe { id, audience } => hub.unsubscribe(self.number, id, audience),
            Event::Send { id, new } => self.send(id, new).await,
            Event::Devices { id, visible, after, limit } => {
                let answer = self.devices(id, &visible, after.as_ref(), limit).await;
                self.answer(id, answer);
            }
            Event::History { id, device, newest } => {
                let answer = self.history(id, &device, newest).await;
                self.answer(id, answer);
            }
            Event::Cancel { id, cancel } => self.cancel(id, cancel).await,
            Event::Set { id, new } => self.set(id, new).await,
            Event::Settings { id, device, values } => {
                let answer = self.shared.doors.store.settings(&device).await.map(|settings| {
                    let settings = settings.iter().map(|setting| SettingEntry::new(setting, values)).collect();
                    Reply::Settings { id, device: Id(&device), settings }.encode()
                });
                self.answer(id, answer);
            }
            Event::Commands { id, device, newest } => {
                let store = &self.shared.doors.store;
                let found = match newest {
                    Some(newest) => store.commands(&device, newest).await,
                    None => store.open_commands(&device).await,
                };
                let answer = found.map(|commands| {
                    let commands = commands.iter().map(CommandEntry::new).collect();
                    Reply::Commands { id, device: Id(&device), commands }.encode()
                });
                self.answer(id, answer);
            }
            Event::Command { id, device, command } => match self.shared.doors.store.command(&device, &command).await {
                Ok(None) => self.error(id, ErrorCode::NoSuchCommand, "there is no such command"),
                found => self.answer(
                    id,
                    found.map(|command| {
                        let command = command.as_ref().map(CommandEntry::new);
                        command.map(|command| Reply::Command { id, command }.encode()).unwrap_or_default()
                    }),
                ),
            },
        }
    }

    fn answer(&self, id: RequestId, answer: Result<Bytes, ReadError>) {
        match answer {
            Ok(text) => self.reply(text),
            Err(error) => {
                tracing::warn!(%error, "a client's question could not be read from the store");
                self.error(id, ErrorCode::Unavailable, "the store does not answer now; try again");
            }
        }
    }

    async fn devices(
        &self,
        id: RequestId,
        visible: &Visible,
        after: Option<&DeviceId>,
        limit: usize,
    ) -> Result<Bytes, ReadError> {
        let Shared { hub, doors, .. } = self.shared;
        let (devices, more) = match visible {
            Visible::All => {
                let page = doors.store.devices(after, limit).await?;
                (page.rows, page.more)
            }
            Visible::Set(set) => {
                let mut wanted = set.iter().filter(|id| after.is_none_or(|after| *id > after));
                let mut devices = Vec::new();
                for id in wanted.by_ref().take(limit) {
                    devices.extend(doors.store.device(id).await?);
                }
                (devices, wanted.next().is_some())
            }
        };
        let devices = devices.iter().map(|device| DeviceEntry::new(device, hub.presence_of(&device.id))).collect();
        Ok(Reply::Devices { id, devices, more }.encode())
    }

    async fn history(&self, id: RequestId, device: &DeviceId, newest: usize) -> Result<Bytes, ReadError> {
        let max = Limit { rows: newest, bytes: HISTORY_BYTES };
        let Readable { page, damaged, .. } = self.shared.doors.store.readable_newest(device, max).await?;
        if let Some(first) = damaged.first() {
            let (rows, offset, cause) = (damaged.len(), first.offset, &first.cause);
            tracing::warn!(%device, rows, %offset, %cause, "a client's history is without damaged rows");
        }
        let partition = self.shared.doors.store.partition_of(device).get();
        let gap = |row: &DamagedRow| Gap { device: device.to_string(), partition, offset: row.offset.get() };
        let gaps: Vec<Gap> = damaged.iter().rev().map(gap).collect();
        let rows: Vec<Bytes> = page.rows.iter().rev().map(frame::encode_reading).collect();
        Ok(frame::history_frame(id, device, &gaps, &rows, page.more))
    }

    async fn send(&self, id: RequestId, new: NewCommand) {
        let Shared { hub, doors, metrics, .. } = self.shared;
        let device = new.device;
        hub.begin_command(self.number, device);
        let (reply, taken) = match doors.commands.send(new).await {
            Ok(command) => {
                metrics.command("taken");
                let reply = Reply::Command { id, command: CommandEntry::new(&command) }.encode();
                (reply, (!command.is_final()).then_some(command.id))
            }
            Err(refused) => {
                metrics.command("refused");
                let message = refused.to_string();
                (Reply::Error { id, code: refused.code(), message: &message }.encode(), None)
            }
        };
        hub.end_command(self.number, device, reply, taken);
    }

    async fn cancel(&self, id: RequestId, cancel: Cancel) {
        match self.shared.doors.commands.cancel(cancel).await {
            Ok(command) => self.reply(Reply::Command { id, command: CommandEntry::new(&command) }.encode()),
            Err(refused) => self.error(id, refused.code(), &refused.to_string()),
        }
    }

    async fn set(&self, id: RequestId, new: NewSetting) {
        match self.shared.doors.commands.set(new).await {
            Ok(setting) => self.reply(Reply::Setting { id, setting: SettingEntry::new(&setting, true) }.encode()),
            Err(refused) => self.error(id, refused.code(), &refused.to_string()),
        }
    }

    /// Writes until the connection is to end. Returns whether it was closed in words.
    async fn write<S>(&self, mut sink: SplitSink<WebSocketStream<S>, Message>) -> bool
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let mut goodbye = None;
        loop {
            let Round { mut frames, next } = self.mailbox.quietly(|outbox| outbox.take(ROUND));
            let mut closing = None;
            match next {
                Next::Close(close) => {
                    frames.push(self.closing(close).encode());
                    closing = Some(close);
                }
                Next::Join(audience) => self.shared.hub.join(&self.mailbox, &audience),
                Next::Replay(wanted) => match replay::page(self.shared, &wanted).await {
                    Ok(page) => {
                        if self.mailbox.quietly(|outbox| outbox.replayed(&wanted, page.to)) {
                            let readings = u64::try_from(page.readings).unwrap_or(u64::MAX);
                            self.shared.metrics.readings_replayed.inc_by(readings);
                            frames.extend(page.frame);
                        }
                    }
                    Err(error) => {
                        tracing::warn!(%error, "a client's replay could not be read from the store");
                        self.mailbox.quietly(|outbox| outbox.close(Close::Unavailable));
                    }
                },
                Next::More => {}
                Next::Idle => {
                    self.mailbox.rung().await;
                    continue;
                }
            }
            if !self.put(&mut sink, frames, closing, &mut goodbye).await {
                return false;
            }
            if let Some(close) = closing {
                self.shared.metrics.close(close);
                return true;
            }
        }
    }

    /// Feeds and flushes. Returns whether the peer took it all in time.
    async fn put<S>(
        &self,
        sink: &mut SplitSink<WebSocketStream<S>, Message>,
        frames: Vec<Bytes>,
        close: Option<Close>,
        goodbye: &mut Option<Timestamp>,
    ) -> bool
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        for text in frames {
            self.shared.metrics.sent_frames.inc();
            self.shared.metrics.sent_bytes.inc_by(u64::try_from(text.len()).unwrap_or(u64::MAX));
            if !self.in_time(goodbye, sink.feed(Message::text(text))).await {
                return false;
            }
        }
        if let Some(close) = close {
            let code = CloseCode::try_from(close.code()).unwrap_or(CloseCode::NORMAL_CLOSURE);
            if !self.in_time(goodbye, sink.feed(Message::close(Some(code), close.reason()))).await {
                return false;
            }
        }
        self.in_time(goodbye, sink.flush()).await
    }

    /// Waits for one step of writing, at most as long as a peer may take nothing. A step is a frame
    /// or two, so a peer that is slow and not gone has the time it needs. Once the connection is to end, all that
    /// is left has that time together, until `goodbye`.
    async fn in_time(
        &self,
        goodbye: &mut Option<Timestamp>,
        step: impl Future<Output = Result<(), tokio_websockets::Error>>,
    ) -> bool {
        let (now, mut at_most) = (self.shared.doors.clock.now(), self.shared.config.write_timeout());
        if self.mailbox.quietly(|outbox| outbox.is_closing()) {
            at_most = goodbye.get_or_insert(now.saturating_add(at_most)).saturating_since(now);
        }
        match timeout(at_most, step).await {
            Ok(Ok(())) => true,
            Ok(Err(error)) => {
                tracing::debug!(%error, "a client's connection ended");
                false
            }
            Err(_) => {
                tracing::debug!("a client did not read in time");
                self.shared.metrics.close(Close::SlowClient);
                false
            }
        }
    }

    fn closing(&self, close: Close) -> Reply<'static> {
        let spread_ms = self.shared.config.drain_s.saturating_mul(1000);
        let reconnect_after_ms = match close {
            Close::Draining => Some(spread(self.number, spread_ms)),
            _ => None,
        };
        Reply::Closing { code: close.code(), reason: close.reason(), reconnect_after_ms }
    }
}

/// A number below `max` for each client, scattered: no two that came together get near ones. Not
/// random, and needs not be; nothing is guessed by it.
fn spread(client: ClientNumber, max: u64) -> u64 {
    // Fibonacci hashing: the fraction of client * 2^64 / phi.
    let scattered = client.0.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let part = (u128::from(scattered) * u128::from(max)) >> 64;
    u64::try_from(part).unwrap_or(max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_handshake_of_rfc_6455_is_answered_as_it_says() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("upgrade", "websocket"),
            ("connection", "keep-alive, Upgrade"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        assert_eq!(accept_key(&headers).expect("a handshake"), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        for name in ["upgrade", "connection", "sec-websocket-version", "sec-websocket-key"] {
            let mut without = headers.clone();
            without.remove(name);
            assert_eq!(accept_key(&without).expect_err(name).status, StatusCode::UPGRADE_REQUIRED);
        }
        headers.insert("sec-websocket-key", HeaderValue::from_static("c2hvcnQ="));
        assert!(accept_key(&headers).is_err());
    }

    #[test]
    fn clients_are_spread_over_the_whole_while() {
        let mut times: Vec<u64> = (0..100).map(|n| spread(ClientNumber(n), 10_000)).collect();
        times.sort_unstable();
        assert!(times[0] < 300 && times[99] > 9_700, "{times:?}");
        assert!(times.windows(2).all(|pair| pair[1] - pair[0] < 300), "{times:?}");
        assert_eq!(spread(ClientNumber(5), 0), 0);
    }
}
