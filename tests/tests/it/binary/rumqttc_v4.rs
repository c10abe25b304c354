//! The plain listener under rumqttc for MQTT 3.1.1.

use std::net::SocketAddr;

use rumqttc_v4::{AsyncClient, Event, EventLoop, MqttOptions, Packet, PublishOptions, QoS};
use unhidra_tests::process::{Place, soon};

use super::plain::plain_node;

const MESSAGES: usize = 100;

fn client(address: SocketAddr, id: &str) -> (AsyncClient, EventLoop) {
    let mut options = MqttOptions::new(id, (address.ip().to_string(), address.port()));
    options.set_keep_alive(5);
    AsyncClient::builder(options).capacity(4 * MESSAGES).build()
}

/// Drives a client until what comes in satisfies `found`.
async fn until<T>(what: &str, events: &mut EventLoop, mut found: impl FnMut(Packet) -> Option<T>) -> T {
    soon(what, async {
        loop {
            if let Event::Incoming(packet) = events.poll().await.expect("the connection stands")
                && let Some(found) = found(packet)
            {
                return found;
            }
        }
    })
    .await
}

#[tokio::test]
async fn rumqttc_for_3_1_1_gets_every_message_once_and_in_order_and_the_retained_one_later() {
    let place = Place::new();
    let (node, address) = plain_node(&place).await;
    let (reader, mut heard) = client(address, "reader");
    reader.subscribe("lab/+/temperature", QoS::ExactlyOnce).await.expect("queued");
    until("SUBACK", &mut heard, |packet| matches!(packet, Packet::SubAck(_)).then_some(())).await;

    let (writer, mut answers) = client(address, "writer");
    for options in [PublishOptions::at_least_once(), PublishOptions::exactly_once()] {
        for n in 0..MESSAGES {
            writer.publish("lab/bench/temperature", n.to_string(), options).await.expect("queued");
        }
        let mut answered = 0;
        let writing = until("every answer", &mut answers, |packet| {
            answered += usize::from(matches!(packet, Packet::PubAck(_) | Packet::PubComp(_)));
            (answered == MESSAGES).then_some(())
        });
        let mut received = Vec::new();
        let reading = until("every message", &mut heard, |packet| {
            if let Packet::Publish(publish) = packet {
                received.push(String::from_utf8_lossy(&publish.payload).into_owned());
            }
            (received.len() == MESSAGES).then_some(())
        });
        tokio::join!(writing, reading);
        assert_eq!(received, (0..MESSAGES).map(|n| n.to_string()).collect::<Vec<_>>());
    }

    let retained = PublishOptions::at_least_once().retained();
    writer.publish("lab/bench/humidity", "35", retained).await.expect("queued");
    until("the PUBACK", &mut answers, |packet| matches!(packet, Packet::PubAck(_)).then_some(())).await;
    let (late, mut heard) = client(address, "late");
    late.subscribe("lab/#", QoS::AtLeastOnce).await.expect("queued");
    let retained = until("the retained message", &mut heard, |packet| match packet {
        Packet::Publish(publish) => Some((publish.retain, publish.payload)),
        _ => None,
    });
    assert_eq!(retained.await, (true, "35".into()));
    node.stop().await;
}
