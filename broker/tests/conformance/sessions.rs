//! The session's state (sections 3.1.2.4, 3.1.2.11.2, 4.1 and 4.4).

use std::time::Duration;

use crate::peer::*;

#[tokio::test(start_paused = true)]
async fn a_clean_start_throws_the_session_away() {
    for version in VERSIONS {
        let world = World::new();
        let (mut client, _) = world.join(staying(version, "c", 100)).await;
        client.subscribe("a", QoS::AtLeastOnce).await;
        client.lost().await;
        let mut publisher = world.plain("p", version).await;
        publisher.tell(message("a", "waits", QoS::AtLeastOnce, 1)).await;
        let (mut client, ack) = world.join(connect(version, "c")).await;
        assert!(!ack.session_present);
        publisher.tell(message("a", "x", QoS::AtLeastOnce, 2)).await;
        client.ping().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_is_taken_up_with_subscriptions_and_messages() {
    for version in VERSIONS {
        let world = World::new();
        let (mut client, ack) = world.join(staying(version, "c", 100)).await;
        assert!(!ack.session_present);
        client.subscribe("a", QoS::AtLeastOnce).await;
        client.lost().await;
        let mut publisher = world.plain("p", version).await;
        for number in 1..=3 {
            publisher.tell(message("a", &number.to_string(), QoS::AtLeastOnce, number)).await;
        }
        let (mut client, ack) = world.join(staying(version, "c", 100)).await;
        assert!(ack.session_present);
        for number in 1..=3 {
            assert_eq!(client.told().await.payload, number.to_string());
        }
        publisher.tell(message("a", "live", QoS::AtLeastOnce, 4)).await;
        assert_eq!(client.told().await.payload, "live");
    }
}

#[tokio::test(start_paused = true)]
async fn without_session_expiry_a_session_ends_with_its_connection() {
    let world = World::new();
    let (mut client, _) = world.join(Connect { clean_start: false, ..connect(Version::V5, "c") }).await;
    client.subscribe("a", QoS::AtLeastOnce).await;
    client.lost().await;
    let (mut client, ack) = world.join(staying(Version::V5, "c", 100)).await;
    assert!(!ack.session_present);
    client.publish("a", "x", None).await;
    client.ping().await;
}

#[tokio::test(start_paused = true)]
async fn a_session_is_gone_when_its_expiry_has_passed_and_not_before() {
    let world = World::new();
    for (away_s, present) in [(98, true), (102, false)] {
        let (client, _) = world.join(staying(Version::V5, "c", 100)).await;
        client.lost().await;
        tokio::time::sleep(Duration::from_secs(away_s)).await;
        let (client, ack) = world.join(staying(Version::V5, "c", 100)).await;
        assert_eq!(ack.session_present, present, "after {away_s} s");
        client.leave().await;
    }
}

#[tokio::test(start_paused = true)]
async fn session_expiry_counts_from_the_end_of_the_connection() {
    let world = World::new();
    let (mut client, _) = world.join(Connect { keep_alive_s: 0, ..staying(Version::V5, "c", 10) }).await;
    client.subscribe("a", QoS::AtLeastOnce).await;
    tokio::time::sleep(Duration::from_secs(1_000)).await;
    client.publish("a", "x", None).await;
    assert_eq!(client.message().await.payload, "x");
    client.lost().await;
    assert!(world.join(staying(Version::V5, "c", 10)).await.1.session_present);
}

#[tokio::test(start_paused = true)]
async fn disconnect_may_change_the_session_expiry_but_not_raise_it_from_0() {
    let world = World::new();
    let disconnect = |seconds| {
        let properties = properties([Property::SessionExpiryInterval(seconds)]);
        Packet::Disconnect(Disconnect { reason: ReasonCode::Success, properties })
    };
    let (mut client, _) = world.join(staying(Version::V5, "c", 100)).await;
    client.send(disconnect(0)).await;
    assert_eq!(client.hear().await, Heard::End);
    assert!(!world.join(staying(Version::V5, "c", 100)).await.1.session_present);
    let mut client = world.plain("d", Version::V5).await;
    client.send(disconnect(10)).await;
    client.ended(ReasonCode::ProtocolError).await;
}

#[tokio::test(start_paused = true)]
async fn what_was_not_acknowledged_is_sent_again_under_its_identifier_and_in_order() {
    for version in VERSIONS {
        let world = World::new();
        let (mut client, _) = world.join(staying(version, "c", 100)).await;
        client.subscribe("a", QoS::AtLeastOnce).await;
        let mut publisher = world.plain("p", version).await;
        let mut sent = Vec::new();
        for number in 1..=5 {
            publisher.tell(message("a", &number.to_string(), QoS::AtLeastOnce, number)).await;
            let heard = client.message().await;
            let (id, dup) = identity_of(&heard);
            assert!(!dup);
            sent.push((id, heard.payload));
        }
        client.puback(sent.remove(2).0, ReasonCode::Success).await;
        client.ping().await;
        client.lost().await;
        let (mut client, _) = world.join(staying(version, "c", 100)).await;
        for (id, payload) in sent {
            let heard = client.told().await;
            assert_eq!((identity_of(&heard), heard.payload), ((id, true), payload));
        }
        client.ping().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_message_refused_by_its_receiver_is_not_sent_again() {
    let world = World::new();
    let (mut client, _) = world.join(staying(Version::V5, "c", 100)).await;
    client.subscribe("a", QoS::AtLeastOnce).await;
    let mut publisher = world.plain("p", Version::V5).await;
    publisher.tell(message("a", "x", QoS::AtLeastOnce, 1)).await;
    let id = identity_of(&client.message().await).0;
    client.puback(id, ReasonCode::UnspecifiedError).await;
    client.ping().await;
    client.lost().await;
    let (mut client, ack) = world.join(staying(Version::V5, "c", 100)).await;
    assert!(ack.session_present);
    client.ping().await;
}

#[tokio::test(start_paused = true)]
async fn a_session_belongs_to_its_client_identifier() {
    for version in VERSIONS {
        let world = World::new();
        let (mut client, _) = world.join(staying(version, "c", 100)).await;
        client.subscribe("a", QoS::AtLeastOnce).await;
        client.lost().await;
        assert!(!world.join(staying(version, "C", 100)).await.1.session_present);
        assert!(world.join(staying(version, "c", 100)).await.1.session_present);
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_goes_from_one_version_to_the_other() {
    let world = World::new();
    let (mut client, _) = world.join(staying(Version::V3_1_1, "c", 100)).await;
    client.subscribe("a", QoS::AtLeastOnce).await;
    client.lost().await;
    let mut publisher = world.plain("p", Version::V5).await;
    publisher.tell(message("a", "x", QoS::AtLeastOnce, 1)).await;
    let (mut client, ack) = world.join(staying(Version::V5, "c", 100)).await;
    assert!(ack.session_present);
    assert_eq!(client.told().await.payload, "x");
}

#[tokio::test(start_paused = true)]
async fn a_message_is_in_the_state_of_every_session_that_subscribed() {
    for version in VERSIONS {
        let world = World::new();
        for name in ["c", "d"] {
            let (mut client, _) = world.join(staying(version, name, 100)).await;
            client.subscribe("a", QoS::AtLeastOnce).await;
            client.lost().await;
        }
        world.plain("p", version).await.tell(message("a", "x", QoS::AtLeastOnce, 1)).await;
        for name in ["d", "c"] {
            let (mut client, _) = world.join(staying(version, name, 100)).await;
            assert_eq!(client.told().await.payload, "x");
        }
    }
}
