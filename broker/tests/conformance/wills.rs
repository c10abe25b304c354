//! The Will (sections 3.1.2.5 to 3.1.2.7 and 3.1.3.2).

use std::time::Duration;

use crate::peer::*;

async fn watcher(world: &World, version: Version) -> Client {
    let (mut watcher, _) = world.join(Connect { keep_alive_s: 0, ..connect(version, "watcher") }).await;
    let options = SubscriptionOptions { retain_as_published: true, ..SubscriptionOptions::with_qos(QoS::ExactlyOnce) };
    watcher.subscribe_with("w/#", options, Properties::default()).await;
    watcher
}

fn leaving(version: Version, will: Will) -> Connect {
    Connect { will: Some(will), ..connect(version, "c") }
}

fn delayed(seconds: u32, expiry_s: u32) -> Connect {
    let will = Will { properties: properties([Property::WillDelayInterval(seconds)]), ..will("w", "gone") };
    Connect { will: Some(will), ..staying(Version::V5, "c", expiry_s) }
}

#[tokio::test(start_paused = true)]
async fn a_will_is_published_when_its_connection_is_lost() {
    for version in VERSIONS {
        let world = World::new();
        let mut watcher = watcher(&world, version).await;
        let (client, _) = world.join(leaving(version, will("w", "gone"))).await;
        watcher.ping().await;
        client.lost().await;
        let heard = watcher.message().await;
        assert!(heard.payload == "gone" && !heard.retain);
        watcher.ping().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_will_is_published_when_its_client_breaks_the_protocol() {
    for version in VERSIONS {
        let world = World::new();
        let mut watcher = watcher(&world, version).await;
        let (mut client, _) = world.join(leaving(version, will("w", "gone"))).await;
        client.write(&frame(0xC1, b"")).await;
        client.ended(ReasonCode::MalformedPacket).await;
        assert_eq!(watcher.message().await.payload, "gone");
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_takes_leave_leaves_no_will() {
    for version in VERSIONS {
        let world = World::new();
        let mut watcher = watcher(&world, version).await;
        let (client, _) = world.join(leaving(version, will("w", "gone"))).await;
        client.leave().await;
        watcher.ping().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_may_leave_with_its_will() {
    let world = World::new();
    let mut watcher = watcher(&world, Version::V5).await;
    for reason in [ReasonCode::DisconnectWithWill, ReasonCode::UnspecifiedError] {
        let (mut client, _) = world.join(leaving(Version::V5, will("w", "gone"))).await;
        client.send(Packet::Disconnect(Disconnect::new(reason))).await;
        assert_eq!(client.hear().await, Heard::End);
        assert_eq!(watcher.message().await.payload, "gone");
    }
}

#[tokio::test(start_paused = true)]
async fn a_will_is_published_once() {
    let world = World::new();
    let mut watcher = watcher(&world, Version::V5).await;
    let (client, _) = world.join(Connect { will: Some(will("w", "gone")), ..staying(Version::V5, "c", 1_000) }).await;
    client.lost().await;
    assert_eq!(watcher.message().await.payload, "gone");
    // The session goes on and ends without another.
    let (client, ack) = world.join(staying(Version::V5, "c", 1_000)).await;
    assert!(ack.session_present);
    client.lost().await;
    tokio::time::sleep(Duration::from_secs(1_001)).await;
    watcher.ping().await;
}

#[tokio::test(start_paused = true)]
async fn without_a_will_nothing_is_published() {
    for version in VERSIONS {
        let world = World::new();
        let mut everything = world.plain("watcher", version).await;
        everything.subscribe("#", QoS::AtMostOnce).await;
        world.plain("c", version).await.lost().await;
        everything.ping().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_will_has_the_retain_it_was_given() {
    for version in VERSIONS {
        for retain in [true, false] {
            let world = World::new();
            let (client, _) = world.join(leaving(version, Will { retain, ..will("w", "gone") })).await;
            client.lost().await;
            let mut later = watcher(&world, version).await;
            if retain {
                let heard = later.message().await;
                assert!(heard.retain && heard.payload == "gone");
            }
            later.ping().await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_will_has_the_qos_it_was_given() {
    for version in VERSIONS {
        let world = World::new();
        let mut watcher = watcher(&world, version).await;
        for qos in LEVELS {
            let (client, _) = world.join(leaving(version, Will { qos, ..will("w", "gone") })).await;
            client.lost().await;
            assert_eq!(watcher.told().await.assurance.qos(), qos);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_will_keeps_what_it_says_of_itself_in_order() {
    let world = World::new();
    let mut watcher = watcher(&world, Version::V5).await;
    let list = [user("b", "1"), Property::ContentType(text("t")), user("a", "2"), user("b", "3")];
    let (client, _) =
        world.join(leaving(Version::V5, Will { properties: properties(list.clone()), ..will("w", "x") })).await;
    client.lost().await;
    let heard = watcher.message().await.properties;
    let users = |property: &&Property| matches!(property, Property::UserProperty(..));
    assert!(heard.iter().filter(users).eq(list.iter().filter(users)), "{heard:?}");
    assert!(heard.iter().any(|property| *property == list[1]));
}

#[tokio::test(start_paused = true)]
async fn a_will_waits_for_its_delay() {
    let world = World::new();
    let mut watcher = watcher(&world, Version::V5).await;
    let (client, _) = world.join(delayed(30, 100)).await;
    client.lost().await;
    tokio::time::sleep(Duration::from_secs(28)).await;
    watcher.ping().await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(watcher.message().await.payload, "gone");
}

#[tokio::test(start_paused = true)]
async fn a_will_is_not_published_when_its_session_is_taken_up_in_time() {
    let world = World::new();
    let mut watcher = watcher(&world, Version::V5).await;
    let (client, _) = world.join(delayed(30, 100)).await;
    client.lost().await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    let (client, ack) = world.join(staying(Version::V5, "c", 100)).await;
    assert!(ack.session_present);
    tokio::time::sleep(Duration::from_secs(50)).await;
    watcher.ping().await;
    client.leave().await;
    watcher.ping().await;
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_session_brings_its_will_forward() {
    let world = World::new();
    let mut watcher = watcher(&world, Version::V5).await;
    let (client, _) = world.join(delayed(300, 20)).await;
    client.lost().await;
    tokio::time::sleep(Duration::from_secs(18)).await;
    watcher.ping().await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(watcher.message().await.payload, "gone");
    // And so does a clean start.
    let (client, _) = world.join(delayed(300, 1_000)).await;
    client.lost().await;
    world.plain("c", Version::V5).await;
    assert_eq!(watcher.message().await.payload, "gone");
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_is_taken_over_leaves_its_will() {
    for version in VERSIONS {
        let world = World::new();
        let mut watcher = watcher(&world, version).await;
        let (_old, _) = world.join(leaving(version, will("w", "gone"))).await;
        let _new = world.plain("c", version).await;
        assert_eq!(watcher.message().await.payload, "gone");
    }
}

#[tokio::test(start_paused = true)]
async fn a_will_topic_has_no_wildcards() {
    let world = World::new();
    for version in VERSIONS {
        let mut client = world.stranger(version);
        client.send(Packet::Connect(Box::new(leaving(version, will("w/#", "x"))))).await;
        match client.hear().await {
            Heard::End => {}
            Heard::Packet(Packet::ConnAck(ack)) => {
                assert!(ack.reason.is_error());
                assert_eq!(client.hear().await, Heard::End);
            }
            other => panic!("{other:?}"),
        }
    }
}
