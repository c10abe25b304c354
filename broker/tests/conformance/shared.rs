//! Shared subscriptions (section 4.8.2).

use crate::peer::*;

/// Sessions that stay, each in the group at this QoS.
async fn group<const N: usize>(world: &World, names: [&str; N], qos: QoS) -> Vec<Client> {
    let mut members = Vec::new();
    for name in names {
        let (mut client, _) = world.join(staying(Version::V5, name, 1_000)).await;
        client.subscribe("$share/g/a/#", qos).await;
        members.push(client);
    }
    members
}

#[tokio::test(start_paused = true)]
async fn each_message_of_a_group_goes_to_one_member_and_all_have_their_share() {
    let world = World::new();
    let mut members = group(&world, ["1", "2", "3"], QoS::AtMostOnce).await;
    let mut outsider = world.plain("outsider", Version::V5).await;
    outsider.subscribe("a/#", QoS::AtMostOnce).await;
    let mut publisher = world.plain("p", Version::V5).await;
    for number in 0..30 {
        publisher.tell(message("a/b", &number.to_string(), QoS::AtLeastOnce, 1)).await;
    }
    let mut all = Vec::new();
    for member in &mut members {
        member.send(Packet::PingReq).await;
        let mut count = 0;
        loop {
            match member.packet().await {
                Packet::Publish(publish) => all.push(publish.payload),
                Packet::PingResp => break,
                other => panic!("{other:?}"),
            }
            count += 1;
        }
        assert_eq!(count, 10);
    }
    all.sort();
    all.dedup();
    assert_eq!(all.len(), 30);
    for number in 0..30 {
        assert_eq!(outsider.message().await.payload, number.to_string());
    }
}

#[tokio::test(start_paused = true)]
async fn a_share_name_is_there_and_has_no_wildcards_and_a_filter_follows() {
    let world = World::new();
    let mut client = world.plain("c", Version::V5).await;
    for filter in ["$share//a", "$share/g", "$share/g/", "$share/g+/a", "$share/#/a", "$share/", "$share/g/a#"] {
        let ack = client.subscribe_all(1, &[(filter, QoS::AtMostOnce)]).await;
        assert!(ack.reasons[0].is_error(), "{filter}");
    }
    assert_eq!(client.subscribe("$share/g/a", QoS::AtMostOnce).await, ReasonCode::Success);
}

#[tokio::test(start_paused = true)]
async fn no_local_on_a_shared_subscription_is_a_protocol_error() {
    let world = World::new();
    let mut client = world.plain("c", Version::V5).await;
    client.write(&frame(0x82, b"\x00\x01\x00\x00\x0A$share/g/a\x04")).await;
    client.ended(ReasonCode::ProtocolError).await;
}

#[tokio::test(start_paused = true)]
async fn the_granted_qos_of_the_member_holds() {
    let world = World::new();
    for granted in LEVELS {
        let mut members = group(&world, ["1"], granted).await;
        let mut publisher = world.plain("p", Version::V5).await;
        for published in LEVELS {
            publisher.tell(message("a", "x", published, 1)).await;
            assert_eq!(members[0].told().await.assurance.qos(), published.min(granted));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_message_of_qos_2_that_was_begun_is_completed_to_the_same_member() {
    let world = World::new();
    let mut members = group(&world, ["1"], QoS::ExactlyOnce).await;
    let mut publisher = world.plain("p", Version::V5).await;
    publisher.tell(message("a", "x", QoS::ExactlyOnce, 1)).await;
    let id = identity_of(&members[0].message().await).0;
    members.remove(0).lost().await;
    let mut other = group(&world, ["2"], QoS::ExactlyOnce).await.remove(0);
    other.ping().await;
    let (mut back, _) = world.join(staying(Version::V5, "1", 1_000)).await;
    let again = back.told().await;
    assert_eq!((identity_of(&again), again.payload.as_ref()), ((id, true), &b"x"[..]));
    other.ping().await;
}

#[tokio::test(start_paused = true)]
async fn a_message_of_qos_2_that_was_begun_goes_to_nobody_else_when_its_session_ends() {
    let world = World::new();
    let mut members = group(&world, ["1"], QoS::ExactlyOnce).await;
    let mut publisher = world.plain("p", Version::V5).await;
    publisher.tell(message("a", "x", QoS::ExactlyOnce, 1)).await;
    members[0].message().await;
    let mut other = group(&world, ["2"], QoS::ExactlyOnce).await.remove(0);
    members.remove(0).lost().await;
    // A clean start ends the session.
    world.plain("1", Version::V5).await.ping().await;
    rest().await;
    other.ping().await;
}

#[tokio::test(start_paused = true)]
async fn a_message_a_member_refuses_goes_to_nobody_else() {
    let world = World::new();
    for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce] {
        let mut members = group(&world, ["1", "2"], qos).await;
        let mut publisher = world.plain("p", Version::V5).await;
        publisher.tell(message("a", "first", qos, 1)).await;
        publisher.tell(message("a", "second", qos, 2)).await;
        for member in &mut members {
            let id = identity_of(&member.message().await).0;
            match qos {
                QoS::ExactlyOnce => member.pubrec(id, ReasonCode::QuotaExceeded).await,
                _ => member.puback(id, ReasonCode::QuotaExceeded).await,
            }
        }
        for mut member in members {
            member.ping().await;
            member.leave().await;
        }
        for mut member in group(&world, ["1", "2"], qos).await {
            member.ping().await;
            member.unsubscribe(1, &["$share/g/a/#"]).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_message_without_an_answer_reaches_another_member_when_its_session_ends() {
    let world = World::new();
    let mut members = group(&world, ["1", "2"], QoS::AtLeastOnce).await;
    let mut publisher = world.plain("p", Version::V5).await;
    publisher.tell(message("a", "x", QoS::AtLeastOnce, 1)).await;
    assert_eq!(members[0].message().await.payload, "x");
    members.remove(0).lost().await;
    world.plain("1", Version::V5).await.ping().await;
    assert_eq!(members[0].told().await.payload, "x");
}

#[tokio::test(start_paused = true)]
async fn shared_subscriptions_get_no_retained_messages() {
    let world = World::new();
    let mut publisher = world.plain("p", Version::V5).await;
    publisher.tell(retained("a", "kept")).await;
    publisher.ping().await;
    let mut members = group(&world, ["1"], QoS::AtMostOnce).await;
    members[0].ping().await;
}
