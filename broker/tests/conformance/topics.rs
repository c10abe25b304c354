//! Topic Names and Topic Filters (section 4.7), and the order of messages (section 4.6).

use std::time::Duration;

use crate::peer::*;

#[tokio::test(start_paused = true)]
async fn a_wildcard_stands_for_whole_levels() {
    let world = World::new();
    let cases: [(&str, &[&str], &[&str]); 9] = [
        ("#", &["a", "a/b", "/", "/a"], &["$a"]),
        ("a/#", &["a", "a/", "a/b", "a/b/c"], &["b", "ab", "A"]),
        ("+", &["a", "ä"], &["/a", "a/b", "$a"]),
        ("a/+", &["a/b", "a/"], &["a", "a/b/c"]),
        ("+/+", &["/a", "a/", "/"], &["a"]),
        ("/+", &["/a"], &["a"]),
        ("a/+/c", &["a/b/c", "a//c"], &["a/c", "a/b/d"]),
        ("+/b/#", &["a/b", "a/b/c"], &["a/c"]),
        ("a b/", &["a b/"], &["a b", "a  b/"]),
    ];
    for version in VERSIONS {
        for (filter, matching, others) in cases {
            let mut client = world.plain("c", version).await;
            client.subscribe(filter, QoS::AtMostOnce).await;
            for topic in matching {
                client.publish(topic, topic, None).await;
                assert_eq!(client.message().await.topic, text(topic), "{filter}");
            }
            for topic in others.iter().filter(|topic| !topic.starts_with('$')) {
                client.publish(topic, topic, None).await;
            }
            client.ping().await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_wildcard_where_none_may_stand_is_refused() {
    let world = World::new();
    for filter in ["a#", "#a", "a/#/b", "a+", "+a", "a/b+/c", "a/#b", "##", "++"] {
        let mut client = world.plain("c", Version::V5).await;
        let ack = client.subscribe_all(1, &[(filter, QoS::AtMostOnce)]).await;
        assert_eq!(ack.reasons, [ReasonCode::TopicFilterInvalid], "{filter}");
        let mut client = world.plain("d", Version::V3_1_1).await;
        assert!(client.subscribe_all(1, &[(filter, QoS::AtMostOnce)]).await.reasons[0].is_error(), "{filter}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_filter_and_a_name_have_at_least_one_character() {
    let world = World::new();
    for version in VERSIONS {
        let mut client = world.plain("c", version).await;
        assert!(client.subscribe_all(1, &[("", QoS::AtMostOnce)]).await.reasons[0].is_error());
        client.publish("", "x", None).await;
        match client.hear().await {
            Heard::End => {}
            Heard::Packet(Packet::Disconnect(told)) => assert!(told.reason.is_error()),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_topic_longer_than_is_taken_is_refused() {
    let world = World::new();
    let long = "a".repeat(1_025);
    for version in VERSIONS {
        let mut client = world.plain("c", version).await;
        assert!(client.subscribe_all(1, &[(&long, QoS::AtMostOnce)]).await.reasons[0].is_error());
        client.publish(&long, "x", None).await;
        client.ended(ReasonCode::TopicNameInvalid).await;
    }
}

#[tokio::test(start_paused = true)]
async fn names_and_filters_are_compared_as_they_are() {
    for version in VERSIONS {
        let world = World::new();
        let mut client = world.plain("c", version).await;
        // The two forms of one letter are two topics, and so are upper and lower case, and slashes.
        for filter in ["caf\u{E9}", "Case", "/a", "b/"] {
            client.subscribe(filter, QoS::AtMostOnce).await;
        }
        for topic in ["cafe\u{301}", "case", "a", "b", "//a", "b//", "Case "] {
            client.publish(topic, "x", None).await;
        }
        client.ping().await;
        for topic in ["caf\u{E9}", "Case", "/a", "b/"] {
            client.publish(topic, "x", None).await;
            assert_eq!(client.message().await.topic, text(topic));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn messages_of_a_topic_come_in_the_order_they_were_published() {
    for version in VERSIONS {
        for qos in LEVELS {
            let world = World::new();
            let mut client = world.plain("c", version).await;
            client.subscribe("a/#", qos).await;
            let mut publisher = world.plain("p", version).await;
            for number in 1..=40 {
                publisher.tell(message("a/b", &number.to_string(), qos, number)).await;
                assert_eq!(client.told().await.payload, number.to_string());
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn messages_in_one_go_keep_their_order() {
    for version in VERSIONS {
        let world = World::new();
        let mut client = world.plain("c", version).await;
        client.subscribe("a", QoS::AtMostOnce).await;
        let mut publisher = world.plain("p", version).await;
        publisher.send_all((0..200).map(|number| Packet::Publish(publish("a", &number.to_string(), None)))).await;
        for number in 0..200 {
            assert_eq!(client.message().await.payload, number.to_string());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_wildcard_at_the_beginning_stands_for_no_topic_of_the_broker() {
    for version in VERSIONS {
        let world = World::new();
        let broker = world.broker.clone();
        tokio::spawn(async move { broker.report().await });
        let mut client = world.plain("c", version).await;
        for filter in ["#", "+/#", "+/broker/uptime"] {
            client.subscribe(filter, QoS::AtMostOnce).await;
        }
        let mut reader = world.plain("r", version).await;
        reader.subscribe("$SYS/broker/uptime", QoS::AtMostOnce).await;
        // What is retained, and what comes in its time.
        for _ in 0..2 {
            tokio::time::sleep(Duration::from_secs(11)).await;
            assert_eq!(reader.message().await.topic, text("$SYS/broker/uptime"));
        }
        client.ping().await;
    }
}
