//! RETAIN (section 3.3.1.3), and what a new subscription is sent.

use std::time::Duration;

use crate::peer::*;

fn handling(retain_handling: RetainHandling) -> SubscriptionOptions {
    SubscriptionOptions { retain_handling, ..SubscriptionOptions::with_qos(QoS::AtLeastOnce) }
}

#[tokio::test(start_paused = true)]
async fn the_last_retained_message_of_a_topic_is_kept_with_its_qos() {
    for version in VERSIONS {
        let world = World::new();
        let mut client = world.plain("p", version).await;
        client.tell(retained("a", "old")).await;
        client.tell(Publish { retain: true, ..message("a", "new", QoS::AtLeastOnce, 1) }).await;
        let mut subscriber = world.plain("s", version).await;
        subscriber.subscribe("a", QoS::AtLeastOnce).await;
        let heard = subscriber.told().await;
        assert!(heard.retain && heard.payload == "new");
        assert_eq!(heard.assurance.qos(), QoS::AtLeastOnce);
        subscriber.ping().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_retained_message_of_qos_0_replaces_one_of_qos_1() {
    for version in VERSIONS {
        let world = World::new();
        let mut client = world.plain("c", version).await;
        client.tell(Publish { retain: true, ..message("a", "1", QoS::AtLeastOnce, 1) }).await;
        client.tell(retained("a", "0")).await;
        client.subscribe("a", QoS::AtLeastOnce).await;
        assert_eq!(client.message().await.payload, "0");
        client.ping().await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_empty_retained_message_clears_its_topic_and_is_delivered() {
    for version in VERSIONS {
        let world = World::new();
        let mut client = world.plain("c", version).await;
        client.tell(retained("a", "kept")).await;
        client.subscribe("a", QoS::AtMostOnce).await;
        assert!(client.message().await.retain);
        client.tell(retained("a", "")).await;
        assert_eq!(client.message().await.payload, "");
        let mut later = world.plain("later", version).await;
        later.subscribe("#", QoS::AtMostOnce).await;
        later.ping().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_message_without_retain_neither_keeps_nor_clears() {
    for version in VERSIONS {
        let world = World::new();
        let mut client = world.plain("c", version).await;
        client.tell(retained("a", "kept")).await;
        client.tell(publish("a", "passing", None)).await;
        client.tell(publish("a", "", None)).await;
        client.tell(publish("b", "passing", None)).await;
        client.subscribe("#", QoS::AtMostOnce).await;
        assert_eq!(client.message().await.payload, "kept");
        client.ping().await;
    }
}

#[tokio::test(start_paused = true)]
async fn retain_handling_0_sends_all_that_match_each_time() {
    let world = World::new();
    let mut client = world.plain("c", Version::V5).await;
    for topic in ["a/1", "a/2", "b"] {
        client.tell(retained(topic, topic)).await;
    }
    for _ in 0..2 {
        client.subscribe_with("a/+", handling(RetainHandling::Send), Properties::default()).await;
        let mut topics = [client.told().await, client.told().await].map(|heard| heard.topic.as_str().to_owned());
        topics.sort();
        assert_eq!(topics, ["a/1", "a/2"]);
        client.ping().await;
    }
}

#[tokio::test(start_paused = true)]
async fn retain_handling_1_sends_to_a_new_subscription_alone() {
    let world = World::new();
    let mut client = world.plain("c", Version::V5).await;
    client.tell(retained("a", "kept")).await;
    for is_new in [true, false, false] {
        client.subscribe_with("a", handling(RetainHandling::SendIfNew), Properties::default()).await;
        if is_new {
            assert_eq!(client.told().await.payload, "kept");
        }
        client.ping().await;
    }
    client.unsubscribe(1, &["a"]).await;
    client.subscribe_with("a", handling(RetainHandling::SendIfNew), Properties::default()).await;
    assert_eq!(client.told().await.payload, "kept");
}

#[tokio::test(start_paused = true)]
async fn retain_handling_2_sends_nothing_retained() {
    let world = World::new();
    let mut client = world.plain("c", Version::V5).await;
    client.tell(retained("a", "kept")).await;
    client.subscribe_with("a", handling(RetainHandling::DoNotSend), Properties::default()).await;
    client.ping().await;
    client.tell(publish("a", "live", None)).await;
    assert_eq!(client.message().await.payload, "live");
}

#[tokio::test(start_paused = true)]
async fn retain_is_passed_on_where_it_is_asked_for() {
    let world = World::new();
    let mut client = world.plain("c", Version::V5).await;
    for (filter, retain_as_published) in [("a", true), ("b", false)] {
        let options = SubscriptionOptions { retain_as_published, ..SubscriptionOptions::with_qos(QoS::AtMostOnce) };
        client.subscribe_with(filter, options, Properties::default()).await;
        for retain in [true, false] {
            client.tell(Publish { retain, ..publish(filter, "x", None) }).await;
            assert_eq!(client.message().await.retain, retain && retain_as_published);
        }
    }
    let mut old = world.plain("old", Version::V3_1_1).await;
    old.subscribe("c", QoS::AtMostOnce).await;
    old.tell(retained("c", "x")).await;
    assert!(!old.message().await.retain, "an established subscription of 3.1.1 never sees RETAIN");
}

#[tokio::test(start_paused = true)]
async fn what_a_new_subscription_is_sent_says_retain() {
    for version in VERSIONS {
        let world = World::new();
        let mut client = world.plain("c", version).await;
        client.tell(retained("a", "kept")).await;
        client.subscribe("+", QoS::AtMostOnce).await;
        assert!(client.message().await.retain);
    }
}

#[tokio::test(start_paused = true)]
async fn a_subscription_again_gets_retained_messages_again_and_loses_none() {
    for version in VERSIONS {
        let world = World::new();
        let mut client = world.plain("c", version).await;
        client.tell(retained("a", "kept")).await;
        for _ in 0..3 {
            client.subscribe("a", QoS::AtLeastOnce).await;
            let heard = client.message().await;
            assert!(heard.retain && heard.payload == "kept");
        }
        client.publish("a", "live", None).await;
        client.subscribe("a", QoS::AtMostOnce).await;
        let mut heard = [client.message().await.payload, client.message().await.payload];
        heard.sort();
        assert_eq!(heard, ["kept", "live"]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_retained_message_outlives_the_session_it_came_from() {
    for version in VERSIONS {
        let world = World::new();
        let mut client = world.plain("c", version).await;
        client.tell(retained("a", "kept")).await;
        client.ping().await;
        client.leave().await;
        let mut client = world.plain("c", version).await;
        client.subscribe("a", QoS::AtMostOnce).await;
        assert_eq!(client.message().await.payload, "kept");
    }
}

#[tokio::test(start_paused = true)]
async fn a_retained_message_that_has_expired_is_sent_to_nobody() {
    let world = World::new();
    let mut client = world.plain("c", Version::V5).await;
    let properties = properties([Property::MessageExpiryInterval(10)]);
    client.tell(Publish { properties, ..retained("a", "kept") }).await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    client.subscribe("a", QoS::AtMostOnce).await;
    let heard = client.message().await;
    let left = heard.properties.iter().any(|property| matches!(property, Property::MessageExpiryInterval(5..=6)));
    assert!(left, "{heard:?}");
    tokio::time::sleep(Duration::from_secs(7)).await;
    client.subscribe("a", QoS::AtMostOnce).await;
    client.ping().await;
}

#[tokio::test(start_paused = true)]
async fn a_new_subscription_gets_all_retained_messages_however_many() {
    for version in VERSIONS {
        let world = World::new();
        let mut publisher = world.plain("p", version).await;
        for number in 0..90 {
            let retained = Publish { retain: true, ..message(&format!("a/{number}"), "kept", QoS::AtLeastOnce, 1) };
            publisher.tell(retained).await;
        }
        let mut client = world.plain("c", version).await;
        client.subscribe("a/+", QoS::AtLeastOnce).await;
        let mut topics = std::collections::BTreeSet::new();
        for _ in 0..90 {
            topics.insert(client.told().await.topic.as_str().to_owned());
        }
        assert_eq!(topics.len(), 90);
        client.ping().await;
    }
}
