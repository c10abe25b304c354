//! Topic Aliases (section 3.3.2.3.4), each direction with its own.

use crate::peer::*;

fn under(alias: u16, publish: Publish) -> Packet {
    Packet::Publish(Publish { properties: properties([Property::TopicAlias(alias)]), ..publish })
}

fn alias_of(publish: &Publish) -> Option<u16> {
    publish.properties.find(|property| match property {
        Property::TopicAlias(alias) => Some(*alias),
        _ => None,
    })
}

fn maximum_of(ack: &ConnAck) -> u16 {
    let maximum = |property: &Property| match property {
        Property::TopicAliasMaximum(maximum) => Some(*maximum),
        _ => None,
    };
    ack.properties.find(maximum).expect("aliases are taken")
}

#[tokio::test(start_paused = true)]
async fn every_alias_up_to_the_announced_maximum_is_taken() {
    let world = World::new();
    let mut subscriber = world.plain("s", Version::V5).await;
    subscriber.subscribe("topic/#", QoS::AtMostOnce).await;
    let (mut client, ack) = world.join(connect(Version::V5, "c")).await;
    for alias in 1..=maximum_of(&ack) {
        let topic = format!("topic/{alias}");
        client.send(under(alias, publish(&topic, "said", None))).await;
        client.send(under(alias, publish("", "meant", None))).await;
        for payload in ["said", "meant"] {
            let heard = subscriber.message().await;
            assert_eq!((heard.topic, heard.payload), (text(&topic), payload.into()));
        }
    }
    // An alias may be given to another topic.
    client.send(under(1, publish("topic/new", "said", None))).await;
    client.send(under(1, publish("", "meant", None))).await;
    for _ in 0..2 {
        assert_eq!(subscriber.message().await.topic, text("topic/new"));
    }
}

#[tokio::test(start_paused = true)]
async fn an_alias_is_not_carried_to_another_connection() {
    let world = World::new();
    let (mut client, _) = world.join(staying(Version::V5, "c", 100)).await;
    client.send(under(1, publish("topic/a", "x", None))).await;
    client.ping().await;
    client.lost().await;
    let (mut client, ack) = world.join(staying(Version::V5, "c", 100)).await;
    assert!(ack.session_present);
    client.send(under(1, publish("", "x", None))).await;
    client.ended(ReasonCode::ProtocolError).await;
}

#[tokio::test(start_paused = true)]
async fn an_alias_of_0_or_above_the_announced_maximum_is_invalid() {
    let world = World::new();
    let (mut client, ack) = world.join(connect(Version::V5, "c")).await;
    client.send(under(maximum_of(&ack) + 1, publish("topic/a", "x", None))).await;
    client.ended(ReasonCode::TopicAliasInvalid).await;
    let mut client = world.plain("c", Version::V5).await;
    client.write(&frame(0x30, b"\x00\x01a\x03\x23\x00\x00")).await;
    client.ended(ReasonCode::TopicAliasInvalid).await;
}

#[tokio::test(start_paused = true)]
async fn no_alias_is_sent_to_a_client_that_takes_none() {
    let world = World::new();
    for list in [vec![], vec![Property::TopicAliasMaximum(0)]] {
        let asked = Connect { properties: list.into_iter().collect(), ..connect(Version::V5, "c") };
        let (mut client, _) = world.join(asked).await;
        client.subscribe("#", QoS::AtMostOnce).await;
        for _ in 0..3 {
            client.publish("a/long/topic", "x", None).await;
            let heard = client.message().await;
            assert_eq!((heard.topic.as_str(), alias_of(&heard)), ("a/long/topic", None));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn no_alias_above_the_maximum_of_the_client_is_sent() {
    let world = World::new();
    let asked = Connect { properties: properties([Property::TopicAliasMaximum(2)]), ..connect(Version::V5, "c") };
    let (mut client, _) = world.join(asked).await;
    client.subscribe("#", QoS::AtMostOnce).await;
    let mut known = std::collections::BTreeMap::new();
    for round in 0..3 {
        for topic in ["long/topic/1", "long/topic/2", "long/topic/3", "long/topic/4"] {
            client.publish(topic, "x", None).await;
            let heard = client.message().await;
            let alias = alias_of(&heard);
            assert!(alias.is_none_or(|alias| (1..=2).contains(&alias)), "{heard:?} in round {round}");
            if !heard.topic.is_empty() {
                alias.map(|alias| known.insert(alias, heard.topic.as_str().to_owned()));
            }
            let meant = if heard.topic.is_empty() { known[&alias.expect("a topic")].as_str() } else { topic };
            assert_eq!(meant, topic);
        }
    }
}
