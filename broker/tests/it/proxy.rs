//! A listener behind a load balancer, on real sockets: who comes is who the PROXY header says.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use unhidra_broker::*;

use crate::world::{World, config};

/// CONNECT of 3.1.1 without a client identifier.
const CONNECT: &[u8] = b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x3c\x00\x00";
/// CONNACK that lets it in.
const LET_IN: &[u8] = &[0x20, 2, 0, 0];

fn header(command: u8, source: [u8; 4]) -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
    header.extend([0x20 | command, 0x11, 0, 12]);
    header.extend(source);
    header.extend([10, 0, 0, 1, 0x30, 0x39, 0x07, 0x5b]);
    header
}

fn world(from: &str, gate: GateConfig) -> (World, SocketAddr) {
    let mut config = config();
    config.tcp.proxy_from = vec![from.parse().expect("a network")];
    config.gate = gate;
    let layers = Layers::new("tcp", &config.tcp, None);
    let world = World::with(config);
    let address = world.port(layers);
    (world, address)
}

/// Sends, and gives what comes back: a CONNACK, or nothing and the end.
async fn send(address: SocketAddr, bytes: &[u8]) -> (TcpStream, Vec<u8>) {
    let mut stream = TcpStream::connect(address).await.expect("accepted");
    stream.write_all(bytes).await.expect("written");
    let mut answer = vec![0; 4];
    let answered = stream.read_exact(&mut answer).await;
    (stream, if answered.is_ok() { answer } else { Vec::new() })
}

#[tokio::test]
async fn who_comes_is_who_the_header_says() {
    let gate = GateConfig { connections_per_address: 1, ..config().gate };
    let (_world, address) = world("127.0.0.0/8", gate);
    let come = async |source| send(address, &[&header(1, source), CONNECT].concat()).await;
    let (first, answer) = come([192, 0, 2, 7]).await;
    assert_eq!(answer, LET_IN);
    let (_other, answer) = come([192, 0, 2, 8]).await;
    assert_eq!(answer, LET_IN, "another address");
    let (_, answer) = come([192, 0, 2, 7]).await;
    assert_eq!(answer, b"", "its second connection");
    drop(first);
    // The node notices when it reads the end.
    while come([192, 0, 2, 7]).await.1 != LET_IN {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn the_proxy_itself_is_a_client_like_others() {
    let (_world, address) = world("127.0.0.1", config().gate);
    let (_stream, answer) = send(address, &[&header(0, [0; 4]), CONNECT].concat()).await;
    assert_eq!(answer, LET_IN);
}

#[tokio::test]
async fn who_is_no_proxy_of_ours_does_not_come_in() {
    let (_world, address) = world("192.0.2.0/24", config().gate);
    let (_, answer) = send(address, &[&header(1, [192, 0, 2, 7]), CONNECT].concat()).await;
    assert_eq!(answer, b"");
}

#[tokio::test]
async fn what_is_no_header_ends_its_own_connection_alone() {
    let gate = GateConfig { handshake_timeout_s: 1, ..config().gate };
    let (_world, address) = world("127.0.0.1", gate);
    let good = [&header(1, [192, 0, 2, 7]), CONNECT].concat();
    let mut hostile: Vec<Vec<u8>> = vec![
        CONNECT.to_vec(),
        b"PROXY TCP4 192.0.2.7 10.0.0.1 1 2\r\n".to_vec(),
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff".to_vec(),
        // It stops in the middle: the time for handshakes ends it.
        good[..20].to_vec(),
    ];
    // Each byte of the fixed part wrong in turn. The length's own may make a longer header, which
    // the time ends too.
    hostile.extend((0..14).map(|at| {
        let mut bytes = good.clone();
        bytes[at] ^= 0x80;
        bytes
    }));
    let sent = hostile.iter().map(|bytes| send(address, bytes));
    let mut sent: Vec<_> = sent.map(Box::pin).collect();
    for (at, sent) in sent.iter_mut().enumerate() {
        assert_eq!(sent.await.1, b"", "{at}");
    }
    assert_eq!(send(address, &good).await.1, LET_IN);
}
