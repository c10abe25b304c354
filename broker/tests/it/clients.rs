//! Clients as those see them who look after the node.

use unhidra_broker::packet::*;
use unhidra_broker::*;
use unhidra_core::ids::ClientId;

use crate::world::*;

fn all(world: &World, page: usize) -> Vec<ClientRecord> {
    let mut found = Vec::new();
    let mut after = None;
    loop {
        let run = world.broker.clients(after.as_ref(), page, |_| true);
        assert!(run.clients.len() <= page, "a run is bounded: {run:?}");
        found.extend(run.clients);
        match run.next {
            Some(next) => after = Some(next),
            None => return found,
        }
    }
}

fn name(client_id: &str) -> SessionName {
    SessionName { owner: Owner::Anybody, client_id: ClientId::parse(client_id).expect("an id") }
}

/// A connect whose session lives on.
fn lasting(version: Version, client_id: &str) -> Connect {
    let properties = match version {
        Version::V5 => [Property::SessionExpiryInterval(60)].into_iter().collect(),
        Version::V3_1_1 => Properties::default(),
    };
    Connect { clean_start: false, properties, ..connect(version, client_id) }
}

#[tokio::test(start_paused = true)]
async fn each_session_is_shown_once_whatever_the_page() {
    let mut world = World::new();
    let (_device, _) = world.device("pump-7", Version::V5).await;
    let mut clients = Vec::new();
    for n in 0..7 {
        clients.push(world.plain(&format!("c{n}"), Version::V3_1_1).await);
    }
    for page in [1, 3, 100] {
        let found = all(&world, page);
        let names: Vec<_> = found.iter().map(|record| record.name.client_id.as_str().to_owned()).collect();
        assert_eq!(names, ["pump-7", "c0", "c1", "c2", "c3", "c4", "c5", "c6"]);
    }
    let some = world.broker.clients(None, 100, |record| record.name.client_id.as_str() == "c3");
    assert_eq!(some.clients.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_record_says_how_a_client_is_connected_and_what_it_holds() {
    let world = World::new();
    let mut client = world.client(Identity::Anonymous, Version::V5);
    client.connect(lasting(Version::V5, "c")).await;
    client.subscribe("a", QoS::AtLeastOnce).await;
    client.subscribe("b", QoS::AtLeastOnce).await;
    let mut writer = world.plain("writer", Version::V5).await;
    writer.publish("a", "one", Some(1)).await;
    writer.acked().await;
    client.message().await;
    client.ping().await;

    let record = all(&world, 10).remove(0);
    assert_eq!((&record.name, record.subscriptions, record.in_flight), (&name("c"), 2, 1));
    let ClientStanding::Here { peer, version, keep_alive_s, .. } = record.standing else { panic!("{record:?}") };
    assert_eq!((&*peer, version, keep_alive_s), ("simulated", Version::V5, 60));

    // Away, what waits for it is counted.
    client.send(Packet::Disconnect(Disconnect::new(ReasonCode::Success))).await;
    assert_eq!(client.hear().await, Heard::End);
    writer.publish("b", "two", Some(2)).await;
    writer.acked().await;
    let record = all(&world, 10).remove(0);
    assert!(matches!(record.standing, ClientStanding::Away { .. }), "{record:?}");
    assert_eq!((record.subscriptions, record.in_flight, record.queued_messages), (2, 1, 1));
    assert!(record.queued_bytes > 0);
}

#[tokio::test(start_paused = true)]
async fn a_kicked_client_hears_why_and_keeps_its_session_unless_it_is_forgotten() {
    let world = World::new();
    for (forget, session_present) in [(false, true), (true, false)] {
        let mut client = world.client(Identity::Anonymous, Version::V5);
        client.connect(lasting(Version::V5, "c")).await;
        let mut other = world.plain("other", Version::V5).await;
        let kicked = world.broker.kick(&[name("c"), name("nobody")], forget).await;
        assert_eq!(kicked.iter().map(|record| &record.name).collect::<Vec<_>>(), [&name("c")]);
        client.ended(ReasonCode::AdministrativeAction).await;
        other.ping().await;
        let mut back = world.client(Identity::Anonymous, Version::V5);
        assert_eq!(back.connect(lasting(Version::V5, "c")).await.session_present, session_present);
        world.broker.kick(&[name("c")], true).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_without_a_connection_is_forgotten_and_not_kicked() {
    let world = World::new();
    let mut client = world.client(Identity::Anonymous, Version::V3_1_1);
    client.connect(lasting(Version::V3_1_1, "c")).await;
    client.send(Packet::Disconnect(Disconnect::new(ReasonCode::Success))).await;
    assert_eq!(client.hear().await, Heard::End);
    assert!(world.broker.kick(&[name("c")], false).await.is_empty());
    assert_eq!(all(&world, 10).len(), 1);
    assert_eq!(world.broker.kick(&[name("c")], true).await.len(), 1);
    assert!(all(&world, 10).is_empty());
}
