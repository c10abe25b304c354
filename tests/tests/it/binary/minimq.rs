//! The plain listener under a client made for microcontrollers, that others wrote: minimq.

use std::io;

use embedded_io_async::{ErrorType, Read, Write};
use minimq::{Buffers, ConfigBuilder, Publication, QoS, Session, SubscriptionOptions, TopicFilter};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use unhidra_tests::process::{Place, soon};

use super::plain::plain_node;

/// A TCP stream, as embedded code knows streams.
struct Wire(TcpStream);

impl ErrorType for Wire {
    type Error = io::Error;
}

impl Read for Wire {
    async fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer).await
    }
}

impl Write for Wire {
    async fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes).await
    }

    async fn flush(&mut self) -> io::Result<()> {
        self.0.flush().await
    }
}

#[tokio::test]
async fn minimq_hears_what_it_says_at_qos_1() {
    let place = Place::new();
    let (node, address) = plain_node(&place).await;
    let wire = Wire(TcpStream::connect(address).await.expect("a connection"));

    let (receive, transmit) = (&mut [0; 512], &mut [0; 1024]);
    let buffers = Buffers::new(receive, transmit);
    let mut session = Session::new(ConfigBuilder::new(buffers).client_id("chip").expect("short"));
    let mut connection = soon("CONNACK", session.connect(wire)).await.expect("let in");
    let options = SubscriptionOptions::default().maximum_qos(QoS::AtLeastOnce);
    let filters = [TopicFilter::new("lab/+").options(options)];
    soon("SUBSCRIBE", connection.subscribe(&filters, &[])).await.expect("sent");
    for n in 0..20_u8 {
        let body = [n];
        let publication = Publication::bytes("lab/chip", &body).qos(QoS::AtLeastOnce);
        soon("PUBLISH", connection.publish(publication)).await.expect("sent");
        let heard = soon("the message", connection.recv()).await.expect("the connection stands");
        assert_eq!((heard.topic(), heard.payload()), ("lab/chip", &body[..]));
    }
    drop(connection);
    node.stop().await;
}
