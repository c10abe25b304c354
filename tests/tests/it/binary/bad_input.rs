//! Strangers at every door of a running node, while a device goes on publishing.

use std::io::ErrorKind::WouldBlock;

use futures_util::{SinkExt, StreamExt};
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio_websockets::{ClientBuilder, MaybeTlsStream, Message, WebSocketStream};
use unhidra_tests::account::Said;
use unhidra_tests::process::{FREE_PORTS, Node, Place, Process, soon};

use super::peer::{dial, enter, packet, until_closed};

/// A node, and a device that publishes all the time.
struct Steady {
    place: Place,
    node: Node,
    device: Process,
    watch: Process,
}

impl Steady {
    async fn begin(options: &str) -> Self {
        let place = Place::new();
        let node = place.node(&format!("run {FREE_PORTS} {options}")).await;
        place.enroll("pump-7").await;
        let device = place.simulate(&["pump-7"], "--rate 20 --report report.jsonl").await;
        let watch = Process::start("unhidra watch", place.unhidra("watch pump-7 --json --data node"));
        let steady = Self { place, node, device, watch };
        steady.publishes_on().await;
        steady
    }

    /// Returns once readings have come that were not there when it was asked.
    async fn publishes_on(&self) {
        self.watch.prints_lines(self.watch.printed() + 5).await;
    }

    /// Ends it all, and holds the device to one connection, one session and no refusal.
    async fn end(self) {
        self.publishes_on().await;
        self.device.signal(Signal::TERM);
        let ended = self.device.ended().await;
        assert_eq!(ended.status, Some(0), "{ended}");
        self.node.stop().await;
        let report = Said::read(&self.place.path("report.jsonl")).ended.expect("it came to its end");
        let [device] = report.devices.as_slice() else { panic!("one device: {report:?}") };
        assert_eq!((device.connections, device.sessions, device.refused), (1, 1, 0), "{report:?}");
        assert_eq!(device.acknowledged, device.published, "{report:?}");
    }
}

/// Bytes that begin nothing, the same at each run.
fn garbage(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_u32;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state.to_le_bytes()[3]
    };
    (0..len).map(|_| next()).collect()
}

/// Sends bytes over a stream that may be closed on them, and gives what came back by its end.
async fn answer_to(mut stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin, bytes: &[u8]) -> Vec<u8> {
    // Refused while it was sent is refused.
    let _ = soon("the garbage is read", stream.write_all(bytes)).await;
    until_closed(&mut stream).await
}

#[tokio::test]
async fn garbage_on_every_listener_is_turned_away() {
    let steady = Steady::begin("").await;
    let noise = garbage(64 * 1024);
    let http = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".as_slice();
    let hello = [&[22, 3, 1, 0, 200, 1, 0, 0, 196], garbage(196).as_slice()].concat();
    for bytes in [&noise, http, &hello, b"\x10\x11\x00\x04MQTT\x05\x02\x00\x3c\x00\x00\x04peer"] {
        let stream = TcpStream::connect(steady.node.mqtt).await.expect("the node listens");
        let answer = answer_to(stream, bytes).await;
        // An alert at the most: 21 is its record type.
        assert!(answer.is_empty() || answer[0] == 21, "{answer:x?}");
        steady.publishes_on().await;
    }
    for door in [steady.node.gateway, steady.node.admin] {
        for bytes in [&noise, hello.as_slice()] {
            let stream = TcpStream::connect(door).await.expect("the node listens");
            let answer = answer_to(stream, bytes).await;
            assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 400"), "{}", String::from_utf8_lossy(&answer));
        }
        steady.publishes_on().await;
    }
    let socket = steady.place.path("node/control.sock");
    for bytes in [&noise, hello.as_slice()] {
        let stream = UnixStream::connect(&socket).await.expect("the node listens");
        let answer = answer_to(stream, bytes).await;
        assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 400"), "{}", String::from_utf8_lossy(&answer));
    }
    let listed = steady.place.done("device list --json --data node").await;
    assert!(listed.contains("\"id\":\"pump-7\""), "{listed}");
    steady.end().await;
}

#[tokio::test]
async fn peers_that_say_nothing_are_left_and_hold_nobody_up() {
    let steady = Steady::begin("--set broker.gate.handshake_timeout_s=4").await;
    let folder = steady.place.enroll("pump-8").await;
    let mut silent = Vec::new();
    for _ in 0..64 {
        silent.push(TcpStream::connect(steady.node.mqtt).await.expect("the node listens"));
    }
    // Somebody who comes after them is let in before their time is over.
    let mut late = dial(&folder, steady.node.mqtt, "localhost").await.expect("a handshake");
    assert_eq!(enter(&mut late).await, 0);
    let is_open = |stream: &TcpStream| matches!(stream.try_read(&mut [0]), Err(error) if error.kind() == WouldBlock);
    assert!(silent.iter().all(is_open));
    for mut stream in silent {
        assert_eq!(until_closed(&mut stream).await, b"");
    }
    steady.end().await;
}

#[tokio::test]
async fn a_packet_that_is_too_large_ends_its_connection_before_it_is_read() {
    let steady = Steady::begin("").await;
    let folder = steady.place.enroll("pump-8").await;
    let mut peer = dial(&folder, steady.node.mqtt, "localhost").await.expect("a handshake");
    assert_eq!(enter(&mut peer).await, 0);
    // PUBLISH of 268 435 455 bytes, of which none follows.
    peer.write_all(b"\x32\xff\xff\xff\x7f").await.expect("the node reads");
    let disconnect = packet(&mut peer).await.expect("DISCONNECT");
    assert_eq!((disconnect[0], disconnect[2]), (0xe0, 0x95), "{disconnect:x?}");
    assert_eq!(until_closed(&mut peer).await, b"");
    steady.end().await;
}

#[tokio::test]
async fn a_topic_with_wildcards_in_publish_ends_its_connection() {
    let steady = Steady::begin("").await;
    let folder = steady.place.enroll("pump-8").await;
    let mut peer = dial(&folder, steady.node.mqtt, "localhost").await.expect("a handshake");
    assert_eq!(enter(&mut peer).await, 0);
    peer.write_all(b"\x32\x08\x00\x03a/+\x00\x01\x00").await.expect("the node reads");
    let disconnect = packet(&mut peer).await.expect("DISCONNECT");
    assert_eq!((disconnect[0], disconnect[2]), (0xe0, 0x90), "{disconnect:x?}");
    steady.end().await;
}

#[tokio::test]
async fn a_device_whose_topic_names_somebody_else_is_refused_and_connected_still() {
    let steady = Steady::begin("").await;
    let folder = steady.place.enroll("pump-8").await;
    let mut peer = dial(&folder, steady.node.mqtt, "localhost").await.expect("a handshake");
    assert_eq!(enter(&mut peer).await, 0);
    let topic = b"unhidra/devices/pump-7/messages";
    let publish = [&[0x32, 36 + 2, 0, 31], topic.as_slice(), &[0, 1, 0, b'h', b'i']].concat();
    assert_eq!(publish.len(), 2 + 38);
    peer.write_all(&publish).await.expect("the node reads");
    let puback = packet(&mut peer).await.expect("PUBACK");
    assert_eq!((puback[0], puback[4]), (0x40, 0x87), "{puback:x?}");
    peer.write_all(&[0xc0, 0]).await.expect("the node reads");
    assert_eq!(packet(&mut peer).await.expect("PINGRESP"), [0xd0, 0]);
    steady.end().await;
}

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

async fn websocket(node: &Node) -> Socket {
    let builder = ClientBuilder::new().uri(&format!("ws://{}/v1/ws", node.gateway)).expect("a URL");
    builder.connect().await.expect("the gateway speaks WebSocket").0
}

async fn next(socket: &mut Socket) -> Message {
    soon("a frame", socket.next()).await.expect("the gateway speaks").expect("a frame")
}

async fn next_json(socket: &mut Socket) -> Value {
    let message = next(socket).await;
    serde_json::from_str(message.as_text().unwrap_or_else(|| panic!("{message:?}"))).expect("JSON")
}

#[tokio::test]
async fn a_bad_token_is_refused_with_words() {
    let steady = Steady::begin("").await;
    let mut socket = websocket(&steady.node).await;
    let authenticate = json!({ "type": "authenticate", "version": 1, "token": "guess" });
    socket.send(Message::text(authenticate.to_string())).await.expect("it reads");
    let closing = next_json(&mut socket).await;
    assert_eq!((&closing["type"], &closing["code"]), (&"closing".into(), &3500.into()), "{closing}");
    let close = next(&mut socket).await;
    let (code, reason) = close.as_close().unwrap_or_else(|| panic!("{close:?}"));
    assert_eq!((u16::from(code), reason), (3500, "token_refused"));

    let ended = steady.place.run(&format!("watch --node http://{} --token guess", steady.node.gateway)).await;
    assert!(ended.status == Some(1) && ended.err.contains("token_refused"), "{ended}");
    steady.end().await;
}

#[tokio::test]
async fn a_frame_that_is_not_json_is_an_error_and_no_end() {
    let steady = Steady::begin("").await;
    let url = steady.place.done("console --json --data node").await;
    let url: Value = serde_json::from_str(&url).expect("JSON");
    let (_, token) = url["url"].as_str().and_then(|url| url.split_once("#token=")).expect("a token in the URL");
    let mut socket = websocket(&steady.node).await;
    let authenticate = json!({ "type": "authenticate", "version": 1, "token": token });
    socket.send(Message::text(authenticate.to_string())).await.expect("it reads");
    assert_eq!(next_json(&mut socket).await["type"], "welcome");
    for (text, code) in [
        ("not JSON", "not_json"),
        ("[1]", "not_json"),
        (r#"{"type":"dance"}"#, "unknown_type"),
        (r#"{"type":"subscribe","device":7}"#, "bad_request"),
        (r#"{"type":"subscribe","device":"*","sicne":"x"}"#, "bad_request"),
    ] {
        socket.send(Message::text(text)).await.expect("it reads");
        let error = next_json(&mut socket).await;
        assert_eq!((&error["type"], &error["code"]), (&"error".into(), &code.into()), "{text}: {error}");
    }
    socket.send(Message::text(json!({ "type": "ping" }).to_string())).await.expect("it reads");
    assert_eq!(next_json(&mut socket).await["type"], "pong");
    steady.end().await;
}

#[tokio::test]
async fn the_admin_port_and_the_gateway_answer_nothing_they_do_not_have() {
    let steady = Steady::begin("").await;
    for (door, request, status) in [
        (steady.node.admin, "GET /v1/devices HTTP/1.1\r\nHost: localhost", "404"),
        (steady.node.admin, "POST /readyz HTTP/1.1\r\nHost: localhost", "405"),
        (steady.node.gateway, "GET /../etc/passwd HTTP/1.1\r\nHost: localhost", "404"),
        (steady.node.gateway, "GET / HTTP/1.1\r\nHost: elsewhere.example", "421"),
    ] {
        let mut stream = TcpStream::connect(door).await.expect("the node listens");
        let request = format!("{request}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("it reads");
        let mut answer = String::new();
        soon("an answer", stream.read_to_string(&mut answer)).await.expect("an answer");
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{request}: {answer}");
    }
    steady.end().await;
}
