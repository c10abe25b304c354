//! MQTT over WebSocket on real sockets (section 6 of the standard).

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use unhidra_broker::*;

use crate::world::{World, config};

/// CONNECT of 3.1.1 without a client identifier.
const CONNECT: &[u8] = b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x3c\x00\x00";

fn request(protocol: &str) -> String {
    format!(
        "GET /mqtt HTTP/1.1\r\nHost: node.example\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{protocol}Sec-WebSocket-Version: 13\r\n\r\n"
    )
}

/// A client's frame, masked with zeros.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let len = u8::try_from(payload.len()).expect("short");
    [&[first, 0x80 | len, 0, 0, 0, 0], payload].concat()
}

fn listen() -> (World, SocketAddr) {
    let layers = Layers::new("ws", &config().ws, None).with_websocket(&config().ws);
    let world = World::new();
    let address = world.port(layers);
    (world, address)
}

struct Client(TcpStream);

impl Client {
    async fn open(address: SocketAddr) -> Self {
        let mut stream = TcpStream::connect(address).await.expect("accepted");
        let request = request("Sec-WebSocket-Protocol: mqtt\r\n");
        stream.write_all(request.as_bytes()).await.expect("written");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.expect("an answer"));
        }
        let head = String::from_utf8(head).expect("HTTP");
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        // [MQTT-6.0.0-4]
        assert!(head.contains("\r\nSec-WebSocket-Protocol: mqtt\r\n"), "{head}");
        Self(stream)
    }

    async fn send(&mut self, frames: &[&[u8]]) {
        self.0.write_all(&frames.concat()).await.expect("written");
    }

    /// The next frame: its first byte, and its payload.
    async fn frame(&mut self) -> (u8, Vec<u8>) {
        let first = self.0.read_u8().await.expect("a frame");
        let len = self.0.read_u8().await.expect("its length");
        assert!(len < 126, "no mask, and short");
        let mut payload = vec![0; len.into()];
        self.0.read_exact(&mut payload).await.expect("its payload");
        (first, payload)
    }

    async fn connect(&mut self) {
        self.send(&[&frame(0x82, CONNECT)]).await;
        assert_eq!(self.frame().await, (0x82, vec![0x20, 2, 0, 0]));
    }

    async fn closed_with(&mut self, code: u16) {
        assert_eq!(self.frame().await, (0x88, code.to_be_bytes().to_vec()));
        assert_eq!(self.0.read(&mut [0; 1]).await.unwrap_or(0), 0);
    }
}

#[tokio::test]
async fn packets_span_frames_and_share_them() {
    let (_world, address) = listen();
    let mut client = Client::open(address).await;
    // CONNECT in three frames of one message, with a ping between; PINGREQ begins in the last.
    let (a, rest) = CONNECT.split_at(3);
    let (b, c) = rest.split_at(7);
    let last = [c, &[0xc0]].concat();
    client.send(&[&frame(0x02, a), &frame(0x00, b), &frame(0x89, b"hi"), &frame(0x80, &last)]).await;
    assert_eq!(client.frame().await, (0x8a, b"hi".to_vec()));
    assert_eq!(client.frame().await, (0x82, vec![0x20, 2, 0, 0]));
    // SUBSCRIBE and two PUBLISHes in one frame; the answers come in as many frames as they like.
    let subscribe = b"\x82\x06\x00\x01\x00\x01t\x00";
    let publish = b"\x30\x04\x00\x01tx";
    client.send(&[&frame(0x82, &[&[0x00][..], subscribe, publish, publish].concat())]).await;
    let mut answers = Vec::new();
    let expected = [&[0xd0, 0][..], &[0x90, 3, 0, 1, 0], publish, publish].concat();
    while answers.len() < expected.len() {
        let (first, payload) = client.frame().await;
        assert_eq!(first, 0x82);
        answers.extend(payload);
    }
    assert_eq!(answers, expected);
}

#[tokio::test]
async fn a_close_is_answered_and_a_text_frame_is_the_end() {
    let (_world, address) = listen();
    let mut client = Client::open(address).await;
    client.connect().await;
    client.send(&[&frame(0x88, &1001_u16.to_be_bytes())]).await;
    client.closed_with(1001).await;
    // [MQTT-6.0.0-1]
    let mut client = Client::open(address).await;
    client.connect().await;
    client.send(&[&frame(0x81, b"text")]).await;
    client.closed_with(1003).await;
}

#[tokio::test]
async fn after_disconnect_the_websocket_is_closed_in_order() {
    let (_world, address) = listen();
    let mut client = Client::open(address).await;
    client.connect().await;
    client.send(&[&frame(0x82, &[0xe0, 0])]).await;
    client.closed_with(1000).await;
}

#[tokio::test]
async fn who_does_not_offer_mqtt_is_told_so() {
    let (_world, address) = listen();
    for (request, status) in [
        (request(""), "HTTP/1.1 400 "),
        (request("Sec-WebSocket-Protocol: chat\r\n"), "HTTP/1.1 400 "),
        ("GET / HTTP/1.1\r\nHost: node.example\r\n\r\n".to_owned(), "HTTP/1.1 426 "),
        ("GET /favicon.ico HTTP/1.1\r\n\r\n".to_owned(), "HTTP/1.1 404 "),
    ] {
        let mut stream = TcpStream::connect(address).await.expect("accepted");
        stream.write_all(request.as_bytes()).await.expect("written");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("a clean end");
        assert!(answer.starts_with(status), "{request}: {answer}");
    }
}

/// CONNECT of 5.0 without a client identifier, and the DISCONNECT of a node that ends.
const CONNECT_5: &[u8] = b"\x10\x0d\x00\x04MQTT\x05\x02\x00\x3c\x00\x00\x00";
const SHUTTING_DOWN: &[u8] = &[0xe0, 1, 0x8b];

/// What a node that ends says arrives, though its peer has sent what nobody reads any more: a close
/// with that unread would be a reset, and the peer would never see why.
#[tokio::test]
async fn a_farewell_arrives_before_the_end_over_tcp_and_over_websocket() {
    let (world, address) = listen();
    let plain = world.port(Layers::new("tcp", &config().tcp, None));
    let mut tcp = TcpStream::connect(plain).await.expect("accepted");
    tcp.write_all(CONNECT_5).await.expect("written");
    let mut connack = [0; 2];
    tcp.read_exact(&mut connack).await.expect("CONNACK");
    tcp.read_exact(&mut vec![0; connack[1].into()]).await.expect("the rest of it");
    let mut websocket = Client::open(address).await;
    websocket.send(&[&frame(0x82, CONNECT_5)]).await;
    assert_eq!(websocket.frame().await.1[0], 0x20);
    let broker = world.broker.clone();
    let draining = tokio::spawn(async move { broker.drain(std::time::Duration::from_secs(5)).await });
    // QoS 0 without end, until the farewell is here.
    let publish = b"\x30\x04\x00\x01tx".repeat(1_000);
    let _ = tcp.write_all(&publish).await;
    websocket.send(&[&frame(0x82, &publish[..120])]).await;
    let mut farewell = Vec::new();
    tcp.read_to_end(&mut farewell).await.expect("an end, not a reset");
    assert_eq!(farewell, SHUTTING_DOWN);
    assert_eq!(websocket.frame().await, (0x82, SHUTTING_DOWN.to_vec()));
    websocket.closed_with(1000).await;
    drop((tcp, websocket));
    draining.await.expect("drained");
}
