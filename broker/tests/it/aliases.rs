//! Topic Aliases, in both directions (section 3.3.2.3.4).

use unhidra_broker::packet::*;
use unhidra_broker::*;

use crate::world::*;

fn with_alias(publish: Publish, alias: u16) -> Packet {
    let properties = [Property::TopicAlias(alias)].into_iter().collect();
    Packet::Publish(Publish { properties, ..publish })
}

fn alias_of(publish: &Publish) -> Option<u16> {
    publish.properties.find(|property| match property {
        Property::TopicAlias(number) => Some(*number),
        _ => None,
    })
}

#[tokio::test(start_paused = true)]
async fn an_alias_of_a_client_stands_for_its_topic_in_its_connection_alone() {
    let world = World::new();
    let mut to = world.plain("to", Version::V5).await;
    to.subscribe("#", QoS::AtMostOnce).await;
    let mut from = world.plain("from", Version::V5).await;
    from.send(with_alias(publish("long/topic", "1", None), 3)).await;
    from.send(with_alias(publish("", "2", None), 3)).await;
    for payload in ["1", "2"] {
        let message = to.message().await;
        assert_eq!((message.topic.as_str(), message.payload.as_ref()), ("long/topic", payload.as_bytes()));
        assert!(message.properties.is_empty(), "the alias is the publisher's");
    }
    let mut again = world.plain("again", Version::V5).await;
    again.send(with_alias(publish("", "3", None), 3)).await;
    again.ended(ReasonCode::ProtocolError).await;
    from.send(with_alias(publish("long/topic", "4", None), u16::MAX)).await;
    from.ended(ReasonCode::TopicAliasInvalid).await;
    to.ping().await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_takes_aliases_reads_each_topic_once() {
    let world = World::new();
    let mut to = world.client(Identity::Anonymous, Version::V5);
    let properties = [Property::TopicAliasMaximum(1)].into_iter().collect();
    to.connect(Connect { properties, ..connect(Version::V5, "to") }).await;
    to.subscribe("#", QoS::AtLeastOnce).await;
    let mut from = world.plain("from", Version::V5).await;
    for topic in ["first/topic", "first/topic", "other/topic", "first/topic"] {
        from.publish(topic, "x", None).await;
    }
    for (topic, alias) in [("first/topic", Some(1)), ("", Some(1)), ("other/topic", None), ("", Some(1))] {
        let message = to.message().await;
        assert_eq!((message.topic.as_str(), alias_of(&message)), (topic, alias));
    }
}
