//! The plain listener under another MQTT 5 client that others wrote: rumqttc.

use rumqttc::mqttbytes::QoS;
use rumqttc::mqttbytes::v5::Packet;
use rumqttc::{AsyncClient, Event, EventLoop, MqttOptions, PublishOptions};
use serde_json::Value;
use unhidra_tests::process::{FREE_PORTS, Node, Place, soon};

const MESSAGES: usize = 200;

fn client(node: &Node, id: &str) -> (AsyncClient, EventLoop) {
    let address = node.ready["mqtt_plain"].as_str().and_then(|text| text.rsplit_once(':')).expect("it listens");
    let port: u16 = address.1.parse().expect("a port");
    let mut options = MqttOptions::new(id, (address.0.to_owned(), port));
    options.set_keep_alive(5);
    AsyncClient::builder(options).capacity(MESSAGES).build()
}

/// Drives a client until what comes in satisfies `found`.
async fn until<T>(what: &str, events: &mut EventLoop, mut found: impl FnMut(Packet) -> Option<T>) -> T {
    soon(what, async {
        loop {
            match events.poll().await.expect("the connection stands") {
                Event::Incoming(packet) => {
                    if let Some(found) = found(packet) {
                        return found;
                    }
                }
                Event::Outgoing(_) | Event::Auth(_) => {}
            }
        }
    })
    .await
}

#[tokio::test]
async fn rumqttc_gets_every_message_once_and_in_order_and_the_retained_one_later() {
    let place = Place::new();
    let plain = "--set broker.tcp.listen=127.0.0.1:0 --set broker.tcp.anonymous=true";
    let node = place.node(&format!("run {FREE_PORTS} {plain}")).await;
    assert_ne!(node.ready["mqtt_plain"], Value::Null);

    let (reader, mut heard) = client(&node, "reader");
    reader.subscribe("lab/+/temperature", QoS::AtLeastOnce).await.expect("queued");
    until("SUBACK", &mut heard, |packet| matches!(packet, Packet::SubAck(_)).then_some(())).await;

    let (writer, mut answers) = client(&node, "writer");
    for n in 0..MESSAGES {
        let options = PublishOptions::at_least_once();
        writer.publish("lab/bench/temperature", n.to_string(), options).await.expect("queued");
    }
    let mut acknowledged = 0;
    let writing = until("every PUBACK", &mut answers, |packet| {
        acknowledged += usize::from(matches!(packet, Packet::PubAck(_)));
        (acknowledged == MESSAGES).then_some(())
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

    let retained = PublishOptions::at_least_once().retained();
    writer.publish("lab/bench/humidity", "35", retained).await.expect("queued");
    until("the PUBACK", &mut answers, |packet| matches!(packet, Packet::PubAck(_)).then_some(())).await;
    let (late, mut heard) = client(&node, "late");
    late.subscribe("lab/#", QoS::AtLeastOnce).await.expect("queued");
    let retained = until("the retained message", &mut heard, |packet| match packet {
        Packet::Publish(publish) => Some((publish.retain, publish.payload)),
        _ => None,
    });
    assert_eq!(retained.await, (true, "35".into()));
    node.stop().await;
}
